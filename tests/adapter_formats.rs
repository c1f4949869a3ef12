//! PEFT adapter folders, written and read, whole and broken.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lazytune::adapter::{
    AdaptedLinear, AdapterSpec, AdapterWeights, LinearModule, LoraPair, TargetModules, peft,
};
use lazytune::train::model::OpenModel;
use serde_json::{Value, json};

fn modules() -> Vec<LinearModule> {
    (0..2)
        .flat_map(|layer| {
            [("self_attn.q_proj", 6, 8), ("mlp.down_proj", 10, 6)].map(|(name, in_features, out_features)| {
                let path = format!("model.layers.{layer}.{name}");
                LinearModule { path, layer: Some(layer), in_features, out_features, experts: None }
            })
        })
        .collect()
}

fn spec() -> AdapterSpec {
    AdapterSpec {
        r: 3,
        alpha: 6.0,
        dropout: 0.05,
        use_rslora: true,
        use_dora: false,
        target_modules: TargetModules::AllLinear,
        layers_to_transform: None,
        rank_pattern: BTreeMap::from([("down_proj".to_owned(), 2)]),
        alpha_pattern: BTreeMap::from([("q_proj".to_owned(), 1.5)]),
        modules_to_save: Vec::new(),
        trainable_token_indices: BTreeMap::new(),
    }
}

fn layers() -> Vec<AdaptedLinear> {
    spec().resolve(&modules()).unwrap()
}

fn weights() -> AdapterWeights {
    let pairs = layers().into_iter().map(|linear| {
        let mut pair = LoraPair::initial(5, &linear);
        pair.b.iter_mut().enumerate().for_each(|(index, value)| *value = index as f32 - 3.5);
        (linear.path.clone(), pair)
    });
    AdapterWeights { pairs: pairs.collect(), ..AdapterWeights::default() }
}

fn written() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    peft::write(dir.path(), &spec(), "org/model", &layers(), &weights()).unwrap();
    dir
}

fn with_config(key: &str, value: Value) -> String {
    let dir = written();
    let path = dir.path().join("adapter_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config[key] = value;
    fs::write(&path, config.to_string()).unwrap();
    peft::read(dir.path(), &modules(), &[]).unwrap_err().to_string()
}

#[test]
fn an_adapter_comes_back_as_it_was() {
    let dir = written();
    let adapter = peft::read(dir.path(), &modules(), &[]).unwrap();
    assert_eq!(adapter.weights, weights());
    assert_eq!(adapter.config.base_model.as_deref(), Some("org/model"));
    let resolved = spec().resolve(&modules()).unwrap();
    assert_eq!(adapter.layers, resolved);
    let card = fs::read_to_string(dir.path().join("README.md")).unwrap();
    assert!(card.contains("base_model: org/model\n") && card.contains("library_name: peft"));
}

#[test]
fn the_config_file_is_pefts() {
    let dir = written();
    insta::assert_snapshot!(fs::read_to_string(dir.path().join("adapter_config.json")).unwrap());
}

#[test]
fn unsupported_adapters_are_refused_by_name() {
    assert!(with_config("bias", json!("lora_only")).contains("bias = \"lora_only\""));
    assert!(
        with_config("modules_to_save", json!(["lm_head"])).contains("modules_to_save: \"lm_head\" is no")
    );
    assert!(with_config("use_dora", json!(true)).contains("lora_magnitude_vector"));
    assert!(with_config("fan_in_fan_out", json!(true)).contains("fan_in_fan_out"));
    assert!(with_config("peft_type", json!("IA3")).contains("peft_type is IA3"));
    assert!(with_config("init_lora_weights", json!("pissa_niter_4")).contains("init_lora_weights"));
    assert!(with_config("r", json!("eight")).contains("r is missing or not"));
    assert!(with_config("target_modules", json!(null)).contains("target_modules is missing"));
    assert!(with_config("target_modules", json!(["nothing"])).contains("matches no layer"));
}

#[test]
fn an_adapter_for_another_model_is_refused() {
    let dir = written();
    let mut others = modules();
    others[0].in_features = 7;
    let error = peft::read(dir.path(), &others, &[]).unwrap_err();
    assert!(error.to_string().contains("q_proj.lora_A.weight is [3, 6], expected [3, 7]"), "{error}");
    assert!(error.hint_text().unwrap().contains("another base model"));
    let error = peft::read(dir.path(), &modules()[..3], &[]).unwrap_err().to_string();
    assert!(error.contains("unexpected tensor base_model.model.model.layers.1.mlp.down_proj"), "{error}");
}

#[test]
fn broken_files_are_refused() {
    let dir = written();
    let path = dir.path().join("adapter_model.safetensors");
    let whole = fs::read(&path).unwrap();
    let refusal = || peft::read(dir.path(), &modules(), &[]).unwrap_err().to_string();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(refusal().contains("adapter_model.safetensors"), "{}", refusal());
    let mut nan = whole.clone();
    let end = nan.len();
    nan[end - 4..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    fs::write(&path, nan).unwrap();
    assert!(refusal().contains("holds inf"), "{}", refusal());
    fs::write(dir.path().join("adapter_config.json"), "{").unwrap();
    assert!(refusal().contains("not a valid JSON object"));
    let empty = tempfile::tempdir().unwrap();
    assert!(peft::read(empty.path(), &modules(), &[]).unwrap_err().to_string().contains("cannot read"));
}

/// The golden adapters were written by PEFT.
#[test]
fn adapters_of_peft_are_read() {
    for folder in goldens() {
        let model = OpenModel::named(folder.join("base").to_str().unwrap(), None).unwrap();
        let model = model.with_tokens_of(&folder.join("adapter")).unwrap();
        let config = &model.source.config;
        let (modules, weights) = (config.adaptable_modules(), config.trainable_specs());
        let adapter = peft::read(&folder.join("adapter"), &modules, &weights).unwrap();
        assert!(adapter.weights.pairs.values().any(|pair| pair.b.iter().any(|&value| value != 0.0)));
    }
}

fn goldens() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.join("adapter").is_dir()).collect()
}
