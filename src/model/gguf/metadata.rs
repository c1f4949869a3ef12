//! Typed access to GGUF metadata, and the family that it names.

use super::described::Described;
use super::{GgufFile, GgufValue};
use crate::error::{Error, Result};
use crate::model::config::ModelConfig;
use crate::model::families;

impl GgufFile {
    pub(super) fn value(&self, key: &str) -> Option<&GgufValue> {
        self.metadata.get(key)
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match self.value(key) {
            Some(GgufValue::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        match self.value(key) {
            Some(GgufValue::Bool(value)) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn token_id(&self, key: &str) -> Option<u32> {
        match self.value(key) {
            Some(GgufValue::Integer(id)) => u32::try_from(*id).ok(),
            _ => None,
        }
    }

    pub(super) fn size(&self, key: &str) -> Result<Option<usize>> {
        match self.value(key) {
            None => Ok(None),
            Some(GgufValue::Integer(value)) if *value >= 0 => Ok(Some(*value as usize)),
            Some(other) => Err(Error::data(format!("{key} is {other:?}, expected a size"))),
        }
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.value(key) {
            None => Ok(None),
            // f32 on disk: the shortest decimal that rounds to it is what the model's author wrote (1e-5, not 9.9999997e-6).
            Some(GgufValue::Float(value)) => Ok((*value as f32).to_string().parse().ok()),
            Some(other) => Err(Error::data(format!("{key} is {other:?}, expected a number"))),
        }
    }

    /// The configuration that the metadata describes; another architecture or an unsupported setting is refused.
    pub fn config(&self) -> Result<ModelConfig> {
        let name = self.text("general.architecture").unwrap_or("missing");
        let layouts = || families::ALL.into_iter().filter_map(|family| Some((family, family.gguf.as_ref()?)));
        // Mixtral has Llama's name here.
        let has_experts = self.size(&format!("{name}.expert_count"))?.is_some_and(|count| count > 0);
        let named = || layouts().filter(|(_, layout)| layout.architecture == name);
        let fits = named().find(|(_, layout)| layout.reads("expert_count") == has_experts);
        let Some((family, layout)) = fits.or_else(|| named().next()) else {
            let known: Vec<_> = layouts().map(|(_, layout)| layout.architecture).collect();
            return Err(Error::data(format!("the architecture {name} is not supported"))
                .hint(format!("supported GGUF architectures: {}", known.join(", "))));
        };
        Described { file: self, family, layout }.config()
    }
}
