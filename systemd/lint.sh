#!/bin/bash
# Checks every file of this folder in a throw-away root: units, drop-ins, users, modes, polkit rule. Run as root (owners
# and access are checked as the real users); systemd need not be running. One line per check; stops at the first failure.
# It does not start anything: whether a daemon lives well inside its unit is for the tests on a real host.
set -euo pipefail
export LC_ALL=C.UTF-8 SYSTEMD_COLORS=0 SYSTEMD_PAGER=cat

# systemd-analyze counts in tenths: 16 is the 1.6 that no unit may exceed. The agent has 0.2 for RestrictSUIDSGID, which it cannot have.
readonly THRESHOLD=16
readonly DAEMONS=(coordinator agent lb-agent)

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
root=
trap '[[ -z $root ]] || rm -rf -- "$root"' EXIT

ok() { printf 'ok    %s\n' "$1"; }
skip() { printf 'skip  %s\n' "$1"; }
fail() {
    printf 'FAIL  %s\n' "$1"
    [[ -z ${2-} ]] || printf '%s\n' "$2" | sed 's/^/      /'
    exit 1
} >&2

# Lines that every unit must have. The score alone does not do: it knows neither watchdog, limits nor NoExecPaths, and a
# unit below the threshold has room to lose a line unseen.
required_of_all() {
    cat <<END
Wants=network-online.target
StartLimitIntervalSec=0
Type=notify
NotifyAccess=main
ExecStart=/usr/bin/pointsman-$1 --config /etc/pointsman/$1.toml
ExecReload=/bin/kill -HUP \$MAINPID
EnvironmentFile=-/etc/default/pointsman-$1
Restart=always
RestartSec=1
WatchdogSec=20
RuntimeDirectory=pointsman-$1
UMask=0077
LimitCORE=0
ReadOnlyPaths=/run
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=@system-service landlock_create_ruleset landlock_add_rule landlock_restrict_self
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
CapabilityBoundingSet=
AmbientCapabilities=
WantedBy=multi-user.target
END
}

required_of_one() {
    case $1 in
    coordinator)
        cat <<'END'
After=network-online.target
User=pointsman-coordinator
Group=pointsman-coordinator
StateDirectory=pointsman-coordinator
RestrictSUIDSGID=yes
StateDirectoryMode=0700
LimitNOFILE=65536
MemoryMax=2G
TasksMax=256
TimeoutStartSec=300
TimeoutStopSec=60
PrivateUsers=yes
ProcSubset=pid
InaccessiblePaths=-/etc/pointsman/pki/agent -/etc/pointsman/pki/lb-agent
InaccessiblePaths=-/var/lib/pointsman-agent -/var/lib/pointsman
NoExecPaths=/ /var/lib/pointsman-coordinator /run /run/pointsman-coordinator /tmp /var/tmp /dev/shm
ExecPaths=/usr/bin/pointsman-coordinator -/usr/bin/kill /usr/lib
BindReadOnlyPaths=/usr/bin/pointsman-coordinator -/usr/bin/kill /usr/lib
END
        ;;
    agent)
        cat <<'END'
After=network-online.target
User=pointsman-agent
Group=pointsman-agent
StateDirectory=pointsman-agent
StateDirectoryMode=0750
LimitNOFILE=16384
MemoryMax=512M
OOMPolicy=continue
TasksMax=128
TimeoutStopSec=20
InaccessiblePaths=-/etc/pointsman/pki/coordinator -/etc/pointsman/pki/lb-agent
InaccessiblePaths=-/etc/pointsman/secrets -/etc/pointsman/environments
InaccessiblePaths=-/var/lib/pointsman-coordinator -/var/lib/pointsman
NoExecPaths=/var/lib/pointsman-agent /run /run/pointsman-agent /tmp /var/tmp /dev/shm
END
        ;;
    lb-agent)
        cat <<'END'
