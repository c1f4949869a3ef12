//! The rows of a batch: what names them, which have to be computed, and the step's input made of them.

use super::Hidden;
use crate::data::{Batch, PADDING_SEGMENT};
use crate::error::Result;
use crate::executor::HostTensor;
use crate::graph::{DType, Shape, TensorType};

/// Names a row by its content: BLAKE3 of token ids, positions and segments without the padding.
pub type RowKey = [u8; 32];

/// The rows of one batch.
#[derive(Debug)]
pub struct PrefixRows {
    pub(super) rows: Vec<Row>,
    sequence: usize,
    /// Bytes of one token's hidden states.
    token_bytes: usize,
    /// Rows that [`Self::missing`] asked for.
    asked: Vec<usize>,
}

#[derive(Debug)]
pub(super) struct Row {
    pub key: RowKey,
    /// Up to the last one that is not padding.
    pub tokens: usize,
    pub hidden: Option<Hidden>,
}

impl PrefixRows {
    pub(super) fn of(batch: &Batch, token_bytes: usize) -> Self {
        let rows = (0..batch.rows).map(|row| Row::of(batch, row)).collect();
        Self { rows, sequence: batch.sequence, token_bytes, asked: Vec::new() }
    }

    /// The rows whose hidden states are not known, as a batch, or `None` if all are. Known ones fill it up to a power of
    /// two: each number of rows costs a plan.
    pub fn missing(&mut self, batch: &Batch) -> Option<Batch> {
        let (mut asked, known): (Vec<usize>, Vec<usize>) =
            (0..self.rows.len()).partition(|&row| self.rows[row].hidden.is_none());
        if asked.is_empty() {
            return None;
        }
        let filled = asked.len().next_power_of_two().min(self.rows.len());
        asked.extend(known.into_iter().take(filled - asked.len()));
        asked.sort_unstable();
        let missing = part(batch, &asked);
        self.asked = asked;
        Some(missing)
    }

    /// Takes what was computed for the missing rows, [rows, sequence, hidden]; gives back those that were not known.
    pub(super) fn fill(&mut self, computed: &[u8]) -> Vec<(RowKey, Hidden)> {
        let stride = (self.sequence * self.token_bytes).max(1);
        let mut found = Vec::new();
        for (&row, hidden) in self.asked.iter().zip(computed.chunks_exact(stride)) {
            let row = &mut self.rows[row];
            if row.hidden.is_none() {
                let hidden: Hidden = hidden[..row.tokens * self.token_bytes].into();
                found.push((row.key, hidden.clone()));
                row.hidden = Some(hidden);
            }
        }
        found
    }

    /// The step's input: [rows * sequence, width]. Padding repeats its row's last token, which is as finite as that.
    ///
    /// # Errors
    /// A shape error if the batch is too large for a tensor.
    pub fn hidden(&self, width: usize, dtype: DType) -> Result<HostTensor> {
        let stride = self.sequence * self.token_bytes;
        let mut bytes = vec![0; self.rows.len() * stride];
        for (row, to) in self.rows.iter().zip(bytes.chunks_exact_mut(stride.max(1))) {
            let Some(hidden) = &row.hidden else { continue };
            let (tokens, padding) = to.split_at_mut(hidden.len());
            tokens.copy_from_slice(hidden);
            let last = &hidden[hidden.len().saturating_sub(self.token_bytes)..];
            if !last.is_empty() {
                padding.chunks_exact_mut(self.token_bytes).for_each(|to| to.copy_from_slice(last));
            }
        }
        let shape = Shape::new(&[self.rows.len() * self.sequence, width])?;
        Ok(HostTensor::from_bytes(TensorType::new(shape, dtype), &bytes))
    }
}

impl Row {
    fn of(batch: &Batch, row: usize) -> Self {
        let whole = row * batch.sequence..(row + 1) * batch.sequence;
        let segments = &batch.segments[whole.clone()];
        let tokens = segments.iter().rposition(|&segment| segment != PADDING_SEGMENT).map_or(0, |at| at + 1);
        let real = whole.start..whole.start + tokens;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(tokens as u64).to_le_bytes());
        for values in [&batch.input_ids, &batch.positions, &batch.segments] {
            hasher.update(bytemuck::cast_slice(&values[real.clone()]));
        }
        Self { key: *hasher.finalize().as_bytes(), tokens, hidden: None }
    }
}

/// These rows of a batch, as far as the prefix reads them: no targets.
fn part(batch: &Batch, rows: &[usize]) -> Batch {
    let pick = |values: &[u32]| -> Vec<u32> {
        rows.iter()
            .flat_map(|row| &values[row * batch.sequence..(row + 1) * batch.sequence])
            .copied()
            .collect()
    };
    Batch {
        rows: rows.len(),
        sequence: batch.sequence,
        input_ids: pick(&batch.input_ids),
        positions: pick(&batch.positions),
        segments: pick(&batch.segments),
        targets: Vec::new(),
        supervised_tokens: 0,
        tokens: 0,
        sources: Vec::new(),
    }
}
