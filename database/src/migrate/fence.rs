//! The epoch in the database itself: a transaction in the name of an older coordinator cannot commit beside a newer one's.

use pointsman_core::{Code, Epoch, Problem};
use tokio_postgres::error::SqlState;

use super::fault::Fault;
use super::records;
use crate::{Session, Settings};

/// How long raising the epoch waits for a transaction of the older coordinator, in milliseconds.
const RAISE_WAIT_MS: u32 = 5_000;

/// Raises the fence to this epoch: from now on nothing begins in the name of an older one, and nothing of an older one
/// runs any more. A database without records has nothing to fence: the first run creates them with its own epoch.
pub async fn fence(settings: &Settings, epoch: Epoch) -> Result<(), Problem> {
    let session = Session::open(settings, &settings.name, "fence").await?;
    if records::find(&session).await? == records::Found::Absent {
        return Ok(());
    }
    raise(&session, epoch).await
}

/// The same on an open session.
pub(crate) async fn raise(session: &Session, epoch: Epoch) -> Result<(), Problem> {
    let number = as_number(epoch)?;
    let update = format!(
        "BEGIN; SET LOCAL lock_timeout = {RAISE_WAIT_MS}; SET LOCAL synchronous_commit = on;
         UPDATE pointsman.fence SET epoch = {number} WHERE epoch < {number}; COMMIT"
    );
    if let Err(error) = session.client().batch_execute(&update).await {
        let fault = Fault::from(error);
        _ = session.client().batch_execute("ROLLBACK").await;
        return Err(if fault.is(&SqlState::LOCK_NOT_AVAILABLE) {
            still_running()
        } else {
            fault.while_doing("raise the epoch")
        });
    }
    let row = session.client().query_one("SELECT epoch FROM pointsman.fence", &[]).await;
    let ruling: i64 = row
        .and_then(|row| row.try_get(0))
        .map_err(|error| Fault::from(error).while_doing("read the epoch"))?;
    if ruling > number { Err(fenced(number, Some(ruling))) } else { Ok(()) }
}

/// Binds the open transaction to this epoch: raising it waits for the transaction's end. Returns the transaction's id, and
/// none if a newer epoch rules.
pub(crate) async fn obey(session: &Session, epoch: i64) -> Result<Option<String>, Fault> {
    let sql = "SELECT pg_current_xact_id()::text FROM pointsman.fence WHERE epoch = $1 FOR SHARE";
    let row = session.client().query_opt(sql, &[&epoch]).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// The epoch as the table holds it.
pub(crate) fn as_number(epoch: Epoch) -> Result<i64, Problem> {
    i64::try_from(epoch.0).map_err(|_| {
        Problem::new(Code::MessageInvalid, format!("epoch {epoch} is beyond what a table can hold"))
    })
}

/// A newer coordinator rules.
pub(crate) fn fenced(ours: i64, ruling: Option<i64>) -> Problem {
    let message = match ruling {
        Some(ruling) => format!("the database obeys epoch {ruling}; this order is of epoch {ours}"),
        None => format!("the database no longer obeys epoch {ours}"),
    };
    Problem::new(Code::Fenced, message).hint("`pointsman status ENV` at the coordinator that rules")
}

fn still_running() -> Problem {
    Problem::new(Code::DatabaseBusy, "a migration in the name of an older coordinator still runs")
        .cause(format!("it did not end within {RAISE_WAIT_MS} ms"))
        .retry_useful()
        .hint("how far it is: `pointsman db status ENV`")
}
