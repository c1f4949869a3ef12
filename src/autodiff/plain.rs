//! Vector-Jacobian products of elementwise and shape operations.

use crate::graph::{Binary, LazyTensor, MAX_RANK, Unary};

/// dx of y = f(x), in whichever of x and y is cheaper.
pub(super) fn unary(kind: Unary, x: &LazyTensor, y: &LazyTensor, dy: &LazyTensor) -> LazyTensor {
    match kind {
        Unary::Negate => dy.negate(),
        Unary::Exp => dy.times(y),
        Unary::Log => dy.over(x),
        Unary::Sqrt => dy.over(y).affine(0.5, 0.0),
        Unary::Reciprocal => dy.times(&y.times(y)).negate(),
        Unary::Sigmoid => dy.times(&y.times(&y.affine(-1.0, 1.0))),
        Unary::Tanh => dy.times(&y.times(y).affine(-1.0, 1.0)),
        Unary::Sin => dy.times(&x.cos()),
        Unary::Cos => dy.times(&x.sin()).negate(),
    }
}

pub(super) fn binary(
    kind: Binary,
    [left, right]: [&LazyTensor; 2],
    y: &LazyTensor,
    dy: &LazyTensor,
    wanted: &[bool],
) -> Vec<Option<LazyTensor>> {
    let dleft = || match kind {
        Binary::Add | Binary::Subtract => Some(dy.clone()),
        Binary::Multiply => Some(dy.times(right)),
        Binary::Divide => Some(dy.over(right)),
        Binary::Minimum => Some(dy.times(&left.equals(y))),
        Binary::Equal => None,
    };
    let dright = || match kind {
        Binary::Add => Some(dy.clone()),
        Binary::Subtract => Some(dy.negate()),
        Binary::Multiply => Some(dy.times(left)),
        Binary::Divide => Some(dy.times(y).over(right).negate()),
        // Where both sides are equal, the left one takes the gradient.
        Binary::Minimum => Some(dy.times(&left.equals(y).affine(-1.0, 1.0))),
        Binary::Equal => None,
    };
    vec![wanted[0].then(dleft).flatten(), wanted[1].then(dright).flatten()]
}

/// Sums over the axes that were repeated.
pub(super) fn broadcast(x: &LazyTensor, dy: &LazyTensor) -> LazyTensor {
    let repeated = (0..x.shape().rank()).filter(|&axis| x.dims()[axis] != dy.dims()[axis]);
    repeated.fold(dy.clone(), |sum, axis| sum.sum(axis))
}

pub(super) fn inverse_permutation(axes: &[u8; MAX_RANK], rank: usize) -> Vec<u8> {
    let mut inverse = vec![0; rank];
    for (to, &from) in axes[..rank].iter().enumerate() {
        // Axes are below MAX_RANK.
        inverse[usize::from(from)] = u8::try_from(to).unwrap_or(0);
    }
    inverse
}

/// Puts zeros where the slice did not reach.
pub(super) fn slice(x: &LazyTensor, dy: &LazyTensor, axis: usize, start: usize, length: usize) -> LazyTensor {
    let zeros = |extent: usize| {
        let mut dims = x.dims().to_vec();
        dims[axis] = extent;
        x.graph().leaf(crate::graph::Operation::Constant(crate::graph::Scalar(0.0)), &dims, x.dtype())
    };
    let after = x.dims()[axis] - start - length;
    let padded = if start > 0 { zeros(start).concat(axis, &[dy]) } else { dy.clone() };
    if after > 0 { padded.concat(axis, &[&zeros(after)]) } else { padded }
}

pub(super) fn concat(inputs: &[&LazyTensor], dy: &LazyTensor, axis: usize) -> Vec<Option<LazyTensor>> {
    let mut start = 0;
    let mut part = |input: &&LazyTensor| {
        let length = input.dims()[axis];
        let gradient = dy.slice(axis, start, length);
        start += length;
        Some(gradient)
    };
    inputs.iter().map(&mut part).collect()
}
