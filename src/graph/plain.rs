//! Building with plain operations.

use super::lazy_tensor::LazyTensor;
use super::operation::{Binary, Operation, Reduction, Unary};
use super::tensor_type::{DType, MAX_RANK, Scalar, Shape};

macro_rules! unary_methods {
    ($($name:ident => $operation:ident),*) => {
        $(
            #[track_caller]
            pub fn $name(&self) -> Self {
                self.then(Operation::Unary(Unary::$operation), &[])
            }
        )*
    };
}

macro_rules! binary_methods {
    ($($name:ident => $operation:ident),*) => {
        $(
            /// Both sides have the same shape and dtype.
            #[track_caller]
            pub fn $name(&self, other: &Self) -> Self {
                self.then(Operation::Binary(Binary::$operation), &[other])
            }
        )*
    };
}

impl LazyTensor {
    /// Applies an operation whose first input is this tensor.
    #[track_caller]
    pub fn then(&self, operation: Operation, others: &[&Self]) -> Self {
        let mut inputs = vec![self];
        inputs.extend_from_slice(others);
        self.graph().apply(operation, &inputs)
    }

    /// One output of an operation that has several.
    #[track_caller]
    pub fn output(&self, index: usize) -> Self {
        self.then(Operation::Output(index), &[])
    }

    unary_methods!(negate => Negate, exp => Exp, log => Log, sqrt => Sqrt, reciprocal => Reciprocal,
        sigmoid => Sigmoid, tanh => Tanh, sin => Sin, cos => Cos);
    binary_methods!(plus => Add, minus => Subtract, times => Multiply, over => Divide, minimum => Minimum,
        equals => Equal);

    /// `self * multiply + add`
    #[track_caller]
    pub fn affine(&self, multiply: f64, add: f64) -> Self {
        self.then(Operation::Affine { multiply: Scalar(multiply), add: Scalar(add) }, &[])
    }

    #[track_caller]
    pub fn cast(&self, dtype: DType) -> Self {
        if dtype == self.dtype() { self.clone() } else { self.then(Operation::Cast(dtype), &[]) }
    }

    /// The same value, through which no gradient flows.
    #[track_caller]
    pub fn detach(&self) -> Self {
        self.then(Operation::Detach, &[])
    }

    #[track_caller]
    pub fn reshape(&self, dims: &[usize]) -> Self {
        if dims == self.dims() { self.clone() } else { self.shaped(dims, Operation::Reshape) }
    }

    /// Repeats extents of 1; the rank stays the same.
    #[track_caller]
    pub fn broadcast_to(&self, dims: &[usize]) -> Self {
        if dims == self.dims() { self.clone() } else { self.shaped(dims, Operation::BroadcastTo) }
    }

    #[track_caller]
    fn shaped(&self, dims: &[usize], operation: fn(Shape) -> Operation) -> Self {
        match Shape::new(dims) {
            Ok(shape) => self.then(operation(shape), &[]),
            Err(error) => self.graph().fail(error, std::panic::Location::caller()),
        }
    }

    /// Axis i of the result is axis `axes[i]` of this tensor.
    #[track_caller]
    pub fn permute(&self, axes: &[u8]) -> Self {
        let mut all = [0; MAX_RANK];
        for (slot, &axis) in all.iter_mut().zip(axes) {
            *slot = axis;
        }
        self.then(Operation::Permute(all), &[])
    }

    #[track_caller]
    pub fn slice(&self, axis: usize, start: usize, length: usize) -> Self {
        self.then(Operation::Slice { axis, start, length }, &[])
    }

    #[track_caller]
    pub fn concat(&self, axis: usize, others: &[&Self]) -> Self {
        self.then(Operation::Concat { axis }, others)
    }

    /// The axis stays, with extent 1.
    #[track_caller]
    pub fn sum(&self, axis: usize) -> Self {
        self.then(Operation::Reduce { reduction: Reduction::Sum, axis }, &[])
    }

    /// The axis stays, with extent 1.
    #[track_caller]
    pub fn max(&self, axis: usize) -> Self {
        self.then(Operation::Reduce { reduction: Reduction::Max, axis }, &[])
    }

    /// The sum of all elements, as `[1]`.
    #[track_caller]
    pub fn sum_all(&self) -> Self {
        self.reshape(&[self.shape().elements()]).sum(0)
    }

    #[track_caller]
    pub fn matmul(&self, right: &Self) -> Self {
        self.then(Operation::MatMul { transpose_left: false, transpose_right: false, widen: false }, &[right])
    }

    /// `self right^T`
    #[track_caller]
    pub fn matmul_transposed(&self, right: &Self) -> Self {
        self.then(Operation::MatMul { transpose_left: false, transpose_right: true, widen: false }, &[right])
    }

    /// `self^T right`
    #[track_caller]
    pub fn transposed_matmul(&self, right: &Self) -> Self {
        self.then(Operation::MatMul { transpose_left: true, transpose_right: false, widen: false }, &[right])
    }

    /// Rows of this table [rows, width] named by ids u32 `[n]`.
    #[track_caller]
    pub fn embedding(&self, ids: &Self) -> Self {
        self.then(Operation::Embedding, &[ids])
    }

    /// A tensor of this one's shape and dtype, filled with `value`.
    #[track_caller]
    pub fn filled(&self, value: f64) -> Self {
        self.graph().leaf(Operation::Constant(Scalar(value)), self.dims(), self.dtype())
    }
}
