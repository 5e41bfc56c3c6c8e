//! What breaks in a run, and when: it all follows from the seed.

use std::fmt;

use pointsman_core::Plan;
use turmoil::Sim;

use crate::chance::Chance;
use crate::release::CENTRE;

/// Faults begin within this time, which is as long as an undisturbed release takes.
const WITHIN_MS: u64 = 7_000;
/// How long one lasts: a hiccup, or longer than any single order may take.
const LASTS_MS: [(u64, u64); 2] = [(100, 800), (800, 6_000)];

/// What happens to a host, or between it and the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Everything between them is lost.
    Cut,
    /// What the coordinator sends is lost.
    CutTo,
    /// What the coordinator is sent is lost.
    CutFrom,
    /// Everything between them is held back, and comes late: one of the two hangs.
    Hold,
    /// The process is gone, and comes back.
    Crash,
}

/// One fault.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What happens.
    pub kind: Kind,
    /// To whom.
    pub host: String,
    /// From when, in milliseconds.
    pub from_ms: u64,
    /// Until when.
    pub to_ms: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} from {} to {} ms", self.kind, self.host, self.from_ms, self.to_ms)
    }
}

/// The faults of a run.
pub fn faults(chance: &mut Chance, plan: &Plan) -> Vec<Fault> {
    let agents: Vec<String> = plan.hosts().map(ToString::to_string).collect();
    let number = chance.between(1, 8);
    let some = (0..number).map(|_| {
        let kinds = [Kind::Cut, Kind::CutTo, Kind::CutFrom, Kind::Hold, Kind::Crash, Kind::Crash];
        let kind = chance.one_of(&kinds);
        let of_centre = kind == Kind::Crash && chance.in_percent(60);
        let host = if of_centre { CENTRE.to_owned() } else { chance.one_of(&agents) };
        let from_ms = chance.between(0, WITHIN_MS);
        let (shortest_ms, longest_ms) = chance.one_of(&LASTS_MS);
        Fault { kind, host, from_ms, to_ms: from_ms + chance.between(shortest_ms, longest_ms) }
    });
    some.collect()
}

impl Fault {
    /// Breaks it.
    pub fn begin(&self, sim: &mut Sim<'_>) {
        let host = self.host.as_str();
        match self.kind {
            Kind::Cut => sim.partition(CENTRE, host),
            Kind::CutTo => sim.partition_oneway(CENTRE, host),
            Kind::CutFrom => sim.partition_oneway(host, CENTRE),
            Kind::Hold => sim.hold(CENTRE, host),
            Kind::Crash => sim.crash(host),
        }
    }

    /// Mends it.
    pub fn end(&self, sim: &mut Sim<'_>) {
        let host = self.host.as_str();
        match self.kind {
            Kind::Cut | Kind::CutTo | Kind::CutFrom => sim.repair(CENTRE, host),
            Kind::Hold => sim.release(CENTRE, host),
            Kind::Crash => sim.bounce(host),
        }
    }
}
