//! The one visible instant of a swap: two databases change their names, in one transaction.
//!
//! The server renames a database that nobody uses: it takes a lock that whoever connects needs, counts the sessions, and
//! where it finds one it sleeps for 100 ms before it counts again, up to fifty times (`CountOtherDBBackends` in its
//! `procarray.c`). So the renaming begins before the sessions are ended: whoever connects meanwhile waits, at no cost,
//! instead of being refused and trying again, and again; and the sleep is cut short by a notification, as any signal
//! does, when it is known that nobody is left.

use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use pointsman_chassis::failpoint;
use pointsman_core::{Code, Problem};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, Transaction};

use crate::statement::{field, quoted, refused};
use crate::{Authority, Session, Settings};

/// How long the lock of a database is waited for: whoever has it is just connecting, or copies it.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// How often it is looked whether the lock is there.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// How often the server's sleep is cut short, at first: a process that has just ended is counted for a moment more.
const QUICK_CUTS: (u32, Duration) = (10, Duration::from_millis(1));
/// And then: the server gives up after fifty counts.
const LATER_CUTS: Duration = Duration::from_millis(10);
/// Longest that one renaming may take with nobody in its way: the server itself gives up after five seconds.
const LONGEST: Duration = Duration::from_secs(15);
/// How often it is begun again after that.
const TRIES: u32 = 4;

/// A session that renames, beside the one that ends sessions. Both are in the maintenance database.
pub(super) struct Renamer {
    session: Session,
}

impl Renamer {
    /// Opens it: before anybody is kept waiting.
    pub(super) async fn open(settings: &Settings) -> Result<Self, Problem> {
        let session = Session::open(settings, &settings.maintenance, "rename").await?;
        let listens = session.client().batch_execute("LISTEN pointsman_rename").await;
        listens.map_err(|error| refused("prepare the swap", &error))?;
        Ok(Self { session })
    }

    /// Gives both databases their new names, the live one first, as soon as `emptied` has ended the sessions of both and
    /// says that they may be swapped. Until then nobody can connect to the live one, which has this number. If `emptied`
    /// fails, or the authority is gone by then, the names stay as they are.
    ///
    /// It is not waited until the change is on disk: nothing written later can be there without it, and it is before
    /// anybody is told of it.
    pub(super) async fn swap<T>(
        &mut self,
        teller: &Client,
        live: u32,
        names: [(&str, &str); 2],
        emptied: impl Future<Output = Result<T, Problem>>,
        authority: &dyn Authority,
    ) -> Result<T, Problem> {
        let pid = self.session.pid();
        let swapped = async {
            let transaction = self.session.client_mut().transaction().await.map_err(failed)?;
            let limits = format!(
                "SET LOCAL synchronous_commit = off; SET LOCAL lock_timeout = {}",
                LOCK_WAIT.as_millis()
            );
            transaction.batch_execute(&limits).await.map_err(failed)?;
            let [first, second] = names.map(renaming);
            let told = {
                let mut begun = pin!(transaction.batch_execute(&first));
                let mut emptied = pin!(async {
                    locked(teller, pid, live).await?;
                    emptied.await
                });
                let (told, early) = tokio::select! {
                    told = &mut emptied => (told?, None),
                    renamed = &mut begun => match renamed {
                        Err(error) if !in_use(&error) => return Err(failed(error)),
                        // It counted for too long, and is begun again when they are gone; or nobody was there.
                        renamed => (emptied.await?, Some(renamed)),
                    },
                };
                let renamed = match early {
                    Some(renamed) => renamed,
                    None => hurried(begun, teller).await?,
                };
                again_if_in_use(&transaction, teller, &first, renamed).await?;
                told
            };
            failpoint::pass("swap-renamed");
            let renamed = hurried(pin!(transaction.batch_execute(&second)), teller).await?;
            again_if_in_use(&transaction, teller, &second, renamed).await?;
            failpoint::pass("swap-renamed");
            authority.check()?;
            transaction.commit().await.map_err(failed)?;
            failpoint::pass("swap-committed");
            Ok(told)
        }
        .await;
        if swapped.is_err() {
            // It may still be counting, and keep out whoever wants to connect.
            _ = teller.query("SELECT pg_cancel_backend($1)", &[&pid]).await;
        }
        swapped
    }
}

