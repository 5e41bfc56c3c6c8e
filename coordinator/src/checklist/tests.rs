//! A checklist is never better than what was seen.

use std::path::Path;

use super::*;
use crate::environment::Environment;
use crate::fixture;

const MORE: &str = r#"
    [[checks]]
    name = "health"
    phase = ["before-switch", "after-switch"]
    from = "hosts"
    http = { path = "/api/health", expect = { release = "json:$.release" } }
    [[checks]]
    name = "maps"
    phase = ["after-switch"]
    ows = { service = "WFS", version = "2.0.0", path = "/ows" }
    [[checks]]
    name = "sign-in"
    phase = ["after-switch"]
    point = "login"
    http = { path = "/login" }
    [[checks]]
    name = "search"
    phase = ["before-switch"]
    http = { path = "/search" }
    [[checklist.manual]]
    name = "phone"
    text = "Nobody has called"
"#;

fn world() -> (Environment, Plan) {
    let environment = fixture::environment(&["lb1", "lb2"], MORE);
    let plan = fixture::plan(&environment, "r1");
    (environment, plan)
}

/// Entries of these notes, one a second.
fn entries(notes: Vec<Note>) -> Vec<Entry> {
    let entry = |(number, note): (u64, Note)| Entry {
        seq: number,
        release: ReleaseId::parse("r1").unwrap(),
        fact: pointsman_core::Stamped { at: Timestamp(number * 1000), event: Event::Noted(note) },
    };
    (1..).zip(notes).map(entry).collect()
}

fn made(step: Step, host: &str, checks: &[(&str, CheckVerdict)]) -> Note {
    let seen = |(name, verdict): &(&str, CheckVerdict)| {
        CheckSeen::new(name.parse().unwrap(), *verdict, 12, "200 in 12 ms")
    };
    Note::Checks { step, host: host.parse().unwrap(), seen: checks.iter().map(seen).collect() }
}

/// Everything was made, and passed.
fn all_well() -> Vec<Note> {
    use CheckVerdict::Passed;
    let mut notes = vec![
        made(Step::Check, "green", &[("health", Passed)]),
        made(Step::Switch, "green", &[("health", Passed)]),
    ];
    for lb in ["lb1", "lb2"] {
        notes.push(made(Step::Check, lb, &[("search", Passed)]));
        notes.push(made(Step::Switch, lb, &[("maps", Passed), ("sign-in", Passed)]));
    }
    notes
}

fn verdict(notes: Vec<Note>, name: &str) -> (Verdict, Vec<String>) {
    let (environment, plan) = world();
    let points = points(&plan, &environment.manual, &entries(notes));
    let point = points.into_iter().find(|point| point.name == name).unwrap();
    (point.verdict, point.evidence)
}

#[test]
fn every_point_stands_there_from_the_beginning() {
    let (environment, plan) = world();
    let points = points(&plan, &environment.manual, &[]);
    let names: Vec<&str> = points.iter().map(|point| point.name.as_str()).collect();
    let seed: Vec<&str> = SEED.iter().map(|(name, _)| *name).collect();
    assert_eq!(names[..8], seed);
    assert_eq!(names[8..], ["search", "phone"]);
    assert!(points.iter().all(|point| point.verdict != Verdict::Passed), "{points:?}");
}

#[test]
fn a_point_passes_when_every_check_of_it_did_everywhere_and_each_time() {
    for name in ["health", "services", "login", "search"] {
        assert_eq!(verdict(all_well(), name).0, Verdict::Passed, "{name}");
    }
    // One host, or one moment, that is missing.
    for (left_out, name) in [(0, "health"), (1, "health"), (3, "services"), (4, "search"), (5, "login")] {
        let mut notes = all_well();
        notes.remove(left_out);
        let (verdict, evidence) = verdict(notes, name);
        assert_eq!(verdict, Verdict::NoData, "{name}");
        assert!(evidence.iter().any(|line| line.ends_with("no-data, not made")), "{evidence:?}");
    }
    // What was seen last counts.
    let mut notes = all_well();
    notes.push(made(
        Step::Switch,
        "lb2",
        &[("maps", CheckVerdict::Failed), ("sign-in", CheckVerdict::NotMade)],
    ));
    assert_eq!(verdict(notes.clone(), "services").0, Verdict::Failed);
    assert_eq!(verdict(notes.clone(), "login").0, Verdict::NoData);
    notes.push(made(
        Step::Switch,
        "lb2",
        &[("maps", CheckVerdict::Passed), ("sign-in", CheckVerdict::Passed)],
    ));
    assert_eq!(verdict(notes, "services").0, Verdict::Passed);
}

