//! Reading files of one JSON object per line, with bounded memory.

use super::example::RowSource;
use super::open::DataFile;
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::io::{BufRead, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Longest line that is read, in bytes; far beyond any context length, and short of exhausting memory.
pub const MAX_LINE_BYTES: usize = 10_000_000;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One non-blank line and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub text: String,
    pub source: RowSource,
    /// Where it begins in the text of the file, in bytes.
    pub offset: u64,
    /// Bytes of the file, before unpacking, that were read up to there.
    pub bytes_before: u64,
}

/// Iterates over the non-blank lines of a file. After a line that is no text or too long the next ones follow; what
/// the disk or a packed file refuses ends it.
pub struct LineReader {
    data: DataFile,
    file: Arc<Path>,
    /// Lines that have been read.
    line: usize,
    /// Bytes of text that have been read.
    offset: u64,
    /// To be given next.
    put_back: Option<Error>,
    failed: bool,
}

impl LineReader {
    /// Opens a file, which may be packed with gzip or zstd.
    ///
    /// # Errors
    /// It does not exist, is a folder, may not be read, or is in a format that is not read.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_at(path, 0, 0)
    }

    /// Opens a file after its first `line` lines, which have `offset` bytes.
    ///
    /// # Errors
    /// As [`Self::open`], or a packed file has less text.
    pub fn open_at(path: &Path, line: usize, offset: u64) -> Result<Self> {
        let data = DataFile::open_at(path, offset)?;
        Ok(Self { data, file: Arc::from(path), line, offset, put_back: None, failed: false })
    }

    /// Bytes of the file that have been read, before unpacking.
    pub fn bytes_read(&self) -> u64 {
        if self.data.packed { self.data.bytes_read.load(Ordering::Relaxed) } else { self.offset }
    }

    /// The next non-blank line, `None` at the end of the file.
    fn read_line(&mut self) -> Result<Option<Line>> {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let (offset, bytes_before) = (self.offset, self.bytes_read());
            let limit = MAX_LINE_BYTES as u64 + 2;
            let line = (&mut self.data.reader).take(limit).read_until(b'\n', &mut bytes);
            let read = line.map_err(|error| self.damaged(&error))?;
            if read == 0 {
                return Ok(None);
            }
            self.line += 1;
            self.offset += read as u64;
            if self.line == 1 && bytes.starts_with(BYTE_ORDER_MARK) {
                bytes.drain(..BYTE_ORDER_MARK.len());
            }
            let length = bytes.trim_ascii_end().len();
            let source = RowSource { file: Arc::clone(&self.file), row: self.line };
            if read as u64 == limit || length > MAX_LINE_BYTES {
                self.pass_over_line(&bytes)?;
                return Err(Error::data(format!(
                    "{source}: the line is longer than {} MB",
                    MAX_LINE_BYTES / 1_000_000
                ))
                .hint("split the row, or check that the file has one JSON object per line"));
            }
            bytes.truncate(length);
            if bytes.trim_ascii_start().is_empty() {
                continue;
            }
            let text = text(std::mem::take(&mut bytes), &source)?;
            return Ok(Some(Line { text, source, offset, bytes_before }));
        }
    }

    /// Reads on to the end of a line whose beginning is too long.
    fn pass_over_line(&mut self, beginning: &[u8]) -> Result<()> {
        let mut ended = beginning.ends_with(b"\n");
        while !ended {
            let available = match self.data.reader.fill_buf() {
                Ok(available) => available,
                Err(error) => return Err(self.damaged(&error)),
            };
            let end = available.iter().position(|&byte| byte == b'\n');
            ended = end.is_some() || available.is_empty();
            let passed = end.map_or(available.len(), |end| end + 1);
            self.data.reader.consume(passed);
            self.offset += passed as u64;
        }
        Ok(())
    }

    /// Ends the reading.
    fn damaged(&mut self, error: &std::io::Error) -> Error {
        self.failed = true;
        Error::data(error.to_string())
            .context(format!("while reading {}, after line {}", self.file.display(), self.line))
            .hint("the file is damaged or cut short; fetch or pack it again")
    }

    /// Makes an error that came from here the next to come.
    pub fn put_back(&mut self, error: Error) {
        self.put_back = Some(error);
    }

    /// The line that was read last.
    pub fn place(&self) -> RowSource {
        RowSource { file: Arc::clone(&self.file), row: self.line }
    }
}

