#!/usr/bin/env bash
# Releases that are disturbed by chance, on a whole site of real parts on this machine, while visitors use it by two load
# balancers: daemons are killed at every place and from outside, stopped, and either HAProxy with them. Ends at the first thing that is not as it
# must be, with the seed, what was done so far and the journal of the release. Prints one JSON object on standard
# output; everything else goes to standard error.
#
#   scripts/chaos.sh --minutes M            for so long
#   scripts/chaos.sh --minutes M --seed S   the same releases and blows again; when each falls is up to the machine
#
# What the figures mean stands in their `method`. Debug builds: those that people install have no places to be killed at.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  echo "usage: scripts/chaos.sh --minutes M [--seed S]" >&2
  exit 2
}

case "$# ${1:-} ${3:-}" in
  "2 --minutes " | "4 --minutes --seed") ;;
  *) usage ;;
esac

# shellcheck source=scripts/install.sh
. scripts/install.sh
install_missing cc=gcc haproxy=haproxy nginx=nginx-light >&2

echo "== build (the first time it takes minutes)" >&2
cargo build --locked --quiet -p pointsman-cli -p pointsman-coordinator -p pointsman-agent -p pointsman-lb-agent \
  -p pointsman-tests --bin pointsman --bin pointsman-coordinator --bin pointsman-agent --bin pointsman-lb-agent \
  --bin pointsman-chaos >&2

exec "${CARGO_TARGET_DIR:-target}/debug/pointsman-chaos" "$@"
