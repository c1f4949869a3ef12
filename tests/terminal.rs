//! The real binary on a terminal: the dashboard opens, obeys keys, and gives the terminal back.

#![cfg(unix)]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use nix::unistd::Pid;
use serde_json::json;
use support::peer::{Guard, Peer, wait_until};
use support::prepared::workspace;
use support::workspace::{Workspace, steps};

const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";
const SHOW_CURSOR: &str = "\x1b[?25h";
const ENDLESS: [&str; 8] =
    ["train", "run.toml", "--run-dir", "run", "--max-steps", "900000", "--set", "train.save_steps=900000"];

/// A process on a terminal of its own.
struct Terminal {
    process: Guard,
    keyboard: File,
    slave: OwnedFd,
    before: Termios,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn start(workspace: &Workspace, arguments: &[&str], term: Option<&str>) -> Self {
        let size = Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let stream = || Stdio::from(pty.slave.try_clone().unwrap());
        let mut command = workspace.command(arguments);
        command.stdin(stream()).stdout(stream()).stderr(stream()).env_remove("NO_COLOR");
        match term {
            Some(term) => command.env("TERM", term),
            None => command.env_remove("TERM"),
        };
        let process = Guard(command.spawn().unwrap());
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (seen, mut output) = (screen.clone(), File::from(pty.master.try_clone().unwrap()));
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut chunk) {
                seen.lock().unwrap().extend(&chunk[..count]);
            }
        });
        Self { process, keyboard: File::from(pty.master), slave: pty.slave, before, screen }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    #[track_caller]
    fn shows(&self, part: &str) {
        let start = Instant::now();
        while !self.text().contains(part) {
            assert!(start.elapsed() < Duration::from_secs(60), "{part:?} never came:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for the end, checks that the terminal is as before, and returns the exit code.
    #[track_caller]
    fn ends(mut self) -> (i32, String) {
        let code = wait(&mut self.process.0);
        self.shows(LEAVE);
        std::thread::sleep(Duration::from_millis(50));
        let text = self.text();
        let left = text.rfind(LEAVE).unwrap();
        assert!(text.rfind(ENTER).unwrap() < left && text[left..].contains(SHOW_CURSOR), "{text}");
        let after = tcgetattr(&self.slave).unwrap();
        assert!(after.local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO));
        assert_eq!(after.local_flags, self.before.local_flags);
        assert_eq!(after.input_flags, self.before.input_flags);
        (code, text[left..].to_owned())
    }
}

fn wait(process: &mut Child) -> i32 {
    let start = Instant::now();
    loop {
        if let Some(status) = process.try_wait().unwrap() {
            return status.code().unwrap_or(-1);
        }
        assert!(start.elapsed() < Duration::from_secs(60), "the process does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn has(run: &Path, event: &str) -> bool {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    text.contains(&format!(r#""event":"{event}""#))
}

#[test]
fn keys_steer_the_run_and_quitting_gives_the_terminal_back() {
    let workspace = workspace();
    let run = workspace.path("run");
    let mut terminal = Terminal::start(&workspace, &ENDLESS, Some("xterm-256color"));
    terminal.shows(ENTER);
    wait_until(|| has(&run, "step"), "the run has begun");
    for (keys, event) in [("p", "paused"), ("c", "saved"), ("e", "evaluation"), ("p", "resumed")] {
        terminal.press(keys);
        wait_until(|| has(&run, event), event);
    }
    terminal.press("s");
    std::thread::sleep(Duration::from_millis(200));
    terminal.press("Define love\r");
    wait_until(|| has(&run, "sample"), "the prompt is continued");
    terminal.press("?");
    std::thread::sleep(Duration::from_millis(200));
    terminal.press("\x1b");
    std::thread::sleep(Duration::from_millis(200));
    terminal.press("q");
    std::thread::sleep(Duration::from_millis(200));
    terminal.press("s");
    let (code, after) = terminal.ends();
    assert_eq!(code, 130);
    assert!(after.contains("interrupted") && after.contains("--resume"), "{after}");
    let last = steps(&run.join("metrics.jsonl")).len();
    assert!(run.join(format!("checkpoint-{last}")).is_dir());
}

#[test]
fn signals_save_the_run_and_give_the_terminal_back() {
    let workspace = workspace();
    let terminal = Terminal::start(&workspace, &ENDLESS, Some("xterm"));
    terminal.shows(ENTER);
    wait_until(|| has(&workspace.path("run"), "step"), "the run has begun");
    kill(Pid::from_raw(terminal.process.0.id() as i32), Signal::SIGTERM).unwrap();
    let (code, after) = terminal.ends();
    assert_eq!(code, 130);
    assert!(after.contains("everything is saved"), "{after}");
    assert!(has(&workspace.path("run"), "saved"));
}

#[test]
fn a_run_is_watched_from_another_terminal_live_and_afterwards() {
    let workspace = workspace();
    let run = workspace.path("run");
    let mut process = Guard(workspace.start(&ENDLESS));
    let mut peer = Peer::attach(&run);
    peer.event("step");
    let mut terminal = Terminal::start(&workspace, &["watch", "run"], Some("xterm-256color"));
    terminal.shows(ENTER);
    std::thread::sleep(Duration::from_millis(500));
    terminal.press("p");
    peer.event("paused");
    terminal.press("q");
    std::thread::sleep(Duration::from_millis(300));
    terminal.press("d");
    assert_eq!(terminal.ends().0, 0);
    assert!(process.0.try_wait().unwrap().is_none(), "the run goes on");
    peer.ask("quit", Some(json!({ "stop": true })));
    wait(&mut process.0);

    let mut terminal = Terminal::start(&workspace, &["watch", "run"], Some("xterm"));
    terminal.shows(ENTER);
    std::thread::sleep(Duration::from_millis(300));
    terminal.press("q");
    assert_eq!(terminal.ends().0, 0);

    let mut terminal = Terminal::start(&workspace, &["compare", "run", "run"], Some("xterm"));
    terminal.shows(ENTER);
    std::thread::sleep(Duration::from_millis(300));
    terminal.press("q");
    assert_eq!(terminal.ends().0, 0);
}

#[test]
fn terminals_without_abilities_get_lines() {
    let workspace = workspace();
    for (name, term, more) in
        [("none", None, None), ("dumb", Some("dumb"), None), ("plain", Some("xterm"), Some("--plain"))]
    {
        let mut arguments = vec!["train", "run.toml", "--run-dir", name];
        arguments.extend(more);
        let mut terminal = Terminal::start(&workspace, &arguments, term);
        assert_eq!(wait(&mut terminal.process.0), 0);
        terminal.shows("8 steps in");
        let text = terminal.text();
        assert!(!text.contains(ENTER), "{text}");
    }
    let mut terminal = Terminal::start(&workspace, &["watch", "plain"], None);
    assert_eq!(wait(&mut terminal.process.0), 2);
    terminal.shows("TERM is not set");
}
