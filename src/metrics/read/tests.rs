use std::io::Write;

use proptest::prelude::*;

use super::*;
use crate::metrics::{EvaluationReport, StepReport};

fn parse_all(bytes: &[u8]) -> (Vec<Event>, Skipped) {
    let (mut parser, mut events) = (EventParser::default(), Vec::new());
    parser.feed(bytes, &mut |event| events.push(event));
    (events, parser.skipped)
}

#[test]
fn lines_with_and_without_a_kind_are_read() {
    let step = StepReport { step: 3, loss: 1.5, ..StepReport::default() };
    let evaluation = EvaluationReport { step: 3, eval_loss: 1.25, best: true, ..EvaluationReport::default() };
    let mut text = String::new();
    for line in [
        serde_json::to_string(&step).unwrap(),
        serde_json::to_string(&evaluation).unwrap(),
        serde_json::to_string(&Event::Step(step.clone())).unwrap(),
    ] {
        text += &line;
        text.push('\n');
    }
    let (events, skipped) = parse_all(text.as_bytes());
    assert_eq!(events, [Event::Step(step.clone()), Event::Evaluation(evaluation), Event::Step(step)]);
    assert_eq!(skipped, Skipped::default());
}

#[test]
fn an_earlier_versions_step_has_defaults() {
    let (events, _) = parse_all(b"{\"step\":7,\"epoch\":0.5,\"loss\":2.0,\"step_ms\":10}\n");
    let expected = StepReport { step: 7, epoch: 0.5, loss: 2.0, step_ms: 10.0, ..StepReport::default() };
    assert_eq!(events, [Event::Step(expected)]);
}

#[test]
fn a_newer_versions_lines_are_skipped_and_counted() {
    let text = "{\"event\":\"telepathy\",\"step\":1}\n\
                {\"event\":\"notice\",\"message\":\"hm\",\"colour\":\"red\"}\n\
                {\"something\":\"else\"}\n\
                not json\n\
                \n\
                [1]\n\
                {\"step\":2,\"loss\":1.0,\"cut";
    let (events, skipped) = parse_all(text.as_bytes());
    assert_eq!(events, [Event::Notice { message: "hm".into() }]);
    assert_eq!(skipped, Skipped { damaged: 2, unknown: 2 });
}

#[test]
fn not_a_number_survives_json() {
    let step =
        Event::Step(StepReport { step: 1, loss: f64::NAN, grad_norm: f64::INFINITY, ..Default::default() });
    let line = serde_json::to_string(&step).unwrap() + "\n";
    let (events, _) = parse_all(line.as_bytes());
    let [Event::Step(report)] = &events[..] else { panic!("{events:?}") };
    assert!(report.loss.is_nan() && report.grad_norm.is_nan());
}

#[test]
fn a_line_without_end_is_dropped_once() {
    let mut text = vec![b'x'; 3 * LONGEST_LINE];
    text.extend_from_slice(b"\n{\"event\":\"paused\",\"step\":1}\n");
    let (events, skipped) = parse_all(&text);
    assert_eq!(events, [Event::Paused { step: 1 }]);
    assert_eq!(skipped, Skipped { damaged: 1, unknown: 0 });
}

#[test]
fn a_growing_file_is_followed_and_a_rewritten_one_is_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let mut file = File::create(&path).unwrap();
    write!(file, "{{\"event\":\"paused\",\"step\":1}}\n{{\"event\":\"resu").unwrap();
    let mut metrics = MetricsFile::open(folder.path()).unwrap();
    let mut events = Vec::new();
    assert!(!metrics.poll(&mut events).unwrap());
    assert_eq!(events, [Event::Paused { step: 1 }]);
    writeln!(file, "med\",\"step\":1}}").unwrap();
    assert!(!metrics.poll(&mut events).unwrap());
    assert_eq!(events.pop(), Some(Event::Resumed { step: 1 }));
    std::fs::write(&path, "{\"event\":\"paused\",\"step\":5}\n").unwrap();
    events.clear();
    assert!(metrics.poll(&mut events).unwrap());
    assert_eq!(events, [Event::Paused { step: 5 }]);
}

#[test]
fn what_is_no_run_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = MetricsFile::open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("holds no metrics.jsonl"), "{error}");
    let error = MetricsFile::open(&folder.path().join("nothing")).unwrap_err();
    assert!(error.to_string().contains("does not exist"), "{error}");
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_give_the_same(bytes in prop::collection::vec(any::<u8>(), 0..400), piece in 1_usize..50) {
        let mut text = bytes;
        text.extend_from_slice(b"\n{\"event\":\"paused\",\"step\":1}\n{\"a\":1}\n");
        let whole = parse_all(&text);
        let (mut parser, mut events) = (EventParser::default(), Vec::new());
        for part in text.chunks(piece) {
            parser.feed(part, &mut |event| events.push(event));
        }
        prop_assert_eq!((events, parser.skipped), whole);
    }
}
