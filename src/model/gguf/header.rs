//! The header of a GGUF file: typed metadata, then the list of tensors.
//!
//! Layout: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Every count is checked against the bytes that
//! are left in the file before anything is allocated for it.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::quantized::GgmlDType;

use crate::error::{Error, Result, ResultExt};
use crate::tensor_file::RangeFile;

/// Bytes read from the file at a time while parsing the header.
const WINDOW: u64 = 1 << 20;
const MAX_DIMENSIONS: u32 = 4;

/// A value of the metadata. Integers and floats of all widths are widened.
#[derive(Debug, Clone, PartialEq)]
pub enum GgufValue {
    Integer(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Integers(Vec<i64>),
    Floats(Vec<f64>),
    Texts(Vec<String>),
}

/// A tensor as the header describes it.
#[derive(Debug, Clone)]
pub struct GgufTensor {
    /// Row-major: the reverse of ggml's order.
    pub shape: Vec<usize>,
    pub dtype: GgmlDType,
    /// First byte in the file.
    pub offset: u64,
}

/// A GGUF file whose header has been read and checked.
#[derive(Debug)]
pub struct GgufFile {
    pub file: RangeFile,
    pub metadata: BTreeMap<String, GgufValue>,
    pub tensors: BTreeMap<String, GgufTensor>,
}

impl GgufFile {
    /// Opens the file; damage anywhere in the header, or a tensor beyond the end, is a data error.
    pub fn open(path: &Path) -> Result<Self> {
        let file = RangeFile::open(path)?;
        let parsed = Cursor::new(&file).parse();
        let (metadata, tensors) =
            parsed.context(|| format!("reading {}", path.display())).map_err(|error| {
                error.hint("the file is damaged or is not a GGUF file: download or copy it again")
            })?;
        Ok(Self { file, metadata, tensors })
    }
}

type Parsed = (BTreeMap<String, GgufValue>, BTreeMap<String, GgufTensor>);

struct Cursor<'a> {
    file: &'a RangeFile,
    /// Bytes of the file from `window_start` on.
    window: Vec<u8>,
    window_start: u64,
    position: u64,
}

impl<'a> Cursor<'a> {
    fn new(file: &'a RangeFile) -> Self {
        Self { file, window: Vec::new(), window_start: 0, position: 0 }
    }

    fn parse(mut self) -> Result<Parsed> {
        if self.array::<4>()? != *b"GGUF" {
            return Err(Error::data("the file does not start with GGUF"));
        }
        let version = self.u32()?;
        if !matches!(version, 2 | 3) {
            return Err(
                Error::data(format!("GGUF version {version} is not supported")).hint("supported: 2 and 3")
            );
        }
        let tensor_count = self.u64()?;
        let value_count = self.u64()?;
        // The smallest tensor entry takes 24 bytes, the smallest value 13.
        self.expect(tensor_count, 24, "tensors")?;
        self.expect(value_count, 13, "metadata values")?;
        let mut metadata = BTreeMap::new();
        for _ in 0..value_count {
            let key = self.text()?;
            let kind = self.u32()?;
            let value = self.value(kind).context(|| format!("metadata {key}"))?;
            metadata.insert(key, value);
        }
        let mut tensors = BTreeMap::new();
        for _ in 0..tensor_count {
            let name = self.text()?;
            let tensor = self.tensor().context(|| format!("tensor {name}"))?;
            tensors.insert(name, tensor);
        }
        self.place(&metadata, &mut tensors)?;
        Ok((metadata, tensors))
    }

