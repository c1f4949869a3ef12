//! Rectangles of tokens for one forward pass.

use super::example::{Example, RowSource};

/// A target that contributes nothing to the loss.
pub const IGNORE_TARGET: u32 = u32::MAX;

/// The segment of padding.
pub const PADDING_SEGMENT: u32 = u32::MAX;

/// One micro-batch. Every vector but `sources` is `[rows, sequence]`, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub rows: usize,
    pub sequence: usize,
    /// Padding has id 0.
    pub input_ids: Vec<u32>,
    /// Position in the segment; restarts at 0 in each.
    pub positions: Vec<u32>,
    /// Tokens attend, causally, to their own segment in their own row. Padding is [`PADDING_SEGMENT`].
    pub segments: Vec<u32>,
    /// What each position predicts: the next token of its segment, or [`IGNORE_TARGET`].
    pub targets: Vec<u32>,
    /// Positions with a target; the loss is a sum over these, divided by their number in the whole window.
    pub supervised_tokens: usize,
    /// Positions that are not padding.
    pub tokens: usize,
    pub sources: Vec<RowSource>,
}

impl Batch {
    /// Lays out sequences, each made of one or more examples, padded to a common length from few possible ones.
    pub fn collate(sequences: &[Vec<&Example>], max_length: usize) -> Self {
        let length = |sequence: &Vec<&Example>| sequence.iter().map(|example| example.len()).sum::<usize>();
        let longest = sequences.iter().map(length).max().unwrap_or(0);
        let sequence = bucket_length(longest, max_length);
        let size = sequences.len() * sequence;
        let mut batch = Self {
            rows: sequences.len(),
            sequence,
            input_ids: vec![0; size],
            positions: vec![0; size],
            segments: vec![PADDING_SEGMENT; size],
            targets: vec![IGNORE_TARGET; size],
            supervised_tokens: 0,
            tokens: 0,
            sources: Vec::new(),
        };
        for (row, examples) in sequences.iter().enumerate() {
            let mut start = row * sequence;
            for (segment, example) in examples.iter().enumerate() {
                batch.place(example, start, segment as u32);
                start += example.len();
            }
        }
        batch
    }

    /// Writes an example at flat position `start`.
    fn place(&mut self, example: &Example, start: usize, segment: u32) {
        let end = start + example.len();
        self.input_ids[start..end].copy_from_slice(&example.input_ids);
        self.segments[start..end].fill(segment);
        for (offset, position) in self.positions[start..end].iter_mut().enumerate() {
            *position = offset as u32;
        }
        let next_tokens = example.input_ids.iter().zip(&example.supervised).skip(1);
        for (target, (&token, &supervised)) in self.targets[start..end].iter_mut().zip(next_tokens) {
            if supervised {
                *target = token;
                self.supervised_tokens += 1;
            }
        }
        self.tokens += example.len();
        self.sources.push(example.source.clone());
    }
}

/// Rounds a length up to one of few: 16, 32, 48, 64, 96, 128, 192, 256, 384 ..., and `max_length` as the largest. Each
/// length that occurs costs one plan, and rounding wastes a third at most.
pub fn bucket_length(length: usize, max_length: usize) -> usize {
    let mut bucket = 16;
    while bucket < length {
        let three_halves = bucket + bucket / 2;
        bucket = if bucket.is_power_of_two() && bucket >= 32 {
            three_halves
        } else {
            (bucket + 1).next_power_of_two()
        };
    }
    bucket.min(max_length).max(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;
    use std::sync::Arc;

    fn example(tokens: &[(u32, bool)]) -> Example {
        Example {
            input_ids: tokens.iter().map(|token| token.0).collect(),
            supervised: tokens.iter().map(|token| token.1).collect(),
            source: RowSource { file: Arc::from(Path::new("rows.jsonl")), row: 1 },
            content_hash: 0,
        }
    }

    #[test]
    fn lengths_fall_into_few_buckets() {
        let mut buckets: Vec<usize> = (1..=1000).map(|length| bucket_length(length, 1000)).collect();
        buckets.dedup();
        assert_eq!(buckets, [16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1000]);
        assert_eq!(bucket_length(5, 8), 8);
    }

    #[test]
    fn a_packed_row_restarts_positions_and_predicts_nothing_across_segments() {
        let first = example(&[(5, false), (6, true)]);
        let second = example(&[(7, true), (8, false), (9, true)]);
        let batch = Batch::collate(&[vec![&first, &second], vec![&first]], 6);
        let (ignored, padding) = (IGNORE_TARGET, PADDING_SEGMENT);
        assert_eq!((batch.rows, batch.sequence), (2, 6));
        assert_eq!(batch.input_ids, [5, 6, 7, 8, 9, 0, 5, 6, 0, 0, 0, 0]);
        assert_eq!(batch.positions, [0, 1, 0, 1, 2, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(batch.segments[..7], [0, 0, 1, 1, 1, padding, 0]);
        assert_eq!(batch.targets[..7], [6, ignored, ignored, 9, ignored, ignored, 6]);
        assert_eq!((batch.tokens, batch.supervised_tokens, batch.sources.len()), (7, 3, 3));
    }

    proptest! {
        #[test]
        fn targets_are_the_next_tokens_of_the_same_segment(
            rows in proptest::collection::vec(
                proptest::collection::vec(proptest::collection::vec((0u32..50, any::<bool>()), 1..9), 1..4),
                1..5,
            ),
        ) {
            let rows: Vec<Vec<Example>> =
                rows.iter().map(|row| row.iter().map(|tokens| example(tokens)).collect()).collect();
            let sequences: Vec<Vec<&Example>> = rows.iter().map(|row| row.iter().collect()).collect();
            let batch = Batch::collate(&sequences, 64);
            let expected: usize = rows.iter().flatten().map(Example::supervised_tokens).sum();
            prop_assert_eq!(batch.supervised_tokens, expected);
            prop_assert_eq!(batch.targets.iter().filter(|&&target| target != IGNORE_TARGET).count(), expected);
            for (index, &target) in batch.targets.iter().enumerate() {
                if target != IGNORE_TARGET {
                    prop_assert!((index + 1) % batch.sequence != 0);
                    prop_assert_eq!(target, batch.input_ids[index + 1]);
                    prop_assert_eq!(batch.segments[index], batch.segments[index + 1]);
                    prop_assert_ne!(batch.segments[index], PADDING_SEGMENT);
                }
            }
        }
    }
}
