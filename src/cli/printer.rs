//! The only code that writes to standard output and error: data goes to the one, words to the other.

use std::io::{IsTerminal, Write};

use crate::error::{Error, ErrorKind, Result};

/// What a dashboard is drawn on; standard output is left to data.
pub fn screen() -> Box<dyn Write + Send> {
    Box::new(std::io::stderr())
}

/// Writes for people, or stays quiet.
#[derive(Debug, Clone)]
pub struct Printer {
    quiet: bool,
    terminal: bool,
    color: bool,
}

impl Printer {
    pub fn new(quiet: bool) -> Self {
        let terminal =
            std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let color = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { quiet, terminal, color }
    }

    /// Whether standard error is a terminal that can redraw a line.
    pub fn terminal(&self) -> bool {
        self.terminal && !self.quiet
    }

    /// Whether someone sits in front of it: keys come from standard input, and standard error is looked at.
    pub fn interactive(&self) -> bool {
        !self.quiet && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    pub fn colored(&self) -> bool {
        self.color
    }

    /// Whether results may have colors: standard output is a terminal that shows them.
    pub fn data_colored(&self) -> bool {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = set("TERM").is_some_and(|term| term == "dumb");
        std::io::stdout().is_terminal() && !dumb && set("NO_COLOR").is_none()
    }

    /// A line of results, on standard output.
    pub fn data(&self, text: &str) {
        self.data_part(text);
        self.data_part("\n");
    }

    /// Part of a line of results. A reader that is gone ends the process quietly, as with other tools.
    pub fn data_part(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            std::process::exit(0);
        }
    }

    /// Results for programs.
    ///
    /// # Errors
    /// An internal error if the value cannot be written as JSON.
    pub fn json(&self, value: &serde_json::Value) -> Result<()> {
        let text = serde_json::to_string_pretty(value).map_err(|error| Error::internal(error.to_string()))?;
        self.data(&text);
        Ok(())
    }

    /// A line for people, on standard error.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
    }

    pub fn error(&self, error: &Error) {
        let label = match error.kind() {
            ErrorKind::Interrupted => "interrupted",
            ErrorKind::Diverged => "diverged",
            ErrorKind::Internal => "internal error (please report it)",
            ErrorKind::User | ErrorKind::Data | ErrorKind::Shape | ErrorKind::Memory | ErrorKind::Device => {
                "error"
            }
        };
        let mut out = std::io::stderr().lock();
        let _ = writeln!(out, "{}: {error}", self.painted(label, "1;31"));
        if let Some(hint) = error.hint_text() {
            let _ = writeln!(out, "{}: {hint}", self.painted("hint", "1;36"));
        }
    }

    fn painted(&self, text: &str, code: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
