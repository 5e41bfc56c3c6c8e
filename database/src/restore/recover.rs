//! A swap that was cut short is finished, or the database is opened again: it never stays shut.

use std::time::Duration;

use pointsman_chassis::failpoint;
use pointsman_core::Problem;
use tokio_postgres::Client;

use super::beside::{cut_short, name_of};
use super::gate;
use super::record::{Record, Stage};
use crate::Settings;
use crate::guard::Guard;

/// How long other work on the database is waited for.
const GUARD_WAIT: Duration = Duration::from_secs(60);

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// No swap was cut short.
    Nothing,
    /// It had not come to the swap: the database is open again, as before.
    Opened,
    /// The swap had happened: it is noted now.
    Finished,
}

/// Ends a swap that was cut short. To be called whenever the agent starts.
pub async fn recover(settings: &Settings) -> Result<Recovered, Problem> {
    let begun = Record::read(settings)?.map(|record| record.stage);
    if !matches!(begun, Some(Stage::Swapping | Stage::SwappingBack)) {
        return Ok(Recovered::Nothing);
    }
    let guard = Guard::take(settings, GUARD_WAIT).await?;
    let stage = finish(settings, guard.session().client()).await?;
    let finished = matches!(
        (begun, stage),
        (Some(Stage::Swapping), Some(Stage::Swapped)) | (Some(Stage::SwappingBack), Some(Stage::TakenBack))
    );
    Ok(if finished { Recovered::Finished } else { Recovered::Opened })
}

/// Looks which database is live, opens it, and notes what that means. Returns where the restore stands then.
pub(crate) async fn finish(settings: &Settings, client: &Client) -> Result<Option<Stage>, Problem> {
    let Some(mut record) = Record::read(settings)? else { return Ok(None) };
    if !matches!(record.stage, Stage::Swapping | Stage::SwappingBack) {
        return Ok(Some(record.stage));
    }
    let live = settings.name.as_str();
    let restored = name_of(client, record.restored.oid).await?;
    let replaced = name_of(client, record.replaced.oid).await?;
    let stage = match (record.stage, restored.as_deref() == Some(live), replaced.as_deref() == Some(live)) {
        (Stage::Swapping, true, _) => Stage::Swapped,
        (Stage::Swapping, _, true) => Stage::Ready,
        (_, _, true) => Stage::TakenBack,
        (_, true, _) => Stage::Swapped,
        _ => {
            return Err(cut_short(live).cause("neither of the two databases has the live one's name").hint(
                "`\\l` in psql shows the databases: `ALTER DATABASE … RENAME TO` gives one of them its name",
            ));
        }
    };
    gate::open(client, live).await.map_err(|problem| {
        let hint = format!("as a superuser: `ALTER DATABASE \"{live}\" ALLOW_CONNECTIONS true`");
        cut_short(live).cause(problem.message).hint(hint)
    })?;
    let (aside, open) = match stage {
        // Nobody writes to what a restore replaced.
        Stage::Swapped => (replaced, false),
        _ => (restored, true),
    };
    if let Some(aside) = aside {
        if open { gate::open(client, &aside).await? } else { gate::shut(client, &aside).await? }
    }
    failpoint::pass("swap-opened");
    record.at(stage, settings)?;
    Ok(Some(stage))
}

/// Ends a swap whose caller is gone in the middle of it.
pub(crate) struct Cut(Option<Settings>);

impl Cut {
    pub(crate) fn armed(settings: &Settings) -> Self {
        Self(Some(settings.clone()))
    }

    pub(crate) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        let Some(settings) = self.0.take() else { return };
        // Without a runtime this process ends, and its next start recovers.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if let Err(error) = recover(&settings).await {
                tracing::error!(%error, "a swap was cut short, and the database may be shut");
            }
        });
    }
}
