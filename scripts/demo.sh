#!/usr/bin/env bash
# One command that shows it all: real HAProxy, real nginx for blue and green, a real PostgreSQL, the coordinator and the
# agents on this machine with real mutual TLS, and 400 visitors. Two releases reach a tenth of the visitors first and then all of them,
# HAProxy is reloaded in the middle of one, and then there is the way back.
#
#   scripts/demo.sh            runs and cleans up
#   scripts/demo.sh --keep     leaves everything running and says how to use it
#
# Everything it starts it stops, by process id. Its files are in one temporary folder.
set -euo pipefail
cd "$(dirname "$0")/.."

keep=no
case "${1:-}" in
  "") ;;
  --keep) keep=yes ;;
  *) echo "usage: scripts/demo.sh [--keep]" >&2; exit 2 ;;
esac

# shellcheck source=scripts/install.sh
. scripts/install.sh
install_missing cc=gcc haproxy=haproxy nginx=nginx-light postgres=postgresql
pg=$(postgresql_bin)

echo "== build"
cargo build --locked --quiet -p pointsman-cli -p pointsman-coordinator -p pointsman-agent -p pointsman-lb-agent \
  -p pointsman-tests --bin pointsman --bin pointsman-coordinator --bin pointsman-agent --bin pointsman-lb-agent \
  --bin pointsman-visitors
target=${CARGO_TARGET_DIR:-target}
bin=$(cd "$target/debug" && pwd)
mkdir -p "$target/demo"
summary=$(cd "$target/demo" && pwd)/summary.json

dir=$(mktemp -d /tmp/pointsman-demo.XXXXXX)
pids=()
releasing= # a command that follows a release

stop_all() {
  # The last started ends first: whoever depends on another goes before it.
  local i
  [ -z "$releasing" ] || kill -TERM "$releasing" 2>/dev/null || true
  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
    kill -TERM "${pids[i]}" 2>/dev/null || true
  done
  for pid in "${pids[@]}"; do
    wait "$pid" 2>/dev/null || true
  done
  pids=()
}

