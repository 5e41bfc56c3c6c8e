//! Rights on what extensions made. It comes with the extension and is in no dump, and rights on it only a superuser can give as
//! they were: what was changed of them is told before a restore meets it.

use std::collections::BTreeMap;

use pointsman_core::{Problem, several};

use crate::preflight::Finding;
use crate::statement::{field, refused};
use crate::{Session, Settings};

/// Members of extensions that do not have the rights any more that the extension gave, whether everybody had one then, and whether
/// the role has any.
const MEMBERS: &str = "
SELECT i.type || ' ' || i.identity, EXISTS (SELECT FROM aclexplode(m.initial) a WHERE a.grantee = 0), m.usable
  FROM (SELECT t.*, coalesce(p.initprivs, acldefault(t.kind, t.owner)) AS initial
          FROM (SELECT 'f'::\"char\" AS kind, 'pg_proc'::regclass::oid AS classid, oid, proowner AS owner, proacl AS acl,
                       has_function_privilege(oid, 'EXECUTE') AS usable FROM pg_proc
                UNION ALL
                SELECT CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", 'pg_class'::regclass, oid, relowner, relacl,
                       CASE relkind WHEN 'S' THEN has_sequence_privilege(oid, 'USAGE, SELECT, UPDATE')
                                    ELSE has_table_privilege(oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER') END
                  FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')) t
          JOIN pg_depend d ON d.classid = t.classid AND d.objid = t.oid AND d.deptype = 'e'
          LEFT JOIN pg_init_privs p ON p.classoid = t.classid AND p.objoid = t.oid AND p.objsubid = 0) m
 CROSS JOIN LATERAL pg_identify_object(m.classid, m.oid, 0) i
 WHERE m.acl IS NOT NULL AND m.acl IS DISTINCT FROM m.initial OR $1";

/// Wrappers that servers of the live database use, and who must be able to: whoever restores them, and whose they are.
const WRAPPERS: &str = "
SELECT w.fdwname::text, array_agg(DISTINCT pg_get_userbyid(s.srvowner)::text) || current_user::text
  FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
  JOIN pg_depend d ON d.classid = 'pg_foreign_data_wrapper'::regclass AND d.objid = w.oid AND d.deptype = 'e'
 GROUP BY 1";

const USABLE_WRAPPER: &str = "
SELECT coalesce(bool_and(has_foreign_data_wrapper_privilege(r.name, w.oid, 'USAGE')), false)
  FROM unnest($2::text[]) AS r (name) LEFT JOIN pg_foreign_data_wrapper w ON w.fdwname = $1";

/// How many things are named.
const NAMED: usize = 5;

/// Compares the live database with the template that restores begin from.
pub(crate) async fn look(
    settings: &Settings,
    template: &str,
    check: &'static str,
    script: &str,
) -> Result<Vec<Finding>, Problem> {
    let live = Session::open(settings, &settings.name, "preflight").await?;
    let template = Session::open(settings, template, "preflight").await?;
    let (mut otherwise, mut impossible, mut findings) = (Vec::new(), Vec::new(), Vec::new());
    let changed = members(&live, false).await?;
    if !changed.is_empty() {
        let there = members(&template, true).await?;
        for (name, (everybodys, _)) in changed {
            // Whoever has no right at all on a thing may not even try to grant one; else the server only warns.
            let usable = there.get(&name).map_or(everybodys, |(_, usable)| *usable);
            if usable { otherwise.push(name) } else { impossible.push(name) }
        }
    }
    if !impossible.is_empty() {
        let found =
            format!("a restore could not give rights on what extensions made: {}", named(&impossible));
        let hint = "as a superuser, in the database: `REVOKE … ON … FROM …` what was granted on it; roles such as `pg_monitor` have such \
                    rights in all databases";
        findings.push(Finding::unrestorable(check, found, hint));
    }
    if !otherwise.is_empty() {
        let found = format!(
            "in a restored database others may use what extensions made than in `{}`: {}",
            settings.name,
            named(&otherwise)
        );
        let hint = "after a restore and before its swap, as a superuser in the restored database: give and revoke the same once more";
        findings.push(Finding::warning(check, found, hint));
    }
    let mut lacking = Vec::new();
    for (wrapper, roles) in wrappers(&live).await? {
        let row = template.client().query_one(USABLE_WRAPPER, &[&wrapper, &roles]).await;
        let row = row.map_err(|error| refused("ask for rights on foreign data wrappers", &error))?;
        if !field::<bool>(&row, 0)? {
            lacking.push(format!("foreign-data wrapper {wrapper}"));
        }
    }
    if !lacking.is_empty() {
        let found = format!(
            "a restore could not make servers of what the template keeps from it: {}",
            named(&lacking)
        );
        findings.push(Finding::unrestorable(check, found, script));
    }
    Ok(findings)
}

/// Members whose rights were changed, or `all`: whether everybody had a right on it at first, and whether the role has one.
async fn members(session: &Session, all: bool) -> Result<BTreeMap<String, (bool, bool)>, Problem> {
    let rows = session.client().query(MEMBERS, &[&all]).await;
    let rows = rows.map_err(|error| refused("list rights on what extensions made", &error))?;
    rows.iter().map(|row| Ok((field(row, 0)?, (field(row, 1)?, field(row, 2)?)))).collect()
}

async fn wrappers(live: &Session) -> Result<Vec<(String, Vec<String>)>, Problem> {
    let rows = live.client().query(WRAPPERS, &[]).await;
    let rows = rows.map_err(|error| refused("list foreign data wrappers", &error))?;
    rows.iter().map(|row| Ok((field(row, 0)?, field(row, 1)?))).collect()
}

fn named(things: &[String]) -> String {
    let names = things.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match things.len().saturating_sub(NAMED) {
        0 => names,
        more => format!("{names} and {} more", several(more, "thing", "things")),
    }
}