After=network-online.target haproxy.service
User=pointsman
Group=pointsman
StateDirectory=pointsman
RestrictSUIDSGID=yes
StateDirectoryMode=0755
LimitNOFILE=16384
MemoryMax=256M
TasksMax=64
TimeoutStopSec=30
InaccessiblePaths=-/etc/pointsman/pki/coordinator -/etc/pointsman/pki/agent
InaccessiblePaths=-/etc/pointsman/secrets -/etc/pointsman/environments
InaccessiblePaths=-/var/lib/pointsman-coordinator -/var/lib/pointsman-agent
NoExecPaths=/ /var/lib/pointsman /run /run/pointsman-lb-agent /tmp /var/tmp /dev/shm
ExecPaths=/usr/bin/pointsman-lb-agent -/usr/bin/kill /usr/lib
BindReadOnlyPaths=/usr/bin/pointsman-lb-agent -/usr/bin/kill /usr/lib
END
        ;;
    esac
}

check_required() {
    local daemon=$1 unit=pointsman-$1.service lines line key
    lines=$(required_of_all "$daemon" && required_of_one "$daemon")
    while IFS= read -r line; do
        grep -qxF -- "$line" "$here/$unit" || fail "lines $unit" "missing: $line"
        # A second line of the same key could take back what the first one says.
        key=${line%%=*}
        [[ $(grep -c "^$key=" "$here/$unit") == $(grep -c "^$key=" <<<"$lines") ]] ||
            fail "lines $unit" "more lines of $key= than expected"
    done <<<"$lines"
    # What a site grants has no place in a unit: it could not be taken back line by line.
    line=$(grep -nE '^(ReadWritePaths|SupplementaryGroups|LogsDirectory|DynamicUser|PermissionsStartOnly)=|^Exec[A-Za-z]+=[-@:]*[+!]' \
        "$here/$unit") && fail "lines $unit" "not in a unit: $line"
    ok "lines $unit: $(wc -l <<<"$lines") required lines present, once each"
}

# A root with nothing in it but what a host would have: the units' neighbours, programs at the paths of the Exec lines,
# man pages. The list is fixed, not read from the units, so that a misspelt path is found.
make_root() {
    local unit daemon program
    root=$(mktemp -d)
    chmod 0755 "$root"
    mkdir -p "$root"/etc/{systemd/system,pointsman,default} "$root"/usr/{bin,sbin,lib/systemd/system,share/man/man8,share/man/man1} "$root"/var/lib
    ln -s usr/bin "$root/bin"
    ln -s usr/sbin "$root/sbin"
    ln -s usr/lib "$root/lib"
    for unit in sysinit.target basic.target shutdown.target network-online.target multi-user.target; do
        printf '[Unit]\nDescription=stand-in\n' >"$root/usr/lib/systemd/system/$unit"
    done
    for program in bin/kill bin/timeout bin/setpriv sbin/haproxy; do
        install -m 0755 /bin/true "$root/usr/$program"
    done
    for daemon in "${DAEMONS[@]}"; do
        install -m 0755 /bin/true "$root/usr/bin/pointsman-$daemon"
        printf '.TH POINTSMAN 8\n' >"$root/usr/share/man/man8/pointsman-$daemon.8"
        cp "$here/pointsman-$daemon.service" "$root/usr/lib/systemd/system/"
    done
    printf '.TH HAPROXY 1\n' >"$root/usr/share/man/man1/haproxy.1"
    # The real one where it is installed, so that a change by Debian is noticed; else the lines that matter of 2.6.12.
    if [[ -f /lib/systemd/system/haproxy.service ]]; then
        cp /lib/systemd/system/haproxy.service "$root/usr/lib/systemd/system/"
    else
        cat >"$root/usr/lib/systemd/system/haproxy.service" <<'END'
[Unit]
Description=stand-in
[Service]
EnvironmentFile=-/etc/default/haproxy
Environment="CONFIG=/etc/haproxy/haproxy.cfg" "PIDFILE=/run/haproxy.pid" "EXTRAOPTS=-S /run/haproxy-master.sock"
ExecStart=/usr/sbin/haproxy -Ws -f $CONFIG -p $PIDFILE $EXTRAOPTS
Type=notify
END
    fi
}

