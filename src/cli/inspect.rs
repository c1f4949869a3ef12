//! `lazytune inspect`: the facts of a model or of an adapter, without loading a weight.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::arguments::InspectArguments;
use super::printer::Printer;
use crate::adapter::{LinearModule, TargetModules, peft};
use crate::error::{Error, Result};
use crate::model::{DecoderSpec, ModelConfig, RopeScaling};
use crate::tensor_file::SafetensorsFile;
use crate::train::model::OpenModel;

/// Names and values, in the order in which they are shown.
type Facts = Map<String, Value>;

pub fn run(arguments: &InspectArguments, printer: &Printer) -> Result<()> {
    let path = &arguments.path;
    if !path.exists() {
        return Err(Error::user(format!("{} does not exist", path.display()))
            .hint("give a model folder, a .gguf file or an adapter folder"));
    }
    let facts = if path.join("adapter_config.json").is_file() { adapter(path)? } else { model(path)? };
    if arguments.json {
        return printer.json(&Value::Object(facts));
    }
    let width = facts.keys().map(String::len).max().unwrap_or(0);
    for (name, value) in &facts {
        printer.data(&format!("{:width$}  {}", name.replace('_', " "), shown(value)));
    }
    Ok(())
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("{} {name}", shown(value)));
            fields.collect::<Vec<_>>().join(", ")
        }
        Value::Number(number) => number.to_string(),
    }
}

fn facts(value: Value) -> Facts {
    match value {
        Value::Object(facts) => facts,
        _ => Facts::new(),
    }
}

fn model(path: &Path) -> Result<Facts> {
    let model = OpenModel::named(&path.to_string_lossy(), None)?;
    let (config, decoder) = (&model.source.config, &model.decoder);
    let family = config.architecture.family();
    let mut found = facts(json!({
        "kind": if path.is_file() { "GGUF model" } else { "model folder" },
        "family": family.name,
        "architecture": family.class,
        "parameters": config.parameters(),
        "stored_as": model.source.weights.stored_types(),
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "experts": experts(decoder),
        "attention_heads": config.num_attention_heads,
        "key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "vocabulary": config.vocab_size,
        "context": config.max_position_embeddings,
        "rope": rope(config),
        "sliding_window": window(decoder),
        "layers_without_positions": decoder.layer_attention.iter().filter(|layer| layer.rope.is_none()).count(),
        "tied_head": config.tie_word_embeddings,
        "linear_modules": modules(config),
    }));
    // A model may lack a tokenizer; a damaged one is worth saying.
    let (tokenizer, template) = match model.tokenizer() {
        Ok(tokenizer) => {
            (json!(format!("{} tokens", tokenizer.vocab_size())), json!(tokenizer.has_template()))
        }
        Err(error) => (json!(error.to_string()), Value::Null),
    };
    found.insert("tokenizer".into(), tokenizer);
    found.insert("chat_template".into(), template);
    Ok(found)
}

fn rope(config: &ModelConfig) -> String {
    let theta = config.rope.theta;
    match &config.rope.scaling {
        RopeScaling::None => format!("theta {theta}"),
        RopeScaling::Linear { factor } => format!("theta {theta}, linear, factor {factor}"),
        RopeScaling::Llama3 { factor, .. } => format!("theta {theta}, llama3, factor {factor}"),
        RopeScaling::Yarn(yarn) => format!("theta {theta}, yarn, factor {}", yarn.factor),
        RopeScaling::LongRope(long) => {
            format!("theta {theta}, longrope beyond {} tokens", long.original_max_position_embeddings)
        }
    }
}

/// How many experts there are, and where.
fn experts(decoder: &DecoderSpec) -> Value {
    let Some(experts) = &decoder.experts else { return Value::Null };
    let layers = experts.layers.iter().filter(|has| **has).count();
    json!(format!(
        "{} of {} for a token, {} features each, in {layers} of {} layers",
        experts.chosen,
        experts.count,
        experts.intermediate,
        decoder.layers()
    ))
}

/// The window and how many layers have it.
fn window(decoder: &DecoderSpec) -> Value {
    let windows: Vec<usize> = decoder.layer_attention.iter().filter_map(|layer| layer.window).collect();
    match windows.first() {
        Some(window) => json!(format!("{window} tokens in {} of {} layers", windows.len(), decoder.layers())),
        None => Value::Null,
    }
}

/// Names that an adapter can have as target modules.
fn modules(config: &ModelConfig) -> BTreeSet<String> {
    let modules = config.linear_modules().into_iter();
    modules.filter(LinearModule::is_inner_linear).map(|module| module.name().to_owned()).collect()
}

fn adapter(folder: &Path) -> Result<Facts> {
    let config = peft::read_config(folder)?;
    let weights = SafetensorsFile::open(&folder.join("adapter_model.safetensors"))?;
    let mut types = BTreeMap::<String, usize>::new();
    let (mut modules, mut parameters, mut layers) = (BTreeSet::new(), 0, BTreeSet::new());
    for (name, entry) in weights.entries() {
        parameters += entry.shape.iter().product::<usize>();
        *types.entry(entry.type_name.clone()).or_default() += 1;
        let path = name.split(".lora_").next().unwrap_or(name);
        let path = path.split(".token_adapter").next().unwrap_or(path);
        modules.extend(path.rsplit('.').next().map(str::to_owned));
        let layer = path.split_once("layers.").and_then(|(_, rest)| rest.split('.').next());
        layers.extend(layer.and_then(|layer| layer.parse::<usize>().ok()));
    }
    let spec = &config.spec;
    let target = match &spec.target_modules {
        TargetModules::AllLinear => json!("all-linear"),
        TargetModules::List(names) => json!(names),
        TargetModules::Regex(pattern) => json!(pattern),
    };
    Ok(facts(json!({
        "kind": "adapter",
        "base_model": config.base_model,
        "rank": spec.r,
        "alpha": spec.alpha,
        "dropout": spec.dropout,
        "rslora": spec.use_rslora,
        "target_modules": target,
        "adapted_modules": modules,
        "trained_tokens": spec.trainable_token_indices,
        "layers": layers.len(),
        "tensors": weights.entries().len(),
        "parameters": parameters,
        "stored_as": types,
        "rank_pattern": spec.rank_pattern,
        "alpha_pattern": spec.alpha_pattern,
    })))
}
