//! Whether texts still sort as they did when a database was made: after an upgrade of the system they may not. The server
//! only warns of it, until a database is to begin from one like that.

use pointsman_core::Problem;

use crate::copy::template_of;
use crate::preflight::Finding;
use crate::server::Server;
use crate::statement::{field, quoted, refused};
use crate::{Session, Settings};

/// What findings are about.
const CHECK: &str = "collation";
/// From this version on a database remembers the version of its collation.
pub(crate) const REMEMBERED_FROM: u32 = 15;

const CHANGED: &str = "
SELECT datname::text, datcollversion, coalesce(pg_database_collation_actual_version(oid), 'none')
  FROM pg_database
 WHERE datname = ANY ($1) AND datcollversion IS NOT NULL
   AND datcollversion IS DISTINCT FROM pg_database_collation_actual_version(oid)";

/// Looks at the live database and at the one that restores begin from.
pub(crate) async fn look(
    settings: &Settings,
    session: &Session,
    server: &Server,
) -> Result<Vec<Finding>, Problem> {
    if server.major() < REMEMBERED_FROM {
        return Ok(Vec::new());
    }
    let names = [settings.name.clone(), template_of(settings)];
    let rows = session.client().query(CHANGED, &[&names.as_slice()]).await;
    let rows = rows.map_err(|error| refused("ask for the versions of collations", &error))?;
    if rows.is_empty() {
        return Ok(vec![Finding::fine(CHECK, "as it was")]);
    }
    let told = |row| {
        Ok(changed(settings, &field::<String>(row, 0)?, &field::<String>(row, 1)?, &field::<String>(row, 2)?))
    };
    rows.iter().map(told).collect()
}

fn changed(settings: &Settings, name: &str, then: &str, now: &str) -> Finding {
    let refresh = format!("ALTER DATABASE {} REFRESH COLLATION VERSION", quoted(name));
    let was = format!("`{name}` was made with version {then} of its collation, the system has {now}");
    if *name == settings.name {
        let hint = format!("in it, as its owner: `REINDEX DATABASE {}`, then `{refresh}`", quoted(name));
        return Finding::warning(CHECK, format!("{was}: its indexes on texts may be wrong"), hint);
    }
    let hint = format!("as a superuser: `{refresh}`, or run the script `database-role.sql` again");
    Finding::refused(CHECK, format!("{was}: the server lets no restore begin from it"), hint)
}
