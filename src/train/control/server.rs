//! The control socket: commands in, answers and events out, one JSON object a line.
//!
//! ```text
//! server: {"attached":{"position":5120,"process":77}}     the client reads that much of metrics.jsonl itself
//! client: {"command":"scale_learning_rate","value":0.5}
//! server: {"ok":true}        or {"ok":false,"error":"...","hint":"..."}
//! server: {"event":"step",...}                            every later event, as in metrics.jsonl
//! ```

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Control, SOCKET};
use crate::error::{Error, Result, ResultExt};
use crate::metrics::{Buffered, Command, Event, Sink};

/// Clients at once.
const CLIENTS: usize = 16;
/// A client that takes longer to read a line is hung up on.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest command, in bytes.
const LONGEST_LINE: u64 = 64 << 10;

/// Listens in the run's folder until it is dropped. As a sink it passes events on to whoever is attached.
pub struct ControlServer {
    path: PathBuf,
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

struct Shared {
    control: Control,
    /// Bytes of metrics.jsonl.
    written: Arc<AtomicU64>,
    clients: Mutex<Clients>,
    closing: AtomicBool,
}

#[derive(Default)]
struct Clients {
    list: Vec<Client>,
    /// Bytes of metrics.jsonl that hold the events told so far.
    position: u64,
}

struct Client {
    events: Buffered,
    stream: UnixStream,
    gone: Arc<AtomicBool>,
}

impl ControlServer {
    /// Creates the socket, which only this user can open; one that an earlier process left is replaced. `written` is the
    /// length of metrics.jsonl, whose sink comes before this one.
    ///
    /// # Errors
    /// A user error if the folder's path is too long for a socket, a data error if it cannot be written.
    pub fn listen(run_dir: &Path, control: Control, written: Arc<AtomicU64>) -> Result<Self> {
        let path = run_dir.join(SOCKET);
        let listener = bind(run_dir, &path)?;
        let position = written.load(Ordering::Acquire);
        let clients = Mutex::new(Clients { list: Vec::new(), position });
        let shared = Arc::new(Shared { control, written, clients, closing: AtomicBool::new(false) });
        let serving = shared.clone();
        let work = move || {
            for stream in listener.incoming() {
                if serving.closing.load(Ordering::Acquire) {
                    return;
                }
                // A client that cannot be served sees its connection closed.
                let _ = stream
                    .context(|| "accepting a client".to_owned())
                    .and_then(|stream| attach(&serving, stream));
            }
        };
        let worker = std::thread::Builder::new().name("control".into()).spawn(work);
        Ok(Self { path, shared, worker: Some(worker.context(|| "starting a thread".to_owned())?) })
    }
}

/// Binds inside a folder that only this user may enter, and moves the socket to its place when its mode is right.
fn bind(run_dir: &Path, path: &Path) -> Result<UnixListener> {
    let private = run_dir.join(format!(".c{}", std::process::id()));
    let socket = private.join("s");
    let bound = std::fs::DirBuilder::new().mode(0o700).create(&private).and_then(|()| {
        let listener = UnixListener::bind(&socket)?;
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&socket, path)?;
        Ok(listener)
    });
    let _ = std::fs::remove_file(&socket);
    let _ = std::fs::remove_dir(&private);
    match bound {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
            let message = format!("{} is too long a path for a socket", path.display());
            Err(Error::user(message).hint("give the run a shorter --run-dir to steer it from elsewhere"))
        }
        bound => bound.context(|| format!("creating {}", path.display())),
    }
}

