//! What the visitors' signals say of a release: numbers, a small chart, and words.

use pointsman_proto::v1;
use serde_json::{Value, json};

use super::span;
use super::ticks::{probes_json, probes_told};

/// E-values above this are not told to the last digit.
const MOST_TOLD: f64 = 1e6;

/// `12 300`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && digits.len().saturating_sub(at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Two digits that mean something, as far as that is short.
fn percent(share: f64) -> String {
    match share * 100.0 {
        0.0 => "0".to_owned(),
        percent if percent >= 10.0 => format!("{percent:.1}"),
        percent if percent >= 0.1 => format!("{percent:.2}"),
        percent => format!("{percent:.3}"),
    }
}

fn value(value: f64) -> String {
    match value {
        _ if value > MOST_TOLD => format!("above {}", grouped(MOST_TOLD as u64)),
        _ if value < 10.0 => format!("{value:.1}"),
        _ => grouped(value as u64),
    }
}

fn share(count: &v1::VerdictCount) -> f64 {
    if count.requests == 0 { 0.0 } else { count.bad as f64 / count.requests as f64 }
}

/// `31 of 412 (7.52 %, 5.10-10.6 %)`
fn counted(count: &v1::VerdictCount) -> String {
    if count.requests == 0 {
        return "no requests".to_owned();
    }
    format!(
        "{} of {} ({} %, {}-{} %)",
        grouped(count.bad),
        grouped(count.requests),
        percent(share(count)),
        percent(count.low),
        percent(count.high)
    )
}

/// Levels of the chart, from a hundredth of the requests to all of them.
const LEVELS: [(f32, char); 7] =
    [(0.1, '▁'), (1.0, '▂'), (3.0, '▃'), (10.0, '▄'), (25.0, '▅'), (50.0, '▆'), (80.0, '▇')];

/// One sign for each second: how many of its requests were bad. A dot where none came, or nobody saw them.
fn chart(bars: &[f32]) -> String {
    let sign = |bar: &f32| match *bar {
        bar if bar < 0.0 => '·',
        bar => LEVELS.iter().find(|(below, _)| bar < *below).map_or('█', |(_, sign)| *sign),
    };
    bars.iter().map(sign).collect()
}

fn metric(name: &str, found: &v1::VerdictMetric, plan: &v1::Plan, verdict: &v1::Verdict) -> String {
    let new = found.new_slot.unwrap_or_default();
    let old = found.old_slot.unwrap_or_default();
    let mut text = format!("{name:<7} {} {}", plan.to_slot, counted(&new));
    if old.requests > 0 {
        text.push_str(&format!(", {} {}", plan.from_slot, counted(&old)));
    }
    // What does not count would contradict what follows.
    let (e_value, evidence) = match plan.verdict.as_ref().is_none_or(limits_count) {
        true => (
            found.e_over_limit.max(found.e_worse_than_old),
            found.evidence_within_limit.min(found.evidence_not_worse),
        ),
        false => (found.e_worse_than_old, found.evidence_not_worse),
    };
    text.push_str(&format!(
        "; against it {} of {}, for it {} of {}",
        value(e_value),
        value(verdict.rollback_at),
        value(evidence),
        value(verdict.promote_at)
    ));
    text
}

