use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Rect;

use super::*;
use crate::metrics::Event;
use crate::tui::input::Slider;
use crate::tui::testing;

fn press(state: &mut State, code: KeyCode) -> Option<Command> {
    state.key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn letters(state: &mut State, text: &str) -> Vec<Command> {
    text.chars().filter_map(|letter| press(state, KeyCode::Char(letter))).collect()
}

fn live() -> State {
    let mut state = State::new(Session::Live { detachable: false });
    state.apply(&testing::started(100), Duration::ZERO);
    state
}

#[test]
fn pausing_follows_what_the_run_says() {
    let mut state = live();
    assert_eq!(letters(&mut state, " "), [Command::Pause]);
    assert_eq!(state.ui.message(), Some("pausing after this step"));
    state.apply(&Event::Paused { step: 1 }, Duration::ZERO);
    assert_eq!(letters(&mut state, "p"), [Command::Resume]);
    state.ui.tick(Duration::from_secs(60));
    assert_eq!(state.ui.message(), None);
}

#[test]
fn a_prompt_is_typed_in() {
    let mut state = live();
    assert_eq!(letters(&mut state, "squit? 漢字"), []);
    state.paste("\nmore");
    assert_eq!(press(&mut state, KeyCode::Enter), Some(Command::Sample("quit? 漢字 more".into())));
    assert_eq!(state.ui.overlay, None);
    letters(&mut state, "s  ");
    assert_eq!(press(&mut state, KeyCode::Enter), None);
    assert!(state.ui.overlay.is_some());
    press(&mut state, KeyCode::Esc);
    assert_eq!(state.ui.overlay, None);
}

#[test]
fn the_learning_rate_is_changed_by_a_factor() {
    let mut state = live();
    letters(&mut state, "r");
    press(&mut state, KeyCode::Up);
    press(&mut state, KeyCode::Up);
    assert_eq!(press(&mut state, KeyCode::Enter), Some(Command::ScaleLearningRate(1.25)));
}

#[test]
fn leaving_a_run_asks_first() {
    let mut state = live();
    assert_eq!(letters(&mut state, "qn"), []);
    assert_eq!(letters(&mut state, "qd"), []);
    assert_eq!(state.ui.message(), Some("to detach, start the run with --detach"));
    assert_eq!(letters(&mut state, "s"), [Command::Quit { stop: true }]);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(state.key(control_c), None);
    assert_eq!(state.key(control_c), Some(Command::Quit { stop: true }));
    assert_eq!(letters(&mut state, "xn"), []);
    assert_eq!(letters(&mut state, "xy"), [Command::StopKeepBest]);
    state.session = Session::Live { detachable: true };
    assert_eq!(letters(&mut state, "qd"), [Command::Detach]);
}

#[test]
fn what_cannot_be_steered_says_why() {
    let read_only = Session::ReadOnly { reason: "it belongs to another user".into() };
    for (session, reason) in [(read_only, "another user"), (Session::Replay, "replay")] {
        let mut state = live();
        state.session = session;
        for letter in ['p', 'c', 'e', 's', 'x', 'r'] {
            state.ui.said = None;
            assert_eq!(press(&mut state, KeyCode::Char(letter)), None);
            assert!(state.ui.message().unwrap().contains(reason));
            assert_eq!(state.ui.overlay, None);
        }
        assert_eq!(letters(&mut state, "q"), [Command::Quit { stop: false }]);
    }
    let mut state = testing::finished();
    assert_eq!(letters(&mut state, "cq"), [Command::Quit { stop: false }]);
}

#[test]
fn a_replay_is_moved_with_arrows() {
    let mut state = live();
    state.session = Session::Replay;
    state.ui.slider = Some(Slider::at_end(Duration::from_secs(100)));
    press(&mut state, KeyCode::Left);
    assert_eq!(state.ui.slider.as_ref().unwrap().position, Duration::from_secs(98));
    press(&mut state, KeyCode::Home);
    letters(&mut state, "> ");
    let slider = state.ui.slider.unwrap();
    assert!(slider.playing && slider.position.is_zero() && slider.speed() == 20);
}

#[test]
fn focus_zoom_and_scrolling() {
    let mut state = testing::middle();
    letters(&mut state, "9kkj");
    assert_eq!((state.ui.focus, state.ui.scroll), (Pane::Events, 1));
    press(&mut state, KeyCode::Tab);
    assert_eq!((state.ui.focus, state.ui.scroll), (Pane::Loss, 0));
    press(&mut state, KeyCode::BackTab);
    assert_eq!(state.ui.focus, Pane::Events);
    letters(&mut state, "++h");
    let (from, to) = state.ui.zoom.window(state.run.extent());
    assert!(to < 1234.0 && to - from < 400.0);
    letters(&mut state, "0");
    assert_eq!(state.ui.zoom.window(state.run.extent()), (1.0, 1234.0));
}

#[test]
fn the_mouse_focuses_and_zooms() {
    let mut state = testing::middle();
    let area = Rect::new(0, 0, 200, 60);
    let mouse = |kind, column, row| MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE };
    state.mouse(mouse(MouseEventKind::Down(MouseButton::Left), 190, 55), area);
    assert_eq!(state.ui.focus, Pane::Events);
    state.mouse(mouse(MouseEventKind::ScrollUp, 190, 55), area);
    assert_eq!(state.ui.scroll, 3);
    state.mouse(mouse(MouseEventKind::ScrollUp, 10, 10), area);
    assert_eq!(state.ui.zoom.level, 1);
    state.mouse(mouse(MouseEventKind::Down(MouseButton::Left), 12, 2), Rect::new(0, 0, 80, 24));
    assert_eq!(state.ui.focus, Pane::Throughput);
}
