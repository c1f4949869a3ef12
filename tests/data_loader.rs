//! From examples to the batches of each step, through the public interface.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use lazytune::config::TrainOn;
use lazytune::data::loader::evaluation_batches;
use lazytune::data::{
    Batch, Dataset, Example, Loader, LoaderOptions, LoaderState, PADDING_SEGMENT, PrefetchingLoader,
    RowSource, Window,
};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;
use support::rows::section;

/// A data set whose rows are told apart by their first token.
fn numbered(lengths: &[usize]) -> Arc<Dataset> {
    let file: Arc<Path> = Arc::from(Path::new("rows.jsonl"));
    let examples = lengths.iter().enumerate().map(|(row, &length)| Example {
        input_ids: (0..length as u32).map(|offset| row as u32 * 100 + offset).collect(),
        supervised: vec![true; length],
        source: RowSource { file: Arc::clone(&file), row: row + 1 },
        content_hash: row as u64,
    });
    Arc::new(Dataset::from_examples(examples, &section(TrainOn::All, 32)))
}

fn options(batch_size: usize, gradient_accumulation_steps: usize) -> LoaderOptions {
    let seed = 42;
    LoaderOptions {
        batch_size,
        gradient_accumulation_steps,
        shuffle: true,
        packing: false,
        seed,
        max_length: 32,
    }
}

fn rows_of(window: &Window) -> Vec<usize> {
    window.batches.iter().flat_map(|batch| batch.sources.iter().map(|source| source.row)).collect()
}

