//! What belongs to superusers in the live database, and to nobody that the agent could become in a restored one: what extensions
//! made, and schemas that a superuser created. A restore takes it, with the rights on it, from the template that it begins from;
//! where that one has it otherwise, this is told before a restore would.

use std::collections::BTreeMap;

use pointsman_core::{Problem, several};

use crate::preflight::Finding;
use crate::statement::{field, refused};
use crate::{Session, Settings};

/// Whose these things are, which rights others have on them, and had when an extension made them. What superusers may do is no
/// right, and the agent gives itself what it needs. The script that makes the template asks the same.
const THINGS: &str = "
SELECT t.oid, i.type || ' ' || i.identity, t.made, o.rolsuper, o.rolname::text, named.now, named.initial, t.by_superuser
  FROM (SELECT t.*, d.objid IS NOT NULL AS made,
               coalesce((SELECT x.rolsuper FROM pg_extension e JOIN pg_roles x ON x.oid = e.extowner WHERE e.oid = d.refobjid), false) AS by_superuser
          FROM (SELECT 'pg_proc'::regclass::oid AS classid, oid, proowner AS owner, proacl AS acl, 'f'::\"char\" AS kind FROM pg_proc
                UNION ALL
                SELECT 'pg_class'::regclass, oid, relowner, relacl, CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\"
                  FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
                UNION ALL
                SELECT 'pg_type'::regclass, oid, typowner, typacl, 'T' FROM pg_type
                UNION ALL
                SELECT 'pg_namespace'::regclass, oid, nspowner, nspacl, 'n' FROM pg_namespace
                 WHERE nspname !~ '^pg_' AND nspname <> 'information_schema') t
          LEFT JOIN pg_depend d ON d.classid = t.classid AND d.objid = t.oid AND d.deptype = 'e') t
  JOIN pg_roles o ON o.oid = t.owner
  LEFT JOIN pg_init_privs p ON p.classoid = t.classid AND p.objoid = t.oid AND p.objsubid = 0
 CROSS JOIN LATERAL pg_identify_object(t.classid, t.oid, 0) i
 CROSS JOIN LATERAL (
       SELECT coalesce(array_agg(a.named ORDER BY a.named) FILTER (WHERE a.is_now), '{}') AS now,
              coalesce(array_agg(a.named ORDER BY a.named) FILTER (WHERE NOT a.is_now), '{}') AS initial
         FROM (SELECT acl.is_now,
                      format('%s to %s%s', a.privilege_type, coalesce(g.rolname, 'everybody'), CASE WHEN a.is_grantable THEN '*' END) AS named
                 FROM (VALUES (true, coalesce(t.acl, acldefault(t.kind, t.owner))),
                              (false, coalesce(p.initprivs, acldefault(t.kind, t.owner)))) acl (is_now, list)
                CROSS JOIN LATERAL aclexplode(acl.list) a
                 LEFT JOIN pg_roles g ON g.oid = a.grantee
                WHERE a.grantee = 0 OR NOT g.rolsuper AND g.rolname NOT IN ('pg_database_owner', current_user)) a) named
 WHERE t.made OR t.classid = 'pg_namespace'::regclass AND o.rolsuper";

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

/// What a superuser has, or an extension made.
struct Thing {
    oid: u32,
    /// Whether an extension made it; else it is a superuser's schema.
    made: bool,
    /// Whether that extension is a superuser's, and so in the template once that is as it should be.
    by_superuser: bool,
    /// Whose it is, where that is to be kept: which superuser an extension's own thing belongs to does not matter.
    owner: Option<String>,
    /// What others may do with it.
    rights: Vec<String>,
    /// What others could do with it when it was made.
    initial: Vec<String>,
}

impl Thing {
    fn is_like(&self, other: &Self) -> bool {
        self.owner == other.owner && self.rights == other.rights
    }
}

/// Things by their names.
type Things = BTreeMap<String, Thing>;

