//! Models as files: folders, shards, GGUF and the hub, whole and broken.

#![allow(clippy::panic, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use lazytune::model::export::export;
use lazytune::model::{FloatType, ModelConfig, ModelLocation, ModelSource, TensorSpec, TokenizerSource};
use lazytune::tensor_file::{SafetensorsFile, SafetensorsWriter};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokenizers::Tokenizer;

fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 11, "hidden_size": 8,
        "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "rms_norm_eps": 1e-6, "max_position_embeddings": 32, "rope_theta": 10000.0, "eos_token_id": 2,
        "tie_word_embeddings": true,
    })
}

fn value_at(name: &str, index: usize) -> f32 {
    // Small multiples of 1/8 are exact in every type.
    ((name.len() + index) % 32) as f32 / 8.0
}

fn write_tensors(path: &Path, specs: &[TensorSpec], float_type: FloatType) {
    let header = specs.iter().map(|spec| (spec.clone(), float_type)).collect();
    let mut writer = SafetensorsWriter::create(path, header).unwrap();
    for spec in specs {
        let values: Vec<_> = (0..spec.elements()).map(|index| value_at(&spec.name, index)).collect();
        writer.write(&spec.name, &values).unwrap();
    }
    writer.finish().unwrap();
}

fn specs() -> Vec<TensorSpec> {
    ModelConfig::parse(config().to_string().as_bytes()).unwrap().tensor_specs()
}

fn write_model(folder: &Path, specs: &[TensorSpec], float_type: FloatType) {
    fs::write(folder.join("config.json"), config().to_string()).unwrap();
    fs::write(folder.join("tokenizer.json"), "{}").unwrap();
    write_tensors(&folder.join("model.safetensors"), specs, float_type);
}

fn write_sharded(folder: &Path) {
    fs::write(folder.join("config.json"), config().to_string()).unwrap();
    let specs = specs();
    let (first, second) = specs.split_at(specs.len() / 2);
    let mut map = serde_json::Map::new();
    for (file, part) in [("a.safetensors", first), ("b.safetensors", second)] {
        write_tensors(&folder.join(file), part, FloatType::Bf16);
        map.extend(part.iter().map(|spec| (spec.name.clone(), json!(file))));
    }
    fs::write(folder.join("model.safetensors.index.json"), json!({ "weight_map": map }).to_string()).unwrap();
}

fn refusal(folder: &Path) -> String {
    ModelSource::open_folder(folder).map(|_| ()).unwrap_err().to_string()
}

fn check_values(source: &ModelSource) {
    for spec in specs() {
        let values = source.weights.read_f32(&spec.name, &spec.shape).unwrap();
        assert!(
            values.iter().enumerate().all(|(index, &value)| value == value_at(&spec.name, index)),
            "{}",
            spec.name
        );
    }
}

#[test]
fn folders_are_read_in_every_type_whole_or_sharded() {
    for float_type in [FloatType::F32, FloatType::F16, FloatType::Bf16] {
        let dir = tempfile::tempdir().unwrap();
        write_model(dir.path(), &specs(), float_type);
        check_values(&ModelSource::open_folder(dir.path()).unwrap());
    }
    let dir = tempfile::tempdir().unwrap();
    write_sharded(dir.path());
    check_values(&ModelSource::open_folder(dir.path()).unwrap());
}

#[test]
fn an_exported_model_keeps_shards_types_and_values() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&from).unwrap();
    write_sharded(&from);
    fs::write(from.join("chat_template.jinja"), "{{ x }}").unwrap();
    let source = ModelSource::open_folder(&from).unwrap();
    let read = |spec: &TensorSpec, out: &mut [f32]| source.weights.read_into(&spec.name, &spec.shape, out);
    export(&source, &to, None, read).unwrap();
    let exported = ModelSource::open_folder(&to).unwrap();
    check_values(&exported);
    assert_eq!(exported.weights.float_type("model.norm.weight"), Some(FloatType::Bf16));
    assert!(to.join("a.safetensors").exists() && to.join("b.safetensors").exists());
    assert_eq!(fs::read_to_string(to.join("chat_template.jinja")).unwrap(), "{{ x }}");
    let written: Value = serde_json::from_slice(&fs::read(to.join("config.json")).unwrap()).unwrap();
    assert_eq!(written["dtype"], "bfloat16");
}

