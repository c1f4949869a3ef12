//! Text from a model: prefill and decode as cached plans over a cache of keys and values.

mod sampler;
mod session;

pub use sampler::{Sampler, Sampling};
pub use session::{GeneratedText, Generator};
