//! What is in the database and could be dumped, but not put into a new one by the agent's role: what others own, have granted
//! or preset, and what only a superuser can create. A restore test shows the same, in the middle of a release.

use std::collections::BTreeMap;

use pointsman_core::{Problem, several};

use crate::copy::template_of;
use crate::preflight::Finding;
use crate::server::Server;
use crate::shape::Shape;
use crate::statement::{field, quoted, refused};
use crate::{Session, Settings, foreign};

/// What findings are about.
const CHECK: &str = "restore";
/// Things of a kind that are looked at; the rest is met when these are done with.
const MOST: i64 = 1000;
/// The first version of the server in which a role may be given parameters to set.
const GRANTED_FROM: u32 = 15;
/// Things that are named, each with what to type.
const NAMED: usize = 5;

/// What all of it asks: things of people, and of which roles the agent is a member with all their rights. Members of extensions
/// come with their extension, which the database has that restores begin from; constructors of ranges come with their type. Who is a member of `pg_database_owner` the server
/// may have remembered from before it knew the database, while it read `pg_hba.conf`. Publications of whole schemas are there
/// since version 15.
const COMMON: &str = "
WITH of_extensions AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e'),
     schemas AS (SELECT oid, nspname, nspowner, nspacl FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'),
     server AS (SELECT current_setting('server_version_num')::int AS number),
     usable AS (
SELECT r.oid, r.rolname, r.rolsuper, a.is_it,
       pg_has_role(a.is_it, 'USAGE') AND pg_has_role(a.is_it, CASE WHEN s.number >= 160000 THEN 'SET' ELSE 'MEMBER' END) AS is_usable
  FROM pg_roles r
  CROSS JOIN server s
  JOIN pg_database d ON d.datname = current_database()
  CROSS JOIN LATERAL (SELECT CASE r.rolname WHEN 'pg_database_owner' THEN d.datdba ELSE r.oid END AS is_it) a),
     made_by_types AS (
SELECT objid AS oid FROM pg_depend WHERE classid = 'pg_proc'::regclass AND refclassid = 'pg_type'::regclass AND deptype = 'i'),
     wide AS (
SELECT oid, pubname FROM pg_publication p
 WHERE puballtables OR EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_publication'::regclass AND d.refobjid = p.oid
                                  AND d.classid = to_regclass('pg_catalog.pg_publication_namespace'))),
     owned AS (
SELECT 'pg_class'::regclass::oid AS classid, c.oid AS objid, c.relowner AS owner, c.relnamespace AS schema, c.relacl AS acl,
       CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS word
  FROM pg_class c
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.relpersistence <> 't'
UNION ALL SELECT 'pg_proc'::regclass, oid, proowner, pronamespace, proacl, 'ROUTINE' FROM pg_proc
 WHERE oid NOT IN (SELECT oid FROM made_by_types)
UNION ALL
SELECT 'pg_type'::regclass, t.oid, t.typowner, t.typnamespace, t.typacl, 'TYPE'
  FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
 WHERE t.typtype IN ('b', 'c', 'd', 'e', 'r') AND (c.oid IS NULL OR c.relkind = 'c')
   AND NOT EXISTS (SELECT FROM pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid)
UNION ALL SELECT 'pg_collation'::regclass, oid, collowner, collnamespace, NULL, NULL FROM pg_collation
UNION ALL SELECT 'pg_conversion'::regclass, oid, conowner, connamespace, NULL, NULL FROM pg_conversion
UNION ALL SELECT 'pg_operator'::regclass, oid, oprowner, oprnamespace, NULL, NULL FROM pg_operator
UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, stxowner, stxnamespace, NULL, NULL FROM pg_statistic_ext
UNION ALL SELECT 'pg_ts_config'::regclass, oid, cfgowner, cfgnamespace, NULL, NULL FROM pg_ts_config
UNION ALL SELECT 'pg_ts_dict'::regclass, oid, dictowner, dictnamespace, NULL, NULL FROM pg_ts_dict
UNION ALL SELECT 'pg_foreign_server'::regclass, oid, srvowner, NULL, srvacl, 'FOREIGN SERVER' FROM pg_foreign_server
UNION ALL SELECT 'pg_publication'::regclass, oid, pubowner, NULL, NULL, NULL FROM pg_publication
 WHERE oid NOT IN (SELECT oid FROM wide)
UNION ALL SELECT 'pg_largeobject'::regclass, oid, lomowner, NULL, lomacl, 'LARGE OBJECT' FROM pg_largeobject_metadata
UNION ALL SELECT 'pg_namespace'::regclass, oid, nspowner, NULL, nspacl, 'SCHEMA' FROM schemas),
     of_people AS (
SELECT o.*, i.type, i.identity FROM owned o, pg_identify_object(o.classid, o.objid, 0) i
 WHERE (o.objid >= 16384 OR o.classid IN ('pg_namespace'::regclass, 'pg_largeobject'::regclass))
   AND (o.schema IS NULL OR o.schema IN (SELECT oid FROM schemas))
   AND NOT EXISTS (SELECT FROM of_extensions e WHERE e.classid = o.classid AND e.objid = o.objid))";

