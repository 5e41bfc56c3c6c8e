//! Verdicts, as people look at them.

use pointsman_core::verdict::{Expected, Metric, Params, requests_to_promote};
use pointsman_core::{Counted, Judged, MetricJudged, Plan, Step, VerdictMode};

use crate::v1;

fn millionths(ppm: u32) -> f64 {
    f64::from(ppm) / 1e6
}

fn thousandths(milli: u64) -> f64 {
    milli as f64 / 1_000.0
}

fn count_to_wire(counted: &Counted) -> v1::VerdictCount {
    let (low, high) = counted.between_ppm;
    v1::VerdictCount {
        bad: counted.bad,
        requests: counted.requests,
        low: millionths(low),
        high: millionths(high),
    }
}

fn metric_to_wire(metric: &MetricJudged) -> v1::VerdictMetric {
    v1::VerdictMetric {
        new_slot: Some(count_to_wire(&metric.new)),
        old_slot: Some(count_to_wire(&metric.old)),
        e_over_limit: thousandths(metric.over_limit_milli),
        e_worse_than_old: thousandths(metric.worse_milli),
        evidence_within_limit: thousandths(metric.within_milli),
        evidence_not_worse: thousandths(metric.not_worse_milli),
    }
}

/// A verdict for the wire, as it was recorded in a release of this plan.
pub fn verdict_to_wire(plan: &Plan, judged: &Judged) -> v1::Verdict {
    v1::Verdict {
        verdict: judged.verdict.to_string(),
        told: judged.told.clone(),
        errors: Some(metric_to_wire(&judged.errors)),
        slowness: Some(metric_to_wire(&judged.slowness)),
        seconds: judged.seconds,
        rollback_at: thousandths(judged.rollback_at_milli),
        promote_at: thousandths(judged.promote_at_milli),
        requests_needed: judged.needed,
        warns: judged.warns,
        shared: judged.shared,
        chart: Vec::new(),
        chart_slow: Vec::new(),
        blind: String::new(),
        unkept: String::new(),
        no_way_back: String::new(),
        probes_new: None,
        probes_old: None,
        shadow: plan.verdict.mode == VerdictMode::Shadow,
        slowed: judged.slowed.as_ref().and_then(|now| slowed_to_wire(plan, now)),
    }
}

fn slowed_to_wire(plan: &Plan, now: &Counted) -> Option<v1::VerdictSlowed> {
    let (before, _) = plan.verdict.slower_before()?;
    Some(v1::VerdictSlowed {
        over_ms: plan.verdict.baseline_ms(),
        p99_before_ms: plan.verdict.before.p99_ms?,
        before,
        now: Some(count_to_wire(now)),
    })
}

/// What a plan is judged by, with what to expect of it; nothing where visitors are not watched.
pub fn verdict_plan_to_wire(plan: &Plan) -> Option<v1::VerdictPlan> {
    if plan.watched_ms() == 0 {
        return None;
    }
    let verdict = &plan.verdict;
    let before = &verdict.before;
    let params = verdict.params(plan.watched_ms()).ok();
    let needed = params.as_ref().and_then(|params| requests_to_promote(params, &expected(plan)));
    let rate = if before.seconds > 0 { before.requests as f64 / before.seconds as f64 } else { 0.0 };
    let undecided = if verdict.undecided_turns_back { "rollback" } else { "hold" };
    Some(v1::VerdictPlan {
        mode: verdict.mode.as_str().to_owned(),
        min_watch_ms: verdict.min_watch_ms.unwrap_or(0),
        max_watch_ms: verdict.max_watch_ms.unwrap_or(0),
        min_requests: verdict.min_requests,
        on_undecided: if verdict.must_decide() { undecided.to_owned() } else { String::new() },
        error_rate: millionths(verdict.errors_ppm),
        on_errors: verdict.on_errors.as_str().to_owned(),
        p99_ms: verdict.p99_ms,
        on_slowness: verdict.on_slowness.as_str().to_owned(),
        announced: announced(plan, params.as_ref(), needed, rate),
        requests_needed: needed.unwrap_or(0),
        rate,
        p99_before_ms: before.p99_ms.unwrap_or(0),
        after_ms: verdict.after_ms,
        fix_forward: verdict.fix_forward,
        errors_held_to: verdict.limit(Metric::Errors).unwrap_or(0.0),
        slow_held_to: verdict.limit(Metric::Slowness).unwrap_or(0.0),
        blip_s: verdict.blip_s,
    })
}

