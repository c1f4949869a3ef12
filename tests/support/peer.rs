//! A client of a run's control socket that knows only the protocol.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Peer {
    reader: BufReader<UnixStream>,
    /// Lines that were read while another was waited for.
    seen: Vec<Value>,
}

impl Peer {
    /// Waits for the socket and the greeting.
    pub fn attach(run: &Path) -> Self {
        let socket = run.join("control.sock");
        wait_until(|| UnixStream::connect(&socket).is_ok(), "the run listens");
        let stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut peer = Self { reader: BufReader::new(stream), seen: Vec::new() };
        assert!(peer.line()["attached"]["position"].is_u64());
        peer
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the run hung up");
        serde_json::from_str(&line).unwrap()
    }

    fn find(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < PATIENCE, "it never came");
            if let Some(at) = self.seen.iter().position(&wanted) {
                return self.seen.remove(at);
            }
            let line = self.line();
            self.seen.push(line);
        }
    }

    /// Sends a line and returns the answer.
    pub fn send(&mut self, line: &str) -> Value {
        self.reader.get_ref().write_all(format!("{line}\n").as_bytes()).unwrap();
        self.find(|line| line.get("ok").is_some())
    }

    /// Sends a command that is accepted.
    #[track_caller]
    pub fn ask(&mut self, command: &str, value: Option<Value>) {
        let mut line = json!({ "command": command });
        if let Some(value) = value {
            line["value"] = value;
        }
        let answer = self.send(&line.to_string());
        assert_eq!(answer["ok"], true, "{command}: {answer}");
    }

    /// The next event of a kind; steps that were told before are forgotten.
    pub fn event(&mut self, kind: &str) -> Value {
        let event = self.find(|line| line["event"] == kind);
        self.seen.retain(|line| line["event"] != "step");
        event
    }
}

#[track_caller]
pub fn wait_until(ready: impl Fn() -> bool, what: &str) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ends the process when a test fails.
pub struct Guard(pub Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
