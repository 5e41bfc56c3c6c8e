//! What a release is judged by while visitors use it: chosen with the plan, frozen, in whole numbers so that a plan can be
//! compared and written down exactly.

use crate::signal::{self, is_judged};
use crate::verdict::{
    Against, Bounds, Choices, Counts, Dispersions, Excused, InvalidParams, Latency, MOST_BAD, Metric, Params,
    Tick, UNKNOWN_DISPERSION,
};
use crate::{BackendName, Before, Plan, RouteEpoch, State, Step, Timestamp, Usual, slower_than_ms};

/// What a verdict does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerdictMode {
    /// Nothing: nobody listens to the visitors' signals.
    Off,
    /// It is recorded and shown, and nothing follows from it.
    Shadow,
    /// It turns the release back, holds it, or ends a watch early.
    Act,
}

impl VerdictMode {
    /// Every mode, for tables.
    pub const ALL: [Self; 3] = [Self::Off, Self::Shadow, Self::Act];

    /// The word operators write.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Shadow => "shadow",
            Self::Act => "act",
        }
    }

    /// Finds the mode that a text names.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text)
    }
}

/// What follows when the visitors fare too badly in one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OnFail {
    /// It is recorded and shown.
    Warn,
    /// The release waits for a person.
    Hold,
    /// The release turns back.
    Rollback,
}

impl OnFail {
    /// Every action, for tables.
    pub const ALL: [Self; 3] = [Self::Warn, Self::Hold, Self::Rollback];

    /// The word operators write.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warn => "warn",
            Self::Hold => "hold",
            Self::Rollback => "rollback",
        }
    }

    /// Finds the action that a text names.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == text)
    }
}

/// How long, and by what, visitors' signals judge a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerdictPlan {
    /// What a verdict does.
    pub mode: VerdictMode,
    /// A watch ends as soon as the release is proven good, and not before this, in milliseconds. None: it takes its time.
    pub min_watch_ms: Option<u64>,
    /// A watch ends only when the release is proven good, and takes no longer than this, in milliseconds. None: it ends
    /// after its time, undecided or not.
    pub max_watch_ms: Option<u64>,
    /// How long visitors are watched on after the release is over, in milliseconds: if they fare too badly then, a release
    /// back begins by itself.
    pub after_ms: u64,
    /// For so long after a step that brings visitors, in milliseconds, nothing is made of how long they wait: caches are cold then.
    pub warm_up_ms: u64,
    /// Seconds that are judged as one: with more than 1 a failure of that many seconds turns nothing back, and everything is noticed
    /// that many times later.
    pub blip_s: u64,
    /// The new version is to mend a site that is over its limits already: where they are tighter than what was counted before,
    /// it is held to that instead of them.
    pub fix_forward: bool,
    /// Requests on the new slot before it counts as proven.
    pub min_requests: u64,
    /// Undecided after the longest watch: turn back instead of waiting for a person.
    pub undecided_turns_back: bool,
    /// Largest share of errors, in millionths.
    pub errors_ppm: u32,
    /// What follows from too many errors.
    pub on_errors: OnFail,
    /// Longest time of 99 of 100 requests, in milliseconds.
    pub p99_ms: u64,
    /// What follows from too many slow requests.
    pub on_slowness: OnFail,
    /// What the old slot was like before.
    pub before: Before,
}

impl Default for VerdictPlan {
    /// Nobody listens. The limits are those that hold where no others are written.
    fn default() -> Self {
        Self {
            mode: VerdictMode::Off,
            min_watch_ms: None,
            max_watch_ms: None,
            after_ms: 0,
            warm_up_ms: 0,
            blip_s: 1,
            fix_forward: false,
            min_requests: 0,
            undecided_turns_back: false,
            errors_ppm: 10_000,
            on_errors: OnFail::Rollback,
            p99_ms: 2_000,
            on_slowness: OnFail::Rollback,
            before: Before::default(),
        }
    }
}

/// Ticks are seconds. No watch is longer than a week of them, as the parameters of a judge demand.
const LONGEST_TICKS: u64 = 604_800;
/// Ticks over which attention is spread where a release is watched for less.
const LEAST_HORIZON: u64 = 3_600;

