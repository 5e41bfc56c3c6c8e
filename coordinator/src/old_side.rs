//! The slot that visitors would go back to, while they may have to: the checks that the new slot is read by are made there too,
//! at a modest pace. So it is known whether there is a way back, and what fails on both slots is told from what fails on the
//! new one alone. It decides nothing.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use pointsman_checks::{Kind, Spec};
use pointsman_core::ports::{Clock, Fleet};
use pointsman_core::{
    Action, Check, CheckFrom, CheckName, CheckSeen, CheckVerdict, HostName, OnFail, Plan, ReleaseId, Step,
    Timestamp, several,
};

use crate::noted;

/// How often the old slot is looked at, in milliseconds: seldom enough that nobody notices, often enough that a pass is of
/// what still runs.
const EVERY_MS: u64 = 20_000;
/// How long a pass there says that the old slot can pass this check, in milliseconds.
const GOOD_FOR_MS: u64 = 120_000;
/// Time for the way there and back beside what the checks may take, in milliseconds.
const WAY_MS: u64 = 1_000;

/// What is known of one check on the old slot.
#[derive(Clone, Debug, Default)]
struct Found {
    /// When it last passed there, or was last found to fail on both slots: what it asks for is there, but for a fault that
    /// is shared.
    comparable_at: Option<Timestamp>,
    /// Since when it fails, having passed before, and how.
    fails: Option<(Timestamp, String)>,
}

#[derive(Debug, Default)]
struct Known {
    release: Option<ReleaseId>,
    checks: BTreeMap<CheckName, Found>,
}

/// What is known of the slot that visitors of one release would go back to.
#[derive(Debug, Default)]
pub struct OldSide {
    known: Mutex<Known>,
    /// It is asked one thing at a time: what visitors may need again is not to be busy with checks.
    asking: tokio::sync::Mutex<()>,
}

/// One check as it was made on the old slot, everywhere.
type Seen = BTreeMap<CheckName, (CheckVerdict, String)>;

impl OldSide {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks after the old slot of a release that is watched after this step, for as long as anybody waits.
    pub async fn look_after(
        &self,
        fleet: &impl Fleet,
        clock: &impl Clock,
        plan: Arc<Plan>,
        after: Step,
    ) -> Infallible {
        let checks = made_there(&plan);
        loop {
            if checks.is_empty() || plan.from.is_none() {
                std::future::pending::<Infallible>().await;
            }
            let seen = self.ask(fleet, &plan, after, &checks).await;
            self.note(&plan.release, clock.now(), &seen);
            clock.pause(EVERY_MS).await;
        }
    }

    /// What to say of the checks that failed on the new slot, where they fail on the old one too; nothing where that is not
    /// so, or not known. `in_row` says that they did a moment ago, in the same row of failures.
    pub async fn fails_too(
        &self,
        fleet: &impl Fleet,
        clock: &impl Clock,
        (plan, after, in_row): (&Plan, Step, bool),
        failed: &[CheckName],
    ) -> Vec<String> {
        let there = made_there(plan);
        let compared = self.comparable(&plan.release, clock.now(), failed, in_row);
        let compared: Vec<CheckName> =
            compared.into_iter().filter(|name| there.iter().any(|check| check.name == *name)).collect();
        let (Some(from), false) = (&plan.from, compared.is_empty()) else { return Vec::new() };
        let seen = self.ask(fleet, plan, after, &with_bases(&there, &compared)).await;
        let now = clock.now();
        self.note(&plan.release, now, &seen);
        let fails = |name: &CheckName| match seen.get(name) {
            Some((CheckVerdict::Failed, what)) => {
                Some(format!("check `{name}` fails on the old slot `{}` too: {what}", from.name))
            }
            _ => None,
        };
        // One that passes there is failed by the new slot alone.
        let said: Option<Vec<String>> = compared.iter().map(fails).collect();
        let said = said.unwrap_or_default();
        if !said.is_empty() {
            self.found_on_both(&plan.release, now, &compared);
        }
        said
    }

