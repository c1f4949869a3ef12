//! Computes the values that no step changes.

use std::sync::Arc;

use super::device::CpuDevice;
use crate::error::Result;
use crate::executor::constants::constant;
use crate::executor::device::Device;
use crate::executor::pool::Batch;
use crate::executor::tensor_cache::CacheKey;
use crate::graph::{FrozenGraph, FrozenNode};
use crate::kernels::{Kernel, Memory};

/// The value of a constant node, from the tensor cache if it is there.
pub(super) fn materialize(
    device: &mut CpuDevice,
    graph: &FrozenGraph,
    fingerprints: &[CacheKey],
    index: usize,
) -> Result<Arc<Memory>> {
    let cache = std::mem::take(&mut device.cache);
    let value = cache.get_or_compute(&fingerprints[index], || compute(device, graph, index));
    device.cache = cache;
    value
}

fn compute(device: &CpuDevice, graph: &FrozenGraph, root: usize) -> Result<Arc<Memory>> {
    let target = device.target();
    let bytes = |node: &FrozenNode| target.storage_bytes(node);
    let mut weight = |node: &FrozenNode, name: &str| {
        let kept = device.leaves.get(name).map(|(_, memory)| memory.clone());
        kept.map_or_else(|| device.load(name, node.tensor_type()).map(Arc::new), Ok)
    };
    let mut run = |kernel: Box<dyn Kernel>| device.pool.run(&Arc::new(Batch::new(vec![Arc::from(kernel)])));
    constant(graph, root, &bytes, &mut weight, &mut run)
}
