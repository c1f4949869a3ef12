use std::path::Path;

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use proptest::prelude::*;

use super::*;
use crate::model::{ModelConfig, ModelSource, RopeScaling};

/// One layer, two heads of four, two characters of vocabulary beside the special tokens.
fn metadata() -> Vec<(&'static str, Value)> {
    let text = |text: &str| Value::String(text.into());
    let texts = |list: &[&str]| Value::Array(list.iter().map(|item| text(item)).collect());
    vec![
        ("general.architecture", text("llama")),
        ("llama.block_count", Value::U32(1)),
        ("llama.context_length", Value::U32(64)),
        ("llama.embedding_length", Value::U32(32)),
        ("llama.feed_forward_length", Value::U32(32)),
        ("llama.attention.head_count", Value::U32(2)),
        ("llama.attention.head_count_kv", Value::U32(1)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("llama.rope.freq_base", Value::F32(500.0)),
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("smollm")),
        ("tokenizer.ggml.tokens", texts(&["<s>", "</s>", "a", "b", "ab", "Ġ"])),
        ("tokenizer.ggml.token_type", Value::Array([3, 3, 1, 1, 1, 1].map(Value::I32).to_vec())),
        ("tokenizer.ggml.merges", texts(&["a b"])),
        ("tokenizer.ggml.bos_token_id", Value::U32(0)),
        ("tokenizer.ggml.eos_token_id", Value::U32(1)),
        ("tokenizer.ggml.add_bos_token", Value::Bool(true)),
        ("tokenizer.chat_template", text("{{ messages }}")),
    ]
}

fn tensors() -> Vec<(&'static str, QTensor)> {
    let tensor = |rows: usize, columns: usize, dtype| {
        let values = Tensor::arange(0.0, (rows * columns) as f32, &Device::Cpu).unwrap();
        let shape: Vec<_> = [rows, columns].into_iter().filter(|&size| size > 0).collect();
        let values = if rows == 0 {
            Tensor::ones(columns, candle_core::DType::F32, &Device::Cpu).unwrap()
        } else {
            values
        };
        QTensor::quantize(&values.reshape(shape).unwrap(), dtype).unwrap()
    };
    let plain = GgmlDType::F32;
    vec![
        ("token_embd.weight", tensor(6, 32, GgmlDType::Q8_0)),
        ("output_norm.weight", tensor(0, 32, plain)),
        ("blk.0.attn_norm.weight", tensor(0, 32, plain)),
        ("blk.0.ffn_norm.weight", tensor(0, 32, plain)),
        ("blk.0.attn_q.weight", tensor(32, 32, plain)),
        ("blk.0.attn_k.weight", tensor(16, 32, plain)),
        ("blk.0.attn_v.weight", tensor(16, 32, plain)),
        ("blk.0.attn_output.weight", tensor(32, 32, plain)),
        ("blk.0.ffn_gate.weight", tensor(32, 32, GgmlDType::Q4_1)),
        ("blk.0.ffn_up.weight", tensor(32, 32, GgmlDType::F16)),
        ("blk.0.ffn_down.weight", tensor(32, 32, plain)),
    ]
}

fn write(
    path: &Path,
    change: impl FnOnce(&mut Vec<(&'static str, Value)>, &mut Vec<(&'static str, QTensor)>),
) {
    let (mut metadata, mut tensors) = (metadata(), tensors());
    change(&mut metadata, &mut tensors);
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    gguf_file::write(&mut std::io::BufWriter::new(std::fs::File::create(path).unwrap()), &metadata, &tensors)
        .unwrap();
}

fn open(
    change: impl FnOnce(&mut Vec<(&'static str, Value)>, &mut Vec<(&'static str, QTensor)>),
) -> crate::Result<ModelSource> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    write(&path, change);
    ModelSource::open_gguf(&path)
}

fn set(key: &'static str, value: Value) -> String {
    let changed = open(|metadata, _| {
        metadata.retain(|(name, _)| *name != key);
        metadata.push((key, value));
    });
    changed.map(|_| ()).unwrap_err().to_string()
}