#[test]
fn what_nobody_looks_at_does_not_pass() {
    let (verdict, evidence) = verdict(all_well(), "alerts");
    assert_eq!((verdict, evidence), (Verdict::NoData, vec!["no check is configured for it".to_owned()]));
}

#[test]
fn signals_pass_only_with_enough_of_them() {
    let seen = |requests, failures, p99_ms| TrafficSeen {
        seconds: 60,
        incomplete: 6,
        requests,
        failures,
        timed: None,
        slow: None,
        p99_ms,
        ..TrafficSeen::default()
    };
    let met = |requests, failures, p99_ms| vec![Note::Traffic(seen(requests, failures, p99_ms))];
    let rate = |requests, failures| verdict(met(requests, failures, None), "error-rate");
    assert_eq!(
        rate(10_000, 99),
        (Verdict::Passed, vec!["0.99 %: 99 of 10000 requests failed in 60 s".to_owned()])
    );
    assert_eq!(rate(10_000, 100).0, Verdict::Failed);
    assert_eq!(rate(99, 0).0, Verdict::NoData);
    assert_eq!(rate(5, 5).0, Verdict::Failed);
    assert_eq!(rate(0, 0), (Verdict::NoData, vec!["no data: no requests in 60 s".to_owned()]));
    let slowest = |requests, p99_ms| verdict(met(requests, 0, p99_ms), "p99").0;
    assert_eq!(slowest(500, Some(1_999)), Verdict::Passed);
    assert_eq!(slowest(500, Some(2_000)), Verdict::Failed);
    assert_eq!(slowest(500, None), Verdict::NoData);
    assert_eq!(slowest(99, Some(3)), Verdict::NoData);
    assert_eq!(verdict(all_well(), "p99").0, Verdict::NoData);

    // What one stretch of the watch met is not forgotten for the next one, and what was slow is counted over all.
    let failing = Note::Traffic(seen(1_000, 50, Some(10)));
    let well = Note::Traffic(seen(1_000, 0, Some(10)));
    let (worst, evidence) = verdict(vec![failing, well], "error-rate");
    assert_eq!(
        (worst, evidence[0].as_str()),
        (Verdict::Failed, "2.50 %: 50 of 2000 requests failed in 120 s")
    );
    let slow = |slow| Note::Traffic(TrafficSeen { slow: Some(slow), ..seen(1_000, 0, Some(2_500)) });
    assert_eq!(verdict(vec![slow(12), slow(8)], "p99").0, Verdict::Passed);
    assert_eq!(verdict(vec![slow(12), slow(9)], "p99").0, Verdict::Failed);
    // A load balancer that says nothing hides its visitors: that is no pass, but what failed has failed.
    let partly = |failures| Note::Traffic(TrafficSeen { incomplete: 7, ..seen(1_000, failures, Some(10)) });
    assert_eq!(verdict(vec![partly(0)], "error-rate").0, Verdict::NoData);
    assert_eq!(verdict(vec![partly(0)], "p99").0, Verdict::NoData);
    assert_eq!(verdict(vec![partly(10)], "error-rate").0, Verdict::Failed);
}

