//! The header of a safetensors file: eight bytes of length, then JSON that the safetensors crate parses and checks.

use safetensors::tensor::Metadata;

use super::RangeFile;
use crate::error::{Error, Result, ResultExt};

/// The format's own limit on the header, in bytes.
const MAX_HEADER: u64 = 100_000_000;

/// The header's tensors, and where the data starts in the file.
pub(super) struct Header {
    pub tensors: Metadata,
    pub data_start: u64,
}

/// Reads and checks the header: every byte of the data belongs to exactly one tensor of that size.
pub(super) fn read(file: &RangeFile) -> Result<Header> {
    read_unnamed(file).context(|| format!("reading {}", file.path().display())).map_err(|error| {
        error.hint("the file is damaged or is not a safetensors file: download or copy it again")
    })
}

fn read_unnamed(file: &RangeFile) -> Result<Header> {
    if file.length() < 8 {
        return Err(Error::data(format!("the file has {} bytes, too few for a header", file.length())));
    }
    let mut length = [0; 8];
    file.read_at(0, &mut length)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER || length > file.length() - 8 {
        return Err(Error::data(format!(
            "the header claims {length} bytes, but the file has {} (and the format allows {MAX_HEADER})",
            file.length()
        )));
    }
    let mut text = vec![0; length as usize];
    file.read_at(8, &mut text)?;
    let tensors: Metadata = serde_json::from_slice(&text)
        .map_err(|error| Error::data(format!("the header is not valid: {error}")))?;
    let data_start = 8 + length;
    let (described, held) = (tensors.data_len() as u64, file.length() - data_start);
    if described != held {
        return Err(Error::data(format!(
            "the header describes {described} bytes of data, but the file holds {held}"
        )));
    }
    Ok(Header { tensors, data_start })
}
