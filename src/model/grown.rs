//! A model whose token tables have more rows than its files.

use std::collections::BTreeMap;

use super::weights::Weights;
use crate::error::Result;

/// The token table and the output head: a row for each token.
const TABLES: [&str; 2] = ["model.embed_tokens.weight", "lm_head.weight"];

/// Weights with rows for tokens that the files know nothing of.
#[derive(Debug)]
pub struct Grown {
    pub(super) stored: Box<Weights>,
    /// Of each table.
    rows: usize,
    /// Rows beyond the stored ones where they are known, by table: `[rows - stored rows, hidden]`.
    tails: BTreeMap<String, Vec<f32>>,
}

impl Grown {
    pub(super) fn new(stored: Weights, rows: usize, tails: BTreeMap<String, Vec<f32>>) -> Self {
        Self { stored: Box::new(stored), rows, tails }
    }

    pub(super) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let mut shape = self.stored.shape(name)?;
        if TABLES.contains(&name)
            && let Some(rows) = shape.first_mut()
        {
            *rows = self.rows;
        }
        Some(shape)
    }

    /// Reads a tensor into `out`, whose length the caller has checked. An unknown row is the mean of the stored ones, so
    /// that its logit is the mean logit (Hewitt 2021, "Initializing new word embeddings for pretrained language models");
    /// transformers draws from a normal distribution around the same mean with 1e-9 of the rows' covariance.
    pub(super) fn read_into(&self, name: &str, out: &mut [f32]) -> Result<()> {
        let shape = self.stored.shape(name).unwrap_or_default();
        let stored: usize = shape.iter().product();
        let (known, unknown) = out.split_at_mut(stored.min(out.len()));
        self.stored.read_into(name, &shape, known)?;
        match self.tails.get(name) {
            Some(tail) if tail.len() == unknown.len() => unknown.copy_from_slice(tail),
            _ => {
                let width = shape.last().copied().unwrap_or(1).max(1);
                let mean = mean_row(known, width);
                unknown.chunks_mut(width).for_each(|row| row.copy_from_slice(&mean[..row.len()]));
            }
        }
        Ok(())
    }
}

fn mean_row(values: &[f32], width: usize) -> Vec<f32> {
    let mut sums = vec![0.0; width];
    for row in values.chunks_exact(width) {
        for (sum, &value) in sums.iter_mut().zip(row) {
            *sum += f64::from(value);
        }
    }
    let rows = (values.len() / width).max(1) as f64;
    sums.into_iter().map(|sum: f64| (sum / rows) as f32).collect()
}
