//! Names of an adapter's tensors: PEFT's keys without their prefix.

use super::AdaptedLinear;
use super::modules::ModuleKind;

/// Name of a linear layer's A, [rank, in].
pub fn lora_a_name(path: &str) -> String {
    format!("{path}.lora_A.weight")
}

/// Name of a linear layer's B, [out, rank].
pub fn lora_b_name(path: &str) -> String {
    format!("{path}.lora_B.weight")
}

impl AdaptedLinear {
    /// Name of A, [rank, in].
    pub fn a_name(&self) -> String {
        match self.kind {
            ModuleKind::Linear | ModuleKind::Experts(_) => lora_a_name(&self.path),
            ModuleKind::Embedding => format!("{}.lora_embedding_A", self.path),
        }
    }

    /// Name of B, [out, rank].
    pub fn b_name(&self) -> String {
        match self.kind {
            ModuleKind::Linear | ModuleKind::Experts(_) => lora_b_name(&self.path),
            ModuleKind::Embedding => format!("{}.lora_embedding_B", self.path),
        }
    }

    /// Shape of A, that of all experts where there are any.
    pub fn a_dims(&self) -> Vec<usize> {
        self.dims([self.rank, self.in_features])
    }

    /// Shape of B, that of all experts where there are any.
    pub fn b_dims(&self) -> Vec<usize> {
        self.dims([self.out_features, self.rank])
    }

    fn dims(&self, pair: [usize; 2]) -> Vec<usize> {
        match self.kind {
            ModuleKind::Experts(count) => vec![count, pair[0], pair[1]],
            ModuleKind::Linear | ModuleKind::Embedding => pair.to_vec(),
        }
    }

    /// Name of DoRA's magnitude, `[out]`.
    pub fn magnitude_name(&self) -> String {
        format!("{}.lora_magnitude_vector", self.path)
    }
}
