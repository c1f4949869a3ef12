//! Language models: their files, and the decoder that they describe as a graph.
//!
//! What a model is ([`config`]), where its weights come from ([`weights`], [`gguf`], [`hub`], [`random_init`]), all
//! behind one [`ModelSource`], how it becomes a graph ([`families`] describe a
//! [`DecoderSpec`]), and how it is written back
//! ([`export`]).

mod adapted;
mod added_tokens;
mod attention;
pub mod config;
mod decoder;
mod experts;
pub mod export;
pub mod families;
pub mod gguf;
mod grown;
mod hf_config;
mod hf_fields;
mod hf_rope;
pub mod hub;
mod layout;
mod parameters;
pub mod random_init;
mod rope;
pub mod shards;
pub mod source;
mod spec;
mod tokens;
pub mod weights;

pub use added_tokens::NewToken;
pub use config::{Architecture, LongRope, ModelConfig, RopeConfig, RopeScaling, YarnScaling};
pub use experts::ExpertSpec;
pub use families::Family;
pub use gguf::GgufTokenizer;
pub use parameters::{Parameters, Trained, master};
pub use rope::RopeSpec;
pub use source::{ModelLocation, ModelSource, TokenizerSource};
pub use spec::{DecoderSpec, Gate, HeadNorm, LayerAttention, NormPlacement};
pub use tokens::{Context, Tokens};
pub use weights::Weights;

pub use crate::adapter::{LinearModule, lora_a_name, lora_b_name};
pub use crate::tensor_file::{FloatType, TensorSpec};
