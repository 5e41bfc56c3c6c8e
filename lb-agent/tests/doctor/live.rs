//! Checks of what HAProxy and the system say.

use std::time::Duration;

use pointsman_chassis::config::Parsed;
use pointsman_core::{Code, Problem, Route};
use pointsman_lb_agent::doctor::Verdict::{self, Fail, Ok as Well, Unknown, Warn};
use pointsman_lb_agent::doctor::seen::{Owner, Seen};
use pointsman_lb_agent::doctor::{self, examine};
use pointsman_lb_agent::reply::{CliSocket, Limits, Processes, StatRow};
use pointsman_lb_agent::{CertificatePath, Driver, SeenServer, driver_fit};

use crate::world::{fragment, must_say, seen};

fn check(change: impl FnOnce(&mut Seen), check: &str, verdict: Verdict, what: &str, fix: &str) {
    let mut seen = seen(&fragment());
    change(&mut seen);
    must_say(&seen, check, verdict, what, fix);
}

#[test]
fn versions() {
    for (version, verdict) in [
        ("2.3.9", Fail),
        ("1.8.30-1", Fail),
        ("2.4.0", Well),
        ("2.6.12-1+deb12u3", Well),
        ("3.2.4-98813a1", Well),
        ("3.3.0", Warn),
        ("4.0-dev1", Warn),
        ("unknown", Unknown),
    ] {
        let set = |seen: &mut Seen| seen.info.as_mut().unwrap().version = version.to_owned();
        check(set, "version", verdict, version, "");
    }
}

#[test]
fn what_was_loaded_is_older_than_the_files() {
    for (changed_s, uptime_s, verdict) in
        [(300, 200, Well), (10, 200, Warn), (199, 200, Well), (197, 200, Warn), (0, 0, Well)]
    {
        let set = |seen: &mut Seen| {
            seen.info.as_mut().unwrap().uptime_s = uptime_s;
            seen.written.as_mut().unwrap().changed = Some(Duration::from_secs(changed_s));
        };
        let fix = if verdict == Warn { "systemctl reload haproxy" } else { "" };
        check(set, "config-loaded", verdict, "", fix);
    }
}

#[test]
fn other_files_than_the_loaded_ones_are_not_taken_for_them() {
    let set = |seen: &mut Seen| seen.loaded = Some(vec!["/etc/haproxy/other.cfg".into()]);
    check(
        set,
        "config-loaded",
        Warn,
        "`/etc/haproxy/other.cfg`, the findings are about `haproxy.cfg`",
        "`config`",
    );
}

#[test]
fn files_that_come_and_go_are_told_before_the_reload_that_meets_them() {
    let of_loaded = |seen: &mut Seen| seen.wanted.config.clear();
    let gone = |seen: &mut Seen| {
        of_loaded(seen);
        seen.loaded = Some(vec!["/srv/conf.d/a.cfg".into(), "haproxy.cfg".into()]);
        seen.written.as_mut().unwrap().gone = vec!["/srv/conf.d/a.cfg".into()];
    };
    check(
        gone,
        "config-loaded",
        Warn,
        "`/srv/conf.d/a.cfg`, not there any more",
        "haproxy -c -f /srv/conf.d -f",
    );
    let new = |seen: &mut Seen| {
        of_loaded(seen);
        seen.loaded = Some(vec!["/srv/conf.d/a.cfg".into()]);
        seen.written.as_mut().unwrap().new = vec!["/srv/conf.d/b.cfg".into()];
    };
    check(new, "config-loaded", Warn, "has not loaded `/srv/conf.d/b.cfg`", "haproxy -c -f /srv/conf.d &&");
}