    /// What was seen there last: how many checks passed, or which of those that had passed before fails. None where nobody
    /// has looked, or nothing passed yet.
    pub fn seen(&self, release: &ReleaseId) -> Option<Result<String, String>> {
        let known = self.known();
        let ours = known.release.as_ref() == Some(release);
        let mut failing = known.checks.iter().filter(|_| ours).filter_map(|(name, found)| {
            let (since, what) = found.fails.as_ref()?;
            Some(format!("check `{name}` fails there since {}: {what}", clock_time(*since)))
        });
        if let Some(fails) = failing.next() {
            return Some(Err(fails));
        }
        let passed = known.checks.values().filter(|_| ours).filter_map(|found| found.comparable_at);
        let (count, at) = (passed.clone().count(), passed.max()?);
        Some(Ok(format!("{} passed there at {}", several(count, "check", "checks"), clock_time(at))))
    }

    /// The checks that can be compared: the old slot has passed them lately. Whoever has just begun, and knows of no pass at
    /// all, takes a row that both slots failed for what it was.
    fn comparable(
        &self,
        release: &ReleaseId,
        now: Timestamp,
        failed: &[CheckName],
        in_row: bool,
    ) -> Vec<CheckName> {
        let known = self.known();
        let ours = known.release.as_ref() == Some(release);
        let passed_ever = ours && known.checks.values().any(|found| found.comparable_at.is_some());
        let lately = |name: &&CheckName| {
            let at = known.checks.get(*name).and_then(|found| found.comparable_at);
            ours && at.is_some_and(|at| at <= now && now.ms_since(at) <= GOOD_FOR_MS)
        };
        failed.iter().filter(|name| lately(name) || (in_row && !passed_ever)).cloned().collect()
    }

    fn found_on_both(&self, release: &ReleaseId, now: Timestamp, names: &[CheckName]) {
        let mut known = self.known();
        if known.release.as_ref() != Some(release) {
            return;
        }
        for name in names {
            // One that never passed there, and was compared in a row of an earlier coordinator only, is not made comparable by
            // failing: it may be of something new.
            if let Some(found) = known.checks.get_mut(name).filter(|found| found.comparable_at.is_some()) {
                found.comparable_at = Some(now);
            }
        }
    }

    fn note(&self, release: &ReleaseId, now: Timestamp, seen: &Seen) {
        let mut known = self.known();
        if known.release.as_ref() != Some(release) {
            *known = Known { release: Some(release.clone()), ..Known::default() };
        }
        for (name, (verdict, what)) in seen {
            let found = known.checks.entry(name.clone()).or_default();
            match verdict {
                CheckVerdict::Passed => *found = Found { comparable_at: Some(now), fails: None },
                CheckVerdict::Failed if found.comparable_at.is_some() => {
                    found.fails.get_or_insert_with(|| (now, what.clone()));
                }
                // What never passed there is of something new; what cannot be seen says nothing.
                CheckVerdict::Failed | CheckVerdict::NotMade => {}
            }
        }
    }

    /// Makes checks on the old slot, everywhere at once. Who does not answer says nothing.
    async fn ask(&self, fleet: &impl Fleet, plan: &Plan, after: Step, checks: &[Check]) -> Seen {
        let _one_at_a_time = self.asking.lock().await;
        let bound: u64 = checks.iter().map(|check| check.bound_ms.max(check.timeout_ms)).sum();
        let timeout_ms = bound.saturating_add(WAY_MS).min(plan.reading_ms());
        let asked = orders(plan, after, checks);
        let answers = join_all(asked.iter().map(|(host, action)| async move {
            let mut answer = fleet.observe(host, action, timeout_ms).await;
            noted::taken(&mut answer)
        }));
        let mut all = Seen::new();
        for seen in answers.await.into_iter().flatten() {
            let CheckSeen { name, verdict, what, .. } = seen;
            match all.get_mut(&name) {
                Some(known) if known.0.worse(verdict) != known.0 => *known = (verdict, what),
                Some(_) => {}
                None => {
                    all.insert(name, (verdict, what));
                }
            }
        }
        all
    }
}

