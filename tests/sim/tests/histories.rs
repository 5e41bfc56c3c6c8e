//! What the simulator promises: the same seed is the same history, a calm world needs nobody's help, and a broken rule is
//! told with nothing in it that does not matter.

use pointsman_core::{Outcome, RequestKind};
use pointsman_sim::guard::Guard;
use pointsman_sim::history::{Options, run};
use pointsman_sim::scenario::Quality::{FailsChecks, FailsLater, FailsVisitors, Good};
use pointsman_sim::scenario::{Accepts, Fault, Files, Met, Net, Scenario, Verdicts, What, Wish, calm};
use pointsman_sim::{seeds, shorten};

const TOLD: Options = Options { off: None, crashes: [None; 2], trace: true };

#[test]
fn the_same_seed_twice_is_the_same_history_word_for_word() {
    for seed in 0..100 {
        let once = run(Scenario::of(seed), TOLD).unwrap();
        let twice = run(Scenario::of(seed), TOLD).unwrap();
        assert!(once.trace.len() > 5, "seed {seed} tells nothing");
        assert_eq!(once.trace, twice.trace, "seed {seed}");
    }
}

#[test]
fn in_a_calm_world_every_wish_ends_as_it_should_without_help() {
    use Outcome::{Aborted, Confirmed, RolledBack};
    let ends: Vec<(&str, Vec<Outcome>)> = vec![
        ("blue/green", vec![Confirmed]),
        ("two hosts a slot", vec![Confirmed]),
        ("two balancers", vec![Confirmed]),
        ("first release", vec![Confirmed]),
        ("checks fail", vec![Aborted]),
        ("watch fails", vec![RolledBack]),
        ("rollback", vec![Confirmed, Confirmed]),
        ("maintenance", vec![Confirmed, Confirmed]),
        ("release under maintenance", vec![Confirmed, Confirmed, Confirmed]),
        ("back and forth", vec![Confirmed, Confirmed]),
        ("canary", vec![Confirmed]),
        ("visitors fail", vec![RolledBack]),
        ("proven", vec![Confirmed]),
        ("journal lost", vec![Confirmed]),
        ("share left behind", vec![Confirmed, Confirmed]),
        ("canary fails", vec![RolledBack]),
        ("migration", vec![Confirmed]),
        ("migration fails on the copy", vec![Aborted]),
        ("migration fails", vec![Aborted]),
        ("migrated version fails", vec![RolledBack]),
        ("contract", vec![Confirmed, Confirmed]),
        ("backup", vec![Confirmed, Confirmed]),
        ("restore", vec![Confirmed; 4]),
        ("restore and back", vec![Confirmed; 5]),
        ("back without a balancer", vec![RolledBack]),
        ("back without a host", vec![Aborted]),
    ];
    let scenarios = calm();
    assert_eq!(scenarios.len(), ends.len());
    for ((name, scenario), (same, wanted)) in scenarios.into_iter().zip(ends) {
        assert_eq!(name, same);
        let leaves_out = scenario.leaves_out;
        let report = run(scenario, TOLD).unwrap();
        assert_eq!(
            report.trace.iter().any(|told| told.contains("does not wait: resume")),
            leaves_out,
            "{name}"
        );
        let ended: Vec<Outcome> = report.outcomes.into_iter().flatten().collect();
        assert_eq!((report.violation, ended, report.helped), (None, wanted, 0), "{name}");
    }
}

