#!/usr/bin/env bash
# The documentation's first release on fresh Debian hosts with real systemd: five containers (coordinator, load balancer,
# two web hosts, PostgreSQL with PostGIS) are booted, the units, users and certificates installed as README.md,
# systemd/README.md and docs/database.md say, and releases made under visitors while daemons are restarted, killed and
# reloaded; a migration, a backup, a restore and its undo among them. Every visitor's request must be served.
#
#   scripts/hosts.sh                   Debian 12; --suite trixie for 13
#   scripts/hosts.sh --keep            leaves the hosts running, and says how to come in
#
# As root. The bare system is fetched once (some minutes) and kept in target/hosts.
set -euo pipefail
cd "$(dirname "$0")/.."

suite=bookworm keep=no
while [ $# -gt 0 ]; do
  case $1 in
    --suite) suite=$2; shift 2 ;;
    --keep) keep=yes; shift ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
done
[ "$(id -u)" = 0 ] || { echo "containers need root: sudo scripts/hosts.sh" >&2; exit 2; }

# shellcheck source=scripts/install.sh
. scripts/install.sh
install_missing debootstrap=debootstrap systemd-nspawn=systemd-container ip=iproute2 nsenter=util-linux curl=curl

target=${CARGO_TARGET_DIR:-target}
cargo build --workspace --bins --locked
bin=$(cd "$target/debug" && pwd)
mkdir -p "$target/hosts"
cache=$(cd "$target/hosts" && pwd)
base=$cache/$suite
units=$PWD/systemd