#[test]
fn what_a_reload_hides_is_taken_to_be_the_worst() {
    let of = |name, (requests, failures, slow), blind: Option<u64>, lost: Option<(u64, u64)>| {
        let all =
            TrafficSeen { incomplete: 11, blind, failures, timed: Some(requests), ..seen_for(70, requests) };
        let (lost, lost_failures) = lost.unzip();
        let met = TrafficSeen { lost, lost_failures, slow: Some(slow), p99_ms: Some(3), ..all };
        verdict(vec![Note::Traffic(met)], name)
    };
    let (seen, evidence) = of(ERROR_RATE, (2_684, 0, 0), Some(0), Some((30, 0)));
    assert_eq!(seen, Verdict::Passed);
    assert_eq!(
        evidence,
        [
            "0.00 %: 0 of 2684 requests failed in 70 s; 30 access lines beside these did not come in 11 s, as after a reload of \
          HAProxy: by its counters 0 of them may say otherwise, and the point holds all the same"
        ]
    );
    // Of times nobody knows anything but from the lines.
    let (seen, evidence) = of(P99, (2_684, 0, 0), Some(0), Some((30, 0)));
    assert_eq!(seen, Verdict::NoData);
    assert!(evidence[0].ends_with("; among 3001 requests they could not"), "{evidence:?}");
    assert_eq!(of(P99, (2_970, 0, 0), Some(7), Some((30, 30))).0, Verdict::Passed);
    assert_eq!(of(ERROR_RATE, (2_684, 24, 0), Some(0), Some((30, 4))).0, Verdict::NoData);
    assert_eq!(of(ERROR_RATE, (2_684, 24, 0), Some(0), Some((30, 3))).0, Verdict::Passed);
    assert_eq!(of(ERROR_RATE, (2_684, 27, 0), Some(0), Some((30, 0))).0, Verdict::Failed);
    // Where the counters say nothing either, nobody knows how many there were.
    for (blind, lost) in [(Some(8), Some((0, 0))), (None, None)] {
        let (seen, evidence) = of(ERROR_RATE, (2_684, 0, 0), blind, lost);
        assert_eq!(seen, Verdict::NoData);
        assert!(evidence[0].ends_with("in 11 s not every load balancer told of all"), "{evidence:?}");
    }
    assert_eq!(of(ERROR_RATE, (50, 0, 0), Some(0), Some((0, 0))).0, Verdict::NoData);
}

#[test]
fn people_vouch_by_name() {
    assert_eq!(verdict(all_well(), "phone"), (Verdict::Open, Vec::new()));
    let tick = |point: &str, text: Option<&str>| Note::Tick {
        point: point.parse().unwrap(),
        by: "operator ada".to_owned(),
        text: text.map(str::to_owned),
    };
    let ticked = verdict(vec![tick("phone", Some("quiet until noon"))], "phone");
    assert_eq!(ticked, (Verdict::Passed, vec!["ticked by operator ada: quiet until noon".to_owned()]));
    // What was ticked once and is asked for no more stays told.
    assert_eq!(verdict(vec![tick("former", None)], "former").0, Verdict::Passed);
}

#[test]
fn the_names_of_points_are_not_given_twice() {
    for (name, expected) in [("health", "another point's name"), ("phone", "another point's name")] {
        let more = format!("{MORE}\n[[checklist.manual]]\nname = \"{name}\"\ntext = \"x\"");
        let file = fixture::file(&["lb1", "lb2"], &more);
        let problem = Environment::parse(Path::new("production.toml"), &file).unwrap_err();
        assert!(problem.message.contains(expected), "{}", problem.message);
    }
}

#[test]
fn of_several_servers_behind_one_load_balancer_the_worst_counts() {
    use CheckVerdict::{Failed, NotMade, Passed};
    for (verdicts, expected) in [
        ([Passed, Passed], Verdict::Passed),
        ([Failed, Passed], Verdict::Failed),
        ([NotMade, Passed], Verdict::NoData),
        ([NotMade, Failed], Verdict::Failed),
    ] {
        let mut notes = all_well();
        notes.push(made(Step::Switch, "lb1", &verdicts.map(|verdict| ("maps", verdict))));
        assert_eq!(verdict(notes, "services").0, expected, "{verdicts:?}");
        let mut notes = all_well();
        notes.push(made(Step::Switch, "lb1", &verdicts.map(|verdict| ("maps", verdict))));
        // What is made again counts anew.
        notes.push(made(Step::Switch, "lb1", &[("maps", Passed), ("maps", Passed)]));
        assert_eq!(verdict(notes, "services").0, Verdict::Passed, "{verdicts:?}");
    }
}

