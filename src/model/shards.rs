//! A folder's safetensors: one file, or several with an index.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::tensor_file::{SafetensorsFile, TensorEntry};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A model's tensors in one or several files.
#[derive(Debug)]
pub struct Shards {
    folder: PathBuf,
    /// File name and contents, in the order of the names.
    files: Vec<(String, SafetensorsFile)>,
    /// Tensor name to index in `files`.
    location: BTreeMap<String, usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Shards {
    /// Opens the files of a model folder and checks their headers, and the index if there is one.
    pub fn open(folder: &Path) -> Result<Self> {
        if folder.join(SINGLE).exists() {
            let file = SafetensorsFile::open(&folder.join(SINGLE))?;
            let location = file.entries().keys().map(|name| (name.clone(), 0)).collect();
            return Ok(Self { folder: folder.to_path_buf(), files: vec![(SINGLE.into(), file)], location });
        }
        if folder.join(INDEX).exists() {
            return Self::open_indexed(folder);
        }
        let pickled = folder.join("pytorch_model.bin").exists();
        let hint = if pickled {
            "the folder holds only pickled weights: save them with save_pretrained(.., safe_serialization=True)"
        } else {
            "a model folder holds config.json, tokenizer.json and *.safetensors"
        };
        Err(Error::data(format!("{} has neither {SINGLE} nor {INDEX}", folder.display())).hint(hint))
    }

    fn open_indexed(folder: &Path) -> Result<Self> {
        let index_path = folder.join(INDEX);
        let shown = index_path.display();
        let index = Index::read(&index_path)?;
        let names = index.shard_names(&index_path)?;
        check_present(folder, &index_path, &names)?;
        let mut files = Vec::new();
        for name in names {
            let file = SafetensorsFile::open(&folder.join(&name))?;
            files.push((name, file));
        }
        let mut location = BTreeMap::new();
        for (tensor, file_name) in index.weight_map {
            let position = files.iter().position(|(name, _)| *name == file_name);
            let found = position.filter(|&at| files[at].1.entries().contains_key(&tensor));
            let at = found.ok_or_else(|| {
                Error::data(format!("{shown} places {tensor} in {file_name}, which does not have it"))
                    .hint("index and shards are from different versions of the model: download it again")
            })?;
            location.insert(tensor, at);
        }
        Ok(Self { folder: folder.to_path_buf(), files, location })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Tensor names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.location.keys().map(String::as_str)
    }

    /// A tensor's header entry.
    pub fn entry(&self, name: &str) -> Option<&TensorEntry> {
        self.file_of(name)?.entries().get(name)
    }

    /// The file that holds a tensor.
    pub fn file_of(&self, name: &str) -> Option<&SafetensorsFile> {
        self.location.get(name).map(|&at| &self.files[at].1)
    }

    /// File names with the tensors that each holds.
    pub fn layout(&self) -> Vec<(String, Vec<String>)> {
        let mut layout: Vec<_> = self.files.iter().map(|(name, _)| (name.clone(), Vec::new())).collect();
        for (tensor, &at) in &self.location {
            layout[at].1.push(tensor.clone());
        }
        layout
    }
}

impl Index {
    fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path)
            .map_err(|error| Error::data(format!("cannot read {}: {error}", path.display())))?;
        serde_json::from_slice(&text)
            .map_err(|error| Error::data(format!("{} is not a valid index: {error}", path.display())))
    }

    /// The names of the shards, sorted; each must be a plain file name.
    fn shard_names(&self, path: &Path) -> Result<Vec<String>> {
        let names: BTreeSet<_> = self.weight_map.values().cloned().collect();
        match names.iter().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
            None => Ok(names.into_iter().collect()),
            Some(name) => {
                Err(Error::data(format!("{} names the shard {name:?}, not a file beside it", path.display())))
            }
        }
    }
}

/// The shards that the index file at `path` names.
pub fn shard_names(path: &Path) -> Result<Vec<String>> {
    Index::read(path)?.shard_names(path)
}

fn check_present(folder: &Path, index: &Path, names: &[String]) -> Result<()> {
    let missing: Vec<_> =
        names.iter().filter(|name| !folder.join(name).exists()).map(String::as_str).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::data(format!("{} names missing shards: {}", index.display(), missing.join(", ")))
        .hint("the download was not completed: download the missing files"))
}
