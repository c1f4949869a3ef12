//! Kernels of plain operations.

use super::{Binding, Interface, Kind, PRODUCTS, kernel, read, spec, write};
use crate::kernels::metal::spec::{
    AffineSpec, ConcatSpec, DropoutSpec, ElementwiseSpec, FunctionSpec, MaskSpec, MatrixSpec, PickSpec,
    ReduceSpec, RowsSpec, StridedSpec,
};

use Kind::{Activation, F32, U32};

const fn product(y: Kind) -> [Binding; 4] {
    [read("left", Activation), read("right", Activation), write("y", y), spec::<MatrixSpec>()]
}

pub(super) const PLAIN: &[Interface] = &[
    kernel("unary", &[read("x", Activation), write("y", Activation), spec::<FunctionSpec>()]),
    kernel(
        "binary",
        &[read("a", Activation), read("b", Activation), write("y", Activation), spec::<FunctionSpec>()],
    ),
    kernel("affine", &[read("x", Activation), write("y", Activation), spec::<AffineSpec>()]),
    kernel("fill", &[write("y", Activation), spec::<AffineSpec>()]),
    kernel("to_float", &[read("x", Activation), write("y", F32), spec::<ElementwiseSpec>()]),
    kernel("from_float", &[read("x", F32), write("y", Activation), spec::<ElementwiseSpec>()]),
    kernel("from_ids", &[read("x", U32), write("y", Activation), spec::<ElementwiseSpec>()]),
    kernel("copy", &[read("x", Activation), write("y", Activation), spec::<ElementwiseSpec>()]),
    kernel("strided_copy", &[read("x", Activation), write("y", Activation), spec::<StridedSpec>()]),
    kernel(
        "concat",
        &[
            read("x_0", Activation),
            read("x_1", Activation),
            read("x_2", Activation),
            read("x_3", Activation),
            write("y", Activation),
            spec::<ConcatSpec>(),
        ],
    ),
    kernel(
        "write_rows",
        &[read("values", Activation), read("start", U32), write("state", Activation), spec::<RowsSpec>()],
    ),
    kernel("reduce_rows", &[read("x", Activation), write("y", Activation), spec::<ReduceSpec>()]),
    kernel("reduce_columns", &[read("x", Activation), write("y", Activation), spec::<ReduceSpec>()]),
    kernel("link_ids", &[read("ids", U32), write("links", U32), spec::<RowsSpec>()]),
    kernel(
        "scatter_rows",
        &[
            read("ids", U32),
            read("values", Activation),
            read("links", U32),
            write("y", Activation),
            spec::<RowsSpec>(),
        ],
    ),
    kernel(
        "take_last",
        &[read("x", Activation), read("ids", U32), write("y", Activation), spec::<PickSpec>()],
    ),
    kernel(
        "scatter_last",
        &[read("values", Activation), read("ids", U32), write("y", Activation), spec::<PickSpec>()],
    ),
    kernel("dropout_mask", &[read("seed", U32), write("y", Activation), spec::<DropoutSpec>()]),
    kernel("attention_mask", &[read("segments", U32), write("y", Activation), spec::<MaskSpec>()]),
    kernel("cache_mask", &[read("start", U32), write("y", Activation), spec::<MaskSpec>()]),
    kernel("matrix_products", &product(Activation)),
    kernel("wide_matrix_products", &product(F32)),
    kernel(
        "add_wide_partials",
        &[read("partials", F32), write("y_0", F32), write("y_1", F32), write("y_2", F32), PRODUCTS],
    ),
];
