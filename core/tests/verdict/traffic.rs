//! Seeded traffic in small: no good release is rolled back, bad ones are noticed in time. The same at full size, beside
//! other tools: `scripts/bench.sh verdict`.

use pointsman_core::verdict::{Counts, Judge, Params, Verdict};
use pointsman_core::{Before, Part, Usual, VerdictMode, VerdictPlan};

use crate::{judge, singly, tick};

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Events in a second that come by themselves at a mean rate (Knuth): means are below 100 here.
    fn poisson(&mut self, mean: f64) -> u32 {
        let (mut product, mut count) = (self.unit(), 0);
        while product > (-mean).exp() {
            product *= self.unit();
            count += 1;
        }
        count
    }

    /// One slot in one second: bad requests of both kinds in bunches.
    fn slot(&mut self, requests: f64, bad: f64, bunch: u32) -> Counts {
        let mean = requests * bad / f64::from(bunch);
        let (errors, slow) = (self.poisson(mean) * bunch, self.poisson(mean) * bunch);
        let good = self.poisson(requests * (1.0 - 2.0 * bad).max(0.0));
        let requests = good + errors + slow;
        Counts { requests, errors, given_up: 0, timed: requests, over_limit: slow, over_baseline: slow }
    }
}

#[test]
fn no_good_release_is_rolled_back() {
    let mut releases = 0;
    for (seed, bunch) in [(1, 1), (2, 10), (3, 50)] {
        for (per_second, split) in [(1.0, 0.5), (10.0, 0.1), (60.0, 0.5)] {
            for bad in [0.001, 0.009] {
                for history in 0..10 {
                    let mut dice = Dice(seed * 1_000 + history * 77 + (per_second * 10.0 + bad * 1e4) as u64);
                    let mut judge = Judge::new(Params::default());
                    for number in 1..=1_200 {
                        let new = dice.slot(per_second * split, bad, bunch);
                        let old = dice.slot(per_second * (1.0 - split), bad, bunch);
                        let judgement = judge.step(&tick(number, new, old));
                        assert_ne!(
                            judgement.verdict(),
                            Verdict::Rollback,
                            "{bunch} {per_second} {bad} {number}"
                        );
                    }
                    releases += 1;
                }
            }
        }
    }
    assert_eq!(releases, 180);
}

/// A slot that gets pages of forty requests and lone polls: the polls fail at this rate, and the pages at the other.
fn pages_and_polls(dice: &mut Dice, pages: f64, polls: f64, fail: (f64, f64)) -> Counts {
    let (pages, polls) = (dice.poisson(pages) * 40, dice.poisson(polls));
    let mut failing = |of: u32, rate: f64| (0..of).map(|_| u32::from(dice.unit() < rate)).sum::<u32>();
    let errors = failing(pages, fail.0) + failing(polls, fail.1);
    let requests = pages + polls;
    Counts { requests, errors, timed: requests, ..Counts::default() }
}

/// 0.24 to 0.33 % of all requests fail, all of them in seconds that have few. By the mean share of seconds that is above 1 %.
#[test]
fn a_limit_is_about_requests_and_not_about_seconds() {
    let sites = [(0.2, 1.0, 0.03), (0.2, 0.5, 0.05), (1.0, 2.0, 0.05)];
    for (site, (pages, polls, fail)) in (1..).zip(sites) {
        for split in [0.5, 1.0] {
            for history in 0..20 {
                let (mut dice, mut judge) =
                    (Dice(site * 1_000 + history * 77), Judge::new(Params::default()));
                for number in 1..=1_800 {
                    let mut slot =
                        |share: f64| pages_and_polls(&mut dice, pages * share, polls * share, (0.0, fail));
                    let judgement = judge.step(&tick(number, slot(split), slot(1.0 - split)));
                    assert_ne!(judgement.verdict(), Verdict::Rollback, "{site} {split} {history} {number}");
                }
            }
        }
    }
}

