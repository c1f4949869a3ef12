//! What happens in a run, as events: the only vocabulary that the training loop speaks to the outside.

mod event;
mod jsonl;

pub use event::{EvaluationReport, Event, Sample, StepReport};
pub use jsonl::JsonLines;

/// Takes events; anything slow or fallible is the sink's own matter and never the step's.
pub trait Sink: Send {
    fn event(&mut self, event: &Event);
}

/// Hands every event to every sink, in order.
#[derive(Default)]
pub struct Recorder {
    sinks: Vec<Box<dyn Sink>>,
}

impl Recorder {
    pub fn add(&mut self, sink: Box<dyn Sink>) {
        self.sinks.push(sink);
    }

    pub fn record(&mut self, event: &Event) {
        for sink in &mut self.sinks {
            sink.event(event);
        }
    }
}
