//! A GGUF file of any bytes opens as a model whose weights can be read, or is refused.
#![no_main]

use std::cell::RefCell;

use lazytune::model::ModelSource;
use libfuzzer_sys::fuzz_target;
use tempfile::NamedTempFile;

/// Weights beyond this are not read: a model may be large without its file being damaged.
const MAX_ELEMENTS: usize = 1 << 20;

thread_local! {
    static FILE: RefCell<Option<NamedTempFile>> = const { RefCell::new(None) };
}

fuzz_target!(|bytes: &[u8]| {
    FILE.with_borrow_mut(|file| {
        let file = file.get_or_insert_with(|| NamedTempFile::with_suffix(".gguf").expect("a temporary file"));
        std::fs::write(file.path(), bytes).expect("a written file");
        let Ok(source) = ModelSource::open_gguf(file.path()) else { return };
        for spec in source.config.tensor_specs().iter().filter(|spec| spec.elements() <= MAX_ELEMENTS) {
            let _ = source.weights.read_f32(&spec.name, &spec.shape);
        }
    });
});