/// What once broke a rule, each too rare to come up in a walk of a few minutes. A seed means another history whenever something is
/// drawn otherwise, so each is told.
#[test]
fn what_once_went_wrong_goes_well() {
    let scenarios = [
        (
            "a swap is taken back, the answer is lost, the next attempt finds no room, and a rollback ends that undone",
            Scenario {
                balancers: 2,
                hosts: 2,
                live: false,
                clumsy: 60,
                database: true,
                brittle: 50,
                ..told(
                    34_256_227,
                    &[
                        Wish::Backup,
                        Wish::Restore,
                        Wish::Swap { more: 0 },
                        Wish::SwapBack { more: 0 },
                        Wish::Settle,
                    ],
                    &[
                        (36, 6, What::KillCoordinator { back_ms: 1_047 }),
                        (30, 6, What::Reload { balancer: 3, slow_ms: 0 }),
                    ],
                )
            },
        ),
        (
            "a watch ends while its journal hangs, and visitors are out of sight for longer than when that was decided",
            Scenario {
                balancers: 2,
                splits: 2,
                verdict: Verdicts::Fixed,
                ..told(
                    100_451_416,
                    &[Wish::Deploy(FailsVisitors)],
                    &[
                        (6, 9, What::LoseDisk { host: 11, back_ms: 1_519 }),
                        (9, 28, What::KillHaproxy { balancer: 2, back_ms: 2_332 }),
                        (42, 1_790, What::LoseSignals { for_ms: 28_876 }),
                        (27, 5_877, What::JournalHangs { for_ms: 6_000 }),
                    ],
                )
            },
        ),
        (
            "a release of before the journal was lost had the same name, and its backup is of the database that a swap replaced",
            Scenario {
                verdict: Verdicts::Fixed,
                database: true,
                brittle: 5,
                accepts: Accepts::Copied { after_ms: 4_055, starts: 5, met: Met::AgentsOfBefore },
                ..told(
                    100_664_797,
                    &[Wish::Migrating(FailsChecks, Files::Good), Wish::Restore, Wish::Swap { more: 1 }],
                    &[(0, 21, What::TailLost { entries: 1 })],
                )
            },
        ),
        (
            "a journal that was accepted knows of no route, and the next release begins with one that somebody puts back later",
            Scenario {
                automatic: false,
                clumsy: 60,
                database: true,
                accepts: Accepts::Until,
                ..told(
                    100_709_034,
                    &[Wish::PageUp, Wish::Backup, Wish::Restore, Wish::Swap { more: 2 }, Wish::PageDown],
                    &[
                        (24, 39, What::ServerDown { host: 8, for_ms: 5_000 }),
                        (29, 38, What::ChangedByHand { balancer: 10, for_ms: 16_990 }),
                        (15, 58, What::Contradict { host: 1 }),
                        (27, 259, What::TailLost { entries: 11 }),
                    ],
                )
            },
        ),
        (
            "the same with a route that a reload has brought back for a moment",
            Scenario {
                splits: 2,
                clumsy: 3,
                accepts: Accepts::Until,
                ..told(
                    101_273_283,
                    &[Wish::Deploy(Good), Wish::Deploy(Good)],
                    &[
                        (16, 15, What::TailLost { entries: 4 }),
                        (10, 8, What::Reload { balancer: 6, slow_ms: 0 }),
                    ],
                )
            },
        ),
        (
            "an order comes too late by a clock that is set back then, and a copy of it comes after the release was given up",
            Scenario {
                verdict: Verdicts::Decided,
                clumsy: 60,
                net: Net { loss: 5, twice: 30, late: 3 },
                ..told(
                    200_063_767,
                    &[Wish::Deploy(FailsVisitors)],
                    &[
                        (29, 177, What::KillCoordinator { back_ms: 2_199 }),
                        (32, 14, What::KillAgent { host: 1, back_ms: 2_183 }),
                        (25, 1_954, What::TakeOver),
                        (24, 188, What::DamageReceipts { host: 3, back_ms: 2_426 }),
                        (42, 7_511, What::SetAgentClock { host: 5, by_ms: -86_400_000 }),
                        (22, 8_297, What::SetClock { by_ms: -3_600_000 }),
                    ],
                )
            },
        ),
        (
            "what a swap replaced had been restored from the same backup, before the journal of that was lost",
            Scenario {
                live: false,
                verdict: Verdicts::Early,
                database: true,
                brittle: 5,
                net: Net { loss: 5, twice: 5, late: 0 },
                accepts: Accepts::Copied { after_ms: 33, starts: 3, met: Met::Nobody },
                ..told(
                    200_304_707,
                    &[Wish::Backup, Wish::Restore, Wish::Settle, Wish::Restore, Wish::Swap { more: 2 }],
                    &[
                        (7, 22, What::KillAgent { host: 11, back_ms: 1_851 }),
                        (20, 4, What::TailLost { entries: 12 }),
                        (26, 11, What::Ask(RequestKind::Rollback)),
                        (3, 6, What::KillAgent { host: 1, back_ms: 82 }),
                    ],
                )
            },
        ),
        (
            "an agent is gone for a quarter of an hour, and a coordinator that was taken over watches on as well",
            Scenario {
                hosts: 2,
                automatic: false,
                ..told(
                    102_599_210,
                    &[Wish::Deploy(FailsLater)],
                    &[
                        (29, 1_625, What::TakeOver),
                        (15, 930, What::JournalHangs { for_ms: 6_000 }),
                        (44, 171, What::KillAgent { host: 11, back_ms: 1_035_871 }),
                    ],
                )
            },
        ),
        (
            "a load balancer's agent stands still and takes an order late, whose gates were young enough when it was intended",
            Scenario {
                hosts: 2,
                splits: 1,
                automatic: false,
                net: Net { loss: 0, twice: 5, late: 15 },
                ..told(
                    210_069_083,
                    &[Wish::Deploy(Good)],
                    &[
                        (39, 3, What::FreezeAgent { host: 4, for_ms: 27_733 }),
                        (32, 1, What::JournalHangs { for_ms: 30_000 }),
                    ],
                )
            },
        ),
        (
            "a worker reads the map before visitors are moved, and takes over while the slot that they came from is changed",
            Scenario {
                hosts: 2,
                splits: 1,
                net: Net { loss: 0, twice: 30, late: 0 },
                accepts: Accepts::Copied { after_ms: 4_194, starts: 7, met: Met::Nobody },
                ..told(
                    300_569_455,
                    &[Wish::Deploy(Good), Wish::Rollback, Wish::Deploy(Good)],
                    &[
                        (37, 35, What::Reload { balancer: 1, slow_ms: 0 }),
                        (41, 438, What::TailLost { entries: 12 }),
                    ],
                )
            },
        ),
    ];
    for (what, scenario) in scenarios {
        assert_eq!(run(scenario, Options::default()).unwrap().violation, None, "{what}");
    }
}

