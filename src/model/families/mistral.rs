//! Mistral (Jiang et al. 2023, arXiv:2310.06825): a sliding window in every layer, where there is one.

use super::{Family, windows};
use crate::model::Architecture;

/// What transformers takes where config.json has no `sliding_window`; null means none.
const DEFAULT_WINDOW: usize = 4096;

pub const FAMILY: Family = Family {
    architecture: Architecture::Mistral,
    name: "Mistral",
    class: "MistralForCausalLM",
    model_type: "mistral",
    gguf: None,
    fields: "sliding_window",
    tied_head: false,
    notes: "sliding window; a GGUF file of Mistral has the llama architecture",
    describe: |fields, _, spec| {
        let window = if fields.0.contains_key("sliding_window") {
            fields.size("sliding_window")?
        } else {
            Some(DEFAULT_WINDOW)
        };
        windows::set(fields, spec, window, &|_| window.is_some()).map(|_| ())
    },
};
