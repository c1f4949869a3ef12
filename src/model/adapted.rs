//! What LoRA (Hu et al. 2021, arXiv:2106.09685) and DoRA (Liu et al. 2024, arXiv:2402.09353) add to a module.
//!
//! With DoRA, output feature o is scaled by `magnitude[o] / |W[o] + s (B A)[o]|`. That length counts as a constant in the
//! backward pass, as PEFT has it. It is computed as
//! `|W[o] + s (B A)[o]|^2 = |W[o]|^2 + 2 s B[o] . (A W^T)[o] + s^2 B[o] (A A^T) B[o]^T`,
//! so that neither B A nor the sum is ever built; |W|^2 does not change and is computed once.

use super::parameters::{Parameters, master};
use crate::adapter::AdaptedLinear;
use crate::graph::{LazyTensor, Operation, Scalar};

/// The least squared length: a weight of zeros stays one.
const LEAST_SQUARE: f64 = 1e-30;

/// A pair as the optimizer keeps it.
struct Pair {
    /// [rank, in]
    a: LazyTensor,
    /// [out, rank]
    b: LazyTensor,
}

impl Parameters<'_> {
    /// `x weight^T` with the low-rank part; `position` tells the dropout of modules apart.
    #[track_caller]
    pub(super) fn adapted_linear(
        &self,
        x: &LazyTensor,
        weight: &LazyTensor,
        position: usize,
        adapted: &AdaptedLinear,
    ) -> LazyTensor {
        let pair = self.pair(adapted);
        let (a, b) = (pair.a.cast(self.dtype), pair.b.cast(self.dtype));
        let dropped = self.dropped(x, position, adapted);
        if !adapted.dora {
            return x.lora_linear(weight, dropped.as_ref().unwrap_or(x), &a, &b, adapted.scale);
        }
        let square = weight.cast(master(self.dtype));
        let square = square.times(&square).sum(1); // [out, 1]
        let projected = a.linear(weight); // [rank, out]
        let gain = self.gain(&pair, &square, &projected, adapted);
        let x_in = dropped.as_ref().unwrap_or(x);
        let y = x_in.lora_linear(weight, x_in, &a, &b, adapted.scale);
        let y = y.times(&gain.broadcast_to(y.dims()));
        match &dropped {
            // The layer itself sees x whole; what DoRA changes sees it after dropout.
            Some(dropped) => x.minus(dropped).linear(weight).plus(&y),
            None => y,
        }
    }

    /// Rows of `table` [vocab, width] named by `ids`, with the low-rank part. No dropout, as in PEFT.
    #[track_caller]
    pub(super) fn adapted_embedding(
        &self,
        ids: &LazyTensor,
        table: &LazyTensor,
        adapted: &AdaptedLinear,
    ) -> LazyTensor {
        let pair = self.pair(adapted); // a: [rank, vocab], b: [width, rank]
        let (a, b) = (pair.a.cast(self.dtype), pair.b.cast(self.dtype));
        let down = a.permute(&[1, 0]).embedding(ids); // [n, rank]
        let y = table.embedding(ids).plus(&down.matmul_transposed(&b).affine(adapted.scale, 0.0));
        if !adapted.dora {
            return y;
        }
        let square = table.cast(master(self.dtype));
        let square = square.times(&square).sum(0).reshape(&[adapted.out_features, 1]);
        let product = Operation::Linear { transpose_weight: true, low_rank: None, residual: false };
        let gain = self.gain(&pair, &square, &a.then(product, &[table]), adapted);
        y.times(&gain.broadcast_to(y.dims()))
    }

    /// `weight` [out, in] with the low-rank part added, for a projection whose output is never built.
    #[track_caller]
    pub(super) fn adapted_weight(&self, weight: &LazyTensor, adapted: &AdaptedLinear) -> LazyTensor {
        let pair = self.pair(adapted);
        let (a, b) = (pair.a.cast(self.dtype), pair.b.cast(self.dtype));
        let sum = weight.plus(&b.matmul(&a).affine(adapted.scale, 0.0));
        if !adapted.dora {
            return sum;
        }
        let square = weight.cast(master(self.dtype));
        let square = square.times(&square).sum(1);
        let gain = self.gain(&pair, &square, &a.linear(weight), adapted);
        sum.times(&gain.reshape(&[adapted.out_features, 1]).broadcast_to(sum.dims()))
    }

    /// A projection whose output is never built, with dropout in front of its pair: `W x + s B A d` is one product of
    /// `[x, A d]` and `[W, s B]`. With DoRA it is `W (x - d) + gain (W d + s B A d)`.
    #[track_caller]
    pub(super) fn widened_projection(
        &self,
        x: &LazyTensor,
        dropped: &LazyTensor,
        weight: &LazyTensor,
        adapted: &AdaptedLinear,
    ) -> [LazyTensor; 2] {
        let pair = self.pair(adapted);
        let (a, b) = (pair.a.cast(self.dtype), pair.b.cast(self.dtype).affine(adapted.scale, 0.0));
        let down = dropped.linear(&a); // [n, rank]
        if !adapted.dora {
            return [x.concat(1, &[&down]), weight.concat(1, &[&b])];
        }
        let square = weight.cast(master(self.dtype));
        let square = square.times(&square).sum(1);
        let gain = self.gain(&pair, &square, &a.linear(weight), adapted);
        let gain = gain.reshape(&[adapted.out_features, 1]);
        let scaled = |values: &LazyTensor| values.times(&gain.broadcast_to(values.dims()));
        [x.minus(dropped).concat(1, &[dropped, &down]), weight.concat(1, &[&scaled(weight), &scaled(&b)])]
    }

    fn pair(&self, adapted: &AdaptedLinear) -> Pair {
        let &AdaptedLinear { rank, in_features, out_features, .. } = adapted;
        Pair {
            a: self.pair_value(&adapted.a_name(), &[rank, in_features]),
            b: self.pair_value(&adapted.b_name(), &[out_features, rank]),
        }
    }

    pub(super) fn dropped(
        &self,
        x: &LazyTensor,
        position: usize,
        adapted: &AdaptedLinear,
    ) -> Option<LazyTensor> {
        let seed = self.dropout_seed.as_ref().filter(|_| adapted.dropout > 0.0)?;
        let mask = Operation::DropoutMask {
            stream: u32::try_from(position).unwrap_or(u32::MAX),
            probability: Scalar(adapted.dropout),
            shape: x.shape(),
            dtype: self.dtype,
        };
        Some(x.times(&seed.then(mask, &[])))
    }

    /// `magnitude / |W + s B A|` by output feature, [1, out], from the squared lengths of W [out, 1] and A W^T [rank, out].
    fn gain(
        &self,
        pair: &Pair,
        square: &LazyTensor,
        projected: &LazyTensor,
        adapted: &AdaptedLinear,
    ) -> LazyTensor {
        let Pair { a, b } = pair;
        let scale = adapted.scale;
        let cross = b.times(&projected.cast(master(self.dtype)).permute(&[1, 0])).sum(1);
        let product = b.matmul(&a.matmul_transposed(a)).times(b).sum(1);
        let square = square.plus(&cross.affine(2.0 * scale, 0.0)).plus(&product.affine(scale * scale, 0.0));
        let least = square.filled(-LEAST_SQUARE);
        let length = square.negate().minimum(&least).negate().sqrt().detach(); // [out, 1]
        let features = adapted.out_features;
        let magnitude = self.pair_value(&adapted.magnitude_name(), &[features]);
        magnitude.reshape(&[features, 1]).over(&length).reshape(&[1, features]).cast(self.dtype)
    }
}
