//! `explain`: offline, complete, and quiet when nobody reads.

use std::fs;
use std::path::Path;

use crate::compare::Cases;
use crate::kit::Sandbox;

#[test]
fn every_page_is_printed_as_it_is_written() {
    let sandbox = Sandbox::new();
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors");
    for code in pointsman_core::Code::ALL {
        let page = fs::read_to_string(pages.join(format!("{code}.md"))).unwrap();
        let ran = sandbox.run(&["explain", code.as_str()]);
        assert_eq!(
            (ran.code, ran.stdout.trim_end(), ran.stderr.as_str()),
            (0, page.trim_end(), ""),
            "{code}"
        );
    }
}

#[test]
fn codes_are_found_however_they_are_written_and_unknown_ones_are_named() {
    let sandbox = Sandbox::new();
    assert!(sandbox.run(&["explain", "pm0401"]).stdout.starts_with("# PM0401: "));
    let mut cases = Cases::default();
    for arguments in [
        &["explain", "PM9999"][..],
        &["explain", "check failed"],
        &["explain", "\u{1b}[31mPM0401"],
        &["-o", "json", "explain", "PM9999"],
    ] {
        let ran = sandbox.run(arguments);
        assert_eq!(ran.code, 2);
        cases.add(&arguments.join(" ").escape_debug().to_string(), &ran.shown());
    }
    cases.check("explain-unknown.txt");
}

#[test]
fn as_json() {
    let document = Sandbox::new().run(&["explain", "pm0401", "-o", "json"]).document();
    assert_eq!((&document["kind"], &document["code"]), (&"page".into(), &"PM0401".into()));
    assert!(document["page"].as_str().unwrap().contains("## What to do"));
}

/// Runs with a standard output that nobody reads any more.
fn unread(sandbox: &Sandbox, arguments: &[&str]) -> crate::kit::Ran {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = sandbox.command(arguments);
    command.stdout(writer);
    sandbox.finish(command)
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    for arguments in [&["explain", "PM0401"][..], &["explain", "PM0401", "-o", "json"], &["--help"]] {
        let ran = unread(&Sandbox::new(), arguments);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{arguments:?}");
    }
}

/// A pipe that breaks must not turn a failure into a success: CI reads the exit code.
#[test]
fn a_reader_that_goes_away_does_not_change_the_exit_code() {
    let sandbox = Sandbox::initialised();
    let config = "site/people/operator-anna/config.toml";
    let ran = unread(&sandbox, &["--config", config, "-o", "json", "status", "production"]);
    assert_eq!(ran.code, 7, "{}", ran.stderr);
}
