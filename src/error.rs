//! One error type for the whole crate: what went wrong, where, why, and what to do about it.

use std::fmt;

/// What an error is about; decides the process exit code and the first word a user reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The command line or the configuration file is wrong.
    User,
    /// A data set, model or adapter file is missing, damaged or inconsistent.
    Data,
    /// Tensor shapes or dtypes do not fit together.
    Shape,
    /// The run needs more memory than the budget or the device has.
    Memory,
    /// A device is missing or failed.
    Device,
    /// The training loss or a gradient became NaN or infinite.
    Diverged,
    /// The user interrupted the run; its state was saved.
    Interrupted,
    /// A broken promise inside lazytune: always a bug.
    Internal,
}

/// An error with its kind, the chain of what was being done, and a hint.
#[derive(Debug, Clone)]
pub struct Error(Box<Details>);

#[derive(Debug, Clone)]
struct Details {
    kind: ErrorKind,
    message: String,
    context: Vec<String>,
    hint: Option<String>,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Details { kind, message: message.into(), context: Vec::new(), hint: None }))
    }

    pub fn user(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::User, message)
    }

    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    pub fn shape(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Shape, message)
    }

    pub fn memory(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Memory, message)
    }

    pub fn device(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Device, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Adds what was being done when the error came up; the outermost is printed first.
    #[must_use]
    pub fn context(mut self, doing: impl Into<String>) -> Self {
        self.0.context.push(doing.into());
        self
    }

    /// Says what the user can do; the innermost hint wins.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint.get_or_insert_with(|| hint.into());
        self
    }

    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Exit code of the process: 1 failed, 2 usage or configuration, 130 interrupted.
    pub fn exit_code(&self) -> u8 {
        match self.0.kind {
            ErrorKind::User => 2,
            ErrorKind::Interrupted => 130,
            ErrorKind::Data
            | ErrorKind::Shape
            | ErrorKind::Memory
            | ErrorKind::Device
            | ErrorKind::Diverged
            | ErrorKind::Internal => 1,
        }
    }
}

/// The message and its context, without the hint: `while reading model.safetensors: file is cut short`.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for doing in self.0.context.iter().rev() {
            write!(f, "{doing}: ")?;
        }
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {}

/// Adds context to any fallible result.
pub trait ResultExt<T> {
    /// Wraps the error with what was being done.
    fn context(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T> ResultExt<T> for Result<T> {
    fn context(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| error.context(doing()))
    }
}

impl<T> ResultExt<T> for std::io::Result<T> {
    fn context(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::data(error.to_string()).context(doing()))
    }
}
