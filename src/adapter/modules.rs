//! The modules of a model that can carry a LoRA pair, as an adapter sees them.

/// How a module uses its weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModuleKind {
    /// `output = input x weight^T`, weight `[out_features, in_features]`.
    Linear,
    /// As `Linear`, in each of so many experts, whose pairs lie one after another: A `[experts, rank, in_features]`, B
    /// `[experts, out_features, rank]`.
    Experts(usize),
    /// `output = weight[id]`, weight `[in_features, out_features]`: the vocabulary comes in, hidden states go out.
    Embedding,
}

/// A linear layer, `output = input x weight^T` with weight `[out_features, in_features]`, or the token table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinearModule {
    /// Dotted path as Hugging Face names it: `model.layers.0.self_attn.q_proj`. `*` stands for an expert's number:
    /// `model.layers.0.mlp.experts.*.up_proj`.
    pub path: String,
    /// Index of the decoder layer; `None` for the output head and the token table.
    pub layer: Option<usize>,
    pub in_features: usize,
    pub out_features: usize,
    /// How many experts have such a layer, where it is theirs.
    pub experts: Option<usize>,
}

/// The path of one expert's layer, given that of all experts.
pub fn expert_path(path: &str, expert: usize) -> String {
    path.replacen('*', &expert.to_string(), 1)
}

impl LinearModule {
    /// The last part of the path: `q_proj`.
    pub fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or(&self.path)
    }

    /// The token table has the same name in every family.
    pub fn kind(&self) -> ModuleKind {
        match self.experts {
            Some(count) => ModuleKind::Experts(count),
            None if self.name() == "embed_tokens" => ModuleKind::Embedding,
            None => ModuleKind::Linear,
        }
    }

    /// Whether "all-linear" takes it: neither the token table nor the projection to the vocabulary.
    pub fn is_inner_linear(&self) -> bool {
        self.layer.is_some() && self.kind() != ModuleKind::Embedding
    }
}
