//! The tensors and linear layers that a configuration implies.

use super::config::ModelConfig;
use super::families;
use super::spec::{DecoderSpec, HeadNorm};
use crate::adapter::{LinearModule, expert_path};
use crate::tensor_file::TensorSpec;

/// Name, inputs, outputs, and whether it has a bias.
type Linear = (&'static str, usize, usize, bool);

impl ModelConfig {
    /// Every linear layer in forward order, the output head (`lm_head`) last.
    pub fn linear_modules(&self) -> Vec<LinearModule> {
        let decoder = families::decoder(self);
        let mut modules = Vec::new();
        for layer in 0..decoder.layers() {
            for (name, in_features, out_features, _) in decoder.adaptable_linears(layer) {
                let path = format!("model.layers.{layer}.{name}");
                modules.push(LinearModule {
                    path,
                    layer: Some(layer),
                    in_features,
                    out_features,
                    experts: None,
                });
            }
            let Some(experts) = decoder.experts_of(layer) else { continue };
            for (name, in_features, out_features) in experts.projections(decoder.hidden) {
                let (path, experts) = (experts.path(layer, name), Some(experts.count));
                modules.push(LinearModule { path, layer: Some(layer), in_features, out_features, experts });
            }
        }
        let (in_features, out_features) = (self.hidden_size, self.vocab_size);
        let path = "lm_head".into();
        modules.push(LinearModule { path, layer: None, in_features, out_features, experts: None });
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
            experts: None,
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
        let decoder = families::decoder(self);
        let embedding = [self.vocab_size, self.hidden_size];
        let mut specs = vec![TensorSpec::new("model.embed_tokens.weight", &embedding)];
        for layer in 0..decoder.layers() {
            specs.extend(decoder.layer_tensors(layer));
        }
        specs.push(TensorSpec::new("model.norm.weight", &[self.hidden_size]));
        if !self.tie_word_embeddings {
            specs.push(TensorSpec::new("lm_head.weight", &embedding));
        }
        specs
    }

    /// The number of weights.
    pub fn parameters(&self) -> u64 {
        self.tensor_specs().iter().map(|spec| spec.elements() as u64).sum()
    }
}

impl DecoderSpec {
    fn layer_tensors(&self, layer: usize) -> Vec<TensorSpec> {
        let mut specs = self.expert_tensors(layer);
        let prefix = format!("model.layers.{layer}");
        let mut push =
            |name: String, shape: &[usize]| specs.push(TensorSpec::new(format!("{prefix}.{name}"), shape));
        for name in self.norms.names().into_iter().flatten() {
            push(format!("{name}.weight"), &[self.hidden]);
        }
        for (name, in_features, out_features, bias) in self.layer_linears(layer) {
            push(format!("{name}.weight"), &[out_features, in_features]);
            if bias {
                push(format!("{name}.bias"), &[out_features]);
            }
        }
        if self.head_norm != HeadNorm::None {
            for (name, heads) in [("q_norm", self.heads), ("k_norm", self.kv_heads)] {
                push(format!("self_attn.{name}.weight"), &[self.head_norm.width(heads, self.head_dim)]);
            }
        }
        specs
    }

    /// The router and the projections of each expert.
    fn expert_tensors(&self, layer: usize) -> Vec<TensorSpec> {
        let Some(experts) = self.experts_of(layer) else { return Vec::new() };
        let mut specs = vec![TensorSpec::new(experts.router(layer), &[experts.count, self.hidden])];
        for (name, in_features, out_features) in experts.projections(self.hidden) {
            let path = experts.path(layer, name);
            let spec = |expert| {
                let name = format!("{}.weight", expert_path(&path, expert));
                TensorSpec::new(name, &[out_features, in_features])
            };
            specs.extend((0..experts.count).map(spec));
        }
        specs
    }

    /// Those that can carry a pair. PEFT takes the names of a feed-forward's projections for those of experts where a
    /// model has any, and leaves the feed-forwards of other layers alone.
    fn adaptable_linears(&self, layer: usize) -> Vec<Linear> {
        let mut linears = self.layer_linears(layer);
        if self.experts.is_some() {
            linears.retain(|(name, ..)| !name.starts_with("mlp."));
        }
        linears
    }

    /// In forward order; without those of experts.
    fn layer_linears(&self, layer: usize) -> Vec<Linear> {
        let mut linears = self.every_linear();
        if self.experts_of(layer).is_some() {
            linears.retain(|(name, ..)| !name.starts_with("mlp."));
        }
        linears
    }

    fn every_linear(&self) -> Vec<Linear> {
        let (hidden, inner) = (self.hidden, self.intermediate);
        let [queries, keys] = self.widths();
        let bias = self.query_key_value_bias;
        let output = ("self_attn.o_proj", queries, hidden, self.output_bias);
        let down = ("mlp.down_proj", inner, hidden, self.mlp_bias);
        if self.fused_projections {
            return vec![
                ("self_attn.qkv_proj", hidden, queries + 2 * keys, bias),
                output,
                ("mlp.gate_up_proj", hidden, 2 * inner, self.mlp_bias),
                down,
            ];
        }
        vec![
            ("self_attn.q_proj", hidden, queries, bias),
            ("self_attn.k_proj", hidden, keys, bias),
            ("self_attn.v_proj", hidden, keys, bias),
            output,
            ("mlp.gate_proj", hidden, inner, self.mlp_bias),
            ("mlp.up_proj", hidden, inner, self.mlp_bias),
            down,
        ]
    }
}
