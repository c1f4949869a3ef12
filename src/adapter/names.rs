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

    /// Name of DoRA's magnitude, `[out]`.
    pub fn magnitude_name(&self) -> String {
        format!("{}.lora_magnitude_vector", self.path)
    }
}