/// The block of a release in `status`: a line for the verdict, one for each metric, and the chart.
pub fn block(release: &v1::Release) -> String {
    let (Some(verdict), Some(plan)) = (&release.verdict, &release.plan) else { return String::new() };
    let shadow = if verdict.shadow { " (said only)" } else { "" };
    let mut text = format!("  visitors    {}{shadow}: {}\n", verdict.verdict, verdict.told);
    for (name, found) in [("errors", &verdict.errors), ("slow", &verdict.slowness)] {
        if let Some(found) = found {
            text.push_str(&format!("              {}\n", metric(name, found, plan, verdict)));
        }
    }
    let probed = [(&plan.to_slot, &verdict.probes_new), (&plan.from_slot, &verdict.probes_old)];
    let probed = probed.into_iter().filter_map(|(slot, probes)| Some((slot, probes.as_ref()?)));
    let probed: Vec<String> =
        probed.map(|(slot, probes)| format!("{slot} {}", probes_told(probes))).collect();
    if !probed.is_empty() {
        text.push_str(&format!("              probes  {}: not among the visitors\n", probed.join(", ")));
    }
    if !verdict.chart.is_empty() {
        let chart = chart(&verdict.chart);
        text.push_str(&format!("              failed  {chart}  each second on {}\n", plan.to_slot));
    }
    if verdict.chart_slow.iter().any(|bar| *bar > 0.0) {
        let chart = self::chart(&verdict.chart_slow);
        text.push_str(&format!("              slow    {chart}  over the limit\n"));
    }
    if let Some(slowed) = slowed(release) {
        text.push_str(&format!("              slower  {slowed}\n"));
    }
    if let Some(hurt) = hurt(release) {
        text.push_str(&format!("              in all  {}: {hurt}\n", plan.to_slot));
    }
    if !verdict.blind.is_empty() {
        text.push_str(&format!("              out of sight: {}\n", verdict.blind));
    }
    if !verdict.unkept.is_empty() {
        text.push_str(&format!("              lost if the coordinator ends: {}\n", verdict.unkept));
    }
    if !verdict.no_way_back.is_empty() {
        text.push_str(&format!("              no way back just now: {}\n", verdict.no_way_back));
    }
    text
}

/// What the moving line says of visitors while they are watched.
pub fn moving(release: &v1::Release) -> String {
    let Some(verdict) = release.verdict.as_ref().filter(|_| release.watch_until_ms > 0) else {
        return String::new();
    };
    let new = verdict.errors.as_ref().and_then(|errors| errors.new_slot).unwrap_or_default();
    let last = verdict.chart.len().saturating_sub(MOVING_SECONDS);
    let chart = chart(verdict.chart.get(last..).unwrap_or_default());
    let needed = match verdict.requests_needed {
        _ if !verdict.blind.is_empty() => format!("out of sight: {}", verdict.blind),
        Some(0) => verdict.verdict.clone(),
        Some(needed) => format!("{}, about {} requests more", verdict.verdict, grouped(needed)),
        None => verdict.verdict.clone(),
    };
    format!(
        "  {chart}  {} of {} failed ({} %)  {needed}",
        grouped(new.bad),
        grouped(new.requests),
        percent(share(&new))
    )
}

/// Seconds in the chart of the moving line.
const MOVING_SECONDS: usize = 12;

/// That the new version is slower than what served before; none where it is not, or nobody can say.
fn slowed(release: &v1::Release) -> Option<String> {
    let (verdict, plan) = (release.verdict.as_ref()?, release.plan.as_ref()?);
    let slowed = verdict.slowed.as_ref()?;
    Some(format!(
        "{} % of requests took longer than {} before the release → {} % now, with nobody on {} to compare with",
        percent(slowed.before),
        span(slowed.over_ms),
        percent(share(&slowed.now.unwrap_or_default())),
        super::or(&plan.from_slot, "another slot")
    ))
}

/// How many fared badly on the new slot of a release that went back, also between the verdict and the moment from which nobody
/// was led there; none where they were not counted to that.
fn hurt(release: &v1::Release) -> Option<String> {
    let met = release.met.as_ref().filter(|met| met.to_the_end)?;
    let judged = release.verdict.as_ref().and_then(|verdict| verdict.errors.as_ref());
    let until_verdict = judged.and_then(|errors| errors.new_slot).unwrap_or_default();
    // A coordinator that was killed forgets what it had not noted, and its judge does not.
    let failures = met.failures.max(until_verdict.bad);
    let requests = met.requests.max(until_verdict.requests);
    if requests == 0 {
        return None;
    }
    let is_whole = met.incomplete == 0 && (failures, requests) == (met.failures, met.requests);
    // "At least none" says nothing.
    if !is_whole && failures == 0 && met.too_slow == 0 {
        return None;
    }
    let slow =
        if met.too_slow > 0 { format!(", {} took too long", grouped(met.too_slow)) } else { String::new() };
    Some(format!(
        "{}{} of {} requests failed until nobody was led there any more{slow}",
        if is_whole { "" } else { "at least " },
        grouped(failures),
        grouped(requests)
    ))
}

