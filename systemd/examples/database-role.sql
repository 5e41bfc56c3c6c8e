-- The role that pointsman's agent works as on the database host: it may dump, migrate and restore one database, and is
-- no superuser. Run it once as a superuser, again whenever extensions or a superuser's schemas were added to the database or
-- dropped in it, or rights on them were changed:
--
--   su postgres -c 'psql -X -v ON_ERROR_STOP=1 -v database=p2d2 -v owner=p2d2 -v role=pointsman-agent -d postgres' \
--     < database-role.sql
--
-- With peer authentication the role is called as the agent's user, `pointsman-agent`; otherwise give it a password and put
-- that into the file that `password_file` names:  \password pointsman-agent
--
-- Where the database is gone, or the server is a new one: make an empty database of its name and owner, then this with
-- `-v manifest=FILE`, a copy of the `.manifest.json` beside the backup that `postgres` may read: which extensions the backup
-- needs is in there.
\set QUIET on
-- Settings of the server and of its databases must not end this half-way, nor change how names are printed.
\set plainly 'SET statement_timeout = 0; DO $$ BEGIN PERFORM set_config(name, $z$0$z$, false) FROM pg_settings WHERE name = $z$transaction_timeout$z$; END $$; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET quote_all_identifiers = off; SET standard_conforming_strings = on; SET default_transaction_read_only = off;'
:plainly
\set template pointsman_template_ :database

-- Who may become a superuser is one: what runs as the database's owner would be.
SELECT coalesce(bool_or(rolsuper), false) AS owner_is_superuser FROM pg_roles WHERE rolname = :'owner' \gset
\if :owner_is_superuser
DO $$ BEGIN
  RAISE EXCEPTION 'the database belongs to a superuser'
    USING HINT = 'give it, and what is in it, to a role of the application: ALTER DATABASE ... OWNER TO ...';
END $$;
\endif

-- Log in, create databases (a restore is a new one), nothing else of its own.
SELECT format('CREATE ROLE %I LOGIN CREATEDB NOSUPERUSER NOCREATEROLE', :'role')
 WHERE NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = :'role') \gexec
ALTER ROLE :"role" LOGIN CREATEDB;
-- Where not everybody may connect to it: the agent works from there while databases are made and renamed.
SELECT format('GRANT CONNECT ON DATABASE postgres TO %I', :'role')
 WHERE EXISTS (SELECT 1 FROM pg_database d WHERE d.datname = 'postgres' AND NOT has_database_privilege(:'role', d.oid, 'CONNECT')) \gexec

-- What the server says is told, and some of it is read: in another language nobody would know a full disk.
ALTER ROLE :"role" SET lc_messages = 'C';

-- What the owner may: dump everything, change tables, give a restored database to its owner.
GRANT :"owner" TO :"role";
-- Sessions must end before databases are swapped; locks and their holders must be seen; where the data are must be
-- known to tell whether a copy fits.
GRANT pg_signal_backend, pg_read_all_stats, pg_read_all_settings TO :"role";

-- Extensions such as PostGIS can only be created by a superuser, and what a superuser created only he owns: made by a restore, it
-- would be the restore's, and nobody's rights on it there. Restores begin from this database, which holds those
-- of the live one, the schemas that are a superuser's, and nothing else. It stores and sorts texts as the live one does: one that does not is made anew. What
-- only some versions of the server have is read by name: who sorts is said since 15.
CREATE TEMPORARY VIEW sorting AS
SELECT datname, pg_encoding_to_char(encoding) AS encoding, datcollate, datctype, j ->> 'datlocprovider' AS provider,
       coalesce(j ->> 'datlocale', j ->> 'daticulocale') AS locale, j ->> 'daticurules' AS rules
  FROM pg_database d, to_jsonb(d) AS j;

SELECT EXISTS (
       SELECT 1 FROM sorting t, sorting l
        WHERE t.datname = :'template' AND l.datname = :'database'
          AND (t.encoding, t.datcollate, t.datctype, t.provider, t.locale, t.rules) IS DISTINCT FROM
              (l.encoding, l.datcollate, l.datctype, l.provider, l.locale, l.rules)) AS unlike \gset