# `verify` exits 0 on an unknown key or section and only prints: silence is the proof.
check_verify() {
    local said rc=0 man=no
    ! command -v man >/dev/null || man=yes
    said=$(MANPATH="$root/usr/share/man" systemd-analyze verify --root="$root" --man="$man" "$1" 2>&1) || rc=$?
    [[ $rc == 0 && -z $said ]] || fail "verify $1$2" "exit $rc"$'\n'"$said"
    ok "verify $1$2"
}

check_security() {
    local said rc=0 score
    said=$(systemd-analyze security --root="$root" --offline=yes --no-pager --threshold="$THRESHOLD" "$1" 2>&1) || rc=$?
    score=$(sed -n 's/.*Overall exposure level for .*: \([0-9.]*\) .*/\1/p' <<<"$said")
    # Without a score the exit code proves nothing.
    [[ $rc == 0 && -n $score ]] || fail "security $1$2: score ${score:-none}, at most 1.6" "$(grep -E '^✗|Failed|rror|gnoring' <<<"$said" || true)"
    ok "security $1$2: score $score"
}

drop_in() {
    mkdir -p "$root/etc/systemd/system/$1.d"
    cp "$here/$1.d/$2" "$root/etc/systemd/system/$1.d/"
}

check_haproxy_drop_in() {
    local unit=$root/usr/lib/systemd/system/haproxy.service conf=$here/haproxy.service.d/pointsman.conf line
    # The drop-in works by one variable: a unit that no longer reads it would start without the master socket, silently.
    grep -qE '^ExecStart=.* \$\{?EXTRAOPTS\}?( |$)' "$unit" || fail "haproxy.service reads EXTRAOPTS" "$(grep '^ExecStart=' "$unit")"
    for line in 'Environment="EXTRAOPTS=-S /run/haproxy/master.sock,mode,660,group,pointsman"' \
        'ExecStartPre=-/usr/bin/timeout --kill-after=1 10 /usr/bin/setpriv --reuid=pointsman --regid=pointsman --clear-groups --no-new-privs /usr/bin/pointsman-lb-agent check-map --config /etc/pointsman/lb-agent.toml'; do
        grep -qxF -- "$line" "$conf" || fail "haproxy.service.d/pointsman.conf" "missing: $line"
    done
    ok "haproxy.service reads EXTRAOPTS, the drop-in sets it and checks the map"
}

uid_of() { awk -F: -v user="$1" '$1 == user { print $3 }' "$root/etc/passwd"; }
gid_of() { awk -F: -v group="$1" '$1 == group { print $3 }' "$root/etc/group"; }

