//! What is wrong with files as files: bytes, names, versions; everything is told at once.

use pointsman_migration::Set;

/// Paths with their contents.
type Files<'a> = &'a [(&'a str, &'a [u8])];

/// Rules with their places, in order.
fn refused(files: Files<'_>) -> Vec<String> {
    let told = |findings: Vec<pointsman_migration::Finding>| {
        findings.iter().map(|f| format!("{}:{}:{} {}", f.path, f.line, f.column, f.rule)).collect()
    };
    Set::read(files.iter().copied()).map_or_else(told, |_| Vec::new())
}

#[test]
fn bytes_that_are_no_migration_are_refused() {
    let long = vec![b' '; (1 << 20) + 1];
    let cases: &[(&[u8], &str)] = &[
        (b"", "1:1 empty"),
        (b"-- nothing\n/* */ ; ;", "1:1 empty"),
        (b"\xef\xbb\xbfselect 1", "1:1 byte-order-mark"),
        (b"\xff\xfes\0e\0", "1:1 not-utf-8"),
        (b"select 1;\n-- \xe4", "2:4 not-utf-8"),
        (b"select '\0'", "1:9 nul-byte"),
        (b"select 1;\0\n\xff", "1:10 nul-byte"),
        (&long, "1:1 file-size"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(refused(&[("v1.sql", bytes)]), [format!("v1.sql:{expected}")]);
    }
}

#[test]
fn names_and_versions_must_be_clear() {
    let one: &[u8] = b"select 1";
    let contract: &[u8] = b"-- pointsman: phase=contract\nselect 1";
    let cases: &[(Files<'_>, &[&str])] = &[
        (&[("v1.sql", one), ("README.md", b"\xff"), ("v1.contract.sql", one), ("v1.verify.sql", one)], &[]),
        (&[("v1.2.sql", one), ("v1.2.0.sql", one)], &["v1.2.0.sql:1:1 version-twice"]),
        (&[("v1.2.0.sql", one), ("1.2.0.expand.sql", one)], &["1.2.0.expand.sql:1:1 version-twice"]),
        (&[("v1.sql", contract), ("v1.contract.sql", one)], &["v1.contract.sql:1:1 version-twice"]),
        (&[("v1.sql", contract), ("v1.expand.sql", one)], &[]),
        (&[("v1.down.sql", contract), ("v1.sql", one)], &["v1.down.sql:1:1 header"]),
        (&[("init.sql", one), ("V2__x.sql", one)], &["V2__x.sql:1:1 file-name", "init.sql:1:1 file-name"]),
        (&[("v1.down.sql", one)], &["v1.down.sql:1:1 down-alone"]),
        (&[("v1.0.0+a.sql", one)], &["v1.0.0+a.sql:1:1 file-name"]),
    ];
    for (files, expected) in cases {
        assert_eq!(refused(files), *expected, "{:?}", files.iter().map(|(name, _)| name).collect::<Vec<_>>());
    }
}

#[test]
fn everything_is_told_at_once() {
    let one: &[u8] = b"begin;\nselect from from;\n  commit;\nset search_path = a;\n\\d\nselect 'open";
    assert_eq!(
        refused(&[("v2.sql", b""), ("v1.sql", one)]),
        [
            "v1.sql:1:1 own-transaction",
            "v1.sql:2:12 parse-error",
            "v1.sql:3:3 own-transaction",
            "v1.sql:4:1 own-setting",
            "v1.sql:5:1 psql-command",
            "v1.sql:6:8 parse-error",
            "v2.sql:1:1 empty",
        ]
    );
}
