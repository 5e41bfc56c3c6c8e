#!/usr/bin/env bash
# Benchmarks, in the release profile unless said otherwise. Each prints one JSON object on standard output; everything
# else goes to standard error.
#
#   scripts/bench.sh switch    from order to verified, beside what a switch cannot be faster than: on a whole site of
#                              real parts on this machine
#   scripts/bench.sh lb        the load balancer's agent: losses, effect, floors, skew, shares, access lines (2 minutes)
#   scripts/bench.sh verdict   false rollbacks and time to notice, beside the rules of other tools: on simulated traffic;
#                              then how long a broken version hurts visitors of a whole site of real parts (2 minutes)
#   scripts/bench.sh restart   how long a release waits for its coordinator that was killed, and what that takes of memory, by the
#                              age of the journal (5 minutes)
#   scripts/bench.sh db        backup, restore and swap of a real database beside the usual shell commands; damaged backups;
#                              and what `migrations` measures (20 minutes)
#   scripts/bench.sh migrations   alone: whom migrations stall, what stands after crashes, which bad ones are stopped
#
# BENCH_SWITCHES=N says how many switches are measured (default 60, for lb 120), BENCH_RATE=N how many requests come per
# second (lb, default 5000), BENCH_RELEASES=N how many good releases are simulated (default 10000: about a minute).
# BENCH_ENTRIES=N is how many entries the oldest journal of restart has (default 1000000).
# BENCH_SCALE=N is the size of db's database in 15 MiB (default 20). BENCH_MIGRATIONS=no leaves the part out of db that is
# `migrations`, which takes most of its time.
# `BENCH_SWITCHES=1000 scripts/bench.sh lb` makes a million requests. What the figures mean stands in their `method`.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  echo "usage: scripts/bench.sh switch|lb|db|migrations|verdict|restart" >&2
  exit 2
}

[ "$#" = 1 ] || usage
# What each benchmark needs: Debian packages as COMMAND=PACKAGE.
case "$1" in
  switch | lb | verdict | restart) needs=(haproxy=haproxy nginx=nginx-light socat=socat) ;;
  migrations) needs=(postgres=postgresql '/usr/share/postgresql/*/extension/postgis.control=postgresql-postgis') ;;
  db) needs=(postgres=postgresql '/usr/share/postgresql/*/extension/postgis.control=postgresql-postgis' gzip=gzip) ;;
  *) usage ;;
esac
case "${BENCH_RELEASES:-10000}" in
  *[!0-9]* | 0) echo "BENCH_RELEASES must be a number of at least 1" >&2; usage ;;
esac
case "${BENCH_SWITCHES:-60}" in
  *[!0-9]* | 0 | 1) echo "BENCH_SWITCHES must be a number of at least 2" >&2; usage ;;
esac
case "${BENCH_ENTRIES:-1000000}" in
  *[!0-9]* | ? | ?? | ??? | ????) echo "BENCH_ENTRIES must be a number of at least 10000" >&2; usage ;;
esac
case "${BENCH_SCALE:-20}" in
  *[!0-9]* | 0) echo "BENCH_SCALE must be a number of at least 1" >&2; usage ;;
esac
case "${BENCH_RATE:-5000}" in
  *[!0-9]* | ? | ??) echo "BENCH_RATE must be a number of at least 100" >&2; usage ;;
esac

# shellcheck source=scripts/install.sh
. scripts/install.sh
install_missing cc=gcc "${needs[@]}" >&2

echo "== build (release: the first time it takes minutes)" >&2
if [ "$1" = verdict ]; then
  cargo build --release --locked --quiet -p pointsman-verdict >&2
fi
migrations=${CARGO_TARGET_DIR:-target}/debug/examples/migration-figures
if [ "$1" = migrations ] || { [ "$1" = db ] && [ "${BENCH_MIGRATIONS:-yes}" != no ]; }; then
  # Crashes happen at failpoints, which the release profile does not have; nothing here depends on the profile's speed.
  cargo build --locked --quiet -p pointsman-database --example migration-figures >&2
fi
if [ "$1" = migrations ]; then
  exec "$migrations"
fi
cargo build --release --locked --quiet -p pointsman-cli -p pointsman-coordinator -p pointsman-agent \
  -p pointsman-lb-agent -p pointsman-tests --bin pointsman --bin pointsman-coordinator --bin pointsman-agent \
  --bin pointsman-lb-agent --bin pointsman-bench >&2

if [ "${BENCH_MIGRATIONS:-yes}" = no ]; then
  unset BENCH_MIGRATIONS
else
  export BENCH_MIGRATIONS=$migrations
fi
exec "${CARGO_TARGET_DIR:-target}/release/pointsman-bench" "$1"
