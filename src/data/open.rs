//! Opening data files: plain, gzip, zstd or Parquet, told apart by their first bytes, unpacked as they are read.

use super::parquet;
use crate::error::{Error, Result, ResultExt};
use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const GZIP: &[u8] = b"\x1f\x8b";
const ZSTD: [&[u8]; 2] = [b"\x28\xb5\x2f\xfd", b"\x2a\x4d\x18"];
const PARQUET: &[u8] = b"PAR1";

/// Most memory for the history of a zstd file, in bytes; what `zstd -d` allows without `--long`.
const MAX_ZSTD_WINDOW: u64 = 128 << 20;

const BUFFER_BYTES: usize = 1 << 16;

/// The text of a data file, and how many bytes of the file itself have been read.
pub(crate) struct DataFile {
    pub reader: Box<dyn BufRead + Send>,
    pub bytes_read: Arc<AtomicU64>,
    /// Whether the text is unpacked as it is read.
    pub packed: bool,
}

impl DataFile {
    /// Opens a file after the first `offset` bytes of its text; those of a packed file are unpacked.
    ///
    /// # Errors
    /// It does not exist, is a folder, may not be read, is in a format that is not read, or is packed and shorter.
    pub fn open_at(path: &Path, offset: u64) -> Result<Self> {
        let doing = || format!("while opening {}", path.display());
        let mut file = File::open(path)
            .context(doing)
            .map_err(|error| error.hint("check data.train and data.validation"))?;
        if file.metadata().context(doing)?.is_dir() {
            return Err(Error::data(format!("{} is a folder", path.display()))
                .hint("name the files in it, for example with a glob such as data/*.jsonl"));
        }
        let packing = Packing::of(&mut file).context(doing)?;
        let packed = packing != Packing::None;
        if !packed {
            file.seek(SeekFrom::Start(offset)).context(doing)?;
        }
        let bytes_read = Arc::new(AtomicU64::new(if packed { 0 } else { offset }));
        let mut reader = Self::unpacked(path, file, packing, &bytes_read)?;
        if packed {
            pass_over(&mut reader, offset).context(doing)?;
        }
        Ok(Self { reader, bytes_read, packed })
    }

    fn unpacked(
        path: &Path,
        file: File,
        packing: Packing,
        bytes_read: &Arc<AtomicU64>,
    ) -> Result<Box<dyn BufRead + Send>> {
        if packing == Packing::Parquet {
            return parquet::text(path, file, Arc::clone(bytes_read));
        }
        let counted = CountingReader { file, bytes_read: bytes_read.clone() };
        let raw = BufReader::with_capacity(BUFFER_BYTES, counted);
        Ok(match packing {
            Packing::Gzip => Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(raw))),
            Packing::Zstd => Box::new(BufReader::with_capacity(BUFFER_BYTES, ZstdReader::new(raw))),
            Packing::None | Packing::Parquet => Box::new(raw),
        })
    }
}

/// How a file holds its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    None,
    Gzip,
    Zstd,
    Parquet,
}

impl Packing {
    /// Told from a file's first bytes, to which it is set back.
    fn of(file: &mut File) -> io::Result<Self> {
        let mut start = Vec::new();
        file.by_ref().take(4).read_to_end(&mut start)?;
        file.rewind()?;
        Ok(if start.starts_with(GZIP) {
            Self::Gzip
        } else if ZSTD.iter().any(|magic| start.starts_with(magic) || start.get(1..4) == Some(*magic)) {
            Self::Zstd
        } else if start.starts_with(PARQUET) {
            Self::Parquet
        } else {
            Self::None
        })
    }
}

/// Reads `bytes` bytes for nothing.
fn pass_over(reader: &mut dyn BufRead, mut bytes: u64) -> io::Result<()> {
    while bytes > 0 {
        let available = reader.fill_buf()?.len() as u64;
        if available == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let passed = available.min(bytes);
        reader.consume(passed as usize);
        bytes -= passed;
    }
    Ok(())
}

struct CountingReader {
    file: File,
    bytes_read: Arc<AtomicU64>,
}

impl Read for CountingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.bytes_read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Unpacks all frames of a zstd file, one after the other.
struct ZstdReader<R> {
    source: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> ZstdReader<R> {
    fn new(source: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_ZSTD_WINDOW);
        Self { source, decoder, in_frame: false }
    }

    /// Reads the header of the next frame, or passes over a frame without data.
    fn begin_frame(&mut self) -> io::Result<()> {
        match self.decoder.init(&mut self.source) {
            Ok(()) => self.in_frame = true,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length, ..
            })) => {
                let skipped = io::copy(&mut (&mut self.source).take(u64::from(length)), &mut io::sink())?;
                if skipped < u64::from(length) {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Err(error) => return Err(io::Error::other(error.to_string())),
        }
        Ok(())
    }
}

impl<R: BufRead> Read for ZstdReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.in_frame {
                if self.source.fill_buf()?.is_empty() {
                    return Ok(0);
                }
                self.begin_frame()?;
                continue;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(|error| io::Error::other(error.to_string()))?;
            }
            let read = self.decoder.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            self.in_frame = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        std::fs::write(&path, bytes).unwrap();
        let mut file = DataFile::open_at(&path, 0).unwrap();
        let mut text = Vec::new();
        file.reader.read_to_end(&mut text)?;
        assert_eq!(file.bytes_read.load(Ordering::Relaxed), bytes.len() as u64);
        Ok(text)
    }

    #[test]
    fn packed_files_read_as_their_content() {
        let text: Vec<u8> = (0..300_000u32).flat_map(|number| (number % 251).to_le_bytes()).collect();
        assert_eq!(read(&text).unwrap(), text);
        assert_eq!(read(&gzip(&text)).unwrap(), text);
        assert_eq!(read(&zstd(&text)).unwrap(), text);
        assert_eq!(read(b"").unwrap(), b"");
    }

    #[test]
    fn several_members_and_frames_follow_each_other() {
        assert_eq!(read(&[gzip(b"one\n"), gzip(b"two\n")].concat()).unwrap(), b"one\ntwo\n");
        let skipped = b"\x53\x2a\x4d\x18\x03\0\0\0xyz".to_vec();
        let frames = [skipped.clone(), zstd(b"one\n"), zstd(b""), skipped, zstd(b"two\n")].concat();
        assert_eq!(read(&frames).unwrap(), b"one\ntwo\n");
    }

    #[test]
    fn files_cut_short_are_errors() {
        let text = b"abcdefgh".repeat(5000);
        for packed in [gzip(&text), zstd(&text)] {
            for length in [5, packed.len() / 2, packed.len() - 1] {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("rows");
                std::fs::write(&path, &packed[..length]).unwrap();
                let read = DataFile::open_at(&path, 0).unwrap().reader.read_to_end(&mut Vec::new());
                assert!(read.is_err(), "{length} of {} bytes", packed.len());
            }
        }
    }
}
