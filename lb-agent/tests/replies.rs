//! What HAProxy really answers, byte for byte and per version, through the parsers; and what becomes of answers that
//! are cut, flipped, doubled or made up: never a panic, and never a healthier world than the true one.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests: a panic is how they fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use pointsman_lb_agent::reply::{self, MapValue, Processes, StatRow, TableEntry, TableKey};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const VERSIONS: [&str; 4] = ["2.6", "2.8", "3.0", "3.2"];

fn folder(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/haproxy-replies").join(version)
}

fn reply(version: &str, name: &str) -> String {
    let path = folder(version).join(format!("{name}.txt"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every reply of a version, by name.
fn all(version: &str) -> BTreeMap<String, String> {
    let files = std::fs::read_dir(folder(version)).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|ending| ending == "txt"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name.clone(), reply(version, &name))
        })
        .collect()
}

/// What a reply says by each parser, as text: one way to compare them all.
fn parsed(text: &str) -> [String; 18] {
    [
        format!("{:?}", reply::info(text)),
        format!("{:?}", reply::map_value(text)),
        format!("{:?}", reply::map_entries(text)),
        format!("{:?}", reply::backends(text)),
        format!("{:?}", reply::processes(text)),
        format!("{:?}", reply::stat(text)),
        format!("{:?}", reply::certificate(text)),
        format!("{:?}", reply::table(text, "st_rl")),
        format!("{:?}", reply::is_empty_success(text)),
        format!("{:?}", reply::certificate_is_set(text, CERTIFICATE)),
        format!("{:?}", reply::certificate_is_committed(text)),
        format!("{:?}", reply::limits(text)),
        format!("{:?}", reply::cli_sockets(text)),
        format!("{:?}", reply::cli_level(text)),
        format!("{:?}", reply::maps(text)),
        format!("{:?}", reply::loaded_files(text)),
        format!("{:?}", reply::server_states(text)),
        format!("{:?}", reply::algorithms(text)),
    ]
}

fn healthy(text: &str) -> BTreeSet<(String, String)> {
    let rows = reply::stat(text).unwrap_or_default();
    rows.into_iter().filter(StatRow::healthy).map(|row| (row.backend, row.server)).collect()
}

#[test]
fn every_file_of_every_version_is_listed_and_the_other_way_round() {
    for version in VERSIONS {
        let listed: BTreeSet<String> = std::fs::read_to_string(folder(version).join("commands.tsv"))
            .unwrap()
            .lines()
            .skip(1)
            .map(|line| line.split('\t').next().unwrap().to_owned())
            .collect();
        assert_eq!(listed, all(version).into_keys().collect(), "{version}");
        assert!(listed.len() > 100, "{version}: {}", listed.len());
    }
}

#[test]
fn info() {
    let number = ["2.6.12-1+deb12u4", "2.8.25-5cf5d0683", "3.0.0-5590ada47", "3.2.0-e134140d2"];
    let pids = [
        ("info", [38, 40, 38, 38]),
        ("old-worker-info", [38, 40, 38, 38]),
        ("info-after-reload", [43, 45, 43, 42]),
    ];
    for (index, version) in VERSIONS.iter().enumerate() {
        for (name, pid) in pids {
            let info = reply::info(&reply(version, name)).unwrap();
            assert_eq!((info.pid, info.version.as_str()), (pid[index], number[index]), "{version}/{name}");
            // `Stopping`, and not the master's list, tells an old worker from the live one.
            assert_eq!(info.stopping, name == "old-worker-info", "{version}/{name}");
        }
        assert_eq!(reply::info(&reply(version, "old-worker-info")).unwrap().uptime_s, 21);
        for name in ["info-typed", "version", "empty", "stat", "proc", "unknown-command", "old-worker-gone"] {
            assert_eq!(reply::info(&reply(version, name)), None, "{version}/{name}");
        }
    }
}

