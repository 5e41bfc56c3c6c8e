//! What holds for every history.

use pointsman_core::verdict::{Choices, Counts, Excused, Judge, Latency, Params, Tick, Verdict};
use proptest::prelude::*;

use crate::{SINGLY, singly};

fn counts() -> impl Strategy<Value = Counts> {
    let share = prop_oneof![Just(0.0), Just(1.0), 0.0..1.0f64];
    (0..2_000u32, share.clone(), share.clone(), share).prop_map(|(requests, errors, limit, baseline)| {
        let of = |share: f64| (f64::from(requests) * share) as u32;
        let (over_limit, over_baseline) = (of(limit), of(baseline));
        Counts { requests, errors: of(errors), given_up: 0, timed: requests, over_limit, over_baseline }
    })
}

/// A tick after a gap of so many, now and then one that cannot be counted.
fn step() -> impl Strategy<Value = (u64, Tick)> {
    let gap = prop_oneof![8 => Just(1_u64), 1 => Just(0), 1 => 2..50_u64];
    let latency = prop_oneof![4 => Just(Latency::Known), 1 => Just(Latency::Unknown)];
    (gap, counts(), counts(), latency, 0..20_u32).prop_map(|(gap, mut new, old, latency, fault)| {
        if fault == 0 {
            new.errors = new.requests + 1;
        }
        (gap, Tick { number: 0, new, old, latency })
    })
}

fn history() -> impl Strategy<Value = Vec<Tick>> {
    proptest::collection::vec(step(), 1..80).prop_map(|steps| {
        let mut number = 1_000;
        let numbered = steps.into_iter().map(|(gap, tick)| {
            number += gap;
            Tick { number, ..tick }
        });
        numbered.collect()
    })
}

fn choices() -> impl Strategy<Value = Choices> {
    let excused = prop_oneof![Just(0.0), 0.01..0.9f64];
    (1..7_u64, 1..60_u64, excused).prop_map(|(blip, min_watch, errors)| {
        let excused = Excused { errors, over_limit: errors / 2.0 };
        Choices { blip, min_watch, excused, ..singly() }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A coordinator that dies at any tick and comes back says, bit for bit, what one that lived would have said.
    #[test]
    fn a_restart_loses_nothing(history in history(), choices in choices(), cut in 0..80_usize) {
        let params = Params::new(choices).unwrap();
        let mut lived = Judge::new(params);
        let mut died = Judge::new(params);
        for (at, tick) in history.iter().enumerate() {
            if at == cut || at % 7 == cut % 7 {
                died = Judge::from_bytes(params, &died.to_bytes()).unwrap();
            }
            prop_assert_eq!(lived.step(tick), died.step(tick));
            prop_assert_eq!(lived.to_bytes(), died.to_bytes());
        }
    }

    /// The version before did not know how requests come: its judge is taken up, and learns that anew.
    #[test]
    fn a_judge_of_the_version_before_is_taken_up(history in history(), choices in choices()) {
        let params = Params::new(choices).unwrap();
        let mut judge = Judge::new(params);
        for tick in &history {
            judge.step(tick);
        }
        let bytes = judge.to_bytes();
        // Version, 18 parameters, six numbers; then two ledgers, each with four numbers at its end that were not there.
        let (head, ledgers) = bytes.split_at(25 * 8);
        let before: Vec<u8> = 2_u64.to_le_bytes().into_iter().chain(head[8..].iter().copied())
            .chain(ledgers.chunks(ledgers.len() / 2).flat_map(|ledger| ledger[..ledger.len() - 32].to_vec()))
            .collect();
        let taken_up = Judge::from_bytes(params, &before).unwrap();
        prop_assert_eq!(taken_up.look(), judge.look());
        prop_assert!(Judge::from_bytes(params, &before[..before.len() - 8]).is_err());
        prop_assert!(Judge::from_bytes(params, &[2_u64.to_le_bytes().as_slice(), &bytes[8..]].concat()).is_err());
    }

    #[test]
    fn every_number_is_one(history in history(), choices in choices()) {
        let mut judge = Judge::new(Params::new(choices).unwrap());
        for tick in &history {
            let judgement = judge.step(tick);
            for finding in [judgement.errors, judgement.slowness] {
                let values = [finding.over_limit, finding.worse_than_old, finding.old_over_limit, finding.within_limit,
                    finding.not_worse];
                prop_assert!(values.iter().all(|value| value.is_finite() && *value >= 0.0), "{:?}", finding);
            }
            prop_assert!(judgement.watched + judgement.refused_ticks >= 1);
            prop_assert!(judgement.watched <= judgement.elapsed);
        }
    }

    /// A tick that is left out is a tick without data.
    #[test]
    fn a_gap_is_ticks_without_data(history in history(), gap in 1..40_u64) {
        let params = Params::new(singly()).unwrap();
        let (mut skipped, mut silent) = (Judge::new(params), Judge::new(params));
        for tick in &history {
            skipped.step(tick);
            silent.step(tick);
        }
        let last = history.last().unwrap().number;
        let nothing = Counts::default();
        for number in last + 1..=last + gap {
            silent.step(&Tick { number, new: nothing, old: nothing, latency: Latency::Known });
        }
        let next = Tick { number: last + gap + 1, ..*history.last().unwrap() };
        let (skipped, silent) = (skipped.step(&next), silent.step(&next));
        for (left, right) in [(skipped.errors, silent.errors), (skipped.slowness, silent.slowness)] {
            for (left, right) in [(left.over_limit, right.over_limit), (left.worse_than_old, right.worse_than_old)] {
                prop_assert!((left - right).abs() <= 1e-9 * left.abs().max(1.0), "{left} is not {right}");
            }
            prop_assert_eq!(left.limit, right.limit);
        }
    }

    /// Evidence for a promotion is a sum: the order of ticks does not matter.
    #[test]
    fn evidence_for_a_promotion_has_no_order(mut ticks in proptest::collection::vec((counts(), counts()), 2..40)) {
        let evidence = |ticks: &[(Counts, Counts)]| {
            let mut judge = Judge::new(Params::new(singly()).unwrap());
            for (number, (new, old)) in (1..).zip(ticks) {
                judge.step(&Tick { number, new: *new, old: *old, latency: Latency::Known });
            }
            let found = judge.look();
            [found.errors.within_limit, found.errors.not_worse, found.slowness.within_limit, found.slowness.not_worse]
        };
        let forward = evidence(&ticks);
        ticks.reverse();
        for (left, right) in forward.into_iter().zip(evidence(&ticks)) {
            prop_assert!((left - right).abs() <= 1e-6 * left.abs().max(1e-300), "{left} is not {right}");
        }
    }

    /// With more bunches nothing is promoted earlier.
    #[test]
    fn bunches_never_hasten_a_promotion(errors in proptest::collection::vec(0..2_u32, 100), dispersion in 1.0..30.0f64) {
        let promoted = |dispersion: f64| {
            let dispersions = pointsman_core::verdict::Dispersions { errors: dispersion, ..SINGLY };
            let mut judge = Judge::new(Params::new(Choices { dispersions, ..singly() }).unwrap());
            (1..).zip(&errors).find_map(|(number, errors)| {
                let tick = crate::tick(number, crate::slot(200, *errors, 0), crate::slot(200, 0, 0));
                (judge.step(&tick).verdict() == Verdict::Promote).then_some(number)
            })
        };
        let (independent, bunched) = (promoted(1.0).unwrap_or(u64::MAX), promoted(dispersion).unwrap_or(u64::MAX));
        prop_assert!(bunched >= independent);
    }
}