finish() {
  local code=$?
  trap - EXIT INT TERM
  if [ "$code" = 130 ] || [ "$code" = 143 ]; then
    stop_all
    rm -rf "$dir"
  elif [ "$code" -ne 0 ]; then
    echo "== the demo failed; the end of each log:" >&2
    tail -n 8 "$dir"/log/*.log >&2 || true
    stop_all
    echo "== its files are still in $dir" >&2
  elif [ "$keep" = no ]; then
    stop_all
    rm -rf "$dir"
  fi
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

start() { # NAME COMMAND...
  local name=$1
  shift
  "$@" >"$dir/log/$name.log" 2>&1 </dev/null &
  pids+=("$!")
}

# Waits for a condition, at most 15 seconds.
await() { # WHAT COMMAND...
  local what=$1 tries=0
  shift
  until "$@" >/dev/null 2>&1; do
    tries=$((tries + 1))
    if [ "$tries" -gt 150 ]; then
      echo "gave up waiting for $what" >&2
      return 1
    fi
    sleep 0.1 # a pause between two looks at the condition above
  done
}

listens() { (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; }

# A port that nobody uses on any of our addresses.
free_port() {
  local port=$1
  while listens 127.0.0.1 "$port" || listens 127.0.0.2 "$port" || listens 127.0.0.11 "$port" || listens 127.0.0.12 "$port"; do
    port=$((port + 1))
  done
  echo "$port"
}

site_port=$(free_port 18080)
agent_port=$(free_port 17444)
log_port=$(free_port 15515)
lb=127.0.0.2 blue=127.0.0.11 green=127.0.0.12 db=127.0.0.1 coordinator=127.0.0.1
db_port=$(free_port $((agent_port + 1)))

echo "== certificates and configuration in $dir"
mkdir -p "$dir"/{log,run,state/{coordinator,lb1,blue,green,db,migrations},backups,site/{blue,green},environments}
"$bin/pointsman" init --environment production --trust-domain example.org --dir "$dir/pki" \
  --coordinator "coordinator=$coordinator:$agent_port" --balancer "lb1=$lb:$agent_port" \
  --web "blue=$blue:$agent_port" --web "green=$green:$agent_port" \
  --database "db=$db:$db_port" --ci pipeline >/dev/null 2>&1

pki_of() { # HOST DAEMON
  local base="$dir/pki/hosts/$1/etc/pointsman/pki"
  printf '[pki]\ncert = "%s"\nkey = "%s"\nca = "%s"\n' "$base/$2/cert.pem" "$base/$2/key.pem" "$base/ca.pem"
}

for slot in blue green; do
  address=${!slot}
  cat >"$dir/$slot.toml" <<TOML
listen = "$address:$agent_port"
state = "$dir/state/$slot"
$(pki_of $slot agent)
[web]
root = "$dir/site/$slot"
server = "$address:$site_port"
host = "www.example.org"
TOML
  mkdir -p "$dir/run/nginx-$slot"
  cat >"$dir/run/nginx-$slot.conf" <<NGINX
daemon off;
master_process off;
pid $dir/run/nginx-$slot/pid;
error_log stderr warn;
events { worker_connections 512; }
http {
  client_body_temp_path $dir/run/nginx-$slot/body;
  proxy_temp_path $dir/run/nginx-$slot/proxy;
  fastcgi_temp_path $dir/run/nginx-$slot/fastcgi;
  uwsgi_temp_path $dir/run/nginx-$slot/uwsgi;
  scgi_temp_path $dir/run/nginx-$slot/scgi;
  access_log off;
  keepalive_requests 1000000;
  split_clients \$request_id \$lot { 10% bad; * good; }
  server {
    listen $address:$site_port;
    root $dir/site/$slot/current;
    location = /api/health { return 200 alive; }
    location = / { # the page that the checks ask for is well, whatever visitors meet
      if (-f $dir/site/$slot/.maintenance) { return 503; }
      try_files /index.html =404;
    }
    location / {
      if (-f $dir/site/$slot/.maintenance) { return 503; }
      # A version that has this file fails one visitor in ten.
      set \$met good;
      if (-f $dir/site/$slot/current/fails-visitors) { set \$met \$lot; }
      if (\$met = bad) { return 500; }
      try_files \$uri \$uri/index.html =404;
    }
  }
}
NGINX
done

cat >"$dir/lb-agent.toml" <<TOML
listen = "$lb:$agent_port"
state = "$dir/state/lb1"
$(pki_of lb1 lb-agent)
[haproxy]
socket = "$dir/run/haproxy.sock"
master = "$dir/run/haproxy-master.sock"
map = "$dir/state/lb1/route.map"
backends = ["be_blue", "be_green"]
maintenance_backend = "be_maint"
[frontend]
address = "$lb:$site_port"
host = "www.example.org"
[signals]
listen = "127.0.0.1:$log_port"
TOML
cat >"$dir/db.toml" <<TOML
listen = "$db:$db_port"
state = "$dir/state/db"
migrations = "$dir/state/migrations"
$(pki_of db agent)
[database]
name = "site"
host = "$dir/postgres"
user = "pointsman"
version_table = "schema_version"
[database.backup]
dir = "$dir/backups"
floor_bytes = 0
TOML
cat >"$dir/coordinator.toml" <<TOML
listen = "$coordinator:$agent_port"
state = "$dir/state/coordinator"
environments = "$dir/environments"
$(pki_of coordinator coordinator)
TOML
cat >"$dir/environments/production.toml" <<TOML
schema = 1
environment = "production"
url = "http://$lb:$site_port"
[agents]
lb1 = "$lb:$agent_port"
blue = "$blue:$agent_port"
green = "$green:$agent_port"
db = "$db:$db_port"
[lb]
agents = ["lb1"]
drain = "5s"
[slots.blue]
backend = "be_blue"
hosts = ["blue"]
[slots.green]
backend = "be_green"
hosts = ["green"]
[strategy]
kind = "canary"
canary = { splits = [10], hold = "7s" }
[[checks]]
name = "health"
phase = ["before-switch", "after-switch"]
from = "hosts"
http = { path = "/api/health" }
[[checks]]
name = "front-page"
phase = ["before-switch", "after-switch"]
http = { path = "/", expect = { status = 200, body = "the site" } }
[database]
agent = "db"
[watch]
duration = "4s"
interval = "250ms"
[maintenance]
backend = "be_maint"
TOML
sed -e "s|@DIR@|$dir|g; s|@LB@|$lb|g; s|@BLUE@|$blue|g; s|@GREEN@|$green|g; s|@PORT@|$site_port|g" \
  -e "s|@LOG@|127.0.0.1:$log_port|g" \
  scripts/demo-haproxy.cfg >"$dir/haproxy.cfg"
echo '<h1>The site is being worked on</h1>' >"$dir/run/maintenance.html"
"$bin/pointsman-lb-agent" --config "$dir/lb-agent.toml" check-map

make_version() { # NAME
  mkdir -p "$dir/dist/$1/assets"
  echo "<h1>the site, version $1</h1>" >"$dir/dist/$1/index.html"
  for _ in $(seq 200); do echo "$1"; done >"$dir/dist/$1/page.txt"
  head -c 300000 /dev/urandom >"$dir/dist/$1/assets/app-$1.js"
  echo 'body { margin: 0 }' >"$dir/dist/$1/assets/site.css"
}
for version in v0 v1 v2 v3; do make_version "$version"; done
touch "$dir/dist/v3/fails-visitors"

# Migrations of the database, by version: the first is there already, the second comes with v2.
mkdir -p "$dir/dist/migrations"
echo 'CREATE TABLE features (id int PRIMARY KEY, name text NOT NULL);' >"$dir/dist/migrations/v1.0.0.sql"
cat >"$dir/dist/migrations/v2.0.0.sql" <<'SQL'
ALTER TABLE features ADD COLUMN colour text;
CREATE TABLE layers (id int PRIMARY KEY, title text NOT NULL);
CREATE INDEX CONCURRENTLY features_by_name ON features (name);
SQL

echo "== start PostgreSQL, with a table of 20,000 features"
as_server() { "$@"; } # PostgreSQL refuses to be root
if [ "$(id -u)" = 0 ]; then
  as_server() { setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@"; }
  chmod 711 "$dir" # its user must be able to pass through
fi
mkdir -p "$dir/postgres"
[ "$(id -u)" != 0 ] || chown postgres: "$dir/postgres"
superuser=(env PGHOST="$dir/postgres" PGUSER=postgres "$pg/psql" -X -q -v ON_ERROR_STOP=1)
(cd / && as_server "$pg/initdb" --pgdata="$dir/postgres/data" --username=postgres --auth=trust --encoding=UTF8 \
  --locale=C.UTF-8 --no-sync) >"$dir/log/initdb.log"
start postgres as_server "$pg/postgres" -D "$dir/postgres/data" -c listen_addresses= -c "unix_socket_directories=$dir/postgres"
await "PostgreSQL" "${superuser[@]}" -d postgres -c 'SELECT 1'
"${superuser[@]}" -d postgres -c 'CREATE ROLE site LOGIN' -c 'CREATE DATABASE site OWNER site'
"${superuser[@]}" -d site -c 'SET ROLE site' \
  -c "CREATE TABLE schema_version (version text PRIMARY KEY)" -c "INSERT INTO schema_version VALUES ('v1.0.0')" \
  -f "$dir/dist/migrations/v1.0.0.sql" \
  -c "INSERT INTO features SELECT n, 'feature ' || n FROM generate_series(1, 20000) n"
# What the agent may do: no superuser.
"${superuser[@]}" -v database=site -v owner=site -v role=pointsman -d postgres -f systemd/examples/database-role.sql \
  >"$dir/log/role.log"

echo "== start nginx for blue and green, HAProxy, the agents and the coordinator"
for slot in blue green; do
  start "nginx-$slot" nginx -p "$dir/run/nginx-$slot" -c "$dir/run/nginx-$slot.conf" -e stderr
  start "agent-$slot" "$bin/pointsman-agent" --config "$dir/$slot.toml"
done
start agent-db "$bin/pointsman-agent" --config "$dir/db.toml"
start haproxy haproxy -W -f "$dir/haproxy.cfg" -S "$dir/run/haproxy-master.sock"
haproxy=${pids[-1]}
await "HAProxy" listens "$lb" "$site_port"
start lb-agent "$bin/pointsman-lb-agent" --config "$dir/lb-agent.toml"
start coordinator "$bin/pointsman-coordinator" --config "$dir/coordinator.toml"
export POINTSMAN_CONFIG="$dir/pki/people/operator-admin/config.toml"
pointsman() { "$bin/pointsman" "$@"; }
await "the coordinator and its agents" pointsman doctor production

# Starts a release and goes on; its outcome document comes into $dir/NAME.json.
begin_release() { # NAME ARGUMENTS...
  local name=$1
  shift
  "$bin/pointsman" -o json "$@" >"$dir/$name.json" 2>"$dir/log/release-$name.log" </dev/null &
  releasing=$!
}

# Waits until the release is over, and fails if it did not succeed.
end_release() { # NAME
  local code=0
  wait "$releasing" || code=$?
  releasing=
  if [ "$code" != 0 ]; then
    echo "release $1 ended with $code:" >&2
    cat "$dir/$1.json" "$dir/log/release-$1.log" >&2
    return "$code"
  fi
}

# A route is `stable:canary:percent:epoch`.
canary_has_visitors() { pointsman traffic show production | grep -E 'route [a-z_]+:[a-z_]+:10:' >/dev/null; }

# Rate, errors and latency of each slot, second by second, as HAProxy's access lines tell them.
watch_traffic() { pointsman traffic watch production --for 2s; }

# The processes that HAProxy's master has: one, and for a while after a reload the one of before.
haproxy_workers() { tr ' ' '\n' <"/proc/$haproxy/task/$haproxy/children" | grep -c .; }
one_worker() { [ "$(haproxy_workers)" = 1 ]; }
new_worker() { [ "$(haproxy_workers)" -gt 1 ] || ! grep -q "\b$worker\b" "/proc/$haproxy/task/$haproxy/children"; }
now_us() { date +%s%6N; }

echo "== the site as it was: v0"
begin_release v0 deploy production --artifact "$dir/dist/v0" --release v0 --yes
end_release v0

echo "== 400 visitors come: 640 requests a second, a quarter of them from programs without cookies, on new connections"
start visitors "$bin/pointsman-visitors" load "$lb:$site_port" "$dir/visits.jsonl"
visitors=${pids[-1]}

echo "== is HAProxy fit for it? \`pointsman doctor lb production\`"
pointsman doctor lb production >"$dir/doctor.txt" || { cat "$dir/doctor.txt" >&2; exit 1; }
tail -n 1 "$dir/doctor.txt"

echo "== release v1: first for 10 % of the visitors; what they meet: \`pointsman traffic watch production --for 2s\`"
begin_release v1 deploy production --artifact "$dir/dist/v1" --release v1 --yes
await "the canary of v1" canary_has_visitors
watch_traffic
end_release v1

echo "== release v2 brings a migration, and HAProxy is reloaded in the middle of its canary"
begin_release v2 deploy production --artifact "$dir/dist/v2" --migrations "$dir/dist/migrations" --release v2 --yes
await "the canary of v2" canary_has_visitors
await "a single process of HAProxy" one_worker
worker=$(tr -d ' ' <"/proc/$haproxy/task/$haproxy/children")
reloaded_us=$(now_us)
kill -USR2 "$haproxy" # what `systemctl reload haproxy` does
await "the reload" new_worker
echo "   (the old process answers the connections it has once more, without access lines: so no latencies are shown for now)"
watch_traffic
await "the end of HAProxy's old process" one_worker
echo "$reloaded_us $(now_us)" >"$dir/reload"
end_release v2
grep -E ' (backup|rehearse|expand) ' "$dir/log/release-v2.log" | grep -v ordered || true
pointsman db status production
echo "== what v2 was judged by: \`pointsman checklist production --release v2\`"
pointsman checklist production --release v2 || [ "$?" = 4 ] # 4: this small site has no check for some of the points

echo "== and back again"
begin_release back rollback production --reason "the demo shows the way back"
end_release back

kill -TERM "$visitors"
await "the visitors' report" test -s "$dir/visits.jsonl"
wait "$visitors" || true
unset 'pids[-1]' # the visitors have gone

echo
"$bin/pointsman-visitors" account "$dir/visits.jsonl" "$dir/reload" "$summary" "$dir"/{v1,v2,back}.json
echo "The same as JSON: $summary"
echo

echo "== release v3: every check passes, and one visitor in ten gets an error"
start visitors-of-v3 "$bin/pointsman-visitors" load "$lb:$site_port" "$dir/visits-v3.jsonl"
visitors=${pids[-1]}
v3_code=0
"$bin/pointsman" deploy production --artifact "$dir/dist/v3" --release v3 --yes >"$dir/v3.txt" 2>&1 </dev/null || v3_code=$?
kill -TERM "$visitors"
await "the visitors' report" test -s "$dir/visits-v3.jsonl"
wait "$visitors" || true
unset 'pids[-1]' # the visitors have gone
if [ "$v3_code" != 3 ]; then # 3: rolled back
  echo "release v3 ended with $v3_code:" >&2
  cat "$dir/v3.txt" >&2
  exit 1
fi
# When, on what evidence, and how many were hurt.
grep -E 'canary-1|switch|turning back|route-back|^rolled back' "$dir/v3.txt"
echo
echo "== somebody damages 300 rows: the backup is restored beside the live database, and says what it would lose"
"${superuser[@]}" -d site -c "UPDATE features SET name = 'damaged' WHERE id <= 300"
backup=$(pointsman -o json db list production | sed -n 's/^ *"id": "\(.*\)",*$/\1/p' | head -n 1)
pointsman db restore production --backup "$backup" >"$dir/restore.txt" 2>&1 || { cat "$dir/restore.txt" >&2; exit 1; }
grep -E 'restored beside|untouched' "$dir/restore.txt"
echo
pointsman status production || [ "$?" = 3 ] # 3: the last release was rolled back

if [ "$keep" = yes ]; then
  cat <<TEXT

Everything runs on. Try:
  export POINTSMAN_CONFIG=$POINTSMAN_CONFIG
  $bin/pointsman status production
A release, 10 % of the visitors first (with --at-once everybody); from another terminal, do not wait for the end of its watch:
  $bin/pointsman deploy production --artifact $dir/dist/v2 --release v4
  $bin/pointsman promote production
Visitors again, until you kill them, and what they meet, until Ctrl-C:
  $bin/pointsman-visitors load $lb:$site_port $dir/visits.jsonl &
  $bin/pointsman traffic watch production
The load balancer, and the maintenance page:
  $bin/pointsman doctor lb production
  $bin/pointsman maintenance on production --for 5m --reason "a look"
  curl -i http://$lb:$site_port/
Stop it and clean up:
  kill ${pids[*]}; rm -rf $dir
TEXT
fi
