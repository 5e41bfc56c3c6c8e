//! What the fuzz targets hold the socket client against, compiled by the compiler of the product and held against a bounded
//! number of inputs each time: so a target does not rot between two runs of the fuzzer, which needs another compiler.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "tests: a panic is how they fail")]

#[path = "../fuzz/rules/commands.rs"]
mod commands;
#[path = "../fuzz/rules/replies.rs"]
mod replies;

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::RngSeed;

/// Inputs to each rule: a second or two of a debug build.
const CASES: u32 = 3_000;

/// The answers of real HAProxys, which a fuzzer would begin with.
fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/haproxy-replies");
    let versions = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = versions.filter(|path| path.is_dir()).flat_map(|version| {
        let files = std::fs::read_dir(version).unwrap();
        files.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    });
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "txt")).collect();
    files.sort();
    files.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// One of them, a stretch of which is replaced by a stretch of another.
fn spliced() -> impl Strategy<Value = Vec<u8>> {
    let (known, other) = (corpus(), corpus());
    assert!(known.len() > 20, "{} answers", known.len());
    let places = any::<[Index; 4]>();
    (prop::sample::select(known), prop::sample::select(other), places).prop_map(|(mut into, from, places)| {
        let [start, end, first, last] = places;
        let cut = |bytes: &[u8], one: Index, other: Index| {
            let (one, other) = (one.index(bytes.len() + 1), other.index(bytes.len() + 1));
            one.min(other)..one.max(other)
        };
        let (hole, piece) = (cut(&into, start, end), cut(&from, first, last));
        into.splice(hole, from.get(piece).unwrap_or_default().iter().copied());
        into
    })
}

/// A word as it may come, or as it must not.
fn word() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9_./:#-]{0,12}", any::<String>(), "[ -~]{0,8}", "(<<|;|@1|\\\\|\n|\r| ){1,3}"]
}

/// A parser that nobody fuzzes is one that somebody forgot.
#[test]
fn every_parser_of_answers_is_fuzzed() {
    let parsers = include_str!("../src/reply.rs").lines().filter_map(|line| {
        let (name, arguments) = line.strip_prefix("pub fn ")?.split_once('(')?;
        arguments.starts_with("reply: &str").then_some(name)
    });
    let rules = include_str!("../fuzz/rules/replies.rs");
    let (fuzzed, forgotten): (Vec<&str>, Vec<&str>) =
        parsers.partition(|name| rules.contains(&format!("reply::{name}(text")));
    assert!(fuzzed.len() > 15 && forgotten.is_empty(), "not fuzzed: {forgotten:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn replies_of_any_bytes(bytes in prop_oneof![spliced(), prop::collection::vec(any::<u8>(), 0..400)]) {
        replies::hold(&bytes);
    }

    #[test]
    fn commands_of_any_words(
        words in prop::collection::vec(word(), 0..6),
        payload in prop::option::of(prop_oneof![any::<String>(), "([A-Za-z+/=-]{0,20}\r?\n){0,6}"]),
        pid in any::<u32>(),
    ) {
        commands::hold(&words, payload.as_deref(), pid);
    }
}
