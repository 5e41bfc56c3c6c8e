#!/usr/bin/env bash
# All checks and tests. Needs nothing prepared: what is missing it installs from Debian, and says so.
#
#   scripts/test.sh            everything
#   scripts/test.sh quick      without the live tests
set -euo pipefail
cd "$(dirname "$0")/.."

scope=${1:-all}
case "$scope" in
  all | quick) ;;
  *) echo "usage: scripts/test.sh [quick]" >&2; exit 2 ;;
esac

# shellcheck source=scripts/install.sh
. scripts/install.sh
install_missing cc=gcc haproxy=haproxy nginx=nginx-light socat=socat systemd-analyze=systemd shellcheck=shellcheck \
  prometheus=prometheus postgres=postgresql '/usr/share/postgresql/*/extension/postgis.control=postgresql-postgis'

step() { printf '\n== %s\n' "$*"; }

step "one crypto stack"
if grep -nE '^name = "(aws-lc-rs|aws-lc-sys|openssl|openssl-sys|native-tls|bindgen|cmake)"' Cargo.lock; then
  echo "a banned crate is in Cargo.lock: see CONTRIBUTING.md" >&2
  exit 1
fi
if command -v cargo-deny >/dev/null; then
  cargo deny --offline check licenses bans sources
fi

step "scripts"
shellcheck -x scripts/*.sh systemd/*.sh .ci/run

step "format"
cargo fmt --all --check

step "clippy"
cargo clippy --workspace --all-targets --test live --test chaos --locked -- -D warnings

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet

step "unit files"
if [ "$(id -u)" = 0 ]; then
  systemd/lint.sh
else
  sudo systemd/lint.sh
fi

step "tests of the parts"
cargo build --workspace --bins --locked
cargo test --workspace --locked

if [ "$scope" = all ]; then
  step "simulated releases: seeds, every crash point, every mutant"
  cargo build --release --locked -p pointsman-sim
  target/release/pointsman-sim --seeds 200000 --output json
  target/release/pointsman-sim --crash-points --pairs 20000 --output json
  target/release/pointsman-sim --mutants --output json

  step "simulated watches: no good release is rolled back"
  cargo build --release --locked -p pointsman-verdict
  target/release/pointsman-verdict --releases 10000 --output json

  step "live tests: real HAProxy, real nginx, the real binaries"
  if ! npm view --silent katex@0.16.21 version >/dev/null 2>&1; then
    echo "skipped: releases of published packages, because npm is missing or has no registry"
  fi
  # Once more, which costs nothing: the tests of the parts may have put programs there that were built for tests.
  cargo build --workspace --bins --locked
  cargo test --workspace --locked --test live --test chaos -- --test-threads=2
fi

step "all passed"
