//! GGUF files, llama.cpp's format: metadata, tokenizer and (quantized) tensors in one file.

mod byte_level;
mod described;
mod header;
mod metadata;
mod names;
mod read;
mod sentence_piece;
pub mod tokenizer;

pub use header::{GgufFile, GgufTensor, GgufValue};
pub use read::GgufModel;
pub use tokenizer::GgufTokenizer;

#[cfg(test)]
mod tests;
