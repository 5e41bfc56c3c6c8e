//! What happens to a release, and what must be said of it.

use pointsman_core::verdict::{
    Against, BLIND_TICKS, Bounds, Choices, Counts, Excused, Judge, Latency, Metric, NotRestored, Params,
    Reason, Refused, Tick, Verdict,
};

use crate::{judge, repeat, singly, slot, tick};

const GOOD: Counts =
    Counts { requests: 50, errors: 0, given_up: 0, timed: 50, over_limit: 0, over_baseline: 0 };

#[test]
fn a_dead_slot_goes_back_in_three_ticks() {
    let mut judge = judge(singly());
    assert_eq!(repeat(&mut judge, 1, 2, slot(50, 50, 0), GOOD).verdict(), Verdict::Undecided);
    let judgement = repeat(&mut judge, 3, 3, slot(50, 50, 0), GOOD);
    assert_eq!(judgement.verdict(), Verdict::Rollback);
    assert!(judgement.errors.over_limit >= judgement.rollback_at);
}

#[test]
fn a_good_slot_is_promoted_after_the_least_watch_and_not_before() {
    let mut judge = judge(singly());
    let early = repeat(&mut judge, 1, 59, GOOD, GOOD);
    assert_eq!(early.reason, Reason::TooEarly);
    assert_eq!(early.requests_needed(), Some(0));
    assert_eq!(repeat(&mut judge, 60, 60, GOOD, GOOD).reason, Reason::Proven);
}

#[test]
fn silence_never_promotes_and_never_rolls_back() {
    let mut judge = judge(singly());
    let none = Counts::default();
    assert_eq!(repeat(&mut judge, 1, 1_799, none, none).reason, Reason::Unproven(Metric::Errors));
    // Time is up, so somebody must look; and silence for a year is still no failure.
    assert_eq!(repeat(&mut judge, 1_800, 1_801, none, none).verdict(), Verdict::Inconclusive);
    let later = judge.step(&tick(31_536_000, none, none));
    assert_eq!(later.verdict(), Verdict::Inconclusive);
    assert!(later.errors.over_limit <= 1.0 + 1e-9 && later.errors.worse_than_old <= 1.0 + 1e-9);
}

#[test]
fn ticks_that_never_came_were_not_watched() {
    let mut judge = judge(singly());
    repeat(&mut judge, 1, 30, GOOD, GOOD);
    let judgement = repeat(&mut judge, 1_000, 1_000, GOOD, GOOD);
    assert_eq!((judgement.watched, judgement.elapsed), (31, 1_000));
    assert_eq!(judgement.reason, Reason::TooEarly);
}

#[test]
fn what_strikes_both_slots_is_held() {
    for extra in [3, 15, 50] {
        let mut judge = judge(singly());
        repeat(&mut judge, 1, 300, GOOD, GOOD);
        let struck = slot(50, extra, 0);
        let verdicts: Vec<Verdict> =
            (301..=360).map(|number| judge.step(&tick(number, struck, struck)).verdict()).collect();
        assert!(!verdicts.contains(&Verdict::Rollback), "{extra}: {verdicts:?}");
        assert_eq!(judge.look().reason, Reason::BothSick(Metric::Errors), "{extra}");
    }
}

#[test]
fn worse_than_the_old_slot_goes_back_although_the_limit_is_kept() {
    // 0.9 % against 0.1 %: no limit is broken.
    let mut judge = judge(Choices { errors: Bounds { limit: 0.05, ..Bounds::ERRORS }, ..singly() });
    let verdict = (1..=1_000).find_map(|number| {
        let old = slot(1_000, 1, 0);
        let judgement = judge.step(&tick(number, slot(1_000, 15, 0), old));
        (judgement.verdict() == Verdict::Rollback).then_some(judgement.reason)
    });
    assert_eq!(verdict, Some(Reason::WorseThanOld(Metric::Errors)));
}

