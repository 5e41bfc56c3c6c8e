//! The agents.

use crate::{Action, Epoch, Evidence, HostName, Order, Problem};

/// The agents of an environment, as the coordinator reaches them.
///
/// Every call is bounded and can be repeated. When the answer is lost the error's aftermath is
/// [`crate::Aftermath::Unknown`]: repeating the order under its key finds out.
pub trait Fleet: Send + Sync {
    /// Has an agent acknowledge an epoch: afterwards it refuses every older one.
    fn fence(
        &self,
        host: &HostName,
        epoch: Epoch,
        timeout_ms: u64,
    ) -> impl Future<Output = Result<(), Problem>> + Send;

    /// Has an agent take an order in and make everything ready for it, without any effect. What several agents do
    /// together is prepared on all of them before it is performed on any.
    fn prepare(
        &self,
        order: &Order,
        timeout_ms: u64,
    ) -> impl Future<Output = Result<Evidence, Problem>> + Send;

    /// Has an agent do what an order says, or answer from its receipt what came of it.
    fn perform(&self, order: &Order) -> impl Future<Output = Result<Evidence, Problem>> + Send;

    /// Has an agent do an order that it was prepared for, and refuse it with [`crate::Code::LeaseLapsed`] where what it made
    /// ready does not hold any more.
    fn commit(&self, order: &Order) -> impl Future<Output = Result<Evidence, Problem>> + Send;

    /// Asks an agent about the world without changing it: `Inspect*` and `Probe*` actions only.
    fn observe(
        &self,
        host: &HostName,
        action: &Action,
        timeout_ms: u64,
    ) -> impl Future<Output = Result<Evidence, Problem>> + Send;
}