check_sysusers() {
    local said user shell
    said=$(systemd-sysusers --root="$root" "$here/pointsman.sysusers" 2>&1) || fail "pointsman.sysusers" "$said"
    said=$(grep -vE "^Creating (group|user) '" <<<"$said" || true)
    [[ -z $said ]] || fail "pointsman.sysusers" "$said"
    for user in pointsman-coordinator pointsman-agent pointsman; do
        [[ $(uid_of "$user") =~ ^[1-9][0-9]*$ && $(gid_of "$user") =~ ^[1-9][0-9]*$ ]] || fail "pointsman.sysusers" "no user or group $user"
        shell=$(awk -F: -v user="$user" '$1 == user { print $7 }' "$root/etc/passwd")
        [[ $shell == /usr/sbin/nologin ]] || fail "pointsman.sysusers" "$user has the shell $shell"
        ! grep -qE "^[^:]*:[^:]*:[^:]*:.*\b$user\b" "$root/etc/group" || fail "pointsman.sysusers" "$user is in another group"
    done
    [[ $(wc -l <"$root/etc/passwd") == 3 ]] || fail "pointsman.sysusers" "$(cat "$root/etc/passwd")"
    while IFS= read -r user; do
        [[ -n $(uid_of "$user") ]] || fail "pointsman.sysusers" "a unit runs as $user, who is not made"
    done < <(sed -n 's/^User=//p' "$here"/*.service)
    ok "pointsman.sysusers: 3 users, no shell, no shared group"
}

# What a site has there, with the owner and mode that plain `cp` by root gives.
fill_root() {
    local etc=$root/etc/pointsman file
    for file in config coordinator agent lb-agent; do : >"$etc/$file.toml"; done
    mkdir -p "$etc/pki"
    chmod 0700 "$etc" "$etc/pki" # as somebody's umask may have left them
    create_modes
    for file in pki/root.pem pki/{coordinator,agent,lb-agent}/key.pem environments/production.toml secrets/chat-url; do : >"$etc/$file"; done
}

create_modes() {
    local said
    said=$(systemd-tmpfiles --root="$root" --create "$here/pointsman.tmpfiles" 2>&1) || fail "pointsman.tmpfiles" "$said"
    [[ -z $said ]] || fail "pointsman.tmpfiles" "$said"
}

check_tmpfiles() {
    local path mode owner group have
    (umask 022 && fill_root)
    create_modes # as at the next boot: it must change nothing
    while read -r path mode owner group; do
        [[ $owner == root ]] && owner=0 || owner=$(uid_of "$owner")
        [[ $group == root ]] && group=0 || group=$(gid_of "$group")
        have=$(stat -c '%a %u %g' "$root$path" 2>&1) || true
        [[ $have == "$mode $owner $group" ]] || fail "pointsman.tmpfiles" "$path: has '$have', expected '$mode $owner $group'"
    done <<'END'
/etc/pointsman 755 root root
/etc/pointsman/coordinator.toml 640 root pointsman-coordinator
/etc/pointsman/agent.toml 640 root pointsman-agent
/etc/pointsman/lb-agent.toml 640 root pointsman
/etc/pointsman/pki 755 root root
/etc/pointsman/pki/coordinator 2750 root pointsman-coordinator
/etc/pointsman/pki/agent 2750 root pointsman-agent
/etc/pointsman/pki/lb-agent 2750 root pointsman
/etc/pointsman/environments 2750 root pointsman-coordinator
/etc/pointsman/secrets 2750 root pointsman-coordinator
/var/lib/pointsman 755 pointsman pointsman
END
    ok "pointsman.tmpfiles: 11 paths have their owner and mode"
}

# may USER OP PATH, asked of the kernel as that user. Relative, so that a private TMPDIR above does not change the answer.
may() {
    local uid gid
    if [[ $1 == anyone ]]; then uid=65534 gid=65534; else uid=$(uid_of "$1") gid=$(gid_of "$1"); fi
    (cd -- "$root" && setpriv --reuid="$uid" --regid="$gid" --clear-groups test "$2" "$3")
}

check_access() {
    local user path readers asked=0
    while read -r path readers; do
        for user in pointsman-coordinator pointsman-agent pointsman anyone; do
            if [[ " $readers " == *" $user "* ]]; then
                may "$user" -r "etc/pointsman/$path" || fail "access" "$user cannot read $path"
            else
                ! may "$user" -r "etc/pointsman/$path" || fail "access" "$user can read $path"
            fi
            ! may "$user" -w "etc/pointsman/$path" || fail "access" "$user can write $path"
            ! may "$user" -w "etc/pointsman/$(dirname "$path")" || fail "access" "$user can replace $path"
            asked=$((asked + 3))
        done
    done <<'END'
config.toml pointsman-coordinator pointsman-agent pointsman anyone
coordinator.toml pointsman-coordinator
agent.toml pointsman-agent
lb-agent.toml pointsman
pki/root.pem pointsman-coordinator pointsman-agent pointsman anyone
pki/coordinator/key.pem pointsman-coordinator
pki/agent/key.pem pointsman-agent
pki/lb-agent/key.pem pointsman
environments/production.toml pointsman-coordinator
secrets/chat-url pointsman-coordinator
END
    ok "access: each daemon reads its own files and nothing of another ($asked questions)"
}

# The rule is a program, so it is run: against every kind of question, with a stand-in for polkitd's objects.
check_polkit() {
    local said
    if ! command -v node >/dev/null; then
        skip "50-pointsman-agent.rules: no node to run it with"
        return
    fi
    said=$(node - "$here/50-pointsman-agent.rules" 2>&1 <<'END'
const source = require("fs").readFileSync(process.argv[2], "utf8");
if (/\b(let|const)\b|=>|`[^`]*\$\{/.test(source.replace(/\/\/.*/g, ""))) throw Error("not ES5: polkitd's engine would refuse the file");
const Result = { NO: "no", YES: "yes", NOT_HANDLED: null };
const rules = [];
const units = new Function("polkit", source + "; return POINTSMAN_UNITS;")({ Result, addRule: (rule) => rules.push(rule) });
if (rules.length !== 1 || units.length === 0) throw Error("expected one rule and some units");
const manage = "org.freedesktop.systemd1.manage-units";
function expect(result, user, id, unit, verb) {
    const got = rules[0]({ id, lookup: (key) => ({ unit, verb })[key] }, { user });
    if (got !== result) throw Error([user, id, unit, verb, "gave", got, "expected", result].join(" "));
}
for (const unit of units) {
    if (!/^[A-Za-z0-9][A-Za-z0-9._@-]*\.[a-z]+$/.test(unit)) throw Error(unit + ": not a full unit name");
    for (const verb of ["restart", "reload", "reload-or-restart"]) expect("yes", "pointsman-agent", manage, unit, verb);
    for (const verb of ["start", "stop", "kill", "freeze", "clean", "set-property", "", undefined]) expect("no", "pointsman-agent", manage, unit, verb);
    for (const user of ["www-data", "pointsman", "pointsman-coordinator", "root", ""]) expect(null, user, manage, unit, "restart");
}
for (const unit of ["ssh.service", "pointsman-agent.service", "nginx", "xnginx.service", "nginx.service.service", "", undefined]) expect("no", "pointsman-agent", manage, unit, "restart");
for (const id of ["manage-unit-files", "reload-daemon", "set-environment"]) expect("no", "pointsman-agent", "org.freedesktop.systemd1." + id, units[0], "restart");
expect(null, "pointsman-agent", "org.freedesktop.login1.reboot", undefined, undefined);
END
    ) || fail "50-pointsman-agent.rules" "$(grep -m1 'Error' <<<"$said" || printf '%s' "$said")"
    ok "50-pointsman-agent.rules: named units and verbs only, one user only"
}

