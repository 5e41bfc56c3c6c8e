//! What is read from files, seen from outside.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may stop at the first thing that is not as it should be"
)]

use pointsman_migration::{Class, Lock, LockMode, Phase, Probe, Relation, Script, Set, dangerous};

fn set(files: &[(&str, &str)]) -> Result<Set, Vec<String>> {
    Set::read(files.iter().map(|(path, text)| (*path, text.as_bytes())))
        .map_err(|findings| findings.iter().map(ToString::to_string).collect())
}

fn expand(sql: &str) -> Script {
    set(&[("v1.0.0.sql", sql)]).unwrap().migrations()[0].expand.clone().unwrap()
}

#[test]
fn versions_are_in_the_order_of_numbers() {
    let files = ["v1.10.0.sql", "v1.9.0.sql", "1.2.sql", "README.md"].map(|path| (path, "select 1"));
    let versions: Vec<String> =
        set(&files).unwrap().migrations().iter().map(|m| m.version.to_string()).collect();
    assert_eq!(versions, ["1.2.0", "1.9.0", "1.10.0"]);
}

#[test]
fn an_index_on_a_partitioned_table_alone_is_an_entry_in_the_catalog() {
    let script = expand("CREATE INDEX i ON ONLY events (at);\nCREATE INDEX j ON events (at)");
    let classes: Vec<Class> = script.statements().map(|statement| statement.class).collect();
    assert_eq!(classes, [Class::Metadata, Class::Rewrite]);
    let only: Vec<bool> = script.statements().flat_map(|s| &s.locks).map(|lock| lock.only).collect();
    assert_eq!(only, [true, false]);
}

#[test]
fn a_file_becomes_transactions() {
    let script = expand(
        "-- pointsman: lock-timeout=50ms\nALTER TABLE features ADD COLUMN c int;\nCREATE INDEX CONCURRENTLY i ON \
         public.features (c);\nCREATE TABLE t (id int PRIMARY KEY REFERENCES layers);\nALTER TABLE t ADD d int",
    );
    assert_eq!(script.phase, Phase::Expand);
    assert_eq!(script.headers.lock_timeout_ms, Some(50));
    let shape: Vec<(bool, Vec<u32>)> = script
        .segments
        .iter()
        .map(|s| (s.transactional, s.statements.iter().map(|statement| statement.ordinal).collect()))
        .collect();
    assert_eq!(shape, [(true, vec![1]), (false, vec![2]), (true, vec![3, 4])]);
    let statements: Vec<_> = script.statements().collect();
    assert_eq!((statements[0].line, statements[0].column), (2, 1));
    let features = Relation::unqualified("features");
    assert_eq!(
        statements[0].locks,
        [Lock { relation: features, mode: LockMode::AccessExclusive, only: false }]
    );
    assert_eq!(statements[1].class, Class::Concurrent);
    let schema = Some("public".to_owned());
    let index = Relation { schema: schema.clone(), name: "i".into() };
    assert_eq!(
        statements[1].probe,
        Probe::IndexValid { index, table: Relation { schema, name: "features".into() } }
    );
    let layers = Relation::unqualified("layers");
    assert_eq!(
        statements[2].locks,
        [Lock { relation: layers, mode: LockMode::ShareRowExclusive, only: false }]
    );
    assert_eq!(statements[3].locks, [], "a table that the script makes cannot be locked beforehand");
}

#[test]
fn a_column_that_is_computed_and_stored_is_not_told_to_come_in_steps() {
    for (column, hint) in [
        ("v float8 GENERATED ALWAYS AS (id * 2.0) STORED", "a stored column cannot come in steps"),
        ("v uuid DEFAULT gen_random_uuid()", "add the column without it"),
        ("v bigserial", "add the column without it"),
    ] {
        let said = dangerous(&expand(&format!("ALTER TABLE t ADD COLUMN {column}")));
        let told: Vec<_> = said.iter().map(|finding| (finding.rule, finding.hint.as_str())).collect();
        assert!(
            matches!(told[..], [("adding-field-with-default", told)] if told.starts_with(hint)),
            "{said:#?}"
        );
    }
}

#[test]
fn a_block_that_ends_transactions_is_refused() {
    let read = |header: &str, body: &str| {
        let sql = format!("{header}DO $$BEGIN {body} END$$");
        set(&[("v1.0.0.sql", &sql)]).map(drop).map_err(|said| said.join("\n"))
    };
    for body in [
        "COMMIT;",
        "UPDATE t SET a = 1; commit and chain;",
        "IF a THEN ROLLBACK; END IF;",
        "LOOP UPDATE t SET a = 1; EXIT WHEN NOT FOUND; COMMIT; END LOOP;",
    ] {
        for header in ["", "-- pointsman: no-transaction\n"] {
            let said = read(header, body).unwrap_err();
            assert!(said.contains("[own-transaction]") && said.contains("batch="), "{body}: {said}");
        }
    }
    for body in ["a := commit;", "PERFORM commit(1);", "-- COMMIT;\nNULL;", "RAISE 'x; COMMIT;';"] {
        read("", body).unwrap();
    }
}
