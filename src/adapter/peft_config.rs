//! `adapter_config.json`: PEFT's description of an adapter.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{AdapterSpec, TargetModules};
use crate::error::{Error, Result, ResultExt};

/// The module of a bare list of token ids.
const TABLE: &str = "embed_tokens";

pub(super) const FILE: &str = "adapter_config.json";

/// What `adapter_config.json` says.
#[derive(Debug, Clone, PartialEq)]
pub struct PeftConfig {
    pub spec: AdapterSpec,
    /// A hub name or a path, as the writer knew it; `None` if it was not written down.
    pub base_model: Option<String>,
}

/// The JSON that PEFT writes, with `target_modules` as resolved names where they are a list.
pub(super) fn to_json(spec: &AdapterSpec, base_model: &str, module_names: &[String]) -> Value {
    let target_modules = match &spec.target_modules {
        TargetModules::Regex(pattern) => json!(pattern),
        TargetModules::AllLinear => json!(module_names),
        TargetModules::List(names) => {
            let mut names = names.clone();
            names.sort();
            json!(names)
        }
    };
    json!({
        "alpha_pattern": spec.alpha_pattern,
        "auto_mapping": null,
        "base_model_name_or_path": base_model,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_pattern": null,
        "layers_to_transform": spec.layers_to_transform,
        "lora_alpha": number(spec.alpha),
        "lora_dropout": spec.dropout,
        "modules_to_save": (!spec.modules_to_save.is_empty()).then_some(&spec.modules_to_save),
        "peft_type": "LORA",
        "r": spec.r,
        "rank_pattern": spec.rank_pattern,
        "revision": null,
        "target_modules": target_modules,
        "task_type": "CAUSAL_LM",
        "trainable_token_indices": token_indices(spec),
        "use_dora": spec.use_dora,
        "use_rslora": spec.use_rslora,
    })
}

/// A list where only the token table has such rows, which PEFT gives to a tied head too.
fn token_indices(spec: &AdapterSpec) -> Value {
    let mut named = spec.trainable_token_indices.iter().filter(|(_, ids)| !ids.is_empty());
    match (named.next(), named.next()) {
        (None, _) => Value::Null,
        (Some((module, ids)), None) if module == TABLE => json!(ids),
        _ => json!(spec.trainable_token_indices),
    }
}

/// PEFT declares alpha as an integer: whole numbers are written as such.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

/// Reads the file; a field that would change the computation in a way lazytune does not know is refused by name.
pub(super) fn read(folder: &Path) -> Result<PeftConfig> {
    let path = folder.join(FILE);
    let text = std::fs::read(&path).map_err(|error| {
        Error::data(format!("cannot read {}: {error}", path.display()))
            .hint("an adapter is a folder with adapter_config.json and adapter_model.safetensors")
    })?;
    let fields: Map<String, Value> = serde_json::from_slice(&text)
        .map_err(|error| Error::data(format!("{} is not a valid JSON object: {error}", path.display())))?;
    Fields(&fields).parse().context(|| format!("reading {}", path.display()))
}

/// Fields that must be absent, null, false, "none" or empty, and what to do when they are not.
const UNSUPPORTED: [(&str, &str); 20] = [
    ("bias", "adapters that train biases are not supported: merge the adapter with PEFT first"),
    ("fan_in_fan_out", "weights that are stored transposed are not supported"),
    ("lora_bias", "adapters with a bias on B are not supported"),
    ("layers_pattern", "name the layers in target_modules instead"),
    ("exclude_modules", "name the layers in target_modules instead"),
    ("megatron_config", "Megatron layers are not supported"),
    ("loftq_config", "LoftQ changes the base model: merge the adapter with PEFT first"),
    ("eva_config", "save the adapter again after its initialization"),
    ("corda_config", "save the adapter again after its initialization"),
    ("lora_ga_config", "save the adapter again after its initialization"),
    ("kasa_config", "KaSA adapters are not supported: merge the adapter with PEFT first"),
    ("layer_replication", "replicated layers are not supported"),
    ("use_qalora", "QALoRA adapters are not supported"),
    ("target_parameters", "adapters on bare parameters are not supported"),
    ("alora_invocation_tokens", "activated LoRA is not supported"),
    ("arrow_config", "routed adapters are not supported"),
    ("use_bdlora", "block-diagonal adapters are not supported"),
    ("velora_config", "compressed activations are not supported"),
    ("monteclora_config", "variational adapters are not supported"),
    ("ensure_weight_tying", "adapters on tied weights are not supported"),
];

