//! The locks that a transaction will need, found before it begins and asked for all at once.

use std::collections::BTreeMap;

use pointsman_migration::{LockMode, Statement};

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

/// Locks on tables that exist, each in the strongest mode that one of the statements needs.
#[derive(Debug, Default)]
pub(crate) struct LockSet {
    tables: BTreeMap<u32, Wanted>,
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
        }
        Ok(set)
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

    /// The tables.
    pub(crate) fn oids(&self) -> Vec<u32> {
        self.tables.keys().copied().collect()
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