/// What belongs to others. A new owner must be able to create in the schema, and rights that were granted on it come last in
/// a restore: the owner's own count, before version 15 what everybody may do in `public`, which has no owner in a dump there, and
/// those on a superuser's schemas that the template gives. Who owned a thing before keeps what it may do with it.
const OWNED: &str = "
SELECT u.rolname::text, o.type || ' ' || o.identity, u.rolsuper OR NOT m.may_create, d.rolname::text,
       CASE WHEN o.owner = p.datdba
            THEN format('ALTER SCHEMA %1$I OWNER TO %2$I; GRANT ALL ON SCHEMA %1$I TO %3$I', s.nspname, d.rolname, h.rolname)
            ELSE format('ALTER %s %s OWNER TO %I', CASE o.type WHEN 'composite type' THEN 'TYPE' WHEN 'statistics object' THEN 'STATISTICS'
                                                              ELSE upper(o.type) END, o.identity, d.rolname)
              || CASE WHEN o.word IS NULL OR u.rolsuper THEN ''
                      ELSE format('; GRANT ALL ON %s %s TO %I', o.word, o.identity, u.rolname) END END,
       o.classid = 'pg_namespace'::regclass AND u.rolsuper
  FROM of_people o
  JOIN usable u ON u.oid = o.owner
  JOIN pg_database p ON p.datname = current_database()
  JOIN pg_roles d ON d.oid = p.datdba
  CROSS JOIN server v
  LEFT JOIN schemas s ON s.oid = o.schema
  LEFT JOIN usable h ON h.oid = s.nspowner
  CROSS JOIN LATERAL (
       SELECT s.oid IS NULL OR s.nspname = 'public' AND v.number < 150000 OR pg_has_role(u.is_it, h.is_it, 'USAGE')
           OR s.oid = ANY ($2) AND has_schema_privilege(u.is_it, s.oid, 'CREATE')
           OR EXISTS (SELECT FROM of_extensions e WHERE e.classid = 'pg_namespace'::regclass AND e.objid = s.oid) AS may_create) m
 WHERE NOT (u.is_usable AND m.may_create)
   AND NOT (o.classid = 'pg_namespace'::regclass AND o.objid = ANY ($2))
   AND NOT (o.classid = 'pg_namespace'::regclass AND o.identity = 'public' AND v.number < 150000)
   AND NOT EXISTS (SELECT FROM pg_depend l WHERE l.classid = 'pg_class'::regclass AND l.objid = o.objid AND o.word = 'SEQUENCE'
                      AND l.refclassid = 'pg_class'::regclass AND l.deptype IN ('a', 'i'))
 ORDER BY 1, o.classid <> 'pg_namespace'::regclass, 2 LIMIT $1";