#[test]
fn states_of_servers() {
    for version in VERSIONS {
        for name in ["servers-state", "servers-state-down"] {
            let states = reply::server_states(&reply(version, name)).unwrap();
            let [state] = states.as_slice() else { panic!("{version}/{name}: {states:?}") };
            assert_eq!(
                (state.backend.as_str(), state.server.as_str()),
                ("be_green", "s1"),
                "{version}/{name}"
            );
            assert_eq!((state.port, state.weight, state.initial_weight), (8080, 1, 1), "{version}/{name}");
            // Whether it is down is not what was decided about it.
            assert!(!state.drained && !state.in_maintenance && !state.tls, "{version}/{name}");
        }
        let drained = reply(version, "servers-state").replace(" 2 0 1 1 ", " 2 8 1 1 ");
        assert!(reply::server_states(&drained).unwrap()[0].drained);
        let in_maintenance = drained.replace(" 2 8 1 1 ", " 0 1 1 1 ");
        assert!(reply::server_states(&in_maintenance).unwrap()[0].in_maintenance);
        for name in ["stat", "info", "empty", "map-show", "server-unknown-backend", "old-worker-gone"] {
            assert_eq!(reply::server_states(&reply(version, name)), None, "{version}/{name}");
        }
        // A cut list has no servers that are missing from it.
        let whole = reply(version, "servers-state");
        for end in 0..whole.len() - 1 {
            assert_eq!(reply::server_states(&whole[..end]), None, "{version}: {end} bytes");
        }
    }
}

#[test]
fn algorithms_of_backends() {
    for version in VERSIONS {
        let found = reply::algorithms(&reply(version, "stat")).unwrap();
        assert_eq!(found["be_blue"], "roundrobin", "{version}");
        assert_eq!(found["be_static"], "source", "{version}");
        assert_eq!(reply::algorithms(&reply(version, "info")), None, "{version}");
    }
}

#[test]
fn what_the_driver_by_states_takes_for_success() {
    for version in VERSIONS {
        for name in ["server-ready", "server-drain", "weight"] {
            assert!(reply::is_empty_success(&reply(version, name)), "{version}/{name}");
        }
        for name in [
            "server-as-operator",
            "server-as-user",
            "server-bad-state",
            "server-unknown",
            "server-unknown-backend",
            "weight-static",
            "weight-too-big",
        ] {
            assert!(!reply::is_empty_success(&reply(version, name)), "{version}/{name}");
        }
        assert!(reply(version, "weight-static").starts_with("Backend is using a static LB"), "{version}");
    }
}

#[test]
fn one_key_of_the_map() {
    let found = |value: &str| Some(MapValue::Found(value.to_owned()));
    let cases = [
        ("map-get", found("be_blue:be_blue:0:1")),
        ("map-get-missing", Some(MapValue::Missing)),
        ("map-get-empty", Some(MapValue::Missing)),
        // The argument ended at the space, and HAProxy said nothing: reading back shows it.
        ("map-get-after-space", found("be_blue")),
        // The first of two: `show map` alone can tell that there are two.
        ("map-get-duplicate", found("be_green:be_green:0:5")),
        ("map-get-after-reload", found("be_blue:be_blue:0:1")),
        ("map-get-after-broken-reload", found("be_blue:be_blue:0:1")),
        ("master-map-get", found("be_blue:be_blue:0:8")),
        ("old-worker-map-get", found("be_green:be_green:0:9")),
        ("map-set", None),
        ("map-set-unknown-file", None),
        ("map-show", None),
        ("map-list", None),
        ("old-worker-gone", None),
        ("unknown-command", None),
        ("empty", None),
    ];
    for version in VERSIONS {
        for (name, expected) in &cases {
            assert_eq!(reply::map_value(&reply(version, name)), *expected, "{version}/{name}");
        }
    }
}

