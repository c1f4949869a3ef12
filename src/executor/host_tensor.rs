//! Tensors on the host: what goes into a step and what comes out.

use half::bf16;

use crate::error::{Error, Result};
use crate::graph::{DType, Shape, TensorType};

/// Elements in row-major order with their type.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    pub tensor: TensorType,
    pub values: HostValues,
}

#[derive(Debug, Clone, PartialEq)]
pub enum HostValues {
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bf16(Vec<bf16>),
    U32(Vec<u32>),
}

/// The bytes may lie at any address.
fn collect<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> Vec<T> {
    bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
}

impl HostTensor {
    /// # Errors
    /// A shape error if the number of values is not that of the shape.
    pub fn f32(dims: &[usize], values: Vec<f32>) -> Result<Self> {
        Self::new(dims, DType::F32, values.len(), HostValues::F32(values))
    }

    /// # Errors
    /// A shape error if the number of values is not that of the shape.
    pub fn f64(dims: &[usize], values: Vec<f64>) -> Result<Self> {
        Self::new(dims, DType::F64, values.len(), HostValues::F64(values))
    }

    /// # Errors
    /// A shape error if the number of values is not that of the shape.
    pub fn u32(dims: &[usize], values: Vec<u32>) -> Result<Self> {
        Self::new(dims, DType::U32, values.len(), HostValues::U32(values))
    }

    pub fn zeros(tensor: TensorType) -> Self {
        Self::from_bytes(tensor, &vec![0; tensor.bytes()])
    }

    fn new(dims: &[usize], dtype: DType, len: usize, values: HostValues) -> Result<Self> {
        let shape = Shape::new(dims)?;
        if shape.elements() != len {
            return Err(Error::shape(format!("{len} values given for {shape}")));
        }
        Ok(Self { tensor: TensorType::new(shape, dtype), values })
    }

    pub(crate) fn from_bytes(tensor: TensorType, bytes: &[u8]) -> Self {
        let values = match tensor.dtype {
            DType::F32 => HostValues::F32(collect(bytes)),
            DType::F64 => HostValues::F64(collect(bytes)),
            DType::Bf16 => HostValues::Bf16(collect(bytes)),
            DType::U32 => HostValues::U32(collect(bytes)),
        };
        Self { tensor, values }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.values {
            HostValues::F32(values) => bytemuck::cast_slice(values),
            HostValues::F64(values) => bytemuck::cast_slice(values),
            HostValues::Bf16(values) => bytemuck::cast_slice(values),
            HostValues::U32(values) => bytemuck::cast_slice(values),
        }
    }

    /// The numbers as f64, whatever their type.
    pub fn to_f64(&self) -> Vec<f64> {
        match &self.values {
            HostValues::F32(values) => values.iter().map(|&v| f64::from(v)).collect(),
            HostValues::F64(values) => values.clone(),
            HostValues::Bf16(values) => values.iter().map(|v| v.to_f64()).collect(),
            HostValues::U32(values) => values.iter().map(|&v| f64::from(v)).collect(),
        }
    }

    /// The numbers as f32, whatever their type.
    pub fn into_f32(self) -> Vec<f32> {
        match self.values {
            HostValues::F32(values) => values,
            other => {
                Self { tensor: self.tensor, values: other }.to_f64().into_iter().map(|v| v as f32).collect()
            }
        }
    }

    /// These numbers in another floating-point type.
    #[must_use]
    pub fn to_dtype(&self, dtype: DType) -> Self {
        if dtype == self.tensor.dtype {
            return self.clone();
        }
        let numbers = self.to_f64();
        let values = match dtype {
            DType::F32 => HostValues::F32(numbers.into_iter().map(|v| v as f32).collect()),
            DType::F64 => HostValues::F64(numbers),
            DType::Bf16 => HostValues::Bf16(numbers.into_iter().map(bf16::from_f64).collect()),
            DType::U32 => HostValues::U32(numbers.into_iter().map(|v| v as u32).collect()),
        };
        Self { tensor: TensorType::new(self.tensor.shape, dtype), values }
    }
}
