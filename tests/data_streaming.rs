//! Rows that are trained on while the files are read, through the public interface and the real binary.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use lazytune::Result;
use lazytune::config::{DataSection, Overlong, TrainOn};
use lazytune::data::{
    Dataset, HeldOut, Loader, LoaderOptions, LoaderState, StreamOptions, StreamingLoader, Window,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use support::prepared::{CONFIG, workspace};
use support::rows::section;
use support::workspace::steps;

const MAX_LENGTH: usize = 32;

/// Tokenized rows that are told apart by their first two tokens; every seventh is too long.
fn row(file: usize, row: usize) -> String {
    let length = if row % 7 == 6 { 50 } else { 2 + row * 11 % 30 };
    let ids: Vec<usize> = [file, row].into_iter().chain((2..length).map(|at| at % 50)).collect();
    json!({ "input_ids": ids }).to_string()
}

/// Files of rows with blank lines, one of them packed.
struct Files {
    folder: tempfile::TempDir,
    paths: Vec<PathBuf>,
}

fn files(counts: &[usize]) -> Files {
    let folder = tempfile::tempdir().unwrap();
    let write = |(file, &count): (usize, &usize)| {
        let lines: Vec<String> = (0..count).map(|number| row(file, number)).collect();
        let text = lines.join(if file == 0 { "\n" } else { "\n\n" });
        let path = folder.path().join(format!("{file}.jsonl"));
        let packed = file % 2 == 1;
        std::fs::write(&path, if packed { gzip(text.as_bytes()) } else { text.into_bytes() }).unwrap();
        path
    };
    let paths = counts.iter().enumerate().map(write).collect();
    Files { folder, paths }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

/// Rows are split, four sequences make a window.
fn options(files: &Files, shuffle_buffer: usize, shuffle: bool, packing: bool) -> StreamOptions {
    let section = DataSection {
        train: files.paths.clone(),
        overlong: Overlong::Split,
        streaming: true,
        shuffle_buffer,
        shuffle,
        packing,
        ..section(TrainOn::All, MAX_LENGTH)
    };
    let loader = LoaderOptions {
        batch_size: 2,
        gradient_accumulation_steps: 2,
        shuffle,
        packing,
        seed: 3,
        max_length: MAX_LENGTH,
    };
    StreamOptions { section, loader, vocab_size: 5000, held_out: Arc::default() }
}

fn open(options: &StreamOptions, state: Option<&LoaderState>) -> Result<StreamingLoader> {
    StreamingLoader::new(options.clone(), None, state)
}

fn take(loader: &mut StreamingLoader, count: usize) -> Vec<Window> {
    (0..count).map(|_| Window { notices: Vec::new(), ..loader.next_window().unwrap() }).collect()
}

/// The windows of the first epochs.
fn epochs(options: &StreamOptions, count: u64) -> Vec<Window> {
    let mut loader = open(options, None).unwrap();
    let mut windows = take(&mut loader, 1);
    while windows.last().unwrap().epoch < count as f64 {
        windows.extend(take(&mut loader, 1));
    }
    windows
}

/// Sequences of a window.
fn sequences(window: &Window) -> usize {
    window.batches.iter().map(|batch| batch.rows).sum()
}

/// How often each row is in some windows.
fn rows(windows: &[Window]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let sources = windows.iter().flat_map(|window| &window.batches).flat_map(|batch| &batch.sources);
    sources.for_each(|source| *counts.entry(source.to_string()).or_default() += 1);
    counts
}

#[test]
fn unshuffled_rows_come_as_from_memory() {
    let files = files(&[45, 30]);
    for buffer in [1, 7, 64, 1000] {
        let options = options(&files, buffer, false, false);
        let dataset = Dataset::load(&files.paths, None, &options.section, &mut |_| {}).unwrap();
        let mut memory = Loader::new(Arc::new(dataset), options.loader).unwrap();
        let per_epoch = memory.windows_per_epoch();
        for window in take(&mut open(&options, None).unwrap(), 2 * per_epoch) {
            assert_eq!(window.batches, memory.next_window().unwrap().batches, "buffer {buffer}");
        }
    }
}

#[test]
fn every_epoch_has_every_row_in_full_windows_near_its_place() {
    let files = files(&[400, 30, 130]);
    for packing in [false, true] {
        let options = options(&files, 60, true, packing);
        let windows = epochs(&options, 2);
        let half = windows.iter().position(|window| window.state_after.epoch == 1).unwrap();
        let (first, second) = windows.split_at(half);
        let all = rows(first);
        assert_eq!(all.len(), 560);
        assert_eq!(all, rows(second));
        assert_ne!(first[0].batches, second[0].batches);
        let full = first.iter().filter(|window| sequences(window) == 4).count();
        assert!(full + 2 >= first.len(), "{full} of {} windows are full", first.len());
        // A row is at most a buffer away from where it stands, and most are not where they stood.
        let numbers: Vec<usize> =
            first.iter().flat_map(|window| &window.batches[0].sources).map(|s| s.row).collect();
        assert!(!numbers.is_sorted());
        assert!(first.windows(2).all(|pair| pair[0].epoch <= pair[1].epoch));
        assert_eq!(first.last().unwrap().epoch, 1.0);
    }
}

#[test]
fn a_saved_position_continues_with_the_same_windows() {
    let files = files(&[70, 50]);
    for (packing, buffer) in [(false, 20), (true, 20), (true, 3)] {
        let options = options(&files, buffer, true, packing);
        let whole = epochs(&options, 2);
        for (done, window) in whole.iter().enumerate().take(whole.len() - 3) {
            let text = serde_json::to_string(&window.state_after).unwrap();
            let state: LoaderState = serde_json::from_str(&text).unwrap();
            let mut resumed = open(&options, Some(&state)).unwrap();
            assert_eq!(resumed.state(), &state);
            let left = (whole.len() - done - 1).min(12);
            let found = take(&mut resumed, left);
            assert!(found == whole[done + 1..][..left], "packing {packing}, after window {done}");
        }
    }
}

#[test]
fn other_rows_or_options_are_refused_and_later_rows_may_change() {
    let files = files(&[200]);
    let options = options(&files, 20, true, false);
    let windows = epochs(&options, 1);
    let state = &windows[9].state_after;
    let refused = |options: &StreamOptions| open(options, Some(state)).unwrap_err().to_string();

    let mut other = options.clone();
    other.section.shuffle_buffer = 21;
    assert!(refused(&other).contains("data.shuffle_buffer"), "{}", refused(&other));
    other = options.clone();
    other.loader.seed = 4;
    assert!(refused(&other).contains("train.seed"));
    other = options.clone();
    let renamed = files.folder.path().join("other.jsonl");
    std::fs::copy(&files.paths[0], &renamed).unwrap();
    other.section.train = vec![renamed];
    assert!(refused(&other).contains("the list of training files"));

    let text = std::fs::read_to_string(&files.paths[0]).unwrap();
    std::fs::write(&files.paths[0], format!("{text}\n{}", row(5, 1))).unwrap();
    let mut resumed = open(&options, Some(state)).unwrap();
    assert_eq!(take(&mut resumed, 5).last().unwrap().batches, windows[14].batches);
    std::fs::write(&files.paths[0], text.replacen("[0,", "[1,", 60)).unwrap();
    assert!(refused(&options).contains("the training data"), "{}", refused(&options));
    std::fs::write(&files.paths[0], &text[..100]).unwrap();
    assert!(!refused(&options).is_empty());
}

#[test]
fn held_out_rows_are_the_first_of_those_that_the_hash_chooses() {
    let files = files(&[300, 60]);
    let mut options = options(&files, 50, true, false);
    options.section.validation_fraction = 0.2;
    options.section.max_validation_rows = 9;
    let found = HeldOut::find(&files.paths, None, &options.section, &mut |_| {}).unwrap();
    assert_eq!(found.hashes.len(), 9);
    let all = Dataset::load(&files.paths, None, &options.section, &mut |_| {}).unwrap();
    let chosen = all.split(0.2).validation.unwrap();
    let places = |dataset: &Dataset| -> Vec<String> {
        let mut places: Vec<String> =
            dataset.examples().iter().map(|example| example.source.to_string()).collect();
        places.dedup();
        places
    };
    let held_out = places(&found.validation);
    assert_eq!(held_out[..], places(&chosen)[..9]);
    options.held_out = Arc::new(found.hashes);
    let trained = rows(&epochs(&options, 1));
    assert_eq!(trained.len(), 351);
    assert!(held_out.iter().all(|place| !trained.contains_key(place)));
}

#[test]
fn mistakes_are_found_where_they_are_read() {
    let files = files(&[4000]);
    let options = options(&files, 100, true, false);
    let mut text = std::fs::read_to_string(&files.paths[0]).unwrap();
    text.push_str("\n{\"input_ids\": [1,");
    std::fs::write(&files.paths[0], &text).unwrap();
    let mut loader = open(&options, None).unwrap();
    let error = (0..5000).find_map(|_| loader.next_window().err()).unwrap();
    assert!(error.to_string().contains("0.jsonl:4001"), "{error}");
    assert!(loader.next_window().is_err());

    std::fs::write(&files.paths[0], "{\"input_ids\": [1, 6000]}\n").unwrap();
    assert!(open(&options, None).unwrap_err().to_string().contains("token id 6000 does not exist"));
    std::fs::write(&files.paths[0], "{\"input_ids\": [1]}\n").unwrap();
    assert!(open(&options, None).unwrap_err().to_string().contains("nothing to train on"));
    std::fs::write(&files.paths[0], "\n\n").unwrap();
    assert!(open(&options, None).unwrap_err().to_string().contains("has no rows"));
}

#[test]
fn a_run_trains_up_to_a_bad_row_and_goes_on_once_it_is_mended() {
    let workspace = workspace();
    let mut lines: Vec<String> =
        (0..4000).map(|row| json!({"text": format!("row {row}, {}", row * 7 % 11)}).to_string()).collect();
    let good = std::mem::replace(&mut lines[3500], "{\"text\": ".to_owned());
    workspace.write("rows.jsonl", lines.join("\n"));
    let streamed = "streaming = true\nshuffle_buffer = 64\nmax_validation_rows = 5\nmax_length = 64";
    let config = CONFIG.replace("max_length = 64", streamed).replace("max_steps = 8", "max_steps = 2000");
    let config =
        config.replace("eval_steps = 4", "eval_steps = 500").replace("save_steps = 4", "save_steps = 0");
    workspace.write("run.toml", config.replace("batch_size = 4", "batch_size = 32"));
    let arguments = ["train", "run.toml", "--run-dir", "run"];
    let outcome = workspace.run(&arguments).exits(1);
    let outcome =
        outcome.says(&["rows.jsonl:3501", "invalid JSON", "rows are read while they are trained on"]);
    let done = steps(&workspace.path("run/metrics.jsonl")).len();
    assert!(done >= 80, "{done} steps\n{}", outcome.stderr);
    assert!(workspace.path(&format!("run/checkpoint-{done}")).exists());

    lines[3500] = good;
    workspace.write("rows.jsonl", lines.join("\n"));
    let arguments = [&arguments[..], &["--resume", "--set", "train.max_steps=130"]].concat();
    workspace.run(&arguments).exits(0).says(&[&format!("resuming after step {done}")]);
    assert_eq!(steps(&workspace.path("run/metrics.jsonl")).len(), 130);
}
