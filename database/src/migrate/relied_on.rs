//! What the version that serves relies on, by the catalog of the copy before and after: so it is seen what an expand takes from
//! it, also where a function or a block did it and no rule of the text looks.

use std::collections::BTreeMap;

use pointsman_core::{Code, Problem};

use super::fault::Fault;
use crate::Session;

/// Most things of a catalog that are read.
const MAX_THINGS: i64 = 500_000;

/// Relations of users, and what both questions below ask them about.
const OURS: &str = "
WITH ours AS (SELECT oid FROM pg_catalog.pg_namespace
               WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'pointsman')),
     of_extensions AS (SELECT classid, objid FROM pg_catalog.pg_depend WHERE deptype = 'e'),
     mine AS (
    SELECT c.oid, c.relkind, c.relowner, c.relacl, c.relrowsecurity,
           quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.oid IN (SELECT oid FROM ours) AND c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S')
       AND NOT EXISTS (SELECT 1 FROM of_extensions e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid)),
     columns AS (
    SELECT m.name || '.' || quote_ident(a.attname) AS name, m.relkind IN ('r', 'p', 'f') AS holds, a.*
      FROM mine m JOIN pg_catalog.pg_attribute a ON a.attrelid = m.oid AND a.attnum > 0 AND NOT a.attisdropped
     WHERE m.relkind <> 'S')";