#[test]
fn of_what_haproxy_has_loaded_what_is_gone_and_what_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let conf_d = folder.path().join("conf.d");
    std::fs::create_dir(&conf_d).unwrap();
    let at = |name: &str| conf_d.join(name);
    std::fs::write(at("b.cfg"), "backend b\n").unwrap();
    let loaded = [at("a.cfg"), at("b.cfg")];
    let read = |is_loaded: bool| doctor::seen::read(&loaded, is_loaded, "be_maint");
    let found = read(true).unwrap();
    assert_eq!((found.files, found.gone, found.new), (vec![at("b.cfg")], vec![at("a.cfg")], vec![]));
    std::fs::rename(at("b.cfg"), at("a.cfg")).unwrap();
    for other in ["b.cfg", "c.cfg", ".d.cfg", "d.txt"] {
        std::fs::write(at(other), "").unwrap();
    }
    let found = read(true).unwrap();
    assert_eq!((found.gone, found.new), (vec![], vec![at("c.cfg")]));
    // What lb-agent.toml names is there, or is a mistake.
    std::fs::remove_file(at("a.cfg")).unwrap();
    assert!(read(false).unwrap_err().message.contains("a.cfg"));
}

#[test]
fn buffers_that_a_certificate_does_not_fit_into() {
    let path: Parsed<CertificatePath> = Parsed("/certs/www.pem".parse().unwrap());
    let with = |line: &'static str, bytes: Result<u64, String>| {
        let path = path.0.clone();
        move |seen: &mut Seen| {
            *seen = crate::world::seen(&fragment().replace("stats timeout 30s", line));
            seen.certificates = vec![(path, bytes)];
        }
    };
    check(|_| {}, "bufsize", Well, "no certificate", "");
    check(with("", Ok(5_000)), "bufsize", Well, "16384 bytes", "");
    check(with("tune.bufsize 32768", Ok(5_000)), "bufsize", Well, "32768 bytes", "");
    check(with("tune.bufsize 32k", Ok(5_000)), "bufsize", Well, "32768 bytes", "");
    check(
        with("tune.bufsize 8192", Ok(5_000)),
        "bufsize",
        Warn,
        "is below its default",
        "  tune.bufsize 16384",
    );
    check(with("tune.bufsize 8192", Ok(7_800)), "bufsize", Fail, "7800 bytes long", "  tune.bufsize 16384");
    check(with("", Ok(17_000)), "bufsize", Fail, "17000 bytes long", "leave certificates out of its chain");
    check(with("", Ok(17_000)), "bufsize", Fail, "17000 bytes long", "  tune.bufsize 32768");
    check(with("tune.bufsize 32768", Ok(17_000)), "bufsize", Well, "32768 bytes", "");
    check(
        with("tune.bufsize 32768", Ok(40_000)),
        "bufsize",
        Fail,
        "40000 bytes long",
        "  tune.bufsize 65536",
    );
    check(
        with("tune.bufsize 8192", Err("denied".to_owned())),
        "bufsize",
        Warn,
        "is below",
        "tune.bufsize 16384",
    );
}

/// What an authority has said of one certificate HAProxy shows with that one only.
#[test]
fn responses_that_are_of_other_certificates() {
    let foreign = |seen: &mut Seen| seen.foreign_responses = vec!["/certs/www.pem.ocsp".to_owned()];
    check(|_| {}, "ocsp", Well, "", "");
    check(
        foreign,
        "ocsp",
        Warn,
        "`/certs/www.pem.ocsp` is of another certificate",
        "systemctl reload haproxy",
    );
}