/// What was granted by others than the owner: a restore would have to become them.
const GRANTED: &str = "
, columns AS (
SELECT o.*, NULL::text AS of_columns FROM of_people o WHERE o.acl IS NOT NULL AND o.word IS NOT NULL
UNION ALL
SELECT o.classid, o.objid, o.owner, o.schema, a.attacl, o.word, o.type, o.identity, format(' (%I)', a.attname)
  FROM of_people o JOIN pg_attribute a ON a.attrelid = o.objid AND o.classid = 'pg_class'::regclass
 WHERE a.attacl IS NOT NULL AND a.attnum > 0 AND NOT a.attisdropped)
SELECT g.rolname::text, format('%s of %s %s to %s', rights.list, o.type, o.identity, grantee.name),
       format('SET ROLE %I; REVOKE %s ON %s %s FROM %s; RESET ROLE; GRANT %2$s ON %3$s %4$s TO %5$s%6$s', g.rolname, rights.list,
              o.word, o.identity, grantee.name, rights.options)
  FROM columns o
  CROSS JOIN LATERAL (
       SELECT a.grantor, a.grantee, string_agg(a.privilege_type || coalesce(o.of_columns, ''), ', ' ORDER BY a.privilege_type) AS list,
              CASE WHEN bool_or(a.is_grantable) THEN ' WITH GRANT OPTION' ELSE '' END AS options
         FROM aclexplode(o.acl) a GROUP BY 1, 2) rights
  CROSS JOIN LATERAL (
       SELECT CASE rights.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(rights.grantee)) END AS name) grantee
  JOIN pg_roles g ON g.oid = rights.grantor
 WHERE rights.grantor <> o.owner AND g.rolname <> session_user
 ORDER BY 1, 2 LIMIT $1";

/// What others have preset for what they will create.
const PRESET: &str = "
SELECT u.rolname::text, format('%s of %s to %s', lower(words.kind), u.rolname, coalesce(who.name, 'nobody')), u.rolsuper,
       format('ALTER DEFAULT PRIVILEGES FOR ROLE %I%s %s', u.rolname,
              (SELECT format(' IN SCHEMA %I', n.nspname) FROM pg_namespace n WHERE n.oid = d.defaclnamespace),
              CASE WHEN who.name IS NULL THEN format('GRANT ALL ON %s TO PUBLIC', words.kind)
                   ELSE format('REVOKE ALL ON %s FROM %s', words.kind, who.name) END)
  FROM pg_default_acl d
  JOIN usable u ON u.oid = d.defaclrole AND NOT u.is_usable
  CROSS JOIN LATERAL (
       SELECT CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'ROUTINES' WHEN 'T' THEN 'TYPES'
                                   WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END AS kind) words
  LEFT JOIN LATERAL (
       SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS name
         FROM aclexplode(d.defaclacl) a WHERE a.grantee <> d.defaclrole) who ON true
 ORDER BY 1, 2 LIMIT $1";

