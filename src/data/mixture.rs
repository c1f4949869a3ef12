//! Which examples an epoch draws where sources have weights.
//!
//! An epoch draws as many examples as there are in all, `n`. A source of weight `w` gets `n * w / (sum of weights)` of the
//! draws, rounded so that they add up to `n` (largest remainder). With `d` draws and `m` examples, every example of the
//! source is drawn `d / m` times, rounded down, and `d % m` of them once more: which ones goes round the source, in an
//! order that the seed shuffles, from one epoch to the next. After any number of epochs two examples of a source have
//! been drawn equally often, or one of them once more. Nothing is remembered between epochs.

use crate::config::WeightedSource;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::HashMap;
use std::path::Path;

/// The examples of each source, and how many draws an epoch makes from it.
#[derive(Debug)]
pub(crate) struct Mixture {
    sources: Vec<(Vec<u32>, usize)>,
}

impl Mixture {
    /// For examples of these files; `None` where there are no weights. Files that no source names have weight 1.
    pub fn new<'a>(
        files: impl ExactSizeIterator<Item = &'a Path>,
        sources: &[WeightedSource],
        seed: u64,
    ) -> Option<Self> {
        if sources.is_empty() {
            return None;
        }
        let mut source_of: HashMap<&Path, usize> = HashMap::new();
        for (index, source) in sources.iter().enumerate() {
            source_of.extend(source.files.iter().map(|file| (file.as_path(), index)));
        }
        let mut rows = vec![Vec::new(); sources.len() + 1];
        let total = files.len();
        for (row, file) in files.enumerate() {
            let source = source_of.get(file).copied().unwrap_or(sources.len());
            rows[source].push(row as u32);
        }
        let weights = sources.iter().map(|source| source.weight).chain([1.0]);
        let filled: Vec<(Vec<u32>, f64)> =
            rows.into_iter().zip(weights).filter(|(rows, _)| !rows.is_empty()).collect();
        let weights: Vec<f64> = filled.iter().map(|(_, weight)| *weight).collect();
        let draws = apportion(total, &weights);
        let mut random = source_random(seed);
        let shuffled = filled.into_iter().map(|(mut rows, _)| {
            super::order::shuffle(&mut rows, &mut random);
            rows
        });
        Some(Self { sources: shuffled.zip(draws).collect() })
    }

    /// The examples of an epoch, ascending, some of them several times or not at all.
    pub fn draw(&self, epoch: u64) -> Vec<u32> {
        let mut drawn = Vec::new();
        for (rows, draws) in &self.sources {
            let (times, more) = (draws / rows.len(), draws % rows.len());
            (0..times).for_each(|_| drawn.extend_from_slice(rows));
            let start = (u128::from(epoch) * more as u128 % rows.len() as u128) as usize;
            drawn.extend(rows.iter().cycle().skip(start).take(more));
        }
        drawn.sort_unstable();
        drawn
    }
}

/// Whole numbers in proportion to the weights that add up to `total`.
fn apportion(total: usize, weights: &[f64]) -> Vec<usize> {
    // Scaled by the largest weight first, so that huge ones do not add up to infinity.
    let largest = weights.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let sum: f64 = weights.iter().map(|weight| weight / largest).sum();
    let exact: Vec<f64> = weights.iter().map(|weight| total as f64 * (weight / largest) / sum).collect();
    let mut parts: Vec<usize> = exact.iter().map(|part| part.floor() as usize).collect();
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()));
    let missing = total.saturating_sub(parts.iter().sum());
    by_remainder.iter().cycle().take(missing).for_each(|&index| parts[index] += 1);
    parts
}

fn source_random(seed: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..20].copy_from_slice(b"data mixture");
    ChaCha8Rng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::PathBuf;

    fn mixture(rows: &[usize], weights: &[f64]) -> Mixture {
        let name = |index: usize| PathBuf::from(format!("{index}.jsonl"));
        let source = |(index, &weight): (usize, &f64)| WeightedSource { files: vec![name(index)], weight };
        let sources: Vec<WeightedSource> = weights.iter().enumerate().map(source).collect();
        let files: Vec<PathBuf> =
            rows.iter().enumerate().flat_map(|(index, &count)| vec![name(index); count]).collect();
        Mixture::new(files.iter().map(PathBuf::as_path), &sources, 7).unwrap()
    }

    #[test]
    fn sources_get_their_share_of_the_draws() {
        let drawn = mixture(&[90, 10], &[1.0, 1.0]).draw(0);
        assert_eq!(drawn.len(), 100);
        assert_eq!(drawn.iter().filter(|&&row| row < 90).count(), 50);
        assert!((90..100).all(|row| drawn.iter().filter(|&&other| other == row).count() == 5));
        assert_eq!(apportion(10, &[1.0, 1.0, 1.0]), [4, 3, 3]);
        assert_eq!(apportion(3, &[f64::MAX, f64::MAX]), [2, 1]);
        assert_eq!(apportion(3, &[1.0, f64::MIN_POSITIVE]), [3, 0]);
    }

    proptest! {
        #[test]
        fn rows_of_a_source_are_drawn_equally_often(
            sources in proptest::collection::vec((1usize..20, 0.01f64..10.0), 1..4),
            epochs in 1u64..12,
        ) {
            let (rows, weights): (Vec<usize>, Vec<f64>) = sources.into_iter().unzip();
            let mixture = mixture(&rows, &weights);
            let total: usize = rows.iter().sum();
            let mut times = vec![0usize; total];
            for epoch in 0..epochs {
                let drawn = mixture.draw(epoch);
                prop_assert_eq!(drawn.len(), total);
                drawn.iter().for_each(|&row| times[row as usize] += 1);
            }
            let mut start = 0;
            for count in rows {
                let times = &times[start..start + count];
                prop_assert!(times.iter().max().unwrap() - times.iter().min().unwrap() <= 1, "{:?}", times);
                start += count;
            }
        }
    }
}
