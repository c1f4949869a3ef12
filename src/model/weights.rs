//! A model's weights by Hugging Face name, wherever they come from.

use std::collections::BTreeMap;
use std::path::Path;

use super::gguf::GgufModel;
use super::grown::Grown;
use super::random_init::RandomInit;
use super::shards::Shards;
use crate::adapter::expert_path;
use crate::error::{Error, Result};
use crate::tensor_file::{FloatType, TensorSpec};

/// Problems that an error lists before it only counts them.
const LISTED: usize = 8;

/// Weights that can be read one tensor at a time.
#[derive(Debug)]
pub enum Weights {
    Safetensors(Shards),
    Gguf(GgufModel),
    Random(RandomInit),
    /// With rows for tokens that were added.
    Grown(Grown),
}

impl Weights {
    /// Names of the tensors, as Hugging Face calls them.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Safetensors(shards) => shards.names().map(str::to_owned).collect(),
            Self::Gguf(model) => model.names(),
            Self::Random(random) => random.names(),
            Self::Grown(grown) => grown.stored.names(),
        }
    }

    /// Row-major shape of a tensor; `None` if there is no such tensor.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match self {
            Self::Safetensors(shards) => shards.entry(name).map(|entry| entry.shape.clone()),
            Self::Gguf(model) => model.shape(name),
            Self::Random(random) => random.shape(name),
            Self::Grown(grown) => grown.shape(name),
        }
    }

    /// The type that a tensor is exported in: its own, f16 for a quantized one, f32 for a random one.
    pub fn float_type(&self, name: &str) -> Option<FloatType> {
        match self {
            Self::Safetensors(shards) => shards.entry(name).and_then(|entry| entry.float_type),
            Self::Gguf(model) => model.float_type(name),
            Self::Random(random) => random.shape(name).map(|_| FloatType::F32),
            Self::Grown(grown) => grown.stored.float_type(name),
        }
    }

    /// How many tensors are stored in each type, by the file's own names of types.
    pub fn stored_types(&self) -> BTreeMap<String, usize> {
        let mut types = BTreeMap::new();
        if let Self::Grown(grown) = self {
            return grown.stored.stored_types();
        }
        for name in self.names() {
            let kind = match self {
                Self::Safetensors(shards) => shards.entry(&name).map(|entry| entry.type_name.clone()),
                Self::Gguf(model) => model.type_name(&name),
                Self::Random(_) => Some("random".to_owned()),
                Self::Grown(_) => None,
            };
            *types.entry(kind.unwrap_or_default()).or_default() += 1;
        }
        types
    }

    /// The files of a folder, if the weights come from one.
    pub(super) fn shards(&self) -> Option<&Shards> {
        match self {
            Self::Safetensors(shards) => Some(shards),
            Self::Grown(grown) => grown.stored.shards(),
            Self::Gguf(_) | Self::Random(_) => None,
        }
    }

    /// Reads a tensor as f32; see [`read_into`](Self::read_into).
    pub fn read_f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        if !name.contains('*') {
            self.check_shape(name, shape)?;
        }
        let mut values = vec![0.0; shape.iter().product()];
        self.read_into(name, shape, &mut values)?;
        Ok(values)
    }

    /// Reads a tensor of `shape` (row-major) into `out` as f32.
    ///
    /// A missing tensor, another shape or type, a NaN or an infinity is a data error naming file and tensor.
    ///
    /// A name with `*` for an expert's number means all experts, one after another: `shape` is [experts, out, in].
    pub fn read_into(&self, name: &str, shape: &[usize], out: &mut [f32]) -> Result<()> {
        if let (true, [experts, rest @ ..]) = (name.contains('*'), shape) {
            let each = out.chunks_mut(rest.iter().product::<usize>().max(1)).take(*experts);
            for (expert, out) in each.enumerate() {
                self.read_into(&expert_path(name, expert), rest, out)?;
            }
            return Ok(());
        }
        self.check_shape(name, shape)?;
        match self {
            Self::Safetensors(shards) => match shards.file_of(name) {
                Some(file) => file.read_into(name, shape, out)?,
                None => return Err(self.missing(name)),
            },
            Self::Gguf(model) => model.read_into(name, out)?,
            Self::Random(random) => random.fill(name, out),
            Self::Grown(grown) => grown.read_into(name, out)?,
        }
        match out.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(at) => Err(Error::data(format!(
                "{}: tensor {name} holds {} at element {at}",
                self.path().display(),
                out[at]
            ))
            .hint("the model is damaged, or was saved after its training diverged")),
        }
    }

    /// Checks that the file holds exactly the tensors that the model needs, in their shapes and in a readable type.
    ///
    /// The error lists all problems, not only the first.
    pub fn check_all(&self, specs: &[TensorSpec]) -> Result<()> {
        let mut problems = Vec::new();
        for spec in specs {
            match self.shape(&spec.name) {
                None => problems.push(format!("{} is missing", spec.name)),
                Some(shape) if shape != spec.shape => {
                    problems.push(format!("{} is {shape:?}, expected {:?}", spec.name, spec.shape));
                }
                Some(_) if self.float_type(&spec.name).is_none() => {
                    problems.push(format!("{} is in a type that holds no weights", spec.name));
                }
                Some(_) => {}
            }
        }
        let known: std::collections::HashSet<_> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let unknown =
            self.names().into_iter().filter(|name| !known.contains(name.as_str()) && !is_redundant(name));
        problems.extend(unknown.map(|name| format!("{name} is not part of this architecture")));
        if problems.is_empty() {
            return Ok(());
        }
        let more = problems.len().saturating_sub(LISTED);
        problems.truncate(LISTED);
        let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
        Err(Error::data(format!(
            "{} does not fit its config: {}{rest}",
            self.path().display(),
            problems.join("; ")
        ))
        .hint("config.json and the weights are from different models, or the model is of another family"))
    }

    /// Where the weights come from, for messages.
    pub fn path(&self) -> &Path {
        match self {
            Self::Safetensors(shards) => shards.folder(),
            Self::Gguf(model) => model.path(),
            Self::Random(random) => random.path(),
            Self::Grown(grown) => grown.stored.path(),
        }
    }

    fn check_shape(&self, name: &str, shape: &[usize]) -> Result<()> {
        let found = self.shape(name).ok_or_else(|| self.missing(name))?;
        if found == shape {
            return Ok(());
        }
        Err(Error::data(format!("{}: tensor {name} is {found:?}, expected {shape:?}", self.path().display())))
    }

    fn missing(&self, name: &str) -> Error {
        Error::data(format!("{} has no tensor {name}", self.path().display()))
    }
}

/// Tensors that some files carry though they can be computed: rope tables, and the copy of a tied head.
fn is_redundant(name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq") || name == "lm_head.weight"
}
