//! What is shown where: places of panes, curves of charts, key figures. No colours and no cells.

mod charts;
mod figures;
mod layout;

pub use charts::{gradient_norm, learning_rate, loss, memory, step_time, throughput};
pub use figures::figures;
pub use layout::{Size, layout};