/// What a release is expected to do that is as good as what serves. What only warns needs no proof.
fn expected(plan: &Plan) -> Expected {
    let (verdict, before) = (&plan.verdict, &plan.verdict.before);
    let counts = |metric, ppm| if verdict.counting().contains(&metric) { millionths(ppm) } else { 0.0 };
    // Plans of before this was measured: what is slower than before was rarer than one in a hundred then.
    let slower_ppm = before.slower.map_or(before.over_limit_ppm, |slower| slower.ppm);
    Expected {
        errors: counts(Metric::Errors, before.errors_ppm),
        over_limit: counts(Metric::Slowness, before.over_limit_ppm),
        over_baseline: counts(Metric::Slowness, slower_ppm),
        new_share: watches(plan).first().map_or(1.0, |watch| watch.share),
    }
}

/// One watch of a release.
struct Watch {
    /// The share of the visitors that the new slot has in it.
    share: f64,
    /// How long it takes at most.
    seconds: f64,
}

fn watches(plan: &Plan) -> Vec<Watch> {
    let watch = |step: &Step| {
        let seconds = plan.watch_ms(*step)? as f64 / 1_000.0;
        let percent = plan.route(*step).map_or(100, |route| route.share_of(&plan.to.backend));
        Some(Watch { share: f64::from(percent) / 100.0, seconds })
    };
    plan.steps().iter().filter_map(watch).collect()
}

/// A time in words.
fn in_words(seconds: f64) -> String {
    match seconds {
        _ if seconds < 100.0 => format!("{seconds:.0} s"),
        _ if seconds < 6_000.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3_600.0),
    }
}

/// A share in percent, to the hundredth.
fn percent(share: f64) -> String {
    format!("{} %", (share * 10_000.0).round() / 100.0)
}

/// What to expect of the visitors' signals, before anything begins.
fn announced(plan: &Plan, params: Option<&Params>, needed: Option<u64>, rate: f64) -> String {
    let verdict = &plan.verdict;
    if verdict.mode == VerdictMode::Off {
        let released = matches!(plan.purpose, pointsman_core::Purpose::Deploy { .. });
        return match released {
            true => "they decide nothing here: no load balancer has signals of them, or `verdict = \"off\"`"
                .to_owned(),
            false => String::new(),
        };
    }
    let watches = watches(plan);
    let Some(needed) = needed else {
        return format!("{}; {}", unprovable(plan, params), undecided(plan, &watches));
    };
    let needed = needed.max(verdict.min_requests);
    let proof = format!("proving it good needs about {needed} requests on `{}`", plan.to.name);
    if rate <= 0.0 {
        return format!("{proof}; no visitor was seen lately, so nobody knows how long that takes");
    }
    let share = watches.first().map_or(1.0, |watch| watch.share);
    let seconds = needed as f64 / (rate * share);
    let mut at = format!("{} at {rate:.1} requests/s", in_words(seconds));
    if share < 1.0 {
        at = format!("{at} and {} of them there", percent(share));
    }
    let come: f64 = watches.iter().map(|watch| rate * watch.share * watch.seconds).sum();
    // Where a proof is demanded the first watch needs it; else all of them together gather evidence.
    let too_long = match watches.first() {
        Some(first) if verdict.must_decide() => seconds > first.seconds,
        _ => needed as f64 > come,
    };
    if too_long {
        format!("{proof}: {at}, longer than it is watched; {}", undecided(plan, &watches))
    } else {
        format!("{proof}: {at}")
    }
}

/// What follows where nothing is proven.
fn undecided(plan: &Plan, watches: &[Watch]) -> String {
    let verdict = &plan.verdict;
    let (watch, follows) = match watches {
        [first, ..] if verdict.must_decide() => {
            let turns_back = verdict.undecided_turns_back && plan.automatic_rollback;
            (
                format!("the watch of {}", in_words(first.seconds)),
                if turns_back { "turns back" } else { "is held" },
            )
        }
        [only] => (format!("the watch of {}", in_words(only.seconds)), "goes on"),
        all => {
            let together = all.iter().map(|watch| watch.seconds).sum();
            (format!("the watches of {} in all", in_words(together)), "goes on")
        }
    };
    let ends = if watches.len() > 1 && !verdict.must_decide() { "end" } else { "ends" };
    format!("{watch} {ends} undecided, and the release {follows}")
}

