//! What is shown where: places of panes, curves of charts, key figures. No colours and no cells.

mod charts;
mod figures;
mod layout;

pub use charts::{learning_rate, gradient_norm, loss, memory, step_time, throughput};
pub use figures::{Figure, figures};
pub use layout::{Layout, Size, layout};
