use serde_json::json;

use super::*;
use crate::model::{RopeConfig, RopeScaling, YarnScaling, families};

fn base() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 100, "hidden_size": 48,
        "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 64, "rope_theta": 10000.0, "eos_token_id": [2, 3],
        "bos_token_id": 1, "hidden_act": "silu", "pretraining_tp": 1, "torch_dtype": "bfloat16",
    })
}

fn parse(value: &Value) -> Result<ModelConfig> {
    ModelConfig::parse(value.to_string().as_bytes())
}

fn refused(key: &str, value: Value) -> String {
    let mut config = base();
    config[key] = value;
    parse(&config).unwrap_err().to_string()
}

#[test]
fn the_older_form_is_read() {
    let config = parse(&base()).unwrap();
    assert_eq!(config.head_dim, 8);
    assert_eq!(config.rope, RopeConfig { theta: 10000.0, scaling: RopeScaling::None });
    assert_eq!(config.eos_token_ids, [2, 3]);
    assert!(!config.tie_word_embeddings);
}

#[test]
fn both_spellings_of_rope_give_the_same() {
    let llama3 = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192
    });
    let mut older = base();
    older["rope_theta"] = json!(500_000);
    older["rope_scaling"] = llama3.clone();
    let mut present = base();
    present.as_object_mut().unwrap().remove("rope_theta");
    present["rope_parameters"] = llama3;
    present["rope_parameters"]["rope_theta"] = json!(500_000.0);
    assert_eq!(parse(&older).unwrap().rope, parse(&present).unwrap().rope);
    older["rope_scaling"] = json!({"type": "linear", "factor": 2});
    assert_eq!(parse(&older).unwrap().rope.scaling, RopeScaling::Linear { factor: 2.0 });
}

#[test]
fn unsupported_fields_are_refused_by_name() {
    assert!(
        refused("architectures", json!(["GemmaForCausalLM"])).contains("GemmaForCausalLM is not supported")
    );
    assert!(refused("model_type", json!("mamba")).contains("not supported"));
    assert!(refused("hidden_act", json!("gelu")).contains("hidden_act = \"gelu\""));
    assert!(refused("pretraining_tp", json!(2)).contains("pretraining_tp = 2"));
    assert!(refused("quantization_config", json!({"bits": 4})).contains("quantization_config"));
    assert!(refused("sliding_window", json!(4096)).contains("sliding_window = 4096"));
    assert!(refused("attention_dropout", json!(1.5)).contains("attention_dropout = 1.5"));
    assert!(refused("hidden_dropout", json!(0.1)).contains("hidden_dropout = 0.1"));
    assert!(refused("rope_scaling", json!({"type": "dynamic", "factor": 2})).contains("rope_type dynamic"));
    let mut longrope = json!({"type": "longrope", "short_factor": [1.0]});
    assert!(
        refused("rope_scaling", longrope.clone()).contains("original_max_position_embeddings is missing")
    );
    longrope["original_max_position_embeddings"] = json!(16);
    assert!(refused("rope_scaling", longrope.clone()).contains("long_factor is missing"));
    longrope["long_factor"] = json!([2.0]);
    assert!(refused("rope_scaling", longrope.clone()).contains("short_factor has 1 numbers"));
    longrope["short_factor"] = json!([0.0]);
    assert!(refused("rope_scaling", longrope).contains("short_factor is 0"));
    assert!(refused("rope_scaling", json!({"type": "yarn"})).contains("factor is missing"));
    let unknown = json!({"type": "linear", "factor": 2, "llama_4_scaling_beta": 0.1});
    assert!(refused("rope_scaling", unknown).contains("llama_4_scaling_beta"));
    assert!(refused("rope_theta", Value::Null).contains("rope_theta is missing"));
    assert!(refused("num_local_experts", json!(8)).contains("num_local_experts"));
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    assert!(refused("num_key_value_heads", json!(4)).contains("not a multiple of num_key_value_heads (4)"));
    assert!(refused("num_attention_heads", json!(0)).contains("not a multiple"));
    assert!(refused("num_attention_heads", json!(5)).contains("hidden_size (48) is not a multiple"));
    assert!(refused("vocab_size", json!(0)).contains("vocab_size is 0"));
    assert!(refused("hidden_size", json!(-1)).contains("hidden_size is -1"));
    assert!(refused("head_dim", json!(7)).contains("even"));
    assert!(refused("rms_norm_eps", json!("x")).contains("rms_norm_eps is \"x\""));
    assert!(refused("rope_theta", json!(-5)).contains("rope theta"));
}

#[test]
fn dropout_of_attention_is_left_out_and_told() {
    let mut config = base();
    config["attention_dropout"] = json!(0.1);
    assert!(parse(&config).unwrap().notices()[0].contains("attention_dropout = 0.1"));
    config["attention_dropout"] = json!(0.0);
    assert!(parse(&config).unwrap().notices().is_empty());
}

