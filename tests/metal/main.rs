//! The Metal kernels on Linux: the same source compiled as C++, its threads run as fibers in several orders, and the
//! results compared with formulas in f64 and with the CPU's kernels. Needs a C++17 compiler, found as `CXX`, `c++`,
//! `g++` or `clang++`.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stdout, reason = "tests that are skipped say so")]

mod checks;
mod compiler;
mod counts;
mod gpu;
mod in_flight;
mod interfaces;
mod memory;
mod mutants;
mod plans;
mod replay;
mod source;
mod training;
mod ways;
