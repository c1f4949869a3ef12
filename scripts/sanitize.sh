#!/bin/sh
# Runs the tests of the CPU's kernels, which hold all unsafe code, under the address sanitizer and with the checks of a
# debug build: alignment, overflow, what unsafe functions of the standard library ask for.
#
#   scripts/sanitize.sh [ARGUMENT ...]
#
# Arguments are cargo test's and choose what runs: --lib kernels:: unless there are some, --test engine for whole plans.
# Needs Linux on x86-64 and a nightly compiler (rustup toolchain install nightly). Builds everything anew in
# target/sanitize; kernels run some 20 times slower than in a release build.
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- --lib kernels::
if ! rustc +nightly --version >/dev/null 2>&1; then
    echo "there is no nightly compiler: rustup toolchain install nightly" >&2
    exit 1
fi
export RUSTFLAGS="-Zsanitizer=address" ASAN_OPTIONS="detect_stack_use_after_return=1"
exec cargo +nightly test --no-default-features --target x86_64-unknown-linux-gnu --target-dir target/sanitize "$@"
