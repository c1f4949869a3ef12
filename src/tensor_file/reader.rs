//! Reading tensors from a safetensors file.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::TensorInfo;

use super::{FloatType, RangeFile, header};
use crate::error::{Error, Result};

/// A safetensors file whose header has been read and checked.
#[derive(Debug)]
pub struct SafetensorsFile {
    file: RangeFile,
    entries: BTreeMap<String, TensorEntry>,
    metadata: BTreeMap<String, String>,
}

/// Where and what a tensor is.
#[derive(Debug, Clone)]
pub struct TensorEntry {
    pub shape: Vec<usize>,
    /// `None`: a type that does not hold weights, named by `type_name`.
    pub float_type: Option<FloatType>,
    pub type_name: String,
    offset: u64,
    bytes: u64,
}

impl SafetensorsFile {
    /// Opens the file and checks its whole header against the file's length.
    pub fn open(path: &Path) -> Result<Self> {
        let file = RangeFile::open(path)?;
        let header = header::read(&file)?;
        let entries = header.tensors.tensors().into_iter();
        let entries = entries.map(|(name, info)| (name, TensorEntry::new(info, header.data_start))).collect();
        let metadata =
            header.tensors.metadata().iter().flatten().map(|(key, text)| (key.clone(), text.clone()));
        Ok(Self { file, entries, metadata: metadata.collect() })
    }

    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The tensors by name, in alphabetical order.
    pub fn entries(&self) -> &BTreeMap<String, TensorEntry> {
        &self.entries
    }

    /// The header's free text (`format`, ...).
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Reads a tensor of `shape` as f32; see [`read_into`](Self::read_into).
    pub fn read_f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.checked(name, shape)?;
        let mut values = vec![0.0; shape.iter().product()];
        self.read_into(name, shape, &mut values)?;
        Ok(values)
    }

    /// Reads a tensor of `shape` (row-major) into `out`, converted to f32.
    ///
    /// A missing tensor, another shape, or a type other than f32, f16 and bf16 is a data error naming file and tensor.
    pub fn read_into(&self, name: &str, shape: &[usize], out: &mut [f32]) -> Result<()> {
        let (entry, float_type) = self.checked(name, shape)?;
        if out.len() as u64 * float_type.size() as u64 != entry.bytes {
            return Err(Error::internal(format!("{name} {shape:?} read into {} elements", out.len())));
        }
        float_type.read(&self.file, entry.offset, out)
    }

    fn checked(&self, name: &str, shape: &[usize]) -> Result<(&TensorEntry, FloatType)> {
        let path = self.path().display();
        let Some(entry) = self.entries.get(name) else {
            return Err(Error::data(format!("{path} has no tensor {name}")));
        };
        if entry.shape != shape {
            return Err(Error::data(format!(
                "{path}: tensor {name} is {:?}, expected {shape:?}",
                entry.shape
            )));
        }
        let float_type = entry.float_type.ok_or_else(|| {
            Error::data(format!("{path}: tensor {name} is {}, expected F32, F16 or BF16", entry.type_name))
                .hint("quantized safetensors are not supported: use the original model, or a GGUF file")
        })?;
        Ok((entry, float_type))
    }
}

impl TensorEntry {
    fn new(info: &TensorInfo, data_start: u64) -> Self {
        let (start, end) = info.data_offsets;
        let type_name = info.dtype.to_string();
        Self {
            shape: info.shape.clone(),
            float_type: FloatType::from_safetensors(info.dtype),
            type_name,
            offset: data_start + start as u64,
            bytes: (end - start) as u64,
        }
    }
}
