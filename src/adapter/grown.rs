//! Adapters of models with more tokens than the base model has.

use std::collections::BTreeMap;
use std::path::Path;

use super::peft::{WEIGHTS, key};
use super::{peft_config, token_rows_name};
use crate::error::{Error, Result};
use crate::tensor_file::{SafetensorsFile, TensorSpec};

/// What PEFT appends to a table's path where it stores the table itself: plain, below trained rows, below a pair.
const COPIES: [&str; 3] = ["weight", "token_adapter.base_layer.weight", "base_layer.weight"];

/// How many tokens an adapter's model has.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GrownTables {
    /// Rows of the token table and the head.
    pub rows: usize,
    /// The rows beyond the base model's where the adapter stores them, by the name of the table's weight.
    pub tails: BTreeMap<String, Vec<f32>>,
}

/// The rows that the adapter in `folder` needs its model's `tables` (`[vocab, hidden]`) to have: no fewer than they have.
///
/// # Errors
/// A data error if the adapter is damaged.
pub fn grown_tables(folder: &Path, tables: &[TensorSpec]) -> Result<GrownTables> {
    let spec = peft_config::read(folder)?.spec;
    let vocab = tables.iter().map(|table| table.shape[0]).max().unwrap_or(0);
    let named = spec.trainable_token_indices.values().flatten().map(|&id| id.saturating_add(1)).max();
    let mut grown = GrownTables { rows: vocab.max(named.unwrap_or(0)), ..GrownTables::default() };
    let file = SafetensorsFile::open(&folder.join(WEIGHTS))?;
    for table in tables {
        let path = table.name.trim_end_matches(".weight");
        if let Some(entry) = file.entries().get(&key(&format!("{path}.lora_embedding_A"))) {
            grown.rows = grown.rows.max(entry.shape.last().copied().unwrap_or(0));
        }
        for copy in COPIES {
            let name = key(&format!("{path}.{copy}"));
            let Some(entry) = file.entries().get(&name) else { continue };
            let (&[rows, width], [_, hidden]) = (&entry.shape[..], &table.shape[..]) else { continue };
            if rows == table.shape[0] && copy == COPIES[0] && !spec.saves(path) {
                return Err(Error::data(format!("the adapter has the unexpected tensor {name}"))
                    .hint("PEFT stored a table that modules_to_save does not name: merge the adapter with PEFT first"));
            }
            if width == *hidden && rows > table.shape[0] {
                let values = file.read_f32(&name, &[rows, width])?;
                grown.tails.insert(table.name.clone(), values[table.shape[0] * width..].to_vec());
                grown.rows = grown.rows.max(rows);
            }
        }
    }
    Ok(grown)
}

/// Whether PEFT stores a table of the model, or the rows that a tied head shares with it, though they are not trained.
pub(super) fn is_table_copy(name: &str, shape: &[usize], model: &[TensorSpec]) -> bool {
    let tables = ["model.embed_tokens.weight", "lm_head.weight"];
    model.iter().filter(|weight| tables.contains(&weight.name.as_str())).any(|table| {
        let path = table.name.trim_end_matches(".weight");
        let copy = COPIES.iter().any(|copy| name == key(&format!("{path}.{copy}")));
        let shared = name == key(&token_rows_name(&table.name));
        (copy && shape == table.shape) || (shared && table.name == "lm_head.weight")
    })
}
