//! Fills on a copy what its restore left empty, because its rows come from other databases, where a file needs it: a rehearsal that
//! finds it empty would refuse what the live database takes.

use std::time::Duration;

use pointsman_core::Problem;
use tokio_postgres::error::SqlState;

use super::fault::Fault;
use super::run::Run;
use crate::{Session, Settings, contents};

/// Longest that one view may take.
const LIMIT: Duration = Duration::from_secs(600);

/// Whether the views of a rehearsal's copy were filled.
#[derive(Debug, Default)]
pub(crate) enum Filling {
    /// Nobody needed it so far.
    #[default]
    Untried,
    /// It was tried, and this is why it failed, if it did.
    Tried(Option<String>),
}

/// Whether a statement may have failed because a view is empty: it was read, or was to be filled anew beside its readers.
pub(crate) fn may_help(fault: &Fault) -> bool {
    fault.is(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) || fault.is(&SqlState::FEATURE_NOT_SUPPORTED)
}

impl Run<'_> {
    /// Fills what is empty on a copy, once. Where nothing was filled, the problem that it was for stands, with the reason.
    pub(crate) async fn fill_for(&mut self, problem: Problem) -> Result<(), Problem> {
        if self.measure.is_none() {
            return Err(problem);
        }
        if let Filling::Tried(why) = &self.filling {
            return Err(why.iter().cloned().fold(problem, Problem::cause));
        }
        let filled = fill(self.settings, self.order.database).await;
        self.filling = Filling::Tried(filled.as_ref().err().cloned());
        match filled {
            Ok(true) => Ok(()),
            Ok(false) => Err(problem),
            Err(why) => Err(problem.cause(why)),
        }
    }
}

/// Fills what the live database has filled from elsewhere and the copy has empty; whether there was anything.
async fn fill(settings: &Settings, copy: &str) -> Result<bool, String> {
    let unlooked = |problem: Problem| problem.to_string();
    let live = Session::open(settings, &settings.name, "look").await.map_err(unlooked)?;
    let views = contents::filled_from_elsewhere(live.client()).await.map_err(unlooked)?;
    let copy = Session::open(settings, copy, "fill").await.map_err(unlooked)?;
    let empty = contents::empty(copy.client(), &views).await.map_err(unlooked)?;
    for view in &empty {
        let fill = format!("SET statement_timeout = {}; REFRESH MATERIALIZED VIEW {view}", LIMIT.as_millis());
        if let Err(error) = copy.client().batch_execute(&fill).await {
            return Err(format!(
                "{view} is empty on the copy, because its rows come from other databases, and those did not give them: {}",
                Fault::from(error).words()
            ));
        }
    }
    Ok(!empty.is_empty())
}
