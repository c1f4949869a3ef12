//! Plain operations, lowered.

use lazytune::graph::{
    AttentionSpec, Binary, DType, IGNORE_TARGET, MAX_RANK, Operation, Reduction, RouteSide, Scalar, Shape,
    Unary,
};
use lazytune::kernels::metal::Element;

use super::Outcome;
use super::lowered::{Operands, check_together};
use crate::gpu::Gpu;

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).unwrap()
}

pub fn plain(gpu: &Gpu) -> Outcome {
    functions(gpu)?;
    layouts(gpu)?;
    indexed(gpu)?;
    let dtype = if gpu.element == Element::Bf16 { DType::Bf16 } else { DType::F32 };
    masks(gpu, dtype)?;
    Operands::of(gpu, Operation::Constant(Scalar(0.3))).output(&[3, 5]).exactly()?;
    states(gpu)
}

fn functions(gpu: &Gpu) -> Outcome {
    let dims = &[3, 100];
    for kind in [
        Unary::Negate,
        Unary::Exp,
        Unary::Log,
        Unary::Sqrt,
        Unary::Reciprocal,
        Unary::Sigmoid,
        Unary::Tanh,
        Unary::Sin,
        Unary::Cos,
    ] {
        let operands = Operands::of(gpu, Operation::Unary(kind));
        if matches!(kind, Unary::Log | Unary::Sqrt) {
            // Of numbers that are not negative.
            operands.wide_input(dims).wide_output(dims).check()?;
        } else {
            operands.input(dims).output(dims).check()?;
        }
    }
    for kind in
        [Binary::Add, Binary::Subtract, Binary::Multiply, Binary::Divide, Binary::Minimum, Binary::Equal]
    {
        Operands::of(gpu, Operation::Binary(kind)).input(dims).input(dims).output(dims).check()?;
    }
    let affine = Operation::Affine { multiply: Scalar(0.3), add: Scalar(-2.0) };
    Operands::of(gpu, affine).input(dims).output(dims).check()?;
    Operands::of(gpu, Operation::Cast(DType::F32)).input(dims).wide_output(dims).exactly()?;
    Operands::of(gpu, Operation::Cast(DType::F32)).ids(vec![3, 70]).wide_output(&[2]).exactly()?;
    if gpu.element == Element::Bf16 {
        let cast = || Operation::Cast(DType::Bf16);
        Operands::of(gpu, cast()).wide_input(dims).output(dims).exactly()?;
        Operands::of(gpu, cast()).ids(vec![3, 70]).output(&[2]).exactly()?;
    }
    for (dims, axis) in [(&[40, 50], 1), (&[40, 50], 0)] {
        for reduction in [Reduction::Sum, Reduction::Max] {
            let mut reduced = *dims;
            reduced[axis] = 1;
            let operands = Operands::of(gpu, Operation::Reduce { reduction, axis });
            operands.input(dims).output(&reduced).check()?;
        }
    }
    Ok(())
}

fn layouts(gpu: &Gpu) -> Outcome {
    for (axes, dims, permuted) in [
        ([1, 0, 0, 0, 0], &[37, 45][..], &[45, 37][..]),
        ([2, 0, 4, 1, 3], &[2, 3, 4, 5, 6], &[4, 2, 6, 3, 5]),
        ([0, 1, 2, 0, 0], &[3, 4, 5], &[3, 4, 5]),
    ] {
        assert!(dims.len() <= MAX_RANK);
        Operands::of(gpu, Operation::Permute(axes)).input(dims).output(permuted).exactly()?;
    }
    for (from, to) in [([1, 1, 9], [4, 7, 9]), ([4, 1, 9], [4, 7, 9]), ([1, 1, 1], [2, 3, 150])] {
        Operands::of(gpu, Operation::BroadcastTo(shape(&to))).input(&from).output(&to).exactly()?;
    }
    for (axis, start, length, sliced) in
        [(0, 2, 3, [3, 6, 20]), (1, 4, 2, [5, 2, 20]), (2, 7, 11, [5, 6, 11]), (1, 2, 1, [5, 1, 20])]
    {
        let slice = Operation::Slice { axis, start, length };
        Operands::of(gpu, slice).input(&[5, 6, 20]).output(&sliced).exactly()?;
    }
    Operands::of(gpu, Operation::Concat { axis: 1 })
        .input(&[6, 3])
        .input(&[6, 8])
        .input(&[6, 2])
        .output(&[6, 13])
        .exactly()?;
    let mut many = Operands::of(gpu, Operation::Concat { axis: 0 });
    for rows in 1..=6 {
        many = many.input(&[rows, 10]);
    }
    many.output(&[21, 10]).exactly()
}

fn indexed(gpu: &Gpu) -> Outcome {
    let ids = vec![3, IGNORE_TARGET, 0, 3, 7, 3];
    let n = ids.len();
    let scatter = Operands::of(gpu, Operation::ScatterRows { rows: 7 }).ids(ids.clone());
    scatter.input(&[n, 40]).output(&[7, 40]).check()?;
    Operands::of(gpu, Operation::TakeLast).input(&[n, 7]).ids(ids.clone()).output(&[n, 1]).exactly()?;
    let scatter = Operands::of(gpu, Operation::ScatterLast { size: 7 });
    scatter.input(&[n, 1]).ids(ids).output(&[n, 7]).exactly()
}

