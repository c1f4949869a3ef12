//! Runs to look at: before the start, in the middle, finished, failed, absurd.

use std::path::PathBuf;
use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{Session, State, Theme, render};
use crate::metrics::{
    EvaluationReport, Event, LayerReport, MemoryKind, OperationKindTime, PassCount, Sample, StepReport,
};

pub const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (200, 60)];

/// Noise between -1 and 1 that is the same every time.
fn noise(seed: usize) -> f64 {
    let mixed =
        (seed as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    (mixed >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}

pub fn started(total_steps: usize) -> Event {
    Event::Started {
        run: "glosses-r16".into(),
        model: "SmolLM2-135M-Instruct".into(),
        device: "cpu, 8 threads".into(),
        total_steps,
        first_step: 0,
        total_epochs: 3.0,
        rows: 13_400,
        validation_rows: 412,
        trained_parameters: 4_884_480,
        total_parameters: 139_399_488,
    }
}

pub fn planned(rows: usize, sequence: usize, updates: bool) -> Event {
    let widths: Vec<u32> = (0..412_u32).map(|batch| 1 + (noise(batch as usize) * 7.0).abs() as u32).collect();
    let pass = |name: &str, operations| PassCount { name: name.into(), operations };
    Event::Planned {
        rows,
        sequence,
        updates,
        operations: 1684,
        batches: widths.len(),
        arena_bytes: 180_000 * rows * sequence,
        operations_before: 5210,
        passes: vec![pass("simplify", 4611), pass("fuse", 2209), pass("layout", 1745)],
        widths,
        kernels: 1502,
        plan_ms: 38.2,
    }
}

pub fn step(step: usize, total: usize) -> StepReport {
    let done = step as f64 / total as f64;
    let step_ms = 430.0 + 25.0 * noise(step) + if step.is_multiple_of(97) { 400.0 } else { 0.0 };
    let tokens = (1800.0 + 150.0 * noise(step + 7)) as usize;
    StepReport {
        step,
        epoch: 3.0 * done,
        loss: 1.1 + 2.4 * (-9.0 * done).exp() + 0.18 * noise(step * 3),
        learning_rate: 2e-4
            * (step as f64 / 100.0).min(1.0)
            * 0.5
            * (1.0 + (done * std::f64::consts::PI).cos()),
        grad_norm: 0.8 + 1.5 * (-12.0 * done).exp() + 0.2 * noise(step * 5),
        tokens,
        supervised_tokens: tokens * 2 / 3,
        tokens_per_second: tokens as f64 / step_ms * 1e3,
        step_ms,
        data_wait_ms: 1.2,
        forward_ms: step_ms * 0.31,
        backward_ms: step_ms * 0.62,
        optimizer_ms: step_ms * 0.05,
        eval_ms: if step.is_multiple_of(200) { 2100.0 } else { 0.0 },
        checkpoint_ms: if step.is_multiple_of(400) { 300.0 } else { 0.0 },
        elapsed_seconds: step as f64 * 0.45,
        tokens_seen: step as u64 * 1800,
        rows_seen: step * 8 % 13_400,
        plan_hits: 3 * step as u64,
        plan_misses: 3,
        tensor_hits: 122 * step as u64,
        tensor_misses: 122,
        command_buffers: 0,
    }
}

pub fn evaluation(step: usize, total: usize) -> EvaluationReport {
    let done = step as f64 / total as f64;
    let eval_loss = 1.25 + 1.9 * (-8.0 * done).exp() + 0.02 * noise(step);
    EvaluationReport {
        step,
        epoch: 3.0 * done,
        eval_loss,
        perplexity: eval_loss.exp(),
        supervised_tokens: 40_000,
        eval_ms: 2100.0,
        best: true,
    }
}

pub fn memory(step: usize) -> Event {
    let mib = |planned: u64, measured: u64| (planned << 20, Some(measured << 20));
    let kind = |name: &str, (planned_bytes, measured_bytes)| MemoryKind {
        kind: name.into(),
        planned_bytes,
        measured_bytes,
    };
    Event::Memory {
        step,
        kinds: vec![
            kind("weights", mib(269, 269)),
            kind("trained", mib(19, 19)),
            kind("optimizer", mib(37, 37)),
            kind("activations", mib(702, 731)),
            kind("tensor cache", mib(310, 308)),
        ],
        process_bytes: (1450 << 20) + (step as u64 * 9_973 % (40 << 20)),
        limit_bytes: 4 << 30,
    }
}

pub fn layers(step: usize, count: usize) -> Event {
    let grown = (step as f64 / 300.0).sqrt();
    let layer = |layer: usize| {
        let place = layer as f64 / count as f64;
        LayerReport {
            layer,
            norm: grown * (0.4 + place + 0.15 * noise(layer)),
            update_ratio: 2e-3 / (1.0 + grown) * (1.3 - place + 0.2 * noise(layer + step)),
        }
    };
    Event::Layers { step, layers: (0..count).map(layer).collect() }
}

fn profile(step: usize) -> Event {
    let kinds =
        [("MatMul", 210, 201.0), ("Attention", 60, 96.0), ("CrossEntropy", 2, 61.0), ("RmsNorm", 122, 22.0)];
    let kinds = kinds.into_iter().chain([
        ("SwiGlu", 60, 17.5),
        ("Rope", 120, 9.1),
        ("AdamW", 420, 8.8),
        ("Add", 90, 5.2),
    ]);
    let kinds = kinds.map(|(kind, calls, ms)| OperationKindTime { kind: kind.into(), calls, ms });
    Event::Profile { step, kinds: kinds.collect() }
}

fn sample(step: usize) -> Event {
    Event::Sample(Sample {
        step,
        prompt: "Define love".into(),
        text: "Love is a deep feeling of affection and care, \
               and the wish that another be well.\nIt grows with time."
            .into(),
    })
}

/// Events of `steps` steps with their times.
pub fn events(steps: usize, total: usize) -> Vec<(Duration, Event)> {
    let mut told = vec![started(total), planned(4, 512, true), planned(4, 256, true), planned(8, 512, false)];
    told.push(Event::Notice { message: "3 rows are longer than 512 tokens and are cut".into() });
    told.push(sample(0));
    let mut timed: Vec<_> = told.into_iter().map(|event| (Duration::ZERO, event)).collect();
    for done in 1..=steps {
        let mut told = vec![Event::Step(step(done, total))];
        let due = |every: usize| done.is_multiple_of(every);
        if due(200) {
            told.push(Event::Evaluation(evaluation(done, total)));
        }
        if due(400) {
            told.push(Event::Saved {
                step: done,
                path: format!("runs/glosses-r16/checkpoint-{done}").into(),
            });
            told.push(sample(done));
        }
        if due(50) {
            told.extend([memory(done), layers(done, 30)]);
        }
        if done == 100 {
            told.push(profile(done));
            told.push(Event::Fallback {
                operation: "Attention".into(),
                reason: "no kernel for head_dim 96".into(),
            });
        }
        timed.extend(told.into_iter().map(|event| (Duration::from_millis(done as u64 * 450), event)));
    }
    timed
}

fn applied(events: &[(Duration, Event)], session: Session) -> State {
    let mut state = State::new(session);
    events.iter().for_each(|(at, event)| state.apply(event, *at));
    state
}

pub fn empty() -> State {
    State::default()
}

pub fn middle() -> State {
    applied(&events(1234, 5000), Session::Live { detachable: false })
}

pub fn finished() -> State {
    let mut state = applied(&events(800, 800), Session::Live { detachable: false });
    let path = PathBuf::from("runs/glosses-r16/adapter");
    state.apply(&Event::Finished { steps: 800, seconds: 366.0, path }, Duration::from_secs(366));
    state
}

pub fn failed() -> State {
    let mut state = applied(&events(333, 5000), Session::Live { detachable: true });
    let rows = vec!["train.jsonl:17".into(), "train.jsonl:901".into()];
    let now = Duration::from_secs(151);
    state.apply(&Event::NotFinite { step: 334, loss: f64::NAN, grad_norm: f64::INFINITY, rows }, now);
    state.apply(&Event::Saved { step: 333, path: "runs/glosses-r16/checkpoint-333".into() }, now);
    let message = "loss NaN and gradient norm inf at step 334, on train.jsonl:17, train.jsonl:901".into();
    state.apply(
        &Event::Failed { step: 333, message, hint: Some("lower optimizer.learning_rate".into()) },
        now,
    );
    state
}

/// Everything that could go wrong with a number or a text.
pub fn absurd() -> State {
    let mut state = State::new(Session::Live { detachable: true });
    let wide = "模型🦙a\u{301}👩‍👧‍👦";
    let now = Duration::from_secs(10_000_000);
    let Event::Started { rows, validation_rows, trained_parameters, total_parameters, .. } = started(1)
    else {
        return state;
    };
    state.apply(
        &Event::Started {
            run: wide.repeat(30),
            model: wide.repeat(9),
            device: "dev\u{1b}[31mice\n".into(),
            total_steps: usize::MAX,
            first_step: 0,
            total_epochs: f64::NAN,
            rows,
            validation_rows,
            trained_parameters,
            total_parameters,
        },
        now,
    );
    let values = [1e9, f64::NAN, f64::INFINITY, -1e300, 1e300, 0.0, 36e6, f64::MIN_POSITIVE];
    for (index, &value) in values.iter().cycle().take(200).enumerate() {
        let mut report = step(index + 1, 200);
        (report.loss, report.grad_norm, report.learning_rate) = (value, value, value);
        (report.tokens_per_second, report.step_ms, report.epoch) = (1e9, 36e6, value);
        (report.data_wait_ms, report.forward_ms, report.eval_ms) = (value, -value, value);
        (report.tokens, report.tokens_seen, report.plan_hits) = (usize::MAX, u64::MAX, u64::MAX);
        state.apply(&Event::Step(report), now);
    }
    state.apply(&layers(100, 400), now);
    let odd = |layer| LayerReport { layer, norm: f64::NAN, update_ratio: f64::INFINITY };
    state.apply(&Event::Layers { step: usize::MAX, layers: (0..400).map(odd).collect() }, now);
    state.apply(&layers(150, 400), now);
    let kind = |name: &str| MemoryKind {
        kind: name.into(),
        planned_bytes: u64::MAX,
        measured_bytes: Some(u64::MAX),
    };
    let kinds = (0..40).map(|_| kind(wide)).collect();
    state.apply(&Event::Memory { step: 1, kinds, process_bytes: u64::MAX, limit_bytes: 1 }, now);
    let kinds = (0..300).map(|calls| OperationKindTime { kind: wide.repeat(3), calls, ms: 1e300 }).collect();
    state.apply(&Event::Profile { step: 3, kinds }, now);
    state.apply(&planned(usize::MAX >> 40, 512, true), now);
    let prompt = format!("\u{1b}[2J{}", wide.repeat(40));
    state.apply(&Event::Sample(Sample { step: 1, prompt, text: "漢字\t\r\n".repeat(99) }), now);
    state.apply(&Event::Notice { message: wide.repeat(99) }, now);
    state
}

/// The screen's letters, a row a line.
pub fn screen(state: &State, (wide, high): (u16, u16)) -> String {
    text(&drawn(state, Theme::DARK, (wide, high)))
}

pub fn drawn(state: &State, theme: Theme, (wide, high): (u16, u16)) -> Buffer {
    let mut buffer = Buffer::empty(Rect::new(0, 0, wide, high));
    render(state, theme, &mut buffer);
    buffer
}

pub fn text(buffer: &Buffer) -> String {
    let wide = usize::from(buffer.area.width).max(1);
    let mut text = String::new();
    for row in buffer.content.chunks(wide) {
        let mut column = 0;
        let mut line = String::new();
        while let Some(cell) = row.get(column) {
            line.push_str(cell.symbol());
            column += super::draw::text::width(cell.symbol()).max(1);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
