//! Kernels of fused operations on activations of one dtype; statistics, weights and states are f32.

use super::Binding;
use crate::error::Result;
use crate::graph::{DType, Operation};
use crate::kernels::Kernel;
use crate::kernels::adamw::{AdamW, AdamWStates, AdamWStep};
use crate::kernels::attention::{Attention, AttentionGrad, AttentionGradInputs, CachedAttention};
use crate::kernels::bias::AddBias;
use crate::kernels::gated::{GeGlu, GeGluGrad, SwiGlu, SwiGluGrad};
use crate::kernels::number::Element;
use crate::kernels::rms_norm::{RmsNorm, RmsNormGrad, RmsNormGradInputs};
use crate::kernels::rope::Rope;
use crate::kernels::sum_of_squares::SumOfSquares;

pub(super) fn build<E: Element>(at: &Binding<'_>) -> Result<Box<dyn Kernel>> {
    use Operation as Op;
    let input = |slot: usize| Ok::<_, crate::error::Error>(at.input(slot)?.input::<E>());
    let output = |slot: usize| Ok::<_, crate::error::Error>(at.output(slot)?.output::<E>());
    Ok(match at.operation {
        Op::RmsNorm { epsilon } => {
            let (x, y) = (input(0)?, output(0)?);
            Box::new(RmsNorm::<E>::new(epsilon.0, x, input(1)?, y)?)
        }
        Op::RmsNormGrad { epsilon, weight_gradient, residual } => {
            let inputs = RmsNormGradInputs {
                x: input(0)?,
                weight: input(1)?,
                dy: input(2)?,
                residual: residual.then(|| input(3)).transpose()?,
            };
            let dweight = weight_gradient.then(|| output(1)).transpose()?;
            Box::new(RmsNormGrad::<E>::new(epsilon.0, inputs, output(0)?, dweight)?)
        }
        Op::Rope { head_dim, inverse } => {
            let angles = [at.input(1)?, at.input(2)?];
            if angles.iter().any(|angle| angle.tensor.dtype != DType::F32) {
                return Err(at.unsupported());
            }
            let width = at.input(0)?.tensor.shape.last();
            let angles = angles.map(|angle| angle.input::<f32>());
            Box::new(Rope::new([width, *head_dim], *inverse, input(0)?, angles, output(0)?)?)
        }
        Op::Attention(spec) => {
            let qkv = [input(0)?, input(1)?, input(2)?];
            Box::new(Attention::new(*spec, qkv, at.input(3)?.input(), output(0)?, at.output(1)?.output())?)
        }
        Op::AttentionGrad(spec) => {
            let inputs = AttentionGradInputs {
                q: input(0)?,
                k: input(1)?,
                v: input(2)?,
                segments: at.input(3)?.input(),
                out: input(4)?,
                lse: at.input(5)?.input(),
                dout: input(6)?,
            };
            Box::new(AttentionGrad::new(*spec, inputs, [output(0)?, output(1)?, output(2)?])?)
        }
        Op::CachedAttention(spec) => {
            let qkv = [input(0)?, input(1)?, input(2)?];
            Box::new(CachedAttention::new(*spec, qkv, at.input(3)?.input(), output(0)?)?)
        }
        Op::AddBias => Box::new(AddBias::new(input(0)?, input(1)?, output(0)?)?),
        Op::SwiGlu => Box::new(SwiGlu::new(input(0)?, input(1)?, output(0)?)?),
        Op::SwiGluGrad => Box::new(SwiGluGrad::new(input(0)?, input(1)?, input(2)?, output(0)?, output(1)?)?),
        Op::GeGlu => Box::new(GeGlu::new(input(0)?, input(1)?, output(0)?)?),
        Op::GeGluGrad => Box::new(GeGluGrad::new(input(0)?, input(1)?, input(2)?, output(0)?, output(1)?)?),
        Op::SumOfSquares => {
            let tensors = at.inputs.iter().map(|tensor| tensor.input::<E>()).collect();
            Box::new(SumOfSquares::new(tensors, at.output(0)?.output())?)
        }
        Op::AdamW(spec) => {
            let state = |slot: usize| Ok::<_, crate::error::Error>(at.input(slot)?.output::<f32>());
            let states =
                AdamWStates { parameter: state(0)?, first_moment: state(2)?, second_moment: state(3)? };
            let number = |slot: usize| Ok::<_, crate::error::Error>(at.input(slot)?.input::<f32>());
            let step =
                AdamWStep { learning_rate: number(4)?, number: number(5)?, gradient_factor: number(6)? };
            Box::new(AdamW::new(*spec, states, input(1)?, step)?)
        }
        _ => return Err(at.unsupported()),
    })
}
