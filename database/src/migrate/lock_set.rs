//! The locks that a transaction will need, found before it begins and asked for all at once.

use std::collections::BTreeMap;

use pointsman_migration::{LockMode, Part, Severed, Statement};

use super::fault::Fault;
use crate::Session;

/// A name as the catalog knows it: an index stands for its table, because dropping it locks that. Whom a foreign key refers
/// to may be another's table, which this role may not lock by itself.
const RESOLVE: &str = "
SELECT t.oid, quote_ident(n.nspname) || '.' || quote_ident(t.relname), t.relkind::text,
       has_table_privilege(t.oid, 'UPDATE, DELETE, TRUNCATE')
  FROM pg_catalog.pg_class c
  LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
  JOIN pg_catalog.pg_class t ON t.oid = coalesce(i.indrelid, c.oid)
  JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
 WHERE c.oid = to_regclass($1)";

/// The other tables of foreign keys that go with a table, a constraint or a column: their triggers are dropped there too.
const PARTNERS: &str = "
SELECT DISTINCT t.oid, quote_ident(n.nspname) || '.' || quote_ident(t.relname),
       has_table_privilege(t.oid, 'UPDATE, DELETE, TRUNCATE')
  FROM pg_catalog.pg_constraint k
  JOIN pg_catalog.pg_class t ON t.oid = CASE k.conrelid WHEN to_regclass($1) THEN k.confrelid ELSE k.conrelid END
  JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
 WHERE k.contype = 'f' AND to_regclass($1) IN (k.conrelid, k.confrelid) AND k.conrelid <> k.confrelid
   AND CASE WHEN $2::text IS NOT NULL THEN k.conname = $2 AND k.conrelid = to_regclass($1)
            WHEN $3::text IS NOT NULL THEN EXISTS (
                 SELECT 1 FROM pg_catalog.pg_attribute a
                  WHERE a.attrelid = to_regclass($1) AND a.attname = $3
                    AND a.attnum = ANY (CASE k.conrelid WHEN a.attrelid THEN k.conkey ELSE k.confkey END))
            ELSE true END";

/// Partitions and children, which are locked with a table.
const BELOW: &str = "
WITH RECURSIVE below AS (
    SELECT inhrelid FROM pg_catalog.pg_inherits WHERE inhparent = $1
     UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN below b ON i.inhparent = b.inhrelid)
SELECT inhrelid FROM below";

/// Locks on tables that exist, each in the strongest mode that one of the statements needs.
#[derive(Debug, Default)]
pub(crate) struct LockSet {
    tables: BTreeMap<u32, Wanted>,
    /// All that is locked with them, or will be by the statements themselves: whose holders are in the way.
    with: BTreeMap<u32, LockMode>,
}

#[derive(Debug)]
struct Wanted {
    name: String,
    mode: LockMode,
    only: bool,
}

impl LockSet {
    /// Looks the statements' tables up. What is no table (a view, a sequence, a type) cannot be asked for beforehand, and is
    /// bounded by a short limit when the statement itself asks.
    pub(crate) async fn of(session: &Session, statements: &[&Statement]) -> Result<Self, Fault> {
        let mut set = Self::default();
        for lock in statements.iter().flat_map(|statement| &statement.locks) {
            let Some(row) = session.client().query_opt(RESOLVE, &[&lock.relation.as_sql()]).await? else {
                continue;
            };
            let (oid, name, kind): (u32, String, String) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            if matches!(kind.as_str(), "r" | "p") && row.try_get(3)? {
                set.want(oid, Wanted { name, mode: lock.mode, only: lock.only });
            }
            set.meet(oid, lock.mode);
            if !lock.only {
                for below in session.client().query(BELOW, &[&oid]).await? {
                    set.meet(below.try_get(0)?, lock.mode);
                }
            }
        }
        for severed in statements.iter().flat_map(|statement| statement.severed()) {
            set.add_partners(session, &severed).await?;
        }
        Ok(set)
    }

    async fn add_partners(&mut self, session: &Session, severed: &Severed) -> Result<(), Fault> {
        let (constraint, column) = match &severed.part {
            Part::Whole => (None, None),
            Part::Constraint(name) => (Some(name), None),
            Part::Column(name) => (None, Some(name)),
        };
        let table = severed.table.as_sql();
        for row in session.client().query(PARTNERS, &[&table, &constraint, &column]).await? {
            let (oid, name): (u32, String) = (row.try_get(0)?, row.try_get(1)?);
            self.meet(oid, LockMode::AccessExclusive);
            if row.try_get(2)? {
                self.want(oid, Wanted { name, mode: LockMode::AccessExclusive, only: true });
            }
        }
        Ok(())
    }

    fn meet(&mut self, oid: u32, mode: LockMode) {
        self.with.entry(oid).and_modify(|had| *had = (*had).max(mode)).or_insert(mode);
    }

    fn want(&mut self, oid: u32, wanted: Wanted) {
        match self.tables.get_mut(&oid) {
            None => {
                self.tables.insert(oid, wanted);
            }
            Some(had) => {
                had.mode = had.mode.max(wanted.mode);
                had.only &= wanted.only;
            }
        }
    }

    /// Everything that will be locked, as far as is known, in its strongest mode.
    pub(crate) fn met(&self) -> &BTreeMap<u32, LockMode> {
        &self.with
    }

    /// The same, but none of it is asked for beforehand: the statements do so themselves.
    pub(crate) fn only_met(self) -> Self {
        Self { tables: BTreeMap::new(), ..self }
    }

    /// How many tables.
    pub(crate) fn len(&self) -> usize {
        self.tables.len()
    }

    /// One command for each mode, strongest first; `nowait` ends it.
    pub(crate) fn as_sql(&self, nowait: bool) -> Vec<String> {
        let mut by_mode: BTreeMap<LockMode, Vec<String>> = BTreeMap::new();
        for wanted in self.tables.values() {
            let only = if wanted.only { "ONLY " } else { "" };
            by_mode.entry(wanted.mode).or_default().push(format!("{only}{}", wanted.name));
        }
        let end = if nowait { " NOWAIT" } else { "" };
        let command = |(mode, tables): (&LockMode, &Vec<String>)| {
            format!("LOCK TABLE {} IN {} MODE{end}", tables.join(", "), mode.as_sql())
        };
        by_mode.iter().rev().map(command).collect()
    }
}
