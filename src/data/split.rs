//! Training and validation rows.

use super::dataset::Dataset;
use super::tokenizer::ChatTokenizer;
use crate::config::{DataSection, Validation};
use crate::error::{Result, ResultExt};

/// The data sets of a run.
#[derive(Debug, Clone)]
pub struct Splits {
    pub train: Dataset,
    /// `None` when validation is off, or when there is only one row.
    pub validation: Option<Dataset>,
}

impl Splits {
    /// Loads everything that the `[data]` section names. `progress` is called with the rows read so far of a file set.
    ///
    /// # Errors
    /// As [`Dataset::load`].
    pub fn load(
        section: &DataSection,
        tokenizer: Option<&ChatTokenizer>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self> {
        let mut train = Dataset::load(&section.train, tokenizer, section, progress)
            .context(|| "while loading the training data".to_owned())?;
        train.sources.clone_from(&section.sources);
        match &section.validation {
            Validation::None => Ok(Self { train, validation: None }),
            Validation::Auto => Ok(train.split(section.validation_fraction)),
            Validation::Files(files) => {
                let validation = Dataset::load(files, tokenizer, section, progress)
                    .context(|| "while loading the validation data".to_owned())?;
                Ok(Self { train, validation: Some(validation) })
            }
        }
    }
}

impl Dataset {
    /// Splits off about `fraction` of the rows for validation, by the hash of their content: a row stays on its side
    /// when rows are appended, and equal rows stay together. With two or more different rows each side gets one: only
    /// where no hash lies below `fraction`, an appended row can take the place of the one row held out.
    pub fn split(self, fraction: f64) -> Splits {
        let hashes = || self.examples.iter().map(|example| example.content_hash);
        let Some(threshold) = validation_threshold(hashes(), fraction) else {
            return Splits { train: self, validation: None };
        };
        let Self { examples, counts, sources } = self;
        let (validation, train) = examples.into_iter().partition(|example| example.content_hash <= threshold);
        Splits {
            train: Dataset { examples: train, counts, sources },
            validation: Some(Dataset { examples: validation, counts, sources: Vec::new() }),
        }
    }
}

/// The largest hash of the validation side; `None` where all hashes are equal, which cannot be split. The lowest hash
/// goes to validation and the highest to training, whatever the fraction.
pub(crate) fn validation_threshold(hashes: impl Iterator<Item = u64>, fraction: f64) -> Option<u64> {
    let range = hashes.fold(None, |range: Option<(u64, u64)>, hash| {
        Some(range.map_or((hash, hash), |(low, high)| (low.min(hash), high.max(hash))))
    });
    let (lowest, highest) = range.filter(|(low, high)| low < high)?;
    Some(hash_limit(fraction).clamp(lowest, highest - 1))
}

/// About `fraction` of all hashes are not larger.
pub(crate) fn hash_limit(fraction: f64) -> u64 {
    (fraction.clamp(0.0, 1.0) * u64::MAX as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Example, RowSource};
    use proptest::prelude::*;
    use std::path::Path;
    use std::sync::Arc;

    fn dataset(hashes: &[u64]) -> Dataset {
        let file: Arc<Path> = Arc::from(Path::new("rows.jsonl"));
        let example = |(index, &content_hash): (usize, &u64)| Example {
            input_ids: vec![1, 2],
            supervised: vec![true, true],
            source: RowSource { file: Arc::clone(&file), row: index + 1 },
            content_hash,
        };
        Dataset { examples: hashes.iter().enumerate().map(example).collect(), ..Dataset::default() }
    }

    proptest! {
        #[test]
        fn sides_are_disjoint_complete_and_stable(
            hashes in proptest::collection::vec(any::<u64>(), 0..60),
            fraction in 0.0..1.0,
        ) {
            let Splits { train, validation } = dataset(&hashes).split(fraction);
            let validation = validation.unwrap_or_default();
            prop_assert_eq!(train.len() + validation.len(), hashes.len());
            let distinct = hashes.windows(2).any(|pair| pair[0] != pair[1]);
            prop_assert_eq!(distinct, !validation.is_empty());
            prop_assert!(hashes.is_empty() || !train.is_empty());
            let train_hashes: Vec<u64> = train.examples().iter().map(|example| example.content_hash).collect();
            prop_assert!(validation.examples().iter().all(|example| !train_hashes.contains(&example.content_hash)));
        }
    }

    #[test]
    fn appending_rows_moves_none_to_the_other_side() {
        let hashes: Vec<u64> = (0..200).map(|index: u64| index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        let side = |count: usize| {
            let validation = dataset(&hashes[..count]).split(0.1).validation.unwrap();
            validation.examples().iter().map(|example| example.source.row).collect::<Vec<_>>()
        };
        let (early, late) = (side(100), side(200));
        assert!(late.starts_with(&early));
        assert!((10..=30).contains(&late.len()), "{}", late.len());
    }
}
