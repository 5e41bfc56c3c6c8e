//! What is said when the configuration or the coordinator is not there, and how the command then ends.

use std::fs;

use crate::compare::{Cases, golden};
use crate::kit::{Ran, Sandbox};

/// One environment, whose certificate files are not there.
const CONFIG: &str = r#"
[environments.production]
coordinator = "127.0.0.1:1"
name = "control"
cert = "cert.pem"
key  = "key.pem"
ca   = "ca.pem"
"#;

/// Every verb that asks the coordinator, ready to be sent.
const ASKING: &[&[&str]] = &[
    &["status", "production"],
    &["status", "production", "--follow"],
    &["history", "production"],
    &["traffic", "show", "production"],
    &["maintenance", "status", "production"],
    &["maintenance", "on", "production", "--yes"],
    &["maintenance", "off", "production"],
    &["doctor", "production"],
    &["audit", "verify", "production"],
    &["plan", "production", "--artifact", "dist"],
    &["deploy", "production", "--artifact", "dist", "--yes"],
    &["rollback", "production"],
    &["abort", "production"],
    &["pause", "production"],
    &["resume", "production", "--yes"],
];

#[test]
fn wrong_configuration_ends_with_2_and_says_where() {
    let sandbox = Sandbox::new();
    let mut cases = Cases::default();
    for (name, config, environment) in [
        ("no such environment", CONFIG, "staging"),
        ("no environment at all", "", "production"),
        ("not TOML", "[environments.production\n", "production"),
        ("an unknown key", "[environments.production]\ncoordnator = \"control:1\"\n", "production"),
        ("a missing key", "[environments.production]\ncoordinator = \"control:1\"\n", "production"),
        (
            "a name that cannot be",
            "[environments.production]\ncoordinator = \"c:1\"\nname = \"No!\"\n",
            "production",
        ),
        ("no certificate there", CONFIG, "production"),
    ] {
        sandbox.write("pointsman.toml", config);
        let ran = sandbox.run(&["status", environment]);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{name}");
        cases.add(name, &ran.stderr);
    }
    fs::remove_file(sandbox.path().join("pointsman.toml")).unwrap();
    let ran = sandbox.run(&["--config", "elsewhere.toml", "status", "production"]);
    assert_eq!(ran.code, 2);
    cases.add("no such file", &ran.stderr);
    cases.check("configuration.txt");
}

#[test]
fn no_configuration_anywhere() {
    if fs::exists("/etc/pointsman/config.toml").unwrap() {
        return; // This host is an operator's own: its configuration would be found.
    }
    let ran = Sandbox::new().run(&["status", "production"]);
    golden("configuration-none.txt", &ran.shown());
    assert_eq!(ran.code, 2);
}

#[test]
fn the_configuration_is_found_in_its_places() {
    let asks = |ran: Ran| assert_eq!(ran.code, 7, "{}", ran.stderr);
    let sandbox = Sandbox::initialised();
    let own = "site/people/operator-anna/config.toml";
    asks(sandbox.run(&["--config", own, "status", "production"]));
    let mut by_variable = sandbox.command(&["status", "production"]);
    by_variable.env("POINTSMAN_CONFIG", own);
    asks(sandbox.finish(by_variable));
    let mut here = sandbox.command(&["status", "production"]);
    here.current_dir(sandbox.path().join("site/people/operator-anna"));
    asks(sandbox.finish(here));
    fs::create_dir_all(sandbox.path().join(".config")).unwrap();
    fs::rename(sandbox.path().join("site/people/operator-anna"), sandbox.path().join(".config/pointsman"))
        .unwrap();
    asks(sandbox.run(&["status", "production"]));
}

#[test]
fn a_certificate_of_another_environment_is_named_before_anybody_is_called() {
    let sandbox = Sandbox::initialised();
    let config = "site/people/operator-anna/config.toml";
    let text = fs::read_to_string(sandbox.path().join(config)).unwrap();
    sandbox.write(config, &text.replace("production", "staging"));
    let ran = sandbox.run_as_anna(&["status", "staging"]);
    assert_eq!(ran.code, 2);
    golden("certificate-of-another-environment.txt", &ran.shown());
}

#[test]
fn a_coordinator_that_does_not_listen_ends_with_7() {
    let sandbox = Sandbox::initialised();
    sandbox.write("dist/index.html", "hello");
    let mut cases = Cases::default();
    for arguments in ASKING {
        let ran = sandbox.run_as_anna(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (7, ""), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.starts_with("error[PM0704]: "), "{}", ran.stderr);
        cases.add(&arguments.join(" "), &ran.stderr);
    }
    cases.check("unreachable.txt");
}

/// A job reads one document, whatever happens.
#[test]
fn errors_are_one_document() {
    let sandbox = Sandbox::initialised();
    sandbox.write("dist/index.html", "hello");
    sandbox.write("empty/.keep", "");
    fs::remove_file(sandbox.path().join("empty/.keep")).unwrap();
    let unreachable = ASKING.iter().map(|arguments| (*arguments, 7, "PM0704"));
    let others: [(&[&str], i64, &str); 6] = [
        (&["status", "staging"], 2, "PM0602"),
        (&["deploy", "production", "--artifact", "dist"], 2, "PM0603"),
        (&["maintenance", "on", "production"], 2, "PM0603"),
        (&["resume", "production"], 2, "PM0603"),
        (&["plan", "production", "--artifact", "nowhere"], 1, "PM0201"),
        (&["plan", "production", "--artifact", "empty"], 1, "PM0209"),
    ];
    for (arguments, exit, code) in unreachable.chain(others) {
        let ran = sandbox.run_as_anna(&[&["-o", "json"], arguments].concat());
        let document = ran.document();
        assert_eq!(i64::from(ran.code), exit, "{arguments:?}");
        assert_eq!(document["exit_code"], exit, "{arguments:?}");
        assert_eq!((&document["kind"], &document["code"]), (&"error".into(), &code.into()), "{arguments:?}");
    }
    let ran = sandbox.run_as_anna(&["-o", "json", "status", "production"]);
    golden("unreachable-json.txt", &ran.shown());
}

#[test]
fn what_needs_a_yes_names_the_flag_where_nobody_can_be_asked() {
    let sandbox = Sandbox::initialised();
    sandbox.write("dist/index.html", "hello");
    let mut cases = Cases::default();
    for arguments in [
        &["deploy", "production", "--artifact", "dist"][..],
        &["maintenance", "on", "production"],
        &["resume", "production"],
    ] {
        let ran = sandbox.run_as_anna(arguments);
        assert_eq!(ran.code, 2);
        cases.add(&arguments.join(" "), &ran.shown());
    }
    cases.check("nobody-to-ask.txt");
}

#[test]
fn what_cannot_be_an_artifact_is_refused_before_anybody_is_called() {
    let sandbox = Sandbox::initialised();
    sandbox.write("dist/index.html", "hello");
    std::os::unix::fs::symlink("/etc/passwd", sandbox.path().join("dist/passwords")).unwrap();
    fs::create_dir(sandbox.path().join("empty")).unwrap();
    sandbox.write("file", "hello");
    let mut cases = Cases::default();
    for artifact in ["nowhere", "file", "empty", "dist"] {
        let ran = sandbox.run_as_anna(&["plan", "production", "--artifact", artifact]);
        assert_eq!(ran.code, 1, "{artifact}");
        cases.add(artifact, &ran.stderr);
    }
    cases.check("artifact-refused.txt");
}
