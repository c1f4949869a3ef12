//! Best-fit packing of rows into sequences of a fixed capacity.

use std::collections::BTreeMap;

/// Places rows, longest first, each into the fullest sequence that still has room (best-fit decreasing). Rows of equal
/// length are placed in the order of `rows`, so that the number of sequences depends on the lengths only.
///
/// `rows` are indices into `lengths`; every length is at most `capacity`. Costs O(n log n).
pub(crate) fn pack(rows: &[u32], lengths: &[usize], capacity: usize) -> Vec<Vec<u32>> {
    let length = |row: u32| lengths[row as usize];
    let mut longest_first = rows.to_vec();
    longest_first.sort_by_key(|&row| std::cmp::Reverse(length(row)));
    let mut sequences: Vec<Vec<u32>> = Vec::new();
    // Room left -> sequences with that much room.
    let mut open: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for row in longest_first {
        let best = open.range_mut(length(row)..).next();
        let (room, sequence) = match best.and_then(|(&room, indices)| Some((room, indices.pop()?))) {
            Some(found) => found,
            None => {
                sequences.push(Vec::new());
                (capacity, sequences.len() - 1)
            }
        };
        if open.get(&room).is_some_and(Vec::is_empty) {
            open.remove(&room);
        }
        sequences[sequence].push(row);
        let left = room.saturating_sub(length(row));
        if left > 0 {
            open.entry(left).or_default().push(sequence);
        }
    }
    sequences
}

/// Sequences that [`pack`] makes, from the number of rows of each length; needs no memory for each row.
pub(crate) fn packed_sequences(counts: &BTreeMap<usize, usize>, capacity: usize) -> usize {
    let mut sequences = 0;
    // Room left -> number of sequences with that much room.
    let mut open: BTreeMap<usize, usize> = BTreeMap::new();
    for (&length, &count) in counts.iter().rev() {
        for _ in 0..count {
            let room = match open.range_mut(length..).next() {
                Some((&room, count)) => {
                    *count -= 1;
                    if *count == 0 {
                        open.remove(&room);
                    }
                    room
                }
                None => {
                    sequences += 1;
                    capacity
                }
            };
            let left = room.saturating_sub(length);
            if left > 0 {
                *open.entry(left).or_default() += 1;
            }
        }
    }
    sequences
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fills_the_fullest_sequence_that_has_room() {
        let lengths = [4, 6, 3, 5, 2];
        assert_eq!(pack(&[0, 1, 2, 3, 4], &lengths, 10), [vec![1, 0], vec![3, 2, 4]]);
    }

    proptest! {
        #[test]
        fn every_row_once_and_no_sequence_too_long(
            lengths in proptest::collection::vec(1usize..=32, 0..200),
            turn in 0usize..200,
        ) {
            let mut rows: Vec<u32> = (0..lengths.len() as u32).collect();
            let in_order = pack(&rows, &lengths, 32);
            rows.rotate_left(turn % lengths.len().max(1));
            let packed = pack(&rows, &lengths, 32);
            prop_assert_eq!(packed.len(), in_order.len());
            let mut counts = BTreeMap::new();
            lengths.iter().for_each(|&length| *counts.entry(length).or_default() += 1);
            prop_assert_eq!(packed.len(), packed_sequences(&counts, 32));
            for sequence in &packed {
                prop_assert!(sequence.iter().map(|&row| lengths[row as usize]).sum::<usize>() <= 32);
            }
            let mut placed = packed.concat();
            placed.sort_unstable();
            prop_assert!(placed.into_iter().eq(0..lengths.len() as u32));
        }
    }
}
