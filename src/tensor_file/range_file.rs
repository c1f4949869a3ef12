//! A file that is read by position.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::error::{Error, Result};

/// An open file of known length; several threads may read from it.
#[derive(Debug)]
pub struct RangeFile {
    path: PathBuf,
    length: u64,
    file: Mutex<File>,
}

impl RangeFile {
    /// Opens a regular file for reading.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |error: std::io::Error| {
            Error::data(format!("cannot open {}: {error}", path.display()))
                .hint("check the path and the file's permissions")
        };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(Error::data(format!("{} is not a file", path.display())));
        }
        Ok(Self { path: path.to_path_buf(), length: metadata.len(), file: Mutex::new(file) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length in bytes when the file was opened.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Fills `buffer` from the byte `offset` on; a file that ends before that is a data error.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.length) {
            return Err(self.cut_short(offset, buffer.len()));
        }
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(buffer)).map_err(|error| {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                self.cut_short(offset, buffer.len())
            } else {
                Error::data(format!("cannot read {}: {error}", self.path.display()))
            }
        })
    }

    fn cut_short(&self, offset: u64, wanted: usize) -> Error {
        Error::data(format!(
            "{} is cut short: {wanted} bytes expected at byte {offset}, but the file has {} bytes",
            self.path.display(),
            self.length
        ))
        .hint("download or copy the file again")
    }
}
