//! Output types from input types, one rule an operation; the only place that decides whether operands fit.

use super::experts;
use super::operation::{AttentionSpec, LowRank, Operation};
use super::tensor_type::{DType, MAX_RANK, Shape, TensorType};
use crate::error::{Error, Result};

/// Types of the outputs of `operation`, given for every input the types of its outputs.
///
/// # Errors
/// A shape error that names the operation and what does not fit.
pub fn infer(operation: &Operation, inputs: &[&[TensorType]]) -> Result<Vec<TensorType>> {
    let first: Vec<TensorType> = inputs.iter().map(|types| types[0]).collect();
    let outputs = match operation {
        Operation::Output(index) => one_of(inputs, *index),
        _ => outputs(operation, &first),
    };
    outputs.map_err(|error| {
        let types: Vec<String> = first.iter().map(ToString::to_string).collect();
        error.context(format!("{operation:?} of ({})", types.join(", ")))
    })
}

fn one_of(inputs: &[&[TensorType]], index: usize) -> Result<Vec<TensorType>> {
    let [types] = inputs else { return Err(Error::shape("takes one input")) };
    types
        .get(index)
        .map(|&t| vec![t])
        .ok_or_else(|| Error::shape(format!("there are only {} outputs", types.len())))
}

fn outputs(operation: &Operation, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
    use Operation as Op;
    let one = match operation {
        Op::Input(_) | Op::Frozen(_) | Op::State(_) | Op::Constant(_) | Op::RopeTable(_) | Op::Output(_) => {
            return Err(Error::internal("the type of a leaf is given, not derived"));
        }
        Op::Unary(_) | Op::Affine { .. } | Op::Detach => float(&arity::<1>(inputs)?[0])?,
        Op::Binary(_) => same(&arity::<2>(inputs)?)?,
        Op::Cast(dtype) => TensorType::new(arity::<1>(inputs)?[0].shape, *dtype),
        Op::Reshape(shape) => reshape(arity(inputs)?, *shape)?,
        Op::BroadcastTo(shape) => broadcast(arity(inputs)?, *shape)?,
        Op::Permute(axes) => permute(arity(inputs)?, axes)?,
        Op::Slice { axis, start, length } => slice(arity(inputs)?, *axis, *start, *length)?,
        Op::Concat { axis } => concat(inputs, *axis)?,
        Op::Reduce { axis, .. } => reduce(arity(inputs)?, *axis)?,
        Op::MatMul { transpose_left, transpose_right, widen } => {
            let product = matmul(arity(inputs)?, *transpose_left, *transpose_right)?;
            if *widen { TensorType::new(product.shape, statistics(product.dtype)) } else { product }
        }
        Op::Embedding | Op::PackedEmbedding => embedding(arity(inputs)?)?,
        Op::ScatterRows { rows } => scatter_rows(arity(inputs)?, *rows)?,
        Op::TakeLast => take_last(arity(inputs)?)?,
        Op::ScatterLast { size } => scatter_last(arity(inputs)?, *size)?,
        Op::AttentionMask { batch, seq, dtype, .. } => {
            ids(&arity::<1>(inputs)?[0], batch * seq)?;
            TensorType::new(Shape::new(&[*batch, 1, 1, *seq, *seq])?, *dtype)
        }
        Op::CacheMask { seq, capacity, dtype, .. } => {
            ids(&arity::<1>(inputs)?[0], 1)?;
            TensorType::new(Shape::new(&[1, 1, 1, *seq, *capacity])?, *dtype)
        }
        Op::DropoutMask { shape, dtype, .. } => {
            ids(&arity::<1>(inputs)?[0], 2)?;
            TensorType::new(*shape, *dtype)
        }
        Op::Pack => matrix(&arity::<1>(inputs)?[0])?,
        _ => return fused(operation, inputs),
    };
    Ok(vec![one])
}