#[test]
fn the_master() {
    let processes = |failed_reloads| Processes { workers: vec![2], old_workers: vec![1], failed_reloads };
    let failed = |count| move |seen: &mut Seen| seen.processes = Some(Ok(processes(count)));
    check(failed(0), "failed-reloads", Well, "", "");
    // What is checked is what HAProxy reads: of a folder all, what is new in it too.
    for (loaded, command) in [
        (
            &["/etc/haproxy/haproxy.cfg"][..],
            "haproxy -c -f /etc/haproxy/haproxy.cfg && systemctl reload haproxy",
        ),
        (&["/srv/h.cfg", "/srv/a.cfg"], "haproxy -c -f /srv/h.cfg -f /srv/a.cfg && systemctl"),
        (
            &["/etc/haproxy/haproxy.cfg", "/etc/haproxy/conf.d/a.cfg", "/etc/haproxy/conf.d/b.cfg"],
            "haproxy -c -f /etc/haproxy/haproxy.cfg -f /etc/haproxy/conf.d && systemctl",
        ),
        (
            &["/etc/haproxy/a.cfg", "/etc/haproxy/b.cfg"],
            "haproxy -c -f /etc/haproxy/a.cfg -f /etc/haproxy/b.cfg &&",
        ),
    ] {
        let with = |seen: &mut Seen| {
            failed(2)(seen);
            seen.loaded = Some(loaded.iter().map(Into::into).collect());
        };
        check(with, "failed-reloads", Fail, "the last 2 reloads failed", command);
    }
    check(failed(0), "master-socket", Well, "1 old worker", "");
    check(
        |seen| seen.processes = None,
        "master-socket",
        Warn,
        "no master socket",
        "-S /run/haproxy/master.sock,mode,660,group,pointsman",
    );
    let silent = Problem::new(Code::RuntimeSocketUnreachable, "no answer").cause("permission denied");
    check(
        |seen| seen.processes = Some(Err(silent.clone())),
        "master-socket",
        Fail,
        "permission denied",
        "-S /run/haproxy/master.sock",
    );
    check(|seen| seen.processes = Some(Err(silent.clone())), "failed-reloads", Unknown, "no answer", "");
}

#[test]
fn the_agents_own_socket() {
    let level = |level: &'static str| move |seen: &mut Seen| seen.level = Ok(level.to_owned());
    check(level("admin"), "socket-level", Well, "", "");
    check(level("operator"), "socket-level", Fail, "is level operator", "level admin");
    for (mode, uid, gid, verdict, what) in [
        (0o660, 0, 77, Well, "mode 660"),
        (0o600, 7, 0, Well, "mode 600"),
        (0o775, 0, 77, Well, "mode 775"),
        (0o666, 0, 77, Fail, "everybody on this host"),
        (0o777, 0, 77, Fail, "everybody on this host"),
        (0o660, 0, 50, Warn, "open to group 50"),
        (0o660, 99, 77, Warn, "belongs to user 99"),
    ] {
        let set = |seen: &mut Seen| seen.socket_file = Ok(Owner { mode, uid, gid });
        let fix = if verdict == Well { "" } else { "group pointsman mode 660" };
        check(set, "socket-mode", verdict, what, fix);
    }
    let master = |mode| move |seen: &mut Seen| seen.master_file = Some(Ok(Owner { mode, uid: 0, gid: 77 }));
    check(
        master(0o666),
        "socket-mode",
        Fail,
        "everybody on this host may use `/lb/master.sock`",
        "-S /run/haproxy",
    );
    check(master(0o600), "socket-mode", Well, "`/lb/master.sock` is mode 600", "");
    check(|seen| seen.master_file = None, "socket-mode", Well, "mode 660", "");
    check(
        |seen| seen.socket_file = Err("no such file".to_owned()),
        "socket-mode",
        Unknown,
        "no such file",
        "",
    );
}

#[test]
fn other_sockets() {
    for (address, level, verdict) in [
        ("unix@/run/haproxy/admin.sock", "admin", Warn),
        ("unix@/run/haproxy/stats.sock", "user", Warn),
        ("ipv4@127.0.0.1:9999", "user", Fail),
        ("ipv6@[::1]:9999", "admin", Fail),
        ("fd@7", "operator", Fail),
        ("sockpair@5", "admin", Well),
    ] {
        let more = CliSocket { address: address.to_owned(), level: level.to_owned() };
        let set = |seen: &mut Seen| seen.sockets.as_mut().unwrap().push(more);
        let shown = if verdict == Well { "" } else { address };
        check(set, "other-sockets", verdict, shown, if verdict == Well { "" } else { "remove" });
    }
}

#[test]
fn the_driver() {
    let fit = |seen: pointsman_lb_agent::Seen| move |all: &mut Seen| all.fit = Ok(driver_fit(&seen));
    let looked_up =
        pointsman_lb_agent::Seen { map_entries: Some(1), shows_epoch: true, ..Default::default() };
    let servers = vec![SeenServer {
        name: "be_blue/s1".to_owned(),
        known: true,
        checked: true,
        ..SeenServer::default()
    }];
    let states = pointsman_lb_agent::Seen { servers, ..Default::default() };
    check(fit(looked_up.clone()), "driver", Well, "the driver `map` fits", "");
    check(fit(states), "driver", Fail, "`server-state` fits", "driver = \"server-state\"");
    check(fit(Default::default()), "driver", Fail, "no driver fits", "config-snippet");
    let by_states = |all: &mut Seen| all.wanted.driver = Driver::ServerState;
    check(by_states, "driver", Warn, "the driver `map` fits", "driver = \"map\"");
}