#[test]
fn harmless_fields_pass_and_survive() {
    let mut config = base();
    config["rope_interleaved"] = json!(false);
    config["_name_or_path"] = json!("somewhere");
    config["use_cache"] = json!(true);
    config["layer_types"] = json!(["full_attention", "full_attention"]);
    let written = parse(&config).unwrap().to_json("float16");
    assert_eq!(written["dtype"], "float16");
    assert_eq!(written.get("torch_dtype"), None);
    assert_eq!(written["_name_or_path"], "somewhere");
}

#[test]
fn yarn_takes_its_defaults_from_the_context() {
    let mut config = base();
    config["rope_scaling"] = json!({"type": "yarn", "factor": 4.0});
    let RopeScaling::Yarn(yarn) = parse(&config).unwrap().rope.scaling else { panic!("not yarn") };
    let attention_factor = 0.1 * 4.0_f64.ln() + 1.0;
    let expected = YarnScaling {
        factor: 4.0,
        original_max_position_embeddings: 64,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attention_factor,
        truncate: true,
    };
    assert_eq!(yarn, expected);
}

/// Every family reads Llama's sizes; what it does not know, it refuses.
#[test]
fn every_family_refuses_fields_of_others() {
    for family in families::ALL {
        let mut config = base();
        config["architectures"] = json!([family.class]);
        config["model_type"] = json!(family.model_type);
        config["head_dim"] = json!(8);
        config["rope_local_base_freq"] = json!(10000.0);
        config.as_object_mut().unwrap().remove("hidden_act");
        if family.model_type != "gemma3_text" {
            config.as_object_mut().unwrap().remove("rope_local_base_freq");
        }
        let sizes = ["num_experts", "num_experts_per_tok", "moe_intermediate_size"];
        let own = |name: &&str| family.fields.split_whitespace().any(|field| field == *name);
        sizes.iter().filter(|name| own(name)).for_each(|&name| config[name] = json!(4));
        assert_eq!(parse(&config).unwrap().architecture, family.architecture, "{}", family.name);
        for (name, value) in
            [("n_routed_experts", json!(8)), ("clip_qkv", json!(8.0)), ("head_bias", json!(true))]
        {
            let mut other = config.clone();
            other[name] = value;
            let error = parse(&other).unwrap_err().to_string();
            assert!(error.contains(name), "{}: {error}", family.name);
        }
        config["model_type"] = json!("mamba");
        assert!(parse(&config).unwrap_err().to_string().contains("mamba is not supported"));
    }
}

#[test]
fn experts_are_read_and_refused_by_name() {
    let mut config = base();
    config["architectures"] = json!(["Qwen3MoeForCausalLM"]);
    config["model_type"] = json!("qwen3_moe");
    let experts = json!({
        "num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 16, "norm_topk_prob": true,
        "decoder_sparse_step": 2, "mlp_only_layers": [], "router_aux_loss_coef": 0.001,
    });
    config.as_object_mut().unwrap().extend(experts.as_object().unwrap().clone());
    let read = parse(&config).unwrap();
    let spec = read.decoder.experts.as_ref().unwrap();
    assert_eq!((spec.count, spec.chosen, spec.intermediate, spec.normalized), (8, 3, 16, true));
    assert_eq!(spec.layers, [false, true]);
    let names: Vec<String> = read.tensor_specs().into_iter().map(|spec| spec.name).collect();
    assert!(names.contains(&"model.layers.1.mlp.experts.7.down_proj.weight".to_owned()));
    assert!(names.contains(&"model.layers.0.mlp.gate_proj.weight".to_owned()));
    assert!(!names.contains(&"model.layers.1.mlp.gate_proj.weight".to_owned()));
    let adaptable = |path: &str| read.linear_modules().iter().any(|module| module.path == path);
    assert!(adaptable("model.layers.1.mlp.experts.*.gate_proj"));
    assert!(!adaptable("model.layers.0.mlp.gate_proj"));

    let refused = |key: &str, value: Value| {
        let mut config = config.clone();
        config[key] = value;
        parse(&config).unwrap_err().to_string()
    };
    assert!(refused("output_router_logits", json!(true)).contains("output_router_logits = true"));
    assert!(refused("num_experts", json!(0)).contains("experts is 0"));
    assert!(refused("num_experts", json!(1u64 << 40)).contains("experts"));
    assert!(refused("num_experts", Value::Null).contains("num_experts is missing"));
    assert!(refused("num_experts_per_tok", json!(9)).contains("9 of 8 experts"));
    assert!(refused("decoder_sparse_step", json!(0)).contains("decoder_sparse_step is 0"));
    assert!(
        refused("shared_expert_intermediate_size", json!(4)).contains("shared_expert_intermediate_size = 4")
    );
    assert!(refused("router_jitter_noise", json!(0.1)).contains("router_jitter_noise = 0.1"));
    config["num_hidden_layers"] = json!(4096);
    config["num_experts"] = json!(1024);
    assert!(parse(&config).unwrap_err().to_string().contains("1024 experts in 2048 layers"));
}
