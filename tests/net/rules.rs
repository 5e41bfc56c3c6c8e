//! What must hold when a run is over, read from what was done and from the journal. The letters are those of
//! ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pointsman_core::{
    Action, Entry, Epoch, Event, HostName, OrderKey, Outcome, Plan, Purpose, Route, State, Step, machine,
};

use crate::coordinator::Place;
use crate::release;
use crate::world::{Deed, Host, World};

/// Every rule that does not hold.
pub fn broken(plan: &Plan, world: &World, place: &Place) -> Vec<String> {
    let mut broken = by_deeds(plan, &world.log());
    match journal_end(place) {
        Ok(state) => broken.extend(by_end(plan, world, &state)),
        Err(why) => broken.push(why),
    }
    broken
}

/// Rules about the order in which things were done.
fn by_deeds(plan: &Plan, log: &[(u64, Deed)]) -> Vec<String> {
    let mut broken = Vec::new();
    let mut acknowledged: BTreeMap<&HostName, Epoch> = BTreeMap::new();
    let mut acted: BTreeMap<&HostName, Epoch> = BTreeMap::new();
    let (mut changed, mut done) = (BTreeSet::new(), BTreeSet::new());
    let mut intended: BTreeSet<(&OrderKey, u32)> = BTreeSet::new();
    let mut prepared: BTreeSet<&OrderKey> = BTreeSet::new();
    let mut resumed = 0;
    for (ms, deed) in log {
        match deed {
            Deed::Intended(key, attempt) => drop(intended.insert((key, *attempt))),
            Deed::Acknowledged(host, epoch) => {
                let highest = acknowledged.entry(host).or_default();
                *highest = (*highest).max(*epoch);
            }
            Deed::Prepared(key) => drop(prepared.insert(key)),
            Deed::Acts(order) => {
                let (key, host) = (&order.key, &order.key.host);
                let highest = acknowledged.get(host).max(acted.get(host)).copied().unwrap_or_default();
                if order.epoch < highest {
                    broken.push(format!(
                        "I4: at {ms} ms {host} acted for epoch {} after epoch {highest}",
                        order.epoch
                    ));
                }
                acted.insert(host, order.epoch);
                if !intended.contains(&(key, order.attempt)) {
                    broken.push(format!("I3: at {ms} ms {host} {} acted without an intent", key.step));
                }
                if done.contains(key) {
                    broken.push(format!("I5: at {ms} ms {host} {} acted again after it was done", key.step));
                }
            }
            Deed::Acted(key) => drop(done.insert(key)),
            Deed::Changed(order) => {
                let (key, host) = (&order.key, &order.key.host);
                let moves = matches!(order.action, Action::SetRoute { .. });
                let together = moves && key.step.together() && plan.balancers.len() > 1;
                let unready = |host: &&HostName| {
                    let same = OrderKey { step: key.step, host: (*host).clone() };
                    !prepared.contains(&same)
                };
                if let Some(unready) = plan.balancers.iter().find(|host| together && unready(host)) {
                    broken
                        .push(format!("I1: at {ms} ms {host} {} moved before {unready} was ready", key.step));
                }
                if !changed.insert(key) {
                    broken.push(format!("I5: at {ms} ms {host} {} had its effect again", key.step));
                }
            }
            Deed::Held(why) if why.hint.is_empty() => {
                broken.push(format!("I11: at {ms} ms held without saying what to type: {why}"));
            }
            Deed::Resumed => resumed += 1,
            Deed::Wrong(what) => broken.push(what.clone()),
            Deed::Fault(_) | Deed::Begun | Deed::Answered(..) | Deed::TurnedBack(_) | Deed::Held(_) => {}
        }
    }
    if resumed > 1 {
        broken.push(format!("I11: with everything whole, the release had to be resumed {resumed} times"));
    }
    broken
}

/// Where the release stands by the journal alone, read from its file with its chain verified.
fn journal_end(place: &Place) -> Result<State, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let journal = place.journal();
    let entries = runtime
        .block_on(journal.entries_after(&release::environment_name(), None, 0))
        .map_err(|error| format!("I12: the journal cannot be read: {error}"))?;
    let folded = entries.iter().try_fold(None, fold)?;
    folded.ok_or_else(|| "I3: the journal has no release".to_owned())
}

fn fold(state: Option<State>, entry: &Entry) -> Result<Option<State>, String> {
    let next = match (&entry.fact.event, state) {
        (Event::Planned(plan), None) => Ok(State::begin(Arc::clone(plan), Epoch(0), entry.fact.at)),
        (_, Some(state)) => machine::apply(&state, &entry.fact).map_err(|error| error.to_string()),
        (_, None) => Err("comes before any plan".to_owned()),
    };
    next.map(Some).map_err(|why| format!("I3: journal entry {} {why}", entry.seq))
}

/// I3: the hosts stand as the journal's end says.
fn by_end(plan: &Plan, world: &World, state: &State) -> Vec<String> {
    let Some(outcome) = state.outcome() else {
        return vec!["I3: the journal's release is not over".to_owned()];
    };
    let hosts = world.hosts();
    let differ = |(name, host): (&HostName, &Host)| {
        let expected = expected(plan, state, outcome, name);
        let found = Host { contents: expected.contents, ..host.clone() };
        (found != expected).then(|| {
            format!(
                "I3: {name} does not stand as the journal ({}) says: expected {expected:?}",
                outcome.as_str()
            )
        })
    };
    hosts.iter().filter_map(differ).collect()
}

fn expected(plan: &Plan, state: &State, outcome: Outcome, name: &HostName) -> Host {
    let route = plan.balancers.contains(name).then(|| expected_route(plan, state, outcome));
    let target = plan.to.hosts.contains(name);
    let kept = matches!(outcome, Outcome::Confirmed | Outcome::RolledBack);
    let before = plan.links_before.get(name).copied().flatten();
    let (link, staged, flag) = match plan.purpose {
        Purpose::Deploy { artifact } if kept && target => (Some(artifact), true, false),
        Purpose::Deploy { .. } | Purpose::Rollback { .. } | Purpose::Database(_) => (before, false, false),
        Purpose::Maintenance { on, .. } => {
            let flag = on == (outcome == Outcome::Confirmed);
            (before, false, flag && plan.flag_hosts.contains(name))
        }
    };
    Host { route, link, contents: false, staged, flag }
}

fn expected_route(plan: &Plan, state: &State, outcome: Outcome) -> Route {
    let step = match (outcome, &plan.purpose) {
        (Outcome::Confirmed, Purpose::Maintenance { .. }) => Some(Step::Maintain),
        (Outcome::Confirmed, _) => Some(Step::Switch),
        (Outcome::RolledBack, _) => Some(Step::RouteBack),
        (Outcome::Aborted, Purpose::Maintenance { .. }) => Some(Step::Unmaintain),
        (Outcome::Aborted, _) => state.touched(Step::Expose).then_some(Step::Conceal),
        (Outcome::Refused, _) => None,
    };
    step.and_then(|step| plan.route(step)).unwrap_or_else(|| plan.route_before.clone())
}
