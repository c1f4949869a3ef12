//! The command line: arguments are parsed, resolved, then acted on; one file a subcommand.

mod arguments;
#[cfg(unix)]
mod attached;
mod bench;
mod check;
mod compare;
mod config;
mod dashboard;
mod data;
mod detach;
mod generate;
mod inspect;
mod merge;
mod models;
mod plan;
mod printer;
mod progress;
mod runs;
mod selftest;
mod sinks;
mod train;
mod watch;

pub use arguments::Arguments;

use clap::Parser;

use crate::error::{Error, Result};
use arguments::Command;
use printer::Printer;

/// Parses the process's arguments, runs the command and returns the exit code: 0 done, 1 failed, 2 usage or
/// configuration, 130 interrupted.
pub fn main() -> u8 {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(usage) => {
            // Help and version go to standard output with exit code 0; clap decides.
            let _ = usage.print();
            return u8::try_from(usage.exit_code()).unwrap_or(2);
        }
    };
    let printer = Printer::new(arguments.quiet());
    match run(arguments, &printer) {
        Ok(()) => 0,
        Err(error) => {
            printer.error(&error);
            error.exit_code()
        }
    }
}

fn run(arguments: Arguments, printer: &Printer) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build();
    let runtime =
        runtime.map_err(|error| Error::device(format!("cannot start the asynchronous runtime: {error}")))?;
    match arguments.command {
        Command::Train(arguments) => runtime.block_on(train::run(&arguments, printer)),
        Command::Watch(arguments) => watch::run(&arguments, printer),
        Command::Runs(arguments) => runs::run(&arguments, printer),
        Command::Compare(arguments) => compare::run(&arguments, printer),
        Command::Data(arguments) => data::run(&arguments, printer),
        Command::Plan(arguments) => plan::run(&arguments, printer),
        Command::Bench(arguments) => runtime.block_on(bench::run(&arguments, printer)),
        Command::Selftest(arguments) => runtime.block_on(selftest::run(&arguments, printer)),
        Command::Check(arguments) => check::run(&arguments, printer),
        Command::Generate(arguments) => runtime.block_on(generate::run(&arguments, printer)),
        Command::Merge(arguments) => merge::run(&arguments, printer),
        Command::Models(arguments) => models::run(&arguments, printer),
        Command::Inspect(arguments) => inspect::run(&arguments, printer),
        Command::Config(arguments) => config::run(&arguments, printer),
    }
}
