#!/usr/bin/env bash
# Lints the Metal build on a machine without Apple's SDK. Nothing is linked or run.
#
# objc2 and block2 compile off Apple systems with their feature gnustep-2-1 (see metal-typecheck in Cargo.toml).
# objc2-metal links a framework unconditionally, which rustc refuses here: a copy without that one line replaces it
# through a `paths` override, which leaves Cargo.lock as it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# What the feature changes: the library, the program, and the bench and the test that run on Metal.
targets=(--lib --bins --bench step_latency --test devices)

if [[ "$(uname -s)" == Darwin ]]; then
    exec cargo clippy --release --locked --features metal "${targets[@]}" -- -D warnings
fi

fail() {
    printf 'check_metal.sh: %s\n' "$*" >&2
    exit 1
}

# The first value of a string key, or the first one that matches a pattern, in cargo's one-line JSON.
value() {
    grep -o "\"$1\":\"$2\"" <<<"$metadata" | head -n 1 | cut -d '"' -f 4
}

host=$(rustc -vV | sed -n 's/^host: //p')
metadata=$(cargo metadata --locked --format-version 1 --features metal-typecheck --filter-platform "$host")
manifest=$(value manifest_path '[^"]*/objc2-metal-[0-9][^"/]*/Cargo\.toml') || fail 'objc2-metal is not a dependency'
target=$(value target_directory '[^"]*')
original=$(dirname "$manifest")
copy="$target/metal-typecheck/$(basename "$original")"

# An existing copy stays, because cargo compiles files again whose time has changed.
if [[ ! -d "$copy" ]]; then
    link='#[link(name = "Metal", kind = "framework")]'
    source=src/generated/mod.rs
    [[ "$(grep -cFx "$link" "$original/$source")" == 1 ]] || fail "$(basename "$original")/$source no longer holds: $link"
    rm -rf "$copy.partial"
    mkdir -p "$(dirname "$copy")"
    cp -R "$original" "$copy.partial"
    chmod -R u+w "$copy.partial"
    grep -vFx "$link" "$original/$source" >"$copy.partial/$source"
    mv "$copy.partial" "$copy"
fi

exec cargo clippy --release --locked --config "paths=['$copy']" --features metal-typecheck "${targets[@]}" -- -D warnings
