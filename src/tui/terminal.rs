//! The terminal: taken over, drawn on, given back whatever happens.

use std::io::{BufWriter, Write};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::{Backend, CrosstermBackend};
use ratatui::crossterm::event::{
    self, DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture,
    Event as Input,
};
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::crossterm::{cursor, execute};
use ratatui::layout::{Position, Rect};

use super::screen::Screen;
use super::theme::Theme;
use crate::error::{Error, Result};
use crate::metrics::Command;

/// Time between two pictures, at least: 15 a second.
const FRAME: Duration = Duration::from_millis(66);
/// Pictures that nobody asked for with a key take at most this part of the time: the cores are the run's.
const SHARE: u32 = 100;
/// Yet one is drawn this often.
const LONGEST: Duration = Duration::from_secs(1);

/// Whether the terminal is taken over by this process.
static TAKEN: AtomicBool = AtomicBool::new(false);
static PANIC_HOOK: Once = Once::new();

/// Opens what the dashboard is written to; called again to give the terminal back after a panic.
pub type Open = fn() -> Box<dyn Write + Send>;

/// How the dashboard behaves.
pub struct Options<'a> {
    pub theme: Theme,
    /// Whether clicks and the wheel are taken; the terminal's own selection then needs a modifier.
    pub mouse: bool,
    /// Whether the run is in this process: then a wish to stop, or a signal, waits for its end.
    pub owns_run: bool,
    /// Whether to close once the run has ended.
    pub close_when_ended: bool,
    /// Whether a signal asked the process to end.
    pub interrupted: &'a dyn Fn() -> bool,
}

/// Why the dashboard was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The user closed it; the run has ended, or is another process'.
    Closed,
    /// The run ended, by itself or as the user wished.
    Ended,
    /// The run goes on without it.
    Detached,
    /// The user asked to stop a second time: the run is not waited for.
    Abandoned,
    /// A signal came.
    Interrupted,
}

/// Refuses terminals that cannot show a dashboard.
///
/// # Errors
/// A user error that names the variable, if TERM is not set, or "dumb".
pub fn check_terminal(variable: impl Fn(&str) -> Option<String>) -> Result<()> {
    let term = variable("TERM").filter(|term| !term.is_empty());
    let what = match term.as_deref() {
        Some("dumb") => "TERM is \"dumb\"",
        None if cfg!(unix) => "TERM is not set",
        _ => return Ok(()),
    };
    let message = format!("this terminal cannot show the dashboard: {what}");
    Err(Error::user(message).hint("use --plain for lines of text"))
}

/// Shows a screen until it is closed.
///
/// # Errors
/// A device error if the terminal fails, an internal one after a panic, and what the screen fails with.
pub fn show(
    open: Open,
    screen: &mut dyn Screen,
    send: &mut dyn FnMut(Command),
    options: &Options,
) -> Result<Exit> {
    PANIC_HOOK.call_once(|| restore_on_panic(open));
    let taken = Taken::take(open, options.mouse)?;
    let backend = CrosstermBackend::new(BufWriter::with_capacity(1 << 16, WhileTaken(open())));
    let mut terminal = Terminal::new(backend).map_err(failed)?;
    let mut keys = |wait: Duration| match event::poll(wait) {
        _ if !TAKEN.load(Ordering::SeqCst) => {
            Err(Error::internal("a thread panicked; the dashboard was closed"))
        }
        Ok(true) => event::read().map(Some).map_err(failed),
        Ok(false) => Ok(None),
        Err(error) => Err(failed(error)),
    };
    let exit = run(&mut terminal, screen, &mut keys, send, options);
    drop(taken);
    exit
}

/// Gives the terminal back, if it is taken: for signal handlers that end the process. Safe to call at any time.
pub fn restore(mut output: impl Write) {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = disable_raw_mode();
        let _ =
            execute!(output, DisableMouseCapture, DisableBracketedPaste, LeaveAlternateScreen, cursor::Show);
    }
}

/// Puts a hook before the one there is: a message is of no use on a screen that vanishes.
fn restore_on_panic(open: Open) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        restore(open());
        before(info);
    }));
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::device(format!("the terminal failed: {error}")).hint("use --plain for lines of text")
}

