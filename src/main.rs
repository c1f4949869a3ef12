//! Maps the command line's outcome to an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(lazytune::cli::main())
}