#[test]
fn what_the_preflight_asks() {
    for version in VERSIONS {
        let map = vec!["/var/lib/pointsman/route.map".to_owned()];
        assert_eq!(reply::maps(&reply(version, "map-list")), Some(map), "{version}");
        assert!(reply::limits(&reply(version, "info")).is_some_and(|limits| limits.files > 0), "{version}");
        for name in ["map-show", "stat", "unknown-command", "empty", "version"] {
            assert_eq!(reply::maps(&reply(version, name)), None, "{version}/{name}");
            assert_eq!(reply::limits(&reply(version, name)), None, "{version}/{name}");
            assert_eq!(reply::cli_sockets(&reply(version, name)), None, "{version}/{name}");
            assert_eq!(reply::cli_level(&reply(version, name)), None, "{version}/{name}");
            assert_eq!(reply::loaded_files(&reply(version, name)), None, "{version}/{name}");
        }
    }
    let sockets = "# socket lvl processes\nunix@/run/a b.sock admin all\n";
    assert_eq!(reply::cli_sockets(sockets), None, "it was cut");
    let sockets =
        reply::cli_sockets("# socket lvl processes\nunix@/a.sock admin all\nipv4@1.2.3.4:5 user all\n\n")
            .unwrap();
    let shown: Vec<_> = sockets.iter().map(|socket| format!("{} {}", socket.address, socket.level)).collect();
    assert_eq!(shown, ["unix@/a.sock admin", "ipv4@1.2.3.4:5 user"]);
    assert_eq!(reply::cli_level("admin\n\n").as_deref(), Some("admin"));
    let files = reply::loaded_files("HAPROXY_CFGFILES=/a.cfg;/b.cfg\n\n").unwrap();
    assert_eq!(files, ["/a.cfg", "/b.cfg"]);
}

#[test]
fn all_keys_of_the_map() {
    let cases: [(&str, &[&str]); 4] = [
        ("map-show", &["be_blue:be_blue:0:1"]),
        ("map-show-duplicate", &["be_green:be_green:0:5", "be_blue:be_blue:0:6"]),
        ("map-show-duplicate-after-set", &["be_green:be_green:0:7", "be_green:be_green:0:7"]),
        ("map-show-empty", &[]),
    ];
    for version in VERSIONS {
        for (name, values) in cases {
            let expected: Vec<_> =
                values.iter().map(|value| ("route".to_owned(), (*value).to_owned())).collect();
            assert_eq!(reply::map_entries(&reply(version, name)), Some(expected), "{version}/{name}");
        }
        for name in ["map-set-unknown-file", "map-get", "map-list", "stat", "proc", "unknown-command", "info"]
        {
            assert_eq!(reply::map_entries(&reply(version, name)), None, "{version}/{name}");
        }
    }
}

#[test]
fn backends() {
    for version in VERSIONS {
        let expected = ["be_blue", "be_green", "be_static", "be_maint", "st_rl"].map(str::to_owned);
        assert_eq!(reply::backends(&reply(version, "backend-list")), Some(expected.to_vec()), "{version}");
        for name in ["stat", "proc", "empty", "version", "two-lines", "unknown-command", "old-worker-gone"] {
            assert_eq!(reply::backends(&reply(version, name)), None, "{version}/{name}");
        }
    }
}

#[test]
fn processes() {
    for version in VERSIONS {
        let (first, second) = match version {
            "2.8" => (40, 45),
            "3.2" => (38, 42),
            _ => (38, 43),
        };
        let list = |workers: &[u32], old_workers: &[u32], failed_reloads| {
            Some(Processes { workers: workers.to_vec(), old_workers: old_workers.to_vec(), failed_reloads })
        };
        assert_eq!(reply::processes(&reply(version, "proc")), list(&[first], &[], 0), "{version}");
        assert_eq!(reply::processes(&reply(version, "proc-no-quit")), list(&[first], &[], 0), "{version}");
        assert_eq!(
            reply::processes(&reply(version, "proc-old-worker")),
            list(&[second], &[first], 0),
            "{version}"
        );
        // 3.2 lists the live worker among the old ones and none among the workers.
        let broken =
            if version == "3.2" { list(&[], &[first, second], 1) } else { list(&[second], &[first], 1) };
        assert_eq!(reply::processes(&reply(version, "proc-after-broken-reload")), broken, "{version}");
        for name in ["stat", "info", "empty", "reload", "old-worker-gone", "master-worker", "unknown-command"]
        {
            assert_eq!(reply::processes(&reply(version, name)), None, "{version}/{name}");
        }
    }
}

