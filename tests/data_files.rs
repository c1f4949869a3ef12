//! Data files: packed or not, split for validation, weighted, cached, damaged; through the public interface.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use lazytune::config::{DataSection, Overlong, TrainOn, Validation, WeightedSource};
use lazytune::data::{Dataset, Loader, LoaderOptions, LoaderState, Splits};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use support::rows::{section, tokenizer, write_rows};

fn numbered_rows(rows: std::ops::Range<usize>) -> String {
    rows.map(|row| format!("{{\"input_ids\": [{row}, {}, 7]}}\n", row + 1)).collect()
}

fn splits(section: &DataSection) -> Splits {
    Splits::load(section, None, &mut |_| {}).unwrap()
}

fn rows_of(dataset: &Dataset) -> Vec<usize> {
    dataset.examples().iter().map(|example| example.source.row).collect()
}

#[test]
fn order_is_kept_over_many_threads_and_chunks() {
    let lines: Vec<String> =
        (0..3000).map(|row| format!("{{\"input_ids\": [{row}, {}]}}", row + 1)).collect();
    let (_folder, path) = write_rows(&lines.join("\n"));
    let mut reported = Vec::new();
    let dataset =
        Dataset::load(&[path], None, &section(TrainOn::All, 16), &mut |rows| reported.push(rows)).unwrap();
    assert!(dataset.examples().iter().enumerate().all(|(row, example)| example.input_ids[0] as usize == row));
    assert!(dataset.examples().iter().enumerate().all(|(row, example)| example.source.row == row + 1));
    assert!(reported.is_sorted() && reported.last() == Some(&3000));
}

#[test]
fn validation_comes_from_a_split_or_from_files() {
    let lines: Vec<String> = (0..100).map(|row| format!("{{\"input_ids\": [{row}, 1]}}")).collect();
    let (_folder, path) = write_rows(&lines.join("\n"));
    let mut section = DataSection { train: vec![path.clone()], ..section(TrainOn::All, 16) };
    let parts = |section: &DataSection| {
        let splits = Splits::load(section, None, &mut |_| {}).unwrap();
        (splits.train.len(), splits.validation.map(|validation| validation.len()))
    };
    assert_eq!(parts(&section), (100, None));
    section.validation = Validation::Auto;
    let (train, validation) = parts(&section);
    assert!(train + validation.unwrap() == 100 && train > 70, "{train}");
    section.validation = Validation::Files(vec![path]);
    assert_eq!(parts(&section), (100, Some(100)));
}

#[test]
fn appended_rows_move_no_row_to_the_other_side() {
    let (_folder, path) = write_rows(&numbered_rows(0..400));
    let section =
        DataSection { train: vec![path.clone()], validation: Validation::Auto, ..section(TrainOn::All, 16) };
    let early = splits(&section);
    let mut file = std::fs::File::options().append(true).open(path).unwrap();
    file.write_all(numbered_rows(400..1000).as_bytes()).unwrap();
    let late = splits(&section);
    let sides = |splits: Splits| (rows_of(&splits.train), rows_of(&splits.validation.unwrap()));
    let ((early_train, early_validation), (late_train, late_validation)) = (sides(early), sides(late));
    assert!(late_train.starts_with(&early_train) && late_validation.starts_with(&early_validation));
    assert!(early_validation.len() > 10 && late_train.len() + late_validation.len() == 1000);
}

#[test]
fn packed_files_hold_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    let text = numbered_rows(0..5000);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(text.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd =
        ruzstd::encoding::compress_to_vec(text.as_bytes(), ruzstd::encoding::CompressionLevel::Fastest);
    let section = section(TrainOn::All, 16);
    let load = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        Dataset::load(&[path], None, &section, &mut |_| {})
    };
    let plain = load("rows.jsonl", text.as_bytes()).unwrap();
    assert_eq!(plain.len(), 5000);
    for (name, bytes) in [("rows.jsonl.gz", &gzip), ("rows.jsonl.zst", &zstd)] {
        assert_eq!(load(name, bytes).unwrap().fingerprint(), plain.fingerprint());
        let error = load(name, &bytes[..bytes.len() / 2]).unwrap_err();
        assert!(error.to_string().contains(&format!("{name}, after line ")), "{error}");
        assert!(error.hint_text().unwrap().contains("damaged or cut short"));
    }
    let error = load("rows.parquet", b"PAR1....").unwrap_err();
    assert!(error.to_string().contains("rows.parquet is a Parquet file") && error.hint_text().is_some());
    // A few kilobytes that unpack to a line of a hundred megabytes.
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    (0..100).for_each(|_| bomb.write_all(&vec![b' '; 1_000_000]).unwrap());
    let error = load("bomb.jsonl.gz", &bomb.finish().unwrap()).unwrap_err();
    assert!(error.to_string().ends_with("bomb.jsonl.gz:1: the line is longer than 10 MB"), "{error}");
}