fn judged_entry(at: u64, errors: (u64, u64), slowness: (u64, u64)) -> Entry {
    let new = |(bad, requests)| pointsman_core::MetricJudged {
        new: Counted { bad, requests, between_ppm: (0, 0) },
        ..Default::default()
    };
    let judged = Judged {
        verdict: pointsman_core::verdict::Verdict::Rollback,
        warns: false,
        shared: false,
        told: "errors on `green`".to_owned(),
        errors: new(errors),
        slowness: new(slowness),
        seconds: 9,
        rollback_at_milli: 4_000_000,
        promote_at_milli: 100_000,
        needed: None,
        slowed: None,
    };
    let fact = pointsman_core::Stamped { at: Timestamp(at), event: Event::Judged(Box::new(judged)) };
    Entry { seq: at, release: ReleaseId::parse("r1").unwrap(), fact }
}

#[test]
fn what_the_judge_counted_is_not_forgotten_with_what_was_counted_beside_it() {
    let (environment, plan) = world();
    let look = |notes: Vec<Note>, judged: &[Entry], name: &str| {
        let all: Vec<Entry> = entries(notes).into_iter().chain(judged.iter().cloned()).collect();
        let points = points(&plan, &environment.manual, &all);
        let point = points.into_iter().find(|point| point.name == name).unwrap();
        (point.verdict, point.evidence)
    };
    let met = TrafficSeen {
        seconds: 60,
        requests: 1_000,
        timed: Some(1_000),
        slow: Some(0),
        p99_ms: Some(10),
        ..TrafficSeen::default()
    };
    let well = || vec![Note::Traffic(met.clone())];
    // The coordinator was killed before it had noted anything.
    let bad = [judged_entry(70_000, (33, 163), (0, 163))];
    let (verdict, evidence) = look(Vec::new(), &bad, ERROR_RATE);
    assert_eq!(verdict, Verdict::Failed);
    assert_eq!(evidence[1], "33 of 163 requests failed, as the judge of visitors counted");
    assert_eq!(look(well(), &bad, ERROR_RATE).0, Verdict::Failed);
    assert_eq!(look(well(), &bad, P99).0, Verdict::Passed);
    assert_eq!(look(well(), &[judged_entry(70_000, (0, 163), (9, 163))], P99).0, Verdict::Failed);
    // The newest count of a judge, and that of another one before it.
    let fine = judged_entry(90_000, (3, 1_630), (0, 1_630));
    assert_eq!(
        look(well(), &[judged_entry(70_000, (2, 163), (0, 163)), fine.clone()], ERROR_RATE).0,
        Verdict::Passed
    );
    let another = [judged_entry(70_000, (330, 9_000), (0, 9_000)), fine];
    assert_eq!(look(well(), &another, ERROR_RATE).0, Verdict::Failed);
    // A proof is no substitute for what nobody counted.
    assert_eq!(
        look(Vec::new(), &[judged_entry(70_000, (0, 9_000), (0, 9_000))], ERROR_RATE).0,
        Verdict::NoData
    );
}