fn take(loader: &mut Loader, count: usize) -> Vec<Window> {
    (0..count).map(|_| loader.next_window().unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_epoch_uses_every_row_once(
        lengths in proptest::collection::vec(2usize..=32, 1..90),
        batch_size in 1usize..6,
        accumulation in 1usize..4,
        shuffle in any::<bool>(),
        packing in any::<bool>(),
    ) {
        let dataset = numbered(&lengths);
        let options = LoaderOptions { shuffle, packing, ..options(batch_size, accumulation) };
        let mut loader = Loader::new(Arc::clone(&dataset), options).unwrap();
        let per_epoch = loader.windows_per_epoch();
        for epoch in 1..=2 {
            let windows = take(&mut loader, per_epoch);
            let mut rows: Vec<usize> = windows.iter().flat_map(rows_of).collect();
            if !shuffle && !packing {
                prop_assert!(rows.is_sorted());
            }
            rows.sort_unstable();
            prop_assert!(rows.into_iter().eq(1..=lengths.len()));
            let (last, full) = windows.split_last().unwrap();
            let sequences = |window: &Window| window.batches.iter().map(|batch| batch.rows).sum::<usize>();
            prop_assert!(full.iter().all(|window| sequences(window) == batch_size * accumulation));
            prop_assert!((1..=batch_size * accumulation).contains(&sequences(last)));
            prop_assert_eq!(last.epoch, f64::from(epoch));
            prop_assert_eq!(windows.iter().map(|window| window.tokens).sum::<usize>(), dataset.tokens());
            let supervised = windows.iter().map(|window| window.supervised_tokens).sum::<usize>();
            prop_assert_eq!(supervised, dataset.supervised_tokens());
            prop_assert_eq!(loader.windows_per_epoch(), per_epoch);
        }
    }

    #[test]
    fn any_state_resumes_to_the_same_windows(
        lengths in proptest::collection::vec(2usize..=32, 1..60),
        consumed in 0usize..40,
        shuffle in any::<bool>(),
        packing in any::<bool>(),
    ) {
        let dataset = numbered(&lengths);
        let options = LoaderOptions { shuffle, packing, ..options(2, 2) };
        let mut loader = Loader::new(Arc::clone(&dataset), options).unwrap();
        take(&mut loader, consumed);
        let saved = serde_json::to_string(loader.state()).unwrap();
        let expected = take(&mut loader, 10);
        let state: LoaderState = serde_json::from_str(&saved).unwrap();
        let mut resumed = Loader::from_state(dataset, options, state).unwrap();
        prop_assert_eq!(take(&mut resumed, 10), expected);
    }

    #[test]
    fn packed_segments_are_whole_rows(lengths in proptest::collection::vec(2usize..=32, 1..60)) {
        let dataset = numbered(&lengths);
        let mut loader = Loader::new(dataset, LoaderOptions { packing: true, ..options(3, 1) }).unwrap();
        for _ in 0..loader.windows_per_epoch() {
            for batch in loader.next_window().unwrap().batches {
                check_segments(&batch)?;
            }
        }
    }
}

/// Each segment is one row of [`numbered`] from its first token on, and positions count from its start.
fn check_segments(batch: &Batch) -> std::result::Result<(), TestCaseError> {
    for index in 0..batch.input_ids.len() {
        if batch.segments[index] == PADDING_SEGMENT {
            continue;
        }
        prop_assert_eq!(batch.input_ids[index] % 100, batch.positions[index]);
        if batch.positions[index] > 0 {
            prop_assert_eq!(batch.segments[index], batch.segments[index - 1]);
            prop_assert_eq!(batch.input_ids[index], batch.input_ids[index - 1] + 1);
        }
    }
    Ok(())
}

#[test]
fn splitting_a_window_differently_moves_no_row() {
    let lengths: Vec<usize> = (0..37).map(|row| row * 11 % 30 + 2).collect();
    let windows = |batch_size, accumulation| {
        let mut loader = Loader::new(numbered(&lengths), options(batch_size, accumulation)).unwrap();
        take(&mut loader, 20).iter().map(rows_of).collect::<Vec<_>>()
    };
    let whole = windows(4, 1);
    assert_eq!(windows(2, 2), whole);
    assert_eq!(windows(1, 4), whole);
}

#[test]
fn a_window_may_be_larger_than_the_data() {
    let mut loader = Loader::new(numbered(&[4, 9, 5]), options(usize::MAX, usize::MAX)).unwrap();
    assert_eq!(loader.windows_per_epoch(), 1);
    let mut rows = rows_of(&loader.next_window().unwrap());
    rows.sort_unstable();
    assert_eq!(rows, [1, 2, 3]);
    assert_eq!(loader.next_window().unwrap().epoch, 2.0);
}

#[test]
fn resuming_with_other_data_or_options_is_refused() {
    let dataset = numbered(&[4, 5, 6]);
    let state = Loader::new(Arc::clone(&dataset), options(2, 1)).unwrap().state().clone();
    let resume =
        |dataset: &Arc<Dataset>, options| Loader::from_state(Arc::clone(dataset), options, state.clone());
    assert!(resume(&dataset, options(1, 2)).is_ok());
    for (dataset, options, part) in [
        (&dataset, options(3, 1), "batch_size"),
        (&dataset, LoaderOptions { seed: 1, ..options(2, 1) }, "train.seed"),
        (&dataset, LoaderOptions { packing: true, ..options(2, 1) }, "data.packing"),
        (&numbered(&[4, 5]), options(2, 1), "the training data"),
    ] {
        let error = resume(dataset, options).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    let mut beyond = state.clone();
    beyond.window = 9;
    assert!(Loader::from_state(Arc::clone(&dataset), options(2, 1), beyond).is_err());
    assert!(Loader::new(dataset, options(0, 1)).is_err());
}

#[test]
fn evaluation_uses_every_row_once() {
    let dataset = numbered(&[9, 4, 30, 7, 2]);
    let batches: Vec<Batch> = evaluation_batches(&dataset, 2, 32).collect();
    let mut rows: Vec<usize> =
        batches.iter().flat_map(|batch| batch.sources.iter().map(|source| source.row)).collect();
    rows.sort_unstable();
    assert_eq!(rows, [1, 2, 3, 4, 5]);
    assert_eq!(batches.iter().map(|batch| batch.tokens).sum::<usize>(), dataset.tokens());
}

#[test]
fn prefetching_changes_nothing_and_stops_cleanly() {
    let dataset = numbered(&[3, 9, 4, 12, 5, 31, 7]);
    let mut plain = Loader::new(Arc::clone(&dataset), options(2, 1)).unwrap();
    let mut ahead = PrefetchingLoader::new(Loader::new(dataset, options(2, 1)).unwrap(), 3).unwrap();
    assert_eq!(ahead.windows_per_epoch(), 4);
    for _ in 0..9 {
        let window = ahead.next_window_blocking().unwrap();
        assert_eq!(window, plain.next_window().unwrap());
        assert_eq!(ahead.state(), plain.state());
    }
    drop(ahead);
}

#[tokio::test]
async fn prefetching_serves_asynchronous_code() {
    let loader = Loader::new(numbered(&[3, 9]), options(1, 1)).unwrap();
    let mut ahead = PrefetchingLoader::new(loader, 1).unwrap();
    let first = ahead.next_window().await.unwrap();
    assert_eq!((first.epoch, ahead.state().window), (0.5, 1));
}