\if :unlike
\warn :template stores or sorts texts otherwise than :database and is made anew.
DROP DATABASE :"template";
\endif

SELECT format('CREATE DATABASE %I OWNER %I TEMPLATE template0 ENCODING %L LC_COLLATE %L LC_CTYPE %L', :'template', :'role',
              encoding, datcollate, datctype) ||
       CASE provider WHEN 'c' THEN ' LOCALE_PROVIDER libc'
                     WHEN 'i' THEN format(' LOCALE_PROVIDER icu ICU_LOCALE %L', locale) || coalesce(' ICU_RULES ' || quote_literal(rules), '')
                     WHEN 'b' THEN format(' LOCALE_PROVIDER builtin BUILTIN_LOCALE %L', locale)
                     ELSE '' END
  FROM sorting
 WHERE datname = :'database' AND NOT EXISTS (SELECT 1 FROM pg_database WHERE datname = :'template') \gexec
DROP VIEW sorting;

ALTER DATABASE :"template" OWNER TO :"role";

-- After an upgrade of the system the server lets no database begin from one that was made with an older collation. This
-- one holds no texts whose order could be wrong.
SELECT current_setting('server_version_num')::int >= 150000 AS is_15_or_later \gset
\if :is_15_or_later
SELECT format('ALTER DATABASE %I REFRESH COLLATION VERSION', datname)
  FROM pg_database
 WHERE datname = :'template' AND datcollversion <> pg_database_collation_actual_version(oid) \gexec
\endif

\connect :"database"
:plainly
-- A copy gets what is set for the database before it is loaded, and a restored one keeps it. What the application has named by
-- itself only a superuser sets for a database, or who was given it by its name.
SELECT NOT EXISTS (
       SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
          AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('e', 'i'))) AS is_bare \gset
-- In the place of a database that is gone there is a new one with nothing in it: it gets the extensions that its backup names.
\if :is_bare
\if :{?manifest}
\set backed_up `cat :'manifest'`
SELECT coalesce((SELECT setconfig FROM pg_db_role_setting
                  WHERE setrole = 0 AND setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())), '{}')::text AS set_before \gset
SELECT format('CREATE SCHEMA IF NOT EXISTS %I', h.value ->> 'schema') ||
       CASE WHEN r.rolname IS NULL THEN '' ELSE format(' AUTHORIZATION %I', r.rolname) END
  FROM json_each(:'backed_up'::json #> '{contents,homes}') h LEFT JOIN pg_roles r ON r.rolname = h.value ->> 'schema_owner'
 WHERE h.value ->> 'schema_owner' IS NOT NULL AND h.value ->> 'schema' !~ '^pg_' AND h.value ->> 'schema' <> 'public' \gexec
SELECT format('CREATE EXTENSION IF NOT EXISTS %I WITH SCHEMA %I CASCADE', h.key, h.value ->> 'schema')
  FROM json_each(:'backed_up'::json #> '{contents,homes}') h LEFT JOIN pg_roles r ON r.rolname = h.value ->> 'owner'
 WHERE coalesce(r.rolsuper, true)
    OR NOT EXISTS (SELECT 1 FROM pg_available_extension_versions v WHERE v.name = h.key AND (v.trusted OR NOT v.superuser)) \gexec
-- What an extension sets for the database that it is created in (`postgis_topology` a search path) is not what was set for the
-- one that is gone: a restore takes that from the manifest.
SELECT CASE WHEN b.name IS NULL THEN format('ALTER DATABASE %I RESET %s', current_database(), n.quoted)
            ELSE format('DO %L', format('BEGIN PERFORM set_config(%L, %L, true); ALTER DATABASE %I SET %s FROM CURRENT; END',
                                        b.name, b.value, current_database(), n.quoted)) END
  FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) AS assignment
 CROSS JOIN LATERAL (SELECT split_part(assignment, '=', 1) AS name,
                            (SELECT string_agg(quote_ident(part), '.') FROM unnest(string_to_array(split_part(assignment, '=', 1), '.')) part) AS quoted) n
  LEFT JOIN (SELECT split_part(one, '=', 1) AS name, substr(one, strpos(one, '=') + 1) AS value FROM unnest(:'set_before'::text[]) one) b
         ON b.name = n.name
 WHERE s.setrole = 0 AND s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND assignment <> ALL (:'set_before'::text[]) \gexec
\endif
\endif

\if :is_15_or_later
SELECT format('GRANT SET ON PARAMETER %s TO %I',
              (SELECT string_agg(quote_ident(part), '.') FROM unnest(string_to_array(s.name, '.')) part), :'role')
  FROM (SELECT DISTINCT split_part(assignment, '=', 1) AS name
          FROM pg_db_role_setting, unnest(setconfig) assignment
         WHERE setrole = 0 AND setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())) s
 WHERE s.name LIKE '%.%' AND s.name !~ '^pl(perl|python|tcl)' AND NOT has_parameter_privilege(:'role', s.name, 'SET')
   AND NOT EXISTS (SELECT 1 FROM pg_settings k WHERE lower(k.name) = lower(s.name)) \gexec