/// What visitors met on the new slot, for the last words of a release; empty where nothing was heard of them.
pub fn met(release: &v1::Release) -> String {
    let hurt = hurt(release).map(|hurt| format!("; {hurt}")).unwrap_or_default();
    let slowed = slowed(release).map(|slowed| format!("; slower than before: {slowed}")).unwrap_or_default();
    format!("{}{hurt}{slowed}", judged(release))
}

/// The same, as it was judged.
fn judged(release: &v1::Release) -> String {
    let (Some(verdict), Some(plan)) = (&release.verdict, &release.plan) else { return String::new() };
    let of = |metric: &Option<v1::VerdictMetric>| {
        metric.as_ref().and_then(|found| found.new_slot).unwrap_or_default()
    };
    let (errors, slow) = (of(&verdict.errors), of(&verdict.slowness));
    if errors.requests == 0 {
        return format!("; no visitor was seen on {}", plan.to_slot);
    }
    let watched = span(verdict.seconds.saturating_mul(1_000));
    if release.outcome == "rolled-back" && verdict.verdict == "rollback" {
        let slow = if slow.bad > errors.bad {
            format!(", {} took too long", grouped(slow.bad))
        } else {
            String::new()
        };
        return format!(
            "; {} % of {} requests on {} failed in {watched}: {} of visitors' requests failed, or needed \
             another try, until the verdict{slow}",
            percent(share(&errors)),
            grouped(errors.requests),
            plan.to_slot,
            grouped(errors.bad)
        );
    }
    let (proven, against) = match verdict.verdict.as_str() {
        "promote" => ("proven good", false),
        "rollback" if verdict.shadow => ("over a limit, and it would have been turned back", true),
        "rollback" => ("proven to be over a limit", true),
        "hold" if verdict.shared => ("over a limit, as the old slot is", true),
        "hold" if verdict.shadow => ("it would have been held", false),
        _ if verdict.warns => ("over a limit that only warns", true),
        _ => ("not proven either way", false),
    };
    // Whatever is too much is among the numbers.
    let slow = match against && slow.bad > errors.bad {
        true => format!(" and {} took too long", grouped(slow.bad)),
        false => String::new(),
    };
    format!(
        "; {} of {} requests on {} failed{slow} in {watched}: {proven}",
        grouped(errors.bad),
        grouped(errors.requests),
        plan.to_slot
    )
}

/// Whether the new slot is held to more than the old one.
fn limits_count(plan: &v1::VerdictPlan) -> bool {
    !plan.fix_forward || plan.errors_held_to > 0.0
}

/// What a version that mends a failing site is held to; empty for any other.
pub fn held_to(plan: &v1::VerdictPlan) -> String {
    match plan.fix_forward {
        false => String::new(),
        true if limits_count(plan) => format!(
            "it mends a site that fails: held to {} % of errors and {} % of requests over {}, by what was counted before, \
             and to be no worse than what serves meanwhile",
            figure(plan.errors_held_to),
            figure(plan.slow_held_to),
            span(plan.p99_ms)
        ),
        true => "the limits do not count, because it mends a site that fails, and no visitor was seen before: it must be no \
                 worse than what serves, which is judged only while both have visitors"
            .to_owned(),
    }
}

/// Percents, to the hundredth.
fn figure(share: f64) -> f64 {
    (share * 10_000.0).round() / 100.0
}

