//! Which examples make a block.

use super::StreamPosition;
use crate::data::dataset::Dataset;
use crate::data::loader::LoaderOptions;
use crate::data::order::EpochOrder;
use crate::data::packing::packed_sequences;
use std::collections::BTreeMap;
use std::ops::Range;

/// Consecutive examples of an epoch, and the order in which they are trained on.
#[derive(Debug)]
pub(super) struct Block {
    pub epoch: u64,
    pub start: StreamPosition,
    pub dataset: Dataset,
    pub order: EpochOrder,
    /// Share of the epoch's bytes before it, and with it.
    pub part: Range<f64>,
    /// What happened to rows so far.
    pub notices: Vec<String>,
}

/// How many of the first examples make a block of whole windows; `None` where it takes more examples to tell. Up to
/// `buffer` of them do, or, where those do not fill a window, of twice as many, and so on. Beyond that, which examples
/// are there decides nothing, but that at least one is. At the `end` of the epoch a block may be left short.
pub(super) fn block_size(
    lengths: &[usize],
    buffer: usize,
    end: bool,
    options: &LoaderOptions,
) -> Option<usize> {
    let window = options.sequences_per_window().max(1);
    let mut considered = buffer.max(1);
    let made = loop {
        if considered > lengths.len() {
            return end.then_some(lengths.len());
        }
        match sequences(&lengths[..considered], options) {
            made if made >= window => break made,
            _ => considered = considered.saturating_mul(2),
        }
    };
    if considered == lengths.len() && !end {
        return None;
    }
    let wanted = made / window * window;
    // The largest count that makes no more sequences; one example more begins the next window.
    let (mut fits, mut too_many) = (0, considered + 1);
    while too_many - fits > 1 {
        let middle = fits + (too_many - fits) / 2;
        if sequences(&lengths[..middle], options) <= wanted {
            fits = middle;
        } else {
            too_many = middle;
        }
    }
    Some(fits)
}

/// Sequences that examples of these lengths make.
fn sequences(lengths: &[usize], options: &LoaderOptions) -> usize {
    if !options.packing {
        return lengths.len();
    }
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    lengths.iter().for_each(|&length| *counts.entry(length).or_default() += 1);
    packed_sequences(&counts, options.max_length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn options(window: usize, packing: bool) -> LoaderOptions {
        LoaderOptions {
            batch_size: window,
            gradient_accumulation_steps: 1,
            shuffle: true,
            packing,
            seed: 1,
            max_length: 32,
        }
    }

    proptest! {
        #[test]
        fn blocks_fill_their_windows_and_do_not_depend_on_what_follows(
            lengths in proptest::collection::vec(1usize..=32, 1..200),
            more in proptest::collection::vec(1usize..=32, 1..50),
            window in 1usize..9,
            buffer in 1usize..100,
            packing in any::<bool>(),
        ) {
            let options = options(window, packing);
            let Some(count) = block_size(&lengths, buffer, false, &options) else { return Ok(()) };
            prop_assert!(count >= 1 && count < lengths.len());
            let made = sequences(&lengths[..count], &options);
            // Best-fit makes fewer sequences of more rows now and then; a window is then left short.
            prop_assert!(made >= 1 && (packing || made.is_multiple_of(window)), "{} of {}", made, count);
            let all = [lengths, more].concat();
            for end in [false, true] {
                prop_assert_eq!(block_size(&all, buffer, end, &options), Some(count));
            }
        }
    }

    #[test]
    fn packing_that_comes_out_odd_leaves_the_last_rows_to_the_next_block() {
        assert_eq!(block_size(&[20; 12], 11, false, &options(4, true)), Some(8));
        assert_eq!(block_size(&[20; 11], 11, false, &options(4, true)), None);
        assert_eq!(block_size(&[16; 12], 11, false, &options(4, true)), Some(8));
    }

    #[test]
    fn a_small_buffer_is_doubled_until_it_fills_a_window() {
        assert_eq!(block_size(&[16; 9], 3, false, &options(4, true)), None);
        assert_eq!(block_size(&[16; 13], 3, false, &options(4, true)), Some(8));
        assert_eq!(block_size(&[16; 9], 3, false, &options(4, false)), Some(4));
        assert_eq!(block_size(&[16; 5], 3, true, &options(4, false)), Some(5));
    }
}
