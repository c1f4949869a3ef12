//! The header of a safetensors file: eight bytes of length, then JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::RangeFile;
use crate::error::{Error, Result, ResultExt};

/// The format's own limit on the header, in bytes.
const MAX_HEADER: u64 = 100_000_000;

/// One tensor as the header describes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RawEntry {
    pub dtype: String,
    pub shape: Vec<usize>,
    /// First byte and the byte after the last, counted from the end of the header.
    pub data_offsets: [u64; 2],
}

/// The header's tensors, and where the data starts in the file.
pub(super) struct Header {
    pub entries: BTreeMap<String, RawEntry>,
    pub metadata: BTreeMap<String, String>,
    pub data_start: u64,
}

/// Reads and checks the header: every byte of the data belongs to exactly one tensor.
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
    let map: Map<String, Value> = serde_json::from_slice(&text)
        .map_err(|error| Error::data(format!("the header is not valid JSON: {error}")))?;
    let data_start = 8 + length;
    let mut header = Header { entries: BTreeMap::new(), metadata: BTreeMap::new(), data_start };
    for (name, value) in map {
        if name == "__metadata__" {
            header.metadata = serde_json::from_value(value)
                .map_err(|error| Error::data(format!("the header's __metadata__ is not text: {error}")))?;
        } else {
            let entry = serde_json::from_value(value)
                .map_err(|error| Error::data(format!("the header's entry for {name} is wrong: {error}")))?;
            header.entries.insert(name, entry);
        }
    }
    check_offsets(&header.entries, file.length() - data_start)?;
    Ok(header)
}

/// Tensors lie one after the other, without overlap or holes, and end where the file ends.
fn check_offsets(entries: &BTreeMap<String, RawEntry>, data_length: u64) -> Result<()> {
    let mut in_order: Vec<_> = entries.iter().collect();
    in_order.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut position = 0;
    for (name, entry) in in_order {
        let [start, end] = entry.data_offsets;
        if start != position || end < start {
            return Err(Error::data(format!(
                "tensor {name} lies at bytes {start}..{end}, but the data before it ends at {position}"
            )));
        }
        position = end;
    }
    if position != data_length {
        return Err(Error::data(format!(
            "the header describes {position} bytes of data, but the file holds {data_length}"
        )));
    }
    Ok(())
}