/// Kind, name, and what it must stay: none of these may go. A table is the one that it was, whatever its name; a function
/// counts with every list of arguments that it can be called with, those with a default left out one by one.
const GOODS: &str = "
SELECT 'table', name, oid::text FROM mine WHERE relkind IN ('r', 'p', 'f')
UNION ALL SELECT 'view', name, '' FROM mine WHERE relkind IN ('v', 'm')
UNION ALL SELECT 'column', name, CASE WHEN holds THEN format_type(atttypid, atttypmod) ELSE '' END FROM columns
UNION ALL SELECT 'default of', name, '' FROM columns WHERE holds AND (atthasdef OR attidentity <> '')
UNION ALL SELECT 'owner of', name, pg_get_userbyid(relowner)::text FROM mine
UNION ALL SELECT 'right to', lower(a.privilege_type) || ' ' || name || ' of '
                 || CASE a.grantee WHEN 0 THEN 'everybody' ELSE pg_get_userbyid(a.grantee)::text END, ''
            FROM mine, LATERAL aclexplode(coalesce(relacl,
                 acldefault((CASE relkind WHEN 'S' THEN 's' ELSE 'r' END)::\"char\", relowner))) a
           WHERE a.grantee <> relowner
UNION ALL SELECT 'unique index', regexp_replace(pg_get_indexdef(i.indexrelid), '^CREATE UNIQUE INDEX .*? ON (ONLY )?', ''), ''
            FROM pg_catalog.pg_index i JOIN mine m ON m.oid = i.indrelid WHERE i.indisunique AND i.indisvalid
UNION ALL SELECT 'function', quote_ident(n.nspname) || '.' || quote_ident(p.proname) || '(' || coalesce((
                     SELECT string_agg(format_type(a.type, NULL), ', ' ORDER BY a.at)
                       FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY AS a (type, at) WHERE a.at <= k), '') || ')',
                 min(coalesce(pg_get_function_result(p.oid), ''))
            FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace,
                 generate_series((p.pronargs - p.pronargdefaults)::int, p.pronargs::int) AS k
           WHERE n.oid IN (SELECT oid FROM ours)
             AND NOT EXISTS (SELECT 1 FROM of_extensions e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid)
           GROUP BY 2
UNION ALL SELECT 'type', format_type(t.oid, NULL), ''
            FROM pg_catalog.pg_type t WHERE t.typtype IN ('e', 'd', 'r') AND t.typnamespace IN (SELECT oid FROM ours)
             AND NOT EXISTS (SELECT 1 FROM of_extensions e WHERE e.classid = 'pg_type'::regclass AND e.objid = t.oid)
UNION ALL SELECT 'label', format_type(l.enumtypid, NULL) || ' ' || quote_literal(l.enumlabel), ''
            FROM pg_catalog.pg_enum l
UNION ALL SELECT 'trigger', quote_ident(t.tgname) || ' on ' || name, ''
            FROM pg_catalog.pg_trigger t JOIN mine m ON m.oid = t.tgrelid WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'
UNION ALL SELECT 'policy', quote_ident(p.polname) || ' on ' || name, ''
            FROM pg_catalog.pg_policy p JOIN mine m ON m.oid = p.polrelid WHERE p.polpermissive
UNION ALL SELECT 'partition', c.name || ' of ' || p.name, ''
            FROM pg_catalog.pg_inherits i JOIN mine c ON c.oid = i.inhrelid JOIN mine p ON p.oid = i.inhparent
UNION ALL SELECT 'sequence', quote_ident(schemaname) || '.' || quote_ident(sequencename), coalesce(last_value, 0)::text
            FROM pg_catalog.pg_sequences
           WHERE schemaname !~ '^pg_' AND schemaname NOT IN ('information_schema', 'pointsman') AND increment_by > 0";

/// Kind, name, and on what: none of these may come to what was there before.
const BURDENS: &str = "
SELECT 'rule', quote_ident(r.rulename) || ' on ' || name, name
  FROM pg_catalog.pg_rewrite r JOIN mine m ON m.oid = r.ev_class WHERE r.rulename <> '_RETURN'
UNION ALL SELECT 'restrictive policy', quote_ident(p.polname) || ' on ' || name, name
            FROM pg_catalog.pg_policy p JOIN mine m ON m.oid = p.polrelid WHERE NOT p.polpermissive
UNION ALL SELECT 'row level security', 'on ' || name, name FROM mine WHERE relrowsecurity
UNION ALL SELECT 'NOT NULL', 'of ' || name, name FROM columns WHERE holds AND attnotnull";

/// What is there, as the version that serves sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReliedOn {
    goods: BTreeMap<(String, String), String>,
    burdens: BTreeMap<(String, String), String>,
}

impl ReliedOn {
    /// Reads the catalog.
    pub(crate) async fn look(session: &Session) -> Result<Self, Problem> {
        let failed = |error| Fault::from(error).while_doing("read the catalog of the copy");
        let mut read = Vec::new();
        for question in [GOODS, BURDENS] {
            let sql = format!("{OURS} {question} LIMIT {MAX_THINGS}");
            let rows = session.client().query(&sql, &[]).await.map_err(failed)?;
            let thing = |row: &tokio_postgres::Row| Ok(((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?));
            read.push(rows.iter().map(thing).collect::<Result<BTreeMap<_, _>, _>>().map_err(failed)?);
        }
        let burdens = read.pop().unwrap_or_default();
        Ok(Self { goods: read.pop().unwrap_or_default(), burdens })
    }

    /// What is no longer as it was, in words.
    pub(crate) fn taken(&self, after: &Self) -> Vec<String> {
        let lost = self.goods.iter().filter_map(|(key, was)| {
            let (kind, name) = key;
            match after.goods.get(key) {
                None => Some(format!("the {kind} {name} is gone")),
                Some(is) if is == was => None,
                Some(is) => changed(kind, name, was, is),
            }
        });
        let is_old = |on: &String| {
            ["table", "view", "column"]
                .iter()
                .any(|kind| self.goods.contains_key(&((*kind).to_owned(), on.clone())))
        };
        let burdened = after
            .burdens
            .iter()
            .filter(|(key, on)| !self.burdens.contains_key(*key) && is_old(on))
            .map(|((kind, name), _)| format!("there is {kind} {name} now"));
        // Of a table that is gone its columns and rights need not be told.
        let mut told: Vec<String> = lost.collect();
        told.sort_by_key(|line| !line.starts_with("the table "));
        told.extend(burdened);
        told
    }
}

fn changed(kind: &str, name: &str, was: &str, is: &str) -> Option<String> {
    match kind {
        "table" => Some(format!("the table {name} is another one: it was dropped and made again")),
        "sequence" => {
            let number = |text: &str| text.parse::<i64>().unwrap_or(i64::MAX);
            let back = number(is) < number(was);
            back.then(|| {
                format!("the sequence {name} was set back from {was} to {is}: its numbers would come twice")
            })
        }
        _ => Some(format!("the {kind} {name} was `{was}` and is `{is}`")),
    }
}

/// Refuses what takes something from the version that serves.
pub(crate) fn judge(taken: &[String]) -> Result<(), Problem> {
    let Some((first, rest)) = taken.split_first() else { return Ok(()) };
    let message =
        format!("on the copy the migrations take away what the version that serves may need: {first}");
    let problem = Problem::new(Code::MigrationBreaking, message)
        .hint("move it to a contract file (`.contract.sql`), which runs once the old version is gone");
    Err(rest.iter().fold(problem, Problem::cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(goods: &[(&str, &str, &str)], burdens: &[(&str, &str, &str)]) -> ReliedOn {
        let map = |things: &[(&str, &str, &str)]| {
            let owned = things
                .iter()
                .map(|(kind, name, is)| (((*kind).to_owned(), (*name).to_owned()), (*is).to_owned()));
            owned.collect()
        };
        ReliedOn { goods: map(goods), burdens: map(burdens) }
    }

    #[test]
    fn what_goes_or_changes_is_told_and_what_comes_beside_it_is_not() {
        let before = there(
            &[("table", "t", "1"), ("column", "t.a", "integer"), ("sequence", "s", "57")],
            &[("NOT NULL", "of t.a", "t.a")],
        );
        let beside = there(
            &[
                ("table", "t", "1"),
                ("column", "t.a", "integer"),
                ("column", "t.b", "text"),
                ("table", "u", "2"),
                ("sequence", "s", "60"),
            ],
            &[("NOT NULL", "of t.a", "t.a"), ("NOT NULL", "of t.b", "t.b"), ("rule", "r on u", "u")],
        );
        assert_eq!(before.taken(&beside), Vec::<String>::new());
        let taken = before.taken(&there(
            &[("column", "t.a", "text"), ("sequence", "s", "0"), ("table", "t", "9")],
            &[("rule", "r on t", "t"), ("NOT NULL", "of t.a", "t.a")],
        ));
        assert_eq!(taken.len(), 4, "{taken:?}");
        assert!(taken[0].contains("is another one"), "{taken:?}");
        assert!(taken.iter().any(|line| line.contains("was `integer` and is `text`")), "{taken:?}");
        assert!(taken.iter().any(|line| line.contains("set back from 57 to 0")), "{taken:?}");
        assert!(taken[3].contains("rule r on t"), "{taken:?}");
    }
}