fn share(ppm: u32) -> f64 {
    f64::from(ppm) / 1e6
}

fn dispersion(milli: u64) -> f64 {
    (milli as f64 / 1_000.0).clamp(1.0, 10_000.0)
}

/// A limit that is passed before a release begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OverAlready {
    /// In what.
    pub metric: Metric,
    /// What was counted.
    pub usual: Usual,
    /// The largest share that is allowed.
    pub limit: f64,
}

impl VerdictPlan {
    /// Whether anything follows from a verdict.
    pub fn acts(&self) -> bool {
        self.mode == VerdictMode::Act
    }

    /// Whether a watch ends only with a verdict.
    pub fn must_decide(&self) -> bool {
        self.acts() && self.max_watch_ms.is_some()
    }

    /// What follows from too much of this.
    pub fn on_fail(&self, metric: Metric) -> OnFail {
        match metric {
            Metric::Errors => self.on_errors,
            Metric::Slowness => self.on_slowness,
        }
    }

    /// The metrics in which a release must be proven good: what only warns stands in nobody's way. Where both only warn a proof
    /// would say nothing without them.
    pub fn counting(&self) -> &'static [Metric] {
        match (self.on_errors, self.on_slowness) {
            (OnFail::Warn, OnFail::Hold | OnFail::Rollback) => &[Metric::Slowness],
            (OnFail::Hold | OnFail::Rollback, OnFail::Warn) => &[Metric::Errors],
            _ => &[Metric::Errors, Metric::Slowness],
        }
    }

    /// Requests that took longer than this are slower than before the release, in milliseconds. Without a measurement the
    /// limit stands for it.
    pub fn baseline_ms(&self) -> u64 {
        self.before.p99_ms.map_or(self.p99_ms, |p99_ms| slower_than_ms(p99_ms, self.p99_ms))
    }

    /// The share of requests that were slower than [`Self::baseline_ms`] before the release, and up to which share a version is no
    /// slower than that; none where too few were seen to say, and in plans of before that was measured.
    pub fn slower_before(&self) -> Option<(f64, f64)> {
        self.before.p99_ms?;
        let before = share(self.before.slower?.ppm);
        let Bounds { floor, ratio, .. } = Bounds::SLOWNESS;
        Some((before, (ratio * before).max(floor).min(MOST_BAD)))
    }

    /// What the limits ask of the new slot.
    fn written(&self, metric: Metric) -> Bounds {
        match metric {
            Metric::Errors => {
                let limit = share(self.errors_ppm);
                Bounds { limit, floor: limit / 2.0, ..Bounds::ERRORS }
            }
            Metric::Slowness => Bounds::SLOWNESS,
        }
    }

    /// What the new slot must keep to: a mend has to be no worse than what it mends.
    fn bounds(&self, metric: Metric) -> Bounds {
        let written = self.written(metric);
        let usual = self.usual(metric).filter(|_| self.fix_forward);
        usual
            .map_or(written, |usual| Bounds { limit: written.limit.max(usual.no_worse(&written)), ..written })
    }

    /// Whether the new slot is held to anything but the old one. Of a mend nobody can say what it must keep to where nothing is
    /// known of what served before, and in plans of before that was kept.
    pub fn limits_count(&self) -> bool {
        !self.fix_forward || self.before.usual.is_some()
    }

    /// The largest share of bad requests that the new slot is held to; none where it is held to the old slot alone.
    pub fn limit(&self, metric: Metric) -> Option<f64> {
        self.limits_count().then(|| self.bounds(metric).limit)
    }

    /// What was counted before.
    fn usual(&self, metric: Metric) -> Option<Usual> {
        self.before.usual.map(|(errors, over_limit)| match metric {
            Metric::Errors => errors,
            Metric::Slowness => over_limit,
        })
    }

    /// Up to which share of bad requests a version that is over the limit is no worse than what served before: where that was
    /// over it already. 0 where it was not, or nothing is known.
    fn excused(&self, metric: Metric) -> f64 {
        let bounds = self.written(metric);
        let lasting = self.usual(metric).filter(|_| !self.fix_forward).map_or(0.0, |usual| usual.lasting());
        if lasting > bounds.limit { (bounds.ratio * lasting).min(MOST_BAD) } else { 0.0 }
    }

    /// Where what serves is clearly over a limit already that decides: a version that is as good would be turned back, or
    /// held, for what it does not bring. A version that is to mend it is asked for nothing here.
    pub fn over_already(&self) -> Option<OverAlready> {
        let bunches = |metric| {
            self.before.bunches_milli.map_or(UNKNOWN_DISPERSION, |(errors, over_limit)| {
                dispersion(if metric == Metric::Errors { errors } else { over_limit })
            })
        };
        let decides = self.acts() && !self.fix_forward;
        [Metric::Errors, Metric::Slowness]
            .into_iter()
            .filter(|metric| decides && self.on_fail(*metric) != OnFail::Warn)
            .find_map(|metric| {
                let (usual, limit) = (self.usual(metric)?, self.written(metric).limit);
                usual.clearly_over(limit, bunches(metric)).then_some(OverAlready { metric, usual, limit })
            })
    }

    /// The parameters of the judge, for watches of so many milliseconds in all before the release is over.
    pub fn params(&self, watched_ms: u64) -> Result<Params, InvalidParams> {
        let horizon = (watched_ms.saturating_add(self.after_ms) / 1_000).clamp(LEAST_HORIZON, LONGEST_TICKS);
        let [errors, slowness] = [Metric::Errors, Metric::Slowness].map(|metric| self.bounds(metric));
        let dispersions =
            self.before.bunches_milli.map_or(Dispersions::UNKNOWN, |(errors, slow)| Dispersions {
                errors: dispersion(errors),
                over_limit: dispersion(slow),
                over_baseline: dispersion(self.before.slower.map_or(slow, |slower| slower.bunches_milli)),
            });
        Params::new(Choices {
            errors,
            slowness,
            dispersions,
            excused: Excused {
                errors: self.excused(Metric::Errors),
                over_limit: self.excused(Metric::Slowness),
            },
            against: if self.limits_count() { Against::LimitsAndOldSlot } else { Against::OldSlot },
            horizon,
            // When a watch may end, and must, the release engine says: it also counts what nobody watched.
            min_watch: 1,
            max_watch: Choices::NO_END,
            blip: self.blip_s,
            ..Choices::default()
        })
    }
}