/// What is announced of visitors before a release.
pub fn announced(plan: &v1::Plan) -> Option<&str> {
    plan.verdict.as_ref().map(|verdict| verdict.announced.as_str()).filter(|text| !text.is_empty())
}

fn count_json(count: Option<&v1::VerdictCount>) -> Value {
    let count = count.copied().unwrap_or_default();
    json!({ "bad": count.bad, "requests": count.requests, "low": count.low, "high": count.high })
}

fn metric_json(found: Option<&v1::VerdictMetric>) -> Value {
    let found = found.cloned().unwrap_or_default();
    json!({
        "new": count_json(found.new_slot.as_ref()), "old": count_json(found.old_slot.as_ref()),
        "e_over_limit": found.e_over_limit, "e_worse_than_old": found.e_worse_than_old,
        "evidence_within_limit": found.evidence_within_limit, "evidence_not_worse": found.evidence_not_worse,
    })
}

/// A verdict for programs.
pub fn verdict_json(verdict: &v1::Verdict) -> Value {
    json!({
        "verdict": verdict.verdict, "told": verdict.told, "errors": metric_json(verdict.errors.as_ref()),
        "slowness": metric_json(verdict.slowness.as_ref()), "seconds": verdict.seconds,
        "rollback_at": verdict.rollback_at, "promote_at": verdict.promote_at,
        "requests_needed": verdict.requests_needed, "warns": verdict.warns, "shared": verdict.shared,
        "shadow": verdict.shadow, "blind": Some(&verdict.blind).filter(|blind| !blind.is_empty()),
        "unkept": Some(&verdict.unkept).filter(|unkept| !unkept.is_empty()),
        "no_way_back": Some(&verdict.no_way_back).filter(|closed| !closed.is_empty()),
        "slowed": verdict.slowed.as_ref().map(|slowed| json!({
            "over_ms": slowed.over_ms, "p99_before_ms": slowed.p99_before_ms, "before": slowed.before,
            "now": count_json(slowed.now.as_ref()),
        })),
        "chart_percent": verdict.chart, "chart_slow_percent": verdict.chart_slow,
        "probes": {
            "new": probes_json(verdict.probes_new.as_ref()), "old": probes_json(verdict.probes_old.as_ref()),
        },
    })
}

/// What visitors met on the new slot, for programs.
pub fn met_json(met: &v1::VisitorsMet) -> Value {
    json!({
        "seconds": met.seconds, "incomplete_seconds": met.incomplete, "requests": met.requests,
        "failures": met.failures, "too_slow": met.too_slow, "to_the_end": met.to_the_end,
    })
}

