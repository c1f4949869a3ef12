//! The real binary in a temporary folder, and a model small enough to train there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use lazytune::model::ModelSource;
use lazytune::model::export::export;
use lazytune::tensor_file::SafetensorsFile;
use serde_json::{Value, json};

/// A temporary folder in which the binary runs.
pub struct Workspace(tempfile::TempDir);

/// How a process ended.
#[derive(Debug)]
pub struct Outcome {
    /// -1 where a signal ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Panics with both streams unless the exit code is `code`.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Panics unless standard error contains each of `parts`.
    #[track_caller]
    pub fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in stderr:\n{}", self.stderr);
        }
        self
    }
}

impl Workspace {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A command of lazytune in this folder, on two threads at most and without a terminal.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lazytune"));
        command.args(arguments).current_dir(self.0.path()).env("HF_HUB_OFFLINE", "1").stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Outcome {
        let output = self.command(arguments).output().unwrap();
        Outcome {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Starts a command whose streams nobody reads.
    pub fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// A model folder with random weights, large enough to answer with more than one token, and the fixtures'
    /// tokenizer.
    pub fn model(&self, name: &str) -> PathBuf {
        let bare = self.path(&format!(".{name}-config"));
        std::fs::create_dir_all(&bare).unwrap();
        let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer");
        for entry in std::fs::read_dir(tokenizer).unwrap() {
            let from = entry.unwrap().path();
            std::fs::copy(&from, bare.join(from.file_name().unwrap())).unwrap();
        }
        std::fs::write(bare.join("config.json"), tiny_config(vocabulary(&bare)).to_string()).unwrap();
        let source = ModelSource::random(&bare, 7).unwrap();
        let folder = self.path(name);
        let larger = |spec: &lazytune::model::TensorSpec, values: &mut [f32]| {
            source.weights.read_into(&spec.name, &spec.shape, values)?;
            if spec.shape.len() > 1 {
                values.iter_mut().for_each(|value| *value *= 25.0);
            }
            Ok(())
        };
        export(&source, &folder, None, larger).unwrap();
        folder
    }
}

/// Tokens that the tokenizer in `folder` knows, its added ones included.
fn vocabulary(folder: &Path) -> usize {
    let tokenizer = tokenizers::Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
    tokenizer.get_vocab_size(true)
}

fn tiny_config(vocab_size: usize) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab_size, "hidden_size": 16,
        "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 128, "rope_theta": 10000.0, "eos_token_id": 2,
        "tie_word_embeddings": false,
    })
}

/// A folder of tests/goldens.
pub fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(path)
}

/// Every tensor of a safetensors file, in f32.
pub fn tensors(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let file = SafetensorsFile::open(path).unwrap();
    let read = |(name, entry): (&String, &lazytune::tensor_file::TensorEntry)| {
        (name.clone(), (entry.shape.clone(), file.read_f32(name, &entry.shape).unwrap()))
    };
    file.entries().iter().map(read).collect()
}

/// The lines of a metrics.jsonl that report steps.
pub fn steps(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["event"] == "step").collect()
}

/// One field of every line.
pub fn field(lines: &[Value], name: &str) -> Vec<f64> {
    lines.iter().map(|line| line[name].as_f64().unwrap()).collect()
}

/// Every file below a folder, by relative path.
pub fn snapshot(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(folder).unwrap().to_path_buf(), std::fs::read(path).unwrap());
            }
        }
    }
    files
}
