#!/usr/bin/env bash
# Draws the README's picture of the dashboard from a real run: trains the quickstart and prints its last screen.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo build --release --locked
run=target/picture
rm -rf "$run"
target/release/lazytune train configs/quickstart.toml --quiet --run-dir "$run/quickstart" >/dev/null
# Paths are shown from the repository on.
sed -i.absolute "s#$PWD/##g" "$run/quickstart/metrics.jsonl"
target/release/lazytune watch "$run/quickstart" --picture 120x40 >scripts/dashboard.svg
printf 'scripts/dashboard.svg\n'
