//! From a row to token ids and the mask of trained tokens.

use super::row::Row;
use super::supervision::{Rendering, render_turns};
use super::tokenizer::{ChatTokenizer, Encoded};
use crate::config::TrainOn;
use crate::error::{Error, Result};
use std::ops::Range;

/// Token ids with the trained ones marked, both `[length]`.
pub type SupervisedTokens = (Vec<u32>, Vec<bool>);

/// Tokenizes a row.
///
/// - Conversations are printed by the chat template; trained turns include the token that ends them. Where the template
///   rewrites earlier turns, a conversation becomes several examples, and each trained turn is trained in one of them.
/// - Prompts with completions and text are taken as they are, with `bos` where the tokenizer uses one, and with `eos`.
/// - Tokenized rows pass through and need no tokenizer.
///
/// # Errors
/// The row needs a tokenizer or template that is missing, or the template refuses it.
pub fn encode_row(
    row: Row,
    tokenizer: Option<&ChatTokenizer>,
    train_on: TrainOn,
) -> Result<Vec<SupervisedTokens>> {
    if let Row::Tokenized { input_ids, supervised } = row {
        return Ok(vec![(input_ids, supervised)]);
    }
    let tokenizer = tokenizer.ok_or_else(|| {
        Error::data("the row needs a tokenizer, and the model has none")
            .hint("give tokenized rows: {\"input_ids\"}")
    })?;
    match row {
        Row::Chat(row) => {
            let renderings = render_turns(tokenizer.template()?, &row, train_on)?;
            return renderings.into_iter().map(|rendering| encode_rendering(rendering, tokenizer)).collect();
        }
        Row::Completion { prompt, completion } => {
            let trained_from = if train_on == TrainOn::All { 0 } else { prompt.len() };
            encode_plain(&(prompt + &completion), trained_from, tokenizer)
        }
        Row::Text(text) => encode_plain(&text, 0, tokenizer),
        Row::Tokenized { input_ids, supervised } => Ok((input_ids, supervised)),
    }
    .map(|tokens| vec![tokens])
}

/// Text whose bytes from `trained_from` on are trained, followed by `eos`.
fn encode_plain(text: &str, trained_from: usize, tokenizer: &ChatTokenizer) -> Result<SupervisedTokens> {
    let Encoded { mut ids, ranges } = tokenizer.encode_ranges_with_bos(text)?;
    // Tokens without text stand for an inserted bos, which nothing predicts.
    let mut supervised: Vec<bool> = ranges.iter().map(|range| range.end > trained_from).collect();
    let ends_itself = ids.last().is_some_and(|id| tokenizer.end_of_sequence_ids().contains(id));
    if let (false, Some(eos)) = (ends_itself, tokenizer.eos_id()) {
        ids.push(eos);
        supervised.push(true);
    }
    Ok((ids, supervised))
}

fn encode_rendering(rendering: Rendering, tokenizer: &ChatTokenizer) -> Result<SupervisedTokens> {
    let Rendering { text, otherwise, turns } = rendering;
    let Encoded { mut ids, ranges } = tokenizer.encode_ranges(&text)?;
    let mut supervised = vec![otherwise; ids.len()];
    for turn in turns {
        let tokens = overlapping_tokens(&ranges, &turn.range);
        let end =
            if turn.trained { end_of_turn(&text, &ids, &ranges, &tokens, tokenizer) } else { tokens.end };
        supervised[tokens.start..end].fill(turn.trained);
    }
    // Templates that end an answer with nothing but text leave the model no way to stop.
    let last_written = ranges.iter().rposition(|range| !is_blank(&text, range));
    let ends_itself = last_written.is_none_or(|index| tokenizer.is_special(ids[index]));
    let trained_to_the_end = last_written.is_some_and(|index| supervised[index]);
    if let (false, true, Some(eos)) = (ends_itself, trained_to_the_end, tokenizer.eos_id()) {
        ids.push(eos);
        supervised.push(true);
    }
    Ok((ids, supervised))
}

/// Tokens that share at least a byte with `bytes`. A token over the border to the turn counts as part of it: it holds
/// the first characters that the model has to write.
fn overlapping_tokens(ranges: &[Range<usize>], bytes: &Range<usize>) -> Range<usize> {
    let start = ranges.partition_point(|range| range.end <= bytes.start);
    let end = ranges.partition_point(|range| range.start < bytes.end);
    start..end.max(start)
}

/// End of the trained tokens of a turn: white space that the template prints after the end-of-turn token is never
/// generated, and so not trained.
fn end_of_turn(
    text: &str,
    ids: &[u32],
    ranges: &[Range<usize>],
    tokens: &Range<usize>,
    tokenizer: &ChatTokenizer,
) -> usize {
    let written = tokens.clone().rev().find(|&index| !is_blank(text, &ranges[index]));
    match written {
        Some(index) if tokenizer.is_special(ids[index]) => index + 1,
        _ => tokens.end,
    }
}

fn is_blank(text: &str, range: &Range<usize>) -> bool {
    text.get(range.clone()).is_some_and(|piece| piece.trim().is_empty())
}
