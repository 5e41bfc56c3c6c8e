//! Makes a failing scenario as small as it gets while it still fails in the same way: what is left is what matters.

use crate::history::{Options, Report, run};
use crate::scenario::{Accepts, Net, Scenario};

fn fails(scenario: &Scenario, options: Options, rule: &str) -> bool {
    let report = run(scenario.clone(), Options { trace: false, ..options });
    report.ok().and_then(|report| report.violation).is_some_and(|violation| violation.rule == rule)
}

/// Scenarios that are a little simpler than this one.
fn simpler(scenario: &Scenario) -> Vec<Scenario> {
    let mut simpler = Vec::new();
    for index in 0..scenario.faults.len() {
        let mut without = scenario.clone();
        without.faults.remove(index);
        simpler.push(without);
    }
    let mut last = scenario.clone();
    if last.wishes.len() > 1 && last.wishes.pop().is_some() {
        simpler.push(last);
    }
    let net = scenario.net;
    let nets = [Net { loss: 0, ..net }, Net { twice: 0, ..net }, Net { late: 0, ..net }];
    simpler.extend(nets.into_iter().map(|net| Scenario { net, ..scenario.clone() }));
    simpler.push(Scenario { clumsy: 0, ..scenario.clone() });
    simpler.push(Scenario { accepts: Accepts::Never, ..scenario.clone() });
    simpler.push(Scenario { leaves_out: false, ..scenario.clone() });
    simpler.push(Scenario { balancers: 1, ..scenario.clone() });
    simpler.push(Scenario { hosts: 1, ..scenario.clone() });
    simpler.retain(|other| other != scenario);
    simpler
}

/// The smallest scenario found that breaks this rule, and its history with every event told.
pub fn shorten(mut scenario: Scenario, options: Options, rule: &str) -> anyhow::Result<(Scenario, Report)> {
    while let Some(shorter) = simpler(&scenario).into_iter().find(|other| fails(other, options, rule)) {
        scenario = shorter;
    }
    let report = run(scenario.clone(), Options { trace: true, ..options })?;
    Ok((scenario, report))
}