/// A program on a server that says `ready` or a weight takes back what the driver by states says.
#[test]
fn who_else_sets_the_states_of_servers() {
    let by_states = |text: &str, agent| {
        let server =
            SeenServer { name: "be_blue/s1".to_owned(), known: true, checked: true, has_agent: agent };
        let mut seen = seen(text);
        seen.fit = Ok(driver_fit(&pointsman_lb_agent::Seen { servers: vec![server], ..Default::default() }));
        seen.wanted.driver = Driver::ServerState;
        seen
    };
    let text = fragment();
    must_say(&by_states(&text, false), "driver", Well, "`server-state` fits", "");
    let agent = by_states(&text, true);
    must_say(&agent, "driver", Warn, "`be_blue/s1` has an `agent-check`", "disable agent be_blue/s1");
    assert!(agent.fit.unwrap().to_string().contains("takes a drain or a weight back"));
    let line = "server s1 10.0.0.11:8080 check";
    let own = text.replacen(line, &format!("{line} agent-check agent-port 8081"), 1);
    let at = own.lines().position(|line| line.contains("agent-check")).unwrap() + 1;
    must_say(
        &by_states(&own, true),
        "driver",
        Warn,
        "",
        &format!("without `agent-check` at haproxy.cfg:{at}"),
    );
    // By the map it does no harm.
    let mut by_map = by_states(&own, true);
    by_map.wanted.driver = Driver::Map;
    by_map.fit = seen(&own).fit;
    must_say(&by_map, "driver", Well, "`map` fits", "");
}

/// Before anything of pointsman stands in haproxy.cfg, each finding has the line to add, and where.
#[test]
fn a_newcomer_is_told_the_line_of_the_socket_and_the_frontend_that_is_asked() {
    const OLD: &str = "global\n  stats socket /run/haproxy/admin.sock mode 660 level admin\ndefaults\n  mode http\nfrontend http\n  bind :80\n  redirect scheme https\nfrontend https\n  bind :443 ssl crt /x\n  default_backend web\nbackend web\n  server a 10.0.0.1:80\n";
    let newcomer = |text: &str| {
        let mut seen = seen(text);
        let silent = Problem::new(Code::RuntimeSocketUnreachable, "no answer to `show cli`");
        seen.level = Err(silent.hint("systemctl status haproxy"));
        seen.socket_file = Err("`/lb/pointsman.sock`: No such file or directory".to_owned());
        seen.asked = "127.0.0.1:443".parse().unwrap();
        seen
    };
    let line = "  stats socket /lb/pointsman.sock user root group pointsman mode 660 level admin";
    let found = newcomer(OLD);
    must_say(&found, "socket-level", Fail, "has no `stats socket /lb/pointsman.sock`", line);
    must_say(&found, "socket-level", Fail, "", "add to `global` (haproxy.cfg:1):");
    must_say(&found, "socket-mode", Unknown, "No such file", "see `socket-level`");
    // What stands there and does not answer, or may stand there, is another matter.
    let there = OLD.replace("/run/haproxy/admin.sock", "/lb/pointsman.sock");
    must_say(&newcomer(&there), "socket-level", Unknown, "no answer", "systemctl status haproxy");
    let named = OLD.replace("/run/haproxy/admin.sock", "${RUN}/pointsman.sock");
    must_say(&newcomer(&named), "socket-level", Unknown, "no answer", "systemctl status haproxy");
    for check in ["route-lookup", "log-ring", "log-format"] {
        must_say(&found, check, Fail, "", "");
    }
    must_say(&found, "route-lookup", Fail, "no map at all", "add to `frontend https`");
    let mut logged = newcomer(&format!("{OLD}ring pointsman\n  server agent 127.0.0.1:5515\n"));
    must_say(&logged, "log-ring", Fail, "`frontend https`", "add to `frontend https`");
    logged.asked = "127.0.0.1:8443".parse().unwrap();
    must_say(&logged, "route-lookup", Fail, "", "add to `frontend http`");
}

