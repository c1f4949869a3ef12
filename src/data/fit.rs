//! The length limit: what becomes of rows that are longer than a sequence may be.

use super::encode::SupervisedTokens;
use crate::config::Overlong;

/// One row within the length limit, and what that took.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FittedRow {
    /// Each has at least one trained token and at most the limit's length; all come from the same row.
    pub examples: Vec<SupervisedTokens>,
    pub truncated: bool,
    pub dropped: bool,
    pub split: bool,
    /// Trained tokens that are left out with what was cut or dropped.
    pub lost_targets: usize,
    /// Pieces and renderings left out because nothing in them is trained.
    pub untrained: usize,
}

impl FittedRow {
    /// Applies the limit to the examples of one row.
    pub fn new(encoded: Vec<SupervisedTokens>, max_length: usize, overlong: Overlong) -> Self {
        let mut row = Self::default();
        for (mut input_ids, mut supervised) in encoded {
            if input_ids.len() <= max_length {
                row.keep(input_ids, supervised);
                continue;
            }
            match overlong {
                Overlong::Drop => {
                    row.dropped = true;
                    row.lost_targets += targets(&supervised);
                }
                Overlong::Truncate => {
                    row.truncated = true;
                    row.lost_targets += supervised[max_length..].iter().filter(|&&trained| trained).count();
                    input_ids.truncate(max_length);
                    supervised.truncate(max_length);
                    row.keep(input_ids, supervised);
                }
                Overlong::Split => {
                    row.split = true;
                    for (input_ids, supervised) in pieces(&input_ids, &supervised, max_length) {
                        row.keep(input_ids, supervised);
                    }
                }
            }
        }
        row
    }

    /// Whether nothing in the row is trained, whatever its length.
    pub fn unsupervised(&self) -> bool {
        self.examples.is_empty() && !self.dropped
    }

    fn keep(&mut self, mut input_ids: Vec<u32>, mut supervised: Vec<bool>) {
        if targets(&supervised) == 0 {
            self.untrained += 1;
            return;
        }
        input_ids.shrink_to_fit();
        supervised.shrink_to_fit();
        self.examples.push((input_ids, supervised));
    }
}

/// Consecutive stretches of at most `max_length` tokens. Each begins with the last token of the one before it, so that
/// every trained token but the row's first is predicted in exactly one of them.
fn pieces<'a>(
    input_ids: &'a [u32],
    supervised: &'a [bool],
    max_length: usize,
) -> impl Iterator<Item = SupervisedTokens> + 'a {
    let step = max_length.saturating_sub(1).max(1);
    (0..input_ids.len().saturating_sub(1)).step_by(step).map(move |start| {
        let end = (start + step + 1).min(input_ids.len());
        let mut marks = supervised[start..end].to_vec();
        if let (1.., Some(first)) = (start, marks.first_mut()) {
            *first = false;
        }
        (input_ids[start..end].to_vec(), marks)
    })
}

/// Trained tokens; the first one has nothing to be predicted from.
fn targets(supervised: &[bool]) -> usize {
    supervised.iter().skip(1).filter(|&&trained| trained).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tokens(supervised: &[bool]) -> SupervisedTokens {
        ((0..supervised.len() as u32).collect(), supervised.to_vec())
    }

    proptest! {
        #[test]
        fn nothing_is_lost_without_being_counted(
            supervised in proptest::collection::vec(any::<bool>(), 1..80),
            max_length in 2usize..20,
        ) {
            let all = targets(&supervised);
            for overlong in [Overlong::Truncate, Overlong::Drop, Overlong::Split] {
                let row = FittedRow::new(vec![tokens(&supervised)], max_length, overlong);
                let kept: usize = row.examples.iter().map(|(_, supervised)| targets(supervised)).sum();
                prop_assert_eq!(kept + row.lost_targets, all, "{:?}", overlong);
                prop_assert!(row.examples.iter().all(|(ids, marks)| ids.len() <= max_length && ids.len() == marks.len()));
                if overlong == Overlong::Split {
                    prop_assert_eq!(row.lost_targets, 0);
                }
            }
        }
    }

    #[test]
    fn pieces_overlap_by_the_token_that_predicts_the_next() {
        let row = FittedRow::new(vec![tokens(&[true; 7])], 3, Overlong::Split);
        let ids: Vec<&[u32]> = row.examples.iter().map(|(ids, _)| ids.as_slice()).collect();
        assert_eq!(ids, [&[0, 1, 2][..], &[2, 3, 4], &[4, 5, 6]]);
        assert_eq!(row.examples[1].1, [false, true, true]);
        assert!(row.split && !row.truncated && !row.unsupervised());
    }

    #[test]
    fn pieces_without_a_trained_token_are_counted() {
        let mut supervised = vec![false; 9];
        supervised[8] = true;
        let row = FittedRow::new(vec![tokens(&supervised)], 3, Overlong::Split);
        assert_eq!((row.examples.len(), row.untrained), (1, 3));
        let cut = FittedRow::new(vec![tokens(&supervised)], 3, Overlong::Truncate);
        assert_eq!((cut.unsupervised(), cut.lost_targets), (true, 1));
    }
}