/// What only a superuser creates. Aggregates are made of functions, which are looked at themselves, unless what they gather in
/// is the server's own. A class of operators goes with its family. `%settable%` tells which parameters the agent was given.
const SUPERUSERS: &str = "
, things AS (
SELECT 'pg_event_trigger'::regclass::oid AS classid, oid AS objid, 'DROP EVENT TRIGGER ' || quote_ident(evtname) AS statement
  FROM pg_event_trigger
UNION ALL
SELECT 'pg_publication'::regclass, w.oid,
       format('DROP PUBLICATION %1$I; CREATE PUBLICATION %1$I FOR TABLE ...; ALTER PUBLICATION %1$I OWNER TO %2$I', w.pubname,
              (SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()))
  FROM wide w
UNION ALL
SELECT 'pg_proc'::regclass, p.oid,
       CASE WHEN l.lanpltrusted THEN format('ALTER ROUTINE %s NOT LEAKPROOF', p.oid::regprocedure)
            ELSE format('DROP ROUTINE %s', p.oid::regprocedure) END
  FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
 WHERE (p.proleakproof OR NOT l.lanpltrusted) AND p.prokind <> 'a' AND p.oid NOT IN (SELECT oid FROM made_by_types)
UNION ALL
SELECT 'pg_proc'::regclass, oid, format('DROP ROUTINE %s', oid::regprocedure) FROM pg_proc p
 WHERE p.prosupport <> 0
    OR EXISTS (SELECT FROM pg_aggregate a WHERE a.aggfnoid = p.oid AND 'internal'::regtype IN (a.aggtranstype, a.aggmtranstype))
UNION ALL
SELECT 'pg_proc'::regclass, p.oid, format('ALTER ROUTINE %s RESET %s', p.oid::regprocedure, s.name)
  FROM pg_proc p CROSS JOIN LATERAL unnest(p.proconfig) set (assignment)
  JOIN pg_settings s ON lower(s.name) = lower(split_part(set.assignment, '=', 1))
 WHERE s.context = 'superuser' %settable%
UNION ALL
SELECT 'pg_opfamily'::regclass, f.oid, format('DROP OPERATOR FAMILY %s', i.identity)
  FROM pg_opfamily f, pg_identify_object('pg_opfamily'::regclass, f.oid, 0) i WHERE f.oid >= 16384
UNION ALL
SELECT 'pg_opclass'::regclass, c.oid, format('DROP OPERATOR CLASS %s', i.identity)
  FROM pg_opclass c, pg_identify_object('pg_opclass'::regclass, c.oid, 0) i
 WHERE c.oid >= 16384
   AND (c.opcfamily < 16384 OR EXISTS (SELECT FROM of_extensions e WHERE e.classid = 'pg_opfamily'::regclass AND e.objid = c.opcfamily))
UNION ALL
SELECT 'pg_cast'::regclass, oid, format('DROP CAST (%s AS %s)', castsource::regtype, casttarget::regtype)
  FROM pg_cast WHERE castmethod = 'b'
UNION ALL
SELECT 'pg_ts_parser'::regclass, p.oid, format('DROP TEXT SEARCH PARSER %s', i.identity)
  FROM pg_ts_parser p, pg_identify_object('pg_ts_parser'::regclass, p.oid, 0) i WHERE p.oid >= 16384
UNION ALL
SELECT 'pg_ts_template'::regclass, t.oid, format('DROP TEXT SEARCH TEMPLATE %s', i.identity)
  FROM pg_ts_template t, pg_identify_object('pg_ts_template'::regclass, t.oid, 0) i WHERE t.oid >= 16384
UNION ALL
SELECT 'pg_am'::regclass, oid, format('DROP ACCESS METHOD %I', amname) FROM pg_am
UNION ALL
SELECT 'pg_language'::regclass, oid, format('DROP LANGUAGE %I', lanname) FROM pg_language
UNION ALL
SELECT 'pg_foreign_data_wrapper'::regclass, oid, format('DROP FOREIGN DATA WRAPPER %I', fdwname) FROM pg_foreign_data_wrapper)
SELECT i.type || ' ' || i.identity, t.statement
  FROM things t, pg_identify_object(t.classid, t.objid, 0) i
 WHERE t.objid >= 16384 AND NOT EXISTS (SELECT FROM of_extensions e WHERE e.classid = t.classid AND e.objid = t.objid)
 ORDER BY 1 LIMIT $1";

/// What was granted on the server's own tables and functions: in a new database only a superuser may, and where the agent has
/// no right on them at all the server does not only warn.
const CATALOG: &str = "
, things AS (
SELECT 'pg_class'::regclass::oid AS classid, oid AS objid, relowner AS owner, relacl AS acl, 'TABLE' AS word,
       CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\" AS kind FROM pg_class WHERE relkind IN ('r', 'v')
UNION ALL SELECT 'pg_proc'::regclass, oid, proowner, proacl, 'ROUTINE', 'f' FROM pg_proc),
     new AS (
SELECT t.*, coalesce(i.initprivs, acldefault(t.kind, t.owner)) AS initial
  FROM things t LEFT JOIN pg_init_privs i ON i.classoid = t.classid AND i.objoid = t.objid AND i.objsubid = 0
 WHERE t.objid < 16384 AND t.acl IS NOT NULL)