/// Where servers' states are the switch there is no map, and the backends are those in which the servers are.
#[test]
fn by_states_nothing_is_asked_of_a_map() {
    let by_name = |seen: &Seen| -> std::collections::BTreeMap<&'static str, Verdict> {
        examine(seen).into_iter().map(|finding| (finding.check, finding.verdict)).collect()
    };
    let mut seen = seen(&fragment());
    assert!(by_name(&seen).contains_key("map-loaded"));
    seen.wanted.driver = Driver::ServerState;
    let mut in_backend = |server: &str| {
        let (slot, server) = ("be_blue".parse().unwrap(), server.parse().unwrap());
        seen.wanted.servers = [(Parsed(slot), vec![Parsed(server)])].into();
        by_name(&seen)
    };
    let found = in_backend("be_app/s1");
    for check in ["map-loaded", "route-lookup", "maintenance-page", "canary", "side-trusted"] {
        assert!(!found.contains_key(check), "{check}");
    }
    assert_eq!(found["cookie-persistence"], Unknown, "`be_app` does not stand in these files");
    assert_eq!(in_backend("be_blue/s1")["cookie-persistence"], Well);
}

#[test]
fn the_map() {
    check(
        |seen| seen.maps = Ok(vec!["/old.map".to_owned()]),
        "map-loaded",
        Fail,
        "/old.map",
        "map(/lb/route.map,be_maint:be_maint:0:0)",
    );
    let entries = |pairs: &'static [(&'static str, &'static str)]| {
        move |seen: &mut Seen| {
            seen.entries =
                Ok(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect());
        }
    };
    const ROUTE: &str = crate::world::ROUTE;
    check(entries(&[("route", ROUTE)]), "map-one-entry", Well, "", "");
    check(entries(&[]), "map-one-entry", Fail, "empty", "check-map");
    check(entries(&[("route", "x")]), "map-one-entry", Fail, "no route", "check-map");
    check(
        entries(&[("route", ROUTE), ("route", ROUTE)]),
        "map-one-entry",
        Fail,
        "2 entries",
        "show map /lb/route.map",
    );
    check(entries(&[("other", ROUTE)]), "map-one-entry", Fail, "expected `route` once", "show map");
    // Whichever of the two is not as it was confirmed is put back, by a line that can be typed.
    let in_file = "on the load balancer:\n  echo 'route be_blue:be_green:5:40' > /lb/route.map";
    check(
        |seen| seen.on_disk = Route::parse("be_green:be_green:0:41").ok(),
        "map-on-disk",
        Fail,
        "be_green:be_green:0:41",
        in_file,
    );
    check(|seen| seen.on_disk = None, "map-on-disk", Fail, "the map file holds `no route`", in_file);
    let running = |verb: &str| {
        format!(
            "on the load balancer:\n  echo '{verb} map /lb/route.map route be_blue:be_green:5:40' | socat - /lb/pointsman.sock"
        )
    };
    check(entries(&[]), "map-on-disk", Fail, "HAProxy routes by `no route`", &running("add"));
    let by_hand = entries(&[("route", "be_green:be_green:0:9")]);
    check(by_hand, "map-on-disk", Fail, "`be_blue:be_green:5:40` was confirmed last", &running("set"));
    let both = |seen: &mut Seen| {
        entries(&[("route", "be_green:be_green:0:9")])(seen);
        seen.on_disk = Route::parse("be_green:be_green:0:9").ok();
    };
    check(both, "map-on-disk", Fail, "file and HAProxy hold `be_green:be_green:0:9`", &running("set"));
    // Where the agent led to it itself and was kept from confirming, nobody else did.
    let own = |seen: &mut Seen| {
        both(seen);
        seen.begun.clone_from(&seen.on_disk);
    };
    check(own, "map-on-disk", Well, "the same route", "");
    let unknown = |seen: &mut Seen| {
        by_hand(seen);
        seen.confirmed = None;
    };
    check(unknown, "map-on-disk", Fail, "", "pointsman history ENV");
}

