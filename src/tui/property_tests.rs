use std::time::Duration;

use proptest::prelude::*;
use ratatui::crossterm::event::{
    Event as Input, KeyCode, KeyEvent, KeyModifiers, MouseEvent, MouseEventKind,
};
use ratatui::layout::Rect;

use super::feed::Feed;
use super::testing::{drawn, evaluation, layers, memory, planned, started, step};
use super::*;
use crate::error::Result;
use crate::metrics::{EvaluationReport, Event, OperationKindTime, Sample, StepReport};

struct Nothing;

impl Feed for Nothing {
    fn update(&mut self, _: &mut State, _: Duration) -> Result<bool> {
        Ok(false)
    }

    fn ended(&self) -> bool {
        false
    }
}

#[derive(Debug, Clone)]
enum Action {
    Event(Event),
    Input(Input),
    Draw(u16, u16),
}

fn any_step() -> impl Strategy<Value = Event> {
    let numbers = prop::collection::vec(any::<f64>(), 10);
    (any::<usize>(), numbers, any::<u64>(), 1_usize..5000).prop_map(|(count, numbers, large, ordinary)| {
        let [epoch, loss, learning_rate, grad_norm, rate, step_ms, wait, forward, eval_ms, elapsed] =
            numbers[..]
        else {
            return Event::Step(step(ordinary, 5000));
        };
        if large % 3 > 0 {
            return Event::Step(StepReport { loss, step_ms, ..step(ordinary, 5000) });
        }
        Event::Step(StepReport {
            step: count,
            epoch,
            loss,
            learning_rate,
            grad_norm,
            tokens: count,
            supervised_tokens: count,
            tokens_per_second: rate,
            step_ms,
            data_wait_ms: wait,
            forward_ms: forward,
            eval_ms,
            elapsed_seconds: elapsed,
            tokens_seen: large,
            rows_seen: count,
            plan_hits: large,
            tensor_misses: large,
            command_buffers: large,
            ..StepReport::default()
        })
    })
}

fn any_event() -> impl Strategy<Value = Event> {
    let text = "\\PC{0,30}";
    prop_oneof![
        8 => any_step(),
        1 => (any::<usize>(), any::<f64>()).prop_map(|(step, eval_loss)| Event::Evaluation(EvaluationReport { step, eval_loss, ..evaluation(1, 9) })),
        1 => any::<usize>().prop_map(started),
        1 => (0_usize..1000, 0_usize..1000, any::<bool>()).prop_map(|(rows, sequence, updates)| planned(rows, sequence, updates)),
        1 => (any::<usize>(), text, any::<String>()).prop_map(|(step, prompt, text)| Event::Sample(Sample { step, prompt, text })),
        1 => (0_usize..9999).prop_map(memory),
        1 => (0_usize..9999, 0_usize..500).prop_map(|(step, count)| layers(step, count)),
        1 => (text, any::<u64>(), any::<f64>()).prop_map(|(kind, calls, ms)| Event::Profile { step: 1, kinds: vec![OperationKindTime { kind, calls, ms }; 5] }),
        1 => any::<String>().prop_map(|message| Event::Notice { message }),
        1 => any::<usize>().prop_map(|step| Event::Paused { step }),
        1 => any::<usize>().prop_map(|step| Event::Resumed { step }),
        1 => (any::<usize>(), any::<f64>()).prop_map(|(step, scale)| Event::LearningRate { step, scale, learning_rate: scale }),
        1 => (any::<usize>(), any::<f64>(), text).prop_map(|(steps, seconds, path)| Event::Finished { steps, seconds, path: path.into() }),
        1 => (any::<usize>(), text).prop_map(|(step, message)| Event::Failed { step, message, hint: None }),
        1 => (any::<usize>(), any::<f64>()).prop_map(|(step, loss)| Event::NotFinite { step, loss, grad_norm: loss, rows: Vec::new() }),
    ]
}

fn any_input() -> impl Strategy<Value = Input> {
    let codes = vec![
        KeyCode::Enter,
        KeyCode::Esc,
        KeyCode::Tab,
        KeyCode::BackTab,
        KeyCode::Up,
        KeyCode::Down,
        KeyCode::Left,
        KeyCode::Right,
        KeyCode::Home,
        KeyCode::End,
        KeyCode::PageUp,
        KeyCode::PageDown,
        KeyCode::Backspace,
        KeyCode::Delete,
        KeyCode::F(1),
    ];
    let letters =
        prop_oneof![4 => "[ -~]".prop_map(|text| text.chars().next().unwrap_or(' ')), 1 => any::<char>()];
    let code = prop_oneof![2 => letters.prop_map(KeyCode::Char), 1 => prop::sample::select(codes)];
    let key = (code, prop::bool::weighted(0.05)).prop_map(|(code, control)| {
        let modifiers = if control { KeyModifiers::CONTROL } else { KeyModifiers::NONE };
        Input::Key(KeyEvent::new(code, modifiers))
    });
    let kinds = vec![MouseEventKind::ScrollUp, MouseEventKind::ScrollDown, MouseEventKind::Moved];
    let mouse = (prop::sample::select(kinds), any::<u16>(), 0_u16..60).prop_map(|(kind, column, row)| {
        Input::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE })
    });
    prop_oneof![9 => key, 1 => mouse, 1 => "\\PC{0,9}".prop_map(Input::Paste)]
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        5 => any_event().prop_map(Action::Event),
        5 => any_input().prop_map(Action::Input),
        1 => (0_u16..230, 0_u16..70).prop_map(|(wide, high)| Action::Draw(wide, high)),
        1 => (0_u16..30, 0_u16..30).prop_map(|(wide, high)| Action::Draw(wide, high)),
    ]
}

fn any_session() -> impl Strategy<Value = Session> {
    prop_oneof![
        Just(Session::Live { detachable: true }),
        Just(Session::Live { detachable: false }),
        Just(Session::ReadOnly { reason: "because".into() }),
        Just(Session::Replay),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_events_and_keys_at_any_size_panic(
        session in any_session(),
        slider: bool,
        actions in prop::collection::vec(any_action(), 1..60),
    ) {
        let mut state = State::new(session);
        state.ui.slider = slider.then(|| Slider::at_end(Duration::from_secs(100)));
        let mut dashboard = Dashboard::new(state, Nothing);
        let mut now = Duration::ZERO;
        for action in actions {
            now += Duration::from_millis(700);
            dashboard.update(now)?;
            match action {
                Action::Event(event) => dashboard.state.apply(&event, now),
                Action::Input(input) => {
                    dashboard.input(input, Rect::new(0, 0, 80, 24));
                }
                Action::Draw(wide, high) => {
                    drawn(&dashboard.state, Theme::DARK, (wide, high));
                }
            }
        }
        let buffer = drawn(&dashboard.state, Theme::MONO, (80, 24));
        prop_assert!(buffer.content.iter().all(|cell| !cell.symbol().contains(char::is_control)));
        let mut comparison = Comparison::new(("a".into(), dashboard.state.run.clone()), ("b".into(), dashboard.state.run));
        comparison.input(Input::Key(KeyEvent::new(KeyCode::Tab, KeyModifiers::NONE)), Rect::default());
        let mut buffer = ratatui::buffer::Buffer::empty(Rect::new(0, 0, 120, 40));
        comparison.draw(Theme::LIGHT, &mut buffer);
        svg(&buffer, Theme::LIGHT);
    }
}
