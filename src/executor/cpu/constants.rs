//! Computes the values that no step changes.

use std::collections::HashMap;
use std::sync::Arc;

use super::device::{CpuDevice, split};
use crate::error::{Error, Result};
use crate::executor::device::Device;
use crate::executor::pool::Batch;
use crate::executor::tensor_cache::CacheKey;
use crate::graph::{FrozenGraph, Operation};
use crate::kernels::{self, Kernel, Memory, Operand};
use crate::plan::align;

/// The value of a constant node, from the tensor cache if it is there.
///
/// A frozen weight that only leads to constants (a matrix on its way to its packed form) is read, used and dropped.
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

fn compute(device: &mut CpuDevice, graph: &FrozenGraph, root: usize) -> Result<Arc<Memory>> {
    let target = device.target();
    let mut held: HashMap<usize, (Arc<Memory>, Operand)> = HashMap::new();
    let needed = graph.ancestors(root);
    for index in (0..=root).filter(|&index| needed[index]) {
        let node = &graph.nodes()[index];
        let tensor = node.tensor_type();
        let part = |held: &HashMap<usize, (Arc<Memory>, Operand)>, offset: usize| {
            let (memory, whole) = &held[&node.inputs[0]];
            Ok::<_, Error>((memory.clone(), whole.part(offset, tensor)?))
        };
        let entry = match &node.operation {
            Operation::Frozen(name) => {
                let kept = device.leaves.get(name.as_ref()).map(|(_, memory)| memory.clone());
                let memory = kept.map_or_else(|| device.load(name, tensor).map(Arc::new), Ok)?;
                let operand = memory.operand(0, tensor)?;
                (memory, operand)
            }
            Operation::Output(output) => {
                let earlier = &graph.nodes()[node.inputs[0]].outputs[..*output];
                part(&held, earlier.iter().map(|earlier| align(earlier.bytes())).sum())?
            }
            Operation::Reshape(_) | Operation::Detach => part(&held, 0)?,
            operation => {
                let memory = Arc::new(Memory::zeroed(target.storage_bytes(node))?);
                let whole = memory.operand(0, tensor)?;
                let inputs: Vec<Operand> = node.inputs.iter().map(|input| held[input].1).collect();
                run_once(device, kernels::build(operation, &inputs, &split(&whole, node)?)?)?;
                (memory, whole)
            }
        };
        held.insert(index, entry);
    }
    held.remove(&root).map(|(memory, _)| memory).ok_or_else(|| Error::internal("a constant was not computed"))
}

fn run_once(device: &mut CpuDevice, kernel: Box<dyn Kernel>) -> Result<()> {
    device.pool.run(&Arc::new(Batch::new(vec![Arc::from(kernel)])))
}
