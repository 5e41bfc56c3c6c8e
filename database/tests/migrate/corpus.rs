//! Bad migrations: all are stopped before the live database is touched, whether their text tells or only the copy.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may stop at the first thing that is not as it should be"
)]

use std::fs;
use std::path::PathBuf;

use pointsman_database::migrate::{self, Rehearsal};
use pointsman_migration::{Phase, Set};

use super::kit::{Crew, Ground};

/// Name and text of each file of a folder of the corpus.
pub fn files(folder: &str) -> Vec<(String, String)> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../migration/tests").join(folder);
    let entries = fs::read_dir(path).unwrap().map(Result::unwrap);
    let read = |entry: fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
    };
    let mut files: Vec<_> = entries.map(read).collect();
    files.sort();
    files
}

/// The name that a file of the corpus is to have in a set: the last word of the line that begins so.
fn name<'t>(text: &'t str, line: &str) -> &'t str {
    text.lines().find(|text| text.starts_with(line)).unwrap().split(' ').next_back().unwrap()
}

/// What stopped it, or what was told before the live run would have begun.
async fn stopped(ground: &Ground, name: &str, text: &str) -> Result<String, Rehearsal> {
    let mut files = vec![(name, text)];
    if name.contains(".verify.") || name.contains(".down.") {
        files.push(("v1.2.0.sql", "CREATE TABLE extra (id int)"));
    }
    let set = match Set::read(files.iter().map(|(name, text)| (*name, text.as_bytes()))) {
        Err(findings) => return Ok(format!("reading: {}", findings[0])),
        Ok(set) => set,
    };
    let phase = if name.contains(".contract.") || text.contains("phase=contract") {
        Phase::Contract
    } else {
        Phase::Expand
    };
    let copy = ground.copy().await;
    let order = ground.order(phase);
    let told = migrate::rehearse(&ground.settings, &copy, &set, &order, &Crew(1), &ground.progress).await;
    ground.cluster.psql("postgres", &format!("DROP DATABASE {copy} WITH (FORCE)")).unwrap();
    match told {
        Err(problem) => Ok(format!("{:?}: {problem}", problem.code)),
        Ok(rehearsal) => Err(rehearsal),
    }
}

/// Tries what the text tells; returns how many there were, and which were not stopped or touched the live database.
pub async fn by_reading() -> (usize, Vec<String>) {
    let ground = Ground::new("CREATE TABLE features (id int PRIMARY KEY, name text)");
    let before = ground.contents();
    let (files, mut wrong) = (files("bad"), Vec::new());
    for (file, text) in &files {
        if let Err(rehearsal) = stopped(&ground, name(text, "-- expect: "), text).await {
            wrong.push(format!("{file} was not stopped: {rehearsal:?}"));
        }
        if ground.contents() != before {
            wrong.push(format!("{file} touched the live database"));
        }
    }
    (files.len(), wrong)
}

/// Tries what only the copy tells, the same way.
pub async fn by_rehearsal() -> (usize, Vec<String>) {
    let (mut tried, mut wrong) = (0, Vec::new());
    for (file, text) in files("rehearsal").iter().filter(|(file, _)| !file.ends_with(".before.sql")) {
        let meets = file.replace(".sql", ".before.sql");
        let (_, meets) = files("rehearsal").into_iter().find(|(name, _)| *name == meets).unwrap();
        let ground = Ground::new(&meets);
        if meets.contains("owned by another role") {
            ground.cluster.psql(&ground.settings.name, "ALTER TABLE features OWNER TO app").unwrap();
        }
        if text.contains("query no longer plans") {
            ground.cluster.psql(&ground.settings.name, "CREATE EXTENSION pg_stat_statements").unwrap();
            ground.client("app", "app").await.query("SELECT name FROM names", &[]).await.unwrap();
        }
        let before = ground.contents();
        tried += 1;
        match stopped(&ground, name(text, "-- file: "), text).await {
            Err(rehearsal) => wrong.push(format!("{file} was not stopped: {rehearsal:?}")),
            Ok(told) => {
                let words = text.lines().next().unwrap().split([' ', ':', '(', ')']);
                let promised: Vec<&str> = words.filter(|word| is_state(word)).collect();
                if !promised.is_empty() && !promised.iter().any(|state| told.contains(state)) {
                    wrong.push(format!("{file}: {promised:?} was promised: {told}"));
                }
            }
        }
        if ground.contents() != before {
            wrong.push(format!("{file} touched the live database"));
        }
    }
    (tried, wrong)
}

#[tokio::test]
async fn what_the_text_tells_is_stopped() {
    let (tried, wrong) = by_reading().await;
    assert!(tried >= 30);
    assert_eq!(wrong, Vec::<String>::new());
}

#[tokio::test]
async fn what_only_the_copy_tells_is_stopped() {
    let (tried, wrong) = by_rehearsal().await;
    assert!(tried >= 15);
    assert_eq!(wrong, Vec::<String>::new());
}

/// Whether a word is an `SQLSTATE`.
fn is_state(word: &str) -> bool {
    word.len() == 5
        && word.chars().all(|c| c.is_ascii_digit() || c.is_ascii_uppercase())
        && word.chars().any(|c| c.is_ascii_digit())
}
