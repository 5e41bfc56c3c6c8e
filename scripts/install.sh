# shellcheck shell=bash
# To be sourced. Installs Debian packages that are missing, says which, asks nothing, and lets no service of theirs
# start: what ran before goes on running, and nothing else.

# Runs a command as root.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  else
    sudo "$@"
  fi
}

# Where Debian keeps the programs of the newest PostgreSQL server: not in anybody's path. Empty where there is none.
postgresql_bin() {
  local found
  found=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
  [ ! -x "$found/postgres" ] || echo "$found"
}

# Whether a command, or a file that a pattern finds, is there. Debian keeps daemons in /usr/sbin, which is not in
# everybody's path.
is_there() { # COMMAND|PATTERN
  case "$1" in
    /*) compgen -G "$1" >/dev/null ;;
    *) PATH="$PATH:/usr/sbin:/sbin:$(postgresql_bin)" command -v "$1" >/dev/null ;;
  esac
}

# install_missing COMMAND=PACKAGE... or PATTERN=PACKAGE...
install_missing() {
  local pair packages=()
  for pair in "$@"; do
    if ! is_there "${pair%%=*}"; then
      packages+=("${pair#*=}")
    fi
  done
  export PATH="$PATH:/usr/sbin:/sbin"
  [ "${#packages[@]}" = 0 ] && return 0
  echo "== install ${packages[*]} (Debian packages)"
  local guard=/usr/sbin/policy-rc.d mine=no log
  log=$(mktemp)
  if [ ! -e "$guard" ]; then
    # Debian's own way to say: install, but start nothing.
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$guard" >/dev/null
    as_root chmod 755 "$guard"
    mine=yes
    # Also when somebody interrupts: with the guard in place no package could start its service any more.
    trap 'as_root rm -f /usr/sbin/policy-rc.d; exit 130' INT TERM
  fi
  local code=0
  {
    as_root apt-get -q update &&
      as_root env DEBIAN_FRONTEND=noninteractive apt-get -qy --no-install-recommends install "${packages[@]}"
  } >"$log" 2>&1 || code=$?
  if [ "$mine" = yes ]; then
    as_root rm -f "$guard"
    trap - INT TERM
  fi
  if [ "$code" != 0 ]; then
    tail -n 20 "$log" >&2
    echo "could not install ${packages[*]}" >&2
    return "$code"
  fi
  rm -f "$log"
  # Newly installed services would start at the next boot; they are not wanted for themselves.
  local service
  for service in haproxy nginx postgresql prometheus; do
    for pair in "${packages[@]}"; do
      if [ "${pair%%-*}" = "$service" ] && [ -d /run/systemd/system ]; then
        as_root systemctl --quiet disable "$service" || true
      fi
    done
  done
}
