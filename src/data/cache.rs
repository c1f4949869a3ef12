//! Tokens of rows on disk, found by content.
//!
//! A file holds the tokens of one chunk of lines. Its name is a hash over the lines and everything else that decides
//! their tokens: the tokenizer, the chat template, `train_on` and the format. Lines appended to a data file leave its
//! other chunks as they were. Each file ends with a checksum and appears under its name at once; a file that is cut
//! short, changed or strange is read as absent, and written again. Problems of the disk cost time, never a run.

use super::encode::SupervisedTokens;
use super::jsonl::Line;
use super::row::RowKind;
use super::stream::KindAndTokens;
use super::tokenizer::ChatTokenizer;
use crate::config::TrainOn;
use crate::error::Result;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// All files together, in bytes.
const MAX_BYTES: u64 = 10_000_000_000;
/// Chunks with less text than this, in bytes, are tokenized faster than it is worth to keep them.
const MIN_TEXT: usize = 200_000;
/// A larger file is none of ours, in bytes.
const MAX_FILE: u64 = 2_000_000_000;

const SUFFIX: &str = "tokens";
/// To be changed with the format, or with what rows become.
const FORMAT: &str = "lazytune tokens 1";

/// The folder, and what the tokenizer adds to every key.
#[derive(Debug)]
pub(crate) struct TokenCache {
    folder: PathBuf,
    base: blake3::Hasher,
    /// Files that have not been used since the cache was opened, the oldest last.
    unused: Vec<(SystemTime, PathBuf, u64)>,
    bytes: u64,
    limit: u64,
}

impl TokenCache {
    /// Opens the folder, or that of the user; `None` where there is none.
    pub fn open(folder: Option<&Path>, tokenizer: &ChatTokenizer, train_on: TrainOn) -> Option<Self> {
        let folder = folder.map_or_else(user_folder, |folder| Some(folder.to_path_buf()))?;
        let mut base = blake3::Hasher::new();
        base.update(format!("{FORMAT} {} {train_on:?}", env!("CARGO_PKG_VERSION")).as_bytes());
        base.update(&tokenizer.fingerprint()?);
        let mut unused: Vec<(SystemTime, PathBuf, u64)> = fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let metadata = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
                let ours = path.extension().is_some_and(|extension| extension == SUFFIX);
                ours.then_some((metadata.modified().ok()?, path, metadata.len()))
            })
            .collect();
        unused.sort_by_key(|(modified, _, _)| std::cmp::Reverse(*modified));
        let bytes = unused.iter().map(|(_, _, bytes)| bytes).sum();
        Some(Self { folder, base, unused, bytes, limit: MAX_BYTES })
    }

    /// The name for the tokens of these lines; `None` where keeping them is not worth it.
    pub fn key(&self, lines: &[Line]) -> Option<String> {
        if lines.iter().map(|line| line.text.len()).sum::<usize>() < MIN_TEXT {
            return None;
        }
        let mut hasher = self.base.clone();
        for line in lines {
            hasher.update(&(line.text.len() as u64).to_le_bytes());
            hasher.update(line.text.as_bytes());
        }
        Some(hasher.finalize().to_hex().to_string())
    }

    /// The rows kept under a key, if they are whole and as many as `rows`.
    pub fn get(&self, key: &str, rows: usize) -> Option<Vec<KindAndTokens>> {
        let path = self.path(key);
        fs::metadata(&path).ok().filter(|metadata| metadata.len() <= MAX_FILE)?;
        let decoded = decode(&fs::read(&path).ok()?)?;
        // A file that is used counts as young again; if that fails it is deleted earlier than it might be.
        let _ =
            File::options().append(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        (decoded.len() == rows).then_some(decoded)
    }

    /// Keeps rows, in place of files that no run uses any more. A chunk with a row that has no tokens is not kept.
    pub fn put(&mut self, key: &str, rows: &[Result<KindAndTokens>]) {
        let Ok(rows) = rows.iter().map(Result::as_ref).collect::<std::result::Result<Vec<_>, _>>() else {
            return;
        };
        let bytes = encode(&rows);
        self.make_room(bytes.len() as u64);
        if self.bytes + bytes.len() as u64 > self.limit {
            return;
        }
        if write_whole(&self.folder, &self.path(key), &bytes).is_ok() {
            self.bytes += bytes.len() as u64;
        }
    }

    /// Deletes the oldest files until `bytes` fit, sparing those that have been used since the cache was opened.
    fn make_room(&mut self, bytes: u64) {
        while self.bytes + bytes > self.limit
            && let Some((modified, path, size)) = self.unused.pop()
        {
            let untouched =
                fs::metadata(&path).and_then(|metadata| metadata.modified()).is_ok_and(|now| now == modified);
            if untouched && fs::remove_file(&path).is_ok() {
                self.bytes = self.bytes.saturating_sub(size);
            }
        }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(key).with_extension(SUFFIX)
    }
}

