use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Rect;

use super::testing::{SIZES, absurd, drawn, empty, events, failed, finished, middle, screen, text};
use super::*;

fn scenarios() -> [(&'static str, State); 5] {
    [
        ("empty", empty()),
        ("middle", middle()),
        ("finished", finished()),
        ("failed", failed()),
        ("absurd", absurd()),
    ]
}

fn check(name: &str, screen: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_omit_expression(true);
    settings.set_prepend_module_to_snapshot(false);
    settings.bind(|| insta::assert_snapshot!(name, screen));
}

fn check_sizes(name: &str, state: &State) {
    for size in SIZES {
        check(&format!("{name}_{}x{}", size.0, size.1), &screen(state, size));
    }
}

fn press(state: &mut State, keys: &str) {
    for letter in keys.chars() {
        let code = if letter == '\n' { KeyCode::Enter } else { KeyCode::Char(letter) };
        state.key(KeyEvent::new(code, KeyModifiers::NONE));
    }
}

#[test]
fn whole_screens() {
    for (name, state) in scenarios() {
        check_sizes(&format!("screen_{name}"), &state);
    }
}

#[test]
fn every_pane_in_every_scenario() {
    for pane in Pane::ALL {
        let mut all = String::new();
        for (name, mut state) in scenarios() {
            state.ui.focus = pane;
            all += &format!("{name}\n{}\n", screen(&state, SIZES[0]));
        }
        check(&format!("pane_{}_80x24", pane.name().to_lowercase()), &all);
    }
}

#[test]
fn every_pane_enlarged() {
    let mut state = middle();
    state.ui.maximised = true;
    for pane in Pane::ALL {
        state.ui.focus = pane;
        for size in &SIZES[1..] {
            let name = format!("enlarged_{}_{}x{}", pane.name().to_lowercase(), size.0, size.1);
            check(&name, &screen(&state, *size));
        }
    }
}

#[test]
fn every_dialog() {
    for (name, keys) in [
        ("help", "?"),
        ("quit", "q"),
        ("stop", "x"),
        ("prompt", "sWhat is 漢字, and who wrote"),
        ("rate", "r++"),
    ] {
        let mut state = middle();
        press(&mut state, keys);
        check_sizes(&format!("dialog_{name}"), &state);
    }
    let mut state = middle();
    state.session = Session::ReadOnly { reason: "it belongs to another user".into() };
    press(&mut state, "c?");
    check("dialog_help_read_only_80x24", &screen(&state, SIZES[0]));
}

#[test]
fn zoomed_panned_and_logarithmic() {
    let mut state = middle();
    press(&mut state, "++hy");
    check("zoomed_80x24", &screen(&state, SIZES[0]));
    press(&mut state, "c");
    check("message_80x24", &screen(&state, SIZES[0]));
}

#[test]
fn a_replay_has_a_slider() {
    let mut recording = Recording::default();
    events(800, 800).into_iter().for_each(|(_, event)| recording.push(event));
    let mut player = Player::new(recording);
    let mut state = player.state();
    if let Some(slider) = &mut state.ui.slider {
        slider.position = slider.length / 3;
    }
    player.update(&mut state, Duration::ZERO).unwrap();
    check_sizes("replay", &state);
}

#[test]
fn two_runs_compared() {
    let (one, mut other) = (finished().run, middle().run);
    other.best = None;
    let names = ("runs/glosses-r16".to_owned(), "runs/模型-r8".to_owned());
    let comparison = Comparison::new((names.0, one), (names.1, other));
    for (wide, high) in SIZES {
        let mut buffer = Buffer::empty(Rect::new(0, 0, wide, high));
        comparison.draw(Theme::DARK, &mut buffer);
        check(&format!("comparison_{wide}x{high}"), &text(&buffer));
    }
}

#[test]
fn small_terminals_get_text() {
    let mut all = String::new();
    for size in [(39, 12), (12, 4), (1, 1)] {
        all += &format!("{}x{}\n{}\n", size.0, size.1, screen(&middle(), size));
    }
    check("tiny", &all);
}

#[test]
fn themes_differ_in_colours_only_and_one_has_none() {
    for (_, state) in scenarios() {
        for size in SIZES {
            let [dark, light, mono] =
                [Theme::DARK, Theme::LIGHT, Theme::MONO].map(|theme| drawn(&state, theme, size));
            assert_eq!(text(&dark), text(&light));
            let reset = ratatui::style::Color::Reset;
            assert!(mono.content.iter().all(|cell| cell.fg == reset && cell.bg == reset));
        }
    }
}

#[test]
fn escape_sequences_in_data_do_not_reach_the_terminal() {
    for size in SIZES {
        let buffer = drawn(&absurd(), Theme::DARK, size);
        assert!(buffer.content.iter().all(|cell| !cell.symbol().contains(char::is_control)));
    }
}
