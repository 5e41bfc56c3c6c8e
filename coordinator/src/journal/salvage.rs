//! A new journal from what is still what was written in a damaged one: its entries up to the first that is not, and its leases.
//! It is as a journal that lost its tail: agents that have acted on more say so, and a person accepts it or not.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use pointsman_chassis::durable;
use pointsman_core::{Code, Problem};
use rusqlite::{Connection, params};

use super::audit::{self, Depth};
use super::fault::Fault;
use super::row::{Raw, signed, unsigned};
use super::schema::{self, beside};

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salvaged {
    /// How many entries are in the new journal.
    pub entries: u64,
    /// What is wrong with the first that is not.
    pub lost: Problem,
    /// Where the damaged file is kept, as it was; its `-wal` stands beside it.
    pub kept: PathBuf,
}

/// How many damaged files are kept beside a journal before a person has to put one elsewhere.
const MOST_KEPT: u32 = 99;

/// Puts a journal of what can be believed in the place of a damaged one, and keeps that aside. Nobody may use the file meanwhile:
/// the caller holds the lock on its folder. Refused for a journal that is whole, for one of a newer version, and where nothing can
/// be read at all; then nothing is changed.
///
/// Whenever this ends, the name leads to the damaged journal or to the new one, and never to the one with the log of the other.
pub fn salvage(path: &Path) -> Result<Salvaged, Problem> {
    let at = |fault: Fault| fault.at(path);
    let old = schema::open_to_read(path).map_err(at)?;
    let found = audit::verify(&old, Depth::Records, path).map_err(at)?;
    let lost = found.first_problem.ok_or_else(|| {
        let message =
            format!("the journal is whole, all {} entries of it: there is nothing to salvage", found.entries);
        Problem::new(Code::NotPossibleNow, message).hint("start it: `systemctl start pointsman-coordinator`")
    })?;
    if lost.code != Code::JournalCorrupt {
        return Err(lost);
    }
    let new = beside(path, ".salvaged");
    let unplaced = |error: io::Error| schema::unplaced(path, &error);
    remove_all(&new).map_err(unplaced)?;
    fill(&old, &new, found.entries).map_err(|fault| fault.at(&new))?;
    drop(old);
    let kept = place(&new, path).map_err(unplaced)?;
    Ok(Salvaged { entries: found.entries, lost, kept })
}

fn remove_all(path: &Path) -> io::Result<()> {
    for file in ["", "-wal", "-shm", "-journal"].map(|end| beside(path, end)) {
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Writes the first entries of the old journal to a new one, and leases that are behind none that is known.
fn fill(old: &Connection, new: &Path, entries: u64) -> Result<(), Fault> {
    let mut connection = schema::create(new)?;
    let transaction = connection.transaction()?;
    let mut leases: BTreeMap<String, u64> = BTreeMap::new();
    {
        let sql = format!("SELECT {} FROM entry ORDER BY seq LIMIT ?1", Raw::COLUMNS);
        let mut rows = old.prepare(&sql)?;
        let mut insert =
            transaction.prepare("INSERT INTO entry VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?;
        for raw in rows.query_map(params![signed(entries)], Raw::of)? {
            let raw = raw?;
            raw.insert(&mut insert)?;
            let lease = leases.entry(raw.environment).or_default();
            *lease = (*lease).max(raw.epoch);
        }
    }
    // Leases stand outside of the chain. One that cannot be read, or was changed, may be too low: agents that know a higher one
    // refuse whoever comes with it, and accepting the journal raises it.
    if let Ok(found) = leases_of(old) {
        for (environment, epoch) in found {
            let lease = leases.entry(environment).or_default();
            *lease = (*lease).max(epoch);
        }
    }
    for (environment, epoch) in leases {
        // What was lost may have been written under the next one.
        let raised = signed(epoch.saturating_add(1));
        transaction.execute("INSERT INTO lease VALUES (?1, '', ?2)", params![environment, raised])?;
    }
    transaction.commit()?;
    connection.close().map_err(|(_, error)| error)?;
    let copied = schema::open_to_read(new)?;
    audit::verify(&copied, Depth::Records, new)?.first_problem.map_or(Ok(()), |problem| Err(problem.into()))
}

fn leases_of(old: &Connection) -> Result<Vec<(String, u64)>, rusqlite::Error> {
    let mut statement = old.prepare("SELECT environment, epoch FROM lease")?;
    let leases = statement.query_map([], |row| Ok((row.get(0)?, unsigned(row, 1)?)))?;
    leases.collect()
}

/// Puts the new journal in the place of the old one; says where that is kept.
fn place(new: &Path, path: &Path) -> io::Result<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let kept = (1..=MOST_KEPT)
        .map(|number| beside(path, &format!(".damaged-{number}")))
        .find(|kept| fs::symlink_metadata(kept).is_err())
        .ok_or_else(|| io::Error::other(format!("{MOST_KEPT} damaged journals are kept there already")))?;
    // Whoever salvages it need not be whom the coordinator runs as.
    let old = fs::metadata(path)?;
    chown(new, Some(old.uid()), Some(old.gid()))?;
    fs::set_permissions(new, old.permissions())?;
    fs::File::open(new)?.sync_all()?;
    fs::hard_link(path, &kept)?;
    // The log of the old journal must never be taken for one of the new.
    match fs::rename(beside(path, "-wal"), beside(&kept, "-wal")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match fs::remove_file(beside(path, "-shm")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    durable::sync_directory(folder)?;
    fs::rename(new, path)?;
    durable::sync_directory(folder)?;
    Ok(kept)
}

/// What a person is told of it, and what to type next.
pub fn text(salvaged: &Salvaged) -> String {
    format!(
        "{} entries are in a new journal; the first that is lost: {}\n\
         the damaged journal is kept: {}\n\
         start the coordinator: `systemctl start pointsman-coordinator`; then, for each environment, `pointsman status ENV` says\n\
         whether agents have acted on more, and `pointsman explain PM0718` how to go on\n",
        salvaged.entries,
        salvaged.lost.message,
        salvaged.kept.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_what_is_lost_and_what_to_type() {
        let lost = Problem::new(Code::JournalCorrupt, "journal entry 8 was changed");
        let told = text(&Salvaged { entries: 7, lost, kept: "/state/journal.db.damaged-1".into() });
        for says in
            ["7 entries", "journal entry 8", "/state/journal.db.damaged-1", "`systemctl start", "PM0718"]
        {
            assert!(told.contains(says), "{says}: {told}");
        }
    }
}
