//! Writing a model as a Hugging Face folder.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::config::ModelConfig;
use super::source::{ModelSource, TokenizerSource};
use crate::error::{Error, Result, ResultExt};
use crate::tensor_file::{FloatType, SafetensorsWriter, TensorSpec};

/// Bytes after which a model that did not come in shards is split.
const SHARD_BYTES: u64 = 5_000_000_000;

/// Whose type a head gets that is not stored.
const TABLE: &str = "model.embed_tokens.weight";

/// Files beside the weights that are copied as they are.
const COPIED: [&str; 10] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
];

/// Writes `source` into `folder` (created if missing) with the weights that `values` gives.
///
/// `values` is called once a tensor and fills the buffer, `spec.elements()` long, so that only one tensor is in memory
/// at a time. Weights keep the type that they were stored in unless `float_type` says otherwise (f16 for quantized
/// ones, f32 for random ones), and are sharded as the source was.
pub fn export(
    source: &ModelSource,
    folder: &Path,
    float_type: Option<FloatType>,
    values: impl FnMut(&TensorSpec, &mut [f32]) -> Result<()>,
) -> Result<()> {
    export_as(source, &source.config, folder, float_type, values)
}

/// As [`export`], described by `config`, which may have a head where the source has none.
///
/// # Errors
/// A data error if a file cannot be read or written.
pub fn export_as(
    source: &ModelSource,
    config: &ModelConfig,
    folder: &Path,
    float_type: Option<FloatType>,
    mut values: impl FnMut(&TensorSpec, &mut [f32]) -> Result<()>,
) -> Result<()> {
    std::fs::create_dir_all(folder).context(|| format!("creating {}", folder.display()))?;
    let stored = |name: &str| source.weights.float_type(name);
    let type_of =
        |name: &str| float_type.or_else(|| stored(name)).or_else(|| stored(TABLE)).unwrap_or(FloatType::F32);
    let layout = layout(source, config, type_of);
    for (file, specs) in &layout {
        let header = specs.iter().map(|spec| (spec.clone(), type_of(&spec.name))).collect();
        let mut writer = SafetensorsWriter::create(&folder.join(file), header)?;
        for spec in specs {
            let mut buffer = vec![0.0; spec.elements()];
            values(spec, &mut buffer)?;
            writer.write(&spec.name, &buffer)?;
        }
        writer.finish()?;
    }
    if layout.len() > 1 {
        write_json(folder, "model.safetensors.index.json", &index(&layout, type_of))?;
    }
    write_json(folder, "config.json", &config.to_json(type_of(TABLE).torch_name()))?;
    write_tokenizer(source, folder)
}

type Layout = Vec<(String, Vec<TensorSpec>)>;

fn layout(source: &ModelSource, config: &ModelConfig, type_of: impl Fn(&str) -> FloatType) -> Layout {
    let specs = config.tensor_specs();
    let Some(shards) = source.weights.shards() else { return split(specs, type_of) };
    let mut by_name: BTreeMap<_, _> = specs.into_iter().map(|spec| (spec.name.clone(), spec)).collect();
    let mut layout = Layout::new();
    for (file, names) in shards.layout() {
        let kept: Vec<_> = names.iter().filter_map(|name| by_name.remove(name)).collect();
        if !kept.is_empty() {
            layout.push((file, kept));
        }
    }
    // A head that the source's files do not hold.
    if let Some((_, last)) = layout.last_mut() {
        last.extend(by_name.into_values());
    }
    layout
}

fn split(specs: Vec<TensorSpec>, type_of: impl Fn(&str) -> FloatType) -> Layout {
    let mut shards: Vec<Vec<TensorSpec>> = vec![Vec::new()];
    let mut bytes = 0;
    for spec in specs {
        let size = (spec.elements() * type_of(&spec.name).size()) as u64;
        if bytes + size > SHARD_BYTES && bytes > 0 {
            shards.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(last) = shards.last_mut() {
            last.push(spec);
        }
    }
    let count = shards.len();
    let name = |at: usize| match count {
        1 => "model.safetensors".to_owned(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", at + 1),
    };
    shards.into_iter().enumerate().map(|(at, specs)| (name(at), specs)).collect()
}

fn index(layout: &Layout, type_of: impl Fn(&str) -> FloatType) -> Value {
    let all = layout.iter().flat_map(|(file, specs)| specs.iter().map(move |spec| (file, spec)));
    let total: usize = all.clone().map(|(_, spec)| spec.elements() * type_of(&spec.name).size()).sum();
    let weight_map: BTreeMap<_, _> = all.map(|(file, spec)| (&spec.name, file)).collect();
    json!({ "metadata": { "total_size": total }, "weight_map": weight_map })
}

/// Writes the tokenizer, its chat template and generation defaults into `folder`.
///
/// # Errors
/// A data error if a file cannot be read or written.
pub fn write_tokenizer(source: &ModelSource, folder: &Path) -> Result<()> {
    match &source.tokenizer {
        TokenizerSource::Gguf(tokenizer) => {
            write_text(folder, "tokenizer.json", &tokenizer.tokenizer_json)?;
            write_json(folder, "tokenizer_config.json", &tokenizer.config_json())
        }
        TokenizerSource::Folder(from) => {
            for name in COPIED {
                let path = from.join(name);
                if path.exists() {
                    std::fs::copy(&path, folder.join(name))
                        .context(|| format!("copying {}", path.display()))?;
                }
            }
            if source.added.is_empty() {
                return Ok(());
            }
            let text = source.read_tokenizer()?.to_string(true);
            let text =
                text.map_err(|error| Error::internal(format!("cannot write the tokenizer: {error}")))?;
            write_text(folder, "tokenizer.json", &text)
        }
    }
}

fn write_json(folder: &Path, name: &str, value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::internal(error.to_string()))?;
    write_text(folder, name, &(text + "\n"))
}

fn write_text(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    std::fs::write(&path, text).context(|| format!("writing {}", path.display()))
}
