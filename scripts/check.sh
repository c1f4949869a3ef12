#!/usr/bin/env bash
# Everything a change has to pass: formatting, lints, the Metal build's types, documentation, tests.
#
# All steps use the release profile, so that lints and documentation share one set of checked dependencies.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step() {
    printf '\n== %s\n' "$*"
    local start=$SECONDS
    "$@"
    printf '== %s: %d s\n' "$1 $2" $((SECONDS - start))
}

step cargo fmt --check
step cargo clippy --release --all-targets --locked -- -D warnings
step cargo clippy --release --lib --test data_parquet --features parquet --locked -- -D warnings
step bash scripts/check_metal.sh
RUSTDOCFLAGS="-D warnings" step cargo doc --release --no-deps --locked
step cargo test --release
printf '\nall checks passed in %d s\n' "$SECONDS"
