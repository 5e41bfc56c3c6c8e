//! The coordinator's record of intents and outcomes.

use crate::receipt::Fence;
use crate::{Entry, EnvironmentName, Epoch, Event, Problem, ReleaseId, Stamped, Timestamp};

/// Why nothing was recorded, or must not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JournalError(pub Problem);

/// An append-only journal. What it has accepted survives any crash.
pub trait Journal: Send + Sync {
    /// Takes the lease of an environment: the epoch grows by one, durably, and whoever held it before can record
    /// nothing any more. `holder` is for people.
    fn take_lease(
        &self,
        environment: &EnvironmentName,
        holder: &str,
    ) -> impl Future<Output = Result<Epoch, JournalError>> + Send;

    /// Has the next lease of an environment be of a higher epoch than this one, durably.
    fn raise_lease(
        &self,
        environment: &EnvironmentName,
        epoch: Epoch,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// Refuses where an agent whose fence stands so knows more than this journal, by the lease of the environment and the
    /// entries as they are now: see [`crate::receipt::journal_leads`].
    fn leads(
        &self,
        environment: &EnvironmentName,
        fence: &Fence,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// Has `take` fold what is recorded of an environment into `folded`, in order: everything, or everything since a plan that
    /// says how the environment stood then ([`crate::Plan::stood`]), so that what is read does not grow with the journal's age.
    /// Returns whether it was everything, too.
    fn fold<T: Send + 'static>(
        &self,
        environment: &EnvironmentName,
        folded: T,
        take: fn(&mut T, Entry) -> Result<(), Problem>,
    ) -> impl Future<Output = Result<(T, bool), JournalError>> + Send;

    /// Records facts of a release, in order, all or none. They are durable when this returns. Refused when the lease
    /// of the environment is not of this epoch any more: another coordinator has taken over.
    fn append(
        &self,
        environment: &EnvironmentName,
        epoch: Epoch,
        release: &ReleaseId,
        at: Timestamp,
        events: Vec<Event>,
    ) -> impl Future<Output = Result<Vec<Stamped>, JournalError>> + Send;
}
