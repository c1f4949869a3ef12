//! Maps the command line's outcome to an exit code.

use std::process::ExitCode;

use lazytune::kernels::allocations::CountingAllocator;

/// Counts allocations for `lazytune bench`.
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() -> ExitCode {
    ExitCode::from(lazytune::cli::main())
}
