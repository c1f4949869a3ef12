//! Training the rows of tokens that a run adds, as PEFT's `trainable_token_indices`.

use super::model::OpenModel;
use crate::adapter::{Adaptation, AdapterSpec, TOKEN_TABLES, TokenRows};
use crate::error::{Error, Result};

/// Has the rows of the configuration's tokens trained: in the token table, and in the head where that is apart. Tables
/// that are trained in full need none. An existing adapter must train them already.
///
/// # Errors
/// A user error if a table carries a LoRA pair, if half of a tied model's table is trained in full, or if the adapter to
/// continue from does not train them.
pub(super) fn train_rows(
    spec: &mut AdapterSpec,
    adaptation: &Adaptation,
    model: &OpenModel,
    continued: bool,
) -> Result<()> {
    let ids: Vec<usize> = model.added_ids.iter().map(|&id| id as usize).collect();
    let tied = model.source.config.tie_word_embeddings;
    let whole = TOKEN_TABLES.map(|name| adaptation.saved.contains_key(weight_name(name)));
    if tied && whole[0] != whole[1] {
        return Err(Error::user("the model's output head is its token table, and only one of them is trained in full")
            .hint("with model.add_tokens, name both of \"embed_tokens\" and \"lm_head\" in adapter.modules_to_save, or none"));
    }
    for (name, whole) in TOKEN_TABLES.into_iter().zip(whole) {
        let path = weight_name(name).trim_end_matches(".weight");
        if adaptation.pairs.contains_key(path) {
            return Err(Error::user(format!("the rows of tokens that are added cannot be trained beside a LoRA pair on {name}"))
                .hint(format!("with model.add_tokens, leave {name} out of adapter.target_modules; its rows are trained as they are")));
        }
        if whole || (tied && name == "lm_head") {
            continue;
        }
        if !continued {
            spec.trainable_token_indices.insert(name.to_owned(), ids.clone());
            continue;
        }
        let trained = spec.trainable_token_indices.get(name);
        if ids.iter().any(|id| !trained.is_some_and(|trained| trained.contains(id))) {
            return Err(Error::user(
                "the adapter to continue from does not train all tokens of model.add_tokens",
            )
            .hint("merge it first, and add the tokens to the merged model; or leave them out"));
        }
    }
    Ok(())
}

/// Rows of a table as they are in the model, `[ids, width]`.
///
/// # Errors
/// A data error if the table cannot be read.
pub(super) fn rows_of(model: &OpenModel, table: &str, rows: &TokenRows) -> Result<Vec<f32>> {
    let values = model.weight(table, &[model.source.config.vocab_size, rows.width])?;
    let row = |&id: &usize| values.get(id * rows.width..(id + 1) * rows.width).unwrap_or_default();
    Ok(rows.ids.iter().flat_map(row).copied().collect())
}

/// The name of a table's weight.
fn weight_name(module: &str) -> &'static str {
    if module == "lm_head" { "lm_head.weight" } else { "model.embed_tokens.weight" }
}