step() { printf '\n== %s\n' "$*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }

# The bare system and its programs; nothing else is there that a host would not have.
included=systemd,systemd-sysv,dbus,haproxy,nginx-light,procps,curl
# These want a system that is there already while they are configured: a system bus, a place for a first database.
later='polkitd postgresql postgresql-postgis'
if [ "$(cat "$base/ready" 2>/dev/null)" != "$included,$later" ]; then
  step "a bare $suite with haproxy, nginx and PostgreSQL (once)"
  rm -rf "$base"
  debootstrap --variant=minbase --include="$included" "$suite" "$base" >"$cache/$suite.log" 2>&1 ||
    fail "debootstrap: see $cache/$suite.log"
  systemd-nspawn --quiet --register=no --keep-unit --pipe --resolv-conf=replace-host --directory="$base" \
    sh -c "LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends $later" \
    >>"$cache/$suite.log" 2>&1 </dev/null || fail "apt-get install $later: see $cache/$suite.log"
  echo "$included,$later" >"$base/ready"
fi

run=$(mktemp -d /var/tmp/pointsman-hosts.XXXXXX)
tag=pm$$
declare -A nspawn leader address=([ops]=10.77.0.2 [lb1]=10.77.0.5 [blue]=10.77.0.11 [green]=10.77.0.12 [db]=10.77.0.21)
visitors=

# Ends exactly what was started here.
end() {
  status=$?
  trap - EXIT
  [ -z "$visitors" ] || kill "$visitors" 2>/dev/null || true
  if [ "$status" != 0 ]; then
    for host in "${!leader[@]}"; do
      echo "---- $host" >&2
      on "$host" journalctl -u 'pointsman-*' -u haproxy -n 25 --no-pager >&2 2>/dev/null || true
    done
  fi
  if [ "$keep" = yes ] && [ "$status" = 0 ]; then
    echo "left running: nsenter -t ${leader[lb1]} -a bash   (lb1; others: ${!leader[*]}: ${leader[*]}); files in $run"
    exit 0
  fi
  for host in "${!nspawn[@]}"; do kill "${nspawn[$host]}" 2>/dev/null || true; done
  for host in "${!nspawn[@]}"; do
    wait "${nspawn[$host]}" 2>/dev/null || true
    umount "$run/$host/root" 2>/dev/null || true
    ip netns del "$tag-$host" 2>/dev/null || true
  done
  ip netns del "$tag" 2>/dev/null || true
  rm -rf "$run"
  exit "$status"
}
trap end EXIT

on() {
  local host=$1
  shift
  nsenter -t "${leader[$host]}" -a env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "$@"
}

# As a power cut would. Not by systemd, whose control groups are not whole in a container.
killed() {
  on "$1" sh -c "kill -KILL \$(systemctl show --property=MainPID --value $2)"
}

until_well() {
  local what=$1
  shift
  for _ in $(seq 300); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.2
  done
  fail "$what does not come: $*"
}

step "five hosts and a network of their own"
ip netns add "$tag"
ip -n "$tag" link set lo up
ip -n "$tag" link add br0 type bridge
ip -n "$tag" addr add 10.77.0.1/24 dev br0
ip -n "$tag" link set br0 up
for host in "${!address[@]}"; do
  ip netns add "$tag-$host"
  ip -n "$tag" link add "v-$host" type veth peer name eth0 netns "$tag-$host"
  ip -n "$tag" link set "v-$host" master br0 up
  ip -n "$tag-$host" link set lo up
  ip -n "$tag-$host" addr add "${address[$host]}/24" dev eth0
  ip -n "$tag-$host" link set eth0 up
  mkdir -p "$run/$host"/{upper,work,root}
  mount -t overlay overlay -o "lowerdir=$base,upperdir=$run/$host/upper,workdir=$run/$host/work" "$run/$host/root"
  root=$run/$host/root
  echo "$host" >"$root/etc/hostname"
  rm -f "$root/etc/machine-id"
  systemd-machine-id-setup --root="$root" >/dev/null 2>&1
  # Daemons are started as the documentation says, and not by their packages.
  for unit in haproxy nginx postgresql; do systemctl --root="$root" disable "$unit" >/dev/null 2>&1; done
  install -m 755 "$bin"/pointsman* -t "$root/usr/bin" 2>/dev/null || true
  rm -f "$root"/usr/bin/*.d
  setsid systemd-nspawn --quiet --register=no --keep-unit --network-namespace-path="/run/netns/$tag-$host" \
    --directory="$root" --boot >"$run/$host.console" 2>&1 </dev/null &
  nspawn[$host]=$!
done
for host in "${!address[@]}"; do
  until_well "$host" pgrep -P "${nspawn[$host]}"
  leader[$host]=$(pgrep -P "${nspawn[$host]}" | head -n 1)
  until_well "systemd of $host" on "$host" systemctl is-active --quiet multi-user.target
done

step "certificates and configuration: pointsman init"
"$bin/pointsman" init --environment production --trust-domain example.org --dir "$run/pki" --coordinator ops=10.77.0.2:7443 \
  --balancer lb1=10.77.0.5:7444 --web blue=10.77.0.11:7444 --web green=10.77.0.12:7444 \
  --database db=10.77.0.21:7444 >/dev/null
sed -i 's/^duration = .*/duration = "4s"/' "$run/pki/hosts/ops/etc/pointsman/environments/production.toml"
printf '\n[activate]\nrestart = ["nginx.service"]\n' >>"$run/pki/hosts/ops/etc/pointsman/environments/production.toml"
sed -i 's/^\[maintenance\]$/&\nhold = "be_hold"/' "$run/pki/hosts/ops/etc/pointsman/environments/production.toml"
sed -i -e 's/^server = .*/server = "127.0.0.1:8080"/' -e 's/^# units = .*/units = ["nginx.service"]/' \
  "$run"/pki/hosts/{blue,green}/etc/pointsman/agent.toml

step "each host by systemd/README.md"
for host in "${!address[@]}"; do
  root=$run/$host/root
  case $host in ops) unit=pointsman-coordinator ;; lb1) unit=pointsman-lb-agent ;; *) unit=pointsman-agent ;; esac
  install -m 644 "$units/pointsman.sysusers" "$root/usr/lib/sysusers.d/pointsman.conf"
  install -m 644 "$units/pointsman.tmpfiles" "$root/usr/lib/tmpfiles.d/pointsman.conf"
  on "$host" systemd-sysusers
  install -m 644 "$units/$unit.service" "$root/usr/lib/systemd/system/"
  cp -r "$run/pki/hosts/$host/etc/." "$root/etc/"
  on "$host" systemd-tmpfiles --create
done
for host in blue green; do
  root=$run/$host/root
  on "$host" install -d -o pointsman-agent -g www-data -m 0755 /var/www/site
  install -D -m 644 "$units/pointsman-agent.service.d/10-role-web.conf" \
    "$root/etc/systemd/system/pointsman-agent.service.d/10-role-web.conf"
  cat >"$root/etc/nginx/sites-available/default" <<'NGINX'
server {
  listen 8080;
  root /var/www/site/current;
}
NGINX
  on "$host" systemctl daemon-reload
  on "$host" systemctl enable --quiet --now nginx pointsman-agent
