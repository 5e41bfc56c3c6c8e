//! What became of tries that have no outcome. Their sessions have ended before this is asked, so a record that was written
//! within the transaction is the proof; the transaction's own state says the same, or the server lost it.

use std::time::{Duration, Instant};

use pointsman_core::{Code, Problem};
use pointsman_migration::Statement;
use tokio_postgres::error::SqlState;

use super::fault::Fault;
use super::ledger::Entry;
use crate::Session;

/// How long a transaction of an ended session may still be seen.
const END_WAIT: Duration = Duration::from_secs(10);
/// Pause between two looks.
const END_PAUSE: Duration = Duration::from_millis(20);

/// Notes that earlier tries of a transaction, which begins with this statement and is not recorded as done, did nothing.
pub(crate) async fn settle(entry: &Entry<'_>, second: &Session, first: &Statement) -> Result<(), Problem> {
    for open in entry.open_attempts(second, first).await? {
        if let Some(xid) = &open.xid {
            ended(second, xid).await?;
        }
        entry.note_outcome(second, open.attempt, "ended without effect").await;
    }
    Ok(())
}

/// Waits until the transaction is over. Whether it is told as committed is not asked: with an asynchronous commit its number
/// may never have reached the disk, and be another's after a crash of the server.
async fn ended(second: &Session, xid: &str) -> Result<(), Problem> {
    let began = Instant::now();
    while is_running(second, xid).await? {
        if began.elapsed() >= END_WAIT {
            let message = format!("the transaction {xid} of an earlier try does not end");
            return Err(Problem::new(Code::DatabaseBusy, message)
                .retry_useful()
                .hint("on the database: `SELECT * FROM pg_stat_activity WHERE backend_xid IS NOT NULL`"));
        }
        tokio::time::sleep(END_PAUSE).await;
    }
    Ok(())
}

async fn is_running(second: &Session, xid: &str) -> Result<bool, Problem> {
    let asked = second.client().query_one("SELECT pg_xact_status($1::text::xid8)", &[&xid]).await;
    match asked.map_err(Fault::from) {
        Ok(row) => Ok(row.try_get::<_, Option<String>>(0).ok().flatten().as_deref() == Some("in progress")),
        // The server was started anew and has not come as far yet: it lost that transaction.
        Err(fault) if fault.is(&SqlState::INVALID_PARAMETER_VALUE) => Ok(false),
        Err(fault) => Err(fault.while_doing("ask for the state of a transaction")),
    }
}
