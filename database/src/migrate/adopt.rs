//! A database that had migrations before pointsman: the files up to its version are marked as there, with their hashes,
//! and not run. The table that says the version is read, never altered.

use pointsman_core::{Code, Problem};
use pointsman_migration::{Set, Version};

use super::fault::Fault;
use super::fence;
use super::ledger::{self, Entry};
use super::records::{self, Found};
use super::sessions::Sessions;
use super::status::adoptable;
use super::version_table::VersionTable;
use crate::{Authority, Session, Settings};

/// What was adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// The version that the table says.
    pub version: Version,
    /// Versions that are marked now and were not before.
    pub marked: Vec<Version>,
}

/// The name under which adopted rows stand, instead of a release's.
const RELEASE: &str = "adopted";

/// Marks every file up to the database's version as adopted. Again is as good as once.
pub async fn adopt(settings: &Settings, set: &Set, authority: &dyn Authority) -> Result<Adopted, Problem> {
    let sessions = Sessions::open(settings, &settings.name, authority.epoch()).await?;
    let second = &sessions.second;
    let version = version_by_table(settings, &sessions.work).await?;
    let there = ledger::records(second).await?;
    if there.is_empty() {
        VersionTable::must_be_known(&sessions.work, settings.version_table.as_deref()).await?;
    }
    let mut sql = String::new();
    let mut marked = Vec::new();
    for migration in set.migrations().iter().filter(|migration| migration.version <= version) {
        for script in adoptable(migration) {
            if there.iter().any(|row| row.version == migration.version && row.phase == script.phase) {
                continue;
            }
            let epoch = fence::as_number(authority.epoch())?;
            let entry = Entry { version: &migration.version, script, release: RELEASE, epoch };
            sql.push_str(&entry.adopted_sql());
            if marked.last() != Some(&migration.version) {
                marked.push(migration.version.clone());
            }
        }
    }
    authority.check()?;
    mark(second, fence::as_number(authority.epoch())?, &sql).await?;
    Ok(Adopted { version, marked })
}

/// Whether what was done to the database before is known, where nothing is recorded yet.
pub async fn history_is_known(settings: &Settings) -> Result<(), Problem> {
    let session = Session::open(settings, &settings.name, "preflight").await?;
    let recorded = match records::find(&session).await? {
        Found::Absent => false,
        _ => !ledger::records(&session).await?.is_empty(),
    };
    if recorded {
        return Ok(());
    }
    VersionTable::must_be_known(&session, settings.version_table.as_deref()).await
}

async fn mark(session: &Session, epoch: i64, rows: &str) -> Result<(), Problem> {
    let failed = |error| Fault::from(error).while_doing("mark files as adopted");
    session.client().batch_execute("BEGIN").await.map_err(failed)?;
    let marked = match fence::obey(session, epoch).await {
        Ok(Some(_)) => session.client().batch_execute(rows).await.map_err(failed),
        Ok(None) => Err(fence::fenced(epoch, None)),
        Err(fault) => Err(fault.while_doing("mark files as adopted")),
    };
    let end = if marked.is_ok() { "COMMIT" } else { "ROLLBACK" };
    session.client().batch_execute(end).await.map_err(failed)?;
    marked
}

async fn version_by_table(settings: &Settings, session: &Session) -> Result<Version, Problem> {
    let refused = |message: String, hint: &str| Err(Problem::new(Code::AdoptionRefused, message).hint(hint));
    let Some(name) = settings.named_version_table() else {
        return refused(
            "the agent's configuration names no table with the version".into(),
            "in the agent's [database] section: `version_table = \"schema_version\"`",
        );
    };
    let Some(table) = VersionTable::read(session, name).await? else {
        return refused(
            format!("the database `{}` has no table `{name}`", settings.name),
            "correct `version_table` in the agent's [database] section, with the schema if need be",
        );
    };
    if let Some(odd) = table.unreadable.first() {
        let message = format!("the table {} holds `{odd}`, which is no version", table.name());
        return refused(
            message,
            "versions are like 1.2.0: correct that row; where the table is another tool's and the files come after it, \
                                  `version_table = \"\"` in the agent's [database] section",
        );
    }
    match table.highest() {
        Some(version) => Ok(version.clone()),
        None => refused(
            format!("the table {} is empty", table.name()),
            "insert the version that the database has, or remove `version_table`",
        ),
    }
}
