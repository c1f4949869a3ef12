//! A configuration of any bytes is loaded or refused, and what loads comes back from its own TOML.
#![no_main]

use std::cell::RefCell;

use lazytune::config;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

thread_local! {
    static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

fuzz_target!(|bytes: &[u8]| {
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| {
            let folder = tempfile::tempdir().expect("a temporary folder");
            std::fs::create_dir(folder.path().join("base")).expect("a model folder");
            std::fs::write(folder.path().join("base/config.json"), "{}").expect("a config");
            std::fs::write(folder.path().join("rows.jsonl"), "{}\n").expect("rows");
            folder
        });
        // The last line, where it begins with "--set", is an override.
        let text = String::from_utf8_lossy(bytes);
        let (file, set) = text.rsplit_once("\n--set ").map_or((&*text, None), |(file, set)| (file, Some(set)));
        let path = folder.path().join("run.toml");
        std::fs::write(&path, file).expect("a written file");
        let overrides: Vec<String> = set.into_iter().map(str::to_owned).collect();
        let Ok(loaded) = config::load(&path, &overrides) else { return };
        std::fs::write(&path, loaded.to_toml().expect("UTF-8 paths")).expect("a written file");
        assert_eq!(config::load(&path, &[]).expect("its own TOML"), loaded);
    });
});