#[test]
fn a_damaged_row_deep_in_a_file_is_named() {
    let rows = format!("{}{{\"input_ids\": [1, 2\n{}", numbered_rows(0..89_999), numbered_rows(0..10));
    let (_folder, path) = write_rows(&rows);
    let error = Dataset::load(&[path], None, &section(TrainOn::All, 16), &mut |_| {}).unwrap_err();
    assert!(
        error.to_string().contains("rows.jsonl:90000:19: invalid JSON: EOF while parsing a list"),
        "{error}"
    );
    assert_eq!(error.hint_text(), Some("each line must be one complete JSON object"));
}

#[test]
fn long_rows_are_split_without_losing_a_trained_token() {
    let (_folder, path) = write_rows("{\"input_ids\": [1, 2, 3, 4, 5, 6, 7]}\n{\"input_ids\": [8, 9]}\n");
    let split = DataSection { overlong: Overlong::Split, ..section(TrainOn::All, 3) };
    let dataset = Dataset::load(std::slice::from_ref(&path), None, &split, &mut |_| {}).unwrap();
    let ids: Vec<&[u32]> = dataset.examples().iter().map(|example| example.input_ids.as_slice()).collect();
    assert_eq!(ids, [&[1, 2, 3][..], &[3, 4, 5], &[5, 6, 7], &[8, 9]]);
    assert_eq!((dataset.supervised_tokens(), dataset.counts().split), (7, 1));
    let whole = Dataset::load(&[path], None, &section(TrainOn::All, 16), &mut |_| {}).unwrap();
    assert_eq!(whole.supervised_tokens(), 7);
    assert_eq!(dataset.notices(), ["1 row longer than data.max_length and split into several examples"]);
}

#[test]
fn duplicates_are_counted_and_left_out_on_request() {
    let (_folder, path) = write_rows(&[numbered_rows(0..5), numbered_rows(2..9)].concat());
    let load = |section: &DataSection| {
        Dataset::load(std::slice::from_ref(&path), None, section, &mut |_| {}).unwrap()
    };
    let all = section(TrainOn::All, 16);
    let (kept, unique) = (load(&all), load(&DataSection { deduplicate: true, ..all }));
    assert_eq!((kept.len(), kept.counts().duplicates, kept.counts().deduplicated), (12, 3, 0));
    assert_eq!((unique.len(), unique.counts().duplicates, unique.counts().deduplicated), (9, 3, 3));
    assert_eq!(rows_of(&unique), [1, 2, 3, 4, 5, 9, 10, 11, 12]);
    assert!(kept.notices()[0].contains("data.deduplicate = true"), "{:?}", kept.notices());
}

#[test]
fn rows_of_both_sides_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, rows: String| {
        std::fs::write(folder.path().join(name), rows).unwrap();
        folder.path().join(name)
    };
    let mut section = DataSection {
        train: vec![write("train.jsonl", numbered_rows(0..50))],
        validation: Validation::Files(vec![write("test.jsonl", numbered_rows(45..60))]),
        ..section(TrainOn::All, 16)
    };
    let Splits { train, validation } = splits(&section);
    let notice = train.leak_notice(&validation.unwrap()).unwrap();
    assert!(notice.starts_with("5 validation rows are also trained on"), "{notice}");
    let named = [folder.path().join("test.jsonl:1"), folder.path().join("train.jsonl:46")];
    assert!(notice.contains(&format!("{} is {}, ", named[0].display(), named[1].display())), "{notice}");
    section.validation = Validation::Auto;
    let Splits { train, validation } = splits(&section);
    assert_eq!(train.leak_notice(&validation.unwrap()), None);
}