/// Why no number of requests proves a release good that is as good as what serves: by the numbers that stand against each other.
fn unprovable(plan: &Plan, params: Option<&Params>) -> String {
    let Some(params) = params else { return "visitors cannot be judged by this plan".to_owned() };
    let (verdict, expected, choices) = (&plan.verdict, expected(plan), params.choices());
    let errors = Expected { over_limit: 0.0, over_baseline: 0.0, ..expected };
    let (does, asked, [of_first, of_other]) = match requests_to_promote(params, &errors) {
        None => (format!("fails {} of its requests", percent(expected.errors)), choices.errors, ["", ""]),
        Some(_) => {
            let does = format!(
                "takes longer than {} ms for {} of its requests and longer than {} ms for {}",
                verdict.p99_ms,
                percent(expected.over_limit),
                verdict.baseline_ms(),
                percent(expected.over_baseline)
            );
            (does, choices.slowness, [" of the first", " of the other"])
        }
    };
    let (limit, floor) = (percent(asked.limit), percent(asked.floor));
    let other = match expected.new_share < 1.0 {
        true => format!("below {floor}{of_other} or no worse than the old slot"),
        false => format!("with nobody on the old slot to compare with below {floor}{of_other}"),
    };
    format!(
        "what serves {does}, and no number of them proves a version good that does too: below {limit}{of_first} is asked, \
         and {other}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    use pointsman_core::{
        Activation, ArtifactDigest, Before, DrainEnd, Limits, Purpose, ReleaseId, Route, RouteEpoch,
        SlotPlan, Slower, Split, Timestamp, VerdictPlan, WatchPlan,
    };

    fn slot(name: &str) -> SlotPlan {
        SlotPlan {
            name: name.parse().unwrap(),
            backend: format!("be_{name}").parse().unwrap(),
            hosts: vec![name.parse().unwrap()],
        }
    }

    /// A deploy that is watched for five minutes, perhaps after splits of a minute, of a site that was seen for a quarter of an hour.
    fn plan(verdict: VerdictPlan, splits: &[u8]) -> Plan {
        let (blue, green) = (slot("blue"), slot("green"));
        let route = Route {
            stable: blue.backend.clone(),
            canary: blue.backend.clone(),
            percent: 0,
            epoch: RouteEpoch(1),
        };
        Plan {
            release: ReleaseId::parse("r1").unwrap(),
            environment: "production".parse().unwrap(),
            purpose: Purpose::Deploy { artifact: ArtifactDigest::from_bytes([1; 32]) },
            created_at: Timestamp(1_000),
            created_by: "ada".to_owned(),
            request_id: None,
            reason: None,
            balancers: vec!["lb1".parse().unwrap()],
            without: Vec::new(),
            links_before: Default::default(),
            from: Some(blue),
            to: green,
            maintenance_backend: "be_maint".parse().unwrap(),
            under_maintenance: false,
            flag_hosts: Vec::new(),
            route_before: route,
            route_epoch_base: RouteEpoch(1),
            activation: Activation::default(),
            database: None,
            splits: splits.iter().map(|percent| Split { percent: *percent, hold_ms: 60_000 }).collect(),
            checks: Vec::new(),
            watch: WatchPlan { duration_ms: 300_000, interval_ms: 1_000, fail_after: 3, blind_ms: 30_000 },
            verdict,
            automatic_rollback: true,
            drain_end: DrainEnd::Cut,
            limits: Limits {
                inspect_ms: 5_000,
                stage_ms: 60_000,
                activate_ms: 30_000,
                route_ms: 5_000,
                check_ms: 10_000,
                drain_ms: 30_000,
                gate_ttl_ms: 300_000,
                attempts: 3,
                persist_ms: 20_000,
                healthy_ms: 10_000,
            },
            found_ill: None,
            stood: None,
        }
    }

    fn told(verdict: VerdictPlan, splits: &[u8]) -> String {
        verdict_plan_to_wire(&plan(verdict, splits)).unwrap().announced
    }

    /// Ten requests a second, of which so many were bad, in millionths.
    fn site(errors_ppm: u32, over_limit_ppm: u32, slower: Option<Slower>) -> VerdictPlan {
        let before = Before {
            seconds: 900,
            requests: 9_000,
            errors_ppm,
            over_limit_ppm,
            p99_ms: Some(400),
            bunches_milli: Some((1_000, 10_000)),
            slower,
            ..Before::default()
        };
        VerdictPlan { mode: VerdictMode::Act, before, ..VerdictPlan::default() }
    }

    #[test]
    fn what_is_announced_stands_beside_the_watch() {
        let measured = Some(Slower { ppm: 4_000, bunches_milli: 1_000 });
        let well = VerdictPlan { p99_ms: 500, ..site(0, 0, measured) };
        let demanded = |max_watch_ms| VerdictPlan { max_watch_ms: Some(max_watch_ms), ..well };
        let proof = "proving it good needs about 5805 requests on `green`: 10 min at 10.0 requests/s";
        assert_eq!(
            told(well, &[]),
            format!(
                "{proof}, longer than it is watched; the watch of 5 min ends undecided, and the release goes on"
            )
        );
        assert_eq!(told(demanded(1_800_000), &[]), proof);
        assert_eq!(
            told(demanded(540_000), &[]),
            format!(
                "{proof}, longer than it is watched; the watch of 9 min ends undecided, and the release is held"
            )
        );
        let turns = VerdictPlan { undecided_turns_back: true, ..demanded(540_000) };
        assert!(told(turns, &[]).ends_with("and the release turns back"));
        assert!(told(well, &[10, 50]).ends_with(
            "97 min at 10.0 requests/s and 10 % of them there, longer than it is watched; the watches of 7 min in all end \
             undecided, and the release goes on"
        ));
    }

    /// 1.25 times the 99th percentile leaves some over it by its construction, which nobody has to prove away.
    #[test]
    fn what_is_slower_than_before_is_taken_as_it_was_measured() {
        let needed = |slower| {
            let mut verdict = site(0, 0, slower);
            verdict.before.bunches_milli = Some((1_000, if slower.is_some() { 1_000 } else { 10_000 }));
            let plan = plan(verdict, &[]);
            let dispersion = plan.verdict.params(0).unwrap().choices().dispersions.over_baseline;
            (dispersion, verdict_plan_to_wire(&plan).unwrap().requests_needed)
        };
        let measured = |ppm| needed(Some(Slower { ppm, bunches_milli: 1_000 }));
        assert_eq!(needed(None).0, 10.0);
        assert_eq!(measured(0).0, 1.0);
        assert!(measured(4_000).1 > measured(0).1, "{:?}", measured(4_000));
    }

    #[test]
    fn where_nothing_can_be_proven_the_numbers_are_named() {
        let failing = site(8_000, 0, Some(Slower { ppm: 1_000, bunches_milli: 1_000 }));
        assert_eq!(
            told(failing, &[]),
            "what serves fails 0.8 % of its requests, and no number of them proves a version good that does too: below 1 % is \
             asked, and with nobody on the old slot to compare with below 0.5 %; the watch of 5 min ends undecided, and the \
             release goes on"
        );
        assert!(
            told(failing, &[50]).starts_with("proving it good needs about"),
            "beside the old slot it can be"
        );
        let slow = site(0, 1_200, Some(Slower { ppm: 11_000, bunches_milli: 1_000 }));
        assert!(
            told(slow, &[]).starts_with(
                "what serves takes longer than 2000 ms for 0.12 % of its requests and longer than 500 ms for 1.1 %, and no \
                 number of them proves a version good that does too: below 1 % of the first is asked"
            ),
            "{}",
            told(slow, &[])
        );
        let demanded = VerdictPlan { max_watch_ms: Some(900_000), ..failing };
        assert!(told(demanded, &[]).ends_with("the watch of 15 min ends undecided, and the release is held"));
    }

    #[test]
    fn times_are_told_as_people_say_them() {
        let cases = [(50, 10.0, "5 s"), (2_350, 0.5, "78 min"), (2_350, 0.1, "6.5 h"), (1_320, 50.0, "26 s")];
        for (requests, rate, expected) in cases {
            assert_eq!(in_words(f64::from(requests) / rate), expected);
        }
    }
}
