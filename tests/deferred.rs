//! Steps whose results stay on the device until several are read together: the same run, with fewer waits.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use lazytune::checkpoint;
use lazytune::config;
use lazytune::error::{ErrorKind, Result};
use lazytune::executor::candle::CandleDevice;
use lazytune::executor::{AsyncGraphExecutor, CpuDevice, Device};
use lazytune::metrics::{Event, Recorder, Sink, StepReport};
use lazytune::model::ModelSource;
use lazytune::train::model::OpenModel;
use lazytune::train::setup::setup;
use lazytune::train::{Control, NamedTensors, Trainer, run};
use support::deferring::{Asked, Deferring, Fault};
use support::prepared::workspace;
use support::small_step::{constant_rate, open, small_step, window};
use support::workspace::{Workspace, snapshot};
use support::{block_on, two_threads};

const ROOM: usize = 64;

fn plain() -> Box<dyn Device> {
    Box::new(CpuDevice::new(two_threads()).unwrap())
}

/// A trainer on the small model, which waits for `read_steps` steps together.
async fn trainer(device: Box<dyn Device>, read_steps: usize) -> Trainer {
    let source = Arc::new(ModelSource::open_folder(Path::new("tests/goldens/untied_odd/base")).unwrap());
    let (builder, values, _) = small_step(&source, 0.2);
    let executor = open(device, &source).await;
    let mut trainer = Trainer::new(executor, builder, constant_rate(9), 7, values).await.unwrap();
    trainer.read_steps = read_steps;
    trainer
}

/// What the steps of a run must have in common, to the last bit.
fn told(report: &StepReport) -> (usize, [u64; 3], [usize; 2], u64) {
    let StepReport { step, loss, grad_norm, learning_rate, tokens, supervised_tokens, tokens_seen, .. } =
        report;
    let bits = [loss, grad_norm, learning_rate].map(|value| value.to_bits());
    (*step, bits, [*tokens, *supervised_tokens], *tokens_seen)
}

type Told = Vec<(usize, [u64; 3], [usize; 2], u64)>;

/// Seven steps of `micro_batches` each, and the values they end with.
fn seven_steps(device: Box<dyn Device>, read_steps: usize, micro_batches: u32) -> (Told, NamedTensors) {
    block_on(async {
        let mut trainer = trainer(device, read_steps).await;
        let mut reports = Vec::new();
        for step in 0..7 {
            let strides: Vec<u32> = (0..micro_batches).map(|batch| 3 + 2 * step + batch).collect();
            trainer.submit(&window(&strides), 0.0).await.unwrap();
            if trainer.is_due() {
                trainer.collect().await.unwrap();
            }
            reports.extend(trainer.take_reports());
        }
        trainer.collect().await.unwrap();
        reports.extend(trainer.take_reports());
        assert_eq!(trainer.step, 7);
        (reports.iter().map(told).collect(), trainer.trained_values().await.unwrap())
    })
}

#[test]
fn results_are_waited_for_once_an_interval_and_are_the_same() {
    for micro_batches in [1, 3] {
        let expected = seven_steps(plain(), 5, micro_batches);
        assert_eq!(expected.0.len(), 7);
        for (read_steps, waits) in [(1, 7), (3, 3), (4, 2), (7, 1), (100, 1)] {
            let (device, asked) = Deferring::open(ROOM, Fault::None);
            assert_eq!(seven_steps(device, read_steps, micro_batches), expected);
            assert_eq!(asked.waits(), waits, "{read_steps} steps are read together");
            assert_eq!(asked.runs(), 7 * micro_batches as usize);
        }
    }
}

#[test]
fn a_device_with_little_room_is_waited_for_more_often() {
    let expected = seven_steps(plain(), 1, 3);
    let (device, asked) = Deferring::open(2, Fault::None);
    assert_eq!(seven_steps(device, 7, 3), expected);
    assert_eq!(asked.waits(), 11, "21 runs, two at a time");
}

#[test]
fn a_device_behind_candle_keeps_results() {
    let candle = || Box::new(CandleDevice::new(candle_core::Device::Cpu));
    for micro_batches in [1, 2] {
        assert_eq!(seven_steps(candle(), 3, micro_batches), seven_steps(candle(), 1, micro_batches));
    }
}

