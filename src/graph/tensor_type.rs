//! Shapes, element types and scalars: what a node of the graph is, without its data.

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::error::{Error, Result};

/// The most axes a tensor may have: [batch, kv heads, group, queries, keys] needs five.
pub const MAX_RANK: usize = 5;

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    F32,
    Bf16,
    /// Reference arithmetic only: oracles and finite differences.
    F64,
    /// Token ids, positions, segment numbers.
    U32,
}

impl DType {
    pub fn size_in_bytes(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::F32 | Self::U32 => 4,
            Self::F64 => 8,
        }
    }

    pub fn is_float(self) -> bool {
        self != Self::U32
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F64 => "f64",
            Self::U32 => "u32",
        })
    }
}

/// Extents of a tensor, row-major, stored inline so that shapes are `Copy`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    extents: [usize; MAX_RANK],
    rank: usize,
}

impl Shape {
    /// No axes, one element.
    pub const SCALAR: Self = Self { extents: [1; MAX_RANK], rank: 0 };

    /// # Errors
    /// A shape error if there are more than [`MAX_RANK`] axes or the element count overflows.
    pub fn new(dims: &[usize]) -> Result<Self> {
        if dims.len() > MAX_RANK {
            return Err(Error::shape(format!(
                "{dims:?} has {} axes; at most {MAX_RANK} are supported",
                dims.len()
            )));
        }
        if dims
            .iter()
            .try_fold(1usize, |product, &d| product.checked_mul(d))
            .is_none_or(|n| n > isize::MAX as usize / 8)
        {
            return Err(Error::shape(format!("{dims:?} has too many elements to address")));
        }
        let mut extents = [1; MAX_RANK];
        extents[..dims.len()].copy_from_slice(dims);
        Ok(Self { extents, rank: dims.len() })
    }

    pub fn dims(&self) -> &[usize] {
        &self.extents[..self.rank]
    }

    pub fn rank(&self) -> usize {
        self.rank
    }

    pub fn elements(&self) -> usize {
        self.dims().iter().product()
    }

    /// Extent of the last axis; 1 for a scalar.
    pub fn last(&self) -> usize {
        self.dims().last().copied().unwrap_or(1)
    }

    /// Product of all extents but the last: the number of rows when seen as a matrix.
    pub fn rows(&self) -> usize {
        self.elements().checked_div(self.last()).unwrap_or(0)
    }

    /// The same shape with one extent replaced.
    #[must_use]
    pub fn with(&self, axis: usize, extent: usize) -> Self {
        let mut shape = *self;
        shape.extents[axis] = extent;
        shape
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

/// Shape and element type of one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TensorType {
    pub shape: Shape,
    pub dtype: DType,
}

impl TensorType {
    pub fn new(shape: Shape, dtype: DType) -> Self {
        Self { shape, dtype }
    }

    pub fn bytes(&self) -> usize {
        self.shape.elements() * self.dtype.size_in_bytes()
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}

/// A number that is part of an operation; equal when its bits are, so that nodes can be interned.
#[derive(Debug, Clone, Copy)]
pub struct Scalar(pub f64);

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Scalar {}

impl Hash for Scalar {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}
