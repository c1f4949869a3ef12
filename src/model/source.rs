//! One way to open a model, wherever it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::added_tokens::NewToken;
use super::config::ModelConfig;
use super::gguf::{GgufModel, GgufTokenizer};
use super::grown::Grown;
use super::hf_fields::Fields;
use super::hub::{self, HubOptions};
use super::random_init::RandomInit;
use super::shards::Shards;
use super::weights::Weights;
use crate::error::{Error, Result};

/// Where a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelLocation {
    /// A Hugging Face folder: config.json, *.safetensors, tokenizer.json.
    Folder(PathBuf),
    Gguf(PathBuf),
    /// A name on the hub: `owner/model`.
    Hub(String),
}

/// Where a model's tokenizer and chat template are.
#[derive(Debug)]
pub enum TokenizerSource {
    Folder(PathBuf),
    Gguf(Box<GgufTokenizer>),
}

/// An opened model: configuration and headers have been read and checked against each other, no weight yet.
#[derive(Debug)]
pub struct ModelSource {
    pub config: ModelConfig,
    pub weights: Weights,
    pub tokenizer: TokenizerSource,
    /// The Hugging Face folder, if it is one.
    pub folder: Option<PathBuf>,
    /// Tokens that the folder's tokenizer does not have.
    pub added: Vec<NewToken>,
}

impl ModelLocation {
    /// Decides what `text` names: an existing folder or GGUF file, or else a name on the hub.
    pub fn parse(text: &str) -> Result<Self> {
        let path = Path::new(text);
        if path.is_dir() {
            return Ok(Self::Folder(path.to_path_buf()));
        }
        let is_gguf = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
        if path.is_file() {
            let hint = "give a .gguf file, or the folder that holds config.json";
            return if is_gguf {
                Ok(Self::Gguf(path.to_path_buf()))
            } else {
                Err(Error::user(format!("{text} is not a model")).hint(hint))
            };
        }
        let parts: Vec<_> = text.split('/').collect();
        let plain = |part: &&str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        if parts.len() == 2 && !is_gguf && parts.iter().all(plain) {
            return Ok(Self::Hub(text.to_owned()));
        }
        Err(Error::user(format!("the model {text} does not exist")).hint(
            "give a folder, a .gguf file, or a name on the hub like HuggingFaceTB/SmolLM2-135M-Instruct",
        ))
    }
}

impl ModelSource {
    /// Opens a model; one on the hub is downloaded first unless it is in the cache.
    pub fn open(location: &ModelLocation, hub: &HubOptions) -> Result<Self> {
        match location {
            ModelLocation::Folder(folder) => Self::open_folder(folder),
            ModelLocation::Gguf(path) => Self::open_gguf(path),
            ModelLocation::Hub(name) => Self::open_folder(&hub::resolve(name, hub)?),
        }
    }

    /// Opens a Hugging Face folder.
    pub fn open_folder(folder: &Path) -> Result<Self> {
        let config = folder_config(folder)?;
        let weights = Weights::Safetensors(Shards::open(folder)?);
        Self::checked(config, weights, folder)
    }

    /// Opens a GGUF file, with the tokenizer that it carries.
    pub fn open_gguf(path: &Path) -> Result<Self> {
        let (model, config) = GgufModel::open(path)?;
        let tokenizer = TokenizerSource::Gguf(Box::new(model.tokenizer()?));
        let weights = Weights::Gguf(model);
        weights.check_all(&config.tensor_specs())?;
        Ok(Self { config, weights, tokenizer, folder: None, added: Vec::new() })
    }

    /// A model with random weights, for training from scratch: `folder` needs a config.json and a tokenizer only.
    pub fn random(folder: &Path, seed: u64) -> Result<Self> {
        let config = folder_config(folder)?;
        let weights = Weights::Random(RandomInit::new(&config, seed, &folder.join("config.json")));
        Self::checked(config, weights, folder)
    }

    /// Gives the token table and the head at least `rows` rows. `tails` are the values of the rows that are added, by
    /// table, where they are known.
    pub fn grown(mut self, rows: usize, tails: BTreeMap<String, Vec<f32>>) -> Self {
        if rows <= self.config.vocab_size {
            return self;
        }
        self.config.grow(rows);
        Self { weights: Weights::Grown(Grown::new(self.weights, rows, tails)), ..self }
    }

    fn checked(config: ModelConfig, weights: Weights, folder: &Path) -> Result<Self> {
        weights.check_all(&config.tensor_specs())?;
        let tokenizer = TokenizerSource::Folder(folder.to_path_buf());
        Ok(Self { config, weights, tokenizer, folder: Some(folder.to_path_buf()), added: Vec::new() })
    }
}

/// `config.json`, with the end-of-text tokens that only `generation_config.json` may name.
fn folder_config(folder: &Path) -> Result<ModelConfig> {
    let mut config = ModelConfig::read_folder(folder)?;
    let path = folder.join("generation_config.json");
    if let Ok(text) = std::fs::read(&path) {
        let fields: Map<String, Value> = serde_json::from_slice(&text).map_err(|error| {
            Error::data(format!("{} is not a valid JSON object: {error}", path.display()))
        })?;
        for id in Fields(&fields).token_ids("eos_token_id")? {
            if !config.eos_token_ids.contains(&id) {
                config.eos_token_ids.push(id);
            }
        }
    }
    Ok(config)
}
