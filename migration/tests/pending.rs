//! What follows from the records of a database.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first thing that is not as it should be")]

use pointsman_migration::{Begun, Phase, Recorded, Relation, Set, Version, pending, records_itself};

fn set(files: &[(&str, &str)]) -> Set {
    Set::read(files.iter().map(|(path, text)| (*path, text.as_bytes()))).unwrap()
}

fn version(text: &str) -> Version {
    Version::parse(text).unwrap()
}

/// A row as the agent writes it after it has run the file of this set.
fn applied(set: &Set, text: &str) -> Recorded {
    let script = set.get(&version(text)).unwrap().expand.as_ref().unwrap();
    let (raw_hash, token_hash) = (Some(script.raw_hash), Some(script.token_hash));
    Recorded { version: version(text), phase: Phase::Expand, adopted: false, raw_hash, token_hash }
}

/// Versions to run and notes, or rules with their files.
fn left(set: &Set, recorded: &[Recorded], allowed: &[&str]) -> Result<(Vec<String>, usize), Vec<String>> {
    let allowed: Vec<Version> = allowed.iter().map(|text| version(text)).collect();
    pending(set, Phase::Expand, recorded, &[], &allowed)
        .map(|pending| (pending.scripts.iter().map(|m| m.version.to_string()).collect(), pending.notes.len()))
        .map_err(|findings| findings.iter().map(|f| format!("{} {}", f.path, f.rule)).collect())
}

fn versions(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_not_recorded_is_left_in_the_order_of_versions() {
    let set = set(&[("v1.10.0.sql", "select 10"), ("v1.9.0.sql", "select 9"), ("v1.2.0.sql", "select 2")]);
    assert_eq!(left(&set, &[], &[]), Ok((versions(&["1.2.0", "1.9.0", "1.10.0"]), 0)));
    let recorded = [applied(&set, "1.2.0"), applied(&set, "1.9.0")];
    assert_eq!(left(&set, &recorded, &[]), Ok((versions(&["1.10.0"]), 0)));
    let contract = pending(&set, Phase::Contract, &recorded, &[], &[]).unwrap();
    assert!(contract.scripts.is_empty());
}

#[test]
fn versions_below_the_highest_are_refused_unless_named() {
    let set = set(&[("v1.1.5.sql", "select 1"), ("v1.10.0.sql", "select 2")]);
    let recorded = [applied(&set, "1.10.0")];
    assert_eq!(left(&set, &recorded, &[]), Err(versions(&["v1.1.5.sql out-of-order"])));
    assert_eq!(left(&set, &recorded, &["v1.1.5"]), Ok((versions(&["1.1.5"]), 0)));
}

#[test]
fn applied_files_may_change_in_comments_only() {
    let old = set(&[("v1.sql", "select 1"), ("v2.sql", "select 2")]);
    let recorded = [applied(&old, "1"), applied(&old, "2")];
    let formatted = set(&[("v1.sql", "-- (c)\r\nSELECT\r\n  1;"), ("v2.sql", "select 2")]);
    assert_eq!(left(&formatted, &recorded, &[]), Ok((vec![], 1)));
    let changed = set(&[("v1.sql", "select 3"), ("v2.sql", "-- pointsman: allow-rewrite\nselect 2")]);
    assert_eq!(left(&changed, &recorded, &[]), Err(versions(&["v1.sql drift", "v2.sql drift"])));
    let gone = set(&[("v2.sql", "select 2")]);
    assert_eq!(left(&gone, &recorded, &[]), Err(versions(&["v1.0.0.expand.sql file-gone"])));
}

#[test]
fn adopted_rows_need_no_file_and_perhaps_no_hash() {
    let set = set(&[("v1.1.0.sql", "select 1"), ("v2.sql", "select 2")]);
    let adopted = |text: &str| Recorded {
        version: version(text),
        phase: Phase::Expand,
        adopted: true,
        raw_hash: None,
        token_hash: None,
    };
    assert_eq!(left(&set, &[adopted("1.0.0"), adopted("1.1.0")], &[]), Ok((versions(&["2.0.0"]), 0)));
}

#[test]
fn a_file_that_records_itself_is_seen() {
    let table = Relation { schema: Some("public".into()), name: "schema_version".into() };
    for (sql, expected) in [
        ("create table t (a int); INSERT INTO Schema_Version (version) VALUES ('1.0.0')", true),
        ("insert into public.\"schema_version\" values ('1')", true),
        ("insert into other.schema_version values ('1')", false),
        ("insert into \"Schema_Version\" values ('1')", false),
        ("select 'insert into schema_version'", false),
        ("do $$ begin insert into schema_version values ('1'); end $$", true),
        ("with v as (select '1') insert into schema_version select * from v", true),
    ] {
        let set = set(&[("v1.sql", sql)]);
        let script = set.migrations().iter().next().unwrap().expand.as_ref().unwrap();
        assert_eq!(records_itself(script, &table), expected, "{sql}");
    }
}

#[test]
fn a_begun_file_is_ended_by_itself_and_never_left_behind() {
    let begun =
        |text, phase| Begun { version: version(text), phase, stands: "2 statements stand".to_owned() };
    let rules = |files: &[(&str, &str)], phase, begun| {
        let of_rule = |findings: Vec<pointsman_migration::Finding>| {
            findings.iter().map(|f| format!("{} {}", f.path, f.rule)).collect::<Vec<_>>()
        };
        pending(&set(files), phase, &[], &[begun], &[]).map(|_| ()).map_err(of_rule)
    };
    let old = ("v1.1.0.sql", "select 1");
    // Corrected in what has not run, or with another before it.
    assert_eq!(rules(&[("v1.0.5.sql", "select 0"), old], Phase::Expand, begun("1.1", Phase::Expand)), Ok(()));
    for files in [&[("v1.2.0.sql", "select 1")][..], &[("v1.1.0.contract.sql", "select 1")], &[]] {
        let refused = rules(files, Phase::Expand, begun("1.1", Phase::Expand));
        assert_eq!(refused, Err(versions(&["v1.1.0.expand.sql begun-gone"])), "{files:?}");
    }
    // Only the run of its own phase would leave it behind.
    assert_eq!(rules(&[old], Phase::Expand, begun("1.1", Phase::Contract)), Ok(()));
    let refused = rules(&[old], Phase::Contract, begun("1.1", Phase::Contract));
    assert_eq!(refused, Err(versions(&["v1.1.0.contract.sql begun-gone"])));
    for phase in [Phase::Expand, Phase::Contract] {
        let refused = rules(&[old], phase, begun("1.1", Phase::Down));
        assert_eq!(refused, Err(versions(&["v1.1.0.down.sql down-begun"])));
    }
}