/// Which requests of a backend count.
#[derive(Clone, Copy, Debug)]
struct Since {
    /// Those that this route, or a later one, brought there.
    route: RouteEpoch,
    /// Those whose line does not say its route, too.
    unsaid: bool,
}

impl Since {
    fn holds(self, epoch: RouteEpoch) -> bool {
        if epoch == RouteEpoch(0) { self.unsaid } else { epoch >= self.route }
    }
}

/// Requests and failures of one backend, from a route on.
fn counts(
    second: &signal::Tick,
    backend: &BackendName,
    since: Since,
    (limit, baseline): (u64, u64),
) -> Counts {
    let mut sum = [0u64; 6];
    for (key, cell) in &second.cells {
        let ours = key.backend == *backend && since.holds(key.epoch);
        if !ours || !is_judged(&key.class) {
            continue;
        }
        let latency = &cell.latency;
        // Whoever gave up after the limit is a slow request by both measures; the baseline is never above it.
        let given_up = cell.given_up(limit);
        let slow = [latency.total(), latency.above(limit), latency.above(baseline)];
        let slow = slow.map(|timed| timed.saturating_add(given_up));
        let found = [cell.judged(), cell.failed_by_servers(), given_up].into_iter().chain(slow);
        for (sum, found) in sum.iter_mut().zip(found) {
            *sum = sum.saturating_add(found);
        }
    }
    let [requests, errors, given_up, timed, over_limit, over_baseline] =
        sum.map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    Counts { requests, errors, given_up, timed, over_limit, over_baseline }
}

impl Plan {
    /// All the time that visitors may be watched in this release, in milliseconds.
    pub fn watched_ms(&self) -> u64 {
        self.steps().iter().filter_map(|step| self.watch_ms(*step)).fold(0, u64::saturating_add)
    }

