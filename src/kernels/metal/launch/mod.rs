//! How many threads each kernel takes, and the parameters they read.

mod experts;
mod plain;

pub use experts::*;
pub use plain::*;

use super::format::WeightFormat;
use super::spec::{
    AdamWNumbers, AttentionNumbers, BiasSpec, Chunk, CrossEntropyNumbers, ElementwiseSpec, ProductSpec,
    QuantizedSpec, RmsNormSpec, RopeSpec, RowsSpec, Spec, SumSpec,
};
use crate::graph::{AdamWSpec, AttentionSpec};

/// Threads of a threadgroup that reduces a row, or takes a chunk.
const ROW_THREADS: u32 = 256;
/// Threads of a threadgroup whose threads do not meet.
const FLAT_THREADS: u32 = 256;
/// Threads of a threadgroup that computes a tile of a product: tile.metal's TILE_THREADS.
const TILE_THREADS: u32 = 128;
/// Rows and columns of a tile of adapters' products, and of the products with the vocabulary.
const SMALL_TILE: u32 = 32;
const LARGE_TILE: u32 = 64;
/// Depth that a product stages at once: tile.metal's TILE_DEPTH.
const TILE_DEPTH: u32 = 16;
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

pub fn geglu(elements: u32) -> Launch {
    elementwise("geglu", elements)
}

pub fn geglu_gradient(elements: u32) -> Launch {
    elementwise("geglu_gradient", elements)
}

