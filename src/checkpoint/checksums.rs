//! `checksums.json`: length and BLAKE3 hash of every file of a checkpoint.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, ResultExt};

const FILE: &str = "checksums.json";

#[derive(Serialize, Deserialize)]
struct Entry {
    bytes: u64,
    blake3: String,
}

pub(super) fn write(folder: &Path) -> Result<()> {
    let doing = || format!("listing {}", folder.display());
    let mut entries = BTreeMap::new();
    for entry in std::fs::read_dir(folder).context(doing)? {
        let path = entry.context(doing)?.path();
        if let (true, Some(name)) = (path.is_file(), path.file_name().and_then(|name| name.to_str())) {
            entries.insert(name.to_owned(), describe(&path)?);
        }
    }
    let text = serde_json::to_string_pretty(&entries).map_err(|error| Error::internal(error.to_string()))?;
    std::fs::write(folder.join(FILE), text + "\n").context(|| format!("writing {FILE}"))
}

pub(super) fn verify(folder: &Path) -> Result<()> {
    let hint = "choose another checkpoint with --resume, or start again";
    let text = std::fs::read(folder.join(FILE))
        .map_err(|error| Error::data(format!("cannot read {FILE}: {error}")).hint(hint))?;
    let entries: BTreeMap<String, Entry> = serde_json::from_slice(&text)
        .map_err(|error| Error::data(format!("{FILE} is damaged: {error}")).hint(hint))?;
    for (name, expected) in entries {
        let path = folder.join(&name);
        if !path.is_file() {
            return Err(Error::data(format!("{name} is missing")).hint(hint));
        }
        let found = describe(&path)?;
        if found.bytes != expected.bytes {
            let message = format!("{name} has {} bytes, expected {}", found.bytes, expected.bytes);
            return Err(Error::data(message).hint(hint));
        }
        if found.blake3 != expected.blake3 {
            return Err(Error::data(format!("{name} has changed since it was saved")).hint(hint));
        }
    }
    Ok(())
}

fn describe(path: &Path) -> Result<Entry> {
    let doing = || format!("reading {}", path.display());
    let mut hasher = blake3::Hasher::new();
    let file = std::fs::File::open(path).context(doing)?;
    let bytes =
        std::io::copy(&mut std::io::BufReader::with_capacity(1 << 20, file), &mut hasher).context(doing)?;
    Ok(Entry { bytes, blake3: hasher.finalize().to_hex().to_string() })
}
