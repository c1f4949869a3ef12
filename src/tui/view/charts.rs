//! Curves of the panes.

use crate::tui::draw::axis::{Scale, Unit};
use crate::tui::draw::plot::{Chart, Curve, Shape};
use crate::tui::state::{Bucket, Series, State};
use crate::tui::theme::Role;

/// Buckets at each end of the order by size that do not stretch the axis: a spike would flatten the rest.
const OUTLIERS: f64 = 0.01;

/// The part of a series that is in view.
fn curve(shape: Shape, role: Role, series: &Series, steps: (f64, f64)) -> Curve {
    Curve { shape, role, points: series.between(steps.0, steps.1) }
}

fn means(curves: &[Curve]) -> impl Iterator<Item = f64> {
    curves.iter().flat_map(|curve| curve.points.iter().map(Bucket::mean))
}

/// Smallest and largest value without outliers.
fn bulk(points: &[Bucket]) -> Vec<f64> {
    let ends = |pick: fn(&Bucket) -> f64| {
        let mut values: Vec<f64> = points.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let (lows, highs) = (ends(|bucket| bucket.min), ends(|bucket| bucket.max));
    let out = (points.len() as f64 * OUTLIERS).ceil() as usize;
    let low = lows.get(out).or(lows.first());
    let high = highs.len().checked_sub(out + 1).and_then(|index| highs.get(index)).or(highs.last());
    low.into_iter().chain(high).copied().collect()
}

/// Raw and smoothed training loss, validation points, the best of them marked.
pub fn loss(state: &State) -> Chart {
    let run = &state.run;
    let steps = state.ui.zoom.window(run.extent());
    let raw = curve(Shape::Band, Role::Raw, &run.loss, steps);
    let bulk = bulk(&raw.points);
    let smooth = curve(Shape::Line, Role::Loss, &run.smoothed, steps);
    let validation = curve(Shape::Marks("◆"), Role::Validation, &run.validation, steps);
    let mut curves = vec![raw, smooth, validation];
    if let Some((step, loss)) = run.best {
        let mut best = Series::default();
        best.push(step as f64, loss);
        curves.push(curve(Shape::Marks("★"), Role::Best, &best, steps));
    }
    let scale = Scale::around(bulk.into_iter().chain(means(&curves[1..])), state.ui.log_scale);
    Chart { curves, steps, scale, unit: Unit::Number }
}

/// All and supervised tokens per second.
pub fn throughput(state: &State) -> Chart {
    let run = &state.run;
    let steps = state.ui.zoom.window(run.extent());
    let curves = vec![
        curve(Shape::Band, Role::Raw, &run.tokens_per_second, steps),
        curve(Shape::Line, Role::Tokens, &run.tokens_per_second, steps),
        curve(Shape::Line, Role::Supervised, &run.supervised_per_second, steps),
    ];
    let scale = Scale::around(means(&curves), false).with_zero();
    Chart { curves, steps, scale, unit: Unit::Count }
}

/// One series as a line, with the range of its values behind.
fn single(state: &State, series: &Series, role: Role, log: bool, unit: Unit) -> Chart {
    let steps = state.ui.zoom.window(state.run.extent());
    let curves = vec![curve(Shape::Band, Role::Raw, series, steps), curve(Shape::Line, role, series, steps)];
    let values = bulk(&curves[0].points);
    Chart { scale: Scale::around(values.into_iter(), log), curves, steps, unit }
}

/// The rate that each step used.
pub fn learning_rate(state: &State) -> Chart {
    let chart = single(state, &state.run.learning_rate, Role::Rate, false, Unit::Number);
    Chart { scale: chart.scale.with_zero(), ..chart }
}

/// The norm before clipping.
pub fn gradient_norm(state: &State) -> Chart {
    single(state, &state.run.grad_norm, Role::Norm, state.ui.log_scale, Unit::Number)
}

/// Milliseconds of each step.
pub fn step_time(state: &State) -> Chart {
    single(state, &state.run.step_ms, Role::Part(1), false, Unit::Ms)
}

/// Bytes of the process.
pub fn memory(state: &State) -> Chart {
    let chart = single(state, &state.run.memory.history, Role::Tokens, false, Unit::Bytes);
    Chart { scale: chart.scale.with_zero(), ..chart }
}