#[test]
fn an_evaluation_does_not_disturb_steps_that_were_not_read() {
    let (device, _) = Deferring::open(ROOM, Fault::None);
    let losses = |device, read_steps| {
        block_on(async {
            let mut trainer = trainer(device, read_steps).await;
            for stride in [3, 5, 7] {
                trainer.submit(&window(&[stride]), 0.0).await.unwrap();
            }
            let evaluation = trainer.evaluate(&window(&[9, 11]).batches, 0.0).await.unwrap();
            trainer.collect().await.unwrap();
            let reports: Told = trainer.take_reports().iter().map(told).collect();
            (evaluation.eval_loss.to_bits(), reports)
        })
    };
    assert_eq!(losses(device, 9), losses(plain(), 1));
}

#[test]
fn what_fails_is_told_and_nothing_runs_after_it() {
    let (device, asked) = Deferring::open(ROOM, Fault::Failure(3));
    block_on(async {
        let mut trainer = trainer(device, 9).await;
        for stride in 3..8 {
            trainer.submit(&window(&[stride]), 0.0).await.unwrap();
        }
        let error = trainer.collect().await.unwrap_err();
        assert!(error.kind() == ErrorKind::Device && error.to_string().contains("lost"), "{error}");
        assert_eq!((asked.runs(), trainer.step), (3, 0));
    });
}

/// Keeps events, and asks for a stop when step `stop_at` is told.
struct Kept {
    events: Arc<Mutex<Vec<Event>>>,
    stop_at: usize,
    control: Control,
}

impl Sink for Kept {
    fn event(&mut self, event: &Event) {
        if matches!(event, Event::Step(report) if report.step == self.stop_at) {
            self.control.stop();
        }
        self.events.lock().unwrap().push(event.clone());
    }
}

/// A whole run: how it ended, what it told, and how often its device was waited for.
struct Whole {
    result: Result<PathBuf>,
    events: Vec<Event>,
    waits: usize,
}

impl Whole {
    fn steps(&self) -> Told {
        let step = |event: &Event| match event {
            Event::Step(report) => Some(told(report)),
            _ => None,
        };
        self.events.iter().filter_map(step).collect()
    }

    /// Steps, evaluations, checkpoints and failures, in the order told.
    fn order(&self) -> Vec<String> {
        let line = |event: &Event| match event {
            Event::Step(report) => Some(format!("step {}", report.step)),
            Event::Evaluation(report) => Some(format!("evaluation {} {}", report.step, report.eval_loss)),
            Event::Saved { step, .. } => Some(format!("saved {step}")),
            Event::NotFinite { step, .. } => Some(format!("not finite {step}")),
            _ => None,
        };
        self.events.iter().filter_map(line).collect()
    }
}

/// Trains in `run_dir` of the workspace, with the given device in the place of the configured one.
fn train(
    workspace: &Workspace,
    run_dir: &str,
    device: (Box<dyn Device>, Asked),
    changes: &[&str],
    stop_at: usize,
) -> Whole {
    let base = format!("model.path={:?}", workspace.path("base"));
    let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).chain([base]).collect();
    let config = config::load_with_color(&workspace.path("run.toml"), &changes, false).unwrap();
    let folder = workspace.path(run_dir);
    std::fs::create_dir_all(&folder).unwrap();
    let resume = checkpoint::latest(&folder).unwrap();
    let events = Arc::new(Mutex::new(Vec::new()));
    let control = Control::default();
    let mut recorder = Recorder::default();
    recorder.add(Box::new(Kept { events: events.clone(), stop_at, control: control.clone() }));
    let (device, asked) = device;
    let result = block_on(async {
        let model = OpenModel::open(&config, None).unwrap();
        let loader = model.weight_loader();
        let mut setup = setup(config, model, resume.as_ref(), &mut |_| {}).await.unwrap();
        let mut states = setup.trainer.trained_values().await.unwrap();
        states.extend(setup.trainer.moments().await.unwrap());
        let executor = AsyncGraphExecutor::new(device).unwrap();
        executor.set_weights(loader).await.unwrap();
        executor.set_states(states.into_iter().collect()).await.unwrap();
        executor.observe(Box::new(setup.trainer.clock.clone())).await.unwrap();
        setup.trainer.executor = executor;
        run(setup, &folder, &control, &mut recorder).await
    });
    let events = std::mem::take(&mut *events.lock().unwrap());
    Whole { result, events, waits: asked.waits() }
}