#[test]
fn slow_requests_go_back_too() {
    let mut judge = judge(singly());
    assert_eq!(repeat(&mut judge, 1, 5, slot(50, 0, 25), GOOD).verdict(), Verdict::Rollback);
    assert!(judge.look().slowness.over_limit > 4_000.0 && judge.look().errors.over_limit < 1.0);
}

#[test]
fn after_a_switch_of_everybody_the_limits_still_guard_and_still_promote() {
    let none = Counts::default();
    let mut dead = judge(singly());
    assert_eq!(repeat(&mut dead, 1, 3, slot(50, 50, 0), none).reason, Reason::OverLimit(Metric::Errors));
    let mut good = judge(singly());
    assert_eq!(repeat(&mut good, 1, 120, GOOD, none).reason, Reason::Proven);
    // What the old slot did long ago does not excuse the new one.
    let mut later = judge(singly());
    repeat(&mut later, 1, 60, GOOD, slot(50, 1, 0));
    repeat(&mut later, 61, 600, GOOD, none);
    let judgement = repeat(&mut later, 601, 620, slot(50, 5, 0), none);
    assert_eq!((judgement.reason, judgement.errors.both_sick), (Reason::OverLimit(Metric::Errors), false));
}

#[test]
fn slowness_that_is_not_seen_is_not_judged_and_nothing_is_promoted_on_it() {
    let mut judge = judge(singly());
    let unknown = |number, slow| Tick { latency: Latency::Unknown, ..tick(number, slot(50, 0, slow), GOOD) };
    for number in 1..=200 {
        let judgement = judge.step(&unknown(number, 50));
        assert_eq!(judgement.verdict(), Verdict::Undecided);
        assert_eq!(judgement.slowness.limit.0.requests, 0);
    }
    assert_eq!(judge.step(&unknown(201, 0)).reason, Reason::LatencyUnknown);
    // Seen again, long enough: promoted. Not seen for a single tick: not in that tick.
    repeat(&mut judge, 202, 230, GOOD, GOOD);
    assert_eq!(judge.step(&unknown(231, 0)).reason, Reason::LatencyUnknown);
    assert_eq!(repeat(&mut judge, 232, 260, GOOD, GOOD).reason, Reason::Proven);
}

#[test]
fn bad_ticks_are_no_data_and_many_of_them_a_hold() {
    let mut judge = judge(singly());
    repeat(&mut judge, 1, 10, GOOD, GOOD);
    let before = judge.look().errors;
    let bad = judge.step(&tick(11, slot(5, 6, 0), GOOD));
    assert_eq!((bad.refused, bad.refused_ticks, bad.watched), (Some(Refused::DoesNotAddUp), 1, 10));
    assert!((bad.errors.over_limit - before.over_limit).abs() < 1e-9);
    assert_eq!(bad.errors.limit, before.limit);
    let again = judge.step(&tick(11, slot(50, 50, 0), GOOD));
    assert_eq!((again.refused, again.elapsed), (Some(Refused::NotNewer), 11));
    assert_eq!(again.errors, bad.errors);
    // One that can be counted ends the row.
    judge.step(&tick(12, GOOD, GOOD));
    for number in 13..13 + BLIND_TICKS - 1 {
        assert_eq!(judge.step(&tick(number, slot(5, 6, 0), GOOD)).verdict(), Verdict::Undecided);
    }
    assert_eq!(judge.step(&tick(3, GOOD, GOOD)).reason, Reason::Blind);
    assert_eq!(judge.step(&tick(100, GOOD, GOOD)).reason, Reason::TooEarly);
}

#[test]
fn a_refused_tick_promotes_nothing() {
    let mut judge = judge(Choices { min_watch: 30, ..singly() });
    repeat(&mut judge, 1, 29, GOOD, GOOD);
    assert_eq!(judge.step(&tick(29, GOOD, GOOD)).reason, Reason::NoFreshData);
    assert_eq!(judge.step(&tick(30, GOOD, GOOD)).reason, Reason::Proven);
    assert_eq!(
        (judge.step(&tick(30, GOOD, GOOD)).reason, judge.look().reason),
        (Reason::NoFreshData, Reason::NoFreshData)
    );
}