SELECT i.type || ' ' || i.identity || ' to ' || a.grantee::regrole,
       format('REVOKE %s ON %s %s FROM %s', a.privilege_type, n.word, i.identity, a.grantee::regrole)
  FROM new n, aclexplode(n.acl) a, pg_identify_object(n.classid, n.objid, 0) i
 WHERE a.grantee <> 0
   AND NOT EXISTS (SELECT FROM aclexplode(n.initial) b WHERE (b.grantee, b.privilege_type) = (a.grantee, a.privilege_type))
   AND NOT EXISTS (SELECT FROM aclexplode(n.initial) b WHERE b.grantee = 0 OR pg_has_role(b.grantee, 'USAGE'))
 ORDER BY 1 LIMIT $1";

/// What a dump reads and the role may not: then there is no backup at all. A policy that hides rows from the owner hides them from
/// who acts as the owner. The hint is one statement.
const UNREADABLE: &str = "
, dumped AS (
SELECT c.oid, c.relkind, c.relowner, n.oid AS schema, n.nspname, format('%I.%I', n.nspname, c.relname) AS name, e.oid IS NOT NULL AS of_extension
  FROM pg_class c
  JOIN schemas n ON n.oid = c.relnamespace
  LEFT JOIN (SELECT unnest(extconfig) AS oid FROM pg_extension) e ON e.oid = c.oid
 WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
   AND (e.oid IS NOT NULL OR NOT EXISTS (SELECT FROM of_extensions x WHERE x.classid = 'pg_class'::regclass AND x.objid = c.oid)))
SELECT d.name, CASE WHEN NOT has_schema_privilege(d.schema, 'USAGE') THEN format('GRANT USAGE ON SCHEMA %I TO %I', d.nspname, current_user)
                    WHEN d.hidden THEN format('ALTER ROLE %I BYPASSRLS', current_user)
                    WHEN d.of_extension OR u.rolsuper THEN
                         format('GRANT SELECT ON %s %s TO %I', CASE d.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, d.name, current_user)
                    ELSE format('GRANT %I TO %I', u.rolname, current_user) END
  FROM (SELECT d.*, d.relkind <> 'S' AND row_security_active(d.oid) AS hidden FROM dumped d) d
  JOIN usable u ON u.oid = d.relowner
 WHERE d.hidden OR NOT has_schema_privilege(d.schema, 'USAGE')
    OR NOT CASE d.relkind WHEN 'S' THEN has_sequence_privilege(d.oid, 'SELECT') ELSE has_table_privilege(d.oid, 'SELECT') END
 ORDER BY 1 LIMIT $1";

/// Places on the server's disks that a new database would need and the role may not use.
const PLACES: &str = "
SELECT 'tablespace ' || quote_ident(s.spcname), format('GRANT CREATE ON TABLESPACE %I TO %I', s.spcname, current_user)
  FROM pg_tablespace s
 WHERE s.oid IN (SELECT reltablespace FROM pg_class WHERE relpersistence <> 't'
                 UNION SELECT dattablespace FROM pg_database WHERE datname = current_database())
   AND s.spcname NOT IN ('pg_default', 'pg_global') AND NOT has_tablespace_privilege(s.oid, 'CREATE')
 ORDER BY 1 LIMIT $1";

