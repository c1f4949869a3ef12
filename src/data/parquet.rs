//! Rows of Parquet files as the JSON lines that they would be elsewhere, one row at a time.
//!
//! Columns become keys in their order, structs objects, lists lists. Nulls are left out: a struct has every field in
//! every row, so that a null says no more than a missing key of a JSON row. Pages are decoded as they are needed.

use crate::error::{Error, Result};
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use serde_json::{Map, Number, Value};
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The rows of a file as lines of text. `bytes_read` follows the part of the rows that has been read.
///
/// # Errors
/// The file's end does not describe what it holds.
pub(super) fn text(path: &Path, file: File, bytes_read: Arc<AtomicU64>) -> Result<Box<dyn BufRead + Send>> {
    let damaged = |reason: String| {
        Error::data(format!("{} is a Parquet file that cannot be read: {reason}", path.display()))
            .hint("it is damaged or cut short; fetch or write it again")
    };
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    let opened = caught(|| SerializedFileReader::new(file)).map_err(|error| damaged(error.to_string()))?;
    let rows = opened.metadata().file_metadata().num_rows();
    let rows = u64::try_from(rows).map_err(|_| damaged(format!("it has {rows} rows")))?;
    let text =
        ParquetText { iterator: opened.into_iter(), line: Vec::new(), at: 0, row: 0, rows, size, bytes_read };
    Ok(Box::new(text))
}

struct ParquetText {
    iterator: RowIter<'static>,
    /// The row that is being read, and how much of it has been.
    line: Vec<u8>,
    at: usize,
    /// Rows that have been decoded, of all.
    row: u64,
    rows: u64,
    /// Of the file, in bytes.
    size: u64,
    bytes_read: Arc<AtomicU64>,
}

impl BufRead for ParquetText {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.line.len() && self.row < self.rows {
            self.at = 0;
            self.line.clear();
            let iterator = &mut self.iterator;
            let row = caught(|| iterator.next().transpose())?;
            let row = row.ok_or(io::ErrorKind::UnexpectedEof)?;
            serde_json::to_writer(&mut self.line, &object(row)?)?;
            self.line.push(b'\n');
            self.row += 1;
            let read = u128::from(self.size) * u128::from(self.row) / u128::from(self.rows);
            self.bytes_read.store(read as u64, Ordering::Relaxed);
        }
        Ok(&self.line[self.at..])
    }

    fn consume(&mut self, bytes: usize) {
        self.at = (self.at + bytes).min(self.line.len());
    }
}

impl Read for ParquetText {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

/// The decoder takes some damage for impossible: its panics are errors of the file.
fn caught<T>(decode: impl FnOnce() -> parquet::errors::Result<T>) -> io::Result<T> {
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(decoded) => decoded.map_err(|error| io::Error::other(error.to_string())),
        Err(_) => Err(io::Error::other("the Parquet decoder failed")),
    }
}

fn object(row: Row) -> io::Result<Value> {
    let mut fields = Map::new();
    for (name, field) in row.into_columns() {
        match value(field)? {
            Value::Null => {}
            value => _ = fields.insert(name, value),
        }
    }
    Ok(Value::Object(fields))
}

fn value(field: Field) -> io::Result<Value> {
    let float = |number: f64| Number::from_f64(number).map_or(Value::Null, Value::Number);
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(value) => Value::Bool(value),
        Field::Byte(number) => number.into(),
        Field::Short(number) => number.into(),
        Field::Int(number) | Field::Date(number) | Field::TimeMillis(number) => number.into(),
        Field::Long(number)
        | Field::TimeMicros(number)
        | Field::TimestampMillis(number)
        | Field::TimestampMicros(number) => number.into(),
        Field::UByte(number) => number.into(),
        Field::UShort(number) => number.into(),
        Field::UInt(number) => number.into(),
        Field::ULong(number) => number.into(),
        Field::Float16(number) => float(number.to_f64()),
        Field::Float(number) => float(number.into()),
        Field::Double(number) => float(number),
        decimal @ Field::Decimal(_) => Value::String(decimal.to_string()),
        Field::Str(text) => Value::String(text),
        // Writers that do not mark text as text leave bytes.
        Field::Bytes(bytes) => Value::String(String::from_utf8_lossy(bytes.data()).into_owned()),
        Field::Group(row) => object(row)?,
        Field::ListInternal(list) => {
            Value::Array(list.elements().iter().cloned().map(value).collect::<io::Result<_>>()?)
        }
        Field::MapInternal(map) => {
            let mut fields = Map::new();
            for (key, entry) in map.entries() {
                let Field::Str(key) = key else {
                    return Err(io::Error::other("a map whose keys are no text"));
                };
                fields.insert(key.clone(), value(entry.clone())?);
            }
            Value::Object(fields)
        }
    })
}