\endif
-- What an extension says of its own tables that people fill is in a dump: the role must be able to read it.
SELECT DISTINCT format('GRANT USAGE ON SCHEMA %I TO %I', n.nspname, :'role')
  FROM pg_extension e, unnest(e.extconfig) AS config JOIN pg_class c ON c.oid = config JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE NOT has_schema_privilege(:'role', n.oid, 'USAGE') \gexec
SELECT format('GRANT SELECT ON %s TO %I', c.oid::regclass, :'role')
  FROM pg_extension e, unnest(e.extconfig) AS config JOIN pg_class c ON c.oid = config
 WHERE NOT has_table_privilege(:'role', c.oid, 'SELECT') \gexec

SELECT string_agg(DISTINCT format('GRANT USAGE ON FOREIGN DATA WRAPPER %I TO %I, %I', w.fdwname, :'role', pg_get_userbyid(s.srvowner)),
                  '; ') AS wrappers
  FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
  JOIN pg_depend d ON d.classid = 'pg_foreign_data_wrapper'::regclass AND d.objid = w.oid AND d.deptype = 'e' \gset

SELECT string_agg(format('ALTER EXTENSION %I UPDATE;', extname), ' ') AS outdated
  FROM pg_extension e
 WHERE extname <> 'plpgsql'
   AND NOT EXISTS (SELECT 1 FROM pg_available_extension_versions v WHERE v.name = e.extname AND v.version = e.extversion) \gset