#[test]
fn servers() {
    // Per file: backend, server, status, last check, healthy.
    type Row = (&'static str, &'static str, &'static str, &'static str, bool);
    let cases: [(&str, &[Row]); 5] = [
        (
            "stat-one-backend",
            &[("be_green", "s1", "UP", "L4OK", true), ("be_green", "BACKEND", "UP", "", false)],
        ),
        (
            "stat-drain",
            &[("be_green", "s1", "DRAIN", "L4OK", false), ("be_green", "BACKEND", "DOWN", "", false)],
        ),
        ("stat-maint", &[("be_green", "s1", "MAINT", "", false), ("be_green", "BACKEND", "DOWN", "", false)]),
        // Up by decree and not by any check.
        (
            "stat-ready-from-maint",
            &[("be_green", "s1", "UP 1/3", "L4OK", false), ("be_green", "BACKEND", "UP", "", false)],
        ),
        (
            "stat-down",
            &[("be_green", "s1", "DOWN", "L4CON", false), ("be_green", "BACKEND", "DOWN", "", false)],
        ),
    ];
    for version in VERSIONS {
        for (name, expected) in cases {
            let rows = reply::stat(&reply(version, name)).unwrap();
            let found: Vec<_> = rows
                .iter()
                .map(|r| (&*r.backend, &*r.server, &*r.status, &*r.check_status, r.healthy()))
                .collect();
            assert_eq!(found, expected, "{version}/{name}");
            assert!(rows.iter().all(|r| (r.sessions, r.requests_total, r.responses_5xx) == (0, 0, 0)));
        }
        let rows = reply::stat(&reply(version, "stat")).unwrap();
        let names: Vec<_> = rows.iter().map(|row| format!("{}/{}", row.backend, row.server)).collect();
        let expected = ["be_blue/s1", "be_blue/BACKEND", "be_green/s1", "be_green/BACKEND", "be_static/s1"];
        assert_eq!(names[..5], expected, "{version}");
        assert_eq!(names[5..], ["be_static/BACKEND", "be_maint/BACKEND", "st_rl/BACKEND"], "{version}");
        for name in
            ["stat-one-backend-typed", "info", "proc", "servers-state", "table", "empty", "unknown-command"]
        {
            assert_eq!(reply::stat(&reply(version, name)), None, "{version}/{name}");
        }
    }
}

#[test]
fn success_is_one_empty_line_and_nothing_else() {
    let succeed = [
        "map-set",
        "map-set-space",
        "map-set-duplicate",
        "map-set-as-user",
        "map-set-as-operator",
        "old-worker-map-set",
        "map-del",
        "map-commit",
        "map-add-prepared",
        "map-add-duplicate",
        "map-show-empty",
    ];
    let fail = [
        "map-set-missing-key",
        "map-set-no-value",
        "map-set-unknown-file",
        "map-commit-unknown",
        "map-prepare",
        "map-get",
        "unknown-command",
        "old-worker-gone",
        "empty",
        "no-newline",
        "severity-map-missing-key",
        "two-lines",
    ];
    for version in VERSIONS {
        for name in succeed {
            assert!(reply::is_empty_success(&reply(version, name)), "{version}/{name}");
        }
        for name in fail {
            assert!(!reply::is_empty_success(&reply(version, name)), "{version}/{name}");
        }
    }
}

/// The certificate of the recorded answers.
const CERTIFICATE: &str = "/etc/haproxy/certs/www.data-dna.eu.pem";

#[test]
fn certificates() {
    for version in VERSIONS {
        let shown = |name: &str| reply::certificate(&reply(version, name)).unwrap();
        let (before, pending, after) =
            (shown("cert-show"), shown("cert-show-pending"), shown("cert-show-new"));
        assert_eq!((before.path.as_str(), after.path.as_str()), (CERTIFICATE, CERTIFICATE), "{version}");
        // An open transaction is shown under another name, and must never be taken for what is served.
        assert_eq!(pending.path, format!("*{CERTIFICATE}"), "{version}");
        let status = if version == "3.2" { "Uncommitted" } else { "Unused" };
        assert_eq!((before.status.as_str(), pending.status.as_str()), ("Used", status), "{version}");
        assert_eq!((&pending.serial, &pending.sha1), (&after.serial, &after.sha1), "{version}");
        assert!(
            before.serial != after.serial && before.sha1 != after.sha1 && after.sha1.len() == 40,
            "{version}"
        );
        for (name, text) in all(version) {
            let set = reply::certificate_is_set(&text, CERTIFICATE);
            assert_eq!(set, ["cert-set", "cert-set-mismatch"].contains(&&*name), "{version}/{name}");
            assert!(!reply::certificate_is_set(&text, "/nope.pem"), "{version}/{name}");
            // As in the recording, a key that does not fit is set, and refused only at the commit.
            assert_eq!(reply::certificate_is_committed(&text), name == "cert-commit", "{version}/{name}");
        }
    }
}