#[test]
fn random_weights_depend_on_the_seed_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), config().to_string()).unwrap();
    let read = |seed, name: &str, shape: &[usize]| {
        ModelSource::random(dir.path(), seed).unwrap().weights.read_f32(name, shape).unwrap()
    };
    let name = "model.layers.0.mlp.up_proj.weight";
    assert_eq!(read(1, name, &[12, 8]), read(1, name, &[12, 8]));
    assert_ne!(read(1, name, &[12, 8]), read(2, name, &[12, 8]));
    assert_eq!(read(1, "model.norm.weight", &[8]), [1.0; 8]);
    let embedding = read(1, "model.embed_tokens.weight", &[11, 8]);
    let deviation = (embedding.iter().map(|value| value * value).sum::<f32>() / 88.0).sqrt();
    assert!((0.014..0.026).contains(&deviation), "{deviation}");
}

#[test]
fn a_truncated_file_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    write_model(dir.path(), &specs(), FloatType::F32);
    let path = dir.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert!(refusal(dir.path()).contains("model.safetensors"), "{}", refusal(dir.path()));
    fs::write(&path, b"<html>not found</html>").unwrap();
    assert!(refusal(dir.path()).contains("the header claims"), "{}", refusal(dir.path()));
    fs::write(&path, b"").unwrap();
    assert!(refusal(dir.path()).contains("0 bytes"));
}

#[test]
fn missing_wrong_and_foreign_tensors_are_listed_together() {
    let dir = tempfile::tempdir().unwrap();
    let mut specs = specs();
    specs.retain(|spec| spec.name != "model.norm.weight");
    specs[0].shape = vec![10, 8];
    specs.push(TensorSpec::new("model.layers.0.self_attn.q_norm.weight", &[4]));
    specs.push(TensorSpec::new("model.layers.0.self_attn.rotary_emb.inv_freq", &[2]));
    write_model(dir.path(), &specs, FloatType::F32);
    let message = refusal(dir.path());
    for part in [
        "model.norm.weight is missing",
        "model.embed_tokens.weight is [10, 8], expected [11, 8]",
        "model.layers.0.self_attn.q_norm.weight is not part of this architecture",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert!(!message.contains("inv_freq"));
}

#[test]
fn values_that_are_not_numbers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    write_model(dir.path(), &specs(), FloatType::F32);
    let path = dir.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let source = ModelSource::open_folder(dir.path()).unwrap();
    let error = source.weights.read_f32("model.norm.weight", &[8]).unwrap_err().to_string();
    assert!(error.contains("tensor model.norm.weight holds NaN at element 7"), "{error}");
}

#[test]
fn a_broken_index_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    write_sharded(dir.path());
    let index = dir.path().join("model.safetensors.index.json");
    let whole = fs::read_to_string(&index).unwrap();
    fs::write(&index, whole.replacen("a.safetensors", "b.safetensors", 1)).unwrap();
    assert!(
        refusal(dir.path()).contains("in b.safetensors, which does not have it"),
        "{}",
        refusal(dir.path())
    );
    fs::write(&index, whole.replacen("a.safetensors", "../a.safetensors", 1)).unwrap();
    assert!(refusal(dir.path()).contains("not a file beside it"), "{}", refusal(dir.path()));
    fs::write(&index, "[]").unwrap();
    assert!(refusal(dir.path()).contains("not a valid index"));
    fs::write(&index, whole).unwrap();
    fs::remove_file(dir.path().join("b.safetensors")).unwrap();
    assert!(refusal(dir.path()).contains("missing shards: b.safetensors"), "{}", refusal(dir.path()));
}