done
root=$run/lb1/root
install -D -m 644 "$units/haproxy.service.d/pointsman.conf" "$root/etc/systemd/system/haproxy.service.d/pointsman.conf"
# Requests wait in HAProxy while databases are swapped.
install -m 644 "$units/pointsman-hold.lua" "$root/etc/haproxy/"
sed -i 's/^\[haproxy\]$/&\nhold_backend = "be_hold"/' "$root/etc/pointsman/lb-agent.toml"
on lb1 sh -c 'echo "route be_maint:be_maint:0:1" > /var/lib/pointsman/route.map && chown pointsman: /var/lib/pointsman/route.map'
on lb1 pointsman-lb-agent config-snippet --check-path /page.txt --server be_blue=10.77.0.11:8080 \
  --server be_green=10.77.0.12:8080 >"$run/snippet.cfg"
# Parts 1 and 3 belong into sections that Debian's file has already: a file of its own takes them as they are.
{ printf 'defaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n'; cat "$run/snippet.cfg"; } \
  >"$root/etc/haproxy/haproxy.cfg"
on lb1 systemctl daemon-reload
on lb1 haproxy -c -f /etc/haproxy/haproxy.cfg
on lb1 systemctl enable --quiet --now haproxy pointsman-lb-agent

step "the database host by docs/database.md"
on db systemctl enable --quiet --now postgresql
sql() { # DATABASE, statements; as the superuser
  on db setpriv --reuid postgres --regid postgres --clear-groups psql -X -q -A -t -v ON_ERROR_STOP=1 -d "$1" -c "$2"
}
until_well "PostgreSQL" sql postgres 'SELECT 1'
sql postgres "CREATE ROLE site LOGIN; CREATE ROLE reports LOGIN"
sql postgres "CREATE DATABASE site OWNER site"
# A schema for PostGIS and rights on it, as a superuser sets them up.
sql site "CREATE SCHEMA geo; CREATE EXTENSION postgis SCHEMA geo; GRANT USAGE ON SCHEMA geo TO site, reports;
  GRANT SELECT ON ALL TABLES IN SCHEMA geo TO reports; ALTER DATABASE site SET search_path = public, geo"
sql site "SET ROLE site; CREATE TABLE schema_version (version text PRIMARY KEY); INSERT INTO schema_version VALUES ('1.0.0');
  CREATE TABLE features (id serial PRIMARY KEY, name text NOT NULL, at geometry(Point, 4326));
  INSERT INTO features (name, at) SELECT 'feature ' || n, st_setsrid(st_makepoint(n % 180, n % 90), 4326) FROM generate_series(1, 20000) n;
  GRANT SELECT ON features TO reports"
on db su postgres -c 'psql -X -v ON_ERROR_STOP=1 -v database=site -v owner=site -v role=pointsman-agent -d postgres' \
  <"$units/examples/database-role.sql"
on db install -d -o pointsman-agent -g pointsman-agent -m 0700 /var/backups/pointsman
install -D -m 644 "$units/pointsman-agent.service.d/10-role-database.conf" \
  "$run/db/root/etc/systemd/system/pointsman-agent.service.d/10-role-database.conf"
sed -i 's/^user = .*/&\nversion_table = "schema_version"/' "$run/db/root/etc/pointsman/agent.toml"
on db systemctl daemon-reload
on db systemctl enable --quiet --now pointsman-agent

on ops systemctl daemon-reload
on ops systemctl enable --quiet --now pointsman-coordinator

pointsman() {
  ip netns exec "$tag" env POINTSMAN_CONFIG="$run/pki/people/operator-admin/config.toml" "$bin/pointsman" "$@"
}

# What the agent asks before a release.
may_restart() {
  local said
  said=$(on "$1" setpriv --reuid pointsman-agent --regid pointsman-agent --clear-groups \
    systemctl --no-ask-password --job-mode=isolate restart nginx 2>&1) || true
  [[ $said == *"Isolate is only valid"* ]]
}

version() {
  mkdir -p "$run/$1"
  echo "$1" >"$run/$1/page.txt"
  echo "<h1>$1</h1>" >"$run/$1/index.html"
}

