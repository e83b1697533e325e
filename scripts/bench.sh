#!/usr/bin/env bash
# Prints the node's figures beside the limits of this machine, from one run. KVSPACE_BENCH_QUICK=1 for a short one.
# `scripts/bench.sh store` prints what a large store costs; KVSPACE_BENCH_ONLY names one part of it.
# `scripts/bench.sh cluster` prints what three hosts take to agree, each figure with its bar.
set -euo pipefail
cd "$(dirname "$0")/.."
exec cargo bench --locked -p kvspace --bench "${1:-load}"
