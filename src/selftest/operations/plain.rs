//! Plain operations between the fused ones, and the two that speeds are measured against.

use crate::graph::{Binary, DType, IGNORE_TARGET, Operation, Reduction, Scalar, Unary};
use crate::selftest::case::{Case, Element, Leaf};
use crate::selftest::sizes::Sizes;

pub fn cases(sizes: &Sizes) -> Vec<Case> {
    let (n, d) = (sizes.tokens(), sizes.hidden);
    let x = || Leaf::activation(&[n, d]);
    let scale = Operation::Affine { multiply: Scalar(1.5), add: Scalar(0.5) };
    vec![
        Case::of("Binary, sum", Operation::Binary(Binary::Add), vec![x(), x()]),
        Case::of("Binary, product", Operation::Binary(Binary::Multiply), vec![x(), x()]),
        Case::of("Affine", scale, vec![x()]),
        Case::of("Unary, sigmoid", Operation::Unary(Unary::Sigmoid), vec![x()]),
        Case::of("Reduce", Operation::Reduce { reduction: Reduction::Sum, axis: 0 }, vec![x()]),
        Case::of("Permute", Operation::Permute([1, 0, 0, 0, 0]), vec![x()]),
        Case::of("Concat", Operation::Concat { axis: 1 }, vec![x(), Leaf::activation(&[n, sizes.rank])]),
        Case::of("Slice", Operation::Slice { axis: 1, start: 3, length: d / 2 }, vec![x()]),
        scatter(sizes),
        cast(DType::F32, "Cast to f32", sizes),
        cast(DType::Bf16, "Cast to bf16", sizes),
    ]
}

/// The gradient of a trained table of embeddings, as small as that of added tokens.
fn scatter(sizes: &Sizes) -> Case {
    let rows = sizes.experts * 32;
    let ids = Leaf::ids(sizes.ids(rows, IGNORE_TARGET));
    let values = Leaf::activation(&[sizes.tokens(), sizes.hidden]);
    Case::of("ScatterRows", Operation::ScatterRows { rows }, vec![ids, values])
}

/// From one type to the other; where everything is f64 there is nothing to cast.
fn cast(to: DType, name: &str, sizes: &Sizes) -> Case {
    let from = if to == DType::F32 { Element::Tested } else { Element::Single };
    let leaf = Leaf { element: from, ..Leaf::activation(&[sizes.tokens(), sizes.hidden]) };
    let kernel = move |leaves: &[crate::graph::LazyTensor]| {
        let x = &leaves[0];
        vec![if x.dtype() == DType::F64 { x.clone() } else { x.cast(to) }]
    };
    Case::new(name, vec![leaf], kernel).only(&[DType::Bf16])
}

/// Reads and writes `elements` numbers.
pub fn copy(elements: usize) -> Case {
    let twice = Operation::Affine { multiply: Scalar(2.0), add: Scalar(0.0) };
    Case::of("copy", twice, vec![Leaf::activation(&[elements])])
}

/// Of two square matrices.
pub fn product(extent: usize) -> Case {
    let product = Operation::MatMul { transpose_left: false, transpose_right: true, widen: false };
    let side = || Leaf::activation(&[extent, extent]);
    Case::of("GEMM", product, vec![side(), side()])
}
