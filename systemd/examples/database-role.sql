-- The role that pointsman's agent works as on the database host: it may dump, migrate and restore one database, and is
-- no superuser. Run it once as a superuser, again whenever extensions were added to the database or dropped in it:
--
--   su postgres -c 'psql -X -v ON_ERROR_STOP=1 -v database=p2d2 -v owner=p2d2 -v role=pointsman-agent -d postgres' \
--     < database-role.sql
--
-- With peer authentication the role is called as the agent's user, `pointsman-agent`; otherwise give it a password and put
-- that into the file that `password_file` names:  \password pointsman-agent
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
    USING HINT = 'give it, and what is in it, to a role of the application: ALTER DATABASE … OWNER TO …';
END $$;
\endif

-- Log in, create databases (a restore is a new one), nothing else of its own.
SELECT format('CREATE ROLE %I LOGIN CREATEDB NOSUPERUSER NOCREATEROLE', :'role')
 WHERE NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = :'role') \gexec
ALTER ROLE :"role" LOGIN CREATEDB;

-- What the server says is told, and some of it is read: in another language nobody would know a full disk.
ALTER ROLE :"role" SET lc_messages = 'C';

-- What the owner may: dump everything, change tables, give a restored database to its owner.
GRANT :"owner" TO :"role";
-- Sessions must end before databases are swapped; locks and their holders must be seen; where the data are must be
-- known to tell whether a copy fits.
GRANT pg_signal_backend, pg_read_all_stats, pg_read_all_settings TO :"role";

-- Extensions such as PostGIS can only be created by a superuser. Restores begin from this database, which holds those
-- of the live one and nothing else. It stores and sorts texts as the live one does: one that does not is made anew. What
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
SELECT current_setting('server_version_num')::int >= 150000 AS collations_have_versions \gset
\if :collations_have_versions
SELECT format('ALTER DATABASE %I REFRESH COLLATION VERSION', datname)
  FROM pg_database
 WHERE datname = :'template' AND datcollversion <> pg_database_collation_actual_version(oid) \gexec
\endif

\connect :"database"
:plainly
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
 WHERE e.extname <> 'plpgsql' AND NOT EXISTS (
       SELECT 1 FROM pg_available_extension_versions v
        WHERE v.name = e.extname AND v.version = e.extversion AND (v.trusted OR NOT v.superuser)) \gset
SELECT array_agg(format('%I.%I', n.nspname, e.extname))::text AS here, array_agg(format('%I %s', e.extname, e.extversion))::text AS versions
  FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace \gset
SELECT array_agg(nspname)::text AS schemas_here FROM pg_namespace \gset

\connect :"template"
:plainly
-- What was dropped in the live one would be in every copy, which then is none; what was put into another schema there, in the
-- wrong one. What is of another version is made anew where it cannot be updated to that of the live one; what a restore can
-- create by itself it creates.
SELECT format('DROP EXTENSION IF EXISTS %I CASCADE', e.extname)
  FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
 WHERE format('%I.%I', n.nspname, e.extname) <> ALL (:'here'::text[])
    OR format('%I %s', e.extname, e.extversion) <> ALL (:'versions'::text[]) AND e.extname <> 'plpgsql'
       AND (EXISTS (SELECT 1 FROM pg_available_extension_versions v WHERE v.name = e.extname AND (v.trusted OR NOT v.superuser))
            OR NOT EXISTS (SELECT 1 FROM pg_extension_update_paths(e.extname) p
                            WHERE p.source = e.extversion AND p.path IS NOT NULL AND format('%I %s', e.extname, p.target) = ANY (:'versions'::text[]))) \gexec
SELECT format('DROP SCHEMA %I', n.nspname)
  FROM pg_namespace n
 WHERE n.nspname <> ALL (:'schemas_here'::name[]) AND n.nspname !~ '^pg_' AND n.nspname <> 'public'
   AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid) \gexec
\if :{?schemas}
SELECT :'schemas' \gexec
\endif
\if :{?extensions}
SELECT :'extensions' \gexec
\endif
\if :{?wrappers}
SELECT :'wrappers' \gexec
\endif
-- Rows that people added to an extension's own tables (spatial reference systems) are in a dump too, and are counted in a copy.
SELECT DISTINCT format('GRANT USAGE ON SCHEMA %I TO %I', n.nspname, :'role')
  FROM pg_extension e, unnest(e.extconfig) AS config JOIN pg_class c ON c.oid = config JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE NOT has_schema_privilege(:'role', n.oid, 'USAGE') \gexec
SELECT format('GRANT %s ON %s TO %I', CASE c.relkind WHEN 'S' THEN 'SELECT, UPDATE' ELSE 'SELECT, INSERT' END, c.oid::regclass, :'role')
  FROM pg_extension e, unnest(e.extconfig) AS config JOIN pg_class c ON c.oid = config
 WHERE c.relkind IN ('r', 'p', 'S') \gexec
