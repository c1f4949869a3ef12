//! What the user looks at, and how keys change it.

mod keys;
mod mouse;
mod overlay;
mod slider;
mod text_field;
mod ui;
mod zoom;

pub use overlay::{FACTORS, Overlay};
pub use slider::Slider;
pub use text_field::TextField;
pub use ui::{Pane, Ui};
pub use zoom::Zoom;
