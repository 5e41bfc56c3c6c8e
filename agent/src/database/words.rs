//! What was done with the database, in words for people.

use pointsman_core::{bytes, several};
use pointsman_database::backup::Backup;
use pointsman_database::migrate::{Leftover, Ran, Record, Rehearsal, Replanned};
use pointsman_database::preflight::{Finding, Verdict};
use pointsman_database::restore::{Beside, Loss, Pending, Stage, Swapped, TableLoss};
use pointsman_migration::Version;
use pointsman_proto::v1;

/// Tables that are named with their loss: those that lose most.
const NAMED: usize = 20;

/// A backup that passed its check.
pub fn backup(backup: &Backup) -> String {
    let level = backup.verified.map_or("nothing", |level| level.as_str());
    let rows = several(backup.rows, "row", "rows");
    format!("backup `{}`: {}, {rows}, checked by `{level}`", backup.id, bytes(backup.bytes))
}

/// What was found of one thing that the work will need.
pub fn finding(finding: &Finding) -> v1::Finding {
    let verdict = match finding.verdict {
        Verdict::Fine => "ok",
        Verdict::Warning => "warn",
        Verdict::Unrestorable | Verdict::Refused => "fail",
    };
    v1::Finding {
        verdict: verdict.to_owned(),
        what: finding.found.clone(),
        why: if finding.verdict == Verdict::Fine { "" } else { why(finding) }.to_owned(),
        fix: finding.hint.clone(),
        check: format!("database-{}", finding.check.replace(' ', "-")),
        ..Default::default()
    }
}

/// Why a thing is looked at: what goes wrong where it is not as it should be.
fn why(finding: &Finding) -> &'static str {
    match finding.check {
        "restore" | "role settings" | "replication" if finding.verdict == Verdict::Warning => {
            "no release meets it; a database that is restored lacks it until somebody gives it"
        }
        "name" => "names that are made from it would be cut, or read as something else",
        "folder" | "room for a backup" => {
            "without it there is no backup, and nothing is migrated without one"
        }
        "server" => "nothing can be done where no session with the server can begin",
        "version" => "another version answers otherwise",
        "primary" => "a standby takes no migrations",
        "tools" => {
            "an older `pg_dump` does not know what the server holds, and a newer one's dump may not load"
        }
        "pooler" => "locks belong to sessions: through a pooler they would guard nothing",
        "role" => "a right that is missing is met in the middle of a release",
        "extensions" => "a backup that needs one can be restored only where it is there",
        "collation" => "an index finds nothing where it was built in another order",
        "dumps" => "they take room, and nobody removes them",
        "restore" => {
            "backups are taken, and the first that is restored fails: mostly in the middle of a release"
        }
        "template" => "a restore begins from it, and could not",
        "prepared transactions" => {
            "they hold locks that nobody waits out, and keep a restore from being swapped in"
        }
        "other work" => "a dump or a rewrite that runs holds what a migration needs",
        "room for a copy" => "a backup that cannot be restored beside the live database is not tested either",
        _ => "a release would meet it in the middle",
    }
}

/// A rehearsal that let the live run follow.
pub fn rehearsal(rehearsal: &Rehearsal) -> String {
    let took = rehearsal.statements.iter().map(|measured| measured.duration).sum::<std::time::Duration>();
    let rewritten: u64 = rehearsal.statements.iter().map(|measured| measured.rewritten_bytes).sum();
    let planned = |wanted: fn(&Replanned) -> bool| rehearsal.replanned.iter().filter(|r| wanted(r)).count();
    let works = planned(|replanned| matches!(replanned, Replanned::Works));
    let undecided = planned(|replanned| matches!(replanned, Replanned::Undecided { .. }));
    let mut words = format!(
        "{} took {} ms on the copy, {} rewritten",
        several(rehearsal.statements.len(), "statement", "statements"),
        took.as_millis(),
        bytes(rewritten)
    );
    if let Some(longest) = rehearsal.statements.iter().max_by_key(|measured| measured.duration) {
        words.push_str(&format!("; the longest {}, {} ms", longest.place, longest.duration.as_millis()));
        let locks: Vec<String> =
            longest.locks.iter().map(|(relation, mode)| format!("{mode} on {relation}")).collect();
        if !locks.is_empty() {
            words.push_str(&format!(" under {}", locks.join(", ")));
        }
    }
    if works + undecided > 0 {
        let still = match works {
            1 => "1 statement of the live version still works".to_owned(),
            _ => format!("{works} statements of the live version still work"),
        };
        words.push_str(&format!("; {still}, {undecided} undecided"));
    }
    with_notes(words, &rehearsal.notes)
}