#[test]
fn backends_and_their_servers() {
    let without = |name: &'static str| {
        move |seen: &mut Seen| seen.backends.as_mut().unwrap().retain(|known| known != name)
    };
    check(
        without("be_green"),
        "backends-present",
        Fail,
        "has no `be_green`",
        "backend be_green\n  mode http\n  option httpchk",
    );
    check(
        without("be_maint"),
        "backends-present",
        Fail,
        "has no `be_maint`",
        "http-request return status 503",
    );
    let server = |backend: &'static str, status: &'static str, checked: &'static str| {
        move |seen: &mut Seen| {
            let rows = seen.rows.as_mut().unwrap();
            let row = rows.iter_mut().find(|row| row.backend == backend && row.server == "s1").unwrap();
            (row.status, row.check_status) = (status.to_owned(), checked.to_owned());
        }
    };
    check(
        server("be_blue", "DOWN", "L4CON"),
        "backend-servers",
        Fail,
        "gets 95 % of the visitors",
        "show stat be_blue 6 -1",
    );
    let elsewhere = |seen: &mut Seen| {
        seen.elsewhere = Some((
            "`10.0.0.100:443` is no address of this host now".to_owned(),
            "bind 127.0.0.1:443".to_owned(),
        ));
    };
    check(elsewhere, "own-frontend", Fail, "10.0.0.100:443", "bind 127.0.0.1:443");
    check(server("be_blue", "UP 1/3", "L7OK"), "backend-servers", Fail, "UP 1/3", "show stat");
    // Put away: no check of it says anything, and what brings it back is told.
    let ready = "echo 'set server be_green/s1 state ready' | socat - /lb/pointsman.sock";
    check(
        server("be_green", "MAINT", ""),
        "backend-servers",
        Fail,
        "`s1` is put away by hand (MAINT)",
        ready,
    );
    check(
        server("be_blue", "DRAIN", "L7OK"),
        "backend-servers",
        Fail,
        "`s1` is put away by hand (DRAIN)",
        "",
    );
    for (from, to) in [
        ("10.0.0.12:8080 check", "10.0.0.12:8080 disabled check"),
        ("backend be_green\n", "backend be_green\n  default-server disabled\n"),
    ] {
        let line = move |seen: &mut Seen| {
            seen.written = Ok(crate::world::written(&fragment().replacen(from, to, 1)));
            server("be_green", "MAINT", "")(seen);
        };
        check(line, "backend-servers", Fail, "`s1` is put away by `disabled` at haproxy.cfg:", ready);
    }
    // By server states a slot's servers stand in one backend of HAProxy's, and bear its name.
    let by_states = |seen: &mut Seen| {
        server("be_green", "MAINT", "")(seen);
        let rows = seen.rows.as_mut().unwrap();
        rows.iter_mut().find(|row| row.backend == "be_green").unwrap().server = "www/green".to_owned();
    };
    check(by_states, "backend-servers", Fail, "`www/green` is put away", "set server www/green state ready");
    check(server("be_green", "no check", ""), "backend-servers", Fail, "`s1 no check`", "show stat be_green");
    // What answers in its place is no server of a slot, and the slot's own is counted alone.
    let sorry = |seen: &mut Seen| {
        let rows = seen.rows.as_mut().unwrap();
        let own = rows.iter().find(|row| row.backend == "be_green" && row.server == "s1").unwrap();
        let sorry = StatRow { server: "sorry".to_owned(), backup: true, ..own.clone() };
        rows.push(sorry);
        let with = fragment().replace(
            "  server s1 10.0.0.12",
            "  server sorry 10.0.0.9:80 check backup\n  server s1 10.0.0.12",
        );
        seen.written = Ok(crate::world::written(&with));
    };
    check(
        sorry,
        "backend-servers",
        Warn,
        "`be_green` has the backup server `sorry`",
        "server sorry ...\na page for a slot without servers",
    );
    // An empty place of a template is nobody, unless all are.
    let spare = |seen: &mut Seen| {
        let rows = seen.rows.as_mut().unwrap();
        let own = rows.iter().find(|row| row.backend == "be_green" && row.server == "s1").unwrap().clone();
        let status = "MAINT (resolution)".to_owned();
        rows.push(StatRow {
            server: "s2".to_owned(),
            status,
            check_status: String::new(),
            spare: true,
            ..own
        });
    };
    check(spare, "backend-servers", Well, "every server of every slot is up", "");
    let only_spare = |seen: &mut Seen| {
        spare(seen);
        seen.rows.as_mut().unwrap().retain(|row| row.backend != "be_green" || row.server != "s1");
    };
    check(
        only_spare,
        "backend-servers",
        Fail,
        "0 of 1 servers healthy: `s2 MAINT (resolution)`",
        "show stat be_green",
    );
    let only_sorry = |seen: &mut Seen| {
        sorry(seen);
        server("be_green", "DOWN", "L4CON")(seen);
    };
    check(
        only_sorry,
        "backend-servers",
        Fail,
        "`be_green`, which gets 5 % of the visitors, has 0 of 1 servers healthy: `s1 DOWN L4CON`",
        "remove at haproxy.cfg:",
    );
    let idle = |seen: &mut Seen| {
        server("be_green", "DOWN", "L7STS")(seen);
        seen.on_disk = Route::parse("be_blue:be_green:0:40").ok();
    };
    check(idle, "backend-servers", Warn, "`be_green` has 0 of 1 servers healthy", "show stat be_green");
    check(
        |seen| seen.rows.as_mut().unwrap().retain(|row| row.backend != "be_green" || row.server == "BACKEND"),
        "backend-servers",
        Fail,
        "`be_green` has no server",
        "server s1 <address>:<port> check",
    );
}