fn fused(operation: &Operation, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
    use Operation as Op;
    match operation {
        Op::RmsNorm { .. } => rms_norm(arity(inputs)?).map(|t| vec![t]),
        Op::RmsNormGrad { weight_gradient, residual, .. } => {
            let (x, weight) = if *residual {
                let [x, weight, dy, residual] = arity(inputs)?;
                same(&[x, dy, residual])?;
                (x, weight)
            } else {
                let [x, weight, dy] = arity(inputs)?;
                same(&[x, dy])?;
                (x, weight)
            };
            rms_norm([x, weight])?;
            Ok(if *weight_gradient { vec![x, weight] } else { vec![x] })
        }
        Op::Rope { head_dim, .. } => rope(arity(inputs)?, *head_dim).map(|t| vec![t]),
        Op::Attention(spec) => {
            let [q, k, v, segments] = arity(inputs)?;
            attention(spec, [q, k, v])?;
            ids(&segments, spec.batch * spec.seq)?;
            Ok(vec![q, TensorType::new(Shape::new(&[q.shape.rows(), spec.heads])?, statistics(q.dtype))])
        }
        Op::AttentionGrad(spec) => {
            let [q, k, v, segments, out, _, dout] = arity(inputs)?;
            attention(spec, [q, k, v])?;
            ids(&segments, spec.batch * spec.seq)?;
            same(&[q, out, dout])?;
            Ok(vec![q, k, v])
        }
        Op::CachedAttention(spec) => cached_attention(spec, arity(inputs)?).map(|t| vec![t]),
        Op::AddBias => {
            let [x, bias] = arity(inputs)?;
            require(bias.shape.dims() == [x.shape.last()], "the bias must have one number per feature")?;
            require(bias.dtype == x.dtype, "both sides need the same dtype")?;
            matrix(&x).map(|t| vec![t])
        }
        Op::SwiGlu | Op::GeGlu => same(&arity::<2>(inputs)?).map(|t| vec![t]),
        Op::SwiGluGrad | Op::GeGluGrad => same(&arity::<3>(inputs)?).map(|t| vec![t, t]),
        Op::Linear { transpose_weight, low_rank, residual } => {
            linear(inputs, *transpose_weight, *low_rank, *residual).map(|t| vec![t])
        }
        Op::LinearGatedGrad { transpose_weight, low_rank, value, .. } => {
            let Some((linear_inputs, [gate, up])) = inputs.split_last_chunk() else {
                return Err(Error::shape("needs a gate and an up projection"));
            };
            let dy = linear(linear_inputs, *transpose_weight, *low_rank, false)?;
            same(&[dy, *gate, *up]).map(|t| vec![t; if *value { 3 } else { 2 }])
        }
        Op::ProjectedCrossEntropy { .. } => {
            let [hidden, weight, targets] = arity(inputs)?;
            Ok(vec![per_token(&hidden, &weight, &targets)?])
        }
        Op::ProjectedCrossEntropyGrad { .. } => {
            let [hidden, weight, targets, dloss] = arity(inputs)?;
            let loss = same(&[per_token(&hidden, &weight, &targets)?, dloss])?;
            Ok(vec![loss, loss, hidden])
        }
        Op::ProjectedCrossEntropyWeightGrad { .. } => {
            let [hidden, weight, targets, dloss, log_sum_exp] = arity(inputs)?;
            same(&[per_token(&hidden, &weight, &targets)?, dloss, log_sum_exp])?;
            Ok(vec![weight])
        }
        Op::Route { chosen, .. } => experts::route(arity(inputs)?, *chosen).map(|t| vec![t]),
        Op::ExpertLinear { transpose_weight } => {
            experts::linear(arity(inputs)?, *transpose_weight).map(|t| vec![t])
        }
        Op::ExpertWeightGrad { experts } => {
            experts::weight_gradient(arity(inputs)?, *experts).map(|t| vec![t])
        }
        Op::SumOfSquares => {
            let first = inputs.first().ok_or_else(|| Error::shape("needs at least one input"))?;
            Ok(vec![TensorType::new(Shape::new(&[1])?, statistics(first.dtype))])
        }
        Op::AdamW(_) => {
            let [parameter, gradient, first, second, _, _, _] = arity(inputs)?;
            same(&[parameter, gradient, first, second]).map(|t| vec![t])
        }
        Op::Assign => same(&arity::<2>(inputs)?).map(|t| vec![t]),
        Op::WriteRows => {
            let [state, rows, start] = arity(inputs)?;
            ids(&start, 1)?;
            let fits = rows.shape.last() == state.shape.last() && rows.shape.rows() <= state.shape.rows();
            require(fits, "the rows do not fit into the state")?;
            Ok(vec![state])
        }
        _ => Err(Error::internal("a plain operation reached the rules of fused ones")),
    }
}