/// What is asked of whom so that checks are made on the old slot.
fn orders(plan: &Plan, after: Step, checks: &[Check]) -> Vec<(HostName, Action)> {
    let (Some(from), Some(route)) = (&plan.from, plan.route(after)) else { return Vec::new() };
    let of = |place| checks.iter().filter(|check| check.from == place).cloned().collect::<Vec<_>>();
    let (local, through) = (of(CheckFrom::Hosts), of(CheckFrom::Balancers));
    let probe = Action::ProbeBalancer {
        checks: through.clone(),
        backend: from.backend.clone(),
        epoch: route.epoch,
        // What HAProxy thinks of its servers is looked at elsewhere; here a check fails, or does not.
        min_up: 0,
        patience_ms: 0,
    };
    let balancers = plan.balancers.iter().filter(|_| !through.is_empty()).map(|host| (host, probe.clone()));
    let hosts = from.hosts.iter().filter(|_| !local.is_empty());
    let hosts = hosts.map(|host| (host, Action::ProbeHost { checks: local.clone(), artifact: None }));
    balancers.chain(hosts).map(|(host, action)| (host.clone(), action)).collect()
}

/// The gates of a plan that say something of the old slot, too. As the plan has them: one that asks for the new release never
/// passes there, and is never compared.
fn made_there(plan: &Plan) -> Vec<Check> {
    let mut made: Vec<Check> = Vec::new();
    for check in plan.checks.iter().filter(|check| check.after_switch) {
        let Some(spec) = pointsman_checks::parsed_alone(check) else { continue };
        let base = spec.after.as_ref().is_none_or(|after| made.iter().any(|made| made.name == *after));
        if base && is_of_a_slot(&spec) && leaves_nothing(&spec) {
            made.push(pointsman_checks::anew(check));
        }
    }
    made
}

/// Whether the slot that is asked answers, and not somebody who knows of both.
fn is_of_a_slot(spec: &Spec) -> bool {
    match spec.kind {
        Kind::Http { .. } | Kind::Steps(_) | Kind::Ows(_) | Kind::Hurl(_) => true,
        Kind::Alerts(_) | Kind::Metric(_) | Kind::TlsExpiry(_) => false,
    }
}

/// Whether the check may be made where nobody has asked for it: it only reads, or clears away what it made. What a file for
/// `hurl` does is not known.
fn leaves_nothing(spec: &Spec) -> bool {
    let clears = matches!(&spec.kind, Kind::Steps(steps) if steps.iter().any(|step| step.cleanup));
    spec.only_reads() || clears
}

/// These checks, with what they come after.
fn with_bases(checks: &[Check], names: &[CheckName]) -> Vec<Check> {
    let mut wanted: Vec<CheckName> = names.to_vec();
    // From the last to the first: what a check comes after stands before it.
    for check in checks.iter().rev().filter(|check| names.contains(&check.name)) {
        let mut next = pointsman_checks::after_of(check).ok().flatten();
        while let Some(base) = next.filter(|base| !wanted.contains(base)) {
            let found = checks.iter().find(|check| check.name == base);
            next = found.and_then(|check| pointsman_checks::after_of(check).ok().flatten());
            wanted.push(base);
        }
    }
    checks.iter().filter(|check| wanted.contains(&check.name)).cloned().collect()
}

/// The checks of a reading that failed, and that a release turns back for.
pub fn failed_in(plan: &Plan, seen: &[(HostName, Vec<CheckSeen>)]) -> Vec<CheckName> {
    let failed = seen.iter().flat_map(|(_, seen)| failed_of(plan, seen));
    let names: std::collections::BTreeSet<CheckName> = failed.cloned().collect();
    names.into_iter().collect()
}

