//! Keeps a rehearsal from writing to other databases. A copy has the foreign servers of the live one and what opens them: a row
//! that goes through one is written for real, by the rehearsal and once more by the run that follows. Reading stays possible.
//!
//! A trigger of each foreign table refuses its rows, whoever writes them: the file itself, a trigger, a function, a partitioned
//! table above it. Servers that only functions use, as those of `dblink` are, are closed: what a function asks there nobody can
//! tell from a write. A connection that a file opens by a text of its own cannot be kept off.

use pointsman_core::Problem;
use tokio_postgres::error::SqlState;

use super::fault::{Fault, Refusal};
use crate::Session;

/// What the refusal comes as. No server has errors of this class.
const STATE: &str = "PM330";

/// Begins transactions that are taken back whatever happens: rows for other databases are passed over in them in silence.
pub(crate) const PASS_OVER: &str = "SET LOCAL pointsman.pass_over = 'on'";

/// What to do with such a migration.
pub(crate) const HINT: &str = "write there outside of a release, and leave it out of the file: a rehearsal would write it, the run \
                               after it too, and a try after a crash once more; where a trigger does it: `pointsman explain PM0330`";

/// Whether the session could close something that is open: it is asked after each statement, because files make such things too.
const IS_OPEN: &str = "
SELECT EXISTS (SELECT FROM pg_catalog.pg_foreign_table f JOIN pg_catalog.pg_class c ON c.oid = f.ftrelid
                WHERE pg_catalog.pg_has_role(c.relowner, 'USAGE')
                  AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t
                        WHERE t.tgrelid = c.oid AND t.tgname = '~pointsman_rehearsal' AND t.tgenabled = 'A'))
    OR EXISTS (SELECT FROM pg_catalog.pg_foreign_server s JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw
                WHERE w.fdwhandler = 0 AND s.srvacl IS DISTINCT FROM '{}' AND pg_catalog.pg_has_role(s.srvowner, 'USAGE'))";

/// The trigger comes after all others, so that what they leave out of the table is nothing that was written, and fires in
/// whatever role of replication a session is. Of a whole table being emptied triggers tell since version 16; before,
/// wrappers that can do it have an option against it.
const CLOSE: &str = r#"
DO $close$
DECLARE
  one record;
BEGIN
  IF to_regnamespace('pointsman_rehearsal') IS NULL THEN
    CREATE SCHEMA pointsman_rehearsal;
    CREATE FUNCTION pointsman_rehearsal.refuse() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $refuse$
    BEGIN
      IF TG_OP <> 'TRUNCATE' AND current_setting('pointsman.pass_over', true) = 'on' THEN
        RETURN NULL;
      END IF;
      RAISE EXCEPTION USING ERRCODE = 'PM330',
        MESSAGE = format('writes to the foreign table %s on the server %I, which a rehearsal must not', TG_RELID::regclass, TG_ARGV[0]);
    END $refuse$;
    GRANT USAGE ON SCHEMA pointsman_rehearsal TO PUBLIC;
    GRANT EXECUTE ON FUNCTION pointsman_rehearsal.refuse() TO PUBLIC;
  END IF;
  FOR one IN
    SELECT c.oid::regclass AS name, s.srvname AS server,
           CASE WHEN f.ftoptions::text ~ '\ytruncatable=' THEN 'SET' ELSE 'ADD' END AS verb
      FROM pg_foreign_table f JOIN pg_class c ON c.oid = f.ftrelid JOIN pg_foreign_server s ON s.oid = f.ftserver
     WHERE pg_has_role(c.relowner, 'USAGE')
       AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = '~pointsman_rehearsal' AND t.tgenabled = 'A')
  LOOP
    EXECUTE format('DROP TRIGGER IF EXISTS "~pointsman_rehearsal" ON %s', one.name);
    EXECUTE format('CREATE TRIGGER "~pointsman_rehearsal" BEFORE INSERT OR UPDATE OR DELETE ON %s
                    FOR EACH ROW EXECUTE FUNCTION pointsman_rehearsal.refuse(%L)', one.name, one.server);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER "~pointsman_rehearsal"', one.name);
    IF current_setting('server_version_num')::int >= 160000 THEN
      EXECUTE format('DROP TRIGGER IF EXISTS "~pointsman_rehearsal_of_all" ON %s', one.name);
      EXECUTE format('CREATE TRIGGER "~pointsman_rehearsal_of_all" BEFORE TRUNCATE ON %s
                      FOR EACH STATEMENT EXECUTE FUNCTION pointsman_rehearsal.refuse(%L)', one.name, one.server);
      EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER "~pointsman_rehearsal_of_all"', one.name);
    ELSIF current_setting('server_version_num')::int >= 140000 THEN
      BEGIN
        EXECUTE format('ALTER FOREIGN TABLE %s OPTIONS (%s truncatable ''false'')', one.name, one.verb);
      EXCEPTION WHEN OTHERS THEN
        NULL; -- The wrapper does not know the option.
      END;
    END IF;
  END LOOP;
  FOR one IN
    SELECT s.srvname AS server, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee
      FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
     CROSS JOIN LATERAL aclexplode(coalesce(s.srvacl, acldefault('S', s.srvowner))) a
     WHERE w.fdwhandler = 0 AND pg_has_role(s.srvowner, 'USAGE')
  LOOP
    EXECUTE format('REVOKE ALL ON FOREIGN SERVER %I FROM %s CASCADE', one.server, one.grantee);
  END LOOP;
END $close$"#;

/// Closes what the session's role may close and what is still open, on a copy.
pub(crate) async fn close(session: &Session) -> Result<(), Fault> {
    let row = session.client().query_one(IS_OPEN, &[]).await?;
    if !row.try_get(0)? {
        return Ok(());
    }
    Ok(session.client().batch_execute(CLOSE).await?)
}

/// Closes everything before a rehearsal begins.
pub(crate) async fn close_all(copy: &Session) -> Result<(), Problem> {
    close(copy).await.map_err(|fault| fault.while_doing("keep the rehearsal from writing to other databases"))
}

/// Whether this is such a refusal: one of ours, or the server's for what was closed.
pub(crate) fn is_refusal(refusal: &Refusal) -> bool {
    let says =
        |state: &SqlState, words: &str| refusal.state == state.code() && refusal.message.contains(words);
    refusal.state == STATE
        || says(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "does not allow truncates")
        || says(&SqlState::INSUFFICIENT_PRIVILEGE, "permission denied for foreign server")
}

/// Whether the message says all by itself, and needs no code beside it.
pub(crate) fn is_ours(refusal: &Refusal) -> bool {
    refusal.state == STATE
}
