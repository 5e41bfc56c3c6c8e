//! Orders and their answers.

use pointsman_core::receipt::Fence;
use pointsman_core::{
    Code, EnvironmentName, Epoch, Evidence, Order, OrderKey, Problem, Step, Timestamp, clean,
};

use super::{action_from_wire, action_to_wire, field, missing, seen_from_wire, seen_to_wire};
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
    /// It is to be done only by what was made ready for it.
    pub only_prepared: bool,
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
        only_prepared: received.only_prepared,
        leads_back: order.leads_back,
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
            leads_back: wire.leads_back || step.leads_back(),
            action: action_from_wire(wire.action.as_ref().ok_or_else(|| missing("action"))?)?,
        },
        journal_seq: wire.journal_seq,
        journal_hash: wire.journal_hash.as_slice().try_into().map_err(|_| missing("journal_hash"))?,
        only_prepared: wire.only_prepared,
    })
}

/// Where the fence of an agent stands once it has forgotten what it heard of before: at the journal that was accepted, or at no
/// entry where an older coordinator names none.
pub fn accepted_from_wire(wire: &wire::FenceRequest) -> Result<Fence, Problem> {
    let epoch = Epoch(wire.epoch);
    if wire.head_seq == 0 {
        return Ok(Fence { epoch, ..Fence::default() });
    }
    let head_hash = wire.head_hash.as_slice().try_into().map_err(|_| missing("head_hash"))?;
    Ok(Fence { epoch, head_seq: wire.head_seq, head_hash })
}

/// When an exchange was sent and answered, in microseconds since 1970 by one clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// When the question left, or arrived.
    pub began_us: u64,
    /// When the answer arrived, or left.
    pub ended_us: u64,
}

impl Exchange {
    fn middle_us(self) -> u64 {
        self.began_us.saturating_add(self.ended_us.saturating_sub(self.began_us) / 2)
    }
}

/// Evidence for the wire, with the exchange as the agent's clock has it.
pub fn evidence_to_wire(evidence: &Evidence, exchange: Exchange) -> wire::Done {
    wire::Done {
        already: evidence.already,
        detail: evidence.detail.clone(),
        arrived_at_us: exchange.began_us,
        effect_at_us: evidence.effect_at_us.unwrap_or(0),
        answered_at_us: exchange.ended_us,
        unreached: evidence.unreached.clone().unwrap_or_default(),
        unkept: evidence.unkept.clone().unwrap_or_default(),
        checks: seen_to_wire(&evidence.checks),
    }
}

/// Evidence from the wire, with the exchange as the coordinator's clock has it.
///
/// The moment of the effect is told by the agent's clock. How far that is from the coordinator's follows from the two
/// exchanges, as NTP has it (RFC 5905, section 8): their middles are one moment, give or take half of the time that the
/// messages were on their way.
pub fn evidence_from_wire(wire: &wire::Done, exchange: Exchange) -> Evidence {
    let there = Exchange { began_us: wire.arrived_at_us, ended_us: wire.answered_at_us };
    let shown = |effect: u64| {
        let after = effect.saturating_sub(there.middle_us());
        let before = there.middle_us().saturating_sub(effect);
        exchange.middle_us().saturating_add(after).saturating_sub(before)
    };
    // An answer from a receipt tells of an effect long ago, by a clock that may have been set since.
    let now = |effect: &u64| (there.began_us..=there.ended_us).contains(effect);
    Evidence {
        already: wire.already,
        detail: clean(&wire.detail),
        took_us: exchange.ended_us.saturating_sub(exchange.began_us),
        effect_at_us: Some(wire.effect_at_us).filter(|effect| *effect > 0).filter(now).map(shown),
        unreached: Some(clean(&wire.unreached)).filter(|whom| !whom.is_empty()),
        unkept: Some(clean(&wire.unkept)).filter(|why| !why.is_empty()),
        checks: seen_from_wire(&wire.checks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effect_is_told_by_the_coordinators_clock() {
        // The agent's clock is an hour behind; the order takes 2 ms there, the effect comes after 0.5 ms.
        let done = wire::Done {
            arrived_at_us: 1_000_000,
            effect_at_us: 1_000_500,
            answered_at_us: 1_002_000,
            ..Default::default()
        };
        let exchange = Exchange { began_us: 3_601_000_000, ended_us: 3_601_004_000 };
        let evidence = evidence_from_wire(&done, exchange);
        assert_eq!(evidence.took_us, 4_000);
        // Arrived a millisecond after it was sent, took effect half a millisecond later.
        assert_eq!(evidence.effect_at_us, Some(3_601_001_500));
        let long_ago = wire::Done { effect_at_us: 10, ..done };
        assert_eq!(evidence_from_wire(&long_ago, exchange).effect_at_us, None);
    }
}