#[test]
fn a_share_of_slow_requests_is_one_of_those_whose_time_is_known() {
    let met = |timed, slow, p99_ms| TrafficSeen {
        seconds: 60,
        requests: 10_000,
        timed,
        slow: Some(slow),
        p99_ms: Some(p99_ms),
        ..TrafficSeen::default()
    };
    let of = |all: &[TrafficSeen]| verdict(all.iter().cloned().map(Note::Traffic).collect(), P99);
    // Nine of ten were WebSockets: 60 of 1 000 are slow, and not 60 of 10 000.
    assert_eq!(of(&[met(Some(1_000), 60, 2_500)]).0, Verdict::Failed);
    assert_eq!(of(&[met(Some(10_000), 60, 2_500)]).0, Verdict::Passed);
    // A journal from before that was noted.
    assert_eq!(of(&[met(None, 60, 2_500)]).0, Verdict::Passed);
    assert_eq!(of(&[met(Some(50), 0, 10)]).0, Verdict::NoData);
    // Which stretch the highest is from.
    let (_, evidence) = of(&[met(Some(500), 0, 10), met(Some(500), 0, 700), met(Some(500), 0, 20)]);
    assert_eq!(
        evidence,
        ["700 ms in the slowest stretch, noted at 00:00:02 UTC; 1500 requests in 180 s in all"]
    );
}

#[test]
fn a_release_that_is_slower_than_before_says_so_and_passes_by_its_limit() {
    let (environment, mut plan) = world();
    plan.verdict.before.p99_ms = Some(84);
    plan.verdict.before.slower = Some(pointsman_core::Slower { ppm: 8_000, bunches_milli: 1_000 });
    let met = TrafficSeen { timed: Some(3_000), slow: Some(0), p99_ms: Some(640), ..seen_for(60, 3_000) };
    let mut entry = judged_entry(70_000, (0, 3_000), (0, 3_000));
    if let Event::Judged(judged) = &mut entry.fact.event {
        judged.slowed = Some(Counted { bad: 990, requests: 3_000, between_ppm: (0, 0) });
    }
    let all: Vec<Entry> = entries(vec![Note::Traffic(met)]).into_iter().chain([entry]).collect();
    let points = points(&plan, &environment.manual, &all);
    let point = points.into_iter().find(|point| point.name == P99).unwrap();
    assert_eq!(point.verdict, Verdict::Passed);
    assert_eq!(
        point.evidence[1],
        "slower than before the release, when the p99 was 84 ms: 0.8 % of requests took longer than 105 ms then, 990 of 3000 \
         do now (33 %)"
    );
}

fn seen_for(seconds: u64, requests: u64) -> TrafficSeen {
    TrafficSeen { seconds, requests, ..TrafficSeen::default() }
}

#[test]
fn what_nobody_added_up_because_a_coordinator_ended_is_said() {
    let (environment, plan) = world();
    let moved = |step| Event::OrderIntended {
        key: pointsman_core::OrderKey { step, host: "lb1".parse().unwrap() },
        attempt: 1,
    };
    let anew = |epoch| Event::EpochTaken(pointsman_core::Epoch(epoch));
    let met = || Event::Noted(Note::Traffic(TrafficSeen { p99_ms: Some(10), ..seen_for(60, 3_000) }));
    let of = |facts: &[(u64, Event)]| {
        let entries: Vec<Entry> = (1..)
            .zip(facts)
            .map(|(seq, (at, event))| Entry {
                seq,
                release: ReleaseId::parse("r1").unwrap(),
                fact: pointsman_core::Stamped { at: Timestamp(*at), event: event.clone() },
            })
            .collect();
        let points = points(&plan, &environment.manual, &entries);
        let of = |name: &str| points.iter().find(|point| point.name == name).unwrap().evidence[1..].to_vec();
        assert_eq!(of(ERROR_RATE), of(P99));
        of(P99)
    };
    // Before anybody was moved nothing is missing.
    assert_eq!(of(&[(1_000, anew(2)), (5_000, moved(Step::Switch)), (65_000, met())]), [""; 0]);
    let facts = [
        (5_000, moved(Step::Canary(1))),
        (20_000, anew(2)),
        (65_000, met()),
        (67_500, anew(3)),
        (70_000, moved(Step::Switch)),
        (90_000, met()),
    ];
    assert_eq!(
        of(&facts),
        [
            "perhaps not in this: up to 15 s before 00:00:20 UTC, when a coordinator took the journal up",
            "perhaps not in this: up to 3 s before 00:01:07 UTC, when a coordinator took the journal up"
        ]
    );
}