fn on_cpu() -> (Box<dyn Device>, Asked) {
    (plain(), Asked::default())
}

#[test]
fn a_run_is_the_same_however_many_steps_are_read_together() {
    let workspace = workspace();
    for accumulation in ["train.gradient_accumulation_steps=1", "train.gradient_accumulation_steps=2"] {
        let expected = train(&workspace, &format!("cpu{accumulation}"), on_cpu(), &[accumulation], 0);
        let files = snapshot(&workspace.path(&format!("cpu{accumulation}")));
        assert_eq!(expected.steps().len(), 8);
        for read_steps in ["log.read_steps=1", "log.read_steps=3", "log.read_steps=100"] {
            let name = format!("{read_steps}{accumulation}");
            let device = Deferring::open(ROOM, Fault::None);
            let found = train(&workspace, &name, device, &[accumulation, read_steps], 0);
            found.result.as_ref().unwrap();
            assert_eq!(found.steps(), expected.steps());
            assert_eq!(found.order(), expected.order());
            for (path, bytes) in &snapshot(&workspace.path(&name)) {
                // They hold how long evaluations took.
                let timed = path.ends_with("trainer_state.json") || path.ends_with("checksums.json");
                assert!(timed || files[path] == *bytes, "{} differs", path.display());
            }
        }
    }
}

#[test]
fn a_stopped_run_has_told_and_saved_every_step_and_goes_on() {
    let workspace = workspace();
    let whole = train(&workspace, "whole", on_cpu(), &[], 0);
    let changes = ["log.read_steps=3", "train.eval_steps=0", "train.save_steps=0"];
    // The second step is looked at alone: 1, 2, 3 to 5.
    let first = train(&workspace, "parts", Deferring::open(ROOM, Fault::None), &changes, 3);
    assert_eq!(first.result.as_ref().unwrap_err().kind(), ErrorKind::Interrupted);
    assert_eq!(first.order(), ["step 1", "step 2", "step 3", "step 4", "step 5", "saved 5"]);
    let second = train(&workspace, "parts", Deferring::open(ROOM, Fault::None), &changes, 0);
    second.result.as_ref().unwrap();
    assert_eq!([first.steps(), second.steps()].concat(), whole.steps());
    let weights = |run: &str| std::fs::read(workspace.path(run).join("adapter/adapter_model.safetensors"));
    assert_eq!(weights("parts").unwrap(), weights("whole").unwrap());
}

#[test]
fn a_step_that_is_not_finite_is_named_and_saved_is_only_what_was_before() {
    let workspace = workspace();
    let changes = ["log.read_steps=3", "train.eval_steps=0", "train.save_steps=0"];
    // Steps 3 to 5 are read together. After the fourth, the fifth has changed the trained values.
    let fourth = train(&workspace, "fourth", Deferring::open(ROOM, Fault::NotFinite(4)), &changes, 0);
    let error = fourth.result.as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Diverged);
    assert!(error.to_string().contains("step 4") && error.to_string().contains("rows.jsonl:"), "{error}");
    assert!(error.hint_text().unwrap().contains("log.read_steps"), "{error:?}");
    assert_eq!(fourth.order(), ["step 1", "step 2", "step 3", "not finite 4"]);
    assert!(checkpoint::latest(&workspace.path("fourth")).unwrap().is_none());
    // After the fifth, nothing has.
    let fifth = train(&workspace, "fifth", Deferring::open(ROOM, Fault::NotFinite(5)), &changes, 0);
    assert_eq!(fifth.order(), ["step 1", "step 2", "step 3", "step 4", "not finite 5", "saved 4"]);
    assert!(!workspace.path("fifth/adapter").exists() && fifth.waits > 0);
}
