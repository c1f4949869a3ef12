//! Parquet files as rows of every kind.

#![cfg(feature = "parquet")]
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use lazytune::config::TrainOn;
use lazytune::data::{Dataset, LoaderOptions, StreamOptions, StreamingLoader};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use support::prepared::{CONFIG, workspace};
use support::rows::{load, marked, section, tokenizer};

/// A column's values with the levels that say where lists begin and what is null.
enum Column<'a> {
    Text(&'a [&'a str], &'a [i16], &'a [i16]),
    Numbers(&'a [i64], &'a [i16], &'a [i16]),
}

/// Writes the same columns as each of `groups` row groups.
fn write(path: &Path, schema: &str, columns: &[Column], groups: usize, compression: Compression) {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let mut file =
        SerializedFileWriter::new(std::fs::File::create(path).unwrap(), schema, properties).unwrap();
    for _ in 0..groups {
        let mut group = file.next_row_group().unwrap();
        for column in columns {
            let mut writer = group.next_column().unwrap().unwrap();
            match column {
                Column::Text(values, definitions, repetitions) => {
                    let values: Vec<ByteArray> = values.iter().map(|&text| text.into()).collect();
                    let typed = writer.typed::<ByteArrayType>();
                    typed.write_batch(&values, Some(definitions), Some(repetitions)).unwrap();
                }
                Column::Numbers(values, definitions, repetitions) => {
                    let typed = writer.typed::<Int64Type>();
                    typed.write_batch(values, Some(definitions), Some(repetitions)).unwrap();
                }
            }
            writer.close().unwrap();
        }
        group.close().unwrap();
    }
    file.close().unwrap();
}

const CONVERSATIONS: &str = "message schema {
    optional group messages (LIST) { repeated group list { optional group element {
        optional binary role (UTF8); optional binary content (UTF8); optional binary name (UTF8);
    } } }
    optional binary text (UTF8);
    optional group input_ids (LIST) { repeated group list { optional int64 element; } }
}";

/// A conversation, a text, and token ids, over and over.
fn mixed(folder: &Path, groups: usize, compression: Compression) -> PathBuf {
    let path = folder.join("rows.parquet");
    let columns = [
        Column::Text(&["user", "assistant"], &[4, 4, 0, 0], &[0, 1, 0, 0]),
        Column::Text(&["Hello", "Hi"], &[4, 4, 0, 0], &[0, 1, 0, 0]),
        Column::Text(&[], &[3, 3, 0, 0], &[0, 1, 0, 0]),
        Column::Text(&["some text"], &[0, 1, 0], &[0, 0, 0]),
        Column::Numbers(&[5, 6, 7], &[0, 0, 3, 3, 3], &[0, 0, 0, 1, 1]),
    ];
    write(&path, CONVERSATIONS, &columns, groups, compression);
    path
}

#[test]
fn rows_are_what_they_would_be_as_json_lines() {
    let folder = tempfile::tempdir().unwrap();
    let (tokenizer, section) = (tokenizer(None), section(TrainOn::Assistant, 512));
    let json = [
        serde_json::json!({"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]}),
        serde_json::json!({"text": "some text"}),
        serde_json::json!({"input_ids": [5, 6, 7]}),
    ];
    let expected = load(&json, &tokenizer, TrainOn::Assistant).unwrap();
    for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::ZSTD(Default::default())]
    {
        let path = mixed(folder.path(), 2, compression);
        let dataset = Dataset::load(&[path], Some(&tokenizer), &section, &mut |_| {}).unwrap();
        assert_eq!(dataset.len(), 6);
        for (index, example) in dataset.examples().iter().enumerate() {
            assert_eq!(marked(example, &tokenizer), marked(&expected.examples()[index % 3], &tokenizer));
            assert_eq!(example.content_hash, expected.examples()[index % 3].content_hash);
            assert_eq!(example.source.row, index + 1);
        }
    }
}

#[test]
fn a_streamed_file_is_continued() {
    let folder = tempfile::tempdir().unwrap();
    let path = mixed(folder.path(), 40, Compression::SNAPPY);
    let section = lazytune::config::DataSection {
        train: vec![path],
        streaming: true,
        shuffle_buffer: 10,
        ..section(TrainOn::All, 64)
    };
    let loader = LoaderOptions {
        batch_size: 2,
        gradient_accumulation_steps: 1,
        shuffle: true,
        packing: true,
        seed: 1,
        max_length: 64,
    };
    let options = StreamOptions { section, loader, vocab_size: 100_000, held_out: Arc::default() };
    let tokenizer = Arc::new(tokenizer(None));
    let open = |state| StreamingLoader::new(options.clone(), Some(Arc::clone(&tokenizer)), state).unwrap();
    let mut whole = open(None);
    let windows: Vec<_> = (0..30).map(|_| whole.next_window().unwrap()).collect();
    let mut resumed = open(Some(&windows[11].state_after));
    for window in &windows[12..] {
        let next = resumed.next_window().unwrap();
        assert_eq!((&next.batches, next.epoch), (&window.batches, window.epoch));
    }
}

#[test]
fn damage_is_an_error_and_runs_train() {
    let workspace = workspace();
    let path = mixed(&workspace.path("."), 8, Compression::SNAPPY);
    workspace.write("run.toml", CONFIG.replace("rows.jsonl", "rows.parquet"));
    let outcome = workspace.run(&["data", "run.toml", "--plain", "--rows", "3"]).exits(0);
    assert!(outcome.stdout.contains("rows.parquet:1  messages"), "{}", outcome.stdout);
    assert!(
        outcome.stdout.contains("read         24 rows: 8 messages, 8 text, 8 tokenized"),
        "{}",
        outcome.stdout
    );
    workspace.run(&["train", "run.toml", "--run-dir", "run"]).exits(0);

    let whole = std::fs::read(&path).unwrap();
    for length in [4, 40, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        workspace.run(&["data", "run.toml"]).exits(1).says(&["rows.parquet", "cannot be read", "hint: "]);
    }
    for at in (8..whole.len() - 8).step_by(7) {
        let mut broken = whole.clone();
        broken[at] ^= 0xff;
        std::fs::write(&path, &broken).unwrap();
        let code = workspace.run(&["data", "run.toml"]).code;
        assert!([0, 1].contains(&code), "byte {at}: exit code {code}");
    }
}
