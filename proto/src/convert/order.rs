//! Orders and their answers.

use pointsman_core::{
    Code, EnvironmentName, Epoch, Evidence, Order, OrderKey, Problem, Step, Timestamp, clean,
};

use super::{action_from_wire, action_to_wire, field, missing};
use crate::agent_v1 as wire;

/// An order as an agent received it, with what only the wire carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedOrder {
    /// The environment it is for.
    pub environment: EnvironmentName,
    /// The order.
    pub order: Order,
    /// The journal entry of its intent.
    pub journal_seq: u64,
    /// That entry's hash.
    pub journal_hash: [u8; 32],
}

/// An order for the wire.
pub fn order_to_wire(received: &ReceivedOrder) -> wire::Order {
    let order = &received.order;
    wire::Order {
        environment: received.environment.to_string(),
        host: order.key.host.to_string(),
        release: order.release.to_string(),
        step: order.key.step.to_string(),
        attempt: order.attempt,
        epoch: order.epoch.0,
        deadline_ms: order.deadline.0,
        journal_seq: received.journal_seq,
        journal_hash: received.journal_hash.to_vec(),
        action: Some(action_to_wire(&order.action)),
    }
}

/// An order from the wire.
pub fn order_from_wire(wire: &wire::Order) -> Result<ReceivedOrder, Problem> {
    let step = Step::parse(&wire.step)
        .ok_or_else(|| Problem::new(Code::MessageInvalid, "field `step` of the message names no step"))?;
    Ok(ReceivedOrder {
        environment: field("environment", &wire.environment)?,
        order: Order {
            release: field("release", &wire.release)?,
            key: OrderKey { step, host: field("host", &wire.host)? },
            attempt: wire.attempt,
            epoch: Epoch(wire.epoch),
            deadline: Timestamp(wire.deadline_ms),
            action: action_from_wire(wire.action.as_ref().ok_or_else(|| missing("action"))?)?,
        },
        journal_seq: wire.journal_seq,
        journal_hash: wire.journal_hash.as_slice().try_into().map_err(|_| missing("journal_hash"))?,
    })
}

/// Evidence for the wire.
pub fn evidence_to_wire(evidence: &Evidence) -> wire::Done {
    wire::Done { already: evidence.already, detail: evidence.detail.clone() }
}

/// Evidence from the wire, with the time that order and answer took.
pub fn evidence_from_wire(wire: &wire::Done, took_us: u64) -> Evidence {
    Evidence { already: wire.already, detail: clean(&wire.detail), took_us }
}
