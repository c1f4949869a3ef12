//! Language models: their files, and the decoder that they describe.

mod decoder;
mod parameters;

pub use decoder::{Context, DecoderSpec, Tokens};
pub use parameters::{Parameters, Trained, lora_a_name, lora_b_name, master};
