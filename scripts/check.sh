#!/usr/bin/env bash
# Everything that must hold before a change is taken. `--full` adds the long rounds.
set -euo pipefail
cd "$(dirname "$0")/.."

full=0
[ "${1:-}" = "--full" ] && full=1
[ -n "${CI:-}" ] && export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${HOME}/.cache/kvspace-target}"

step() { printf '\n== %s\n' "$*"; "$@"; }

step cargo fmt --all --check
step cargo clippy --workspace --all-targets --locked -- -D warnings
step cargo test --workspace --locked
RUSTDOCFLAGS="-D warnings" step cargo doc --workspace --no-deps --locked
if cargo deny --version >/dev/null 2>&1; then
    step cargo deny check bans licenses sources
else
    echo "cargo-deny is not installed: cargo install cargo-deny --locked" >&2
    exit 1
fi
if [ "$full" = 1 ]; then
    KVSPACE_LONG=1 step cargo test --workspace --locked -- --test-threads=2
fi
