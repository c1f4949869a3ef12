#!/bin/sh
# Fuzzes the readers of what users bring: configurations, rows, chat templates and GGUF files.
#
#   scripts/fuzz.sh [SECONDS] [TARGET ...]
#
# Each target runs for SECONDS (60), from the corpus in fuzz/corpus; what it finds there stays in a temporary folder. An
# input that panics, takes more than 10 s or more than 1 GB ends the script and is left in fuzz/artifacts. Needs a nightly
# compiler and cargo-fuzz (cargo install cargo-fuzz).
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-60}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- config row template gguf
found=$(mktemp -d)
trap 'rm -rf "$found"' EXIT
for target in "$@"; do
    mkdir -p "$found/$target"
    cargo +nightly fuzz run "$target" "$found/$target" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=512 -print_final_stats=1
done
