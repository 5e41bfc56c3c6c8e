//! Whether something between agent and server hands its sessions on. Behind such a pooler a lock or a setting belongs to
//! whoever gets the server's session next, so it is refused.

use pointsman_core::{Code, Problem};

use super::fault::Fault;
use crate::{Session, Settings};

/// Looks at two sessions whose transactions overlap: a pooler that gives out servers by transaction gives the first the one
/// that was given back last, which is the other's.
pub(crate) async fn refuse(settings: &Settings, one: &Session, other: &Session) -> Result<(), Problem> {
    let failed = |error| Fault::from(error).while_doing("look for a pooler");
    for _ in 0..ROUNDS {
        one.client().batch_execute("BEGIN").await.map_err(failed)?;
        other.client().batch_execute("BEGIN").await.map_err(failed)?;
        let pids = (pid(one).await?, pid(other).await?);
        one.client().batch_execute("COMMIT").await.map_err(failed)?;
        other.client().batch_execute("COMMIT").await.map_err(failed)?;
        if pids != (one.pid(), other.pid()) {
            return Err(found(settings));
        }
    }
    Ok(())
}

/// Overlapping transactions that are looked at.
const ROUNDS: usize = 3;

/// The server's process, asked in the simple protocol, which poolers pass on as it is.
async fn pid(session: &Session) -> Result<i32, Problem> {
    let rows = session.client().simple_query("SELECT pg_backend_pid()").await;
    let rows = rows.map_err(|error| Fault::from(error).while_doing("look for a pooler"))?;
    let found = rows.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).and_then(|text| text.parse().ok()),
        _ => None,
    });
    found.ok_or_else(|| super::fault::lost("look for a pooler"))
}

fn found(settings: &Settings) -> Problem {
    let message = format!(
        "port {} changes its backend between transactions: a pooler stands before the server",
        settings.port
    );
    Problem::new(Code::DatabaseUnfit, message)
        .hint("set `host` and `port` in the agent's [database] section to the server's own")
}