impl Shared {
    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for ControlServer {
    fn event(&mut self, event: &Event) {
        let mut clients = self.shared.clients();
        clients.position = self.shared.written.load(Ordering::Acquire);
        clients.list.retain(|client| !client.gone.load(Ordering::Acquire));
        clients.list.iter_mut().for_each(|client| client.events.event(event));
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        // Wakes the thread that waits for a client; no one else is let in any more.
        let woken = UnixStream::connect(&self.path).is_ok();
        let _ = std::fs::remove_file(&self.path);
        if let Some(worker) = self.worker.take().filter(|_| woken) {
            let _ = worker.join();
        }
        let clients = std::mem::take(&mut self.shared.clients().list);
        for Client { events, stream, .. } in clients {
            drop(events);
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// Serves a client on threads of its own.
fn attach(shared: &Arc<Shared>, stream: UnixStream) -> Result<()> {
    let doing = || "serving a client".to_owned();
    stream.set_write_timeout(Some(PATIENCE)).context(doing)?;
    let gone = Arc::new(AtomicBool::new(false));
    let writer =
        Writer { stream: Arc::new(Mutex::new(stream.try_clone().context(doing)?)), gone: gone.clone() };
    let mut clients = shared.clients();
    clients.list.retain(|client| !client.gone.load(Ordering::Acquire));
    if clients.list.len() >= CLIENTS {
        writer.line(&json!({ "ok": false, "error": format!("{CLIENTS} clients are attached already") }));
        return Ok(());
    }
    // Events from here on wait in the queue, so that none is missing between the file and the stream.
    writer.line(&json!({ "attached": { "position": clients.position, "process": std::process::id() } }));
    let events = Buffered::new("control-events", Box::new(writer.clone()))?;
    let reading = stream.try_clone().context(doing)?;
    clients.list.push(Client { events, stream, gone });
    drop(clients);
    let control = shared.control.clone();
    let work = move || {
        read_commands(&reading, &control, &writer);
        writer.gone.store(true, Ordering::Release);
        // Whoever is writing to it must not wait.
        let _ = reading.shutdown(std::net::Shutdown::Both);
    };
    std::thread::Builder::new().name("control-client".into()).spawn(work).context(doing)?;
    Ok(())
}

fn read_commands(stream: &UnixStream, control: &Control, writer: &Writer) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(_) if line.ends_with(b"\n") => writer.line(&obey(&line, control)),
            Ok(0) | Err(_) => return,
            Ok(_) => {
                writer.line(&json!({ "ok": false, "error": "the line is cut short, or too long" }));
                return;
            }
        }
    }
}

fn obey(line: &[u8], control: &Control) -> Value {
    let command = serde_json::from_slice::<Command>(line)
        .map_err(|error| Error::user(format!("not a command: {error}")))
        .and_then(|command| control.send(command));
    match command {
        Ok(()) => json!({ "ok": true }),
        Err(error) => json!({ "ok": false, "error": error.to_string(), "hint": error.hint_text() }),
    }
}

/// Writes whole lines to a client; after a failure nothing more.
#[derive(Clone)]
struct Writer {
    stream: Arc<Mutex<UnixStream>>,
    gone: Arc<AtomicBool>,
}

impl Writer {
    fn line(&self, value: &impl serde::Serialize) {
        let Ok(mut line) = serde_json::to_string(value) else { return };
        line.push('\n');
        if self.gone.load(Ordering::Acquire) {
            return;
        }
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        if stream.write_all(line.as_bytes()).is_err() {
            self.gone.store(true, Ordering::Release);
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Sink for Writer {
    fn event(&mut self, event: &Event) {
        self.line(event);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Client;
    use super::*;
    use crate::metrics::StepReport;

    fn step(step: usize) -> Event {
        Event::Step(StepReport { step, ..StepReport::default() })
    }

    #[test]
    fn only_this_user_can_open_it_and_stale_files_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(SOCKET), "stale").unwrap();
        let control = Control::default();
        let server = ControlServer::listen(folder.path(), control.clone(), Arc::default()).unwrap();
        let mode = std::fs::metadata(folder.path().join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let client = Client::connect(folder.path()).unwrap();
        client.send(&Command::Pause).unwrap();
        let start = std::time::Instant::now();
        while control.take() != Some(Command::Pause) {
            assert!(start.elapsed().as_secs() < 10);
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(server);
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "something was left behind");
        assert!(Client::connect(folder.path()).is_err());
    }

    #[test]
    fn a_client_that_never_reads_holds_up_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let mut server =
            ControlServer::listen(folder.path(), Control::default(), Arc::new(AtomicU64::new(7))).unwrap();
        let silent = UnixStream::connect(folder.path().join(SOCKET)).unwrap();
        let attached = Client::connect(folder.path()).unwrap().attach().unwrap();
        assert_eq!(attached.position, 7);
        let listener =
            std::thread::spawn(move || attached.events.iter().filter_map(|event| event.step()).collect());
        let start = std::time::Instant::now();
        (1..=20_000).for_each(|number| server.event(&step(number)));
        assert!(start.elapsed().as_secs() < 5);
        drop(server);
        let seen: Vec<usize> = listener.join().unwrap();
        assert_eq!(seen.last(), Some(&20_000));
        drop(silent);
    }

    #[test]
    fn a_path_that_is_too_long_is_explained() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("x".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let error = ControlServer::listen(&deep, Control::default(), Arc::default()).err().unwrap();
        assert!(error.to_string().contains("too long"), "{error}");
        assert!(std::fs::read_dir(&deep).unwrap().next().is_none());
    }
}
