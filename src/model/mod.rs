//! Models as files: what a model is ([`config`]), where its weights come from ([`weights`], [`gguf`], [`hub`],
//! [`random_init`]), all behind one [`ModelSource`], and how a model is written back ([`export`]).

pub mod config;
pub mod export;
pub mod gguf;
mod hf_config;
mod hf_fields;
pub mod hub;
mod layout;
pub mod random_init;
pub mod shards;
pub mod source;
pub mod weights;

pub use config::{Architecture, ModelConfig, RopeConfig, RopeScaling};
pub use source::{ModelLocation, ModelSource, TokenizerSource};
pub use weights::Weights;

pub use crate::adapter::LinearModule;
pub use crate::tensor_file::{FloatType, TensorSpec};
