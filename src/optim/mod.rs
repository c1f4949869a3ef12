//! The optimizer's part of the step's graph, and the schedule of its learning rate.

mod schedule;
mod update;

pub use schedule::{Schedule, ScheduleShape};
pub use update::{AdamW, Update, accumulated, first_moment_name, gradient_name, second_moment_name};
