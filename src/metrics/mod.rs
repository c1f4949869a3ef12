//! What happens in a run, as events: the only vocabulary that the training loop speaks to the outside.

mod bus;
mod command;
mod event;
mod jsonl;
mod number;
mod prometheus;
mod read;
mod reports;
mod tensorboard;

pub use bus::{Buffered, channel};
pub use command::Command;
pub use event::Event;
pub use jsonl::JsonLines;
pub use prometheus::Prometheus;
pub use read::{EventParser, MetricsFile, Skipped};
pub use reports::{
    EvaluationReport, LayerReport, MemoryKind, OperationKindTime, PassCount, Sample, StepReport,
};
pub use tensorboard::TensorBoard;

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