/// Norms, softmax statistics and losses are kept in f32, or in f64 when everything is.
fn statistics(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

pub(super) fn arity<const N: usize>(inputs: &[TensorType]) -> Result<[TensorType; N]> {
    inputs.try_into().map_err(|_| Error::shape(format!("takes {N} inputs, not {}", inputs.len())))
}

pub(super) fn require(condition: bool, otherwise: &str) -> Result<()> {
    if condition { Ok(()) } else { Err(Error::shape(otherwise)) }
}

fn float(t: &TensorType) -> Result<TensorType> {
    require(t.dtype.is_float(), "needs floating-point numbers")?;
    Ok(*t)
}

pub(super) fn same(inputs: &[TensorType]) -> Result<TensorType> {
    require(inputs.iter().all(|t| t == &inputs[0]), "shapes and dtypes must be equal")?;
    float(&inputs[0])
}

pub(super) fn matrix(t: &TensorType) -> Result<TensorType> {
    require(t.shape.rank() == 2, "needs a matrix")?;
    float(t)
}

pub(super) fn ids(t: &TensorType, count: usize) -> Result<()> {
    require(t.dtype == DType::U32 && t.shape.elements() == count, &format!("needs {count} u32 numbers"))
}

fn reshape([x]: [TensorType; 1], shape: Shape) -> Result<TensorType> {
    require(x.shape.elements() == shape.elements(), "the number of elements must stay the same")?;
    Ok(TensorType::new(shape, x.dtype))
}

fn broadcast([x]: [TensorType; 1], shape: Shape) -> Result<TensorType> {
    let fits = x.shape.rank() == shape.rank()
        && x.shape.dims().iter().zip(shape.dims()).all(|(&from, &to)| from == to || from == 1);
    require(fits, "only extents of 1 can be repeated, and the rank must stay the same")?;
    Ok(TensorType::new(shape, x.dtype))
}

fn permute([x]: [TensorType; 1], axes: &[u8; MAX_RANK]) -> Result<TensorType> {
    let rank = x.shape.rank();
    let mut seen = [false; MAX_RANK];
    let mut dims = [1; MAX_RANK];
    for (axis, &from) in axes.iter().enumerate().take(rank) {
        let from = usize::from(from);
        require(from < rank && !std::mem::replace(&mut seen[from], true), "needs each axis exactly once")?;
        dims[axis] = x.shape.dims()[from];
    }
    Ok(TensorType::new(Shape::new(&dims[..rank])?, x.dtype))
}

fn slice([x]: [TensorType; 1], axis: usize, start: usize, length: usize) -> Result<TensorType> {
    let extent = extent(&x, axis)?;
    require(start.checked_add(length).is_some_and(|end| end <= extent), "reaches past the end of the axis")?;
    Ok(TensorType::new(x.shape.with(axis, length), x.dtype))
}

fn extent(x: &TensorType, axis: usize) -> Result<usize> {
    x.shape.dims().get(axis).copied().ok_or_else(|| Error::shape(format!("there is no axis {axis}")))
}

fn concat(inputs: &[TensorType], axis: usize) -> Result<TensorType> {
    let first = inputs.first().ok_or_else(|| Error::shape("needs at least one input"))?;
    let mut total = 0;
    for x in inputs {
        total += extent(x, axis)?;
        let alike = x.dtype == first.dtype && x.shape.rank() == first.shape.rank();
        require(
            alike && x.shape.with(axis, 1) == first.shape.with(axis, 1),
            "all other extents must be equal",
        )?;
    }
    Ok(TensorType::new(Shape::new(first.shape.with(axis, total).dims())?, first.dtype))
}

fn reduce([x]: [TensorType; 1], axis: usize) -> Result<TensorType> {
    require(extent(&x, axis)? > 0, "cannot reduce an empty axis")?;
    float(&TensorType::new(x.shape.with(axis, 1), x.dtype))
}

fn matmul([left, right]: [TensorType; 2], transpose_left: bool, transpose_right: bool) -> Result<TensorType> {
    let rank = left.shape.rank();
    require(rank >= 2 && rank == right.shape.rank(), "both sides need the same rank, at least 2")?;
    require(left.dtype == right.dtype, "both sides need the same dtype")?;
    let (l, r) = (left.shape.dims(), right.shape.dims());
    require(l[..rank - 2] == r[..rank - 2], "the axes before the matrices must be equal")?;
    let (rows, inner) = if transpose_left { (l[rank - 1], l[rank - 2]) } else { (l[rank - 2], l[rank - 1]) };
    let (inner_right, columns) =
        if transpose_right { (r[rank - 1], r[rank - 2]) } else { (r[rank - 2], r[rank - 1]) };
    require(inner == inner_right, &format!("contracts {inner} with {inner_right}"))?;
    let mut dims = [1; MAX_RANK];
    dims[..rank].copy_from_slice(l);
    dims[rank - 2] = rows;
    dims[rank - 1] = columns;
    float(&TensorType::new(Shape::new(&dims[..rank])?, left.dtype))
}

fn embedding([table, index]: [TensorType; 2]) -> Result<TensorType> {
    matrix(&table)?;
    ids(&index, index.shape.elements())?;
    Ok(TensorType::new(Shape::new(&[index.shape.elements(), table.shape.last()])?, table.dtype))
}

fn scatter_rows([index, values]: [TensorType; 2], rows: usize) -> Result<TensorType> {
    matrix(&values)?;
    ids(&index, values.shape.rows())?;
    Ok(TensorType::new(Shape::new(&[rows, values.shape.last()])?, values.dtype))
}

fn take_last([x, index]: [TensorType; 2]) -> Result<TensorType> {
    matrix(&x)?;
    ids(&index, x.shape.rows())?;
    Ok(TensorType::new(x.shape.with(1, 1), x.dtype))
}

fn scatter_last([values, index]: [TensorType; 2], size: usize) -> Result<TensorType> {
    matrix(&values)?;
    ids(&index, values.shape.elements())?;
    Ok(TensorType::new(Shape::new(&[values.shape.rows(), size])?, values.dtype))
}

fn rms_norm([x, weight]: [TensorType; 2]) -> Result<TensorType> {
    require(weight.shape.elements() == x.shape.last(), "the weight must have one number per feature")?;
    matrix(&x)
}

fn rope([x, cos, sin]: [TensorType; 3], head_dim: usize) -> Result<TensorType> {
    let whole = head_dim > 0 && head_dim.is_multiple_of(2) && x.shape.last().is_multiple_of(head_dim);
    require(whole, "features must be whole heads of even size")?;
    let angles = [x.shape.rows(), head_dim / 2];
    require(cos.shape.dims() == angles && sin.shape.dims() == angles, "needs one angle per token and pair")?;
    matrix(&x)
}

fn attention(spec: &AttentionSpec, [q, k, v]: [TensorType; 3]) -> Result<()> {
    let tokens = spec.batch * spec.seq;
    require(
        spec.kv_heads > 0 && spec.heads.is_multiple_of(spec.kv_heads),
        "heads must be a multiple of kv heads",
    )?;
    require(spec.window != Some(0), "a window must hold at least the query itself")?;
    require(q.shape.dims() == [tokens, spec.heads * spec.head_dim], "q must be [tokens, heads * head_dim]")?;
    require(
        k.shape.dims() == [tokens, spec.kv_heads * spec.head_dim],
        "k must be [tokens, kv_heads * head_dim]",
    )?;
    same(&[k, v])?;
    Ok(())
}

fn cached_attention(spec: &AttentionSpec, [q, keys, values, start]: [TensorType; 4]) -> Result<TensorType> {
    require(
        spec.kv_heads > 0 && spec.heads.is_multiple_of(spec.kv_heads),
        "heads must be a multiple of kv heads",
    )?;
    require(q.shape.dims() == [spec.seq, spec.heads * spec.head_dim], "q must be [seq, heads * head_dim]")?;
    require(
        keys.shape.last() == spec.kv_heads * spec.head_dim,
        "keys must be [capacity, kv_heads * head_dim]",
    )?;
    same(&[keys, values])?;
    ids(&start, 1)?;
    matrix(&q)
}

fn linear(
    inputs: &[TensorType],
    transpose: bool,
    low_rank: Option<LowRank>,
    residual: bool,
) -> Result<TensorType> {
    let expected = 2 + 2 * usize::from(low_rank.is_some()) + usize::from(residual);
    require(inputs.len() == expected, &format!("takes {expected} inputs, not {}", inputs.len()))?;
    let (x, weight) = (matrix(&inputs[0])?, matrix(&inputs[1])?);
    let y = matmul([x, weight], false, !transpose)?;
    if let Some(LowRank { transpose, .. }) = low_rank {
        let product = matmul([inputs[2], inputs[3]], false, !transpose)?;
        require(product.shape == y.shape, "the low-rank product must have the shape of the base product")?;
    }
    if residual {
        same(&[y, inputs[expected - 1]])?;
    }
    Ok(y)
}

fn per_token(hidden: &TensorType, weight: &TensorType, targets: &TensorType) -> Result<TensorType> {
    matmul([*hidden, *weight], false, true)?;
    ids(targets, hidden.shape.rows())?;
    Ok(TensorType::new(Shape::new(&[hidden.shape.rows()])?, statistics(hidden.dtype)))
}
