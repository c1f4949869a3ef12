//! The other end of the control socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use serde_json::Value;

use super::SOCKET;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::metrics::{Command, Event, EventParser};

/// A server that does not answer by then hangs.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest greeting, in bytes.
const LONGEST_GREETING: u64 = 4 << 10;
/// Events that wait to be looked at; the server keeps those that follow.
const WAITING: usize = 1024;

/// A connection to a running run.
pub struct Client {
    reader: BufReader<UnixStream>,
    position: u64,
}

/// What an attached client hears.
pub struct Attached {
    /// Bytes of metrics.jsonl that hold what happened before `events`.
    pub position: u64,
    /// What happens from now on; it ends with the process.
    pub events: Receiver<Event>,
    /// Why a command was refused.
    pub refusals: Receiver<String>,
}

impl Client {
    /// Connects to the process that trains in `run_dir`.
    ///
    /// # Errors
    /// A user error if the run is another user's, a data error if no process listens there.
    pub fn connect(run_dir: &Path) -> Result<Self> {
        let path = run_dir.join(SOCKET);
        let doing = || format!("opening {}", path.display());
        let stream = UnixStream::connect(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => Error::user("the run is another user's"),
            _ => Error::data(format!("no process listens on {}: {error}", path.display())),
        })?;
        stream.set_read_timeout(Some(PATIENCE)).context(doing)?;
        stream.set_write_timeout(Some(PATIENCE)).context(doing)?;
        let mut reader = BufReader::new(stream);
        let mut greeting = String::new();
        reader.by_ref().take(LONGEST_GREETING).read_line(&mut greeting).context(doing)?;
        let greeting: Value = serde_json::from_str(&greeting).unwrap_or_default();
        let refused = greeting["error"].as_str().unwrap_or("it does not speak lazytune's protocol");
        let position = greeting["attached"]["position"].as_u64();
        let position = position.ok_or_else(|| {
            Error::new(ErrorKind::Data, format!("cannot attach to {}: {refused}", path.display()))
        })?;
        Ok(Self { reader, position })
    }

    /// Passes a command on; the answer comes later.
    ///
    /// # Errors
    /// A data error if the process is gone.
    pub fn send(&self, command: &Command) -> Result<()> {
        let mut line = serde_json::to_string(command).map_err(|error| Error::internal(error.to_string()))?;
        line.push('\n');
        let mut stream = self.reader.get_ref();
        stream.write_all(line.as_bytes()).context(|| "sending a command to the run".to_owned())
    }

    /// Another handle for sending commands.
    ///
    /// # Errors
    /// A device error if the system has no more handles.
    pub fn sender(&self) -> Result<impl FnMut(Command) -> Result<()> + use<>> {
        let stream = self.reader.get_ref().try_clone().context(|| "attaching to the run".to_owned())?;
        let client = Self { reader: BufReader::new(stream), position: self.position };
        Ok(move |command| client.send(&command))
    }

    /// Begins to listen, on a thread of its own.
    ///
    /// # Errors
    /// A device error if the system gives no thread.
    pub fn attach(self) -> Result<Attached> {
        let doing = || "attaching to the run".to_owned();
        self.reader.get_ref().set_read_timeout(None).context(doing)?;
        let (events, received) = sync_channel(WAITING);
        let (refused, refusals) = sync_channel(WAITING);
        let position = self.position;
        let work = move || listen(self.reader, &events, &refused);
        std::thread::Builder::new().name("attached".into()).spawn(work).context(doing)?;
        Ok(Attached { position, events: received, refusals })
    }
}

/// Reads until the process or the receiver is gone.
fn listen(mut reader: BufReader<UnixStream>, events: &SyncSender<Event>, refused: &SyncSender<String>) {
    let mut parser = EventParser::default();
    loop {
        let Ok(bytes) = reader.fill_buf() else { return };
        if bytes.is_empty() {
            return;
        }
        let mut listening = true;
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            if let Ok(answer) = serde_json::from_slice::<Value>(line)
                && let Some(error) = answer["error"].as_str()
            {
                // Nobody looks at refusals that do not fit.
                let _ = refused.try_send(error.to_owned());
            }
            parser.feed(line, &mut |event| listening &= events.send(event).is_ok());
        }
        let length = bytes.len();
        reader.consume(length);
        if !listening {
            return;
        }
    }
}