/// Wherever the end of the journal is lost while some visitors are on the new slot, and a person accepts what is left: a rollback
/// leads them to the others, and then a deploy goes as ever.
#[test]
fn whoever_an_accepted_journal_forgot_is_led_back_by_a_rollback() {
    let (_, calm) = calm().into_iter().find(|(name, _)| *name == "share left behind").unwrap();
    let mut led_back = 0;
    for (balancers, after_entries, entries) in
        (20..44).flat_map(|after| [(1, after, 14), (2, after, 14), (1, after, 4), (2, after, 24)])
    {
        let what = What::TailLost { entries };
        let faults = vec![Fault { after_entries, delay_ms: 20, what }];
        let scenario = Scenario { balancers, faults, ..calm.clone() };
        let report = run(scenario.clone(), TOLD).unwrap();
        assert_eq!(report.violation, None, "{scenario:?}");
        // Its first move goes from a share to none, on the slot that serves.
        let gathers = |told: &&String| {
            told.contains("InWorker")
                && told.contains("by r1 switch")
                && told.split("percent: 0").count() == 2
        };
        let gathered = report.trace.iter().any(|told| gathers(&told));
        if gathered {
            assert_eq!(report.outcomes, [Some(Outcome::Confirmed); 2], "{scenario:?}");
            led_back += 1;
        }
    }
    assert!(led_back > 12, "hardly anybody was left behind: {led_back}");
}

/// Its memory of what it has acknowledged outlives them, so it is held to that, also where another coordinator takes over just then
/// and the network brings copies late.
#[test]
fn an_agent_whose_receipts_are_damaged_acts_for_nobody_who_was_taken_over_and_does_nothing_twice() {
    let mut over = 0;
    for (name, calm) in calm().into_iter().filter(|(_, scenario)| scenario.faults.is_empty()) {
        for (after_entries, host) in (3..60).step_by(4).zip((0..).map(|number| number * 5)) {
            let damaged = What::DamageReceipts { host, back_ms: 60 };
            let at = |delay_ms, what| Fault { after_entries, delay_ms, what };
            for faults in [vec![at(5, damaged)], vec![at(5, What::TakeOver), at(60, damaged)]] {
                let net = Net { loss: 0, twice: 30, late: 30 };
                let scenario = Scenario { faults, net, ..calm.clone() };
                let report = run(scenario.clone(), Options::default()).unwrap();
                assert_eq!(report.violation, None, "{name}: {scenario:?}");
                over += report.outcomes.iter().flatten().count();
            }
        }
    }
    assert!(over > 500, "hardly any release ended by itself: {over}");
}