/// User mappings whose options, passwords among them, only a superuser sees: they are in no dump. Where the agent sees them it
/// sees that there are none.
const MAPPINGS: &str = "
SELECT format('user mapping of %s for %s', m.usename, m.srvname),
       format('ALTER USER MAPPING FOR %s SERVER %I OPTIONS (...)',
              CASE m.umuser WHEN 0 THEN 'PUBLIC' ELSE quote_ident(m.usename) END, m.srvname)
  FROM pg_user_mappings m JOIN pg_foreign_server s ON s.oid = m.srvid
 WHERE m.umoptions IS NULL
   AND NOT (pg_has_role(s.srvowner, 'USAGE') AND (m.umuser = 0 OR m.usename = current_user)
            OR m.usename = current_user AND has_server_privilege(m.srvid, 'USAGE'))
 ORDER BY 1 LIMIT $1";

/// What the application has named by itself and set for the database: a role sets it for a copy only if it was given it by its
/// name, which servers let since version 15.
const SETTINGS: &str = "
SELECT s.name, format('GRANT SET ON PARAMETER %s TO %I',
                      (SELECT string_agg(quote_ident(part), '.') FROM unnest(string_to_array(s.name, '.')) part), current_user)
  FROM (SELECT DISTINCT split_part(assignment, '=', 1) AS name
          FROM pg_db_role_setting, unnest(setconfig) assignment
         WHERE setrole = 0 AND setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())) s
 WHERE s.name LIKE '%.%' AND NOT EXISTS (SELECT FROM pg_settings k WHERE lower(k.name) = lower(s.name)) %settable%
 ORDER BY 1 LIMIT $1";

/// Looks at the live database as the agent's role. A superuser restores everything.
pub(crate) async fn look(settings: &Settings) -> Result<Vec<Finding>, Problem> {
    let live = Session::open(settings, &settings.name, "preflight").await?;
    let asked = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user";
    let row = live.client().query_one(asked, &[]).await;
    let row = row.map_err(|error| refused("ask who the agent is to the server", &error))?;
    if field(&row, 0)? {
        return Ok(Vec::new());
    }
    let mut findings = unreadable(settings, &live).await?;
    findings.extend(owned(settings, &live).await?);
    findings.extend(granted(settings, &live).await?);
    findings.extend(preset(settings, &live).await?);
    findings.extend(superusers(settings, &live).await?);
    findings.extend(catalog(settings, &live).await?);
    findings.extend(places(settings, &live).await?);
    findings.extend(mappings(&live).await?);
    findings.extend(own_settings(settings, &live).await?);
    if findings.is_empty() {
        findings.push(Finding::fine(CHECK, format!("`{}` can create all of it", settings.user)));
    }
    Ok(findings)
}

/// A thing, and the statement that ends what is in the way with it.
struct Thing {
    name: String,
    statement: String,
}

/// Things of each role.
type OfRoles = BTreeMap<String, Vec<Thing>>;

async fn owned(settings: &Settings, live: &Session) -> Result<Vec<Finding>, Problem> {
    // Of roles for which membership is enough, and of others.
    let (mut grant, mut change) = (OfRoles::new(), OfRoles::new());
    let (mut schemas, given) = (Vec::new(), given(settings, live).await?);
    let rows = live.client().query(&format!("{COMMON}{OWNED}"), &[&MOST, &given]).await;
    for row in rows.map_err(|error| unseen(&error))? {
        let (role, must_change): (String, bool) = (field(&row, 0)?, field(&row, 2)?);
        if field(&row, 5)? {
            schemas.push(role.clone());
        }
        let thing = Thing { name: field(&row, 1)?, statement: field(&row, 4)? };
        let of_roles = if must_change { &mut change } else { &mut grant };
        of_roles.entry(role).or_default().push(thing);
    }
    let user = &settings.user;
    let by_grant = grant.iter().map(|(role, things)| {
        let found = format!("`{user}` could not give to `{role}` what is `{role}`'s: {}", named(things));
        let grant = format!("GRANT {} TO {}", quoted(role), quoted(user));
        unrestorable(found, format!("as a superuser: `{grant};`"))
    });
    let by_change = change.iter().map(|(role, things)| {
        let found = format!(
            "`{user}` could not give to `{role}` what is `{role}`'s, nor could `{role}` have made it in a new database: {}",
            named(things)
        );
        let or = match schemas.contains(role) {
            true => "; or `database-role.sql` once more, which takes schemas of superusers over into the template",
            false => "",
        };
        unrestorable(found, format!("{}{or}", statements(settings, things)))
    });
    Ok(by_grant.chain(by_change).collect())
}

