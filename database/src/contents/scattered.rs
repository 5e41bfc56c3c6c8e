//! Tables whose rows are in other partitions after a restore. What an enum's value hashes to depends on numbers that the server
//! gives its labels anew in each database, so a dump has the rows of a table that is partitioned by such a hash loaded through the
//! table itself: each goes where it belongs there. Of these the table as a whole is what can be compared. What may hold enums,
//! arrays, ranges and rows, is taken for such a key too; `pg_dump` sees that of enums themselves alone, and must be told.

use std::collections::{BTreeMap, BTreeSet};

use pointsman_core::Problem;
use tokio_postgres::Client;

use crate::statement::{field, refused};

/// Tables that are partitioned by a hash whose operators have one of these names.
const HASHING: &str = "
    SELECT p.partrelid AS id FROM pg_partitioned_table p
     WHERE p.partclass::oid[] && ARRAY(
           SELECT c.oid FROM pg_opclass c JOIN pg_am a ON a.oid = c.opcmethod
            WHERE c.opcname = ANY ($1) AND c.opcnamespace = 'pg_catalog'::regnamespace AND a.amname = 'hash')";

/// The operators of enums, and of what may hold them.
const OF_ENUMS: [&str; 5] = ["enum_ops", "array_ops", "range_ops", "multirange_ops", "record_ops"];

/// A partition with rows of its own, and the topmost table above it whose partitions rows are in by such a hash. Nothing of it
/// waits for a lock of one of them.
const SCATTERED: &str = "
WITH RECURSIVE hashing AS (%hashing%),
below (id, whole) AS (
    SELECT h.id, h.id FROM hashing h
     WHERE NOT EXISTS (SELECT FROM pg_partition_ancestors(h.id) a JOIN hashing ON hashing.id = a.relid WHERE a.relid <> h.id)
     UNION ALL
    SELECT i.inhrelid, below.whole FROM below JOIN pg_inherits i ON i.inhparent = below.id)
SELECT pn.nspname::text, p.relname::text, wn.nspname::text, w.relname::text
  FROM below JOIN pg_class p ON p.oid = below.id AND p.relkind = 'r' JOIN pg_namespace pn ON pn.oid = p.relnamespace
  JOIN pg_class w ON w.oid = below.whole JOIN pg_namespace wn ON wn.oid = w.relnamespace";

/// Whether there is one that `pg_dump` does not see by itself, and so has to be told to have all partitions loaded through the
/// tables above them.
pub(crate) async fn unseen_by_pg_dump(client: &Client) -> Result<bool, Problem> {
    let unseen: Vec<&str> = OF_ENUMS.into_iter().filter(|operators| *operators != "enum_ops").collect();
    let row = client.query_one(&format!("SELECT EXISTS ({HASHING})"), &[&unseen]).await;
    field(&row.map_err(|error| refused("look for tables that are partitioned by a hash", &error))?, 0)
}

/// A table, by schema and name.
pub(crate) type Name = (String, String);

/// Partitions of such tables.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scattered {
    whole: BTreeMap<Name, Name>,
}

impl Scattered {
    /// Asks the database of the session.
    pub(crate) async fn ask(client: &Client) -> Result<Self, Problem> {
        let rows = client.query(&SCATTERED.replace("%hashing%", HASHING), &[&OF_ENUMS.as_slice()]).await;
        let rows = rows.map_err(|error| refused("list tables that are partitioned by a hash", &error))?;
        let pair = |row: &tokio_postgres::Row| {
            Ok(((field(row, 0)?, field(row, 1)?), (field(row, 2)?, field(row, 3)?)))
        };
        Ok(Self { whole: rows.iter().map(pair).collect::<Result<_, Problem>>()? })
    }

    /// The table that is to be compared instead of this one, where it is another.
    pub(crate) fn whole(&self, partition: &Name) -> Option<&Name> {
        self.whole.get(partition)
    }

    /// All tables that are compared as a whole.
    pub(crate) fn wholes(&self) -> BTreeSet<&Name> {
        self.whole.values().collect()
    }
}
