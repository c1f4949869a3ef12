//! The dashboard's wiring: which events it gets, where its commands go, and what signals do to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::printer::{Printer, screen};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::metrics::{Command, Recorder, channel};
use crate::train::Control;
use crate::tui::{
    Background, Channel, Dashboard, Exit, Options, Screen, Session, State, Theme, check_terminal, restore,
    show,
};

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Whether a run's dashboard is to be opened; a terminal that cannot show it is told about.
pub fn wanted(plain: bool, printer: &Printer) -> bool {
    if plain || !printer.interactive() {
        return false;
    }
    let fits = check_terminal(variable);
    if let Err(error) = &fits {
        printer.note(&format!("note: {error}"));
    }
    fits.is_ok()
}

/// # Errors
/// A user error if the terminal cannot show a dashboard.
pub fn require_terminal(printer: &Printer) -> Result<()> {
    if !printer.interactive() {
        let message = "this needs a terminal: standard input and standard error are not both one";
        return Err(Error::user(message).hint("use --plain for lines of text"));
    }
    check_terminal(variable)
}

/// The dashboard of a run in this process, on a thread of its own.
pub struct Live(JoinHandle<Result<Exit>>);

impl Live {
    /// # Errors
    /// A device error if the system gives no thread.
    pub fn open(control: Control, recorder: &mut Recorder) -> Result<Self> {
        let (sink, events) = channel("dashboard-events")?;
        recorder.add(Box::new(sink));
        let work = move || {
            let state = State::new(Session::Live { detachable: false });
            let mut dashboard = Dashboard::new(state, Channel::new(events));
            let signalled = control.clone();
            // The dashboard offers nothing that the loop refuses.
            let mut send = |command: Command| drop(control.send(command));
            let exit = open(&mut dashboard, &mut send, true, &|| signalled.stopping());
            if matches!(exit, Ok(Exit::Abandoned)) {
                std::process::exit(130);
            }
            exit
        };
        let thread = std::thread::Builder::new().name("dashboard".into()).spawn(work);
        Ok(Self(thread.context(|| "starting the dashboard".to_owned())?))
    }

    /// Waits until the user closes it; the run's recorder must be gone by then.
    ///
    /// # Errors
    /// A device error if the terminal failed.
    pub fn wait(self) -> Result<()> {
        match self.0.join() {
            Ok(exit) => exit.map(|_| ()),
            Err(_) => Err(Error::internal("the dashboard crashed")),
        }
    }
}

/// Shows something that is no run of this process until it is closed.
///
/// # Errors
/// A device error if the terminal fails, an interruption if a signal ended it, and what `shown` fails with.
pub fn view(shown: &mut dyn Screen, send: &mut dyn FnMut(Command)) -> Result<()> {
    let signalled = Arc::new(AtomicBool::new(false));
    let told = signalled.clone();
    on_signal(move || told.swap(true, Ordering::SeqCst))?;
    match open(shown, send, false, &|| signalled.load(Ordering::SeqCst))? {
        Exit::Interrupted => Err(Error::new(ErrorKind::Interrupted, "closed by a signal")),
        _ => Ok(()),
    }
}

fn open(
    shown: &mut dyn Screen,
    send: &mut dyn FnMut(Command),
    owns_run: bool,
    interrupted: &dyn Fn() -> bool,
) -> Result<Exit> {
    let theme = Theme::detect(Background::Detect, variable);
    let options = Options { theme, mouse: true, owns_run, close_when_ended: false, interrupted };
    show(screen, shown, send, &options)
}

/// Calls `first` for the first signal that asks the process to end (Ctrl-C, SIGTERM, a closed terminal); if that says
/// that it was told before, the terminal is given back and the process ended.
///
/// # Errors
/// An internal error if there is a handler already.
pub fn on_signal(first: impl Fn() -> bool + Send + 'static) -> Result<()> {
    let handler = move || {
        if first() {
            restore(screen());
            std::process::exit(130);
        }
    };
    ctrlc::set_handler(handler).map_err(|error| Error::internal(format!("cannot listen for Ctrl-C: {error}")))
}
