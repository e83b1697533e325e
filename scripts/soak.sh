#!/usr/bin/env bash
# Simulated clusters from ever new seeds for so many hours (1). A failing seed prints the line that replays it.
set -euo pipefail
cd "$(dirname "$0")/.."

hours="${1:-1}"
end=$(($(date +%s) + $(printf '%.0f' "$(echo "$hours * 3600" | bc)")))
from="${KVSPACE_SOAK_FROM:-$(($(date +%s) % 1000000 * 1000))}"
step=500

cargo test --release --locked -p kvspace-protocol --test simulation --no-run
while [ "$(date +%s)" -lt "$end" ]; do
    KVSPACE_SEEDS="$from..$((from + step))" cargo test --release --locked -q -p kvspace-protocol --test simulation -- \
        all_hosts_are_equal --nocapture
    from=$((from + step))
done
