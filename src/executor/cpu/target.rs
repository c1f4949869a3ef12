//! What the planner knows about the CPU.

use crate::graph::{FrozenNode, Operation};
use crate::kernels;
use crate::passes::{FUSE, JOIN, LAYOUT, MERGE, Pass, SIMPLIFY};
use crate::plan::{Target, align};

/// How the CPU executes; the switches exist so that the benches can measure each idea alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuOptions {
    /// Threads that compute, the executor's own among them.
    pub threads: usize,
    /// The most operations in one batch.
    pub batch_size_hint: usize,
    /// Use fused kernels; off, everything is decomposed into plain operations.
    pub fused_kernels: bool,
    /// Join sums into matrix products.
    pub fuse: bool,
    /// Make one product of the thin ones that read the same matrix.
    pub merge: bool,
    /// Keep values that do not depend on the step's inputs.
    pub tensor_cache: bool,
    /// Compute cheap values again in the backward pass instead of keeping them.
    pub rematerialize: bool,
}

impl Default for CpuOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            threads,
            batch_size_hint: 16,
            fused_kernels: true,
            fuse: true,
            merge: true,
            tensor_cache: true,
            rematerialize: true,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct CpuTarget(pub CpuOptions);

impl Target for CpuTarget {
    fn storage_bytes(&self, node: &FrozenNode) -> usize {
        match node.operation {
            Operation::Pack => align(kernels::packed_bytes(node.tensor_type())),
            _ => node.outputs.iter().map(|output| align(output.bytes())).sum(),
        }
    }

    fn batch_size_hint(&self) -> usize {
        self.0.batch_size_hint
    }

    fn caches_constants(&self) -> bool {
        self.0.tensor_cache
    }

    fn recomputes(&self) -> bool {
        self.0.rematerialize
    }

    fn passes(&self) -> Vec<Pass> {
        let mut passes = vec![SIMPLIFY];
        if self.0.fuse {
            passes.push(FUSE);
        }
        if self.0.merge {
            passes.push(MERGE);
        }
        if self.0.fused_kernels {
            passes.push(LAYOUT);
        }
        passes
    }

    fn late_passes(&self) -> Vec<Pass> {
        if self.0.fuse && self.0.fused_kernels { vec![JOIN] } else { Vec::new() }
    }

    fn lacks_kernel(&self, operation: &Operation) -> bool {
        !self.0.fused_kernels && !operation.is_leaf()
    }
}
