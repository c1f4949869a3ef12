//! One short file a family: its numbers and switches for the shared decoder.

mod llama;

use super::{Architecture, DecoderSpec, ModelConfig};

/// The decoder of a model.
pub fn decoder(config: &ModelConfig) -> DecoderSpec {
    match config.architecture {
        Architecture::Llama => llama::spec(config),
    }
}
