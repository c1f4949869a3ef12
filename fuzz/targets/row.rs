//! A data file of any bytes gives rows or errors.
#![no_main]

use std::cell::RefCell;

use lazytune::data::Row;
use lazytune::data::jsonl::LineReader;
use libfuzzer_sys::fuzz_target;
use tempfile::NamedTempFile;

thread_local! {
    static FILE: RefCell<Option<NamedTempFile>> = const { RefCell::new(None) };
}

fuzz_target!(|bytes: &[u8]| {
    FILE.with_borrow_mut(|file| {
        let file = file.get_or_insert_with(|| NamedTempFile::new().expect("a temporary file"));
        std::fs::write(file.path(), bytes).expect("a written file");
        // A file that begins as Parquet does is refused when it is opened.
        for line in LineReader::open(file.path()).into_iter().flatten() {
            let row = line.and_then(|line| line.parse()).and_then(Row::from_json);
            // Messages are printed to users: formatting one must not fail either.
            let _ = row.map_err(|error| format!("{error} {:?}", error.hint_text()));
        }
    });
});
