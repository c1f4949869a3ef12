//! `lazytune watch`: a running run from another terminal, or a past one again.

use std::path::Path;
use std::time::Duration;

use super::arguments::WatchArguments;
use super::dashboard;
use super::printer::Printer;
use super::progress::Progress;
use crate::error::Result;
use crate::metrics::{MetricsFile, Sink};
use crate::train::RunLock;
use crate::tui::{Dashboard, Player, Recording, Session, State, Tail, Theme, still};

/// How often a growing file is looked at.
const INTERVAL: Duration = Duration::from_millis(200);

pub fn run(arguments: &WatchArguments, printer: &Printer) -> Result<()> {
    let run_dir = &arguments.run_dir;
    let mut file = MetricsFile::open(run_dir)?;
    if let Some(size) = arguments.picture {
        let recording = Recording::read(&mut file)?;
        let mut state = State::new(Session::Replay);
        (state.run, state.now) = (recording.run(), recording.length());
        printer.data(still(&state, Theme::DARK, size).trim_end());
        return Ok(());
    }
    if arguments.plain || !printer.interactive() {
        return lines(run_dir, file, printer);
    }
    dashboard::require_terminal(printer)?;
    if !RunLock::is_taken(run_dir) {
        let player = Player::new(Recording::read(&mut file)?);
        return dashboard::view(&mut Dashboard::new(player.state(), player), &mut |_| {});
    }
    #[cfg(unix)]
    let reason = match attach(run_dir) {
        Ok(()) => return Ok(()),
        Err(Attach::Shown(error)) => return Err(error),
        Err(Attach::Refused(error)) => error.to_string(),
    };
    #[cfg(not(unix))]
    let reason = "this system has no control sockets".to_owned();
    let state = State::new(Session::ReadOnly { reason });
    dashboard::view(&mut Dashboard::new(state, Tail::new(file)), &mut |_| {})
}

/// Why there is no dashboard of an attached run.
#[cfg(unix)]
enum Attach {
    /// There was one, and it failed.
    Shown(crate::error::Error),
    /// The run's process cannot be spoken to.
    Refused(crate::error::Error),
}

#[cfg(unix)]
fn attach(run_dir: &Path) -> std::result::Result<(), Attach> {
    use super::attached::AttachedFeed;
    use crate::train::control::Client;
    let client = Client::connect(run_dir).map_err(Attach::Refused)?;
    let mut sender = client.sender().map_err(Attach::Refused)?;
    let attached = client.attach().map_err(Attach::Refused)?;
    let feed = AttachedFeed::new(run_dir, attached).map_err(Attach::Refused)?;
    let state = State::new(Session::Live { detachable: true });
    // A process that is gone ends the stream of events, which the dashboard sees.
    let mut send = |command| drop(sender(command));
    dashboard::view(&mut Dashboard::new(state, feed), &mut send).map_err(Attach::Shown)
}

/// The lines that `train --plain` prints, as long as the run goes on.
fn lines(run_dir: &Path, mut file: MetricsFile, printer: &Printer) -> Result<()> {
    let mut progress = Progress::plain(printer);
    let mut events = Vec::new();
    loop {
        let running = RunLock::is_taken(run_dir);
        file.poll(&mut events)?;
        events.drain(..).for_each(|event| progress.event(&event));
        if !running {
            break;
        }
        std::thread::sleep(INTERVAL);
    }
    let skipped = file.skipped();
    for (count, what) in [(skipped.damaged, "damaged"), (skipped.unknown, "of a newer version")] {
        if count > 0 {
            printer.note(&format!("note: {count} lines of {} are {what}", file.path().display()));
        }
    }
    Ok(())
}
