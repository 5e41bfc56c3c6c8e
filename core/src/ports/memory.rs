//! What agents remember of the journal.

use crate::receipt::Fence;
use crate::{Epoch, HostName, Problem};

/// What the agents of an environment remember of the journal they were ordered from: a coordinator looks at it before it takes
/// an epoch, and a person may accept that its newest entries are gone. Every call is bounded and can be repeated.
pub trait Memory: Send + Sync {
    /// Where an agent's fence stands. Changes nothing.
    fn remembered(
        &self,
        host: &HostName,
        timeout_ms: u64,
    ) -> impl Future<Output = Result<Fence, Problem>> + Send;

    /// Has an agent forget its receipts and the newest entry it heard of, under an epoch that it has not acknowledged
    /// before: nothing that is still on its way can act then. What it has heard of from then on is the newest entry that the
    /// journal has now, which no older copy of it holds.
    fn forget(
        &self,
        host: &HostName,
        epoch: Epoch,
        timeout_ms: u64,
    ) -> impl Future<Output = Result<(), Problem>> + Send;
}
