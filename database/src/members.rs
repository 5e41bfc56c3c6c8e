//! Rights on what extensions made. It comes with the extension and is in no dump, and rights on it only a superuser can give as
//! they were: `database-role.sql` gives them to the database that restores begin from.

use std::collections::{BTreeMap, BTreeSet};

use pointsman_core::{Problem, several};

use crate::preflight::Finding;
use crate::statement::{field, refused};
use crate::{Session, Settings};

/// Members of extensions with each right that somebody other than their owner has, whether they are not as the extension made
/// them, and whether the agent's role has any right on them.
const MEMBERS: &str = "
SELECT i.type || ' ' || i.identity,
       CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END::text, a.privilege_type::text,
       m.acl IS NOT NULL AND m.acl IS DISTINCT FROM coalesce(p.initprivs, acldefault(m.kind, m.owner)), m.usable
  FROM (SELECT 'f'::\"char\" AS kind, 'pg_proc'::regclass::oid AS classid, oid, proowner AS owner, proacl AS acl,
               has_function_privilege(oid, 'EXECUTE') AS usable FROM pg_proc
        UNION ALL
        SELECT CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", 'pg_class'::regclass, oid, relowner, relacl,
               CASE relkind WHEN 'S' THEN has_sequence_privilege(oid, 'USAGE, SELECT, UPDATE')
                            ELSE has_table_privilege(oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER') END
          FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')) m
  JOIN pg_depend d ON d.classid = m.classid AND d.objid = m.oid AND d.deptype = 'e'
  LEFT JOIN pg_init_privs p ON p.classoid = m.classid AND p.objoid = m.oid AND p.objsubid = 0
 CROSS JOIN LATERAL pg_identify_object(m.classid, m.oid, 0) i
  LEFT JOIN LATERAL aclexplode(coalesce(m.acl, p.initprivs, acldefault(m.kind, m.owner))) a ON a.grantee <> m.owner";

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

/// A member of an extension.
#[derive(Default)]
struct Member {
    /// Who has which right.
    rights: BTreeSet<(String, String)>,
    changed: bool,
    usable: bool,
}

/// Compares the live database with the template that restores begin from.
pub(crate) async fn look(
    settings: &Settings,
    template: &str,
    check: &'static str,
    hint: &str,
) -> Result<Vec<Finding>, Problem> {
    let live = Session::open(settings, &settings.name, "preflight").await?;
    let template = Session::open(settings, template, "preflight").await?;
    let (there, mut findings) = (members(settings, &template).await?, Vec::new());
    let (mut otherwise, mut impossible) = (Vec::new(), Vec::new());
    for (name, member) in members(settings, &live).await? {
        match there.get(&name) {
            Some(given) if given.rights == member.rights => {}
            Some(given) if given.usable || !member.changed => otherwise.push(name),
            // A restore makes its extension, and nobody may give the rights.
            None if !member.changed => {}
            _ => impossible.push(name),
        }
    }
    for (wrapper, roles) in wrappers(&live).await? {
        let row = template.client().query_one(USABLE_WRAPPER, &[&wrapper, &roles]).await;
        let row = row.map_err(|error| refused("ask for rights on foreign data wrappers", &error))?;
        if !field::<bool>(&row, 0)? {
            impossible.push(format!("foreign-data wrapper {wrapper}"));
        }
    }
    if !impossible.is_empty() {
        let found =
            format!("a restore could not give rights on what extensions made: {}", named(&impossible));
        findings.push(Finding::unrestorable(check, found, hint));
    }
    if !otherwise.is_empty() {
        let found = format!(
            "in a restored database others may use what extensions made than in `{}`: {}",
            settings.name,
            named(&otherwise)
        );
        findings.push(Finding::warning(check, found, hint));
    }
    Ok(findings)
}

/// Every member with who has which right on it, but for the agent's role: the template gives it what restores need.
async fn members(settings: &Settings, session: &Session) -> Result<BTreeMap<String, Member>, Problem> {
    let rows = session.client().query(MEMBERS, &[]).await;
    let rows = rows.map_err(|error| refused("list rights on what extensions made", &error))?;
    let mut members: BTreeMap<String, Member> = BTreeMap::new();
    for row in &rows {
        let member = members.entry(field(row, 0)?).or_default();
        (member.changed, member.usable) = (field(row, 3)?, field(row, 4)?);
        let (grantee, privilege): (Option<String>, Option<String>) = (field(row, 1)?, field(row, 2)?);
        let right = grantee.zip(privilege).filter(|(grantee, _)| *grantee != settings.user);
        member.rights.extend(right);
    }
    Ok(members)
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
