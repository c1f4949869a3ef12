//! Operations of a mixture of experts: their shapes, and building with them.

use super::lazy_tensor::LazyTensor;
use super::operation::{Operation, RouteSide};
use super::shape_rules::{ids, matrix, require, same};
use super::tensor_type::{DType, Shape, TensorType};
use crate::error::{Error, Result};

pub(super) fn route([scores]: [TensorType; 1], chosen: usize) -> Result<TensorType> {
    matrix(&scores)?;
    let experts = scores.shape.last();
    require((1..=experts).contains(&chosen), &format!("cannot choose {chosen} of {experts} experts"))?;
    Ok(TensorType::new(Shape::new(&[scores.shape.rows() * chosen])?, DType::U32))
}

pub(super) fn linear([x, weight, experts]: [TensorType; 3], transpose: bool) -> Result<TensorType> {
    matrix(&x)?;
    ids(&experts, x.shape.rows())?;
    let &[_, rows, columns] = weight.shape.dims() else {
        return Err(Error::shape("the weight must be [experts, out, in]"));
    };
    let (out, inner) = if transpose { (columns, rows) } else { (rows, columns) };
    require(inner == x.shape.last(), &format!("contracts {} with {inner}", x.shape.last()))?;
    require(x.dtype == weight.dtype, "both sides need the same dtype")?;
    Ok(TensorType::new(Shape::new(&[x.shape.rows(), out])?, x.dtype))
}

pub(super) fn weight_gradient([dy, x, ids_of_rows]: [TensorType; 3], experts: usize) -> Result<TensorType> {
    matrix(&dy)?;
    matrix(&x)?;
    ids(&ids_of_rows, x.shape.rows())?;
    require(dy.shape.rows() == x.shape.rows(), "both sides need the same rows")?;
    // Only the dtypes are left to be compared.
    same(&[dy, TensorType::new(dy.shape, x.dtype)])?;
    Ok(TensorType::new(Shape::new(&[experts, dy.shape.last(), x.shape.last()])?, dy.dtype))
}

impl LazyTensor {
    /// From scores [n, experts], one side of the pairs of each token and the `chosen` experts that it goes to, sorted by
    /// expert: u32 `[n * chosen]`.
    #[track_caller]
    pub fn route(&self, chosen: usize, side: RouteSide) -> Self {
        self.then(Operation::Route { chosen, side }, &[])
    }

    /// Each row of self [n, in] through the matrix of its expert, weight [experts, out, in] -> [n, out]. The experts of
    /// the rows, u32 `[n]`, ascend.
    #[track_caller]
    pub fn expert_linear(&self, weight: &Self, experts: &Self) -> Self {
        self.then(Operation::ExpertLinear { transpose_weight: false }, &[weight, experts])
    }

    /// One element of each row of self [n, m], named by ids u32 `[n]`: [n, 1].
    #[track_caller]
    pub fn take_last(&self, ids: &Self) -> Self {
        self.then(Operation::TakeLast, &[ids])
    }

    /// Sums the rows of self [n, width] whose ids, u32 `[n]`, are equal: [rows, width].
    #[track_caller]
    pub fn scatter_rows(&self, ids: &Self, rows: usize) -> Self {
        ids.then(Operation::ScatterRows { rows }, &[self])
    }
}
