//! `[model]`: the base model, where it runs and how much memory it may take.

use super::values::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The base model, the device it runs on and the memory it may use.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["path"]))]
pub(in crate::config) struct RawModel {
    /// The base model: a folder (config.json, safetensors, tokenizer.json), a .gguf file, or a Hugging Face hub name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub path: Option<String>,
    /// Branch, tag or commit of a hub model. Pin a commit to reproduce a run exactly.
    pub revision: String,
    /// Name of the environment variable with the hub token; the token itself never stands in a config.
    pub token_env: String,
    /// Use only files that are already in the cache; never open a connection.
    pub offline: bool,
    /// Folder for downloaded models; without it, the Hugging Face cache. A model takes its full size on disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub cache_dir: Option<PathBuf>,
    /// Type of frozen weights and activations, whatever the file stores. bf16 halves memory and nearly halves the time; sums,
    /// norms, softmax, loss, adapters and optimizer stay in f32.
    pub dtype: DataType,
    /// Device: "auto" takes Metal or CUDA where lazytune was built with it and finds one, else the CPU.
    pub device: DeviceChoice,
    /// "pretrained" reads the weights; "random" draws them from config.json alone (only with adapter.method = "full").
    pub init: ModelInit,
    /// CPU threads in all; without it, every core granted to the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "usize", range(min = 1, max = 1024))]
    pub threads: Option<usize>,
    /// Most memory that a step may plan ("2GiB"): met by recomputing activations, or refused before the first step.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ByteSize")]
    pub memory_budget: Option<ByteSize>,
    /// Tokens to add to the vocabulary, each matched as it is written. Their rows are trained beside the adapter.
    pub add_tokens: Vec<String>,
    /// The same for special tokens, which are left out of answers.
    pub add_special_tokens: Vec<String>,
}

impl Default for RawModel {
    fn default() -> Self {
        Self {
            path: None,
            revision: "main".to_owned(),
            token_env: "HF_TOKEN".to_owned(),
            offline: false,
            cache_dir: None,
            dtype: DataType::F32,
            device: DeviceChoice::Auto,
            init: ModelInit::Pretrained,
            threads: None,
            memory_budget: None,
            add_tokens: Vec::new(),
            add_special_tokens: Vec::new(),
        }
    }
}

/// The base model, checked: see `RawModel`'s keys for their meaning.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSection {
    pub path: ModelLocation,
    /// Branch, tag or commit; only read for [`ModelLocation::Hub`].
    pub revision: String,
    /// Environment variable that may hold the hub token.
    pub token_env: String,
    pub offline: bool,
    pub cache_dir: Option<PathBuf>,
    pub dtype: DataType,
    pub device: DeviceChoice,
    pub init: ModelInit,
    /// All CPU threads of the run; `None` is every core granted.
    pub threads: Option<usize>,
    /// Bytes.
    pub memory_budget: Option<u64>,
    pub add_tokens: Vec<String>,
    pub add_special_tokens: Vec<String>,
}

/// Where the base model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelLocation {
    /// An existing folder, absolute.
    Folder(PathBuf),
    /// An existing `.gguf` file, absolute.
    Gguf(PathBuf),
    /// `owner/name` on the Hugging Face hub.
    Hub(String),
}

/// Type of frozen weights and activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum DataType {
    F32,
    Bf16,
}

/// The device asked for; `Auto` is decided when the run starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum DeviceChoice {
    Auto,
    Cpu,
    Metal,
    Cuda,
}

/// Where the weights before the first step come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum ModelInit {
    Pretrained,
    Random,
}
