//! Values of a device on the host.

use candle_core::Tensor;
use half::bf16;

use super::device::failed;
use crate::error::Result;
use crate::executor::host_tensor::{HostTensor, HostValues};
use crate::graph::{DType, Shape, TensorType};

pub(super) fn download(value: &Tensor, tensor: TensorType) -> Result<HostTensor> {
    let flat = value.flatten_all().map_err(failed)?;
    let values = match tensor.dtype {
        DType::F32 => HostValues::F32(flat.to_vec1::<f32>().map_err(failed)?),
        DType::F64 => HostValues::F64(flat.to_vec1::<f64>().map_err(failed)?),
        DType::Bf16 => HostValues::Bf16(flat.to_vec1::<bf16>().map_err(failed)?),
        DType::U32 => HostValues::U32(flat.to_vec1::<u32>().map_err(failed)?),
    };
    Ok(HostTensor { tensor, values })
}

/// Every copy from a device waits for it: values of one type are joined there and copied together.
pub(super) fn download_all(runs: &[Vec<(Tensor, TensorType)>]) -> Result<Vec<Vec<HostTensor>>> {
    let values = || runs.iter().flatten();
    let dtype = values().next().map(|(_, tensor)| tensor.dtype);
    let Some(dtype) = dtype.filter(|&dtype| values().all(|(_, tensor)| tensor.dtype == dtype)) else {
        let each = |run: &Vec<_>| run.iter().map(|(value, tensor)| download(value, *tensor)).collect();
        return runs.iter().map(each).collect();
    };
    let flat = values().map(|(value, _)| value.flatten_all()).collect::<candle_core::Result<Vec<_>>>();
    let joined = flat.and_then(|flat| Tensor::cat(&flat, 0)).map_err(failed)?;
    let shape = Shape::new(joined.dims())?;
    let bytes = download(&joined, TensorType::new(shape, dtype))?;
    let mut rest = bytes.bytes();
    let mut next = |tensor: TensorType| {
        let (bytes, after) = rest.split_at(tensor.bytes());
        rest = after;
        HostTensor::from_bytes(tensor, bytes)
    };
    Ok(runs.iter().map(|run| run.iter().map(|&(_, tensor)| next(tensor)).collect()).collect())
}