#[test]
fn a_missing_guard_is_found_and_the_story_is_shortened() {
    let off = Options { off: Some(Guard::Gate), ..Options::default() };
    let tally = seeds::walk(0, 200, off).unwrap();
    let (seed, violation) = tally.failed.first().unwrap();
    assert_eq!(violation.rule, "I2");
    let (scenario, report) = shorten::shorten(Scenario::of(*seed), off, "I2").unwrap();
    assert_eq!(scenario.faults, [], "a gate that lets everything pass needs no fault to be found");
    assert!(report.trace.last().unwrap().contains("BROKEN I2"));
}

#[test]
fn each_of_these_guards_has_a_rule_that_misses_it() {
    for (guard, rule) in [
        (Guard::KeyReused, "I3"),
        (Guard::OldSlotUntouched, "I8"),
        (Guard::FlagOnlyInMaintenance, "I10"),
        (Guard::OwnIntent, "I12"),
        (Guard::EvidenceKept, "I13"),
        (Guard::MissedIsHeard, "I13"),
        (Guard::VisitorsCount, "I13"),
        (Guard::OutOfSight, "I13"),
        (Guard::UndecidedWaits, "I13"),
        (Guard::BackupFirst, "I7"),
        (Guard::BackupChecked, "I7"),
        (Guard::RehearsalFirst, "I7"),
        (Guard::ExpandFirst, "I7b"),
        (Guard::ContractLast, "I7b"),
        (Guard::ContractKnown, "I7b"),
        (Guard::ContractEndsWayBack, "I7b"),
        (Guard::MigratedOnce, "I5"),
        (Guard::RecordedWithin, "I5"),
        (Guard::SwapNoted, "I7c"),
        (Guard::OneRename, "I7c"),
        (Guard::SettleLooks, "I7c"),
        (Guard::DatabaseLeftAlone, "I8"),
        (Guard::LateCounts, "I11"),
        (Guard::ShareGathered, "I13"),
    ] {
        let off = Options { off: Some(guard), ..Options::default() };
        let tally = seeds::walk(0, 1_000, off).unwrap();
        let violation = tally.failed.first().map(|(_, violation)| violation);
        assert_eq!(violation.map(|violation| violation.rule), Some(rule), "{guard:?}: {violation:?}");
    }
}

#[test]
fn what_both_slots_use_turns_nothing_back_and_excuses_nothing() {
    let (_, calm) = calm().into_iter().find(|(name, _)| *name == "two balancers").unwrap();
    let mut held = 0;
    for delay_ms in (500..11_000).step_by(500) {
        for for_ms in [1_000, 4_000, 12_000, 200_000] {
            // The route stands on both load balancers from entry 32 on, and the old slot is looked at then.
            let fault = Fault { after_entries: 32, delay_ms, what: What::SharedAway { for_ms } };
            let scenario = Scenario { faults: vec![fault], ..calm.clone() };
            let place = format!("away for {for_ms} ms, {delay_ms} ms after the switch");
            let report = run(scenario.clone(), Options::default()).unwrap();
            assert_eq!(
                (report.violation, report.outcomes),
                (None, vec![Some(Outcome::Confirmed)]),
                "{place}"
            );
            held += usize::from(report.helped > 0);
            // What fails by itself, too, is left all the same.
            let wishes = vec![Wish::Deploy(FailsLater)];
            let report = run(Scenario { wishes, ..scenario }, Options::default()).unwrap();
            let ended = (report.violation, report.outcomes);
            assert_eq!(ended, (None, vec![Some(Outcome::RolledBack)]), "{place}");
        }
    }
    assert!(held > 20, "only {held} were held");
}

