//! `-h`, `--help`, and what is said of a command line that cannot be.

use std::collections::BTreeSet;

use crate::compare::Cases;
use crate::kit::Sandbox;

/// Every verb. The first word of each is checked against what `--help` lists.
const VERBS: &[&[&str]] = &[
    &["plan"],
    &["deploy"],
    &["status"],
    &["rollback"],
    &["abort"],
    &["pause"],
    &["resume"],
    &["promote"],
    &["history"],
    &["traffic"],
    &["traffic", "show"],
    &["traffic", "watch"],
    &["traffic", "limits"],
    &["traffic", "unblock"],
    &["check"],
    &["checklist"],
    &["cert"],
    &["cert", "deploy"],
    &["cert", "show"],
    &["maintenance"],
    &["maintenance", "on"],
    &["maintenance", "off"],
    &["maintenance", "status"],
    &["db"],
    &["db", "status"],
    &["db", "list"],
    &["db", "backup"],
    &["db", "verify"],
    &["db", "contract"],
    &["db", "down"],
    &["db", "restore"],
    &["doctor"],
    &["doctor", "lb"],
    &["config"],
    &["config", "check"],
    &["audit"],
    &["audit", "verify"],
    &["init"],
    &["explain"],
];

fn listed(help: &str) -> BTreeSet<String> {
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = commands.take_while(|line| !line.is_empty());
    let verbs = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    verbs.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

#[test]
fn help_of_every_verb() {
    let sandbox = Sandbox::new();
    for (flag, file) in [("-h", "help-short.txt"), ("--help", "help-long.txt")] {
        let mut cases = Cases::default();
        for verb in [&[][..]].iter().chain(VERBS) {
            let arguments = [verb, &[flag][..]].concat();
            let ran = sandbox.run(&arguments);
            assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{arguments:?}");
            cases.add(&format!("pointsman {}", arguments.join(" ")), &ran.stdout);
        }
        cases.check(file);
    }
}

#[test]
fn every_listed_verb_is_known_here() {
    let help = Sandbox::new().run(&["--help"]).stdout;
    let known: BTreeSet<String> = VERBS.iter().map(|verb| verb[0].to_owned()).collect();
    assert_eq!(listed(&help), known);
}

#[test]
fn version() {
    let ran = Sandbox::new().run(&["--version"]);
    assert_eq!(
        (ran.code, ran.stdout),
        (0, concat!("pointsman ", env!("CARGO_PKG_VERSION"), "\n").to_owned())
    );
}

#[test]
fn wrong_usage_ends_with_2_and_starts_nothing() {
    let sandbox = Sandbox::new();
    let mut cases = Cases::default();
    for arguments in [
        &[][..],
        &["deplyo", "production"],
        &["deploy", "production"],
        &["deploy", "production", "--artifact", "dist", "--release", "two words"],
        &["deploy", "production", "--artifact", "dist", "--request-id", ""],
        &["status"],
        &["status", "Production"],
        &["status", "production", "staging"],
        &["status", "production", "--timeout", "30"],
        &["status", "production", "--folow"],
        &["history", "production", "--limit", "many"],
        &["maintenance", "production"],
        &["maintenance", "on", "production", "--for", "soon"],
        &["-o", "xml", "status", "production"],
        &["explain"],
        &["init", "--environment", "production"],
        &["pause"],
        &["audit", "production"],
    ] {
        let ran = sandbox.run(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{arguments:?}");
        cases.add(&format!("pointsman {}", arguments.join(" ")), &ran.stderr);
    }
    cases.check("usage.txt");
}

/// A job that asked for JSON reads one document of a command line that cannot be, too.
#[test]
fn wrong_usage_is_one_document() {
    let sandbox = Sandbox::new();
    let mut cases = Cases::default();
    for arguments in [
        &["-o", "json", "deplyo", "production"][..],
        &["deploy", "production", "-o", "json"],
        &["status", "Production", "--output=json"],
        &["status", "production", "--folow", "-ojson"],
        &["--output", "json"],
    ] {
        let ran = sandbox.run(arguments);
        let document = ran.document();
        assert_eq!((ran.code, &document["exit_code"]), (2, &2.into()), "{arguments:?}");
        assert_eq!(
            (&document["kind"], &document["code"]),
            (&"error".into(), &"PM0603".into()),
            "{arguments:?}"
        );
        cases.add(&format!("pointsman {}", arguments.join(" ")), &ran.stdout);
    }
    cases.check("usage-json.txt");
    // Help was asked for, and is help.
    let ran = sandbox.run(&["-o", "json", "--help"]);
    assert!(ran.code == 0 && ran.stdout.starts_with("Release a web application"), "{}", ran.stdout);
}

/// Neither a terminal that cannot show colour nor a person who wants none gets escape sequences.
#[test]
fn no_escapes_where_none_are_wanted() {
    let sandbox = Sandbox::initialised();
    let config = "site/people/operator-anna/config.toml";
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb"), ("TERM", "xterm-256color"), ("LC_ALL", "C")] {
        for arguments in [
            &["--help"][..],
            &["deplyo"],
            &["explain", "PM0401"],
            &["explain", "PM9999"],
            &["--config", config, "status", "production"],
            &["--config", config, "-o", "tty", "status", "production"],
        ] {
            let mut command = sandbox.command(arguments);
            command.env(name, value);
            let ran = sandbox.finish(command);
            let said = format!("{}{}", ran.stdout, ran.stderr);
            assert!(
                !said.contains('\u{1b}') && !said.contains('\r'),
                "{name}={value} {arguments:?}: {said:?}"
            );
        }
    }
}
