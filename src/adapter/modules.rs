//! The modules of a model that can carry a LoRA pair, as an adapter sees them.

/// How a module uses its weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModuleKind {
    /// `output = input x weight^T`, weight `[out_features, in_features]`.
    Linear,
    /// `output = weight[id]`, weight `[in_features, out_features]`: the vocabulary comes in, hidden states go out.
    Embedding,
}

/// A linear layer, `output = input x weight^T` with weight `[out_features, in_features]`, or the token table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinearModule {
    /// Dotted path as Hugging Face names it: `model.layers.0.self_attn.q_proj`.
    pub path: String,
    /// Index of the decoder layer; `None` for the output head and the token table.
    pub layer: Option<usize>,
    pub in_features: usize,
    pub out_features: usize,
}

impl LinearModule {
    /// The last part of the path: `q_proj`.
    pub fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or(&self.path)
    }

    /// The token table has the same name in every family.
    pub fn kind(&self) -> ModuleKind {
        if self.name() == "embed_tokens" { ModuleKind::Embedding } else { ModuleKind::Linear }
    }

    /// Whether "all-linear" takes it: neither the token table nor the projection to the vocabulary.
    pub fn is_inner_linear(&self) -> bool {
        self.layer.is_some() && self.kind() == ModuleKind::Linear
    }
}