fn failed(error: Error) -> Problem {
    refused("swap the databases", &error)
}

fn in_use(error: &Error) -> bool {
    error.code() == Some(&SqlState::OBJECT_IN_USE)
}

fn renaming((from, to): (&str, &str)) -> String {
    format!(
        "SAVEPOINT renaming; ALTER DATABASE {} RENAME TO {}; RELEASE SAVEPOINT renaming",
        quoted(from),
        quoted(to)
    )
}

/// Waits until this session of the server has the lock of a database: from then on nobody comes in.
async fn locked(teller: &Client, pid: i32, database: u32) -> Result<(), Problem> {
    let give_up = Instant::now() + LOCK_WAIT;
    loop {
        let row = teller
            .query_one(
                "SELECT EXISTS (SELECT FROM pg_locks
                                 WHERE pid = $1 AND locktype = 'object' AND objid = $2 AND granted
                                   AND classid = 'pg_catalog.pg_database'::regclass AND mode = 'AccessExclusiveLock')",
                &[&pid, &database],
            )
            .await
            .map_err(failed)?;
        if field(&row, 0)? {
            return Ok(());
        }
        if Instant::now() >= give_up {
            let message = "the lock of the database could not be had within 2 s";
            return Err(Problem::new(Code::SwapRefused, message).retry_useful().hint(
                "something copies the database, or alters it: `pointsman db status ENV`; try again when it is done",
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits for a renaming that nothing stands in the way of any more, and cuts the server's sleep short meanwhile.
async fn hurried(
    renaming: Pin<&mut impl Future<Output = Result<(), Error>>>,
    teller: &Client,
) -> Result<Result<(), Error>, Problem> {
    tokio::time::timeout(LONGEST, cut_short(renaming, teller)).await.map_err(|_| {
        let message = format!("the server did not rename the database within {} s", LONGEST.as_secs());
        Problem::new(Code::SwapRefused, message)
            .retry_useful()
            .hint("on the database host: `systemctl status postgresql`; then try again")
    })
}

async fn cut_short(
    mut renaming: Pin<&mut impl Future<Output = Result<(), Error>>>,
    teller: &Client,
) -> Result<(), Error> {
    // Nobody waits for the disk: a notification that is lost in a crash wakes nobody who is still there.
    const NOTIFY: &str = "BEGIN; SET LOCAL synchronous_commit = off; NOTIFY pointsman_rename; COMMIT";
    let (quick, quickly) = QUICK_CUTS;
    let mut cuts = 0_u32;
    loop {
        let pause = if cuts < quick { quickly } else { LATER_CUTS };
        tokio::select! {
            renamed = renaming.as_mut() => return renamed,
            () = tokio::time::sleep(pause) => {
                cuts = cuts.saturating_add(1);
                // Without it the server wakes by itself.
                _ = teller.batch_execute(NOTIFY).await;
            }
        }
    }
}

/// Somebody was in the database to the last count: whoever was let in while the lock was not there yet has gone since.
async fn again_if_in_use(
    transaction: &Transaction<'_>,
    teller: &Client,
    sql: &str,
    mut renamed: Result<(), Error>,
) -> Result<(), Problem> {
    for _ in 1..TRIES {
        if !renamed.as_ref().is_err_and(in_use) {
            break;
        }
        let back = "ROLLBACK TO SAVEPOINT renaming; RELEASE SAVEPOINT renaming";
        transaction.batch_execute(back).await.map_err(failed)?;
        renamed = hurried(pin!(transaction.batch_execute(sql)), teller).await?;
    }
    renamed.map_err(failed)
}
