//! What the planner knows about Metal.

use crate::graph::Operation;
use crate::kernels::metal::lower::has_kernel;
use crate::passes::{FUSE, MERGE, Pass, SIMPLIFY};
use crate::plan::Target;

/// Fused operations without a Metal kernel are decomposed.
#[derive(Debug, Clone, Copy, Default)]
pub struct MetalTarget;

impl Target for MetalTarget {
    fn batch_size_hint(&self) -> usize {
        16
    }

    fn recomputes(&self) -> bool {
        true
    }

    fn passes(&self) -> Vec<Pass> {
        vec![SIMPLIFY, FUSE, MERGE]
    }

    fn lacks_kernel(&self, operation: &Operation) -> bool {
        !operation.is_leaf() && !has_kernel(operation)
    }
}
