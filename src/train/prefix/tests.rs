use std::path::Path;

use super::{DiskRows, Hidden, Kept, MemoryRows, PrefixRows, RowKey};
use crate::data::{Batch, PADDING_SEGMENT};
use crate::graph::DType;

const MODEL: [u8; 32] = [1; 32];
const OTHER: [u8; 32] = [2; 32];

fn key(row: u8) -> RowKey {
    [row; 32]
}

fn hidden(row: u8) -> Hidden {
    vec![row; 100].into()
}

/// Rows of real tokens, padded to four.
fn batch(rows: &[&[u32]]) -> Batch {
    let mut batch = Batch::collate(&[], 4);
    batch.sequence = 4;
    for row in rows {
        let padding = 4 - row.len();
        batch.input_ids.extend(row.iter().copied().chain(std::iter::repeat_n(0, padding)));
        batch.positions.extend((0..row.len() as u32).chain(std::iter::repeat_n(0, padding)));
        batch.segments.extend(std::iter::repeat_n(0, row.len()));
        batch.segments.extend(std::iter::repeat_n(PADDING_SEGMENT, padding));
        batch.rows += 1;
    }
    batch
}

#[test]
fn memory_keeps_the_first_rows_and_no_more_than_its_bound() {
    let mut rows = MemoryRows::new(2 * (100 + 128) + 227);
    let kept: Vec<Kept> = (1..=4).map(|row| rows.insert(key(row), &hidden(row))).collect();
    assert_eq!(kept, [Kept::Yes, Kept::Yes, Kept::Full, Kept::Full]);
    assert_eq!(rows.insert(key(1), &hidden(1)), Kept::Yes, "a known row needs no room");
    assert_eq!(rows.counts(), (2, 456, 683));
    assert_eq!(rows.get(&key(2), 100), Some(hidden(2)));
    assert_eq!((rows.get(&key(2), 99), rows.get(&key(3), 100)), (None, None));
}

#[test]
fn a_row_is_named_by_its_real_tokens() {
    let keys = |batch: &Batch| -> Vec<(RowKey, usize)> {
        PrefixRows::of(batch, 4).rows.iter().map(|row| (row.key, row.tokens)).collect()
    };
    let found = keys(&batch(&[&[5, 6], &[5, 6, 0], &[5, 6], &[]]));
    assert_eq!(found.iter().map(|row| row.1).collect::<Vec<_>>(), [2, 3, 2, 0]);
    assert!(found[0] == found[2] && found[0].0 != found[1].0);
    // The same tokens in other segments, at other positions, or padded further.
    let mut other = batch(&[&[5, 6]]);
    other.segments[1] = 1;
    assert_ne!(keys(&other)[0].0, found[0].0);
    let mut other = batch(&[&[5, 6]]);
    other.positions[1] = 0;
    assert_ne!(keys(&other)[0].0, found[0].0);
    let mut longer = batch(&[&[5, 6]]);
    longer.sequence = 5;
    [&mut longer.input_ids, &mut longer.positions].into_iter().for_each(|values| values.push(0));
    longer.segments.push(PADDING_SEGMENT);
    assert_eq!(keys(&longer)[0], found[0]);
}