main() {
    local tool daemon unit
    [[ $EUID == 0 ]] || fail "must run as root: owners and access are part of the checks"
    for tool in systemd-analyze systemd-sysusers systemd-tmpfiles setpriv; do
        command -v "$tool" >/dev/null || fail "$tool is not installed"
    done
    make_root
    for daemon in "${DAEMONS[@]}"; do
        unit=pointsman-$daemon.service
        check_required "$daemon"
        check_verify "$unit" ""
        check_security "$unit" ""
    done
    drop_in pointsman-agent.service 10-role-web.conf
    # Two entries are two mounts, and a release cannot be renamed from one into the other.
    [[ $(grep -cE '^ReadWritePaths=/[^ ]+$' "$here/pointsman-agent.service.d/10-role-web.conf") == 1 ]] ||
        fail "10-role-web.conf" "expected one ReadWritePaths= line with one path"
    [[ $(sed -n 's/^ReadWritePaths=//p' "$here/pointsman-agent.service.d/10-role-web.conf") == "$(sed -n 's/^NoExecPaths=//p' "$here/pointsman-agent.service.d/10-role-web.conf")" ]] ||
        fail "10-role-web.conf" "NoExecPaths= and ReadWritePaths= differ"
    check_verify pointsman-agent.service " with 10-role-web.conf"
    check_security pointsman-agent.service " with 10-role-web.conf"
    check_haproxy_drop_in
    drop_in haproxy.service pointsman.conf
    check_verify haproxy.service " with pointsman.conf"
    check_sysusers
    check_tmpfiles
    check_access
    check_polkit
    printf 'all checks passed\n'
}

main