#[test]
fn a_failing_seed_is_told_to_people_and_not_to_programs() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pointsman-sim"));
    command.args(["--seeds", "50", "--without", "gate", "--output", "json"]);
    let ended = command.output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let document: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert!(document["violations"].as_u64().unwrap() > 0);
    let told = String::from_utf8(ended.stderr).unwrap();
    let seed = &document["failed"][0]["seed"];
    assert!(told.contains(&format!("seed {seed} breaks I2")) && told.contains("BROKEN I2: "), "{told}");
}

#[test]
fn an_agent_that_lost_its_disk_needs_nobodys_help() {
    for (name, scenario) in calm() {
        for host in 0..6 {
            for after_entries in (0..60).step_by(3) {
                let what = What::LoseDisk { host, back_ms: 300 };
                let faults = vec![Fault { after_entries, delay_ms: 3, what }];
                let report = run(Scenario { faults, ..scenario.clone() }, Options::default()).unwrap();
                let place = format!("{name}, host {host} after entry {after_entries}");
                assert_eq!((report.violation, report.helped), (None, 0), "{place}");
                assert!(report.outcomes.iter().all(Option::is_some), "{place}");
            }
        }
    }
}

#[test]
fn two_thousand_seeds_break_nothing() {
    let tally = seeds::walk(1_000_000, 2_000, Options::default()).unwrap();
    assert_eq!((tally.seeds, tally.failed), (2_000, Vec::new()));
    let ended = |word| tally.outcomes.get(word).copied().unwrap_or(0);
    for word in ["confirmed", "rolled-back", "aborted", "refused"] {
        assert!(ended(word) >= 20, "{:?}", tally.outcomes);
    }
}

/// A history in which nothing goes wrong but what is told.
fn told(seed: u64, wishes: &[Wish], faults: &[(u64, u64, What)]) -> Scenario {
    let fault = |&(after_entries, delay_ms, what): &(u64, u64, What)| Fault { after_entries, delay_ms, what };
    Scenario {
        seed,
        balancers: 1,
        hosts: 1,
        live: true,
        wishes: wishes.to_vec(),
        splits: 0,
        verdict: Verdicts::Off,
        automatic: true,
        net: Net::default(),
        clumsy: 0,
        database: false,
        brittle: 0,
        accepts: Accepts::Never,
        leaves_out: false,
        faults: faults.iter().map(fault).collect(),
    }
}

#[test]
fn gates_that_were_asked_before_a_standstill_promote_nobody() {
    let standstill = What::StallCoordinator { for_ms: 30_000 };
    let scenario = told(
        115_570_961,
        &[Wish::Deploy(Good)],
        &[(2, 1_653, What::TakeOver), (13, 1_076, What::Ask(RequestKind::Promote)), (24, 19, standstill)],
    );
    let report = run(Scenario { splits: 2, ..scenario }, Options::default()).unwrap();
    assert_eq!((report.violation, report.outcomes), (None, vec![Some(Outcome::Confirmed)]));
}

/// It waits for a host to plan the next release, the other one plans it, and it sees routes that it knows nothing of.
#[test]
fn a_coordinator_that_was_superseded_gives_up_nothing_that_the_other_one_does() {
    let scenario = told(
        114_446_338,
        &[Wish::PageUp, Wish::Deploy(FailsLater)],
        &[(1, 355, What::TakeOver), (0, 22, What::KillAgent { host: 7, back_ms: 1_041 })],
    );
    let report = run(Scenario { splits: 1, automatic: false, ..scenario }, Options::default()).unwrap();
    assert_eq!(report.violation, None);
    assert_eq!(report.outcomes, [Some(Outcome::Confirmed), Some(Outcome::RolledBack)]);
}

/// The end of the watch is lost with the journal's end, and the request for it is not.
#[test]
fn a_promotion_happens_also_after_the_entries_behind_it_were_lost() {
    let scenario = told(
        102_631_691,
        &[Wish::Deploy(Good), Wish::Deploy(Good)],
        &[
            (7, 581, What::Ask(RequestKind::Promote)),
            (23, 24, What::TailLost { entries: 6 }),
            (17, 23, What::LoseDisk { host: 0, back_ms: 864 }),
        ],
    );
    assert_eq!(run(scenario, Options::default()).unwrap().violation, None);
}