    /// What visitors met on the slot that is being released. The release's own checks are no visitors, and what the slot
    /// answered before the release was there is not its own.
    pub fn judged_new(&self, second: &signal::Tick) -> Counts {
        let route = self.route(Step::Expose).map_or(RouteEpoch(0), |route| route.epoch);
        // A line that does not say its route says enough by its backend.
        counts(second, &self.to.backend, Since { route, unsaid: true }, self.slow_ms())
    }

    /// What visitors met meanwhile on the slot that served before, where they are watched after this step. Whoever an
    /// earlier route brought there says nothing of now: when all visitors have been led away only the slowest requests
    /// are left, and such a slot would seem sick for as long as they come.
    fn judged_old(&self, second: &signal::Tick, after: Step) -> Counts {
        let Some(slot) = &self.from else { return Counts::default() };
        let route = self.route(after);
        let unsaid = route.as_ref().is_none_or(|route| route.share_of(&slot.backend) > 0);
        let route = route.map_or(RouteEpoch(0), |route| route.epoch);
        counts(second, &slot.backend, Since { route, unsaid }, self.slow_ms())
    }

    /// What was asked on both slots by no visitor.
    pub fn probed(&self, second: &signal::Tick) -> signal::Probed {
        let of = |slot: &crate::SlotPlan| second.probes.get(&slot.backend).copied().unwrap_or_default();
        signal::Probed { new: of(&self.to), old: self.from.as_ref().map(of).unwrap_or_default() }
    }

    /// Slower than the limit, and than before.
    fn slow_ms(&self) -> (u64, u64) {
        (self.verdict.p99_ms, self.verdict.baseline_ms())
    }

    /// A second of signals as this release is judged by it, where visitors are watched after this step.
    pub fn judged_tick(&self, number: u64, second: &signal::Tick, after: Step) -> Tick {
        Tick {
            number,
            new: self.judged_new(second),
            old: self.judged_old(second, after),
            latency: if second.latency_usable() { Latency::Known } else { Latency::Unknown },
        }
    }
}

impl State {
    /// Until when the slot that is being released may be slow because nobody has asked it for much yet: since visitors were moved
    /// to it last, as the journal has it, so that a coordinator which starts anew says the same.
    fn warm_at(&self) -> Timestamp {
        let step = self.visitors_since();
        let moves = self.orders.iter().filter(|(key, _)| key.step == step);
        let moved_at = moves.map(|(_, progress)| progress.at).max();
        // However long that may be: half of a watch is judged by its times too.
        let half_ms = self.plan.watch_ms(step).map_or(u64::MAX, |watch_ms| watch_ms / 2);
        moved_at.map_or(Timestamp(0), |at| at.plus_ms(self.plan.verdict.warm_up_ms.min(half_ms)))
    }

