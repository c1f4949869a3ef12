//! Drawing on cells: text that fits, bars, curves with axes.

pub mod axis;
pub mod bars;
mod braille;
pub mod plot;
pub mod text;