serves() {
  local got
  got=$(ip netns exec "$tag" curl -fsS -m 5 -H 'Host: www.example.org' http://10.77.0.5/page.txt)
  [ "$got" = "$1" ] || fail "visitors get \`$got\`, not $1"
}

mkdir -p "$run/migrations"
echo 'CREATE TABLE features (id serial PRIMARY KEY);' >"$run/migrations/v1.0.0.sql"
cat >"$run/migrations/v3.0.0.sql" <<'SQL'
ALTER TABLE features ADD COLUMN colour text;
CREATE TABLE layers (id int PRIMARY KEY, title text NOT NULL);
CREATE INDEX CONCURRENTLY features_at ON features USING gist (at);
SQL

step "an agent that may not restart its unit is found before anything is touched"
for number in 1 2 3 4; do version "v$number"; done
until_well "every agent" pointsman status production
if pointsman deploy production --artifact "$run/v1" --release v0 --yes >"$run/v0.out" 2>&1; then fail "v0 went through"; fi
cat "$run/v0.out"
grep -F "PM0515" "$run/v0.out" >/dev/null || fail "v0 was not refused for the restart"
for host in blue green; do
  on "$host" sh -c 'test ! -e /var/www/site/current' || fail "$host was touched"
  install -m 644 "$units/50-pointsman-agent.rules" "$run/$host/root/etc/polkit-1/rules.d/"
  on "$host" systemctl try-restart polkit
done

step "the first release, and the doctor's word"
for host in blue green; do until_well "polkit's rule on $host" may_restart "$host"; done
pointsman deploy production --artifact "$run/v1" --release v1 --yes
serves v1
pointsman doctor production

step "releases under visitors"
# Each line is the status of one request; whoever waits for longer than five seconds was not served.
ip netns exec "$tag" sh -c 'while :; do
  curl -s -o /dev/null -m 5 -w "%{http_code}\n" -H "Host: www.example.org" http://10.77.0.5/page.txt || true; sleep 0.005
done' >"$run/visits" &
visitors=$!
pointsman deploy production --artifact "$run/v2" --release v2 --yes
serves v2

step "every daemon restarted, killed and reloaded in a release"
pointsman deploy production --artifact "$run/v3" --migrations "$run/migrations" --release v3 --yes &
deploy=$!
for unit in pointsman-lb-agent haproxy; do
  sleep 0.5
  on lb1 systemctl reload "$unit"
done
on ops systemctl restart pointsman-coordinator
on green systemctl restart pointsman-agent
killed db pointsman-agent
killed lb1 pointsman-lb-agent
killed ops pointsman-coordinator
killed blue pointsman-agent
wait "$deploy" || fail "the release of v3 ended with $?"
serves v3
[ "$(sql site "SELECT count(colour) || ' ' || (SELECT count(*) FROM schema_version) FROM features")" = "0 2" ] ||
  fail "the migration is not what it should be: $(sql site 'SELECT * FROM schema_version')"

step "a backup, a restore beside the live database, its swap and the way back"
sql site "UPDATE features SET name = 'damaged' WHERE id <= 300; INSERT INTO features (name) VALUES ('since')"
backup=$(pointsman -o json db list production | sed -n 's/^ *"id": "\(.*\)",*$/\1/p' | head -n 1)
pointsman db verify production --backup "$backup"
pointsman db restore production --backup "$backup"
damaged() { sql site "SELECT count(*) FROM features WHERE name = 'damaged'"; }
[ "$(damaged)" = 300 ] || fail "a restore beside the live database has touched it"
pointsman db restore production --backup "$backup" --accept-loss 100000 --confirm production
[ "$(damaged)" = 0 ] || fail "the restored database is not the live one"
sql site "SET ROLE reports; SELECT count(*) FROM features WHERE st_x(at) > 0; SELECT count(*) FROM geo.spatial_ref_sys" ||
  fail "rights were lost in the restore"
pointsman db restore production --backup "$backup" --undo --confirm production
[ "$(damaged)" = 300 ] || fail "the database from before is not the live one again"
pointsman db restore production --backup "$backup" --settle --confirm production
pointsman db status production
pointsman doctor production

step "a daemon ends when it is asked to, also while the coordinator listens to it"
on lb1 systemctl stop pointsman-lb-agent
on lb1 journalctl -u pointsman-lb-agent --no-pager | grep "did not end in time" >/dev/null && fail "lb-agent left streams open"
on lb1 systemctl start pointsman-lb-agent

step "a version without its page is found and turned back; what failed stands in the log's text"
rm "$run/v4/index.html"
until_well "every agent" pointsman doctor production
if pointsman deploy production --artifact "$run/v4" --release v4 --yes; then fail "v4 went through"; fi
serves v3
on lb1 journalctl POINTSMAN_RELEASE=v4 --no-pager -o cat | grep "PM0401" >/dev/null || fail "no PM0401 in the log of lb1"

step "the way back"
pointsman rollback production
serves v2

kill "$visitors"
wait "$visitors" 2>/dev/null || true
visitors=
made=$(wc -l <"$run/visits")
failed=$(grep -vc '^200$' "$run/visits" || true)
step "$made requests, $failed of them failed"
[ "$failed" = 0 ] || fail "visitors saw it: $(sort "$run/visits" | uniq -c | tr '\n' ' ')"