impl Iterator for LineReader {
    type Item = Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.put_back.take() {
            Some(error) => Some(Err(error)),
            None if self.failed => None,
            None => self.read_line().transpose(),
        }
    }
}

fn text(bytes: Vec<u8>, source: &RowSource) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let column = error.utf8_error().valid_up_to() + 1;
        Error::data(format!("{source}:{column}: not valid UTF-8")).hint("convert the file to UTF-8")
    })
}

impl Line {
    /// Parses the line as a JSON object.
    ///
    /// # Errors
    /// It is not valid JSON, or not an object.
    pub fn parse(&self) -> Result<Map<String, Value>> {
        match serde_json::from_str(&self.text) {
            Ok(Value::Object(fields)) => Ok(fields),
            Ok(other) => {
                let found = super::message::json_type(&other);
                Err(Error::data(format!("{}: a row must be a JSON object, not {found}", self.source))
                    .hint(r#"write one object per line, for example {"text": "..."}"#))
            }
            Err(error) => Err(self.syntax_error(&error)),
        }
    }

    fn syntax_error(&self, error: &serde_json::Error) -> Error {
        // serde_json ends its messages with a position that counts lines inside the row.
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        let hint = if self.source.row == 1 && self.text.starts_with('[') {
            "the file looks like one JSON list; write one object per line instead (jq -c '.[]' does it)"
        } else if message.contains("surrogate") || message.contains("hex escape") {
            "a \\ud800-\\udfff escape must be one of a pair; remove it or write the character itself"
        } else {
            "each line must be one complete JSON object"
        };
        Error::data(format!("{}:{}: invalid JSON: {message}", self.source, error.column())).hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Vec<Result<Line>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        std::fs::write(&path, bytes).unwrap();
        LineReader::open(&path).unwrap().collect()
    }

    #[test]
    fn blank_lines_are_skipped_and_counted() {
        let lines = read(b"\xef\xbb\xbf{\"a\": 1}\r\n\n  \n{\"b\": 2}");
        let lines: Vec<Line> = lines.into_iter().map(Result::unwrap).collect();
        assert_eq!(lines.iter().map(|line| line.source.row).collect::<Vec<_>>(), [1, 4]);
        assert_eq!(lines[0].parse().unwrap()["a"], 1);
    }

    #[test]
    fn lines_that_are_no_rows_are_refused_one_by_one() {
        let mut bytes = vec![b'x'; 2 * MAX_LINE_BYTES];
        bytes.extend_from_slice(b"\n{}\n\xff\n{} \n");
        bytes.extend(vec![b'x'; MAX_LINE_BYTES + 1]);
        let lines = read(&bytes);
        let told: Vec<String> = lines
            .iter()
            .map(|line| line.as_ref().map_or_else(ToString::to_string, |line| line.text.clone()))
            .map(|text| text.rsplit("rows.jsonl:").next().unwrap().to_owned())
            .collect();
        let long = "the line is longer than 10 MB";
        let expected = [&format!("1: {long}"), "{}", "3:1: not valid UTF-8", "{}", &format!("5: {long}")];
        assert_eq!(told, expected);
        assert_eq!(lines[3].as_ref().unwrap().offset, 2 * MAX_LINE_BYTES as u64 + 6);
    }

    #[test]
    fn damage_is_located() {
        for (bytes, expected) in [
            (&b"{\"a\": \"\xff\"}"[..], "rows.jsonl:1:8: not valid UTF-8"),
            (b"{}\n{\"a\": }", "rows.jsonl:2:7: invalid JSON: expected value"),
            (b"{\"a\": \"\\ud800\"}", "rows.jsonl:1:14: invalid JSON: unexpected end of hex escape"),
            (b"[1, 2]", "rows.jsonl:1: a row must be a JSON object, not a list"),
            (b"[\n{}\n]", "rows.jsonl:1:1: invalid JSON: EOF while parsing a list"),
        ] {
            let error =
                read(bytes).into_iter().find_map(|line| line.and_then(|line| line.parse()).err()).unwrap();
            assert!(error.to_string().ends_with(expected), "{error}");
            assert!(error.hint_text().is_some());
        }
    }

    #[test]
    fn folders_and_missing_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(LineReader::open(folder.path()).err().unwrap().to_string().contains("is a folder"));
        assert!(LineReader::open(&folder.path().join("none.jsonl")).is_err());
    }
}