/// What a plan is judged by, for programs.
pub fn plan_json(plan: &v1::VerdictPlan) -> Value {
    let ms = |ms: u64| Some(ms).filter(|ms| *ms > 0);
    let share = |share: f64| Some(share).filter(|share| *share > 0.0);
    json!({
        "mode": plan.mode, "min_watch_ms": ms(plan.min_watch_ms), "max_watch_ms": ms(plan.max_watch_ms),
        "min_requests": plan.min_requests, "on_undecided": Some(&plan.on_undecided).filter(|word| !word.is_empty()),
        "error_rate": plan.error_rate, "on_errors": plan.on_errors, "p99_ms": plan.p99_ms,
        "on_slowness": plan.on_slowness, "announced": plan.announced, "requests_needed": ms(plan.requests_needed),
        "rate_per_s": plan.rate, "p99_before_ms": ms(plan.p99_before_ms), "after_ms": ms(plan.after_ms),
        "fix_forward": plan.fix_forward, "errors_held_to": share(plan.errors_held_to),
        "slow_held_to": share(plan.slow_held_to), "blip_s": ms(plan.blip_s),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(verdict: &str, outcome: &str) -> v1::Release {
        let count = |bad, requests| Some(v1::VerdictCount { bad, requests, low: 0.14, high: 0.27 });
        let errors = v1::VerdictMetric {
            new_slot: count(33, 163),
            old_slot: count(0, 2_410),
            e_over_limit: 5_210.4,
            ..Default::default()
        };
        v1::Release {
            plan: Some(v1::Plan { to_slot: "green".into(), from_slot: "blue".into(), ..Default::default() }),
            outcome: outcome.to_owned(),
            watch_until_ms: 7,
            verdict: Some(v1::Verdict {
                verdict: verdict.to_owned(),
                told: "a line".to_owned(),
                errors: Some(errors),
                seconds: 4,
                rollback_at: 4_000.0,
                promote_at: 100.0,
                requests_needed: Some(1_300),
                chart: vec![-1.0, 0.0, 0.5, 20.0, 100.0],
                chart_slow: vec![-1.0, 0.0, 0.0, 60.0, 2.0],
                probes_new: Some(v1::SignalProbes { requests: 24, failures: 1, ..Default::default() }),
                probes_old: Some(v1::SignalProbes { requests: 6, ..Default::default() }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_rollback_says_who_was_hurt() {
        assert_eq!(
            met(&release("rollback", "rolled-back")),
            "; 20.2 % of 163 requests on green failed in 4.0 s: 33 of visitors' requests failed, or needed \
             another try, until the verdict"
        );
        assert_eq!(met(&v1::Release::default()), "");
    }

    #[test]
    fn what_was_proven_is_said_also_where_nothing_followed() {
        let of = |verdict: &str, outcome: &str, change: &dyn Fn(&mut v1::Verdict)| {
            let mut release = release(verdict, outcome);
            change(release.verdict.as_mut().unwrap());
            met(&release)
        };
        let shadow = |verdict: &mut v1::Verdict| verdict.shadow = true;
        let says = |met: String, end: &str| {
            assert_eq!(met, format!("; 33 of 163 requests on green failed{end}"));
        };
        let back = " in 4.0 s: over a limit, and it would have been turned back";
        says(of("rollback", "confirmed", &shadow), back);
        says(of("hold", "confirmed", &shadow), " in 4.0 s: it would have been held");
        says(of("rollback", "confirmed", &|_| ()), " in 4.0 s: proven to be over a limit");
        says(
            of("hold", "confirmed", &|verdict| verdict.shared = true),
            " in 4.0 s: over a limit, as the old slot is",
        );
        says(of("undecided", "confirmed", &|_| ()), " in 4.0 s: not proven either way");
        let slow = |verdict: &mut v1::Verdict| {
            verdict.warns = true;
            let new_slot = Some(v1::VerdictCount { bad: 120, requests: 163, ..Default::default() });
            verdict.slowness = Some(v1::VerdictMetric { new_slot, ..Default::default() });
        };
        let warned = " and 120 took too long in 4.0 s: over a limit that only warns";
        says(of("undecided", "confirmed", &slow), warned);
    }

    #[test]
    fn a_version_that_is_slower_than_before_says_so_with_its_numbers() {
        let mut slow = release("undecided", "confirmed");
        slow.verdict.as_mut().unwrap().slowed = Some(v1::VerdictSlowed {
            over_ms: 105,
            p99_before_ms: 84,
            before: 0.008,
            now: Some(v1::VerdictCount { bad: 1_387, requests: 2_233, low: 0.58, high: 0.66 }),
        });
        let said = "0.80 % of requests took longer than 105 ms before the release → 62.1 % now, with nobody on blue to compare with";
        assert!(met(&slow).ends_with(&format!("; slower than before: {said}")), "{}", met(&slow));
        assert!(block(&slow).contains(&format!("slower  {said}")), "{}", block(&slow));
        assert_eq!(verdict_json(slow.verdict.as_ref().unwrap())["slowed"]["now"]["bad"], 1_387);
        assert!(!met(&release("undecided", "confirmed")).contains("slower"));
    }

    #[test]
    fn who_was_hurt_after_the_verdict_is_told_too() {
        let count = |requests, failures, too_slow| v1::VisitorsMet {
            seconds: 9,
            requests,
            failures,
            too_slow,
            to_the_end: true,
            ..Default::default()
        };
        let with = |met| v1::Release { met: Some(met), ..release("rollback", "rolled-back") };
        let told = |counted| met(&with(counted)).split_once("until the verdict").unwrap().1.to_owned();
        assert_eq!(
            told(count(1_208, 41, 0)),
            "; 41 of 1 208 requests failed until nobody was led there any more"
        );
        assert_eq!(
            told(v1::VisitorsMet { incomplete: 1, ..count(208, 41, 3) }),
            "; at least 41 of 208 requests failed until nobody was led there any more, 3 took too long"
        );
        assert!(block(&with(count(208, 41, 0))).contains("in all  green: 41 of 208 requests failed until"));
        // Less than was judged: a coordinator was killed before it noted them.
        assert_eq!(
            told(count(208, 32, 0)),
            "; at least 33 of 208 requests failed until nobody was led there any more"
        );
        // Nobody, as far as that is known, says nothing.
        let mut nobody = with(v1::VisitorsMet { incomplete: 1, ..count(47, 0, 0) });
        nobody.verdict.as_mut().unwrap().errors.as_mut().unwrap().new_slot.as_mut().unwrap().bad = 0;
        assert!(!met(&nobody).contains("at least"), "{}", met(&nobody));
        // Not counted to the end: that is no last word.
        assert_eq!(told(v1::VisitorsMet { to_the_end: false, ..count(208, 41, 0) }), "");
    }

    #[test]
    fn a_mend_says_what_it_is_held_to() {
        let plan = |errors_held_to, slow_held_to| v1::VerdictPlan {
            fix_forward: true,
            errors_held_to,
            slow_held_to,
            p99_ms: 2_000,
            ..Default::default()
        };
        assert_eq!(
            held_to(&plan(0.061_234, 0.01)),
            "it mends a site that fails: held to 6.12 % of errors and 1 % of requests over 2.0 s, by what was counted \
             before, and to be no worse than what serves meanwhile"
        );
        assert!(held_to(&plan(0.0, 0.0)).starts_with("the limits do not count"));
        assert_eq!(held_to(&v1::VerdictPlan { errors_held_to: 0.01, ..Default::default() }), "");
    }

    #[test]
    fn limits_that_do_not_count_are_no_evidence() {
        let mut mend = release("undecided", "");
        let verdict = mend.verdict.as_mut().unwrap();
        let errors = verdict.errors.as_mut().unwrap();
        (errors.e_worse_than_old, errors.evidence_not_worse) = (22.0, 7.5);
        let plan =
            |errors_held_to| v1::VerdictPlan { fix_forward: true, errors_held_to, ..Default::default() };
        let with = |plan: v1::VerdictPlan| {
            let mut mend = mend.clone();
            mend.plan.as_mut().unwrap().verdict = Some(plan);
            block(&mend)
        };
        let (alone, held) = (with(plan(0.0)), with(plan(0.06)));
        assert!(alone.contains("against it 22 of 4 000, for it 7.5 of 100"), "{alone}");
        assert!(held.contains("against it 5 210 of 4 000, for it 0.0 of 100"), "{held}");
    }

    #[test]
    fn the_block_has_every_number() {
        let text = block(&release("undecided", ""));
        for part in [
            "visitors    undecided: a line",
            "errors  green 33 of 163 (20.2 %, 14.0-27.0 %), blue 0 of 2 410",
            "against it 5 210 of 4 000",
            "probes  green 24 (1 failed), blue 6: not among the visitors",
            "failed  ·▁▂▅█  each second on green",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(moving(&release("undecided", "")).contains("undecided, about 1 300 requests more"));
    }
}