#[test]
fn configuration_and_weights_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    write(&path, |_, _| {});
    let source = ModelSource::open_gguf(&path).unwrap();
    let ModelConfig { vocab_size, head_dim, num_key_value_heads, rms_norm_eps, .. } = source.config;
    assert_eq!((vocab_size, head_dim, num_key_value_heads, rms_norm_eps), (6, 16, 1, 1e-5));
    assert!(source.config.tie_word_embeddings);
    let read = |name: &str, shape: &[usize]| source.weights.read_f32(name, shape).unwrap();
    let embedding = read("model.embed_tokens.weight", &[6, 32]);
    assert!(embedding.iter().enumerate().all(|(at, value)| (value - at as f32).abs() < 1.0));
    assert_eq!(read("model.layers.0.mlp.up_proj.weight", &[32, 32])[1023], 1023.0);
    assert_eq!(read("model.layers.0.self_attn.v_proj.weight", &[16, 32])[33], 33.0);
    // Row 1 of the file is row head_dim / 2 of the model.
    let keys = read("model.layers.0.self_attn.k_proj.weight", &[16, 32]);
    assert_eq!((keys[8 * 32], keys[32]), (32.0, 64.0));
    let queries = read("model.layers.0.self_attn.q_proj.weight", &[32, 32]);
    assert_eq!((queries[8 * 32], queries[16 * 32], queries[24 * 32]), (32.0, 512.0, 544.0));
}

#[test]
fn the_tokenizer_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    write(&path, |_, _| {});
    let tokenizer = GgufTokenizer::from_file(&GgufFile::open(&path).unwrap()).unwrap();
    let ids = |text: &str, special| tokenizer.tokenizer.encode(text, special).unwrap().get_ids().to_vec();
    assert_eq!(ids("ab a</s>", true), [0, 4, 5, 2, 1]);
    assert_eq!(ids("ab", false), [4]);
    assert_eq!(tokenizer.eos, Some(tokenizer::SpecialToken { text: "</s>".into(), id: 1 }));
    assert_eq!(tokenizer.pad, None);
    assert_eq!(tokenizer.config_json()["chat_template"], "{{ messages }}");
}

#[test]
fn what_ends_an_answer_is_known_by_its_text_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    write(&path, |metadata, _| {
        metadata.retain(|(key, _)| *key != "tokenizer.ggml.tokens");
        let tokens = ["<s>", "<|end|>", "a", "b", "ab", "</s>"].map(|token| Value::String(token.into()));
        metadata.push(("tokenizer.ggml.tokens", Value::Array(tokens.to_vec())));
        metadata.push(("tokenizer.ggml.eot_token_id", Value::U32(5)));
    });
    let tokenizer = GgufTokenizer::from_file(&GgufFile::open(&path).unwrap()).unwrap();
    assert_eq!(tokenizer.ends, [1, 5]);
}

#[test]
fn a_rope_table_of_llama_3_is_recognized() {
    let source = open(|metadata, tensors| {
        metadata.retain(|(key, _)| *key != "llama.rope.freq_base");
        metadata.push(("llama.rope.freq_base", Value::F32(500_000.0)));
        let divisors = (0..8).map(|index| {
            let wavelength = std::f64::consts::TAU * 500_000_f64.powf(index as f64 / 8.0);
            let smooth = ((8192.0 / wavelength - 1.0) / 3.0).clamp(0.0, 1.0);
            (1.0 / ((1.0 - smooth) / 32.0 + smooth)) as f32
        });
        let table = Tensor::from_iter(divisors, &Device::Cpu).unwrap();
        tensors.push(("rope_freqs.weight", QTensor::quantize(&table, GgmlDType::F32).unwrap()));
    });
    let RopeScaling::Llama3 { factor, .. } = source.unwrap().config.rope.scaling else {
        panic!("not recognized")
    };
    assert_eq!(factor, 32.0);
}