fn masks(gpu: &Gpu, dtype: DType) -> Outcome {
    let dims = [7, 45];
    for probability in [0.1, 0.37] {
        let probability = Scalar(probability);
        let dropout = Operation::DropoutMask { stream: 3, probability, shape: shape(&dims), dtype };
        Operands::of(gpu, dropout).ids(vec![5, u32::MAX]).output(&dims).exactly()?;
    }
    for window in [None, Some(4)] {
        let segments = (0..20).map(|token| token % 10 / 6).collect();
        let mask = Operation::AttentionMask { batch: 2, seq: 10, window, dtype };
        Operands::of(gpu, mask).ids(segments).output(&[2, 1, 1, 10, 10]).exactly()?;
        let mask = Operation::CacheMask { seq: 3, capacity: 12, window, dtype };
        Operands::of(gpu, mask).ids(vec![6]).output(&[1, 1, 1, 3, 12]).exactly()?;
    }
    Ok(())
}

fn states(gpu: &Gpu) -> Outcome {
    let dims = &[9, 40];
    Operands::of(gpu, Operation::Assign).input(dims).input(dims).output(dims).exactly()?;
    let write = Operands::of(gpu, Operation::WriteRows).input(dims).input(&[3, 40]);
    write.ids(vec![5]).output(dims).exactly()
}

/// Mixtures of experts, and decoding.
pub fn experts(gpu: &Gpu) -> Outcome {
    let (n, count, inner, outputs) = (50, 4, 20, 33);
    for side in [RouteSide::Tokens, RouteSide::Experts] {
        let route = Operands::of(gpu, Operation::Route { chosen: 2, side });
        route.input(&[n, count]).id_output(2 * n).exactly()?;
    }
    let ids: Vec<u32> = (0..n as u32).map(|row| row * row / 700).collect();
    for transpose_weight in [false, true] {
        let matrix = if transpose_weight { [count, inner, outputs] } else { [count, outputs, inner] };
        let linear = Operands::of(gpu, Operation::ExpertLinear { transpose_weight });
        linear.input(&[n, inner]).input(&matrix).ids(ids.clone()).output(&[n, outputs]).check()?;
    }
    let gradient = Operands::of(gpu, Operation::ExpertWeightGrad { experts: count });
    let gradient = gradient.input(&[n, outputs]).input(&[n, inner]).ids(ids);
    gradient.output(&[count, outputs, inner]).check()?;
    let spec = AttentionSpec {
        batch: 1,
        seq: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 20,
        scale: Scalar(0.3),
        window: None,
        soft_cap: None,
    };
    let cached = Operands::of(gpu, Operation::CachedAttention(spec)).input(&[2, 80]);
    cached.input(&[12, 40]).input(&[12, 40]).ids(vec![7]).output(&[2, 80]).check()
}

/// Thin, whole and in batches; from activations, and wider than they are.
pub fn products(gpu: &Gpu) -> Outcome {
    for transposed in [[false, false], [false, true], [true, false], [true, true]] {
        for extents in [[70, 8, 300], [6, 75, 500], [66, 70, 20]] {
            product(gpu, &[], extents, transposed)?;
        }
        product(gpu, &[2, 3], [20, 33, 17], transposed)?;
    }
    Ok(())
}

/// The same products in shared launches: of f32 sums or not, split or not.
pub fn together(gpu: &Gpu) -> Outcome {
    for (depth, widen) in [(600, false), (600, true), (10, false), (10, true)] {
        let all = [([70, 8], [false, true]), ([6, 75], [true, false]), ([33, 20], [false, false])];
        for count in 2..=3 {
            let mut samples = vec![];
            for &([rows, columns], [transpose_left, transpose_right]) in &all[..count] {
                let left = if transpose_left { [depth, rows] } else { [rows, depth] };
                let right = if transpose_right { [columns, depth] } else { [depth, columns] };
                let operation = Operation::MatMul { transpose_left, transpose_right, widen };
                let operands = Operands::of(gpu, operation).input(&left).input(&right);
                let y = [rows, columns];
                samples.push(if widen { operands.wide_output(&y) } else { operands.output(&y) });
            }
            check_together(gpu, samples)?;
        }
    }
    Ok(())
}

fn product(
    gpu: &Gpu,
    batch: &[usize],
    [rows, columns, depth]: [usize; 3],
    [transpose_left, transpose_right]: [bool; 2],
) -> Outcome {
    let dims = |matrix: [usize; 2]| [batch, &matrix].concat();
    let left = dims(if transpose_left { [depth, rows] } else { [rows, depth] });
    let right = dims(if transpose_right { [columns, depth] } else { [depth, columns] });
    let y = dims([rows, columns]);
    for widen in [false, true] {
        let operation = Operation::MatMul { transpose_left, transpose_right, widen };
        let operands = Operands::of(gpu, operation).input(&left).input(&right);
        (if widen { operands.wide_output(&y) } else { operands.output(&y) }).check()?;
    }
    Ok(())
}
