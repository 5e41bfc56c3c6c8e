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

/// The database that a good file meets: with rows, as sites have them.
#[cfg(test)]
fn met_by(file: &str) -> &'static str {
    match file {
        "add-column.sql" | "array-and-json-defaults.sql" => {
            "CREATE TABLE features (id int PRIMARY KEY, name text); INSERT INTO features VALUES (1, 'a'), (2, 'b')"
        }
        "seed-style.sql" => "CREATE TABLE schema_version (version text); INSERT INTO schema_version VALUES ('1.1.0')",
        "backfill-from-itself.sql" => {
            "CREATE TABLE features (id int PRIMARY KEY, name text, parent int, parent_name text, depth int);
             CREATE SCHEMA old; CREATE TABLE old.features AS SELECT id, depth FROM features"
        }
        "enum.sql" => "CREATE TYPE state AS ENUM ('new', 'old'); CREATE TABLE states (s state); INSERT INTO states VALUES ('new')",
        "partition.sql" => {
            "CREATE TABLE events (at date NOT NULL, what text) PARTITION BY RANGE (at);
             CREATE TABLE events_2024 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
             INSERT INTO events VALUES ('2024-06-01', 'a')"
        }
        _ => {
            "CREATE TABLE layers (id int PRIMARY KEY, name text); INSERT INTO layers VALUES (1, 'base');
             CREATE TABLE features (id serial, name text, title text, state text DEFAULT 'active', kind text DEFAULT 'a',
                 area int DEFAULT 1, layer_id int DEFAULT 1, owner name DEFAULT current_user, at timestamptz,
                 CONSTRAINT kind CHECK (kind IN ('a', 'b')));
             CREATE UNIQUE INDEX by_id ON features (id); CREATE INDEX old_index ON features (area);
             INSERT INTO features (name) VALUES ('a'), ('b');
             CREATE FUNCTION size_of(int) RETURNS text LANGUAGE sql AS 'SELECT $1::text';
             ALTER TABLE features ENABLE ROW LEVEL SECURITY; CREATE POLICY everybody ON features USING (true);
             CREATE VIEW active_features AS SELECT id, name, title FROM features WHERE state = 'active'"
        }
    }
}

#[tokio::test]
async fn what_is_good_passes_a_rehearsal() {
    let mut wrong = Vec::new();
    for (file, text) in files("good") {
        let mut ground = Ground::new(met_by(&file));
        let least = text.lines().find_map(|line| line.strip_prefix("-- server: ")?.parse::<u32>().ok());
        if least.is_some_and(|least| least > ground.cluster.server().major) {
            continue;
        }
        ground.settings.version_table =
            met_by(&file).contains("schema_version").then(|| "schema_version".to_owned());
        let superuser = "CREATE EXTENSION IF NOT EXISTS postgis; DO 'BEGIN CREATE ROLE web NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END'";
        ground.cluster.psql(&ground.settings.name, superuser).unwrap();
        if let Ok(told) = stopped(&ground, "v1.2.0.sql", &text).await {
            wrong.push(format!("{file}: {told}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// Whether a word is an `SQLSTATE`.
fn is_state(word: &str) -> bool {
    word.len() == 5
        && word.chars().all(|c| c.is_ascii_digit() || c.is_ascii_uppercase())
        && word.chars().any(|c| c.is_ascii_digit())
}
