//! How far a long file has been read: a bar on a terminal, a line now and then elsewhere.

use crate::cli::printer::Printer;
use crate::cli::progress::bytes;
use crate::data::ReadingProgress;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

/// Between two lines, and before the first.
const INTERVAL: Duration = Duration::from_secs(10);

pub struct Reading {
    /// Hidden where there is no terminal.
    bar: ProgressBar,
    printer: Printer,
    told: Instant,
}

impl Reading {
    pub fn new(printer: &Printer) -> Self {
        let bar = if printer.terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let template = "reading {bar:30} {bytes}/{total_bytes}  {msg}  eta {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, printer: printer.clone(), told: Instant::now() }
    }

    pub fn update(&mut self, done: ReadingProgress) {
        let rows = format!("{} rows", done.rows);
        if !self.bar.is_hidden() {
            self.bar.set_length(done.total_bytes);
            self.bar.set_message(rows);
            self.bar.set_position(done.bytes);
        } else if self.told.elapsed() >= INTERVAL {
            self.told = Instant::now();
            let size = |count: u64| bytes(usize::try_from(count).unwrap_or(usize::MAX));
            self.printer.note(&format!("read {} of {}, {rows}", size(done.bytes), size(done.total_bytes)));
        }
    }

    /// Prints while the bar is out of the way.
    pub fn suspend(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