#[test]
fn folders_without_a_model_say_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    assert!(refusal(dir.path()).contains("config.json"));
    fs::write(dir.path().join("config.json"), config().to_string()).unwrap();
    assert!(refusal(dir.path()).contains("has neither model.safetensors nor"));
    fs::write(dir.path().join("pytorch_model.bin"), "").unwrap();
    let error = ModelSource::open_folder(dir.path()).map(|_| ()).unwrap_err();
    assert!(error.hint_text().unwrap().contains("safe_serialization"));
}

#[test]
fn locations_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let parse = |text: &str| ModelLocation::parse(text).map_err(|error| error.to_string());
    let folder = dir.path().to_str().unwrap();
    assert_eq!(parse(folder), Ok(ModelLocation::Folder(dir.path().into())));
    let gguf = dir.path().join("x.GGUF");
    assert!(parse(gguf.to_str().unwrap()).unwrap_err().contains("does not exist"));
    fs::write(&gguf, "").unwrap();
    assert_eq!(parse(gguf.to_str().unwrap()), Ok(ModelLocation::Gguf(gguf.clone())));
    assert_eq!(parse("org/model-1.5"), Ok(ModelLocation::Hub("org/model-1.5".into())));
    for wrong in
        ["./org/model", "../no-such-model", "org/model/extra", "model.gguf", "org/file.gguf", "", "a b/c"]
    {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

/// The golden bases were written by transformers.
#[test]
fn folders_of_transformers_are_read() {
    for folder in goldens("base") {
        let source = ModelSource::open_folder(&folder).unwrap();
        let single = SafetensorsFile::open(&folder.join("model.safetensors")).unwrap();
        for spec in source.config.tensor_specs() {
            let direct = single.read_f32(&spec.name, &spec.shape).unwrap();
            assert_eq!(source.weights.read_f32(&spec.name, &spec.shape).unwrap(), direct);
        }
    }
}

fn goldens(part: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().join(part)).filter(|path| path.is_dir()).collect()
}

/// A real model in both forms, the folder made from the GGUF file by transformers. Run with
/// `LAZYTUNE_TEST_GGUF=model.gguf LAZYTUNE_TEST_FOLDER=folder cargo test --release --test model_files -- --ignored`.
#[test]
#[ignore = "needs a real model, named in two environment variables"]
fn a_gguf_file_equals_the_folder_that_transformers_makes_of_it() {
    let gguf = ModelSource::open_gguf(Path::new(&std::env::var("LAZYTUNE_TEST_GGUF").unwrap())).unwrap();
    let folder_path = PathBuf::from(std::env::var("LAZYTUNE_TEST_FOLDER").unwrap());
    let folder = ModelSource::open_folder(&folder_path).unwrap();
    for spec in folder.config.tensor_specs() {
        let read = |source: &ModelSource| source.weights.read_f32(&spec.name, &spec.shape).unwrap();
        assert!(read(&gguf) == read(&folder), "{}", spec.name);
    }
    let TokenizerSource::Gguf(rebuilt) = &gguf.tokenizer else { panic!("the tokenizer is in the file") };
    let original = Tokenizer::from_file(folder_path.join("tokenizer.json")).unwrap();
    let ids = |tokenizer: &Tokenizer, text: &str| tokenizer.encode(text, true).unwrap().get_ids().to_vec();
    for text in TEXTS {
        assert_eq!(ids(&rebuilt.tokenizer, text), ids(&original, text), "{text:?}");
        let decoded = rebuilt.tokenizer.decode(&ids(&rebuilt.tokenizer, text), false).unwrap();
        assert_eq!(decoded, *text);
    }
    proptest!(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) }, |(text in "(\\PC|\\s|<\\|im_end\\|>|[a-z ]{1,8}|[0-9]){0,30}")| {
        prop_assert_eq!(ids(&rebuilt.tokenizer, &text), ids(&original, &text));
    });
}

const TEXTS: &[&str] = &[
    "",
    " ",
    "Hello, world! It's 2024; they'll pay $1,234.56.",
    "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n",
    "  indented\n\n\tcode = {\"a\": 1}\r\n",
    "naïve café Zürich — 日本語 עברית 🦀👩‍👩‍👧",
    "a<|endoftext|>b<repo_name>x",
];
