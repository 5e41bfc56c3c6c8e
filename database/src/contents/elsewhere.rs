//! Materialized views that are filled from other databases. A restore that filled them would ask those: where one is gone, and in
//! the emergency it may be, nothing could be restored, and a restore test would reach beyond its copy.

use pointsman_core::Problem;
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::statement::{field, refused};

/// What reads foreign tables, or calls functions of an extension that asks servers by itself, as `dblink` does: by partitions and
/// children, through views, functions and materialized views. Of a function whose text the server only reads when it is called, the
/// text tells: it names what it reads. A view comes after all that it reads; what goes round in circles is followed so far only.
const READING: &str = r"
WITH RECURSIVE asking AS (
    SELECT d.classid, d.objid FROM pg_depend d
     WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass
       AND d.refobjid IN (SELECT e.refobjid FROM pg_depend e JOIN pg_foreign_data_wrapper w ON w.oid = e.objid
                           WHERE e.classid = 'pg_foreign_data_wrapper'::regclass AND e.deptype = 'e' AND w.fdwhandler = 0)),
texts AS (
    SELECT p.oid, p.proname, p.prosrc FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
     WHERE p.oid >= 16384 AND l.lanname NOT IN ('internal', 'c')),
reads (class, id, name, depth) AS (
    SELECT s.* FROM (
        SELECT 'pg_class'::regclass::oid, oid, relname, 0 FROM pg_class WHERE relkind = 'f'
         UNION ALL
        SELECT 'pg_proc'::regclass, p.oid, p.proname, 0 FROM pg_proc p
         WHERE EXISTS (SELECT FROM asking a
                        WHERE (a.classid, a.objid) IN (('pg_proc'::regclass, p.oid), ('pg_language'::regclass, p.prolang)))) s
     WHERE EXISTS (SELECT FROM pg_class WHERE relkind = 'm' AND relispopulated)
     UNION
    SELECT n.*, r.depth + 1 FROM reads r CROSS JOIN LATERAL (
        SELECT 'pg_class'::regclass::oid, c.oid, c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhparent
         WHERE r.class = 'pg_class'::regclass AND i.inhrelid = r.id
         UNION ALL
        SELECT 'pg_class'::regclass, c.oid, c.relname
          FROM pg_depend d JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid AND w.ev_type = '1'
          JOIN pg_class c ON c.oid = w.ev_class AND c.oid <> r.id
         WHERE d.refclassid = r.class AND d.refobjid = r.id
         UNION ALL
        SELECT 'pg_proc'::regclass, p.oid, p.proname
          FROM pg_depend d JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
         WHERE d.refclassid = r.class AND d.refobjid = r.id
         UNION ALL
        SELECT 'pg_proc'::regclass, t.oid, t.proname FROM texts t
         WHERE t.oid <> r.id AND strpos(lower(t.prosrc), lower(r.name)) > 0
           AND t.prosrc ~* ('(^|\W)' || regexp_replace(r.name, '(\W)', '\\\1', 'g') || '(\W|$)')) n
     WHERE r.depth < 30)
SELECT n.nspname::text, c.relname::text
  FROM reads r JOIN pg_class c ON r.class = 'pg_class'::regclass AND c.oid = r.id AND c.relkind = 'm' AND c.relispopulated
  JOIN pg_namespace n ON n.oid = c.relnamespace
 GROUP BY 1, 2 ORDER BY max(r.depth), 1, 2";

/// Which of these are there and not filled, as SQL.
const EMPTY: &str = "
SELECT format('%I.%I', n.nspname, c.relname)
  FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS v (schema, name, place)
  JOIN pg_namespace n ON n.nspname = v.schema
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = v.name AND c.relkind = 'm' AND NOT c.relispopulated
 ORDER BY v.place";

/// A materialized view. Part of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
}

/// The filled ones that were filled from other databases, those first that others read.
pub(crate) async fn filled_from_elsewhere(client: &Client) -> Result<Vec<View>, Problem> {
    let rows = client.query(READING, &[]).await;
    let rows = rows.map_err(|error| refused("list what is filled from other databases", &error))?;
    rows.iter().map(|row| Ok(View { schema: field(row, 0)?, name: field(row, 1)? })).collect()
}

/// Those of them that a database has empty, as they are called in a statement.
pub(crate) async fn empty(client: &Client, views: &[View]) -> Result<Vec<String>, Problem> {
    let schemas: Vec<&str> = views.iter().map(|view| view.schema.as_str()).collect();
    let names: Vec<&str> = views.iter().map(|view| view.name.as_str()).collect();
    let rows = client.query(EMPTY, &[&schemas, &names]).await;
    let rows = rows.map_err(|error| refused("list materialized views that are not filled", &error))?;
    rows.iter().map(|row| field(row, 0)).collect()
}
