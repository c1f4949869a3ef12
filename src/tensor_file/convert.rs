//! Floating point types on disk, and their conversion from and to f32.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::Dtype;

use super::RangeFile;
use crate::error::Result;

/// Elements that are converted at a time: 256 KiB of half precision.
const CHUNK: usize = 128 * 1024;

/// The floating point types that weights are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatType {
    F32,
    F16,
    Bf16,
}

impl FloatType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The type in a safetensors header.
    pub fn safetensors_type(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::BF16,
        }
    }

    /// The name in `config.json` (`dtype`, formerly `torch_dtype`).
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    pub(super) fn from_safetensors(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::Bf16),
            _ => None,
        }
    }

    /// Reads `out.len()` elements of this type from `offset` on, as f32.
    pub fn read(self, file: &RangeFile, offset: u64, out: &mut [f32]) -> Result<()> {
        match self {
            Self::F32 => file.read_at(offset, bytemuck::cast_slice_mut(out)),
            Self::F16 => read_half::<f16>(file, offset, out, |half, out| half.convert_to_f32_slice(out)),
            Self::Bf16 => read_half::<bf16>(file, offset, out, |half, out| half.convert_to_f32_slice(out)),
        }
    }

    /// Calls `sink` with the bytes of `values` in this type, a chunk at a time. Rounds to nearest even.
    pub fn encode(
        self,
        values: &[f32],
        mut sink: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        for chunk in values.chunks(CHUNK) {
            match self {
                Self::F32 => sink(bytemuck::cast_slice(chunk))?,
                Self::F16 => {
                    let mut half = vec![f16::ZERO; chunk.len()];
                    half.convert_from_f32_slice(chunk);
                    sink(bytemuck::cast_slice(&half))?;
                }
                Self::Bf16 => {
                    let mut half = vec![bf16::ZERO; chunk.len()];
                    half.convert_from_f32_slice(chunk);
                    sink(bytemuck::cast_slice(&half))?;
                }
            }
        }
        Ok(())
    }
}

fn read_half<H: bytemuck::Pod>(
    file: &RangeFile,
    offset: u64,
    out: &mut [f32],
    convert: impl Fn(&[H], &mut [f32]),
) -> Result<()> {
    let mut buffer = vec![H::zeroed(); CHUNK.min(out.len())];
    let mut position = offset;
    for chunk in out.chunks_mut(CHUNK) {
        let half = &mut buffer[..chunk.len()];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(half);
        file.read_at(position, bytes)?;
        position += bytes.len() as u64;
        convert(half, chunk);
    }
    Ok(())
}