    /// Turns offsets from the start of the data into offsets in the file, and checks that every tensor ends in it.
    fn place(
        &self,
        metadata: &BTreeMap<String, GgufValue>,
        tensors: &mut BTreeMap<String, GgufTensor>,
    ) -> Result<()> {
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(GgufValue::Integer(value)) if (1..=1 << 20).contains(value) => *value as u64,
            Some(other) => return Err(Error::data(format!("general.alignment is {other:?}"))),
        };
        let start = self.position.next_multiple_of(alignment);
        for (name, tensor) in tensors {
            let end = start
                .checked_add(tensor.offset)
                .zip(tensor.bytes())
                .and_then(|(at, size)| at.checked_add(size));
            if end.is_none_or(|end| end > self.file.length()) {
                return Err(Error::data(format!(
                    "tensor {name} {:?} ends beyond the file's {} bytes: the file is cut short",
                    tensor.shape,
                    self.file.length()
                )));
            }
            tensor.offset += start;
        }
        Ok(())
    }

    fn tensor(&mut self) -> Result<GgufTensor> {
        let dimensions = self.u32()?;
        if dimensions > MAX_DIMENSIONS {
            return Err(Error::data(format!("{dimensions} dimensions, at most {MAX_DIMENSIONS} exist")));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let size = self.u64()?;
            shape.push(usize::try_from(size).map_err(|_| Error::data(format!("a dimension of {size}")))?);
        }
        shape.reverse();
        let code = self.u32()?;
        let dtype = ggml_dtype(code).ok_or_else(|| {
            Error::data(format!("the ggml type {code} is not supported"))
                .hint("supported: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and Q2_K to Q6_K")
        })?;
        Ok(GgufTensor { shape, dtype, offset: self.u64()? })
    }

    fn value(&mut self, kind: u32) -> Result<GgufValue> {
        Ok(match kind {
            8 => GgufValue::Text(self.text()?),
            7 => GgufValue::Bool(self.array::<1>()? != [0]),
            9 => return self.list(),
            6 | 12 => GgufValue::Float(self.float(kind)?),
            _ => GgufValue::Integer(self.integer(kind)?),
        })
    }

    fn list(&mut self) -> Result<GgufValue> {
        let kind = self.u32()?;
        let count = self.u64()?;
        let smallest = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            _ => return Err(Error::data(format!("a list of values of the unknown type {kind}"))),
        };
        self.expect(count, smallest, "list entries")?;
        Ok(match kind {
            8 => GgufValue::Texts((0..count).map(|_| self.text()).collect::<Result<_>>()?),
            6 | 12 => GgufValue::Floats((0..count).map(|_| self.float(kind)).collect::<Result<_>>()?),
            7 => GgufValue::Integers((0..count).map(|_| self.integer(0)).collect::<Result<_>>()?),
            _ => GgufValue::Integers((0..count).map(|_| self.integer(kind)).collect::<Result<_>>()?),
        })
    }

    fn integer(&mut self, kind: u32) -> Result<i64> {
        Ok(match kind {
            0 => i64::from(u8::from_le_bytes(self.array()?)),
            1 => i64::from(i8::from_le_bytes(self.array()?)),
            2 => i64::from(u16::from_le_bytes(self.array()?)),
            3 => i64::from(i16::from_le_bytes(self.array()?)),
            4 => i64::from(u32::from_le_bytes(self.array()?)),
            5 => i64::from(i32::from_le_bytes(self.array()?)),
            10 => i64::try_from(self.u64()?).map_err(|_| Error::data("an integer beyond 64 signed bits"))?,
            11 => i64::from_le_bytes(self.array()?),
            other => return Err(Error::data(format!("a value of the unknown type {other}"))),
        })
    }

    fn float(&mut self, kind: u32) -> Result<f64> {
        Ok(if kind == 6 {
            f64::from(f32::from_le_bytes(self.array()?))
        } else {
            f64::from_le_bytes(self.array()?)
        })
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<String> {
        let length = self.u64()?;
        self.expect(length, 1, "bytes of text")?;
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|error| Error::data(format!("text that is not UTF-8: {error}")))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<()> {
        if out.len() as u64 > WINDOW {
            self.file.read_at(self.position, out)?;
        } else {
            let end = self.position + out.len() as u64;
            if self.position < self.window_start || end > self.window_start + self.window.len() as u64 {
                self.window.resize(WINDOW.min(self.file.length().saturating_sub(self.position)) as usize, 0);
                self.window_start = self.position;
                self.file.read_at(self.position, &mut self.window)?;
            }
            let start = (self.position - self.window_start) as usize;
            let bytes = self.window.get(start..start + out.len());
            out.copy_from_slice(bytes.ok_or_else(|| Error::data("the file is cut short within its header"))?);
        }
        self.position += out.len() as u64;
        Ok(())
    }

    fn expect(&self, count: u64, bytes_each: u64, what: &str) -> Result<()> {
        let left = self.file.length().saturating_sub(self.position);
        if count.checked_mul(bytes_each).is_none_or(|bytes| bytes > left) {
            return Err(Error::data(format!(
                "the header claims {count} {what}, but only {left} bytes are left"
            )));
        }
        Ok(())
    }
}

impl GgufTensor {
    /// Size in the file; `None` if the shape overflows or its rows are not whole blocks.
    fn bytes(&self) -> Option<u64> {
        let block = self.dtype.block_size();
        if !self.shape.last().is_none_or(|&row| row.is_multiple_of(block)) {
            return None;
        }
        let elements =
            self.shape.iter().try_fold(1_u64, |product, &size| product.checked_mul(size as u64))?;
        elements.div_ceil(block as u64).checked_mul(self.dtype.type_size() as u64)
    }
}

/// ggml's numbers for the types that candle can dequantize.
fn ggml_dtype(code: u32) -> Option<GgmlDType> {
    Some(match code {
        0 => GgmlDType::F32,
        1 => GgmlDType::F16,
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        30 => GgmlDType::BF16,
        _ => return None,
    })
}