/// Writes nothing once the terminal is given back: a thread that panics does that while another one draws.
struct WhileTaken(Box<dyn Write + Send>);

impl Write for WhileTaken {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if TAKEN.load(Ordering::SeqCst) { self.0.write(bytes) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if TAKEN.load(Ordering::SeqCst) { self.0.flush() } else { Ok(()) }
    }
}

/// The terminal as long as it is taken over.
struct Taken {
    output: Box<dyn Write + Send>,
}

impl Taken {
    fn take(open: Open, mouse: bool) -> Result<Self> {
        enable_raw_mode().map_err(failed)?;
        TAKEN.store(true, Ordering::SeqCst);
        let mut taken = Self { output: open() };
        let output = &mut taken.output;
        execute!(output, EnterAlternateScreen, EnableBracketedPaste, cursor::Hide).map_err(failed)?;
        if mouse {
            execute!(output, EnableMouseCapture).map_err(failed)?;
        }
        Ok(taken)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        restore(&mut self.output);
    }
}

/// Draws when something changed, at most once a frame, and waits for keys in between.
fn run<B: Backend>(
    terminal: &mut Terminal<B>,
    screen: &mut dyn Screen,
    keys: &mut dyn FnMut(Duration) -> Result<Option<Input>>,
    send: &mut dyn FnMut(Command),
    options: &Options,
) -> Result<Exit>
where
    B::Error: std::fmt::Display,
{
    let start = Instant::now();
    let mut pictures = Pictures::default();
    let (mut changed, mut stopping) = (true, false);
    loop {
        changed |= screen.update(start.elapsed())?;
        let interrupted = (options.interrupted)();
        if interrupted && !options.owns_run {
            return Ok(Exit::Interrupted);
        }
        let waits_for_end = options.close_when_ended || stopping || interrupted;
        if screen.ended() && waits_for_end {
            return Ok(if interrupted { Exit::Interrupted } else { Exit::Ended });
        }
        if changed && pictures.wait().is_zero() {
            let start = Instant::now();
            let draw = |frame: &mut ratatui::Frame| screen.draw(options.theme, frame.buffer_mut());
            terminal.draw(draw).map_err(failed)?;
            pictures.drawn(start);
            changed = false;
        }
        let mut input = keys(if changed { pictures.wait().min(FRAME) } else { FRAME })?;
        while let Some(given) = input {
            changed = true;
            pictures.asked = true;
            let size = terminal.size().map_err(failed)?;
            let command = screen.input(given, Rect::from((Position::ORIGIN, size)));
            if let Some(exit) = command.and_then(|command| obey(command, &mut stopping, send, options)) {
                return Ok(exit);
            }
            input = keys(Duration::ZERO)?;
        }
    }
}

/// When the next picture is due.
#[derive(Default)]
struct Pictures {
    /// When the last one was drawn, and how long that took.
    last: Option<(Instant, Duration)>,
    /// Whether a key was pressed since.
    asked: bool,
}

impl Pictures {
    fn wait(&self) -> Duration {
        let Some((drawn, took)) = self.last else { return Duration::ZERO };
        let pause = if self.asked { FRAME } else { took.saturating_mul(SHARE).clamp(FRAME, LONGEST) };
        pause.saturating_sub(drawn.elapsed())
    }

    fn drawn(&mut self, start: Instant) {
        *self = Self { last: Some((Instant::now(), start.elapsed())), asked: false };
    }
}

/// Passes a command on; some close the dashboard.
fn obey(
    command: Command,
    stopping: &mut bool,
    send: &mut dyn FnMut(Command),
    options: &Options,
) -> Option<Exit> {
    match command {
        Command::Quit { stop: false } => return Some(Exit::Closed),
        Command::Detach => {
            send(command);
            return Some(Exit::Detached);
        }
        Command::Quit { stop: true } if *stopping => return Some(Exit::Abandoned),
        Command::Quit { stop: true } => {
            *stopping = true;
            send(command);
            return (!options.owns_run).then_some(Exit::Closed);
        }
        _ => send(command),
    }
    None
}

#[cfg(test)]
mod tests;