/// Schemas of superusers that restores find in the template as they are.
async fn given(settings: &Settings, live: &Session) -> Result<Vec<u32>, Problem> {
    let template = template_of(settings);
    if Shape::ask(live.client(), &template).await?.is_none() {
        return Ok(Vec::new());
    }
    let template = Session::open(settings, &template, "preflight").await?;
    foreign::schemas_given(live, &template).await
}

async fn granted(settings: &Settings, live: &Session) -> Result<Vec<Finding>, Problem> {
    let mut of_roles = OfRoles::new();
    for row in ask(live, GRANTED).await? {
        let thing = Thing { name: field(&row, 1)?, statement: field(&row, 2)? };
        of_roles.entry(field(&row, 0)?).or_default().push(thing);
    }
    let found = of_roles.iter().map(|(role, things)| {
        let found = format!(
            "`{}` could not grant in the name of `{role}`, who is not the owner: {}",
            settings.user,
            named(things)
        );
        unrestorable(found, format!("{}: the owner grants it then", statements(settings, things)))
    });
    Ok(found.collect())
}

async fn preset(settings: &Settings, live: &Session) -> Result<Vec<Finding>, Problem> {
    let (mut of_roles, mut superusers) = (OfRoles::new(), Vec::new());
    for row in ask(live, PRESET).await? {
        let (role, superuser): (String, bool) = (field(&row, 0)?, field(&row, 2)?);
        let thing = Thing { name: field(&row, 1)?, statement: field(&row, 3)? };
        if superuser {
            superusers.push(role.clone());
        }
        of_roles.entry(role).or_default().push(thing);
    }
    let user = &settings.user;
    let found = of_roles.iter().map(|(role, things)| {
        let found = format!("`{user}` could not preset rights in the name of `{role}`: {}", named(things));
        let revoke = statements(settings, things);
        let hint = match superusers.contains(role) {
            true => format!("{revoke}; the same `FOR ROLE` who makes the tables presets them"),
            false => {
                let grant = format!("GRANT {} TO {}", quoted(role), quoted(user));
                format!("as a superuser: `{grant};`, or {revoke}")
            }
        };
        unrestorable(found, hint)
    });
    Ok(found.collect())
}

async fn superusers(settings: &Settings, live: &Session) -> Result<Vec<Finding>, Problem> {
    let things = things(live, &settable(live, SUPERUSERS).await?).await?;
    if things.is_empty() {
        return Ok(Vec::new());
    }
    let found = format!("only a superuser could create this in a new database: {}", named(&things));
    let hint = format!(
        "{}; or put it into an extension and run `database-role.sql` again; or let the agent work as a superuser, \
         `allow_superuser = true`",
        statements(settings, &things)
    );
    Ok(vec![unrestorable(found, hint)])
}

async fn own_settings(settings: &Settings, live: &Session) -> Result<Option<Finding>, Problem> {
    let things = things(live, &settable(live, SETTINGS).await?).await?;
    if things.is_empty() {
        return Ok(None);
    }
    let found = format!(
        "what is set for the database as {} a copy of it lacks, so that nothing can be loaded that reads it",
        named(&things)
    );
    let hint = match Server::ask(live).await?.major() {
        GRANTED_FROM.. => {
            format!("{}; `database-role.sql` once more gives it too", statements(settings, &things))
        }
        _ => format!(
            "give it to the role that the application works as: `ALTER ROLE … IN DATABASE {} SET …`, and read it with \
             `current_setting(…, true)`",
            quoted(&settings.name)
        ),
    };
    Ok(Some(Finding::warning(CHECK, found, hint)))
}

