//! A model ready to be run: files opened, tokenizer built, decoder described.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::adapter::peft::{self, GrownTables};
use crate::config::{self, DataType, DeviceChoice, ModelInit, ModelSection, RunConfig};
use crate::data::{ChatTokenizer, SpecialTokens};
use crate::error::{Error, Result};
use crate::executor::candle::CandleDevice;
#[cfg(feature = "metal")]
use crate::executor::metal;
use crate::executor::{AsyncGraphExecutor, CpuDevice, CpuOptions, Device, HostTensor, WeightLoader};
use crate::graph::DType;
use crate::model::hub::{DownloadProgress, HubOptions};
use crate::model::{
    DecoderSpec, GgufTokenizer, ModelLocation, ModelSource, NewToken, TokenizerSource, Trained, families,
};
use crate::train::{NamedTensors, adapter};

/// The tables with a row for each token.
const TABLES: [&str; 2] = ["model.embed_tokens.weight", "lm_head.weight"];

/// An opened model.
pub struct OpenModel {
    pub source: Arc<ModelSource>,
    pub decoder: DecoderSpec,
    pub dtype: DType,
    /// As the user named it.
    pub name: String,
    /// Ids of the tokens that the configuration adds.
    pub added_ids: Vec<u32>,
    /// Told about downloads.
    pub downloads: Option<DownloadProgress>,
}

impl OpenModel {
    /// Opens what a configuration names, with the tokens that it, or the adapter to continue from, adds; no weight is
    /// read. A model on the hub is downloaded first, which `progress` is told about.
    ///
    /// # Errors
    /// A data error if the files are missing or damaged, a user error if the hub refuses.
    pub fn open(config: &RunConfig, progress: Option<DownloadProgress>) -> Result<Self> {
        let model = Self::open_section(&config.model, config.train.seed, progress)?;
        let model = match &config.adapter.init {
            Some(folder) => model.with_tokens_of(folder)?,
            None => model,
        };
        let listed = |tokens: &[String], special| -> Vec<NewToken> {
            tokens.iter().map(|text| NewToken { text: text.clone(), special }).collect()
        };
        let ModelSection { add_tokens, add_special_tokens, .. } = &config.model;
        let tokens = [listed(add_tokens, false), listed(add_special_tokens, true)].concat();
        if tokens.is_empty() { Ok(model) } else { model.with_tokens(&tokens) }
    }

    fn open_section(section: &ModelSection, seed: u64, progress: Option<DownloadProgress>) -> Result<Self> {
        let (location, name) = match &section.path {
            config::ModelLocation::Folder(path) => {
                (ModelLocation::Folder(path.clone()), path.display().to_string())
            }
            config::ModelLocation::Gguf(path) => {
                (ModelLocation::Gguf(path.clone()), path.display().to_string())
            }
            config::ModelLocation::Hub(name) => (ModelLocation::Hub(name.clone()), name.clone()),
        };
        let hub = HubOptions {
            revision: section.revision.clone(),
            token: std::env::var(&section.token_env).ok(),
            cache: section.cache_dir.clone(),
            offline: section.offline,
            progress: progress.clone(),
            ..HubOptions::default()
        };
        let source = match (section.init, &location) {
            (ModelInit::Random, ModelLocation::Folder(folder)) => ModelSource::random(folder, seed)?,
            (ModelInit::Random, _) => {
                return Err(Error::user(
                    "model.init = \"random\" needs a folder with config.json and a tokenizer",
                ));
            }
            (ModelInit::Pretrained, _) => ModelSource::open(&location, &hub)?,
        };
        let dtype = match section.dtype {
            DataType::F32 => DType::F32,
            DataType::Bf16 => DType::Bf16,
        };
        Ok(Self { downloads: progress, ..Self::new(source, name, dtype) })
    }

    /// Opens a model by path or hub name with default settings; `progress` as in [`Self::open`].
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn named(name: &str, progress: Option<DownloadProgress>) -> Result<Self> {
        let source = ModelSource::open(
            &ModelLocation::parse(name)?,
            &HubOptions { progress, ..HubOptions::default() },
        )?;
        Ok(Self::new(source, name.to_owned(), DType::F32))
    }

    fn new(source: ModelSource, name: String, dtype: DType) -> Self {
        let decoder = families::decoder(&source.config);
        Self { source: Arc::new(source), decoder, dtype, name, added_ids: Vec::new(), downloads: None }
    }

    /// The model with these tokens in its tokenizer and in its tables.
    ///
    /// # Errors
    /// A data error if the model has no tokenizer.
    fn with_tokens(self, tokens: &[NewToken]) -> Result<Self> {
        let Self { source, dtype, name, downloads, .. } = self;
        let (source, added_ids) = owned(source)?.with_tokens(tokens)?;
        Ok(Self { added_ids, downloads, ..Self::new(source, name, dtype) })
    }

    /// The model with the tokens that the adapter in `folder` was trained with.
    ///
    /// # Errors
    /// A data error if the adapter or its tokenizer is damaged.
    pub fn with_tokens_of(self, folder: &Path) -> Result<Self> {
        let Self { source, dtype, name, downloads, .. } = self;
        let mut source = owned(source)?;
        let specs = source.config.trainable_specs();
        let tables: Vec<_> = specs.into_iter().filter(|spec| TABLES.contains(&spec.name.as_str())).collect();
        let GrownTables { rows, tails } = peft::grown_tables(folder, &tables)?;
        source = source.grown(rows, tails).with_tokens_of(folder)?;
        Ok(Self { downloads, ..Self::new(source, name, dtype) })
    }

