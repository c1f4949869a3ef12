//! lazytune fine-tunes language models with LoRA.
//!
//! The training step (forward, loss, backward, clipping, optimizer) is one lazy graph. It is built once per batch
//! shape, differentiated and optimized as a graph, scheduled into parallel batches, cached as a plan and replayed
//! every step by the executor. Modules stand in pipeline order:
//!
//! ```text
//! config -> data -> model (emits lazy graph) -> autodiff -> passes -> plan -> executor -> optim -> checkpoint
//!                                                                        \-> metrics -> tui
//! ```

pub mod adapter;
pub mod autodiff;
pub mod bench;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod data;
pub mod error;
pub mod executor;
pub mod generate;
pub mod graph;
pub mod kernels;
pub mod metrics;
pub mod model;
pub mod optim;
pub mod passes;
pub mod plan;
pub mod selftest;
pub mod tensor_file;
pub mod train;
pub mod tui;

pub use error::{Error, ErrorKind, Result, ResultExt};