/// Migrations that were applied.
pub fn ran(ran: &Ran) -> String {
    if ran.already {
        return with_notes("nothing was left to apply".to_owned(), &ran.notes);
    }
    let files: Vec<String> = ran.applied.iter().map(|applied| format!("v{}", applied.version)).collect();
    let segments = || ran.applied.iter().flat_map(|applied| &applied.segments);
    let held = segments().map(|segment| segment.lock_held).max().unwrap_or_default();
    let stall = segments().map(|segment| segment.longest_stall).max().unwrap_or_default();
    let tries: u32 = segments().map(|segment| segment.lock_tries).sum();
    let words = format!(
        "{} applied; locks after {}, held at most {:.1} ms; the longest that anybody waited: {} ms",
        files.join(", "),
        several(tries, "try", "tries"),
        held.as_secs_f64() * 1000.0,
        stall.as_millis()
    );
    with_notes(words, &ran.notes)
}

/// A version that was taken back.
pub fn taken_back(version: &Version, ran: &Ran) -> String {
    let words = if ran.already { "is not applied any more" } else { "taken back" };
    with_notes(format!("v{version} {words}"), &ran.notes)
}

fn with_notes(mut words: String, notes: &[String]) -> String {
    for note in notes {
        words.push_str("; ");
        words.push_str(note);
    }
    words
}

/// What a restored database would lose.
pub fn restored(beside: &Beside, loss: &Loss) -> String {
    let least = if loss.at_least { "at least " } else { "" };
    let words = format!(
        "restored beside as `{}`; with it {least}{}",
        beside.database,
        lost(loss.total(), &loss.greatest(NAMED), loss.tables.len())
    );
    let lacking: Vec<String> = beside
        .not_copied
        .iter()
        .map(|statement| format!("it lacks what a superuser must say: `{statement}`"))
        .collect();
    let empty = beside.not_filled.iter().map(|statement| {
        format!("what comes from other databases is empty in it until somebody says there: `{statement}`")
    });
    with_notes(words, &lacking.into_iter().chain(empty).collect::<Vec<_>>())
}

/// Rows that a restore loses, and which tables lose them.
fn lost(rows: u64, greatest: &[TableLoss], of_tables: usize) -> String {
    let table = |table: &TableLoss| {
        format!(
            "{}.{} {} ({} new, {} changed, {} deleted)",
            table.schema,
            table.table,
            table.total(),
            table.inserted,
            table.updated,
            table.deleted
        )
    };
    let named: Vec<String> = greatest.iter().take(NAMED).map(table).collect();
    let more = if named.is_empty() { 0 } else { of_tables.saturating_sub(named.len()) };
    let rest = if more > 0 { format!(" and {more} tables more") } else { String::new() };
    let rows = several(rows, "row", "rows");
    let colon = if named.is_empty() { "" } else { ": " };
    format!("{rows} written since the backup are lost{colon}{}{rest}", named.join(", "))
}

/// What the restored database that stands beside would lose.
pub fn compared(pending: &Pending) -> Option<v1::ComparedLoss> {
    let compared = pending.compared.as_ref()?;
    Some(v1::ComparedLoss {
        backup: pending.backup.clone(),
        words: lost(compared.rows, &compared.tables, compared.of_tables),
        at_ms: compared.at_ms,
    })
}

/// A swap.
pub fn swapped(swapped: &Swapped) -> String {
    if swapped.already {
        return format!("it is the live one already; `{}` is kept aside", swapped.aside);
    }
    format!(
        "swapped: nobody could connect for {} ms, {} given up; `{}` is kept aside",
        swapped.gap_ms,
        several(swapped.lost, "row", "rows"),
        swapped.aside
    )
}

/// A file of which a part stands.
pub fn unfinished(left: &Leftover) -> String {
    let stands = several(left.done, "statement stands", "statements stand");
    let tried = match (left.batched, left.trying) {
        (Some(rows), _) => format!(
            ", and {rows} rows that batches of statement {} changed: the next try goes on after them",
            left.done.saturating_add(1)
        ),
        (None, Some(statement)) => {
            format!(", what came of statement {statement} is looked up by the next try")
        }
        (None, None) => String::new(),
    };
    format!("v{} {}: {stands}{tried}", left.version, left.phase)
}

/// A file that stands, and whose version's verify file has not passed.
pub fn unverified(record: &Record) -> String {
    format!(
        "v{} {}: its verify file has not passed; the next release looks again",
        record.version, record.phase
    )
}

/// A restore that is not settled.
pub fn pending(pending: &Pending) -> String {
    let aside = match pending.stage {
        Stage::Swapped => &pending.replaced,
        _ => &pending.restored,
    };
    format!("`{aside}`, of the restore from `{}`", pending.backup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_of_a_file_is_told() {
        let left = |done, trying, batched| {
            let (version, phase) = ("1.2.0".to_owned(), "expand".to_owned());
            unfinished(&Leftover { version, phase, done, trying, batched, unclear: false })
        };
        assert_eq!(left(2, None, None), "v1.2.0 expand: 2 statements stand");
        assert_eq!(
            left(1, Some(2), None),
            "v1.2.0 expand: 1 statement stands, what came of statement 2 is looked up by the next try"
        );
        assert_eq!(
            left(0, Some(1), Some(300_000)),
            "v1.2.0 expand: 0 statements stand, and 300000 rows that batches of statement 1 changed: the next try goes on after them"
        );
    }
}