    /// The second numbered by the coordinator's clock as this release is judged by it where it stands. While the new slot warms up
    /// its times are no data, neither for it nor against it; its errors are, and so is all of the old slot's.
    pub fn judged_tick(&self, number: u64, second: &signal::Tick) -> Tick {
        let tick = self.plan.judged_tick(number, second, self.visitors_since());
        if Timestamp(number.saturating_mul(1_000)) >= self.warm_at() {
            return tick;
        }
        Tick { new: Counts { given_up: 0, timed: 0, over_limit: 0, over_baseline: 0, ..tick.new }, ..tick }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Part;

    #[test]
    fn the_defaults_can_be_judged_by() {
        let plan = VerdictPlan::default();
        assert_eq!(plan.params(0).unwrap().choices().errors, Bounds::ERRORS);
        assert_eq!(plan.params(u64::MAX).unwrap().choices().horizon, LONGEST_TICKS);
        for mode in VerdictMode::ALL {
            assert_eq!(VerdictMode::parse(mode.as_str()), Some(mode));
        }
        for action in OnFail::ALL {
            assert_eq!(OnFail::parse(action.as_str()), Some(action));
        }
    }

    #[test]
    fn as_many_seconds_are_judged_as_one_as_the_plan_says() {
        let blip = |blip_s| {
            let params = VerdictPlan { blip_s, ..VerdictPlan::default() }.params(0);
            params.map(|params| params.choices().blip)
        };
        assert_eq!([blip(1), blip(5), blip(60)], [Ok(1), Ok(5), Ok(60)]);
        assert!(blip(0).is_err() && blip(61).is_err());
        assert_eq!(
            VerdictPlan::default().params(0),
            Params::new(*Params::default().choices()).and_then(|params| {
                Params::new(Choices { min_watch: 1, max_watch: Choices::NO_END, ..*params.choices() })
            })
        );
    }

    fn visitors(backend: &str, epoch: u64, cell: signal::Cell) -> (signal::CellKey, signal::Cell) {
        let (backend, class) = (backend.parse().unwrap(), crate::RouteClass::parse("other").unwrap());
        (signal::CellKey { backend, epoch: RouteEpoch(epoch), class }, cell)
    }

    fn answered(cell: &mut signal::Cell, times: u64, status: u16, took_ms: Option<u64>) {
        (0..times).for_each(|_| cell.count(signal::Ending::Answered, status, took_ms, Default::default()));
    }

    #[test]
    fn what_only_another_try_brought_is_judged_as_failed() {
        let mut cell = signal::Cell::default();
        answered(&mut cell, 8, 200, Some(40));
        let again = signal::Retries { count: 1, redispatched: true };
        cell.count(signal::Ending::Answered, 200, Some(1_040), again);
        cell.count(signal::Ending::Failed { unconnected: true }, 503, None, again);
        let second = signal::Tick { cells: [visitors("be_green", 4, cell)].into(), ..Default::default() };
        let since = Since { route: RouteEpoch(4), unsaid: true };
        let found = counts(&second, &"be_green".parse().unwrap(), since, (2_000, 500));
        assert_eq!((found.requests, found.errors), (10, 2));
    }

    #[test]
    fn a_websocket_that_closes_is_a_request_and_not_a_slow_one() {
        let mut cell = signal::Cell::default();
        answered(&mut cell, 97, 200, Some(40));
        answered(&mut cell, 3, 101, Some(600_000));
        assert_eq!(cell.timed(), signal::Coverage { seen: 97, expected: 97 });
        let second = signal::Tick { cells: [visitors("be_green", 4, cell)].into(), ..Default::default() };
        let since = Since { route: RouteEpoch(4), unsaid: true };
        let found = counts(&second, &"be_green".parse().unwrap(), since, (2_000, 500));
        assert_eq!(found, Counts { requests: 100, timed: 97, ..Counts::default() });
    }

    #[test]
    fn a_version_that_hangs_until_its_visitors_leave_is_slow() {
        let mut cell = signal::Cell::default();
        let left = |ms| (signal::Ending::ClientLeft { unanswered: true }, Some(ms));
        for (ending, ms) in [left(1_900), left(2_100), left(60_000)] {
            cell.count(ending, 0, ms, Default::default());
        }
        let second = signal::Tick {
            cells: [visitors("be_green", 4, cell)].into(),
            coverage: Some(signal::Coverage { seen: 3, expected: 3 }),
            ..Default::default()
        };
        let since = Since { route: RouteEpoch(4), unsaid: true };
        let found = counts(&second, &"be_green".parse().unwrap(), since, (2_000, 500));
        let slow = Counts { given_up: 2, timed: 2, over_limit: 2, over_baseline: 2, ..Counts::default() };
        assert_eq!((found, second.latency_usable()), (slow, true));
        // Nobody is answered and nobody stays: what is left is enough to fall by.
        let mut judge = crate::verdict::Judge::new(VerdictPlan::default().params(0).unwrap());
        let tick = |number| Tick { number, new: found, old: Counts::default(), latency: Latency::Known };
        let fell =
            (1..=10).find(|number| judge.step(&tick(*number)).verdict() == crate::verdict::Verdict::Rollback);
        assert_eq!(fell, Some(3));
    }

    #[test]
    fn attention_lasts_as_long_as_anybody_watches() {
        let plan = VerdictPlan { after_ms: 7_200_000, ..VerdictPlan::default() };
        assert_eq!(plan.params(0).unwrap().choices().horizon, 7_200);
    }

    #[test]
    fn what_mends_a_site_is_held_to_what_was_counted_before() {
        let mend = |before| VerdictPlan { fix_forward: true, ..acting(before) };
        let limits = |plan: &VerdictPlan| {
            let choices = *plan.params(0).unwrap().choices();
            assert_eq!(choices.against, Against::LimitsAndOldSlot);
            assert!(!plan.fix_forward || choices.excused == Excused::default());
            (choices.errors.limit, choices.slowness.limit)
        };
        let near = |(errors, slow): (f64, f64), (wanted, too): (f64, f64)| {
            assert!((errors - wanted).abs() < 1e-9 && (slow - too).abs() < 1e-9, "{errors} {slow}");
        };
        near(limits(&mend(before(270, 360))), (0.06, 0.05));
        near(limits(&mend(before(45, 45))), (0.01, 0.01));
        near(limits(&acting(before(270, 360))), (0.01, 0.01));
        // The comparison with what serves meanwhile stays as it is.
        assert_eq!(mend(before(270, 0)).params(0).unwrap().choices().errors.floor, Bounds::ERRORS.floor);
        let unknown = mend(Before { usual: None, ..before(270, 360) });
        assert_eq!(unknown.params(0).unwrap().choices().against, Against::OldSlot);
        assert_eq!((unknown.limit(Metric::Errors), unknown.limits_count()), (None, false));
        assert_eq!(mend(before(0, 360)).limit(Metric::Errors), Some(0.01));
    }

    fn bad(bad: u64) -> Usual {
        let part = |bad, requests| Part { bad, requests };
        Usual { whole: part(bad, 9_000), lately: part(bad * 2 / 15, 1_200) }
    }

    fn acting(before: Before) -> VerdictPlan {
        VerdictPlan { mode: VerdictMode::Act, before, ..VerdictPlan::default() }
    }

    fn before(errors: u64, slow: u64) -> Before {
        let (bunches_milli, usual) = (Some((1_000, 1_000)), Some((bad(errors), bad(slow))));
        Before { seconds: 900, requests: 9_000, bunches_milli, usual, ..Before::default() }
    }

    #[test]
    fn a_site_over_a_limit_is_found_before_a_release_begins() {
        let over = |plan: VerdictPlan| plan.over_already().map(|over| over.metric);
        let (failing, slow, well) = (before(270, 0), before(0, 270), before(60, 60));
        assert_eq!(over(acting(failing)), Some(Metric::Errors));
        assert_eq!(over(acting(slow)), Some(Metric::Slowness));
        assert_eq!(over(acting(well)), None);
        assert_eq!(over(acting(Before { usual: None, ..failing })), None, "nothing is known");
        let warns = VerdictPlan { on_errors: OnFail::Warn, ..acting(failing) };
        assert_eq!(over(warns), None);
        assert_eq!(over(VerdictPlan { on_errors: OnFail::Hold, ..acting(failing) }), Some(Metric::Errors));
        assert_eq!(over(VerdictPlan { mode: VerdictMode::Shadow, ..acting(failing) }), None);
        assert_eq!(over(VerdictPlan { errors_ppm: 50_000, ..acting(failing) }), None, "allowed");
        assert_eq!(over(VerdictPlan { fix_forward: true, ..acting(failing) }), None);
    }

    #[test]
    fn only_what_was_over_the_limit_before_is_excused() {
        let excused = |before| acting(before).params(0).unwrap().choices().excused;
        let found = excused(before(270, 360));
        assert!((found.errors - 0.06).abs() < 1e-9 && (found.over_limit - 0.05).abs() < 1e-9, "{found:?}");
        assert_eq!(excused(before(80, 80)), Excused::default());
        assert_eq!(excused(before(9_000, 0)).errors, MOST_BAD);
        assert_eq!(excused(Before { usual: None, ..before(270, 360) }), Excused::default());
    }

    #[test]
    fn slower_than_before_is_never_slower_than_allowed() {
        let with =
            |p99_ms| VerdictPlan { before: Before { p99_ms, ..Before::default() }, ..VerdictPlan::default() };
        let found = [None, Some(0), Some(400), Some(1_900)].map(|before| with(before).baseline_ms());
        assert_eq!(found, [2_000, 20, 500, 2_000]);
    }
}
