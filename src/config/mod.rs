//! The run configuration: a TOML file and `--set` overrides in, a checked [`RunConfig`] out.
//!
//! ```text
//! file, --set -> document (text with positions) -> sections (serde; defaults) -> ranges -> resolve (paths,
//! contradictions) -> RunConfig -> export (TOML that loads to an equal RunConfig)
//! ```
//!
//! The structs in `sections` are the one home of keys, types, defaults, ranges and descriptions: the JSON schema, the
//! suggestions for misspelt keys and the range checks are all derived from them. Every problem of a file is reported
//! together, each with its line and the text underlined.

mod document;
mod export;
mod ranges;
mod report;
mod resolve;
mod schema;
mod sections;
mod vocabulary;

pub use schema::schema;
pub use sections::{
    AdapterSection, DataSection, DataType, DeviceChoice, HubFiles, LogSection, Method, ModelInit,
    ModelLocation, ModelSection, OptimizerName, OptimizerSection, Overlong, RunLength, ScheduleKind,
    ScheduleSection, TargetModules, TrainOn, TrainSection, Validation, WeightedSource,
};

use crate::error::{Error, Result};
use document::Document;
use report::{Origin, Problems};
use std::io::Read;
use std::path::Path;
use vocabulary::Vocabulary;

/// Largest configuration file, in bytes; a data or model file given by mistake is refused before it is parsed.
const MAX_BYTES: u64 = 1 << 20;

/// Everything that decides a run, checked, with absolute paths.
#[derive(Clone, Debug, PartialEq)]
pub struct RunConfig {
    pub model: ModelSection,
    pub data: DataSection,
    pub adapter: AdapterSection,
    pub optimizer: OptimizerSection,
    pub schedule: ScheduleSection,
    pub train: TrainSection,
    pub log: LogSection,
}

/// Reads and checks a configuration file.
///
/// `overrides` are `section.key=value` strings; a value that is not TOML is taken as text. Input paths in the file are
/// relative to the file's folder, those in overrides to the current folder.
///
/// # Errors
/// A user error whose message shows every problem with its line underlined, without color.
pub fn load(path: &Path, overrides: &[String]) -> Result<RunConfig> {
    load_with_color(path, overrides, false)
}

/// [`load`], with errors that carry ANSI colors when `color` is set.
///
/// # Errors
/// As [`load`].
pub fn load_with_color(path: &Path, overrides: &[String], color: bool) -> Result<RunConfig> {
    let mut origins = vec![Origin { name: path.display().to_string(), text: read_text(path)? }];
    origins.extend(overrides.iter().map(|text| Origin { name: "--set".to_owned(), text: text.clone() }));
    let vocabulary = Vocabulary::new(&schema());
    let root = document::parse_file(&origins).map_err(|problems| problems.into_error(&origins, color))?;
    let mut problems = Problems::default();
    let mut document = Document::new(root, &origins, &vocabulary, &mut problems);
    let raw = document.read(&mut problems);
    ranges::check(&raw, &document, &vocabulary, &mut problems)?;
    let config = resolve::resolve(raw, path, &document, &mut problems)?;
    if problems.is_empty() { Ok(config) } else { Err(problems.into_error(&origins, color)) }
}

fn read_text(path: &Path) -> Result<String> {
    let name = path.display();
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::user(format!("{name}: there is no such file"))
            .hint("pass the path of a run configuration, for example configs/quickstart.toml"),
        _ => Error::user(format!("{name}: {error}")),
    })?;
    if metadata.is_dir() {
        return Err(Error::user(format!("{name} is a folder, not a configuration file"))
            .hint("pass the path of a .toml file; --resume continues the run of a run directory"));
    }
    if !metadata.is_file() {
        return Err(Error::user(format!("{name} is not a regular file")));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| Error::user(format!("{name}: {error}")))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::user(format!("{name} is larger than 1 MiB: it cannot be a run configuration"))
            .hint("pass the .toml file; data and model files are named inside it"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        Error::user(format!("{name}:{line}: the file is not UTF-8 text")).hint("save it as UTF-8")
    })
}
