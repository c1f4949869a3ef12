//! The linear layers of a model, as an adapter sees them.

/// A linear layer: `output = input x weight^T`, weight `[out_features, in_features]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinearModule {
    /// Dotted path as Hugging Face names it: `model.layers.0.self_attn.q_proj`.
    pub path: String,
    /// Index of the decoder layer; `None` for the output head.
    pub layer: Option<usize>,
    pub in_features: usize,
    pub out_features: usize,
}

impl LinearModule {
    /// The last part of the path: `q_proj`.
    pub fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or(&self.path)
    }

    /// Whether this is the projection to the vocabulary, which "all-linear" leaves out.
    pub fn is_output_head(&self) -> bool {
        self.layer.is_none()
    }
}
