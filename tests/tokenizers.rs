//! Tokenizers rebuilt from GGUF files against transformers' (scripts/make_tokenizer_goldens.py).

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::path::{Path, PathBuf};

use lazytune::model::gguf::{GgufFile, GgufTokenizer};
use serde_json::Value;

fn folder() -> PathBuf {
    match std::env::var_os("LAZYTUNE_TOKENIZER_GOLDENS") {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf_tokenizers"),
    }
}

fn files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "gguf")).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
fn sentence_piece_tokenizers_give_the_ids_of_transformers() {
    for path in files() {
        let tokenizer = GgufTokenizer::from_file(&GgufFile::open(&path).unwrap()).unwrap().tokenizer;
        let rows: Vec<Value> =
            serde_json::from_slice(&std::fs::read(path.with_extension("json")).unwrap()).unwrap();
        for row in rows {
            let text = row["text"].as_str().unwrap();
            let ids: Vec<u32> = serde_json::from_value(row["ids"].clone()).unwrap();
            let encoding = tokenizer.encode(text, true).unwrap();
            assert_eq!(encoding.get_ids(), ids, "{}: {text:?}", path.display());
            assert_eq!(tokenizer.decode(&ids, true).unwrap(), row["decoded"], "{}: {text:?}", path.display());
        }
    }
}