#[test]
fn limits() {
    let set = |seen: &mut Seen| {
        let text = fragment().replace("stats timeout 30s", "maxconn 9000");
        seen.written = Ok(crate::world::written(&text));
        seen.limits = Ok(Limits { files: 18_000, connections: 9_000 });
    };
    check(set, "maxconn", Well, "", "");
    let raised = |seen: &mut Seen| {
        set(seen);
        seen.limits = Ok(Limits { files: 18_000, connections: 4_000 });
    };
    check(raised, "maxconn", Warn, "needs 18040 files", "maxconn 8980");
}

#[test]
fn access_lines_are_looked_at_only_if_the_agent_takes_them_in() {
    check(|seen| seen.log_to = None, "log-ring", Well, "not asked for", "");
    check(|seen| seen.log_to = None, "log-format", Well, "not asked for", "");
    check(|seen| seen.log_to = "0.0.0.0:5515".parse().ok(), "log-ring", Well, "", "");
    check(
        |seen| seen.log_to = "10.0.0.1:5515".parse().ok(),
        "log-ring",
        Fail,
        "10.0.0.1:5515",
        "server agent 10.0.0.1:5515",
    );
}

#[test]
fn a_silent_haproxy_is_unknown() {
    let silent = || {
        Problem::new(Code::RuntimeSocketUnreachable, "no answer to `show info`")
            .hint("look: `systemctl status haproxy`")
    };
    let mut seen = seen(&fragment());
    seen.info = Err(silent());
    seen.limits = Err(silent());
    seen.level = Err(silent());
    seen.sockets = Err(silent());
    seen.maps = Err(silent());
    seen.entries = Err(silent());
    seen.backends = Err(silent());
    seen.fit = Err(silent());
    seen.rows = Err(silent());
    seen.processes = Some(Err(silent()));
    let of_haproxy = [
        "version",
        "config-loaded",
        "failed-reloads",
        "socket-level",
        "other-sockets",
        "driver",
        "map-loaded",
        "map-one-entry",
        "map-on-disk",
        "backends-present",
        "backend-servers",
    ];
    for check in of_haproxy {
        must_say(&seen, check, Unknown, "", "");
    }
    // What stands in the files is known all the same.
    let known = examine(&seen).into_iter().filter(|finding| finding.verdict == Well).count();
    assert!(known > 15, "{known}");
}
