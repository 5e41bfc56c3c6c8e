//! Migrations from files: bad ones with the rule that must stop each at its place, good ones that nothing may be said
//! of, and those that only a rehearsal stops.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first thing that is not as it should be")]

use std::fs;
use std::path::PathBuf;

use pointsman_migration::{Finding, Phase, Set, breaking, dangerous};

/// Name and text of each file of a folder.
fn files(folder: &str) -> Vec<(String, String)> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let mut files: Vec<(String, String)> = fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

/// Everything that is said of a file: who says it, and what.
fn said(name: &str, text: &str) -> Vec<(&'static str, Finding)> {
    let set = match Set::read([(name, text.as_bytes())]) {
        Ok(set) => set,
        Err(findings) => return findings.into_iter().map(|finding| ("refused", finding)).collect(),
    };
    let mut said = Vec::new();
    for script in
        set.migrations().iter().flat_map(|m| Phase::ALL.into_iter().filter_map(|phase| m.script(phase)))
    {
        if script.phase == Phase::Expand {
            said.extend(breaking(script).into_iter().map(|finding| ("breaking", finding)));
        }
        said.extend(dangerous(script).into_iter().map(|finding| ("dangerous", finding)));
    }
    said
}

#[test]
fn bad_migrations_are_stopped_at_the_place() {
    let files = files("bad");
    assert!(files.len() >= 30, "{} files", files.len());
    let mut wrong = Vec::new();
    for (file, text) in &files {
        let expected = text.lines().next().and_then(|line| line.strip_prefix("-- expect: ")).expect(file);
        let words: Vec<&str> = expected.split(' ').collect();
        let [who, rule, at, "in", name] = words[..] else { panic!("{file}: {expected}") };
        let said = said(name, text);
        let found = said.iter().any(|(by, finding)| {
            let place = format!("{}:{}", finding.line, finding.column);
            *by == who && finding.rule == rule && (at == "?" || place == at) && finding.path == name
        });
        if !found {
            wrong.push(format!("{file}: expected {who} {rule} at {at}, said: {said:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_said_of_good_migrations() {
    let files = files("good");
    assert!(!files.is_empty());
    let said: Vec<String> = files
        .iter()
        .flat_map(|(file, text)| {
            said("v1.2.0.sql", text).into_iter().map(move |(by, f)| format!("{file}: {by}: {f}"))
        })
        .collect();
    assert!(said.is_empty(), "{}", said.join("\n"));
}

/// These pass here, so the executor's tests must stop them: each `NAME.sql` on the database of `NAME.before.sql`.
#[test]
fn what_a_rehearsal_must_find_is_not_found_by_reading() {
    for (file, text) in files("rehearsal") {
        if file.ends_with(".before.sql") {
            continue;
        }
        let mut lines = text.lines();
        let reason = lines.next().and_then(|line| line.strip_prefix("-- found by rehearsal: "));
        assert!(reason.is_some(), "{file} says what the rehearsal finds");
        let name = lines.next().and_then(|line| line.strip_prefix("-- file: ")).expect(&file);
        assert!(Set::read([(name, text.as_bytes())]).is_ok(), "{file}");
        let refused: Vec<_> = said(name, &text).into_iter().filter(|(by, _)| *by != "dangerous").collect();
        assert!(refused.is_empty(), "{file}: {refused:?}");
    }
}