/// The same of what one place has seen.
pub fn failed_of<'s>(plan: &Plan, seen: &'s [CheckSeen]) -> impl Iterator<Item = &'s CheckName> {
    let turns = |name: &CheckName| {
        let check = plan.checks.iter().find(|check| check.name == *name);
        check.and_then(pointsman_checks::parsed_alone).is_some_and(|spec| spec.on_fail == OnFail::Rollback)
    };
    let failed = seen.iter().filter(move |seen| seen.verdict == CheckVerdict::Failed && turns(&seen.name));
    failed.map(|seen| &seen.name)
}

/// The time of day, as a line has room for.
pub fn clock_time(at: Timestamp) -> String {
    let seconds = at.0 / 1_000;
    format!("{:02}:{:02}:{:02} UTC", seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{self, Agents, Hand};

    const CHECKS: &str = r#"
        [[checks]]
        name = "page"
        phase = ["after-switch"]
        http = { path = "/" }
        [[checks]]
        name = "local"
        phase = ["after-switch"]
        from = "hosts"
        http = { path = "/health" }
        [[checks]]
        name = "before"
        phase = ["before-switch"]
        http = { path = "/" }
        [[checks]]
        name = "errors"
        phase = ["after-switch"]
        metric = { url = "http://m:9090", query = "sum(up)", min = 1 }
        [[checks]]
        name = "login"
        phase = ["after-switch"]
        [[checks.steps]]
        post = "/login"
        [[checks]]
        name = "inside"
        phase = ["after-switch"]
        after = "login"
        http = { path = "/inside" }
        [[checks]]
        name = "creation"
        phase = ["after-switch"]
        after = "page"
        [[checks.steps]]
        post = "/features"
        [[checks.steps]]
        delete = "/features/1"
        cleanup = true
    "#;

    fn plan() -> Plan {
        fixture::plan(&fixture::environment(&["lb1"], CHECKS), "r2")
    }

    fn names(names: &[&str]) -> Vec<CheckName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    /// What is asked, and by which clock.
    #[derive(Default)]
    struct Rig {
        agents: Agents,
        clock: Hand,
    }

    /// Looks once.
    async fn look(side: &OldSide, Rig { agents, clock }: &Rig, plan: &Plan) {
        let looking = side.look_after(agents, clock, Arc::new(plan.clone()), Step::Switch);
        // It goes on for ever: until the pause after the look.
        let once = async {
            while agents.asked.lock().unwrap().is_empty() || agents.at_once.lock().unwrap().0 > 0 {
                tokio::task::yield_now().await;
            }
            tokio::task::yield_now().await;
        };
        tokio::select! { biased; never = looking => match never {}, () = once => {} }
    }

    async fn too(side: &OldSide, rig: &Rig, plan: &Plan, failed: &[&str], in_row: bool) -> usize {
        let Rig { agents, clock } = rig;
        side.fails_too(agents, clock, (plan, Step::Switch, in_row), &names(failed)).await.len()
    }

    #[tokio::test]
    async fn only_what_says_something_of_a_slot_and_leaves_nothing_is_made_there() {
        let (side, rig, plan) = (OldSide::default(), Rig::default(), plan());
        assert_eq!(side.seen(&plan.release), None);
        look(&side, &rig, &plan).await;
        let asked = rig.agents.asked.lock().unwrap().clone();
        let made =
            |checks: &[Check]| -> Vec<String> { checks.iter().map(|check| check.name.to_string()).collect() };
        match &asked[..] {
            [
                (lb, Action::ProbeBalancer { checks, backend, epoch, .. }),
                (blue, Action::ProbeHost { checks: local, artifact: None }),
            ] => {
                assert_eq!((lb.as_str(), blue.as_str(), backend.as_str()), ("lb1", "blue", "be_blue"));
                assert_eq!(*epoch, plan.route(Step::Switch).unwrap().epoch);
                assert_eq!(made(checks), ["page", "creation"]);
                assert_eq!(made(local), ["local"]);
                assert!(checks.iter().all(|check| check.spec.as_str().contains(r#""every":"0s""#)));
            }
            asked => panic!("{asked:?}"),
        }
        let said = side.seen(&plan.release).unwrap().unwrap();
        assert_eq!(said, "3 checks passed there at 00:00:00 UTC");
        assert_eq!(side.seen(&ReleaseId::parse("r3").unwrap()), None);
    }

    #[tokio::test]
    async fn what_passed_there_lately_and_fails_now_fails_on_both() {
        let (side, rig, plan) = (OldSide::default(), Rig::default(), plan());
        // What never passed there, or is not made there, is not compared, and nobody is asked.
        rig.agents.fail(&["page"]);
        assert_eq!(too(&side, &rig, &plan, &["page"], false).await, 0);
        assert!(rig.agents.asked.lock().unwrap().is_empty());
        look(&side, &rig, &plan).await;
        assert_eq!(too(&side, &rig, &plan, &["page"], false).await, 0);
        assert!(side.seen(&plan.release).unwrap().is_ok(), "what never passed there is no fault of it");
        rig.agents.fail(&[]);
        rig.agents.asked.lock().unwrap().clear();
        look(&side, &rig, &plan).await;
        assert_eq!(too(&side, &rig, &plan, &["errors", "login"], false).await, 0);

        // It passes there still: the new slot alone fails.
        assert_eq!(too(&side, &rig, &plan, &["page"], false).await, 0);
        rig.agents.fail(&["page", "local"]);
        let failed = ["page", "errors", "login"];
        assert_eq!(too(&side, &rig, &plan, &failed, false).await, 1);
        let (fails, now) = (side.seen(&plan.release).unwrap().unwrap_err(), rig.clock.now());
        assert_eq!((fails.as_str(), now.0), ("check `page` fails there since 00:00:00 UTC: seen", 0));
        // One of several passes there: something is wrong with the new slot alone.
        assert_eq!(too(&side, &rig, &plan, &["page", "creation"], false).await, 0);
        // Who does not answer says nothing.
        rig.agents.silence(&["lb1", "blue"]);
        assert_eq!(too(&side, &rig, &plan, &failed, false).await, 0);
        rig.agents.silence(&[]);

        // While it goes on it is known, however long; a pass of long ago is none.
        for _ in 0..5 {
            rig.clock.later(GOOD_FOR_MS);
            assert_eq!(too(&side, &rig, &plan, &["page"], false).await, 1);
        }
        rig.clock.later(GOOD_FOR_MS + 1);
        assert_eq!(too(&side, &rig, &plan, &["page"], true).await, 0);
        // A clock that was set back makes no pass of it.
        rig.clock.set(0);
        assert_eq!(too(&side, &rig, &plan, &["page"], false).await, 0);
        // Another coordinator knows of no pass; that the row is both slots' is in the journal.
        let other = OldSide::default();
        assert_eq!(too(&other, &rig, &plan, &["page"], false).await, 0);
        assert_eq!(too(&other, &rig, &plan, &["page"], true).await, 1);
    }

    #[tokio::test]
    async fn it_is_asked_one_thing_at_a_time() {
        let (side, rig, plan) = (OldSide::default(), Rig::default(), plan());
        look(&side, &rig, &plan).await;
        *rig.agents.at_once.lock().unwrap() = (0, 0);
        tokio::join!(
            too(&side, &rig, &plan, &["page"], false),
            too(&side, &rig, &plan, &["creation"], false),
            too(&side, &rig, &plan, &["page"], false),
        );
        assert_eq!(*rig.agents.at_once.lock().unwrap(), (0, 1));
        // What a check comes after is made with it.
        let asked = rig.agents.asked.lock().unwrap().clone();
        let with_base = asked
            .iter()
            .any(|(_, action)| matches!(action, Action::ProbeBalancer { checks, .. } if checks.len() == 2));
        assert!(with_base, "{asked:?}");
    }
}