/// The reload read the map before the page went up; it ends while the move that takes the page down is cut short.
#[test]
fn a_reload_that_ends_while_a_move_is_cut_short_needs_nobodys_help() {
    let scenario = told(
        118_895_775,
        &[Wish::PageUp, Wish::PageDown],
        &[
            (8, 36, What::KillAgent { host: 8, back_ms: 1_064 }),
            (5, 9, What::Reload { balancer: 9, slow_ms: 0 }),
        ],
    );
    let report = run(scenario, Options::default()).unwrap();
    assert_eq!((report.violation, report.helped), (None, 0));
    assert_eq!(report.outcomes, [Some(Outcome::Confirmed); 2]);
}

/// The journal has forgotten that visitors were moved, and the host that served them has forgotten that it did.
#[test]
fn a_host_is_not_changed_while_a_load_balancer_knows_of_visitors_there() {
    let scenario = told(
        108_169_582,
        &[Wish::Deploy(Good)],
        &[
            (22, 1_694, What::TailLost { entries: 12 }),
            (29, 1_759, What::LoseDisk { host: 1, back_ms: 2_374 }),
            (13, 36, What::Reload { balancer: 10, slow_ms: 0 }),
            (25, 34, What::KillCoordinator { back_ms: 943 }),
        ],
    );
    let net = Net { late: 15, ..Net::default() };
    let report = run(Scenario { splits: 1, net, clumsy: 3, ..scenario }, Options::default()).unwrap();
    assert_eq!(report.violation, None);
}

/// Neither journal nor host knows any more that the page went up and down again.
#[test]
fn what_everybody_has_forgotten_is_done_again() {
    let scenario = told(
        116_519_194,
        &[Wish::PageUp, Wish::PageDown],
        &[
            (12, 30, What::TailLost { entries: 12 }),
            (10, 21, What::LoseDisk { host: 2, back_ms: 597 }),
            (14, 2, What::LoseDisk { host: 6, back_ms: 1_242 }),
        ],
    );
    let net = Net { late: 3, ..Net::default() };
    let report = run(Scenario { splits: 2, net, ..scenario }, Options::default()).unwrap();
    assert_eq!(report.violation, None);
}

/// Hardly any answer comes through; people see to that before they give a release up.
#[test]
fn a_release_ends_once_nothing_goes_wrong_any_more() {
    let scenario = told(
        113_257_076,
        &[Wish::Deploy(Good)],
        &[
            (11, 28, What::KillCoordinator { back_ms: 1_925 }),
            (20, 9, What::KillCoordinator { back_ms: 50 }),
            (20, 194, What::KillAgent { host: 7, back_ms: 146 }),
        ],
    );
    let net = Net { loss: 25, twice: 5, late: 30 };
    let report = run(Scenario { net, clumsy: 60, ..scenario }, Options::default()).unwrap();
    assert_eq!((report.violation, report.outcomes.len()), (None, 1));
    assert!(report.outcomes.iter().all(Option::is_some), "{:?}", report.outcomes);
}

/// A reload that began before visitors went back leads them to the new slot again for a moment, and the next release comes
/// to that slot in just that moment.
#[test]
fn a_slot_that_a_reload_leads_visitors_to_is_not_drained() {
    let scenario = told(
        302_896_018,
        &[Wish::Deploy(Good), Wish::Deploy(FailsChecks)],
        &[
            (31, 6, What::Reload { balancer: 7, slow_ms: 0 }),
            (18, 1_162, What::KillCoordinator { back_ms: 1_823 }),
            (29, 27, What::ServerDown { host: 11, for_ms: 5_000 }),
        ],
    );
    let net = Net { loss: 5, twice: 30, late: 0 };
    assert_eq!(run(Scenario { net, ..scenario }, Options::default()).unwrap().violation, None);
}

/// A worker that began to start before visitors were moved takes over while the next release drains and changes the slot that
/// they came from, or a little before or after that.
#[test]
fn a_slot_that_a_starting_worker_may_lead_visitors_to_is_not_drained() {
    let mut found = 0;
    for slow_ms in (14_000..17_000).step_by(2) {
        let reload = (19, 0, What::Reload { balancer: 0, slow_ms });
        let scenario = told(1, &[Wish::Deploy(Good), Wish::Deploy(Good)], &[reload]);
        let report = run(scenario.clone(), Options::default()).unwrap();
        assert_eq!((report.violation, report.helped), (None, 0), "{slow_ms} ms");
        let off = Options { off: Some(Guard::Drain), ..Options::default() };
        found += u32::from(run(scenario, off).unwrap().violation.is_some_and(|broken| broken.rule == "I1"));
    }
    assert!(found > 3, "without the guard only {found} break a rule");
}

