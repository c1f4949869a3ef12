//! A GGUF model's weights under their Hugging Face names, dequantized to f32.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Device;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::ggml_file::qtensor_from_ggml;

use super::{GgufFile, GgufTensor, GgufTokenizer, names};
use crate::adapter::expert_path;
use crate::error::{Error, Result, ResultExt};
use crate::model::config::ModelConfig;
use crate::tensor_file::FloatType;

/// Elements that are dequantized at a time.
const CHUNK: usize = 1 << 20;

/// A model in a GGUF file.
#[derive(Debug)]
pub struct GgufModel {
    file: GgufFile,
    /// By Hugging Face name.
    names: BTreeMap<String, Stored>,
    head_dim: usize,
    /// The rows of q and k are reordered.
    interleaved_heads: bool,
    /// Norm weights are stored plus 1, of which the model takes the difference.
    norms_from_one: bool,
}

/// Where a tensor is in the file.
#[derive(Debug)]
struct Stored {
    name: String,
    /// Which matrix of a tensor [experts, out, in].
    expert: Option<usize>,
}

impl GgufModel {
    /// Opens a model file and reads its configuration.
    pub fn open(path: &Path) -> Result<(Self, ModelConfig)> {
        let file = GgufFile::open(path)?;
        let config = file.config().context(|| format!("reading {}", path.display()))?;
        let mut names = BTreeMap::new();
        for (name, tensor) in &file.tensors {
            let stored = |expert| Stored { name: name.clone(), expert };
            match names::of_experts(name, &config.decoder) {
                Some(path) if path.contains('*') && tensor.shape.len() == 3 => {
                    let count = tensor.shape[0].min(config.decoder.experts.as_ref().map_or(0, |e| e.count));
                    let each = (0..count).map(|at| (expert_path(&path, at), stored(Some(at))));
                    names.extend(each);
                }
                of_experts => {
                    let plain = of_experts.or_else(|| names::to_hugging_face(name, &config.decoder));
                    names.extend(plain.map(|path| (path, stored(None))));
                }
            }
        }
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
        let stored = self.names.get(name)?;
        let shape = &self.file.tensors.get(&stored.name)?.shape;
        Some(if stored.expert.is_some() { shape[1..].to_vec() } else { shape.clone() })
    }

    /// A dequantized value needs at most the eleven bits of f16: a quantized tensor is exported in that.
    pub(crate) fn float_type(&self, name: &str) -> Option<FloatType> {
        Some(match self.file.tensors.get(&self.names.get(name)?.name)?.dtype {
            GgmlDType::F32 => FloatType::F32,
            GgmlDType::BF16 => FloatType::Bf16,
            _ => FloatType::F16,
        })
    }

    /// ggml's name of the type that a tensor is stored in.
    pub(crate) fn type_name(&self, name: &str) -> Option<String> {
        Some(format!("{:?}", self.file.tensors.get(&self.names.get(name)?.name)?.dtype))
    }

    /// Reads a tensor into `out`, whose length the caller has checked.
    pub(crate) fn read_into(&self, name: &str, out: &mut [f32]) -> Result<()> {
        let missing = || Error::internal(format!("{name} is not in the file"));
        let Stored { name: stored, expert } = self.names.get(name).ok_or_else(missing)?;
        let skipped = expert.unwrap_or(0) * out.len();
        self.file.read_part(stored, skipped, out)?;
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
        self.read_part(name, 0, &mut values)?;
        Ok(values)
    }

    /// Reads the elements after the first `skipped`, which are whole blocks.
    fn read_part(&self, name: &str, skipped: usize, out: &mut [f32]) -> Result<()> {
        let Some(tensor) = self.tensors.get(name) else {
            return Err(Error::data(format!("{} has no tensor {name}", self.file.path().display())));
        };
        let float = |kind: FloatType, out: &mut [f32]| {
            kind.read(&self.file, tensor.offset + (skipped * kind.size()) as u64, out)
        };
        match tensor.dtype {
            GgmlDType::F32 => float(FloatType::F32, out),
            GgmlDType::F16 => float(FloatType::F16, out),
            GgmlDType::BF16 => float(FloatType::Bf16, out),
            _ => self.dequantize(name, tensor, skipped, out),
        }
    }

    fn dequantize(&self, name: &str, tensor: &GgufTensor, skipped: usize, out: &mut [f32]) -> Result<()> {
        let block = tensor.dtype.block_size();
        let mut position = tensor.offset + (skipped / block * tensor.dtype.type_size()) as u64;
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
