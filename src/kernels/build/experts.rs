//! Kernels of mixtures of experts.

use bytemuck::Pod;

use super::Binding;
use crate::error::Result;
use crate::graph::Operation;
use crate::kernels::Kernel;
use crate::kernels::experts::{ExpertLinear, ExpertWeightGrad, Route, RouteSpec};
use crate::kernels::matmul::{Grouped, MatMul};
use crate::kernels::number::Number;

pub(super) fn build<E: Pod + Number + 'static>(at: &Binding<'_>) -> Result<Box<dyn Kernel>>
where
    MatMul<E>: Grouped,
{
    let (first, y) = (at.input(0)?, at.output(0)?);
    let width = first.tensor.shape.last();
    Ok(match at.operation {
        Operation::Route { chosen, side } => {
            let spec = RouteSpec { experts: width, chosen: *chosen, side: *side };
            Box::new(Route::<E>::new(first.input(), y.output(), spec)?)
        }
        Operation::ExpertLinear { transpose_weight } => {
            let operands = [first.input::<E>(), at.input(1)?.input()];
            let widths = [width, y.tensor.shape.last()];
            let experts = at.input(2)?.input();
            Box::new(ExpertLinear::new(operands, experts, y.output(), widths, *transpose_weight)?)
        }
        Operation::ExpertWeightGrad { .. } => {
            let x = at.input(1)?;
            let widths = [width, x.tensor.shape.last()];
            let experts = at.input(2)?.input();
            Box::new(ExpertWeightGrad::new([first.input::<E>(), x.input()], experts, y.output(), widths)?)
        }
        _ => return Err(at.unsupported()),
    })
}