#[test]
fn what_is_suspicious_is_not_promoted() {
    let mut judge = judge(singly());
    repeat(&mut judge, 1, 600, GOOD, GOOD);
    // Four dead seconds after ten good minutes: enough to wait, not enough to go back.
    let reasons: Vec<Reason> =
        (601..=604).map(|number| judge.step(&tick(number, slot(50, 40, 0), GOOD)).reason).collect();
    assert!(reasons.contains(&Reason::Suspicious(Metric::Errors)), "{reasons:?}");
}

#[test]
fn a_site_over_its_limits_is_fixed_forward_by_the_old_slot_alone() {
    let (old, fix) = (slot(500, 40, 0), slot(500, 15, 0));
    let mut strict = judge(singly());
    assert_eq!(repeat(&mut strict, 1, 60, fix, old).reason, Reason::BothSick(Metric::Errors));
    let mut forward = judge(Choices { against: Against::OldSlot, ..singly() });
    assert_eq!(repeat(&mut forward, 1, 120, fix, old).reason, Reason::Proven);
    let mut worse = judge(Choices { against: Against::OldSlot, ..singly() });
    assert_eq!(
        repeat(&mut worse, 1, 120, slot(500, 200, 0), old).reason,
        Reason::WorseThanOld(Metric::Errors)
    );
}

#[test]
fn what_does_not_count_is_not_told_as_evidence() {
    let (old, new) = (slot(500, 40, 0), slot(500, 90, 0));
    let mut judge = judge(Choices { against: Against::OldSlot, min_watch: 1, ..singly() });
    let mut judgements = (1..=120).map(|number| judge.step(&tick(number, new, old)));
    let suspicious = judgements.find(|found| found.reason == Reason::Suspicious(Metric::Errors)).unwrap();
    let (over, worse) = (suspicious.errors.over_limit, suspicious.errors.worse_than_old);
    assert!(over > 2.0 * worse && worse > 10.0, "{over}, {worse}");
    let told = suspicious.told(&"green".parse().unwrap(), &"blue".parse().unwrap()).to_string();
    assert!(
        told.starts_with(&format!("errors on `green` are suspicious, e-value {};", worse as u64)),
        "{told}"
    );
}

#[test]
fn what_is_as_bad_as_before_is_not_turned_back_where_nobody_is_left_to_compare_with() {
    let (as_before, nobody) = (slot(100, 3, 0), Counts::default());
    // 3 % failed before, and twice as much would be worse.
    let site = Choices { excused: Excused { errors: 0.06, over_limit: 0.0 }, ..singly() };
    let reason = |choices, new, old| repeat(&mut judge(choices), 1, 300, new, old).reason;
    assert_eq!(reason(singly(), as_before, nobody), Reason::OverLimit(Metric::Errors));
    let mut lenient = judge(site);
    for number in 1..=1_800 {
        let judgement = lenient.step(&tick(number, as_before, nobody));
        assert_ne!(judgement.verdict(), Verdict::Rollback, "{number}");
    }
    assert_eq!(lenient.look().reason, Reason::BothSick(Metric::Errors), "nor is it called good");
    // What is worse than before still falls, also after that.
    assert_eq!(repeat(&mut lenient, 1_801, 1_830, slot(100, 60, 0), nobody).verdict(), Verdict::Rollback);
    assert_eq!(reason(site, slot(100, 20, 0), nobody), Reason::OverLimit(Metric::Errors));
    // Whoever is left on the old slot says more than the past does, and one metric excuses no other.
    assert_eq!(reason(site, as_before, slot(100, 0, 0)).verdict(), Verdict::Rollback);
    assert_eq!(reason(site, slot(100, 0, 9), nobody), Reason::OverLimit(Metric::Slowness));
}