pub fn add_bias(spec: BiasSpec) -> Launch {
    launch("add_bias", [spec.width.div_ceil(128), spec.rows, 1], [128, 1, 1], &spec)
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

fn tiles(kernel: &'static str, [columns, rows]: [u32; 2], products: u32, spec: Vec<u8>) -> Launch {
    let threadgroups = [columns.div_ceil(SMALL_TILE), rows.div_ceil(SMALL_TILE), products];
    Launch { kernel, threadgroups, threads: [TILE_THREADS, 1, 1], spec }
}

/// Columns and rows of the largest of some products.
fn extents(specs: &[ProductSpec; 3]) -> [u32; 2] {
    let largest = |extent: fn(&ProductSpec) -> u32| specs.iter().map(extent).max().unwrap_or(0);
    [largest(|spec| spec.columns), largest(|spec| spec.rows)]
}

/// Up to three products at once; those without rows are left out.
pub fn products(specs: &[ProductSpec; 3]) -> Launch {
    tiles("products", extents(specs), 3, bytemuck::cast_slice(specs).to_vec())
}

/// Cuts the depth of products that have too few tiles for `threadgroups` of them, and lays out their partial sums.
/// Returns how many of those there are in all, in elements.
pub fn split(specs: &mut [ProductSpec; 3], threadgroups: u32) -> u64 {
    let tiles = |spec: &ProductSpec| spec.rows.div_ceil(SMALL_TILE) * spec.columns.div_ceil(SMALL_TILE);
    let steps = specs.iter().map(|spec| spec.depth.div_ceil(TILE_DEPTH)).max().unwrap_or(0);
    let splits = threadgroups.div_ceil(specs.iter().map(tiles).sum::<u32>().max(1)).clamp(1, steps.max(1));
    let mut end = 0;
    for spec in specs {
        (spec.partials, spec.splits) = (end, splits);
        end += u64::from(splits) * u64::from(spec.rows) * u64::from(spec.columns);
    }
    end
}

/// The sums of each product's splits, as [`split`] laid them out.
pub fn product_partials(specs: &[ProductSpec; 3]) -> Launch {
    let splits = specs[0].splits;
    tiles("product_partials", extents(specs), 3 * splits, bytemuck::cast_slice(specs).to_vec())
}

/// Adds up what [`product_partials`] wrote.
pub fn add_partials(specs: &[ProductSpec; 3]) -> Launch {
    let elements = specs.iter().map(|spec| spec.rows * spec.columns).max().unwrap_or(0);
    let spec = bytemuck::cast_slice(specs).to_vec();
    let threadgroups = [elements.div_ceil(FLAT_THREADS), 3, 1];
    Launch { kernel: "add_partials", threadgroups, threads: [FLAT_THREADS, 1, 1], spec }
}

fn large_tiles<S: Spec>(kernel: &'static str, columns: u32, rows: u32, spec: S) -> Launch {
    let threadgroups = [columns.div_ceil(LARGE_TILE), rows.div_ceil(LARGE_TILE), 1];
    launch(kernel, threadgroups, [TILE_THREADS, 1, 1], &spec)
}

/// The product of x [rows, inputs] and the transpose of a weight [outputs, inputs]; with `transpose` that of
/// x [rows, outputs] and the weight. The pipeline is specialized for the format.
pub fn quantized_product(
    format: WeightFormat,
    rows: u32,
    [outputs, inputs]: [u32; 2],
    transpose: bool,
) -> Launch {
    let spec = QuantizedSpec {
        rows,
        outputs,
        inputs,
        block_values: format.block_values(),
        block_bytes: format.block_bytes(),
        transpose: transpose.into(),
    };
    large_tiles("quantized_product", if transpose { inputs } else { outputs }, rows, spec)
}

pub fn project_logits(spec: CrossEntropyNumbers) -> Launch {
    large_tiles("project_logits", spec.words, spec.tokens, spec)
}

/// Reads the logits of all words, that [`project_logits`] writes.
pub fn cross_entropy(spec: CrossEntropyNumbers) -> Launch {
    launch("cross_entropy", [spec.tokens, 1, 1], [ROW_THREADS, 1, 1], &spec)
}

/// Reads the gradient that [`cross_entropy`] leaves.
pub fn cross_entropy_hidden_gradient(spec: CrossEntropyNumbers) -> Launch {
    large_tiles("cross_entropy_hidden_gradient", spec.width, spec.tokens, spec)
}

/// Reads the logits of a block of words, and the log-sum-exp of the forward pass.
pub fn cross_entropy_word_gradients(spec: CrossEntropyNumbers) -> Launch {
    let threadgroups = [spec.words.div_ceil(128), spec.tokens, 1];
    launch("cross_entropy_word_gradients", threadgroups, [128, 1, 1], &spec)
}

/// Reads the gradient that [`cross_entropy_word_gradients`] leaves.
pub fn cross_entropy_weight_gradient(spec: CrossEntropyNumbers) -> Launch {
    large_tiles("cross_entropy_weight_gradient", spec.width, spec.words, spec)
}

/// Threads and rows of a threadgroup that computes attention: attention.metal's OWN_ROWS, four threads for each.
const ATTENTION_THREADS: u32 = 128;
const ATTENTION_ROWS: u32 = 32;

fn attention_tiles(kernel: &'static str, spec: &AttentionSpec, heads: usize) -> Launch {
    let numbers = AttentionNumbers {
        seq: spec.seq as u32,
        heads: spec.heads as u32,
        kv_heads: spec.kv_heads as u32,
        window: spec.window.map_or(u32::MAX, |window| window as u32),
        scale: spec.scale.0 as f32,
        soft_cap: spec.soft_cap.map_or(0.0, |cap| cap.0 as f32),
    };
    let threadgroups = [numbers.seq.div_ceil(ATTENTION_ROWS), heads as u32, spec.batch as u32];
    launch(kernel, threadgroups, [ATTENTION_THREADS, 1, 1], &numbers)
}

pub fn attention(spec: &AttentionSpec) -> Launch {
    attention_tiles("attention", spec, spec.heads)
}

pub fn attention_delta(spec: &AttentionSpec) -> Launch {
    let elements = (spec.batch * spec.seq * spec.heads) as u64;
    let threadgroups = [elements.div_ceil(4) as u32, 1, 1];
    launch("attention_delta", threadgroups, [ATTENTION_THREADS, 1, 1], &ElementwiseSpec { elements })
}

/// Reads what [`attention_delta`] writes.
pub fn attention_query_gradient(spec: &AttentionSpec) -> Launch {
    attention_tiles("attention_query_gradient", spec, spec.heads)
}

/// Reads what [`attention_delta`] writes.
pub fn attention_key_gradient(spec: &AttentionSpec) -> Launch {
    attention_tiles("attention_key_gradient", spec, spec.kv_heads)
}
