//! Values that no step changes, computed by the CPU's kernels whatever the device.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::graph::{FrozenGraph, FrozenNode, Operation};
use crate::kernels::{self, Kernel, Memory, Operand};
use crate::plan::align;

/// Computes the value of the node `root`, which depends on weights and constants alone. `storage_bytes` says what all
/// outputs of a node occupy, `weight` reads a frozen weight, `run` runs a kernel.
///
/// A frozen weight that only leads to constants (a matrix on its way to its packed form) is read, used and dropped.
pub(super) fn constant(
    graph: &FrozenGraph,
    root: usize,
    storage_bytes: &dyn Fn(&FrozenNode) -> usize,
    weight: &mut dyn FnMut(&FrozenNode, &str) -> Result<Arc<Memory>>,
    run: &mut dyn FnMut(Box<dyn Kernel>) -> Result<()>,
) -> Result<Arc<Memory>> {
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
                let memory = weight(node, name)?;
                let operand = memory.operand(0, tensor)?;
                (memory, operand)
            }
            Operation::Output(output) => {
                let earlier = &graph.nodes()[node.inputs[0]].outputs[..*output];
                part(&held, earlier.iter().map(|earlier| align(earlier.bytes())).sum())?
            }
            Operation::Reshape(_) | Operation::Detach => part(&held, 0)?,
            operation => {
                let memory = Arc::new(Memory::zeroed(storage_bytes(node))?);
                let whole = memory.operand(0, tensor)?;
                let inputs: Vec<Operand> = node.inputs.iter().map(|input| held[input].1).collect();
                run(kernels::build(operation, &inputs, &split(&whole, node)?)?)?;
                (memory, whole)
            }
        };
        held.insert(index, entry);
    }
    held.remove(&root).map(|(memory, _)| memory).ok_or_else(|| Error::internal("a constant was not computed"))
}

/// The outputs of a node lie one after the other.
pub(super) fn split(whole: &Operand, node: &FrozenNode) -> Result<Vec<Operand>> {
    let mut offset = 0;
    let mut outputs = Vec::with_capacity(node.outputs.len());
    for &tensor in &node.outputs {
        outputs.push(whole.part(offset, tensor)?);
        offset += align(tensor.bytes());
    }
    Ok(outputs)
}

/// As aligned as kernels want their scratch memory.
#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Runs a kernel on this thread alone.
pub(super) fn run_alone(kernel: Box<dyn Kernel>) -> Result<()> {
    let mut scratch = vec![Line([0; 64]); kernel.scratch_bytes().div_ceil(64)];
    (0..kernel.parts()).for_each(|part| kernel.run(part, bytemuck::cast_slice_mut(&mut scratch)));
    Ok(())
}