#[test]
fn tables() {
    for version in VERSIONS {
        let rows = reply::table(&reply(version, "table-filter"), "st_rl").unwrap().entries;
        let expires_ms = if version == "2.8" { 60_000 } else { 59_999 };
        let expected = TableEntry {
            key: TableKey::Address("192.0.2.4".parse().unwrap()),
            expires_ms,
            rate: 5,
            period_ms: 10_000,
        };
        assert_eq!(rows, [expected], "{version}");
        let empty = reply::Table { keys: reply::TableKeys::V4, entries: vec![] };
        assert_eq!(reply::table(&reply(version, "table"), "st_rl"), Some(empty), "{version}");
        assert_eq!(reply::table(&reply(version, "table"), "st_other"), None, "{version}");
        assert_eq!(reply::table(&reply(version, "table-unknown"), "st_rl"), None, "{version}");
        assert!(reply::is_empty_success(&reply(version, "table-clear")), "{version}");
    }
}

/// Which answers each parser takes, over all files: no parser takes another's.
#[test]
fn no_parser_takes_an_answer_that_is_not_its_own() {
    for version in VERSIONS {
        for (name, text) in all(version) {
            let own = |starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
            if reply::info(&text).is_some() {
                assert!(own(&["info", "old-worker-info"]), "info: {version}/{name}");
            }
            if reply::map_value(&text).is_some() {
                assert!(
                    own(&["map-get", "master-map-get", "old-worker-map-get"]),
                    "map_value: {version}/{name}"
                );
            }
            // A list of nothing is what an empty map answers, and what commands without an answer do.
            if reply::map_entries(&text).is_some_and(|entries| !entries.is_empty()) {
                assert!(own(&["map-show"]), "map_entries: {version}/{name}");
            }
            if reply::backends(&text).is_some() {
                assert_eq!(name, "backend-list", "backends: {version}");
            }
            if reply::processes(&text).is_some() {
                assert!(own(&["proc"]), "processes: {version}/{name}");
            }
            if reply::stat(&text).is_some() {
                assert!(own(&["stat"]), "stat: {version}/{name}");
            }
            if reply::certificate(&text).is_some() {
                assert!(own(&["cert-show"]), "certificate: {version}/{name}");
            }
            if reply::table(&text, "st_rl").is_some() {
                assert!(["table", "table-filter"].contains(&&*name), "table: {version}/{name}");
            }
        }
    }
}

/// A worker that dies while it answers closes the connection as one that has answered does. Every whole answer ends
/// with an empty line, so a cut one can be told; taken for whole, it would hide servers that still serve, and old
/// workers that must be told.
#[test]
fn a_cut_answer_says_what_the_whole_one_says_or_nothing() {
    let mut lies = BTreeMap::new();
    for version in VERSIONS {
        for name in [
            "info",
            "map-get",
            "map-show-duplicate",
            "backend-list",
            "proc-old-worker",
            "stat",
            "cert-show",
            "table-filter",
        ] {
            let whole = reply(version, name);
            let says = parsed(&whole);
            for cut in (1..whole.len()).filter(|cut| whole.is_char_boundary(*cut)) {
                for (parser, (now, then)) in parsed(&whole[..cut]).iter().zip(&says).enumerate() {
                    // The parser whose answer this is; the last ones say only yes or no.
                    if parser < 8 && then != "None" && now != "None" && now != then {
                        lies.entry(format!("{version}/{name}")).or_insert((cut, whole.len(), now.clone()));
                    }
                }
            }
        }
    }
    assert!(lies.is_empty(), "cut answers taken for whole, first cut of each: {lies:#?}");
}

