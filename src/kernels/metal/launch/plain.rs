//! Launches of plain operations.

use super::{FLAT_THREADS, LARGE_TILE, Launch, ROW_THREADS, TILE_THREADS, elementwise, launch};
use crate::kernels::metal::spec::{
    AffineSpec, ConcatSpec, DropoutSpec, FunctionSpec, MaskSpec, MatrixSpec, PickSpec, ProductSpec,
    ReduceSpec, RowsSpec, Spec, StridedSpec,
};

fn flat<S: Spec>(kernel: &'static str, elements: u32, spec: &S) -> Launch {
    launch(kernel, [elements.div_ceil(FLAT_THREADS), 1, 1], [FLAT_THREADS, 1, 1], spec)
}

/// A thread for each element of some rows; narrow rows share a threadgroup.
fn plane<S: Spec>(kernel: &'static str, [width, rows, planes]: [u32; 3], spec: &S) -> Launch {
    let across = width.clamp(1, FLAT_THREADS).next_power_of_two();
    let down = FLAT_THREADS / across;
    launch(kernel, [width.div_ceil(across), rows.div_ceil(down), planes], [across, down, 1], spec)
}

/// `function` is one of unary functions, by its number in the source.
pub fn unary(elements: u32, function: u32) -> Launch {
    flat("unary", elements, &FunctionSpec { elements, function })
}

/// `function` is one of binary functions, by its number in the source.
pub fn binary(elements: u32, function: u32) -> Launch {
    flat("binary", elements, &FunctionSpec { elements, function })
}

pub fn affine(spec: AffineSpec) -> Launch {
    flat("affine", spec.elements, &spec)
}

pub fn fill(elements: u32, value: f32) -> Launch {
    flat("fill", elements, &AffineSpec { elements, multiply: 0.0, add: value })
}

/// From activations to f32.
pub fn to_float(elements: u32) -> Launch {
    elementwise("to_float", elements)
}

/// From f32 to activations.
pub fn from_float(elements: u32) -> Launch {
    elementwise("from_float", elements)
}

/// From ids to activations.
pub fn from_ids(elements: u32) -> Launch {
    elementwise("from_ids", elements)
}

pub fn copy(elements: u32) -> Launch {
    elementwise("copy", elements)
}

pub fn strided_copy(spec: StridedSpec) -> Launch {
    let planes = spec.extent_0 * spec.extent_1 * spec.extent_2;
    plane("strided_copy", [spec.extent_4, spec.extent_3, planes], &spec)
}

pub fn concat(spec: ConcatSpec) -> Launch {
    let width = spec.width_0 + spec.width_1 + spec.width_2 + spec.width_3;
    plane("concat", [width, spec.rows, 1], &spec)
}

pub fn write_rows(spec: RowsSpec) -> Launch {
    plane("write_rows", [spec.width, spec.count, 1], &spec)
}

/// A row's threads meet: no more of them than the row has work for.
pub fn reduce_rows(spec: ReduceSpec) -> Launch {
    let threads = spec.axis.div_ceil(4).next_multiple_of(32).clamp(32, ROW_THREADS);
    launch("reduce_rows", [spec.outer, 1, 1], [threads, 1, 1], &spec)
}

pub fn reduce_columns(spec: ReduceSpec) -> Launch {
    let threads = 32 * spec.axis.clamp(1, ROW_THREADS / 32);
    launch("reduce_columns", [spec.inner.div_ceil(32), spec.outer, 1], [threads, 1, 1], &spec)
}

pub fn link_ids(spec: RowsSpec) -> Launch {
    flat("link_ids", spec.count, &spec)
}

/// Reads the links that [`link_ids`] writes.
pub fn scatter_rows(spec: RowsSpec) -> Launch {
    plane("scatter_rows", [spec.width, spec.count, 1], &spec)
}

pub fn take_last(spec: PickSpec) -> Launch {
    flat("take_last", spec.rows, &spec)
}

pub fn scatter_last(spec: PickSpec) -> Launch {
    plane("scatter_last", [spec.width, spec.rows, 1], &spec)
}

pub fn dropout_mask(spec: DropoutSpec) -> Launch {
    flat("dropout_mask", spec.elements.div_ceil(4), &spec)
}

pub fn attention_mask(spec: MaskSpec) -> Launch {
    plane("attention_mask", [spec.keys, spec.rows, 1], &spec)
}

pub fn cache_mask(spec: MaskSpec) -> Launch {
    plane("cache_mask", [spec.keys, spec.rows, 1], &spec)
}

/// Products of matrices, as many as `batch`; f32 ones of any activations where `wide`.
pub fn matrix_products(spec: MatrixSpec, batch: u32, wide: bool) -> Launch {
    let kernel = if wide { "wide_matrix_products" } else { "matrix_products" };
    let threadgroups = [spec.columns.div_ceil(LARGE_TILE), spec.rows.div_ceil(LARGE_TILE), batch];
    launch(kernel, threadgroups, [TILE_THREADS, 1, 1], &spec)
}

/// As [`super::add_partials`], for f32 products of any activations.
pub fn add_wide_partials(specs: &[ProductSpec; 3]) -> Launch {
    Launch { kernel: "add_wide_partials", ..super::add_partials(specs) }
}
