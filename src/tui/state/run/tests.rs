use super::*;
use crate::tui::testing;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_run_is_known_from_its_events() {
    let run = testing::middle().run;
    assert_eq!((run.step, run.tokens_seen), (1234, 1234 * 1800));
    assert_eq!(run.best.map(|(step, _)| step), Some(1200));
    assert!((run.progress() - 0.2468).abs() < 1e-9);
    let eta = run.eta().unwrap().as_secs_f64();
    assert!((eta - 3766.0 * 0.45).abs() < 1.0, "{eta}");
    assert_eq!(run.latency.total(), 1234);
    assert_eq!(run.plans.plans.len(), 3);
    assert_eq!(run.layers.latest().map(|look| look.layers.len()), Some(30));
    assert!((run.smoothed.last().unwrap().1 - run.loss.last().unwrap().1).abs() < 0.3);
}

#[test]
fn tokens_are_counted_where_the_run_does_not() {
    let mut run = Run::default();
    for step in [10, 20, 30] {
        let report = StepReport { step, tokens: 100, ..StepReport::default() };
        run.apply(&Event::Step(report), SECOND);
    }
    assert_eq!(run.tokens_seen, 3000);
    assert_eq!(run.status, Status::Running);
}

#[test]
fn a_resumed_run_goes_on() {
    let mut run = Run::default();
    for (at, event) in testing::events(300, 1000) {
        run.apply(&event, at);
    }
    let Event::Started { run: name, model, device, rows, validation_rows, .. } = testing::started(1000)
    else {
        panic!()
    };
    let resumed = Event::Started {
        run: name,
        model,
        device,
        total_steps: 1000,
        first_step: 200,
        total_epochs: 3.0,
        rows,
        validation_rows,
        trained_parameters: 1,
        total_parameters: 2,
    };
    run.apply(&resumed, SECOND * 999);
    assert_eq!((run.step, &run.status), (200, &Status::Running));
    run.apply(&Event::Step(testing::step(201, 1000)), SECOND * 1000);
    assert_eq!(run.loss.last().map(|(step, _)| step), Some(201.0));
    assert_eq!(run.loss.between(0.0, 1000.0).len(), 201);
}

#[test]
fn a_pause_is_not_part_of_the_pace() {
    let mut run = Run::default();
    let step = |step, seconds| {
        Event::Step(StepReport { elapsed_seconds: f64::from(seconds), ..testing::step(step, 100) })
    };
    run.apply(&testing::started(100), Duration::ZERO);
    for second in 1..=10 {
        run.apply(&step(second as usize, second), SECOND * second);
    }
    run.apply(&Event::Paused { step: 10 }, SECOND * 10);
    assert_eq!((&run.status, run.eta()), (&Status::Paused, None));
    run.apply(&Event::Resumed { step: 10 }, SECOND * 5000);
    run.apply(&step(11, 5001), SECOND * 5001);
    assert_eq!(run.eta().map(|eta| eta.as_secs_f64().round()), Some(89.0));
}

#[test]
fn steps_that_are_told_together_have_the_pace_of_the_run() {
    let mut run = Run::default();
    run.apply(&testing::started(100), Duration::ZERO);
    for step in 1..=40 {
        let report = StepReport { elapsed_seconds: 2.0 * step as f64, ..testing::step(step, 100) };
        let told = SECOND * (step as u32).next_multiple_of(10) * 2;
        run.apply(&Event::Step(report), told);
    }
    assert_eq!(run.eta().map(|eta| eta.as_secs_f64().round()), Some(120.0));
}

#[test]
fn ends_are_told_apart() {
    assert_eq!(
        testing::finished().run.outcome(),
        Some((Weight::Good, "result in runs/glosses-r16/adapter".into()))
    );
    let failed = testing::failed().run;
    assert!(matches!(&failed.status, Status::Failed { hint: Some(_), .. }) && failed.status.ended());
    assert_eq!((failed.outcome().map(|(weight, _)| weight), failed.not_finite), (Some(Weight::Bad), 1));
}

#[test]
fn a_worse_or_odd_evaluation_is_not_the_best() {
    let mut run = Run::default();
    for (step, eval_loss) in [(1, 2.0), (2, f64::NAN), (3, 3.0)] {
        let report = EvaluationReport { step, eval_loss, ..EvaluationReport::default() };
        run.apply(&Event::Evaluation(report), SECOND);
    }
    assert_eq!(run.best, Some((1, 2.0)));
}
