//! `trainable_token_indices`: rows of the token table and of the output head that are trained beside the pairs.

use std::collections::{BTreeMap, BTreeSet};

use super::AdapterSpec;
use crate::error::{Error, Result};
use crate::tensor_file::TensorSpec;

/// Modules with a row for each token.
pub const TOKEN_TABLES: [&str; 2] = ["embed_tokens", "lm_head"];

/// Rows of a table that are trained in the place of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRows {
    /// In the order in which the adapter stores them.
    pub ids: Vec<usize>,
    pub width: usize,
}

/// Name of the trained rows `[ids, hidden]` of the table whose weight has this name.
pub fn token_rows_name(weight: &str) -> String {
    format!("{}.token_adapter.trainable_tokens_delta", weight.trim_end_matches(".weight"))
}

impl AdapterSpec {
    /// The tables among `weights` with rows that `trainable_token_indices` names.
    ///
    /// # Errors
    /// A user error for another module, an id beyond the vocabulary or one that is named twice.
    pub(super) fn token_rows(&self, weights: &[TensorSpec]) -> Result<BTreeMap<String, TokenRows>> {
        let mut tables = BTreeMap::new();
        for (module, ids) in self.trainable_token_indices.iter().filter(|(_, ids)| !ids.is_empty()) {
            let name = module.rsplit('.').next().unwrap_or(module);
            let is_table = |weight: &&TensorSpec| {
                weight.name == format!("{name}.weight") || weight.name.ends_with(&format!(".{name}.weight"))
            };
            let table = weights.iter().find(is_table).filter(|_| TOKEN_TABLES.contains(&name));
            let Some(table) = table else {
                return Err(Error::user(format!(
                    "trainable_token_indices: {module} has no row for each token"
                ))
                .hint(format!("the modules that have are {}", TOKEN_TABLES.join(", "))));
            };
            let (rows, width) = (table.shape[0], table.shape[1]);
            let mut met = BTreeSet::new();
            for &id in ids {
                if id >= rows {
                    return Err(Error::user(format!(
                        "trainable_token_indices: {id} is beyond the {rows} tokens of the model"
                    ))
                    .hint(
                        "the adapter was made for more tokens: its folder must hold their tokenizer.json",
                    ));
                }
                if !met.insert(id) {
                    return Err(Error::user(format!("trainable_token_indices names {id} twice")));
                }
            }
            tables.insert(table.name.clone(), TokenRows { ids: ids.clone(), width });
        }
        Ok(tables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(module: &str, ids: &[usize]) -> Result<BTreeMap<String, TokenRows>> {
        let mut spec = AdapterSpec {
            r: 1,
            alpha: 1.0,
            dropout: 0.0,
            use_rslora: false,
            use_dora: false,
            target_modules: crate::adapter::TargetModules::AllLinear,
            layers_to_transform: None,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            modules_to_save: Vec::new(),
            trainable_token_indices: BTreeMap::new(),
        };
        spec.trainable_token_indices.insert(module.into(), ids.to_vec());
        let names = ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "lm_head.weight"];
        spec.token_rows(&names.map(|name| TensorSpec::new(name, &[9, 4])))
    }

    #[test]
    fn tables_are_found_by_their_module() {
        let expected = TokenRows { ids: vec![8, 0], width: 4 };
        let table = "model.embed_tokens.weight".to_owned();
        assert_eq!(
            rows("embed_tokens", &[8, 0]).unwrap(),
            BTreeMap::from([(table.clone(), expected.clone())])
        );
        assert_eq!(rows("model.embed_tokens", &[8, 0]).unwrap(), BTreeMap::from([(table, expected)]));
        assert!(rows("lm_head", &[1]).unwrap().contains_key("lm_head.weight"));
        assert!(rows("lm_head", &[]).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_row_of_a_table_is_refused() {
        let refused = |module: &str, ids: &[usize]| rows(module, ids).unwrap_err().to_string();
        assert!(refused("up_proj", &[1]).contains("up_proj has no row for each token"));
        assert!(refused("wte", &[1]).contains("wte has no row"));
        assert!(refused("embed_tokens", &[9]).contains("9 is beyond the 9 tokens"));
        assert!(refused("embed_tokens", &[2, 2]).contains("names 2 twice"));
    }
}
