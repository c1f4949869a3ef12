//! Which rows make up each optimizer step of an epoch.

use super::packing::pack;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Windows whose rows are sorted by length together. More windows waste less padding; fewer mix rows better.
const WINDOWS_PER_GROUP: usize = 16;

/// Everything but the data and the epoch that decides the order of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OrderOptions {
    /// Sequences in one window, over all its micro-batches.
    pub window: usize,
    pub shuffle: bool,
    pub packing: bool,
    pub seed: u64,
    /// Capacity of a packed sequence, in tokens.
    pub max_length: usize,
    /// Which part of the epoch's rows these are, where they are not read all at once.
    pub block: u64,
}

/// The sequences of one epoch, in training order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EpochOrder {
    /// Rows of all sequences, back to back.
    rows: Vec<u32>,
    /// Where each sequence starts in `rows`, and where the last one ends.
    starts: Vec<usize>,
    window: usize,
}

impl EpochOrder {
    /// Orders rows of the given lengths. Without shuffling and packing it is their own order. Shuffling permutes
    /// rows, sorts them by length within groups of windows, and permutes the windows.
    pub fn new(lengths: &[usize], options: &OrderOptions, epoch: u64) -> Self {
        Self::of_rows((0..lengths.len() as u32).collect(), lengths, options, epoch)
    }

    /// The same for some of the rows, which may be listed several times.
    pub fn of_rows(mut rows: Vec<u32>, lengths: &[usize], options: &OrderOptions, epoch: u64) -> Self {
        // A window beyond the whole epoch changes nothing but the size of the products below.
        let window = options.window.clamp(1, rows.len().max(1));
        let mut random = epoch_random(options, epoch);
        if options.shuffle {
            shuffle(&mut rows, &mut random);
        }
        let mut sequences: Vec<Vec<u32>> = if options.packing {
            pack(&rows, lengths, options.max_length)
        } else {
            rows.into_iter().map(|row| vec![row]).collect()
        };
        if options.shuffle {
            if options.packing {
                shuffle(&mut sequences, &mut random);
            }
            let length =
                |sequence: &Vec<u32>| sequence.iter().map(|&row| lengths[row as usize]).sum::<usize>();
            sequences = bucket_by_length(sequences, length, window, &mut random);
        } else if options.packing {
            sequences.iter_mut().for_each(|sequence| sequence.sort_unstable());
            sequences.sort_by_key(|sequence| sequence.first().copied());
        }
        let mut starts = Vec::with_capacity(sequences.len() + 1);
        starts.push(0);
        starts.extend(sequences.iter().scan(0, |end, sequence| {
            *end += sequence.len();
            Some(*end)
        }));
        Self { rows: sequences.concat(), starts, window }
    }

    /// Optimizer steps in the epoch.
    pub fn windows(&self) -> usize {
        (self.starts.len() - 1).div_ceil(self.window)
    }

    /// The sequences of a window, each as its rows; only the last window may have fewer than the others.
    pub fn window(&self, index: usize) -> Vec<&[u32]> {
        let sequences = self.starts.len() - 1;
        let first = (index * self.window).min(sequences);
        let last = (first + self.window).min(sequences);
        self.starts[first..=last].windows(2).map(|bounds| &self.rows[bounds[0]..bounds[1]]).collect()
    }
}

/// Sorts sequences by length within groups of windows, then permutes the full windows. What does not fill a window
/// comes last and keeps its random choice of rows.
fn bucket_by_length(
    mut sequences: Vec<Vec<u32>>,
    length: impl Fn(&Vec<u32>) -> usize,
    window: usize,
    random: &mut ChaCha8Rng,
) -> Vec<Vec<u32>> {
    let mut rest = sequences.split_off(sequences.len() / window * window);
    rest.sort_by_key(&length);
    for group in sequences.chunks_mut(window * WINDOWS_PER_GROUP) {
        group.sort_by_key(&length);
    }
    let mut windows: Vec<&[Vec<u32>]> = sequences.chunks(window).collect();
    shuffle(&mut windows, random);
    let mut ordered: Vec<Vec<u32>> = windows.concat();
    ordered.append(&mut rest);
    ordered
}

/// A generator of its own for each epoch and block, so that any can be replayed without the ones before it.
fn epoch_random(options: &OrderOptions, epoch: u64) -> ChaCha8Rng {
    let mut random = seeded(options.seed, epoch, b"data order");
    random.set_stream(options.block);
    random
}

/// The order in which the files of an epoch are read.
pub(crate) fn file_order(files: usize, shuffled: bool, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..files).collect();
    if shuffled {
        shuffle(&mut order, &mut seeded(seed, epoch, b"file order"));
    }
    order
}

fn seeded(seed: u64, epoch: u64, purpose: &[u8; 10]) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&epoch.to_le_bytes());
    key[16..26].copy_from_slice(purpose);
    ChaCha8Rng::from_seed(key)
}

/// Fisher-Yates; the bias of the multiplication is below 2^-32 for any slice that fits in memory.
pub(super) fn shuffle<T>(items: &mut [T], random: &mut ChaCha8Rng) {
    for last in (1..items.len()).rev() {
        let choice = (u128::from(random.next_u64()) * (last as u128 + 1)) >> 64;
        items.swap(last, choice as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: OrderOptions =
        OrderOptions { window: 4, shuffle: true, packing: false, seed: 7, max_length: 64, block: 0 };

    fn flat(order: &EpochOrder) -> Vec<u32> {
        (0..order.windows()).flat_map(|index| order.window(index).concat()).collect()
    }

    #[test]
    fn without_shuffling_rows_keep_their_order() {
        let lengths = [5, 1, 9, 2, 2];
        let order = EpochOrder::new(&lengths, &OrderOptions { shuffle: false, ..OPTIONS }, 3);
        assert_eq!(flat(&order), [0, 1, 2, 3, 4]);
        assert_eq!(order.window(1), [&[4]]);
        assert!(order.window(2).is_empty());
    }

    #[test]
    fn epochs_and_seeds_differ_and_repeat() {
        let lengths: Vec<usize> = (0..50).map(|row| row % 7 + 1).collect();
        let order = |seed, epoch| flat(&EpochOrder::new(&lengths, &OrderOptions { seed, ..OPTIONS }, epoch));
        assert_eq!(order(7, 0), order(7, 0));
        assert_ne!(order(7, 0), order(7, 1));
        assert_ne!(order(7, 0), order(8, 0));
    }

    #[test]
    fn windows_hold_rows_of_similar_length() {
        let lengths: Vec<usize> = (0..640).map(|row| row * 37 % 64 + 1).collect();
        let order = EpochOrder::new(&lengths, &OPTIONS, 0);
        let spread = |index| {
            let window: Vec<usize> =
                order.window(index).concat().iter().map(|&row| lengths[row as usize]).collect();
            window.iter().max().unwrap() - window.iter().min().unwrap()
        };
        let average = (0..order.windows()).map(spread).sum::<usize>() / order.windows();
        assert!(average <= 6, "rows of a window differ by {average} tokens");
        let first_rows: Vec<usize> =
            (0..order.windows()).map(|index| lengths[order.window(index)[0][0] as usize]).collect();
        assert!(!first_rows.is_sorted());
    }
}