/// The version that serves was there before the migration was expanded: its contract is not even planned.
#[test]
fn nothing_is_contracted_that_the_version_that_serves_does_not_know() {
    let migrating = |quality| Wish::Migrating(quality, Files::Good);
    for wishes in [
        vec![migrating(Good), Wish::Rollback, Wish::Contract],
        vec![migrating(FailsLater), Wish::Contract],
        vec![migrating(Good), Wish::Contract, migrating(FailsChecks), Wish::Contract],
    ] {
        let report = run(Scenario { database: true, ..told(7, &wishes, &[]) }, Options::default()).unwrap();
        assert_eq!((report.violation, report.given_up), (None, 1), "{wishes:?}");
    }
    let forward = [migrating(Good), Wish::Rollback, Wish::Rollback, Wish::Contract];
    let report = run(Scenario { database: true, ..told(7, &forward, &[]) }, Options::default()).unwrap();
    assert_eq!((report.violation, report.outcomes), (None, vec![Some(Outcome::Confirmed); 4]));
}

/// A copy of the order to expand comes first and applies one version of two; the order itself says that it changed nothing.
#[test]
fn the_schema_is_as_the_journal_says_also_after_copies_of_orders() {
    let scenario = told(
        144_196,
        &[Wish::Migrating(Good, Files::Good), Wish::Contract, Wish::Migrating(Good, Files::FailsLive)],
        &[
            (29, 1_629, What::TakeOver),
            (33, 12, What::TakeOver),
            (33, 70, What::KillAgent { host: 1, back_ms: 113 }),
            (28, 16, What::KillCoordinator { back_ms: 2_045 }),
        ],
    );
    let net = Net { loss: 1, twice: 30, late: 30 };
    let scenario = Scenario { splits: 2, database: true, net, ..scenario };
    assert_eq!(run(scenario, Options::default()).unwrap().violation, None);
}

/// The coordinator dies while a person accepts a journal whose open release is an old one: its visitors are where it would
/// now change what they are served.
#[test]
fn a_crash_while_a_journal_is_accepted_lets_no_old_release_go_on() {
    let mut found = 0;
    for left in 8..=16 {
        for after_ms in 0..80 {
            let lost = What::TailLost { entries: 21 - left };
            let scenario = Scenario {
                accepts: Accepts::Killed { after_ms },
                ..told(1, &[Wish::Deploy(Good), Wish::Deploy(Good)], &[(21, 400, lost)])
            };
            let report = run(scenario.clone(), Options::default()).unwrap();
            assert_eq!((report.violation, report.helped), (None, 0), "{left} left, {after_ms} ms");
            let off = Options { off: Some(Guard::VoidFirst), ..Options::default() };
            found += u32::from(run(scenario, off).unwrap().violation.is_some());
        }
    }
    assert!(found > 20, "without the guard only {found} break a rule");
}

/// The copy of the journal that a person had accepted comes back as it was before, with its release open: started so often
/// meanwhile that its epoch is new to every agent, or again and again where agents keep nothing of what they forget.
#[test]
fn a_copy_of_before_a_journal_was_accepted_never_rules_again() {
    for (met, guard) in [(Met::Nobody, Guard::AcceptedKept), (Met::AgentsOfBefore, Guard::LookFirst)] {
        let mut found = 0;
        for left in 8..=16 {
            // Before the next release tells agents of more, while it does, and after it.
            for after_ms in (0..40).chain((1_000..20_000).step_by(1_000)) {
                let lost = What::TailLost { entries: 21 - left };
                let scenario = Scenario {
                    accepts: Accepts::Copied { after_ms, starts: 8, met },
                    ..told(1, &[Wish::Deploy(Good), Wish::Deploy(Good)], &[(21, 400, lost)])
                };
                let report = run(scenario.clone(), TOLD).unwrap();
                let place = format!("{met:?}, {left} left, {after_ms} ms");
                assert_eq!((report.violation, report.helped), (None, 0), "{place}");
                let came = report.trace.iter().any(|told| told.ends_with("CopyOfBefore"));
                assert!(
                    came && report.outcomes == [Some(Outcome::Confirmed)],
                    "{place}: {:?}",
                    report.outcomes
                );
                let off = Options { off: Some(guard), ..Options::default() };
                found += u32::from(run(scenario, off).unwrap().violation.is_some());
            }
        }
        assert!(found > 50, "{met:?}: without {guard:?} only {found} break a rule");
    }
}

