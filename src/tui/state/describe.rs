//! Events in words, for the log.

use super::log::Weight;
use crate::metrics::Event;
use crate::tui::format;

/// The line of an event; none for what a pane of its own shows.
pub fn entry(event: &Event) -> Option<(Weight, String)> {
    let said = match event {
        Event::Started { model, device, first_step, total_steps, .. } => {
            let from = if *first_step > 0 {
                format!(" from step {}", format::count(*first_step))
            } else {
                String::new()
            };
            (
                Weight::Plain,
                format!("started {model} on {device}{from}, {} steps", format::count(*total_steps)),
            )
        }
        Event::Planned { rows, sequence, operations, batches, arena_bytes, .. } => {
            let memory = format::bytes(*arena_bytes as f64);
            let plan = format!("plan for {rows} x {sequence}: {operations} operations in {batches} batches");
            (Weight::Plain, format!("{plan}, {memory}"))
        }
        Event::Evaluation(report) => {
            let text = format!("validation loss {}", format::number(report.eval_loss));
            if report.best { (Weight::Good, format!("{text}, best so far")) } else { (Weight::Plain, text) }
        }
        Event::Saved { path, .. } => (Weight::Good, format!("saved {}", path.display())),
        Event::Notice { message } => (Weight::Warning, message.clone()),
        Event::Fallback { operation, reason } => {
            (Weight::Warning, format!("{operation} runs as plain operations: {reason}"))
        }
        Event::NotFinite { loss, grad_norm, rows, .. } => {
            let rows = if rows.is_empty() { String::new() } else { format!(", on {}", rows.join(", ")) };
            (Weight::Bad, format!("not a number: loss {loss}, gradient norm {grad_norm}{rows}"))
        }
        Event::LearningRate { scale, learning_rate, .. } => {
            let rate = format::number(*learning_rate);
            (Weight::Plain, format!("learning rate x {} by you, {rate} now", format::number(*scale)))
        }
        Event::Paused { .. } => (Weight::Plain, "paused".to_owned()),
        Event::Resumed { .. } => (Weight::Plain, "resumed".to_owned()),
        Event::Finished { seconds, path, .. } => {
            let took = format::seconds(*seconds);
            (Weight::Good, format!("finished in {took}; result in {}", path.display()))
        }
        Event::Failed { message, hint, .. } => {
            let hint = hint.as_ref().map_or(String::new(), |hint| format!("; {hint}"));
            (Weight::Bad, format!("failed: {message}{hint}"))
        }
        Event::Step(_)
        | Event::Sample(_)
        | Event::Profile { .. }
        | Event::Memory { .. }
        | Event::Layers { .. } => {
            return None;
        }
    };
    Some(said)
}
