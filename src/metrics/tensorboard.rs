//! TensorBoard's event files: records framed as TensorFlow does, each a protocol buffer with the scalars of one step.
//!
//! Field numbers are those of tensorflow's `event.proto` and `summary.proto`.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{EvaluationReport, Event, MemoryKind, Sink, StepReport};
use crate::error::{Result, ResultExt};

const FILE_VERSION: &str = "brain.Event:2";
/// Wire types of protocol buffers.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// Appends scalars to a file of its own; a full disk costs records, never the run.
pub struct TensorBoard {
    file: File,
    now: fn() -> SystemTime,
}

impl TensorBoard {
    /// Begins a file in `folder`, which is created. `first_step` is where the run goes on: viewers forget what an
    /// earlier file says of later steps.
    ///
    /// # Errors
    /// A data error if the folder or the file cannot be written.
    pub fn create(folder: &Path, first_step: usize) -> Result<Self> {
        std::fs::create_dir_all(folder).context(|| format!("creating {}", folder.display()))?;
        let seconds = since_epoch(SystemTime::now()).as_secs();
        let path = folder.join(format!("events.out.tfevents.{seconds}.lazytune.{}", std::process::id()));
        let file = File::create(&path).context(|| format!("creating {}", path.display()))?;
        let mut board = Self { file, now: SystemTime::now };
        let mut version = board.head(0);
        bytes(&mut version, 3, FILE_VERSION.as_bytes());
        board.write(&version).context(|| format!("writing {}", path.display()))?;
        if first_step > 0 {
            // session_log { status: START }
            let mut start = board.head(first_step + 1);
            bytes(&mut start, 7, &[(1 << 3) as u8, 1]);
            board.write(&start).context(|| format!("writing {}", path.display()))?;
        }
        Ok(board)
    }

    fn scalars(&mut self, step: usize, scalars: &[(&str, f64)]) {
        let mut summary = Vec::new();
        for (tag, value) in scalars {
            let mut entry = Vec::new();
            bytes(&mut entry, 1, tag.as_bytes());
            key(&mut entry, 2, FIXED32);
            entry.extend((*value as f32).to_le_bytes());
            bytes(&mut summary, 1, &entry);
        }
        let mut event = self.head(step);
        bytes(&mut event, 5, &summary);
        let _ = self.write(&event);
    }

    /// The time and the step of an event.
    fn head(&self, step: usize) -> Vec<u8> {
        let mut event = Vec::new();
        key(&mut event, 1, FIXED64);
        event.extend(since_epoch((self.now)()).as_secs_f64().to_le_bytes());
        key(&mut event, 2, VARINT);
        varint(&mut event, step as u64);
        event
    }

    fn write(&mut self, data: &[u8]) -> std::io::Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked_crc32c(&length).to_le_bytes());
        record.extend(data);
        record.extend(masked_crc32c(data).to_le_bytes());
        self.file.write_all(&record)
    }

    fn step(&mut self, report: &StepReport) {
        let scalars = [
            ("train/loss", report.loss),
            ("train/learning_rate", report.learning_rate),
            ("train/grad_norm", report.grad_norm),
            ("train/epoch", report.epoch),
            ("speed/tokens_per_second", report.tokens_per_second),
            ("speed/step_ms", report.step_ms),
            ("speed/data_wait_ms", report.data_wait_ms),
            ("speed/forward_ms", report.forward_ms),
            ("speed/backward_ms", report.backward_ms),
            ("speed/optimizer_ms", report.optimizer_ms),
        ];
        self.scalars(report.step, &scalars);
    }

    fn evaluation(&mut self, report: &EvaluationReport) {
        let scalars = [("eval/loss", report.eval_loss), ("eval/perplexity", report.perplexity)];
        self.scalars(report.step, &scalars);
    }

    fn memory(&mut self, step: usize, kinds: &[MemoryKind], process_bytes: u64) {
        let planned: u64 = kinds.iter().map(|kind| kind.planned_bytes).sum();
        self.scalars(
            step,
            &[("memory/planned_bytes", planned as f64), ("memory/process_bytes", process_bytes as f64)],
        );
    }
}

impl Sink for TensorBoard {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Step(report) => self.step(report),
            Event::Evaluation(report) => self.evaluation(report),
            Event::Memory { step, kinds, process_bytes, .. } => self.memory(*step, kinds, *process_bytes),
            Event::Layers { step, layers } => {
                for layer in layers {
                    let tags =
                        ["norm", "update_ratio"].map(|what| format!("layers/{:03}/{what}", layer.layer));
                    self.scalars(*step, &[(&tags[0], layer.norm), (&tags[1], layer.update_ratio)]);
                }
            }
            _ => {}
        }
    }
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn key(out: &mut Vec<u8>, field: u64, wire: u64) {
    varint(out, field << 3 | wire);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes(out: &mut Vec<u8>, field: u64, content: &[u8]) {
    key(out, field, BYTES);
    varint(out, content.len() as u64);
    out.extend(content);
}

/// Castagnoli's checksum, rotated and shifted, because checksums of data that holds checksums are weak.
fn masked_crc32c(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn crc32c(data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    !data.iter().fold(u32::MAX, |crc, &byte| (crc >> 8) ^ TABLE[((crc ^ u32::from(byte)) & 0xff) as usize])
}

const fn table() -> [u32; 256] {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { value >> 1 ^ POLYNOMIAL } else { value >> 1 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_rfc_3720() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn a_record_is_framed_and_encoded_as_tensorflow_does() {
        let folder = tempfile::tempdir().unwrap();
        let mut board = TensorBoard::create(folder.path(), 0).unwrap();
        board.now = || UNIX_EPOCH + Duration::from_secs(2);
        board.scalars(300, &[("a", 1.5)]);
        let path = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let file = std::fs::read(path).unwrap();
        // 8 bytes of length, 4 of its checksum, the version's event of 26 bytes, 4 of its checksum.
        assert_eq!(file[0], 26);
        assert!(file[12..38].ends_with(FILE_VERSION.as_bytes()));
        let record = &file[42..];
        let mut expected = vec![0x09];
        expected.extend(2f64.to_le_bytes());
        expected.extend([0x10, 0xac, 0x02, 0x2a, 10, 0x0a, 8, 0x0a, 1, b'a', 0x15]);
        expected.extend(1.5f32.to_le_bytes());
        assert_eq!(record[..8], (expected.len() as u64).to_le_bytes());
        assert_eq!(record[12..12 + expected.len()], expected);
        assert_eq!(record[12 + expected.len()..], masked_crc32c(&expected).to_le_bytes());
    }
}