#[test]
fn blips_are_tolerated_only_where_they_are_chosen_to_be() {
    let dead = slot(50, 50, 0);
    for (blip, from, expected) in
        [(1, 601, Verdict::Rollback), (10, 601, Verdict::Undecided), (10, 606, Verdict::Undecided)]
    {
        let mut judge = judge(Choices { blip, min_watch: 1_800, ..singly() });
        repeat(&mut judge, 1, from - 1, GOOD, GOOD);
        repeat(&mut judge, from, from + 4, dead, GOOD);
        assert_eq!(repeat(&mut judge, from + 5, from + 5, dead, GOOD).verdict(), expected, "{blip}");
    }
    let mut judge = judge(Choices { blip: 10, ..singly() });
    assert_eq!(repeat(&mut judge, 1, 30, dead, GOOD).verdict(), Verdict::Rollback);
}

#[test]
fn a_pooled_stretch_is_judged_as_one_tick() {
    let mut pooled = judge(Choices { blip: 5, horizon: 3_600, ..singly() });
    let mut whole = judge(Choices { horizon: 3_600 / 5, max_watch: 720, ..singly() });
    for number in 1..=40_u32 {
        repeat(&mut pooled, number.into(), number.into(), slot(20 + number, number % 3, 0), slot(30, 1, 0));
    }
    for group in 0..8_u32 {
        let numbers = group * 5 + 1..=group * 5 + 5;
        let (requests, errors) =
            numbers.fold((0, 0), |sum, number| (sum.0 + 20 + number, sum.1 + number % 3));
        whole.step(&tick(u64::from(group) + 1, slot(requests, errors, 0), slot(150, 5, 0)));
    }
    let (pooled, whole) = (pooled.look().errors, whole.look().errors);
    assert!((pooled.over_limit / whole.over_limit - 1.0).abs() < 1e-9);
    assert!((pooled.worse_than_old / whole.worse_than_old - 1.0).abs() < 1e-9);
}

#[test]
fn bunches_that_were_never_seen_before_make_a_promotion_wait() {
    let bunch = |number: u64| if number == 5 { slot(50, 20, 0) } else { GOOD };
    let promoted = |bunched: bool| {
        let mut judge = judge(singly());
        (1..=1_700_u64).find(|number| {
            // As many failures, all at once or one by one.
            let single = slot(50, u32::from(number.is_multiple_of(10) && *number <= 200), 0);
            let new = if bunched { bunch(*number) } else { single };
            judge.step(&tick(*number, new, GOOD)).verdict() == Verdict::Promote
        })
    };
    assert!(promoted(false).unwrap() < promoted(true).unwrap());
}

#[test]
fn bytes_that_are_not_its_own_are_refused() {
    let mut judge = judge(singly());
    repeat(&mut judge, 1, 5, slot(50, 3, 1), GOOD);
    let (bytes, params) = (judge.to_bytes(), Params::new(singly()).unwrap());
    assert_eq!(Judge::from_bytes(params, &bytes), Ok(judge));
    assert_eq!(Judge::from_bytes(Params::default(), &bytes), Err(NotRestored::OtherParams));
    for length in 0..bytes.len() {
        assert!(Judge::from_bytes(params, &bytes[..length]).is_err(), "{length}");
    }
    assert_eq!(Judge::from_bytes(params, &[&bytes[..], &[0]].concat()), Err(NotRestored::Damaged));
    let mut newer = bytes.clone();
    newer[0] = 9;
    assert_eq!(Judge::from_bytes(params, &newer), Err(NotRestored::Version));
    // A cell that holds no number, or less than nothing.
    let cell = 8 * (1 + 18 + 6);
    for number in [f64::NAN, f64::INFINITY, -1.0] {
        let mut damaged = bytes.clone();
        damaged[cell..cell + 8].copy_from_slice(&number.to_le_bytes());
        assert_eq!(Judge::from_bytes(params, &damaged), Err(NotRestored::Damaged), "{number}");
    }
}
