//! What agents remember of the journal.

use crate::receipt::Fence;
use crate::{Epoch, HostName, Problem};

/// What the agents of an environment remember of the journal they were ordered from, for a person who accepts that its
/// newest entries are gone. Every call is bounded and can be repeated.
pub trait Memory: Send + Sync {
    /// Where an agent's fence stands. Changes nothing.
    fn remembered(
        &self,
        host: &HostName,
        timeout_ms: u64,
    ) -> impl Future<Output = Result<Fence, Problem>> + Send;

    /// Has an agent forget its receipts and the newest entry it heard of, under an epoch that it has not acknowledged
    /// before: nothing that is still on its way can act then.
    fn forget(
        &self,
        host: &HostName,
        epoch: Epoch,
        timeout_ms: u64,
    ) -> impl Future<Output = Result<(), Problem>> + Send;
}
