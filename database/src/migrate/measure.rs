//! What each statement does, seen from within its own transaction on a copy: locks, tables written anew, time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use pointsman_core::Problem;
use pointsman_migration::Statement;

use super::failure::File;
use super::fault::{Fault, Stray};
use super::order::Measured;
use super::run::place;
use crate::Session;

/// Tables, indexes and what belongs to them, of users.
const FILES: &str = "
SELECT c.oid, pg_relation_filenode(c.oid), pg_relation_size(c.oid) FROM pg_catalog.pg_class c
 WHERE c.relkind IN ('r', 'm', 'i', 't') AND c.oid >= 16384
   AND c.relnamespace IS DISTINCT FROM to_regnamespace('pointsman')";

const LOCKS: &str = "
SELECT l.relation, l.relation::regclass::text, l.mode FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
 WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.granted AND l.relation >= 16384
   AND c.relkind IN ('r', 'p', 'm', 'v', 'f') AND c.relnamespace IS DISTINCT FROM to_regnamespace('pointsman')";

/// What all databases share, where this transaction has written to it: it keeps the lock.
const SHARED: &str = "
SELECT l.relation::regclass::text FROM pg_catalog.pg_locks l
 WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.database = 0 AND l.mode = 'RowExclusiveLock'
   AND l.relation = ANY ('{pg_catalog.pg_db_role_setting, pg_catalog.pg_authid, pg_catalog.pg_auth_members, pg_catalog.pg_database}'::regclass[])
 LIMIT 1";

/// Modes that visitors wait for, as `pg_locks` spells them: whether they read or only if they write.
const STALLING: [&str; 4] = ["ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock"];

/// The measurements of a run.
#[derive(Debug, Default)]
pub(crate) struct Measure {
    /// What was measured so far.
    pub(crate) statements: Vec<Measured>,
    files: BTreeMap<u32, u32>,
    locks: BTreeSet<(String, String)>,
    /// Relations that were there before the file: others may use them.
    old: BTreeSet<u32>,
    /// The role that files run as.
    role: String,
    /// How long the looks of this transaction took: its locks were held meanwhile for nobody's sake but theirs.
    looked: Duration,
}

impl Measure {
    /// A file begins, in the session `work`.
    pub(crate) async fn begin(&mut self, session: &Session, work: &Session) -> Result<(), Problem> {
        self.role = role(work).await.map_err(|fault| fault.while_doing("ask which role files run as"))?;
        let files = files(session).await.map_err(|fault| fault.while_doing("look at the tables"))?;
        self.files = files.iter().map(|(oid, (node, _))| (*oid, *node)).collect();
        self.old = relations(session).await.map_err(|fault| fault.while_doing("look at the tables"))?;
        self.locks.clear();
        Ok(())
    }

    /// A statement has run; its transaction is open.
    pub(crate) async fn statement(
        &mut self,
        work: &Session,
        file: &File<'_>,
        statement: &Statement,
        duration: Duration,
    ) -> Result<(), Fault> {
        let began = Instant::now();
        self.keeps_role(work).await?;
        stays_within(work).await?;
        let now = files(work).await?;
        let rewritten =
            now.iter().filter(|(oid, (node, _))| self.files.get(oid).is_some_and(|had| had != node));
        let rewritten_bytes = rewritten.map(|(_, (_, size))| size).sum();
        self.files.extend(now.iter().map(|(oid, (node, _))| (*oid, *node)));
        let held = locks(work, &self.old).await?;
        let added = held.difference(&self.locks).cloned().collect();
        self.locks = held;
        self.looked += began.elapsed();
        self.note(file, statement, duration, added, rewritten_bytes);
        Ok(())
    }

    /// Refuses what left another role behind, by what a text cannot tell: a block or a function that set it.
    pub(crate) async fn keeps_role(&self, work: &Session) -> Result<(), Fault> {
        let role = role(work).await?;
        if role == self.role {
            return Ok(());
        }
        Err(Fault::Strayed(Stray {
            how: format!("leaves the session with the role `{role}` instead of `{}`", self.role),
            why: "what follows, and the agent's own records, would be made by that role",
            hint: "set the role back in the same statement, or use `ALTER … OWNER TO` for what the migration makes; then `pointsman deploy ENV`",
        }))
    }

    /// A statement outside of a transaction has run: its locks are gone.
    pub(crate) fn outside(&mut self, file: &File<'_>, statement: &Statement, duration: Duration) {
        self.locks.clear();
        self.note(file, statement, duration, Vec::new(), 0);
    }

    fn note(
        &mut self,
        file: &File<'_>,
        statement: &Statement,
        duration: Duration,
        locks: Vec<(String, String)>,
        rewritten_bytes: u64,
    ) {
        self.statements.push(Measured {
            path: file.script.path.clone(),
            ordinal: place(statement),
            place: file.place(statement),
            class: statement.class,
            duration,
            locks,
            rewritten_bytes,
        });
    }

    /// Whether a statement of the transaction that is open took a lock that visitors wait for, as none of the text may have
    /// told: a function or a trigger took it.
    pub(crate) fn stalls_visitors(&self) -> bool {
        self.locks.iter().any(|(_, mode)| STALLING.contains(&mode.as_str()))
    }

    /// How long was looked since the last time that this was asked.
    pub(crate) fn time_taken(&mut self) -> Duration {
        std::mem::take(&mut self.looked)
    }

    /// Statements measured so far.
    pub(crate) fn len(&self) -> usize {
        self.statements.len()
    }

    /// A transaction ended, its locks with it; of one that was rolled back only what was before it counts.
    pub(crate) fn transaction_ended(&mut self, keep: usize) {
        self.locks.clear();
        self.statements.truncate(keep);
    }
}

/// Refuses what changed roles or databases, or what is set for them, by what a text cannot tell. The transaction is open, and
/// nobody has seen it yet.
async fn stays_within(work: &Session) -> Result<(), Fault> {
    let Some(row) = work.client().query_opt(SHARED, &[]).await? else { return Ok(()) };
    let table: String = row.try_get(0)?;
    Err(Fault::Strayed(Stray {
        how: format!("changes roles or databases, or what is set for them (`{table}`)"),
        why: "those are the whole server's: the rehearsal on a copy would change them for the live database",
        hint: "let an administrator do it outside of a release; then `pointsman deploy ENV`",
    }))
}

async fn role(work: &Session) -> Result<String, Fault> {
    Ok(work.client().query_one("SELECT current_user::text", &[]).await?.try_get(0)?)
}

async fn files(session: &Session) -> Result<BTreeMap<u32, (u32, u64)>, Fault> {
    let rows = session.client().query(FILES, &[]).await?;
    let mut files = BTreeMap::new();
    for row in rows {
        let (oid, node, size): (u32, Option<u32>, Option<i64>) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if let Some(node) = node {
            files.insert(oid, (node, u64::try_from(size.unwrap_or_default()).unwrap_or_default()));
        }
    }
    Ok(files)
}

async fn relations(session: &Session) -> Result<BTreeSet<u32>, Fault> {
    let rows = session.client().query("SELECT oid FROM pg_catalog.pg_class WHERE oid >= 16384", &[]).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

async fn locks(session: &Session, old: &BTreeSet<u32>) -> Result<BTreeSet<(String, String)>, Fault> {
    let mut locks = BTreeSet::new();
    for row in session.client().query(LOCKS, &[]).await? {
        let (oid, name, mode): (u32, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if old.contains(&oid) {
            locks.insert((name, mode));
        }
    }
    Ok(locks)
}