/// There a fault of all requests is noticed by the seconds that have many.
#[test]
fn a_fault_is_noticed_where_requests_come_in_pages() {
    let mut seconds: Vec<u64> = (0..101)
        .map(|history| {
            let (mut dice, mut judge) = (Dice(history), judge(singly()));
            let rolled_back = |number: &u64| {
                let new = pages_and_polls(&mut dice, 0.5, 1.0, (0.05, 0.05));
                let old = pages_and_polls(&mut dice, 0.5, 1.0, (0.001, 0.001));
                judge.step(&tick(*number, new, old)).verdict() == Verdict::Rollback
            };
            (1..=600).find(rolled_back).unwrap()
        })
        .collect();
    seconds.sort_unstable();
    // 44 and 96 where each second counts as one.
    assert!(seconds[50] <= 32 && seconds[95] <= 64, "{} and {} s", seconds[50], seconds[95]);
}

/// Medians and 95th percentiles over 1001 histories, at 100 requests a second and a split of 50 %: the goals, the 95th percentiles of
/// small faults with the tenth that they allow.
#[test]
fn bad_releases_are_noticed_in_time() {
    for (errors, median, mostly) in
        [(1.0, 3, 3), (0.2, 4, 5), (0.05, 9, 17), (0.02, 47, 87), (0.015, 72, 132)]
    {
        let mut seconds: Vec<u64> = (0..1001)
            .map(|history| {
                let (mut dice, mut judge) = (Dice(history), judge(singly()));
                let rolled_back = |number: &u64| {
                    let (bad, good) = (dice.poisson(50.0 * errors), dice.poisson(50.0 * (1.0 - errors)));
                    let new = Counts { requests: bad + good, errors: bad, ..Counts::default() };
                    let mut old = dice.slot(50.0, 0.001, 1);
                    (old.over_limit, old.over_baseline) = (0, 0);
                    judge.step(&tick(*number, new, old)).verdict() == Verdict::Rollback
                };
                (1..=600).find(rolled_back).unwrap()
            })
            .collect();
        seconds.sort_unstable();
        assert!(
            seconds[500] <= median && seconds[950] <= mostly,
            "{errors}: {} and {} s",
            seconds[500],
            seconds[950]
        );
    }
}

/// A plan for a site of which a quarter of an hour was counted.
fn planned(dice: &mut Dice, per_second: f64, bad: f64, fix_forward: bool) -> VerdictPlan {
    let add = |part: Part, bad: u32, of: u32| Part {
        bad: part.bad + u64::from(bad),
        requests: part.requests + u64::from(of),
    };
    let (mut errors, mut slow) = (Usual::default(), Usual::default());
    for second in 0..900 {
        let counts = dice.slot(per_second, bad, 1);
        errors.whole = add(errors.whole, counts.errors, counts.requests);
        slow.whole = add(slow.whole, counts.over_limit, counts.timed);
        if second >= 780 {
            errors.lately = add(errors.lately, counts.errors, counts.requests);
            slow.lately = add(slow.lately, counts.over_limit, counts.timed);
        }
    }
    let before =
        Before { usual: Some((errors, slow)), bunches_milli: Some((1_000, 1_000)), ..Before::default() };
    VerdictPlan { mode: VerdictMode::Act, fix_forward, before, ..VerdictPlan::default() }
}

/// 3 % fail and 3 % are too slow, before and after all visitors were moved: nobody is left to compare with, and yet no release
/// is turned back for what it does not bring. What is far worse falls all the same.
#[test]
fn a_site_over_its_limits_keeps_what_is_no_worse_and_loses_what_is() {
    for (per_second, bad, verdict) in [(2.0, 0.03, false), (20.0, 0.03, false), (20.0, 0.2, true)] {
        for fix_forward in [false, true] {
            for history in 0..20 {
                let mut dice = Dice(history * 31 + per_second as u64);
                let plan = planned(&mut dice, per_second, 0.03, fix_forward);
                let mut judge = Judge::new(plan.params(0).unwrap());
                let falls = (1..=900).any(|number| {
                    let counts = dice.slot(per_second, bad, 1);
                    judge.step(&tick(number, counts, Counts::default())).verdict() == Verdict::Rollback
                });
                assert_eq!(falls, verdict, "{per_second} {bad} {fix_forward} {history}");
            }
        }
    }
}
