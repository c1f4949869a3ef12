//! Writing a safetensors file tensor by tensor, without holding it in memory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Metadata, TensorInfo};

use super::FloatType;
use crate::error::{Error, Result};

/// A tensor's name and row-major shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    pub name: String,
    pub shape: Vec<usize>,
}

impl TensorSpec {
    pub fn new(name: impl Into<String>, shape: &[usize]) -> Self {
        Self { name: name.into(), shape: shape.to_vec() }
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A file being written: the header first, then each tensor in the order of the header.
#[derive(Debug)]
pub struct SafetensorsWriter {
    path: PathBuf,
    file: BufWriter<File>,
    pending: std::vec::IntoIter<(TensorSpec, FloatType)>,
}

impl SafetensorsWriter {
    /// Creates `path` and writes the header; `tensors` give the order in which values must follow.
    pub fn create(path: &Path, tensors: Vec<(TensorSpec, FloatType)>) -> Result<Self> {
        let mut position = 0;
        let described = tensors.iter().map(|(spec, float_type)| {
            let end = position + spec.elements() * float_type.size();
            let data_offsets = (std::mem::replace(&mut position, end), end);
            let dtype = float_type.safetensors_type();
            (spec.name.clone(), TensorInfo { dtype, shape: spec.shape.clone(), data_offsets })
        });
        let described: Vec<_> = described.collect();
        // Python's readers expect this note on who may load the file.
        let note = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let header =
            Metadata::new(Some(note), described).map_err(|error| Error::internal(error.to_string()))?;
        if header.tensors().len() != tensors.len() {
            return Err(Error::internal(format!(
                "{} would hold two tensors of the same name",
                path.display()
            )));
        }
        let mut text = serde_json::to_vec(&header).map_err(|error| Error::internal(error.to_string()))?;
        // The data starts at a multiple of eight bytes.
        text.resize(text.len().next_multiple_of(8), b' ');
        let file = File::create(path).map_err(|error| failed(path, &error))?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        file.write_all(&(text.len() as u64).to_le_bytes())
            .and_then(|()| file.write_all(&text))
            .map_err(|error| failed(path, &error))?;
        Ok(Self { path: path.to_path_buf(), file, pending: tensors.into_iter() })
    }

    /// Appends the values of the next tensor, which must be `name`.
    pub fn write(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let (spec, float_type) = self
            .pending
            .next()
            .filter(|(spec, _)| spec.name == name)
            .ok_or_else(|| Error::internal(format!("tensor {name} written out of order")))?;
        if values.len() != spec.elements() {
            return Err(Error::internal(format!("{name} has {} values, not {:?}", values.len(), spec.shape)));
        }
        let Self { file, path, .. } = self;
        float_type.encode(values, |bytes| file.write_all(bytes)).map_err(|error| failed(path, &error))
    }

    /// Flushes the file to the disk; an error if a tensor was left out.
    pub fn finish(mut self) -> Result<()> {
        if let Some((missing, _)) = self.pending.next() {
            return Err(Error::internal(format!("tensor {} was never written", missing.name)));
        }
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        synced.map_err(|error| failed(&self.path, &error))
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::data(format!("cannot write {}: {error}", path.display()))
        .hint("check the folder's permissions and the free space on the disk")
}