/// Schemas of the live database that are a superuser's and that restores find in the template just as they are.
pub(crate) async fn schemas_given(live: &Session, template: &Session) -> Result<Vec<u32>, Problem> {
    let there = things(template).await?;
    let given = things(live).await?.into_iter().filter(|(name, thing)| {
        !thing.made && there.get(name).is_some_and(|there| !there.made && there.is_like(thing))
    });
    Ok(given.map(|(_, thing)| thing.oid).collect())
}

/// Compares the live database with the template that restores begin from, if there is one.
pub(crate) async fn look(
    settings: &Settings,
    template: Option<&str>,
    check: &'static str,
    script: &str,
) -> Result<Vec<Finding>, Problem> {
    let live = Session::open(settings, &settings.name, "preflight").await?;
    let template = match template {
        Some(name) => Some(Session::open(settings, name, "preflight").await?),
        None => None,
    };
    let there = match &template {
        Some(template) => things(template).await?,
        None => Things::new(),
    };
    let (mut otherwise, mut by_hand) = (Vec::new(), Vec::new());
    for (name, thing) in things(&live).await? {
        match there.get(&name) {
            Some(there) if !there.is_like(&thing) => otherwise.push(name),
            // An extension that a restore makes by itself is as it was when it was new.
            None if thing.made && thing.rights != thing.initial => {
                if thing.by_superuser {
                    otherwise.push(name)
                } else {
                    by_hand.push(name)
                }
            }
            _ => {}
        }
    }
    let mut findings = Vec::new();
    for (things, hint) in [
        (&otherwise, format!("this takes it over there: {script}")),
        (&by_hand, "after a restore and before its swap, as a superuser in the restored database: give and revoke the same once more".to_owned()),
    ] {
        if !things.is_empty() {
            let found = format!(
                "in a restored database others may use what is a superuser's than in `{}`: {}",
                settings.name,
                named(things)
            );
            findings.push(Finding::warning(check, found, hint));
        }
    }
    if let Some(template) = &template {
        findings.extend(wrappers(&live, template, check, script).await?);
    }
    Ok(findings)
}

async fn wrappers(
    live: &Session,
    template: &Session,
    check: &'static str,
    script: &str,
) -> Result<Option<Finding>, Problem> {
    let rows = live.client().query(WRAPPERS, &[]).await;
    let mut lacking = Vec::new();
    for row in rows.map_err(|error| refused("list foreign data wrappers", &error))? {
        let (wrapper, roles): (String, Vec<String>) = (field(&row, 0)?, field(&row, 1)?);
        let row = template.client().query_one(USABLE_WRAPPER, &[&wrapper, &roles]).await;
        let row = row.map_err(|error| refused("ask for rights on foreign data wrappers", &error))?;
        if !field::<bool>(&row, 0)? {
            lacking.push(format!("foreign-data wrapper {wrapper}"));
        }
    }
    let found =
        format!("a restore could not make servers of what the template keeps from it: {}", named(&lacking));
    let hint = format!("this gives the rights there: {script}");
    Ok((!lacking.is_empty()).then(|| Finding::unrestorable(check, found, hint)))
}

async fn things(session: &Session) -> Result<Things, Problem> {
    let rows = session.client().query(THINGS, &[]).await;
    let rows = rows.map_err(|error| refused("list what is a superuser's", &error))?;
    rows.iter()
        .map(|row| {
            let (made, of_superuser): (bool, bool) = (field(row, 2)?, field(row, 3)?);
            let owner = (!made || !of_superuser).then(|| field(row, 4)).transpose()?;
            let thing = Thing {
                oid: field(row, 0)?,
                made,
                by_superuser: field(row, 7)?,
                owner,
                rights: field(row, 5)?,
                initial: field(row, 6)?,
            };
            Ok((field(row, 1)?, thing))
        })
        .collect()
}

fn named(things: &[String]) -> String {
    let names = things.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match things.len().saturating_sub(NAMED) {
        0 => names,
        more => format!("{names} and {} more", several(more, "thing", "things")),
    }
}
