//! The tensors and linear layers that a configuration implies.

use super::config::ModelConfig;
use crate::adapter::LinearModule;
use crate::tensor_file::TensorSpec;

impl ModelConfig {
    /// Every linear layer in forward order, the output head (`lm_head`) last.
    pub fn linear_modules(&self) -> Vec<LinearModule> {
        let mut modules = Vec::new();
        for layer in 0..self.num_hidden_layers {
            for (name, in_features, out_features, _) in self.layer_linears() {
                let path = format!("model.layers.{layer}.{name}");
                modules.push(LinearModule { path, layer: Some(layer), in_features, out_features });
            }
        }
        let (in_features, out_features) = (self.hidden_size, self.vocab_size);
        modules.push(LinearModule { path: "lm_head".into(), layer: None, in_features, out_features });
        modules
    }

    /// Every module that can carry a LoRA pair: the linear ones, and the token table.
    pub fn adaptable_modules(&self) -> Vec<LinearModule> {
        let mut modules = self.linear_modules();
        let (in_features, out_features) = (self.vocab_size, self.hidden_size);
        modules.push(LinearModule {
            path: "model.embed_tokens".into(),
            layer: None,
            in_features,
            out_features,
        });
        modules
    }

    /// Every weight that an adapter can train in full: a tied head too, which then is no longer tied.
    pub fn trainable_specs(&self) -> Vec<TensorSpec> {
        let mut specs = self.tensor_specs();
        if self.tie_word_embeddings {
            specs.push(TensorSpec::new("lm_head.weight", &[self.vocab_size, self.hidden_size]));
        }
        specs
    }

    /// Every tensor that the model needs, with its shape; a tied head has none of its own.
    pub fn tensor_specs(&self) -> Vec<TensorSpec> {
        let hidden = self.hidden_size;
        let embedding = [self.vocab_size, hidden];
        let mut specs = vec![TensorSpec::new("model.embed_tokens.weight", &embedding)];
        for layer in 0..self.num_hidden_layers {
            let prefix = format!("model.layers.{layer}");
            specs.push(TensorSpec::new(format!("{prefix}.input_layernorm.weight"), &[hidden]));
            for (name, in_features, out_features, bias) in self.layer_linears() {
                specs.push(TensorSpec::new(format!("{prefix}.{name}.weight"), &[out_features, in_features]));
                if bias {
                    specs.push(TensorSpec::new(format!("{prefix}.{name}.bias"), &[out_features]));
                }
            }
            specs.push(TensorSpec::new(format!("{prefix}.post_attention_layernorm.weight"), &[hidden]));
        }
        specs.push(TensorSpec::new("model.norm.weight", &[hidden]));
        if !self.tie_word_embeddings {
            specs.push(TensorSpec::new("lm_head.weight", &embedding));
        }
        specs
    }

    /// The number of weights.
    pub fn parameters(&self) -> u64 {
        self.tensor_specs().iter().map(|spec| spec.elements() as u64).sum()
    }

    // (name, in, out, has a bias)
    fn layer_linears(&self) -> [(&'static str, usize, usize, bool); 7] {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let queries = self.num_attention_heads * self.head_dim;
        let keys = self.num_key_value_heads * self.head_dim;
        [
            ("self_attn.q_proj", hidden, queries, self.attention_bias),
            ("self_attn.k_proj", hidden, keys, self.attention_bias),
            ("self_attn.v_proj", hidden, keys, self.attention_bias),
            ("self_attn.o_proj", queries, hidden, self.attention_bias),
            ("mlp.gate_proj", hidden, inner, self.mlp_bias),
            ("mlp.up_proj", hidden, inner, self.mlp_bias),
            ("mlp.down_proj", inner, hidden, self.mlp_bias),
        ]
    }
}