/// Initializations that also change the base model's weights, so that the pair alone is not the adapter.
const CHANGES_BASE: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn parse(&self) -> Result<PeftConfig> {
        let peft_type = self.0.get("peft_type").and_then(Value::as_str).unwrap_or("nothing");
        if peft_type != "LORA" {
            return Err(Error::data(format!("peft_type is {peft_type}, expected LORA"))
                .hint("only LoRA adapters can be used"));
        }
        self.check_unsupported()?;
        let spec = AdapterSpec {
            r: self.whole("r")?,
            alpha: self.number("lora_alpha")?,
            dropout: self.0.get("lora_dropout").and_then(Value::as_f64).unwrap_or(0.0),
            use_rslora: self.flag("use_rslora"),
            use_dora: self.flag("use_dora"),
            target_modules: self.target_modules()?,
            layers_to_transform: self.layers()?,
            rank_pattern: self.pattern("rank_pattern")?,
            alpha_pattern: self.pattern("alpha_pattern")?,
            modules_to_save: self.list("modules_to_save")?,
            trainable_token_indices: self.token_indices()?,
        };
        let base_model = self.0.get("base_model_name_or_path").and_then(Value::as_str).map(str::to_owned);
        Ok(PeftConfig { spec, base_model })
    }

    fn check_unsupported(&self) -> Result<()> {
        for (key, hint) in UNSUPPORTED {
            let Some(value) = self.0.get(key) else { continue };
            let empty = match value {
                Value::Null => true,
                Value::Array(items) => items.is_empty(),
                Value::Object(fields) => fields.is_empty(),
                Value::Bool(value) => !value,
                Value::String(text) => text == "none",
                Value::Number(_) => false,
            };
            if !empty {
                return Err(Error::data(format!("{key} = {value} is not supported")).hint(hint));
            }
        }
        let init = self.0.get("init_lora_weights").and_then(Value::as_str).unwrap_or_default();
        if CHANGES_BASE.iter().any(|name| init.starts_with(name)) {
            return Err(Error::data(format!("init_lora_weights = {init:?} is not supported")).hint(
                "this initialization changes the base model: convert the adapter with \
                 save_pretrained(.., path_initial_model_for_weight_conversion=..)",
            ));
        }
        Ok(())
    }

    fn flag(&self, key: &str) -> bool {
        self.0.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    fn list(&self, key: &str) -> Result<Vec<String>> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(list) => {
                serde_json::from_value(list.clone()).map_err(|error| Error::data(format!("{key}: {error}")))
            }
        }
    }

    fn whole(&self, key: &str) -> Result<usize> {
        let value = self.0.get(key).and_then(Value::as_u64).and_then(|value| usize::try_from(value).ok());
        value.ok_or_else(|| Error::data(format!("{key} is missing or not a whole number")))
    }

    fn number(&self, key: &str) -> Result<f64> {
        let value = self.0.get(key).and_then(Value::as_f64);
        value.ok_or_else(|| Error::data(format!("{key} is missing or not a number")))
    }

    fn target_modules(&self) -> Result<TargetModules> {
        match self.0.get("target_modules") {
            Some(Value::String(all)) if all == "all-linear" => Ok(TargetModules::AllLinear),
            Some(Value::String(pattern)) => Ok(TargetModules::Regex(pattern.clone())),
            Some(list @ Value::Array(_)) => serde_json::from_value(list.clone())
                .map(TargetModules::List)
                .map_err(|error| Error::data(format!("target_modules: {error}"))),
            _ => Err(Error::data("target_modules is missing: neither a list of names nor a pattern")),
        }
    }

    fn token_indices(&self) -> Result<BTreeMap<String, Vec<usize>>> {
        match self.0.get("trainable_token_indices") {
            Some(list @ Value::Array(_)) => serde_json::from_value(list.clone())
                .map(|ids| BTreeMap::from([(TABLE.to_owned(), ids)]))
                .map_err(|error| Error::data(format!("trainable_token_indices: {error}"))),
            _ => self.pattern("trainable_token_indices"),
        }
    }

    fn layers(&self) -> Result<Option<Vec<usize>>> {
        match self.0.get("layers_to_transform") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Number(one)) => Ok(one.as_u64().map(|layer| vec![layer as usize])),
            Some(list) => serde_json::from_value(list.clone())
                .map(Some)
                .map_err(|error| Error::data(format!("layers_to_transform: {error}"))),
        }
    }

    fn pattern<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<BTreeMap<String, T>> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(BTreeMap::new()),
            Some(value) => {
                serde_json::from_value(value.clone()).map_err(|error| Error::data(format!("{key}: {error}")))
            }
        }
    }
}