/// `lazytune/tokens` where the user's caches are.
fn user_folder() -> Option<PathBuf> {
    let given = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let caches = given.or_else(|| {
        let home = std::env::home_dir().filter(|home| home.is_absolute())?;
        Some(home.join(if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" }))
    });
    Some(caches?.join("lazytune").join("tokens"))
}

/// Writes beside the place and renames, so that a reader never sees half a file.
fn write_whole(folder: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let beside = path.with_extension(format!("{}.part", std::process::id()));
    let written = File::create(&beside)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Per row: kind (1 byte), number of examples (4); per example: length (4), ids (4 each), trained marks (1 bit each).
/// Little endian; after all rows, BLAKE3 of what stands before it.
fn encode(rows: &[&KindAndTokens]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for row in rows {
        bytes.push(row.kind as u8);
        bytes.extend((row.examples.len() as u32).to_le_bytes());
        for (input_ids, supervised) in &row.examples {
            bytes.extend((input_ids.len() as u32).to_le_bytes());
            input_ids.iter().for_each(|id| bytes.extend(id.to_le_bytes()));
            let pack = |marks: &[bool]| {
                marks.iter().enumerate().fold(0, |byte, (bit, &trained)| byte | u8::from(trained) << bit)
            };
            bytes.extend(supervised.chunks(8).map(pack));
        }
    }
    let checksum = blake3::hash(&bytes);
    bytes.extend(checksum.as_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Vec<KindAndTokens>> {
    let (mut rest, checksum) = bytes.split_last_chunk::<{ blake3::OUT_LEN }>()?;
    if blake3::hash(rest) != *checksum {
        return None;
    }
    let mut rows = Vec::new();
    while let Some((&kind, after)) = rest.split_first() {
        rest = after;
        let kind = *RowKind::ALL.get(usize::from(kind))?;
        let count = take_number(&mut rest)?;
        let examples = (0..count).map(|_| take_example(&mut rest)).collect::<Option<Vec<_>>>()?;
        rows.push(KindAndTokens { kind, examples });
    }
    Some(rows)
}

fn take_example(rest: &mut &[u8]) -> Option<SupervisedTokens> {
    let length = take_number(rest)?;
    let (ids, after) = rest.split_at_checked(length.checked_mul(4)?)?;
    let (marks, after) = after.split_at_checked(length.div_ceil(8))?;
    *rest = after;
    let (ids, _) = ids.as_chunks::<4>();
    let input_ids = ids.iter().map(|id| u32::from_le_bytes(*id)).collect();
    let supervised = (0..length).map(|index| marks[index / 8] >> (index % 8) & 1 == 1).collect();
    Some((input_ids, supervised))
}

fn take_number(rest: &mut &[u8]) -> Option<usize> {
    let (number, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    usize::try_from(u32::from_le_bytes(*number)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cache(folder: &Path, limit: u64) -> TokenCache {
        let base = blake3::Hasher::new();
        TokenCache { folder: folder.to_path_buf(), base, unused: Vec::new(), bytes: 0, limit }
    }

    fn rows(tokens: &[(u32, bool)]) -> Vec<KindAndTokens> {
        let example = tokens.iter().copied().unzip();
        vec![
            KindAndTokens { kind: RowKind::Text, examples: vec![example, (vec![9], vec![true])] },
            KindAndTokens { kind: RowKind::Tokenized, examples: vec![] },
        ]
    }

    proptest! {
        #[test]
        fn what_is_kept_comes_back(tokens in proptest::collection::vec(any::<(u32, bool)>(), 0..40)) {
            let rows = rows(&tokens);
            prop_assert_eq!(decode(&encode(&rows.iter().collect::<Vec<_>>())), Some(rows));
        }

        #[test]
        fn no_bytes_crash_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let sealed = [bytes.as_slice(), blake3::hash(&bytes).as_bytes()].concat();
            let _ = decode(&sealed);
            prop_assert_eq!(decode(&bytes), None);
        }
    }

    #[test]
    fn damaged_files_are_absent_and_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = cache(folder.path(), 10_000);
        let rows = rows(&[(1, true), (2, false)]);
        let kept: Vec<Result<KindAndTokens>> = rows.iter().cloned().map(Ok).collect();
        assert_eq!(cache.get("k", 2), None);
        let bad = Err(crate::error::Error::data("a bad row"));
        cache.put("k", &[kept[0].clone(), bad]);
        assert_eq!(cache.get("k", 2), None);
        cache.put("k", &kept);
        assert_eq!(cache.get("k", 2).as_ref(), Some(&rows));
        assert_eq!(cache.get("k", 3), None);
        let path = cache.path("k");
        let mut bytes = fs::read(&path).unwrap();
        bytes[3] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(cache.get("k", 2), None);
        cache.put("k", &kept);
        assert_eq!(cache.get("k", 2), Some(rows));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn old_files_make_room_and_used_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let rows = rows(&[(1, true); 100]);
        let size = encode(&rows.iter().collect::<Vec<_>>()).len() as u64;
        let rows: Vec<Result<KindAndTokens>> = rows.into_iter().map(Ok).collect();
        cache(folder.path(), u64::MAX).put("old", &rows);
        let mut cache = cache(folder.path(), 2 * size);
        let old = cache.path("old");
        let modified = fs::metadata(&old).unwrap().modified().unwrap();
        cache.unused = vec![(modified, old.clone(), size)];
        cache.bytes = size;
        for key in ["a", "b", "c"] {
            cache.put(key, &rows);
        }
        assert!(!old.exists() && cache.path("a").exists() && cache.path("b").exists());
        assert!(!cache.path("c").exists() && cache.bytes == 2 * size);
    }
}
