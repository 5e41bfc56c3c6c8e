//! Every single crash: of everybody, HAProxy included, at every point of every calm scenario: before and after each write of the journal,
//! each order, each effect and each answer.

use std::collections::BTreeMap;

use pointsman_core::Outcome;

use crate::chance::Chance;
use crate::history::{Options, Report, run};
use crate::host::Host;
use crate::scenario::{Scenario, calm};
use crate::world::{CrashAt, Who};

/// What came of the crashes.
#[derive(Debug, Default)]
pub struct Crashes {
    /// Scenarios.
    pub scenarios: u64,
    /// Points in all of them.
    pub points: u64,
    /// Histories with a crash.
    pub runs: u64,
    /// Those after which every release ended by itself and no rule was broken.
    pub resolved: u64,
    /// Those of which the releases ended otherwise than without a crash: by who crashed and how they ended.
    pub otherwise: BTreeMap<String, u64>,
    /// The others: scenario, crashes, and what was wrong.
    pub unresolved: Vec<(String, [Option<CrashAt>; 2], String)>,
}

/// Unresolved crashes that are kept; the others are only counted.
const KEPT: usize = 20;

impl Crashes {
    fn try_out(
        &mut self,
        (name, scenario): (&str, &Scenario),
        usual: &[Option<Outcome>],
        crashes: [Option<CrashAt>; 2],
    ) -> anyhow::Result<()> {
        let report = run(scenario.clone(), Options { crashes, ..Options::default() })?;
        self.runs += 1;
        if report.outcomes != usual {
            let who: Vec<&str> = crashes
                .iter()
                .flatten()
                .map(|crash| match crash.who {
                    Who::Coordinator => "coordinator",
                    Who::Agent(_) => "agent",
                    Who::Haproxy(_) => "haproxy",
                })
                .collect();
            let ends: Vec<&str> =
                report.outcomes.iter().map(|end| end.map_or("open", Outcome::as_str)).collect();
            *self
                .otherwise
                .entry(format!("{name}: {}: {}", who.join(" and "), ends.join(", ")))
                .or_default() += 1;
        }
        let ended = report.outcomes.iter().all(Option::is_some)
            && report.outcomes.len() + report.given_up == scenario.wishes.len();
        let wrong = match report.violation {
            Some(violation) => format!("{}: {}", violation.rule, violation.what),
            None if report.helped > 0 => format!("a person had to help {} times", report.helped),
            None if !ended => format!("ended as {:?}", report.outcomes),
            None => {
                self.resolved += 1;
                return Ok(());
            }
        };
        if self.unresolved.len() < KEPT {
            self.unresolved.push((name.to_owned(), crashes, wrong));
        }
        Ok(())
    }
}

fn everybody(scenario: &Scenario) -> anyhow::Result<Vec<Who>> {
    let environment = crate::site::environment(scenario)?;
    let hosts = Host::all(&environment, scenario);
    let of_host = |(number, host): (usize, &Host)| {
        let haproxy = host.balancer().map(|_| Who::Haproxy(number));
        std::iter::once(Who::Agent(number)).chain(haproxy).collect::<Vec<Who>>()
    };
    Ok(std::iter::once(Who::Coordinator).chain(hosts.iter().enumerate().flat_map(of_host)).collect())
}

impl Crashes {
    /// The history of the first unresolved crash, with every event told.
    pub fn first_story(&self) -> anyhow::Result<Option<(Scenario, Report)>> {
        let Some((name, crashes, _)) = self.unresolved.first() else { return Ok(None) };
        let Some((_, scenario)) = calm().into_iter().find(|(known, _)| known == name) else {
            return Ok(None);
        };
        let report = run(scenario.clone(), Options { crashes: *crashes, trace: true, ..Options::default() })?;
        Ok(Some((scenario, report)))
    }
}

/// Tries every single crash, and then so many pairs of crashes, drawn by chance.
pub fn try_all(pairs: u64) -> anyhow::Result<Crashes> {
    let mut crashes = Crashes::default();
    let scenarios = calm();
    let mut points = Vec::new();
    for (name, scenario) in &scenarios {
        let calm = run(scenario.clone(), Options::default())?;
        let most = calm.points;
        crashes.scenarios += 1;
        crashes.points += most;
        points.push((most, calm.outcomes.clone()));
        let all = everybody(scenario)?;
        for point in 1..=most {
            for who in &all {
                let crash = Some(CrashAt { point, who: *who });
                crashes.try_out((name, scenario), &calm.outcomes, [crash, None])?;
            }
        }
    }
    let mut chance = Chance::from_seed(pairs);
    for _ in 0..pairs {
        let index = usize::try_from(chance.below(scenarios.len() as u64)).unwrap_or(0);
        let (Some((name, scenario)), Some((most, usual))) = (scenarios.get(index), points.get(index)) else {
            continue;
        };
        let all = everybody(scenario)?;
        let mut crash = || {
            let who = chance.pick(&all, Who::Coordinator);
            // The second may come after the history would have ended without the first.
            Some(CrashAt { point: chance.between(1, most + 40), who })
        };
        crashes.try_out((name, scenario), usual, [crash(), crash()])?;
    }
    Ok(crashes)
}