/// Makes the model a mixture of `count` experts, of which the file has two.
fn mixture(
    count: u32,
    metadata: &mut Vec<(&'static str, Value)>,
    tensors: &mut Vec<(&'static str, QTensor)>,
) -> Vec<(&'static str, Vec<f32>)> {
    metadata.push(("llama.expert_count", Value::U32(count)));
    metadata.push(("llama.expert_used_count", Value::U32(1)));
    tensors.retain(|(name, _)| !["ffn_gate.", "ffn_up.", "ffn_down."].iter().any(|part| name.contains(part)));
    let quantized = |shape: &[usize], dtype| {
        let values = Tensor::arange(0.0, shape.iter().product::<usize>() as f32, &Device::Cpu).unwrap();
        QTensor::quantize(&values.reshape(shape).unwrap(), dtype).unwrap()
    };
    tensors.push(("blk.0.ffn_gate_inp.weight", quantized(&[2, 32], GgmlDType::F32)));
    let experts = [
        ("blk.0.ffn_gate_exps.weight", "w1", GgmlDType::Q4_1),
        ("blk.0.ffn_up_exps.weight", "w3", GgmlDType::F16),
        ("blk.0.ffn_down_exps.weight", "w2", GgmlDType::F32),
    ];
    let each = experts.map(|(stored, name, dtype)| {
        let tensor = quantized(&[2, 32, 32], dtype);
        let values = tensor.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        tensors.push((stored, tensor));
        (name, values)
    });
    each.to_vec()
}

#[test]
fn experts_are_parts_of_one_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let mut expected = Vec::new();
    write(&path, |metadata, tensors| expected = mixture(2, metadata, tensors));
    let source = ModelSource::open_gguf(&path).unwrap();
    assert_eq!(source.config.architecture, crate::model::Architecture::Mixtral);
    for (name, values) in expected {
        let path = format!("model.layers.0.block_sparse_moe.experts.*.{name}.weight");
        assert_eq!(source.weights.read_f32(&path, &[2, 32, 32]).unwrap(), values);
        let second = source.weights.read_f32(&path.replace('*', "1"), &[32, 32]).unwrap();
        assert_eq!(second, values[1024..]);
    }
    let missing = open(|metadata, tensors| {
        mixture(3, metadata, tensors);
    });
    let missing = missing.unwrap_err().to_string();
    assert!(missing.contains("block_sparse_moe.experts.2.w1.weight is missing"), "{missing}");
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let text = |text: &str| Value::String(text.into());
    assert!(set("general.architecture", text("mamba")).contains("mamba is not supported"));
    assert!(set("llama.expert_count", Value::U32(8)).contains("num_experts_per_tok is missing"));
    assert!(set("llama.rope.scaling.type", text("longrope")).contains("rope scaling longrope"));
    assert!(set("llama.rope.scaling.type", text("yarn")).contains("original_context_length"));
    assert!(set("llama.attention.sliding_window", Value::U32(8)).contains("sliding_window is set"));
    assert!(set("llama.block_count", Value::U32(u32::MAX)).contains("num_hidden_layers"));
    assert!(
        set("llama.block_count", Value::U32(2)).contains("model.layers.1.input_layernorm.weight is missing")
    );
    assert!(set("llama.attention.head_count", Value::U32(0)).contains("num_attention_heads is 0"));
    assert!(set("tokenizer.ggml.model", text("t5")).contains("tokenizer model t5"));
    assert!(set("tokenizer.ggml.pre", text("viking")).contains("pre-tokenizer viking"));
    assert!(set("tokenizer.ggml.model", text("llama")).contains("a score for each token"));
    assert!(set("general.alignment", Value::U32(0)).contains("general.alignment"));
    let merges = Value::Array(vec![text("nonsense")]);
    assert!(set("tokenizer.ggml.merges", merges).contains("entry 0 is not two tokens"));
    let unknown = Value::Array(vec![text("x y")]);
    assert!(set("tokenizer.ggml.merges", unknown).contains("cannot be rebuilt"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever happens to the header, the answer is a model or an error: no panic, no huge allocation.
    #[test]
    fn a_damaged_file_is_an_error(cut in 0_usize..12_000, at in 0_usize..2_000, bytes in any::<[u8; 8]>()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        write(&path, |_, _| {});
        let mut content = std::fs::read(&path).unwrap();
        let whole = content.len();
        content[at..at + 8].copy_from_slice(&bytes);
        content.truncate(whole - cut);
        std::fs::write(&path, content).unwrap();
        let opened = ModelSource::open_gguf(&path);
        // The last 31 bytes may be padding.
        prop_assert!(cut < 32 || opened.is_err());
    }
}