#[test]
fn missing_rows_are_filled_up_to_a_power_of_two_and_padding_repeats_the_last_token() {
    let batch = batch(&[&[1], &[2, 2], &[3], &[4, 4, 4], &[5]]);
    // Two bytes a token: bf16 of one number.
    let mut rows = PrefixRows::of(&batch, 2);
    for at in [0, 2] {
        rows.rows[at].hidden = Some(vec![at as u8 + 1; 2].into());
    }
    let missing = rows.missing(&batch).unwrap();
    assert_eq!((missing.rows, missing.sequence), (4, 4), "rows 1, 3, 4 and a known one");
    assert_eq!(missing.input_ids, [1, 0, 0, 0, 2, 2, 0, 0, 4, 4, 4, 0, 5, 0, 0, 0]);
    let computed: Vec<u8> = (0..32).collect();
    let found = rows.fill(&computed);
    assert_eq!(found.iter().map(|(_, hidden)| hidden.to_vec()).collect::<Vec<_>>()[0], [8, 9, 10, 11]);
    assert_eq!(found.len(), 3);
    let input = rows.hidden(1, DType::Bf16).unwrap();
    assert_eq!(input.tensor.shape.dims(), [20, 1]);
    assert_eq!(input.bytes()[..16], [1, 1, 1, 1, 1, 1, 1, 1, 8, 9, 10, 11, 10, 11, 10, 11]);
    assert_eq!(input.bytes()[24..32], [16, 17, 18, 19, 20, 21, 20, 21]);
    assert!(rows.missing(&batch).is_none());
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn a_folder_keeps_rows_for_the_next_run_of_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let open = |model, limit| DiskRows::open(&folder.path().join("rows"), model, limit).unwrap();
    let mut rows = open(MODEL, 1 << 20);
    assert_eq!(rows.insert(key(1), &hidden(1)), Kept::Yes);
    assert_eq!(rows.get(&key(1), 100), Some(hidden(1)));
    let mut again = open(MODEL, 1 << 20);
    assert_eq!((again.get(&key(1), 100), again.get(&key(2), 100)), (Some(hidden(1)), None));
    assert_eq!(again.counts(), (1, 132, 1 << 20));
    assert_eq!(open(OTHER, 1 << 20).get(&key(1), 100), None);
}

#[test]
fn damaged_files_are_deleted_and_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut rows = DiskRows::open(folder.path(), MODEL, 1 << 20).unwrap();
    rows.insert(key(1), &hidden(1));
    let path = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&path).unwrap();
    for at in [0, 31, 32, 131] {
        let mut damaged = whole.clone();
        damaged[at] ^= 4;
        std::fs::write(&path, damaged).unwrap();
        assert_eq!(rows.get(&key(1), 100), None);
        assert_eq!((rows.counts().0, rows.counts().1, path.exists()), (0, 0, false));
        rows.insert(key(1), &hidden(1));
        assert_eq!(rows.get(&key(1), 100), Some(hidden(1)));
    }
    // Another row's file under this name.
    rows.insert(key(2), &hidden(2));
    let second = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    std::fs::copy(second.filter(|other| *other != path).last().unwrap(), &path).unwrap();
    assert_eq!((rows.get(&key(1), 100), rows.get(&key(2), 100)), (None, Some(hidden(2))));
}

#[test]
fn a_folder_stays_below_its_bound_and_other_models_make_room() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("notes.txt"), [0; 500]).unwrap();
    let mut other = DiskRows::open(folder.path(), OTHER, 1 << 20).unwrap();
    (1..=3).for_each(|row| assert_eq!(other.insert(key(row), &hidden(row)), Kept::Yes));
    let mut rows = DiskRows::open(folder.path(), MODEL, 3 * 132).unwrap();
    let kept: Vec<Kept> = (1..=4).map(|row| rows.insert(key(row), &hidden(row))).collect();
    assert_eq!(kept, [Kept::Yes, Kept::Yes, Kept::Yes, Kept::Full]);
    assert_eq!((rows.counts(), files(folder.path())), ((3, 396, 396), 4));
    // A smaller bound, and what a killed run left.
    let name = blake3::Hash::from_bytes(key(9)).to_hex();
    let owner = &blake3::Hash::from_bytes(MODEL).to_hex()[..32];
    std::fs::write(folder.path().join(format!("{owner}-{name}.7.tmp")), [0; 50]).unwrap();
    let rows = DiskRows::open(folder.path(), MODEL, 2 * 132).unwrap();
    assert_eq!((rows.counts(), files(folder.path())), ((2, 264, 264), 3));
    assert!(folder.path().join("notes.txt").exists());
}

#[test]
fn a_folder_that_cannot_be_used_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = DiskRows::open(&file, MODEL, 1000).unwrap_err();
    assert!(error.to_string().contains("frozen prefix cache"), "{error}");
    let mut rows = DiskRows::open(&folder.path().join("gone"), MODEL, 1 << 20).unwrap();
    std::fs::remove_dir(folder.path().join("gone")).unwrap();
    assert!(matches!(rows.insert(key(1), &hidden(1)), Kept::Failed(_)));
}
