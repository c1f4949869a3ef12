#!/usr/bin/env bash
# Draws the README's picture of the dashboard from a real run: trains the quickstart and prints its last screen.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo build --release --locked
run=$(mktemp -d)
trap 'rm -rf "$run"' EXIT
target/release/lazytune train configs/quickstart.toml --quiet --run-dir "$run/quickstart" >/dev/null
# Paths are shown from the repository on, in as much room as they then take.
target/release/lazytune watch "$run/quickstart" --picture 120x40 |
    sed -E "\\#$PWD/|$run/# s# (textLength|lengthAdjust)=\"[^\"]*\"##g; s#($PWD|$run)/##g" >scripts/dashboard.svg
printf 'scripts/dashboard.svg\n'