/// A question that asks which parameters the agent may set, as this server understands it.
async fn settable(live: &Session, question: &str) -> Result<String, Problem> {
    let condition = match Server::ask(live).await?.major() {
        GRANTED_FROM.. => "AND NOT has_parameter_privilege(s.name, 'SET')",
        _ => "",
    };
    Ok(question.replace("%settable%", condition))
}

/// Things, each with its statement.
async fn things(live: &Session, what: &str) -> Result<Vec<Thing>, Problem> {
    let rows = ask(live, what).await?;
    rows.iter().map(|row| Ok(Thing { name: field(row, 0)?, statement: field(row, 1)? })).collect()
}

async fn unreadable(settings: &Settings, live: &Session) -> Result<Vec<Finding>, Problem> {
    let things = things(live, UNREADABLE).await?;
    if things.is_empty() {
        return Ok(Vec::new());
    }
    let found =
        format!("`{}` cannot read all of it, so no backup can be taken: {}", settings.user, named(&things));
    Ok(vec![Finding::refused(CHECK, found, statements(settings, &things))])
}

async fn places(settings: &Settings, live: &Session) -> Result<Vec<Finding>, Problem> {
    let things = things(live, PLACES).await?;
    if things.is_empty() {
        return Ok(Vec::new());
    }
    let found =
        format!("`{}` could not put a new database where this one is: {}", settings.user, named(&things));
    Ok(vec![unrestorable(found, statements(settings, &things))])
}

async fn mappings(live: &Session) -> Result<Vec<Finding>, Problem> {
    let things = things(live, MAPPINGS).await?;
    if things.is_empty() {
        return Ok(Vec::new());
    }
    let found = format!(
        "what only a superuser sees is in no backup, passwords among it: options, if there are any, of the {}",
        named(&things)
    );
    let hint = "note them; after a restore and before its swap: `ALTER USER MAPPING …` in the restored database, which a restore names";
    Ok(vec![Finding::warning(CHECK, found, hint)])
}

/// Statements that give a restored database what is in no dump of this one, as far as they are known: a person completes them.
pub(crate) async fn to_be_set_by_hand(settings: &Settings) -> Result<Vec<String>, Problem> {
    let live = Session::open(settings, &settings.name, "restore").await?;
    Ok(things(&live, MAPPINGS).await?.into_iter().map(|thing| thing.statement).collect())
}

async fn catalog(settings: &Settings, live: &Session) -> Result<Vec<Finding>, Problem> {
    let things = things(live, CATALOG).await?;
    if things.is_empty() {
        return Ok(Vec::new());
    }
    let found = format!("only a superuser could grant this on what is the server's own: {}", named(&things));
    let hint = format!(
        "{}; roles such as `pg_monitor` have such rights in all databases",
        statements(settings, &things)
    );
    Ok(vec![unrestorable(found, hint)])
}

async fn ask(live: &Session, what: &str) -> Result<Vec<tokio_postgres::Row>, Problem> {
    let rows = live.client().query(&format!("{COMMON}{what}"), &[&MOST]).await;
    rows.map_err(|error| unseen(&error))
}

fn unseen(error: &tokio_postgres::Error) -> Problem {
    refused("look what the role could not restore", error)
}

fn unrestorable(found: String, hint: String) -> Finding {
    Finding::unrestorable(CHECK, found, hint)
}

fn named(things: &[Thing]) -> String {
    let names: Vec<&str> = things.iter().take(NAMED).map(|thing| thing.name.as_str()).collect();
    match things.len().saturating_sub(NAMED) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

fn statements(settings: &Settings, things: &[Thing]) -> String {
    let mut all: Vec<&str> = Vec::new();
    for thing in things.iter().take(NAMED) {
        if !all.contains(&thing.statement.as_str()) {
            all.push(&thing.statement);
        }
    }
    let rest = match things.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {} like it", several(more, "statement", "statements")),
    };
    format!("in `{}`, as a superuser: `{};`{rest}", settings.name, all.join("; "))
}