/// A source of 90 rows and one of 10, drawn from equally often.
fn weighted(folder: &Path, weight: f64) -> Dataset {
    let write = |name: &str, rows: std::ops::Range<usize>| -> PathBuf {
        std::fs::write(folder.join(name), numbered_rows(rows)).unwrap();
        folder.join(name)
    };
    let (large, small) = (write("large.jsonl", 0..90), write("small.jsonl", 100..110));
    let sources = vec![
        WeightedSource { files: vec![large.clone()], weight: 1.0 },
        WeightedSource { files: vec![small.clone()], weight },
    ];
    let section = DataSection { train: vec![large, small], sources, ..section(TrainOn::All, 16) };
    splits(&section).train
}

#[test]
fn weights_decide_how_often_rows_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    for (shuffle, packing) in [(true, false), (false, false), (true, true), (false, true)] {
        let options = LoaderOptions {
            batch_size: 4,
            gradient_accumulation_steps: 1,
            shuffle,
            packing,
            seed: 3,
            max_length: 16,
        };
        let dataset = Arc::new(weighted(folder.path(), 1.0));
        let mut loader = Loader::new(dataset.clone(), options).unwrap();
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..loader.windows_per_epoch() {
            let window = loader.next_window().unwrap();
            for source in window.batches.iter().flat_map(|batch| &batch.sources) {
                *counts.entry((source.file.clone(), source.row)).or_insert(0) += 1;
            }
        }
        let small = folder.path().join("small.jsonl");
        let (small, large): (Vec<_>, Vec<_>) = counts.iter().partition(|((file, _), _)| **file == *small);
        assert!(small.len() == 10 && small.iter().all(|(_, times)| **times == 5), "{small:?}");
        assert!(large.len() == 50 && large.iter().all(|(_, times)| **times == 1), "{large:?}");

        loader.next_window().unwrap();
        let state: LoaderState =
            serde_json::from_str(&serde_json::to_string(loader.state()).unwrap()).unwrap();
        let mut resumed = Loader::from_state(dataset, options, state.clone()).unwrap();
        for _ in 0..30 {
            assert_eq!(resumed.next_window().unwrap(), loader.next_window().unwrap());
        }
        let other = Arc::new(weighted(folder.path(), 2.0));
        let error = Loader::from_state(other, options, state).unwrap_err();
        assert!(error.to_string().contains("the training data changed"), "{error}");
    }
}

#[test]
fn kept_tokens_are_used_and_damaged_ones_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let text: String =
        (0..3000).map(|row| format!("{{\"text\": \"{}{row}\"}}\n", "the lazy fox ".repeat(20))).collect();
    let (_rows, path) = write_rows(&text);
    let tokenizer = tokenizer(None);
    let cached = DataSection { cache_dir: Some(folder.path().to_path_buf()), ..section(TrainOn::All, 512) };
    let load = |section: &DataSection| {
        let files = std::slice::from_ref(&path);
        Dataset::load(files, Some(&tokenizer), section, &mut |_| {}).unwrap()
    };
    let files = || {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    let plain = load(&DataSection { cache: false, ..cached.clone() });
    assert!(files().is_empty());
    assert_eq!(load(&cached).examples(), plain.examples());
    let kept = files();
    assert_eq!(kept.len(), 3, "a file for each chunk of 1024 rows");
    assert_eq!(load(&cached).examples(), plain.examples());
    let whole = std::fs::read(&kept[0]).unwrap();
    let mut damaged = whole.clone();
    damaged[100] ^= 255;
    for bytes in [&damaged[..], &whole[..50], b""] {
        std::fs::write(&kept[0], bytes).unwrap();
        assert_eq!(load(&cached).examples(), plain.examples());
        assert_eq!(std::fs::read(&kept[0]).unwrap(), whole);
    }
    load(&DataSection { train_on: TrainOn::Last, ..cached.clone() });
    assert_eq!(files().len(), 6, "other settings, other tokens");
    // A folder that cannot be written costs time only.
    let blocked = DataSection { cache_dir: Some(path.join("inside-a-file")), ..cached };
    assert_eq!(load(&blocked).examples(), plain.examples());
}
