use std::collections::VecDeque;
use std::sync::mpsc::{Sender, channel};

use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::*;
use crate::metrics::Event;
use crate::tui::{Channel, Dashboard, Session, State, testing};

fn key(letter: char) -> Input {
    Input::Key(KeyEvent::new(KeyCode::Char(letter), KeyModifiers::NONE))
}

/// Runs a dashboard that is given one key after the other, each after some time without one.
struct Driven {
    dashboard: Dashboard<Channel>,
    terminal: Terminal<TestBackend>,
    sent: Vec<Command>,
    keys: VecDeque<Input>,
}

impl Driven {
    fn new(keys: &str) -> (Self, Sender<Event>) {
        let (sender, events) = channel();
        let state = State::new(Session::Live { detachable: true });
        let terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let dashboard = Dashboard::new(state, Channel::new(events));
        (Self { dashboard, terminal, sent: Vec::new(), keys: keys.chars().map(key).collect() }, sender)
    }

    /// Panics once all keys are used up and the dashboard is still open.
    fn run(&mut self, close_when_ended: bool, interrupted: bool) -> Exit {
        let theme = Theme::MONO;
        let options =
            Options { theme, mouse: false, owns_run: true, close_when_ended, interrupted: &|| interrupted };
        let mut idle = 0;
        let mut keys = |wait: Duration| {
            if wait.is_zero() {
                return Ok(None);
            }
            idle = if self.keys.is_empty() { idle + 1 } else { 0 };
            assert!(idle < 20, "still open");
            Ok(self.keys.pop_front())
        };
        let mut send = |command| self.sent.push(command);
        run(&mut self.terminal, &mut self.dashboard, &mut keys, &mut send, &options).unwrap()
    }
}

#[test]
fn keys_become_commands_and_detaching_closes() {
    let (mut session, _sender) = Driven::new(" ceqd");
    assert_eq!(session.run(false, false), Exit::Detached);
    assert_eq!(session.sent, [Command::Pause, Command::Checkpoint, Command::Evaluate, Command::Detach]);
}

#[test]
fn stopping_waits_for_the_run_and_a_second_wish_does_not() {
    let (mut session, sender) = Driven::new("qs");
    for (_, event) in testing::events(20, 100) {
        sender.send(event).unwrap();
    }
    drop(sender);
    assert_eq!(session.run(false, false), Exit::Ended);
    assert_eq!(session.sent, [Command::Quit { stop: true }]);
    let text = session.terminal.backend().to_string();
    assert!(text.contains("step 20/100"), "{text}");

    let (mut session, _sender) = Driven::new("qsqs");
    assert_eq!(session.run(false, false), Exit::Abandoned);
    assert_eq!(session.sent, [Command::Quit { stop: true }]);
}

#[test]
fn the_end_of_the_run_closes_only_where_that_is_wanted() {
    let finished = Event::Finished { steps: 1, seconds: 1.0, path: "runs/a".into() };
    let (mut session, sender) = Driven::new("");
    sender.send(finished.clone()).unwrap();
    drop(sender);
    assert_eq!(session.run(true, false), Exit::Ended);
    let (mut session, sender) = Driven::new("q");
    sender.send(finished).unwrap();
    drop(sender);
    assert_eq!(session.run(false, false), Exit::Closed);
}

#[test]
fn a_signal_waits_for_the_run() {
    let (mut session, sender) = Driven::new("");
    drop(sender);
    assert_eq!(session.run(false, true), Exit::Interrupted);
}

#[test]
fn a_terminal_may_shrink_to_nothing_and_grow_back() {
    let (mut session, sender) = Driven::new("");
    for (_, event) in testing::events(20, 100) {
        sender.send(event).unwrap();
    }
    for (wide, high) in [(80, 24), (1, 1), (3, 50), (200, 1), (200, 60)] {
        session.terminal.backend_mut().resize(wide, high);
        session.keys = VecDeque::from([Input::Resize(wide, high), key('2'), key('q'), key('d')]);
        assert_eq!(session.run(false, false), Exit::Detached);
    }
    assert!(session.terminal.backend().to_string().contains("step 20/100"));
}

#[test]
fn a_terminal_that_cannot_is_refused() {
    let term = |value: Option<&str>| {
        let value = value.map(str::to_owned);
        check_terminal(move |_| value.clone())
    };
    assert!(term(Some("xterm-256color")).is_ok());
    let error = term(Some("dumb")).unwrap_err();
    assert!(error.hint_text().unwrap().contains("--plain"));
    assert_eq!(term(None).is_err(), cfg!(unix));
}