/// The machine is replaced after the version was made current there, and its server answers well with an older one.
#[test]
fn a_host_that_was_put_back_to_an_older_disk_gets_no_visitors() {
    let mut found = 0;
    for after_entries in 22..48 {
        for delay_ms in [0, 30] {
            let older = What::PutBackHost { host: 0, back_ms: 60 };
            let wishes = [Wish::Deploy(Good), Wish::Deploy(Good)];
            let scenario = told(1, &wishes, &[(after_entries, delay_ms, older)]);
            let report = run(scenario.clone(), Options::default()).unwrap();
            assert_eq!((report.violation, report.helped), (None, 0), "after entry {after_entries}");
            let off = Options { off: Some(Guard::HostHolds), ..Options::default() };
            found +=
                u32::from(run(scenario, off).unwrap().violation.is_some_and(|broken| broken.rule == "I2"));
        }
    }
    assert!(found > 3, "without the guard only {found} break a rule");
}

/// Clocks are set by an hour or a day while the load balancer cannot be reached on the way back: it is tried for as long as
/// the plan says, and then a person is asked.
#[test]
fn a_clock_that_is_set_neither_ends_the_way_back_nor_keeps_it_up() {
    let mut found = 0;
    for by_ms in [-86_400_000, -3_600_000, 3_600_000, 86_400_000] {
        for delay_ms in (3_500..6_000).step_by(250) {
            let cut = |host| (21, 2_000, What::Partition { host, to: true, from: true, for_ms: 40_000 });
            let (back, set) = (What::Ask(RequestKind::Rollback), What::SetClock { by_ms });
            let faults = [cut(0), cut(1), cut(2), (21, 2_500, back), (21, delay_ms, set)];
            let scenario = told(1, &[Wish::Deploy(Good)], &faults);
            let report = run(scenario.clone(), Options::default()).unwrap();
            let place = format!("set by {by_ms} ms after {delay_ms} ms");
            assert_eq!((report.violation, report.helped), (None, 1), "{place}");
            assert_eq!(report.outcomes, [Some(Outcome::RolledBack)], "{place}");
            let off = Options { off: Some(Guard::SteadyTime), ..Options::default() };
            let report = run(scenario, off).unwrap();
            found += u32::from(report.violation.is_some() || report.helped != 1);
        }
    }
    assert!(found > 20, "without the guard only {found} go another way");
}

/// The clock of any host is set at any moment: a release that must go back does, and needs nobody's help for it.
#[test]
fn an_agent_whose_clock_is_wrong_keeps_nobody_from_going_back() {
    let mut found = 0;
    for by_ms in [-86_400_000, -3_600_000, 3_600_000, 86_400_000] {
        for host in 0..3 {
            for after_entries in 0..42 {
                let set = (after_entries, 0, What::SetAgentClock { host, by_ms });
                let scenario = told(1, &[Wish::Deploy(FailsLater)], &[set]);
                let report = run(scenario.clone(), Options::default()).unwrap();
                let place = format!("host {host} set by {by_ms} ms after entry {after_entries}");
                assert_eq!((report.violation, report.helped), (None, 0), "{place}");
                let ended = report.outcomes.first().copied().flatten();
                assert!(ended.is_some() && ended != Some(Outcome::Confirmed), "{place}: {ended:?}");
                let off = Options { off: Some(Guard::BackNeverLate), ..Options::default() };
                found += u32::from(
                    run(scenario, off).unwrap().violation.is_some_and(|broken| broken.rule == "I8"),
                );
            }
        }
    }
    assert!(found > 20, "without the guard only {found} break a rule");
}
