//! The squared norm of gradients and the update of a trained tensor.

use super::{Lowering, Node, Place, element_of, extent};
use crate::error::{Error, Result};
use crate::graph::AdamWSpec;
use crate::kernels::metal::Chunk;
use crate::kernels::metal::launch;

use Place::{Input, Output};

/// (any number of tensors) -> [1]
pub fn sum_of_squares(node: &Node<'_>, to: &mut Lowering) -> Result<()> {
    let chunks = |elements: usize| launch::chunks(&[(0, 0, elements as u64)]);
    let cut: Vec<Vec<Chunk>> = node.inputs.iter().map(|input| chunks(input.shape.elements())).collect();
    let partials = extent(cut.iter().map(Vec::len).sum())?;
    let sums = to.scratch(size_of::<f32>() * partials as usize);
    let mut first = 0;
    for (index, chunks) in cut.iter().enumerate() {
        if element_of(node.input(index)?)? != to.element {
            return Err(Error::internal("gradients of different types have no squared norm on Metal"));
        }
        if !chunks.is_empty() {
            let table = to.table(bytemuck::cast_slice(chunks).to_vec());
            let bound = [Input(index).into(), table.into(), sums.at(size_of::<f32>() * first)];
            to.launch(launch::sum_of_squares(extent(chunks.len())?), bound);
            first += chunks.len();
        }
    }
    to.launch(launch::sum_partials(partials), [sums, Output(0)].map(Into::into));
    Ok(())
}

/// (parameter, gradient, first moment, second moment, learning rate, number, factor): the states are updated.
pub fn adamw(node: &Node<'_>, spec: AdamWSpec, to: &mut Lowering) -> Result<()> {
    to.element = element_of(node.input(1)?)?;
    let chunks = launch::chunks(&[(0, 0, node.input(0)?.shape.elements() as u64)]);
    let table = to.table(bytemuck::cast_slice(&chunks).to_vec());
    let [parameter, first, second] = [Input(0), Input(2), Input(3)];
    let bound = [Input(1), table, parameter, first, second, Input(4), Input(5), Input(6)].map(Into::into);
    to.launch(launch::adamw(spec, extent(chunks.len())?), bound);
    Ok(())
}
