//! A GGUF model's weights under their Hugging Face names, dequantized to f32.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Device;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::ggml_file::qtensor_from_ggml;

use super::{GgufFile, GgufTensor, GgufTokenizer, names};
use crate::error::{Error, Result, ResultExt};
use crate::model::config::ModelConfig;
use crate::tensor_file::FloatType;

/// Elements that are dequantized at a time.
const CHUNK: usize = 1 << 20;

/// A model in a GGUF file.
#[derive(Debug)]
pub struct GgufModel {
    file: GgufFile,
    /// Hugging Face name to the name in the file.
    names: BTreeMap<String, String>,
    head_dim: usize,
    /// The rows of q and k are reordered.
    interleaved_heads: bool,
    /// Norm weights are stored plus 1, of which the model takes the difference.
    norms_from_one: bool,
}

impl GgufModel {
    /// Opens a model file and reads its configuration.
    pub fn open(path: &Path) -> Result<(Self, ModelConfig)> {
        let file = GgufFile::open(path)?;
        let config = file.config().context(|| format!("reading {}", path.display()))?;
        let names = file
            .tensors
            .keys()
            .filter_map(|name| Some((names::to_hugging_face(name, &config.decoder)?, name.clone())))
            .collect();
        let layout = config.architecture.family().gguf.as_ref();
        let interleaved_heads = layout.is_some_and(|layout| layout.interleaved_heads);
        let norms_from_one = config.decoder.norms_from_one;
        Ok((Self { file, names, head_dim: config.head_dim, interleaved_heads, norms_from_one }, config))
    }

    /// Rebuilds the tokenizer from the file's metadata.
    pub fn tokenizer(&self) -> Result<GgufTokenizer> {
        GgufTokenizer::from_file(&self.file).context(|| format!("reading {}", self.path().display()))
    }

    pub fn path(&self) -> &Path {
        self.file.file.path()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    pub(crate) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Some(self.file.tensors.get(self.names.get(name)?)?.shape.clone())
    }

    /// A dequantized value needs at most the eleven bits of f16: a quantized tensor is exported in that.
    pub(crate) fn float_type(&self, name: &str) -> Option<FloatType> {
        Some(match self.file.tensors.get(self.names.get(name)?)?.dtype {
            GgmlDType::F32 => FloatType::F32,
            GgmlDType::BF16 => FloatType::Bf16,
            _ => FloatType::F16,
        })
    }

    /// ggml's name of the type that a tensor is stored in.
    pub(crate) fn type_name(&self, name: &str) -> Option<String> {
        Some(format!("{:?}", self.file.tensors.get(self.names.get(name)?)?.dtype))
    }

    /// Reads a tensor into `out`, whose length the caller has checked.
    pub(crate) fn read_into(&self, name: &str, out: &mut [f32]) -> Result<()> {
        let missing = || Error::internal(format!("{name} is not in the file"));
        let stored = self.names.get(name).ok_or_else(missing)?;
        self.file.read_into(stored, out)?;
        if self.norms_from_one && stored.ends_with("norm.weight") {
            out.iter_mut().for_each(|weight| *weight -= 1.0);
        }
        if self.interleaved_heads && (stored.contains(".attn_q.") || stored.contains(".attn_k.")) {
            let is_matrix = self.shape(name).is_some_and(|shape| shape.len() == 2);
            let row = if is_matrix { out.len() / self.rows(name) } else { 1 };
            names::unpermute_rows(out, self.head_dim, row);
        }
        Ok(())
    }

    fn rows(&self, name: &str) -> usize {
        self.shape(name).and_then(|shape| shape.first().copied()).unwrap_or(1).max(1)
    }
}

impl GgufFile {
    pub(super) fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        let elements = self.tensors.get(name).map_or(0, |tensor| tensor.shape.iter().product());
        let mut values = vec![0.0; elements];
        self.read_into(name, &mut values)?;
        Ok(values)
    }

    fn read_into(&self, name: &str, out: &mut [f32]) -> Result<()> {
        let Some(tensor) = self.tensors.get(name) else {
            return Err(Error::data(format!("{} has no tensor {name}", self.file.path().display())));
        };
        match tensor.dtype {
            GgmlDType::F32 => FloatType::F32.read(&self.file, tensor.offset, out),
            GgmlDType::F16 => FloatType::F16.read(&self.file, tensor.offset, out),
            GgmlDType::BF16 => FloatType::Bf16.read(&self.file, tensor.offset, out),
            _ => self.dequantize(name, tensor, out),
        }
    }

    fn dequantize(&self, name: &str, tensor: &GgufTensor, out: &mut [f32]) -> Result<()> {
        let block = tensor.dtype.block_size();
        let mut position = tensor.offset;
        // CHUNK is a multiple of every block size, and so is the length of a quantized tensor.
        for chunk in out.chunks_mut(CHUNK) {
            let mut bytes = vec![0; chunk.len() / block * tensor.dtype.type_size()];
            self.file.read_at(position, &mut bytes)?;
            position += bytes.len() as u64;
            let values = qtensor_from_ggml(tensor.dtype, &bytes, vec![chunk.len()], &Device::Cpu)
                .and_then(|quantized| quantized.dequantize(&Device::Cpu)?.to_vec1::<f32>())
                .map_err(|error| Error::data(format!("cannot dequantize {name}: {error}")))?;
            chunk.copy_from_slice(&values);
        }
        Ok(())
    }
}