\if :{?outdated}
\warn :database has extensions in versions that the server has no files of any more. In it, :outdated and then this script again.
\endif
SELECT string_agg(format('CREATE SCHEMA IF NOT EXISTS %I', n.nspname) ||
                  CASE WHEN n.nspname = 'public' OR o.rolsuper OR EXISTS (
                            SELECT 1 FROM pg_depend d
                             WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e') THEN ''
                       ELSE format('; ALTER SCHEMA %I OWNER TO %I', n.nspname, o.rolname) END, '; ') FILTER (WHERE n.nspname !~ '^pg_') AS schemas,
       string_agg(format('CREATE EXTENSION IF NOT EXISTS %I WITH SCHEMA %I', e.extname, n.nspname) ||
                  CASE WHEN EXISTS (SELECT 1 FROM pg_available_extension_versions v WHERE v.name = e.extname AND v.version = e.extversion)
                       THEN format(' VERSION %2$L CASCADE; ALTER EXTENSION %1$I UPDATE TO %2$L', e.extname, e.extversion)
                       ELSE ' CASCADE' END, '; ' ORDER BY e.oid) AS extensions
  FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace JOIN pg_roles o ON o.oid = n.nspowner
  JOIN pg_roles x ON x.oid = e.extowner
 WHERE e.extname <> 'plpgsql' AND (x.rolsuper OR NOT EXISTS (
       SELECT 1 FROM pg_available_extension_versions v
        WHERE v.name = e.extname AND v.version = e.extversion AND (v.trusted OR NOT v.superuser))) \gset
SELECT string_agg(format('CREATE SCHEMA IF NOT EXISTS %I', n.nspname), '; ') FILTER (WHERE n.nspname <> 'public') AS superusers,
       string_agg(format('COMMENT ON SCHEMA %I IS %L', n.nspname, obj_description(n.oid, 'pg_namespace')), '; ') AS comments
  FROM pg_namespace n JOIN pg_roles o ON o.oid = n.nspowner
 WHERE o.rolsuper AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND NOT EXISTS (
       SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e') \gset

-- Whose what extensions made is, and a superuser's schemas, and who may do what with them: a restore, which is no superuser,
-- could not give it, so that it stands in what restores begin from. Before version 15 nobody but a superuser owns a new `public`.
SELECT $rights$
SELECT t.word, i.identity,
       CASE WHEN NOT t.made AND (o.rolsuper OR t.is_public AND t.kept) THEN quote_ident(o.rolname) WHEN t.is_public THEN 'pg_database_owner'
            WHEN NOT o.rolsuper THEN quote_ident(o.rolname) END AS owner,
       r.privilege, r.grantee, r.grantable
  FROM (SELECT t.*, d.objid IS NOT NULL AS made, t.word = 'SCHEMA' AND t.name = 'public' AS is_public,
               current_setting('server_version_num')::int < 150000 AS kept
          FROM (SELECT 'ROUTINE' AS word, 'pg_proc'::regclass::oid AS classid, oid, proname AS name, proowner AS owned_by, proacl AS acl,
                       'f'::"char" AS kind FROM pg_proc
                UNION ALL
                SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, 'pg_class'::regclass, oid, relname, relowner, relacl,
                       CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char" FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
                UNION ALL SELECT 'TYPE', 'pg_type'::regclass, oid, typname, typowner, typacl, 'T' FROM pg_type
                UNION ALL SELECT 'SCHEMA', 'pg_namespace'::regclass, oid, nspname, nspowner, nspacl, 'n' FROM pg_namespace) t
          LEFT JOIN pg_depend d ON d.classid = t.classid AND d.objid = t.oid AND d.deptype = 'e') t
  JOIN pg_roles o ON o.oid = t.owned_by
  LEFT JOIN pg_init_privs p ON p.classoid = t.classid AND p.objoid = t.oid AND p.objsubid = 0
 CROSS JOIN LATERAL pg_identify_object(t.classid, t.oid, 0) i
  LEFT JOIN LATERAL (
       SELECT a.privilege_type AS privilege, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(g.rolname) END AS grantee,
              a.is_grantable AS grantable
         FROM aclexplode(coalesce(CASE WHEN t.is_public AND NOT t.kept AND NOT o.rolsuper THEN p.initprivs ELSE t.acl END,
                                  acldefault(t.kind, t.owned_by))) a
         LEFT JOIN pg_roles g ON g.oid = a.grantee
        WHERE a.grantee = 0 OR NOT g.rolsuper AND g.rolname <> 'pg_database_owner') r ON true
 WHERE t.made OR t.is_public
    OR t.word = 'SCHEMA' AND o.rolsuper AND t.name !~ '^pg_' AND t.name <> 'information_schema'
$rights$ AS rights \gset
SELECT json_agg(r)::text AS wanted FROM (:rights) r \gset

SELECT array_agg(format('%I.%I', n.nspname, e.extname))::text AS here, array_agg(format('%I %s', e.extname, e.extversion))::text AS versions
  FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace \gset
SELECT array_agg(nspname)::text AS schemas_here FROM pg_namespace \gset
SELECT coalesce(array_agg(e.extname), '{}')::text AS of_others
  FROM pg_extension e JOIN pg_roles o ON o.oid = e.extowner
 WHERE NOT o.rolsuper AND EXISTS (SELECT 1 FROM pg_available_extension_versions v WHERE v.name = e.extname AND (v.trusted OR NOT v.superuser)) \gset

\connect :"template"
:plainly
-- What was dropped in the live one would be in every copy, which then is none; what was put into another schema there, in the
-- wrong one. What is of another version is made anew where it cannot be updated to that of the live one; what is no superuser's
-- any more, and no other one's that is here needs, a restore creates as whose it is.
-- A new database in the place of one that is gone tells nothing of what was dropped.
\if :is_bare
\else
SELECT format('DROP EXTENSION IF EXISTS %I CASCADE', e.extname)
  FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
 WHERE format('%I.%I', n.nspname, e.extname) <> ALL (:'here'::text[])
    OR format('%I %s', e.extname, e.extversion) <> ALL (:'versions'::text[]) AND e.extname <> 'plpgsql'
       AND (EXISTS (SELECT 1 FROM pg_available_extension_versions v WHERE v.name = e.extname AND (v.trusted OR NOT v.superuser))
            OR NOT EXISTS (SELECT 1 FROM pg_extension_update_paths(e.extname) p
                            WHERE p.source = e.extversion AND p.path IS NOT NULL AND format('%I %s', e.extname, p.target) = ANY (:'versions'::text[])))
    OR e.extname = ANY (:'of_others'::name[])
       AND NOT EXISTS (SELECT 1 FROM pg_depend d
                        WHERE d.classid = 'pg_extension'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid) \gexec
SELECT format('DROP SCHEMA %I', n.nspname)
  FROM pg_namespace n
 WHERE n.nspname <> ALL (:'schemas_here'::name[]) AND n.nspname !~ '^pg_' AND n.nspname <> 'public'
   AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid) \gexec
\endif
\if :{?schemas}
SELECT :'schemas' \gexec
\endif
\if :{?superusers}
SELECT :'superusers' \gexec
\endif
\if :{?extensions}
SELECT :'extensions' \gexec
\endif
\if :{?wrappers}
SELECT :'wrappers' \gexec
\endif
\if :{?comments}
SELECT :'comments' \gexec
\endif
CREATE TEMPORARY TABLE wanted AS
SELECT * FROM json_to_recordset(:'wanted') AS r (word text, identity text, owner text, privilege text, grantee text, grantable boolean);
-- A sequence goes with its table.
SELECT DISTINCT format('ALTER %s %s OWNER TO %s', w.word, w.identity, coalesce(w.owner, quote_ident(current_user)))
  FROM wanted w JOIN (:rights) h USING (word, identity)
 WHERE w.owner IS DISTINCT FROM h.owner AND w.word <> 'SEQUENCE' \gexec
SELECT format('REVOKE %s ON %s %s FROM %s', h.privilege, h.word, h.identity, h.grantee)
  FROM (:rights) h
 WHERE h.privilege IS NOT NULL AND h.grantee <> quote_ident(:'role') AND (h.word, h.identity) IN (SELECT word, identity FROM wanted)
   AND NOT EXISTS (SELECT 1 FROM wanted w
                    WHERE (w.word, w.identity, w.privilege, w.grantee, w.grantable) = (h.word, h.identity, h.privilege, h.grantee, h.grantable)) \gexec
SELECT format('GRANT %s ON %s %s TO %s', w.privilege, w.word, w.identity, w.grantee) || CASE WHEN w.grantable THEN ' WITH GRANT OPTION' ELSE '' END
  FROM wanted w JOIN (SELECT DISTINCT word, identity FROM (:rights) r) h USING (word, identity)
 WHERE w.privilege IS NOT NULL
   AND NOT EXISTS (SELECT 1 FROM (:rights) h
                    WHERE (w.word, w.identity, w.privilege, w.grantee, w.grantable) = (h.word, h.identity, h.privilege, h.grantee, h.grantable)) \gexec
DROP TABLE wanted;
-- Rows that people added to an extension's own tables (spatial reference systems) are in a dump too, and are counted in a copy.
SELECT DISTINCT format('GRANT USAGE ON SCHEMA %I TO %I', n.nspname, :'role')
  FROM pg_extension e, unnest(e.extconfig) AS config JOIN pg_class c ON c.oid = config JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE NOT has_schema_privilege(:'role', n.oid, 'USAGE') \gexec
SELECT format('GRANT %s ON %s TO %I', CASE c.relkind WHEN 'S' THEN 'SELECT, UPDATE' ELSE 'SELECT, INSERT' END, c.oid::regclass, :'role')
  FROM pg_extension e, unnest(e.extconfig) AS config JOIN pg_class c ON c.oid = config
 WHERE c.relkind IN ('r', 'p', 'S') \gexec