#[test]
fn no_cut_heals_a_server() {
    for version in VERSIONS {
        for (name, whole) in all(version) {
            let truly = healthy(&whole);
            for cut in (0..whole.len()).filter(|cut| whole.is_char_boundary(*cut)) {
                let now = healthy(&whole[..cut]);
                assert!(now.is_subset(&truly), "{version}/{name} cut at {cut}: {now:?}");
            }
        }
    }
}

fn any_reply() -> impl Strategy<Value = String> {
    let replies: Vec<String> = VERSIONS.iter().flat_map(|version| all(version).into_values()).collect();
    proptest::sample::select(replies)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn made_up_answers_never_panic(text in any::<String>(), lines in "(# |#<PID>|0x1 |type=|[a-z0-9,:\" \n]){0,60}") {
        parsed(&text);
        parsed(&lines);
        prop_assert!(healthy(&text).is_empty());
    }

    #[test]
    fn flipped_bytes_never_panic(text in any_reply(), at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = text.into_bytes();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        parsed(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn doubled_answers_never_panic_and_heal_nobody(text in any_reply(), cut in any::<proptest::sample::Index>()) {
        let cut = (0..=cut.index(text.len() + 1)).rev().find(|cut| text.is_char_boundary(*cut)).unwrap();
        for doubled in [format!("{text}{text}"), format!("{}{text}", &text[..cut]), format!("{text}{}", &text[cut..])] {
            parsed(&doubled);
            let truly = healthy(&text);
            let rows = reply::stat(&text).unwrap_or_default().into_iter().map(|row| (row.backend, row.server));
            let healed = rows.filter(|row| !truly.contains(row)).find(|row| healthy(&doubled).contains(row));
            prop_assert_eq!(healed, None);
        }
    }
}

/// Tables count by texts too, which visitors write; as HAProxy 2.6.12 shows them.
#[test]
fn keys_of_tables_that_are_no_addresses() {
    let rows = [
        (r#"a\=b;c\\d\ "x"\ key\=1"#, r#"a=b;c\d "x" key=1"#),
        (r"abc\ def", "abc def"),
        ("plain", "plain"),
        // Nothing that a terminal would act on.
        (r"\e[2J\x9b\n", r"\e[2J\x9b\n"),
        (r"ends\\", r"ends\"),
        ("4711", "4711"),
        ("", ""),
    ];
    for (written, key) in rows {
        let text = format!(
            "# table: st_key, type: string, size:100, used:1\n0x7f16f4034820: key={written} use=0 exp=599832 http_req_rate(10000)=7\n\n"
        );
        let table = reply::table(&text, "st_key").unwrap_or_else(|| panic!("{text}"));
        let expected = TableEntry {
            key: TableKey::Text(key.to_owned()),
            expires_ms: 599_832,
            rate: 7,
            period_ms: 10_000,
        };
        assert_eq!(table.entries, [expected]);
    }
    let raw = "# table: st_key, type: string, size:100, used:1\n0x1: key=a\u{1b}[2J use=0 exp=5 http_req_rate(10)=7\n\n";
    assert_eq!(reply::table(raw, "st_key"), None);
}

/// The answer goes through one buffer itself: what does not fit is left out, the line of that pool perhaps.
#[test]
fn how_much_a_buffer_holds() {
    let pools = |buffer: &str, total: u32| {
        format!(
            "Dumping pools usage. Use SIGQUIT to flush them.\n  - Pool task (160 bytes) : 1 allocated\n{buffer}\
             Total: {total} pools, 17040 bytes allocated, 17040 used (~4112 by thread caches).\n\n"
        )
    };
    let line = "  - Pool buffer (8192 bytes) : 3 allocated (24576 bytes), 3 used\n";
    assert_eq!(reply::buffer_bytes(&pools(line, 2)), Some(8192));
    assert_eq!(reply::buffer_bytes(&pools(line, 19)), Some(8192));
    let cut = pools("", 19);
    assert_eq!(reply::buffer_bytes(&cut), Some(cut.len()), "a buffer holds hardly more");
    assert_eq!(reply::buffer_bytes(&pools("", 1)), None);
    assert_eq!(reply::buffer_bytes("Permission denied\n\n"), None);
}
