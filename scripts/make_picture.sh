#!/usr/bin/env bash
# Draws the README's picture of the dashboard from a real run: trains the quickstart and prints its last screen.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo build --release --locked
run=target/picture
rm -rf "$run"
target/release/lazytune train configs/quickstart.toml --quiet --run-dir "$run/quickstart" >/dev/null
# The model's path is shown from the repository on, in as much room as it then takes.
target/release/lazytune watch "$run/quickstart" --picture 120x40 |
    sed -E "\\#$PWD/# s# (textLength|lengthAdjust)=\"[^\"]*\"##g; s#$PWD/##g" >scripts/dashboard.svg
printf 'scripts/dashboard.svg\n'
