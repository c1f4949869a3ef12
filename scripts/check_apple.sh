#!/usr/bin/env bash
# Checks the Metal build for the target aarch64-apple-darwin on another system: unlike check_metal.sh it sees what
# depends on the target, and changes no dependency. Nothing is linked or run. Minutes where nothing is compiled yet.
#
# C code of dependencies is not compiled, because a check needs none of it: a compiler that leaves empty files, and an
# archiver that does nothing, stand in for Apple's. The feature hub, whose TLS library insists on a real one, is left out.
#
# The standard library is checked from its sources. They have to be those of the installed rustc: `rustup component add
# rust-src`, or RUST_LIBRARY=DIR with the folder library/ of a source package of the same version.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    printf 'check_apple.sh: %s\n' "$*" >&2
    exit 1
}

version=$(rustc -vV | sed -n 's/^release: //p')
library=${RUST_LIBRARY:-$(rustc --print sysroot)/lib/rustlib/src/rust/library}
[[ -f "$library/std/Cargo.toml" && -f "$library/Cargo.lock" ]] ||
    fail "$library has no sources of the standard library of rustc $version: rustup component add rust-src, or set RUST_LIBRARY"

# -Zbuild-std is for nightly compilers; RUSTC_BOOTSTRAP lets a stable one have it. The second variable is where cargo
# looks for the library's sources instead of the toolchain's folder.
export RUSTC_BOOTSTRAP=1 __CARGO_TESTS_ONLY_SRC_ROOT="$library"

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
cat >"$tools/cc" <<'END'
#!/bin/sh
while [ $# -gt 0 ]; do
    if [ "$1" = -o ]; then : >"$2"; fi
    shift
done
END
chmod +x "$tools/cc"
export CC_aarch64_apple_darwin="$tools/cc" AR_aarch64_apple_darwin=true

cargo check --release --locked -Zbuild-std --target aarch64-apple-darwin --no-default-features --features metal \
    --lib --bins "$@"