    /// The model's tokenizer with its chat template.
    ///
    /// # Errors
    /// A data error if its files are missing or damaged.
    pub fn tokenizer(&self) -> Result<ChatTokenizer> {
        match &self.source.tokenizer {
            TokenizerSource::Folder(folder) if self.source.added.is_empty() => {
                ChatTokenizer::from_folder(folder)
            }
            TokenizerSource::Folder(folder) => {
                ChatTokenizer::from_folder(folder)?.with_tokenizer(self.source.read_tokenizer()?)
            }
            TokenizerSource::Gguf(tokenizer) => from_gguf(tokenizer),
        }
    }

    /// Reads frozen weights for the executor.
    pub fn weight_loader(&self) -> Arc<WeightLoader> {
        let source = self.source.clone();
        Arc::new(move |name, tensor| {
            let dims = tensor.shape.dims();
            HostTensor::f32(dims, source.weights.read_f32(stored_name(&source, name), dims)?)
        })
    }

    /// Reads every weight, for training all of them.
    ///
    /// # Errors
    /// A data error if a weight cannot be read.
    pub fn all_weights(&self) -> Result<NamedTensors> {
        let read = |spec: crate::model::TensorSpec| {
            let values = self.source.weights.read_f32(&spec.name, &spec.shape)?;
            Ok((spec.name, HostTensor::f32(&spec.shape, values)?))
        };
        self.source.config.tensor_specs().into_iter().map(read).collect()
    }

    /// What an adapter trains, and its values as states.
    ///
    /// # Errors
    /// A data error if the adapter is damaged or does not fit the model.
    pub fn adapter(&self, folder: &Path) -> Result<(Trained, NamedTensors)> {
        let (adaptation, values) = adapter::existing(folder, self)?;
        Ok((Trained::Adapters(adaptation), values))
    }

    /// A weight of the base model; that of a tied head is the token table's.
    ///
    /// # Errors
    /// A data error if it cannot be read.
    pub fn weight(&self, name: &str, dims: &[usize]) -> Result<Vec<f32>> {
        self.source.weights.read_f32(stored_name(&self.source, name), dims)
    }

    /// The name under which a weight is stored: a tied head is the token table.
    pub fn stored_name<'a>(&self, name: &'a str) -> &'a str {
        stored_name(&self.source, name)
    }

    /// Numbers in all weights.
    pub fn parameters(&self) -> usize {
        self.source.config.tensor_specs().iter().map(|spec| spec.elements()).sum()
    }

    /// Where the model's own files are, if it is a folder.
    pub fn folder(&self) -> Option<&PathBuf> {
        self.source.folder.as_ref()
    }
}

fn stored_name<'a>(source: &ModelSource, name: &'a str) -> &'a str {
    let tied = source.config.tie_word_embeddings && name == "lm_head.weight";
    if tied { "model.embed_tokens.weight" } else { name }
}

fn owned(source: Arc<ModelSource>) -> Result<ModelSource> {
    Arc::try_unwrap(source).map_err(|_| Error::internal("the model is in use already"))
}

fn from_gguf(tokenizer: &GgufTokenizer) -> Result<ChatTokenizer> {
    let text =
        |token: &Option<crate::model::gguf::tokenizer::SpecialToken>| token.as_ref().map(|t| t.text.clone());
    let special = SpecialTokens {
        bos: text(&tokenizer.bos),
        eos: text(&tokenizer.eos),
        pad: text(&tokenizer.pad),
        unk: text(&tokenizer.unknown),
        end_of_sequence_ids: tokenizer.ends.clone(),
        ..SpecialTokens::default()
    };
    ChatTokenizer::from_parts(tokenizer.tokenizer.clone(), tokenizer.chat_template.clone(), special)
}

/// Opens the device that a run asks for and starts its executor.
///
/// # Errors
/// A device error if the device is not there or this build lacks it.
pub fn open_executor(choice: DeviceChoice, threads: Option<usize>) -> Result<AsyncGraphExecutor> {
    let cpu = CpuOptions::default();
    let options = CpuOptions { threads: threads.unwrap_or(cpu.threads), ..cpu };
    let device: Box<dyn Device> = match choice {
        DeviceChoice::Auto => automatic(options)?,
        DeviceChoice::Cpu => Box::new(CpuDevice::new(options)?),
        #[cfg(feature = "metal")]
        DeviceChoice::Metal => metal::open()?,
        DeviceChoice::Cuda if cfg!(feature = "cuda") => Box::new(CandleDevice::cuda()?),
        #[cfg(not(feature = "metal"))]
        DeviceChoice::Metal => return Err(missing("metal")),
        DeviceChoice::Cuda => return Err(missing("cuda")),
    };
    AsyncGraphExecutor::new(device)
}

/// The accelerator that this build supports, if the machine has it; else the CPU.
fn automatic(options: CpuOptions) -> Result<Box<dyn Device>> {
    #[cfg(feature = "metal")]
    if let Ok(device) = metal::open() {
        return Ok(device);
    }
    if cfg!(feature = "cuda")
        && let Ok(device) = CandleDevice::cuda()
    {
        return Ok(Box::new(device));
    }
    Ok(Box::new(CpuDevice::new(options)?))
}

fn missing(feature: &str) -> Error {
    Error::device(format!("this build has no {feature} support")).hint(format!(
        "build with `cargo build --release --features {feature}`, or take the CPU: model.device = \"cpu\""
    ))
}
