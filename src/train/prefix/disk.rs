//! Rows in a folder: one file each, so that a crash or a damaged disk costs single rows.
//!
//! A file's name is the first half of the model's fingerprint's hexadecimal digits and the row's key; its content is a
//! checksum over fingerprint, key and hidden states, and these. Files that other models left count against the bound and
//! are deleted, oldest first, when room is needed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Hidden, Kept, RowKey};
use crate::error::{Result, ResultExt};

const SUFFIX: &str = ".rows";
const CHECKSUM_BYTES: usize = blake3::OUT_LEN;
/// Hexadecimal digits of the fingerprint in a name.
const OWNER_DIGITS: usize = 32;

/// Rows of one model in a folder.
#[derive(Debug)]
pub struct DiskRows {
    folder: PathBuf,
    fingerprint: [u8; 32],
    /// Sizes of this model's files.
    rows: HashMap<RowKey, u64>,
    /// Other models' files, the newest first.
    foreign: Vec<Entry>,
    /// All files together.
    bytes: u64,
    limit: u64,
}

/// A file as the folder lists it.
#[derive(Debug)]
struct Entry {
    path: PathBuf,
    bytes: u64,
    modified: SystemTime,
    /// `None` for a file of another model.
    key: Option<RowKey>,
}

impl DiskRows {
    /// Opens a folder, which is made if it is missing, for the model that `fingerprint` names. Files beyond `limit` bytes
    /// in all are deleted, other models' first.
    ///
    /// # Errors
    /// A data error if the folder cannot be made or read.
    pub fn open(folder: &Path, fingerprint: [u8; 32], limit: u64) -> Result<Self> {
        let doing = || format!("opening the frozen prefix cache {}", folder.display());
        std::fs::create_dir_all(folder).context(doing)?;
        let owner = owner(&fingerprint);
        let mut entries: Vec<Entry> = std::fs::read_dir(folder)
            .context(doing)?
            .filter_map(|entry| Entry::of(&entry.ok()?, &owner))
            .collect();
        entries.sort_by_key(|entry| (entry.key.is_none(), std::cmp::Reverse(entry.modified)));
        let mut bytes = entries.iter().map(|entry| entry.bytes).sum::<u64>();
        while bytes > limit
            && let Some(entry) = entries.pop()
        {
            bytes -= entry.bytes;
            remove(&entry.path);
        }
        let (own, foreign): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(|entry| entry.key.is_some());
        let rows = own.iter().filter_map(|entry| Some((entry.key?, entry.bytes))).collect();
        Ok(Self { folder: folder.to_path_buf(), fingerprint, rows, foreign, bytes, limit })
    }

    /// The row's hidden states, if its file is whole and they take `bytes`. A damaged file is deleted.
    pub fn get(&mut self, key: &RowKey, bytes: usize) -> Option<Hidden> {
        let size = *self.rows.get(key)?;
        let path = self.path(key);
        let whole = std::fs::read(&path).ok().filter(|content| content.len() == CHECKSUM_BYTES + bytes);
        let hidden = whole.and_then(|content| {
            let (checksum, hidden) = content.split_at(CHECKSUM_BYTES);
            (checksum == self.checksum(key, hidden)).then(|| Hidden::from(hidden))
        });
        if hidden.is_none() {
            remove(&path);
            self.rows.remove(key);
            self.bytes -= size;
        }
        hidden
    }

    pub fn insert(&mut self, key: RowKey, hidden: &Hidden) -> Kept {
        if self.rows.contains_key(&key) {
            return Kept::Yes;
        }
        let bytes = (CHECKSUM_BYTES + hidden.len()) as u64;
        while self.bytes + bytes > self.limit {
            let Some(entry) = self.foreign.pop() else { return Kept::Full };
            self.bytes -= entry.bytes;
            remove(&entry.path);
        }
        let content = [&self.checksum(&key, hidden)[..], hidden].concat();
        let path = self.path(&key);
        // Another run may write the same row.
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let written = std::fs::write(&temporary, content).and_then(|()| std::fs::rename(&temporary, &path));
        if let Err(error) = written {
            remove(&temporary);
            return Kept::Failed(format!("{}: {error}", path.display()));
        }
        self.bytes += bytes;
        self.rows.insert(key, bytes);
        Kept::Yes
    }

    /// Rows of this model, bytes of all files, and most bytes.
    pub fn counts(&self) -> (usize, u64, u64) {
        (self.rows.len(), self.bytes, self.limit)
    }

    fn path(&self, key: &RowKey) -> PathBuf {
        let key = blake3::Hash::from_bytes(*key).to_hex();
        self.folder.join(format!("{}-{key}{SUFFIX}", owner(&self.fingerprint)))
    }

    fn checksum(&self, key: &RowKey, hidden: &[u8]) -> [u8; CHECKSUM_BYTES] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.fingerprint).update(key).update(hidden);
        *hasher.finalize().as_bytes()
    }
}

impl Entry {
    /// `None` for files that no cache wrote.
    fn of(entry: &std::fs::DirEntry, owner: &str) -> Option<Self> {
        let name = entry.file_name();
        let name = name.to_str()?;
        let (model, rest) = name.split_at_checked(OWNER_DIGITS)?;
        let (key, ending) = rest.strip_prefix('-')?.split_at_checked(2 * blake3::OUT_LEN)?;
        let key = *blake3::Hash::from_hex(key).ok()?.as_bytes();
        let is_row = ending == SUFFIX;
        // What a run left that was killed while it wrote.
        let is_temporary = ending.starts_with('.') && ending.ends_with(".tmp");
        if !model.bytes().all(|digit| digit.is_ascii_hexdigit()) || !(is_row || is_temporary) {
            return None;
        }
        let about = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let modified = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let key = (is_row && model == owner).then_some(key);
        Some(Self { path: entry.path(), bytes: about.len(), modified, key })
    }
}

fn owner(fingerprint: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*fingerprint).to_hex()[..OWNER_DIGITS].to_owned()
}

/// A file that cannot be deleted is in nobody's way: it is only never read.
fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
}
