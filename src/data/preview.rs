//! Rows as text, with the trained stretches told apart.

use super::encode::SupervisedTokens;
use super::example::RowSource;
use super::row::RowKind;
use super::tokenizer::ChatTokenizer;
use serde::Serialize;

/// A row as it will be trained on.
#[derive(Debug)]
pub struct PreviewedRow {
    pub source: RowSource,
    pub kind: RowKind,
    /// Within the length limit; empty where the row is left out.
    pub examples: Vec<SupervisedTokens>,
    /// What happened to it, in words.
    pub remarks: Vec<&'static str>,
}

/// Consecutive tokens that are all trained, or all not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stretch {
    pub text: String,
    pub trained: bool,
    pub tokens: usize,
}

/// Splits an example where training begins and ends. The first token is never trained: nothing predicts it. Without a
/// tokenizer the text is the token ids.
pub fn stretches(
    (input_ids, supervised): &SupervisedTokens,
    tokenizer: Option<&ChatTokenizer>,
) -> Vec<Stretch> {
    let trained = |index: usize| index > 0 && supervised[index];
    let mut found = Vec::new();
    let mut start = 0;
    let mut before = String::new();
    for end in 1..=input_ids.len() {
        if end < input_ids.len() && trained(end) == trained(start) {
            continue;
        }
        let through = text_of(&input_ids[..end], tokenizer);
        // A character whose tokens lie on both sides reads differently once it is whole.
        let text = match through.strip_prefix(&before) {
            Some(text) => text.to_owned(),
            None => text_of(&input_ids[start..end], tokenizer),
        };
        found.push(Stretch { text, trained: trained(start), tokens: end - start });
        (start, before) = (end, through);
    }
    found
}

fn text_of(ids: &[u32], tokenizer: Option<&ChatTokenizer>) -> String {
    let numbers = || ids.iter().map(|id| format!("{id} ")).collect();
    tokenizer.and_then(|tokenizer| tokenizer.decode_with_special(ids).ok()).unwrap_or_else(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_begin_where_training_changes() {
        let example = (vec![5, 6, 7, 8], vec![true, true, false, true]);
        let found = stretches(&example, None);
        let pieces: Vec<(&str, bool, usize)> =
            found.iter().map(|piece| (piece.text.as_str(), piece.trained, piece.tokens)).collect();
        assert_eq!(pieces, [("5 ", false, 1), ("6 ", true, 1), ("7 ", false, 1), ("8 ", true, 1)]);
        assert!(stretches(&(vec![], vec![]), None).is_empty());
    }
}
