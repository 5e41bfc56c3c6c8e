//! Properties of reading: no token is lost, nothing that says the same differs, and no input ends the process.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first thing that is not as it should be")]

use pointsman_migration::{Script, Set, breaking, dangerous};
use proptest::prelude::*;

/// Whole statements that are hard to split. `·` stands where blanks and comments may.
const STATEMENTS: &[&str] = &[
    "select·1",
    "SELECT·a·<=·-·1,·'it''s; --',·E'\\';'·FROM·T",
    "create·table·\"Odd; \"\"Name\"·(·a·int·,·b·text·)",
    "DO·$body$ begin perform 1; /* ; */ end; $body$",
    "create·function·f(n·int)·returns·int·language·sql·begin·atomic·select·case·when·n>1·then·1·end·;·select·2;·end",
    "create·function·g()·returns·int·language·sql·as·$$ select 1; -- $x$ $$",
    "CREATE·INDEX·CONCURRENTLY·i·ON·public·.·t·(a)",
    "alter·table·t·add·column·c·int·default·1·,·add·d·text",
    "create·rule·r·as·on·insert·to·t·do·also·(delete·from·u·;·delete·from·v)",
    "insert·into·t·values·($$a ; b$$,·U&'d\\0061t',·B'01',·1.5e3)",
    "comment·on·table·t·is·'x -- y'",
    "alter·table·t·validate·constraint·c",
];

/// What may stand between two tokens without changing what is said.
const BLANKS: &[&str] = &[" ", "\n", "\r\n", "\t ", "/* ; /* ' */ $$ */ ", " -- it's; $$\n", "  --\r\n"];

fn read(text: &str) -> Script {
    Set::read([("v1.sql", text.as_bytes())])
        .unwrap()
        .migrations()
        .iter()
        .next()
        .unwrap()
        .expand
        .clone()
        .unwrap()
}

fn file() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(prop::sample::select(STATEMENTS), 1..8)
}

/// The statements with single blanks.
fn plain(file: &[&str]) -> Vec<String> {
    file.iter().map(|statement| statement.replace('·', " ")).collect()
}

/// A statement with these blanks in turn.
fn respaced(statement: &str, blanks: &[&str]) -> String {
    let gaps = blanks.iter().cycle();
    let pieces = statement.split('·').zip(gaps);
    pieces.fold(String::new(), |text, (piece, gap)| text + piece + gap)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_statement_is_found_whole(file in file(), end in prop::sample::select(vec!["", ";", " ;; -- end"])) {
        let file = plain(&file);
        let script = read(&(file.join(";\n") + end));
        let found: Vec<&str> = script.statements().map(|statement| statement.sql.as_str()).collect();
        prop_assert_eq!(found, file);
        let ordinals: Vec<u32> = script.statements().map(|statement| statement.ordinal).collect();
        prop_assert!(ordinals.iter().zip(1..).all(|(found, expected)| *found == expected));
    }

    #[test]
    fn what_is_split_and_joined_is_the_same(file in file()) {
        let script = read(&plain(&file).join(";"));
        let joined: Vec<&str> = script.statements().map(|statement| statement.sql.as_str()).collect();
        prop_assert_eq!(read(&joined.join("\n;")).token_hash, script.token_hash);
    }

    #[test]
    fn comments_and_blanks_change_no_hash(
        file in file(),
        blanks in prop::collection::vec(prop::sample::select(BLANKS), 1..6),
    ) {
        let plain = read(&plain(&file).join(";"));
        let other: Vec<String> = file.iter().map(|statement| respaced(statement, &blanks)).collect();
        let other = read(&other.join(" ;\n-- next\n"));
        prop_assert_eq!(plain.token_hash, other.token_hash);
        let hashes = |script: &Script| script.statements().map(|s| s.token_hash).collect::<Vec<_>>();
        prop_assert_eq!(hashes(&plain), hashes(&other));
    }

    #[test]
    fn another_file_has_another_hash(one in file(), other in file()) {
        prop_assert_eq!(one == other, read(&plain(&one).join(";")).token_hash == read(&plain(&other).join(";")).token_hash);
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        drop(Set::read([("v1.sql", bytes.as_slice())]));
    }

    #[test]
    fn broken_sql_is_read_or_refused(
        words in prop::collection::vec(prop::sample::select(WORDS), 0..60),
    ) {
        if let Ok(set) = Set::read([("v1.sql", words.join(" ").as_bytes())]) {
            for script in set.migrations().iter().filter_map(|migration| migration.expand.as_ref()) {
                drop((breaking(script), dangerous(script), script.makes()));
            }
        }
    }

    #[test]
    fn a_statement_cut_anywhere_is_read_or_refused(file in file(), at in any::<prop::sample::Index>()) {
        let text = plain(&file).join(";");
        let cut = text.get(..at.index(text.len())).unwrap_or_default();
        drop(Set::read([("v1.sql", cut.as_bytes())]));
    }
}

const WORDS: &[&str] = &[
    "select",
    "alter",
    "table",
    "t",
    "add",
    "column",
    "drop",
    "create",
    "index",
    "concurrently",
    "on",
    "(",
    ")",
    ",",
    ";",
    "1",
    "'x'",
    "$$",
    "$$ a $$",
    "begin",
    "atomic",
    "end",
    "case",
    "not",
    "null",
    "default",
    "unique",
    "rename",
    "to",
    "type",
    "value",
    "set",
    "update",
    "where",
    "=",
    "-",
    "::",
    ".",
    "\"q\"",
    "function",
    "returns",
    "trigger",
    "language",
    "sql",
    "as",
    "do",
    "references",
    "foreign",
    "key",
    "check",
    "partition",
    "of",
    "attach",
    "detach",
    "schema",
    "view",
    "if",
    "exists",
    "only",
    "using",
    "constraint",
    "valid",
    "validate",
    "generated",
    "always",
];

#[test]
fn deep_nests_are_refused_before_the_parser_sees_them() {
    for piece in
        ["(", "- ", "not ", "case when true then ", "(select ", "1 + ", "a.", "array[", "explain ", "/*"]
    {
        let text = format!("select {}", piece.repeat(50_000));
        let findings = Set::read([("v1.sql", text.as_bytes())]).unwrap_err();
        assert!(
            findings.iter().any(|f| f.rule == "too-deep" || f.rule == "parse-error"),
            "{piece}: {findings:?}"
        );
    }
}
