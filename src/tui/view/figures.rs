//! The numbers that say how a run is doing.

use crate::tui::draw::bars::sparkline;
use crate::tui::format;
use crate::tui::state::State;
use crate::tui::theme::Role;

/// Values of a sparkline.
const SPARK: usize = 10;
/// Steps that a rate is averaged over.
const WINDOW: usize = 20;

/// A number with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    pub name: &'static str,
    pub value: String,
    /// The last values as small columns, or nothing.
    pub spark: String,
    pub role: Role,
}

/// A figure without a curve; a dash stands for what is not known.
fn figure(name: &'static str, value: Option<String>, role: Role) -> Figure {
    Figure { name, value: value.unwrap_or_else(|| "-".to_owned()), spark: String::new(), role }
}

/// The key figures, the most important first.
pub fn figures(state: &State) -> Vec<Figure> {
    let run = &state.run;
    let last = |pick: fn(&crate::metrics::StepReport) -> f64| run.last.as_ref().map(pick);
    let rates = run.throughput.over(WINDOW);
    let memory = run.memory.history.last().map(|(_, bytes)| format::bytes(bytes));
    let mut loss = figure("loss", run.smoothed.last().map(|(_, loss)| format::number(loss)), Role::Loss);
    loss.spark = sparkline(run.smoothed.tail(SPARK));
    let mut tokens = figure("tok/s", rates.map(|(all, _)| format::compact(all)), Role::Tokens);
    tokens.spark = sparkline(run.tokens_per_second.tail(SPARK));
    let mut step = figure("step", run.latency.quantile(0.5).map(format::ms), Role::Part(1));
    step.spark = sparkline(run.step_ms.tail(SPARK));
    vec![
        loss,
        tokens,
        step,
        figure("p95", run.latency.quantile(0.95).map(format::ms), Role::Part(1)),
        figure(
            "val",
            run.evaluation.as_ref().map(|report| format::number(report.eval_loss)),
            Role::Validation,
        ),
        figure("best", run.best.map(|(_, loss)| format::number(loss)), Role::Best),
        figure("lr", last(|report| report.learning_rate).map(format::number), Role::Rate),
        figure("grad", last(|report| report.grad_norm).map(format::number), Role::Norm),
        figure("mem", memory, Role::Part(5)),
        figure("sup/s", rates.map(|(_, supervised)| format::compact(supervised)), Role::Supervised),
    ]
}
