//! How many threads each kernel takes, and the parameters they read.

use super::spec::{AdamWNumbers, Chunk, ElementwiseSpec, RmsNormSpec, RopeSpec, RowsSpec, Spec, SumSpec};
use crate::graph::AdamWSpec;

/// Threads of a threadgroup that reduces a row, or takes a chunk.
const ROW_THREADS: u32 = 256;
/// Threads of a threadgroup whose threads do not meet.
const FLAT_THREADS: u32 = 256;
/// Elements of a trained tensor that one threadgroup takes.
pub const CHUNK_ELEMENTS: u32 = 4096;

/// One dispatch: its bindings follow in the order of the kernel's interface, and the spec comes last.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    pub kernel: &'static str,
    pub threadgroups: [u32; 3],
    pub threads: [u32; 3],
    /// Bytes of the kernel's spec; empty where it has none.
    pub spec: Vec<u8>,
}

fn launch<S: Spec>(kernel: &'static str, threadgroups: [u32; 3], threads: [u32; 3], spec: &S) -> Launch {
    Launch { kernel, threadgroups, threads, spec: bytemuck::bytes_of(spec).to_vec() }
}

fn elementwise(kernel: &'static str, elements: u32) -> Launch {
    let spec = ElementwiseSpec { elements: u64::from(elements) };
    launch(kernel, [elements.div_ceil(FLAT_THREADS), 1, 1], [FLAT_THREADS, 1, 1], &spec)
}

pub fn rms_norm(spec: RmsNormSpec) -> Launch {
    launch("rms_norm", [spec.rows, 1, 1], [ROW_THREADS, 1, 1], &spec)
}

pub fn rms_norm_gradient(spec: RmsNormSpec) -> Launch {
    launch("rms_norm_gradient", [spec.rows, 1, 1], [ROW_THREADS, 1, 1], &spec)
}

/// Reads the `inverse` that [`rms_norm_gradient`] writes.
pub fn rms_norm_weight_gradient(spec: RmsNormSpec) -> Launch {
    let blocks = spec.width.div_ceil(32);
    launch("rms_norm_weight_gradient", [blocks, 1, 1], [ROW_THREADS, 1, 1], &spec)
}

pub fn rope(spec: RopeSpec) -> Launch {
    let pairs = (spec.head_dim / 2).div_ceil(32);
    launch("rope", [pairs, spec.heads.div_ceil(4), spec.rows], [32, 4, 1], &spec)
}

pub fn swiglu(elements: u32) -> Launch {
    elementwise("swiglu", elements)
}

pub fn swiglu_gradient(elements: u32) -> Launch {
    elementwise("swiglu_gradient", elements)
}

pub fn gather_rows(spec: RowsSpec) -> Launch {
    launch("gather_rows", [spec.width.div_ceil(128), spec.count, 1], [128, 1, 1], &spec)
}

/// Cuts tensors, given as (first gradient element, first state element, elements), into what threadgroups take.
pub fn chunks(tensors: &[(u64, u64, u64)]) -> Vec<Chunk> {
    let size = u64::from(CHUNK_ELEMENTS);
    let cut = |&(gradient, state, elements): &(u64, u64, u64)| {
        (0..elements.div_ceil(size)).map(move |i| Chunk {
            gradient: gradient + i * size,
            state: state + i * size,
            elements: (elements - i * size).min(size) as u32,
            unused: 0,
        })
    };
    tensors.iter().flat_map(cut).collect()
}

pub fn sum_of_squares(chunks: u32) -> Launch {
    Launch {
        kernel: "sum_of_squares",
        threadgroups: [chunks, 1, 1],
        threads: [ROW_THREADS, 1, 1],
        spec: vec![],
    }
}

pub fn sum_partials(partials: u32) -> Launch {
    launch("sum_partials", [1, 1, 1], [ROW_THREADS, 1, 1], &SumSpec { partials })
}

pub fn adamw(spec: AdamWSpec, chunks: u32) -> Launch {
    let (beta1, beta2) = (spec.beta1.0, spec.beta2.0);
    let numbers = AdamWNumbers {
        log_beta1: beta1.ln() as f32,
        log_beta2: beta2.ln() as f32,
        complement1: (1.0 - beta1) as f32,
        complement2: (1.0 - beta2) as f32,
        beta2: beta2 as f32,
        epsilon: spec.epsilon.0 as f32,
        weight_decay: spec.weight_decay.0 as f32,
    };
    launch("adamw", [chunks, 1, 1], [ROW_THREADS, 1, 1], &numbers)
}
