//! What is left to run, from what the records of a database say.

use std::collections::BTreeMap;

use crate::{Finding, Migration, Phase, Script, Set, Version};

/// One row of the database's records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The version.
    pub version: Version,
    /// The phase that ran.
    pub phase: Phase,
    /// Whether it was only marked as there when the database was adopted.
    pub adopted: bool,
    /// Hash of the file's bytes, if it is known.
    pub raw_hash: Option<[u8; 32]>,
    /// Hash of its tokens, if it is known.
    pub token_hash: Option<[u8; 32]>,
}

/// A file of which an earlier try left a part standing, and which was not ended since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The version.
    pub version: Version,
    /// The phase that was begun.
    pub phase: Phase,
    /// What of it stands, in words: `2 statements stand`.
    pub stands: String,
}

/// What is left to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending<'s> {
    /// Migrations whose script of the asked phase is still to run, in order.
    pub scripts: Vec<&'s Migration>,
    /// Worth a line, no reason to stop: files that changed in comments and blanks only.
    pub notes: Vec<String>,
}

/// What of a phase is left to run. Refused: an applied file that is gone or says something else now, a begun one that is
/// gone, whatever goes forward from a way down that was begun, and a version below the highest applied one that the release
/// does not allow by `--out-of-order`.
pub fn pending<'s>(
    set: &'s Set,
    phase: Phase,
    recorded: &[Recorded],
    begun: &[Begun],
    allow_out_of_order: &[Version],
) -> Result<Pending<'s>, Vec<Finding>> {
    let rows: BTreeMap<&Version, &Recorded> =
        recorded.iter().filter(|row| row.phase == phase).map(|row| (&row.version, row)).collect();
    let highest = rows.keys().next_back().copied();
    let mut result = Pending { scripts: Vec::new(), notes: Vec::new() };
    let mut findings = Vec::new();
    for migration in set.migrations() {
        let Some(script) = migration.script(phase) else { continue };
        match rows.get(&migration.version) {
            Some(row) => match drift(script, row) {
                Drift::None => {}
                Drift::Note(note) => result.notes.push(note),
                Drift::Refused(finding) => findings.push(finding),
            },
            None => {
                findings.extend(out_of_order(migration, script, highest, allow_out_of_order));
                result.scripts.push(migration);
            }
        }
    }
    findings.extend(rows.values().filter_map(|row| gone(set, row)));
    findings.extend(begun.iter().filter_map(|begun| left_behind(set, phase, begun)));
    if findings.is_empty() { Ok(result) } else { Err(findings) }
}

enum Drift {
    None,
    Note(String),
    Refused(Finding),
}

fn drift(script: &Script, row: &Recorded) -> Drift {
    if row.raw_hash == Some(script.raw_hash) {
        return Drift::None;
    }
    match row.token_hash {
        Some(hash) if hash == script.token_hash => {
            Drift::Note(format!("{} changed in comments and blanks only", script.path))
        }
        Some(_) => Drift::Refused(Finding::whole(
            &script.path,
            "drift",
            format!("version {} was applied and its file says something else now", row.version),
            "put the old file back and write a new version",
        )),
        None => Drift::None,
    }
}

fn out_of_order(
    migration: &Migration,
    script: &Script,
    highest: Option<&Version>,
    allowed: &[Version],
) -> Option<Finding> {
    let highest = highest.filter(|highest| migration.version < **highest)?;
    if allowed.contains(&migration.version) {
        return None;
    }
    let version = &migration.version;
    Some(Finding::whole(
        &script.path,
        "out-of-order",
        format!("version {version} is below {highest}, which is applied already"),
        format!("give it a version above, or name it in the release: `--out-of-order {version}`"),
    ))
}

/// An applied script whose file is not in the set. Adopted rows may be older than the files that are kept.
fn gone(set: &Set, row: &Recorded) -> Option<Finding> {
    let there = set.get(&row.version).is_some_and(|migration| migration.script(row.phase).is_some());
    if there || row.adopted {
        return None;
    }
    Some(Finding::whole(
        &format!("v{}.{}.sql", row.version, row.phase),
        "file-gone",
        format!("version {} was applied and its {} file is gone", row.version, row.phase),
        "put it back: the next database needs it too",
    ))
}

/// A begun script that nothing would end: under another version its statements would be taken for new ones, and what stands
/// would be done twice. A way down that was begun stands in the way of every way forward.
fn left_behind(set: &Set, phase: Phase, begun: &Begun) -> Option<Finding> {
    let Begun { version, stands, .. } = begun;
    let path = format!("v{version}.{}.sql", begun.phase);
    if begun.phase == Phase::Down {
        return Some(Finding::whole(
            &path,
            "down-begun",
            format!("the down file of version {version} was begun and is not finished; {stands}"),
            format!("finish it first: `pointsman db down ENV {version} --migrations FOLDER`"),
        ));
    }
    let there = set.get(version).is_some_and(|migration| migration.script(phase).is_some());
    if begun.phase != phase || there {
        return None;
    }
    Some(Finding::whole(
        &path,
        "begun-gone",
        format!("the {phase} file of version {version} was begun, is not finished, and is gone; {stands}"),
        "put it back under its old version, and the next try goes on where it ended; to give it up: `pointsman explain PM0330`",
    ))
}
