//! The newest journal is gone for good: a person says so, and releases go on from the copy that is left.

use std::path::Path;

use std::time::Duration;

use kit::{Daemon, KillAt, Load, LoadPlan, Site};
use pointsman_coordinator::journal::JournalStore;
use pointsman_core::ports::Journal as _;
use pointsman_core::{EnvironmentName, Event, Plan, ReleaseId, Timestamp};

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_whose_newest_copy_is_gone_is_accepted_by_a_person() {
    let mut site = Site::builder().watch("300ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();

    // Nothing is wrong: there is nothing to accept.
    let accept = ["audit", "accept", "production", "--confirm", "production"];
    let told = site.cli(&accept).await.unwrap();
    assert!(told.code == 4 && told.says("PM0707"), "{told:?}");

    let (state, aside) = (site.journal().parent().unwrap().to_owned(), site.folder().join("aside"));
    site.kill_coordinator().unwrap();
    copy(&state, &aside);
    site.start_coordinator().unwrap();
    site.ready().await.unwrap();
    site.released("v2").await.unwrap();
    site.released("v3").await.unwrap();

    // The disk dies, and only the old copy is left.
    site.kill_coordinator().unwrap();
    std::fs::remove_dir_all(&state).unwrap();
    copy(&aside, &state);
    site.start_coordinator().unwrap();
    site.coordinator_answers().await.unwrap();
    let v4 = site.artifact("v4").unwrap().display().to_string();
    let deploy = ["deploy", "production", "--artifact", &v4, "--release", "v4", "--yes"];
    let told = site.cli(&deploy).await.unwrap();
    assert!(told.code != 0 && (told.says("PM0504") || told.says("PM0718")), "{told:?}");
    let told = site.cli(&["audit", "accept", "production", "--confirm", "staging"]).await.unwrap();
    assert!(told.code == 2 && told.says("PM0603"), "{told:?}");

    let told = site.cli(&accept).await.unwrap();
    assert!(told.code == 0 && told.says("lb1"), "{told:?}");
    let told = site.cli(&["audit", "verify", "production"]).await.unwrap();
    assert_eq!(told.code, 0, "{told:?}");
    // What stands on the load balancer is taken as it is found, and releases go on from there.
    let told = site.cli(&deploy).await.unwrap();
    assert_eq!(told.code, 0, "{told:?}");
    assert!(site.visit().await.unwrap().contains("\nv4\n"));
    let told = site.cli(&["rollback", "production"]).await.unwrap();
    assert!(told.code == 0 && site.visit().await.unwrap().contains("\nv3\n"), "{told:?}");
    load.more(50).await.unwrap();
    assert_eq!(load.stop().unwrap().failures(), Vec::<String>::new());
}

/// A journal that is an old copy: in it `v2` has just been made current on green, in truth visitors went there since, and
/// `v3` and `v4` were released after it, so that green serves everybody again. The coordinator does not run.
async fn outlived(site: &mut Site) {
    site.released("v1").await.unwrap();
    let mut client = site.client().unwrap();
    let digest = kit::publish(&mut client, &site.artifact("v2").unwrap()).await.unwrap();
    client.deploy(&digest, "v2").await.unwrap();
    client.follow("v2", |seen| seen.done("activate")).await.unwrap();
    site.kill_coordinator().unwrap();
    let (state, aside) = (site.journal().parent().unwrap().to_owned(), site.folder().join("aside"));
    copy(&state, &aside);
    site.start_coordinator().unwrap();
    site.ready().await.unwrap();
    site.client().unwrap().confirmed("v2").await.unwrap();
    site.released("v3").await.unwrap();
    site.released("v4").await.unwrap();
    site.kill_coordinator().unwrap();
    std::fs::remove_dir_all(&state).unwrap();
    copy(&aside, &state);
}

const ACCEPT: [&str; 5] = ["audit", "accept", "production", "--confirm", "production"];

/// Longest time for a coordinator to fall where it must, and for a release to come to a person.
const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_dies_while_a_journal_is_accepted_goes_on_with_nothing_old() {
    let mut site = Site::builder().watch("300ms").start().await.unwrap();
    outlived(&mut site).await;
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    for place in ["journal-before-commit", "journal-after-commit"] {
        site.start(Daemon::Coordinator, Some(KillAt { place, nth: 1 })).unwrap();
        site.coordinator_answers().await.unwrap();
        let told = site.cli(&ACCEPT).await.unwrap();
        assert_ne!(told.code, 0, "{place}: {told:?}");
        let give_up = tokio::time::Instant::now() + SOON;
        while !site.fell(Daemon::Coordinator).unwrap() {
            assert!(tokio::time::Instant::now() < give_up, "{place}: it lives on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Whatever starts next must know that it does not know.
        site.start_coordinator().unwrap();
        site.coordinator_answers().await.unwrap();
        let status = site.client().unwrap().status().await.unwrap();
        assert!(status.trouble.is_some(), "{place}: {status:?}");
        load.more(20).await.unwrap();
        site.kill_coordinator().unwrap();
    }
    site.start_coordinator().unwrap();
    site.coordinator_answers().await.unwrap();
    let told = site.cli(&ACCEPT).await.unwrap();
    assert!(told.code == 0 && told.says("lb1"), "{told:?}");
    assert!(site.visit().await.unwrap().contains("\nv4\n"));
    // The name of what is void stays taken: an agent that had not forgotten would answer for the other one.
    site.released("v2").await.unwrap();
    assert!(site.visit().await.unwrap().contains("\nv2\n"));
    load.more(50).await.unwrap();
    assert_eq!(load.stop().unwrap().failures(), Vec::<String>::new());
}

/// The release that is open in the old copy was over long ago, and green, which it would change, serves everybody. A person
/// accepts the copy, and then somebody puts it in place once more as it was before, and starts it until it may come to an epoch
/// that is new to every agent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_before_a_journal_was_accepted_never_rules_again() {
    let mut site = Site::builder().watch("300ms").start().await.unwrap();
    outlived(&mut site).await;
    site.start_coordinator().unwrap();
    site.coordinator_answers().await.unwrap();
    let told = site.cli(&ACCEPT).await.unwrap();
    assert!(told.code == 0 && told.says("lb1"), "{told:?}");
    let status = site.client().unwrap().status().await.unwrap();
    assert_eq!(status.trouble, None);
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();

    let (state, aside) = (site.journal().parent().unwrap().to_owned(), site.folder().join("aside"));
    let accepted = site.folder().join("accepted");
    site.kill_coordinator().unwrap();
    copy(&state, &accepted);
    std::fs::remove_dir_all(&state).unwrap();
    copy(&aside, &state);
    for start in 1..=8 {
        site.start_coordinator().unwrap();
        site.coordinator_answers().await.unwrap();
        let status = site.client().unwrap().status().await.unwrap();
        let trouble = status.trouble.map(|problem| problem.code);
        assert_eq!(trouble.as_deref(), Some("PM0718"), "start {start}");
        assert!(site.visit().await.unwrap().contains("\nv4\n"), "start {start}");
        load.more(5).await.unwrap();
        site.kill_coordinator().unwrap();
    }

    // The journal that was accepted is what goes on.
    std::fs::remove_dir_all(&state).unwrap();
    copy(&accepted, &state);
    site.start_coordinator().unwrap();
    site.ready().await.unwrap();
    site.released("v5").await.unwrap();
    assert!(site.visit().await.unwrap().contains("\nv5\n"));
    load.more(50).await.unwrap();
    assert_eq!(load.stop().unwrap().failures(), Vec::<String>::new());
}

/// The journal that is left does not know that the page went up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_that_was_up_when_a_journal_is_accepted_comes_down_when_it_is_asked_for() {
    let mut site = Site::builder().watch("300ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    site.kill_coordinator().unwrap();
    let (state, aside) = (site.journal().parent().unwrap().to_owned(), site.folder().join("aside"));
    copy(&state, &aside);
    site.start_coordinator().unwrap();
    site.ready().await.unwrap();
    let told = site.cli(&["maintenance", "on", "production", "--reason", "test", "--yes"]).await.unwrap();
    assert_eq!(told.code, 0, "{told:?}");
    site.kill_coordinator().unwrap();
    std::fs::remove_dir_all(&state).unwrap();
    copy(&aside, &state);
    site.start_coordinator().unwrap();
    site.coordinator_answers().await.unwrap();
    let told = site.cli(&ACCEPT).await.unwrap();
    assert_eq!(told.code, 0, "{told:?}");
    let told = site.cli(&["status", "production"]).await.unwrap();
    assert!(told.says("shows the maintenance page"), "{told:?}");
    let told = site.cli(&["maintenance", "off", "production"]).await.unwrap();
    assert_eq!(told.code, 0, "{told:?}");
    assert!(site.visit().await.unwrap().contains("\nv1\n"), "{told:?}");
    site.released("v2").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_is_held_is_let_go_when_its_journal_is_accepted() {
    let mut site = Site::builder().watch("300ms").start().await.unwrap();
    outlived(&mut site).await;
    // Nobody is there to say that the journal is an old copy when the coordinator starts.
    for daemon in [Daemon::LbAgent, Daemon::Blue, Daemon::Green] {
        site.kill(daemon).unwrap();
    }
    site.start_coordinator().unwrap();
    site.coordinator_answers().await.unwrap();
    assert_eq!(site.client().unwrap().status().await.unwrap().trouble, None);
    for daemon in [Daemon::LbAgent, Daemon::Blue, Daemon::Green] {
        site.start(daemon, None).unwrap();
    }
    let held = kit::until("the release is held", SOON, || async {
        let status = site.client().unwrap().status().await.ok()?;
        status.release.and_then(|release| release.held)
    });
    let held = held.await.unwrap();
    assert!(held.code == "PM0504" || held.code == "PM0718", "{held:?}");
    let told = site.cli(&ACCEPT).await.unwrap();
    assert!(told.code == 0 && told.says("lb1"), "{told:?}");
    site.released("v5").await.unwrap();
    assert!(site.visit().await.unwrap().contains("\nv5\n"));
    let status = site.client().unwrap().status().await.unwrap();
    assert_eq!(status.trouble, None);
}

/// Writes two releases into the journal that are both not over.
async fn two_unfinished(journal: &Path) {
    let journal = JournalStore::open(journal, "somebody").unwrap();
    let environment = EnvironmentName::parse(kit::ENVIRONMENT).unwrap();
    let entries = journal.entries_after(&environment, None, 0).await.unwrap();
    let plan = entries.iter().find_map(|entry| match &entry.fact.event {
        Event::Planned(plan) => Some(plan),
        _ => None,
    });
    let epoch = journal.take_lease(&environment, "somebody").await.unwrap();
    for release in ["one", "other"] {
        let release = ReleaseId::parse(release).unwrap();
        let plan = Plan { release: release.clone(), ..Plan::clone(plan.unwrap()) };
        let planned = vec![Event::Planned(plan.into())];
        journal.append(&environment, epoch, &release, Timestamp(1), planned).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_contradicts_itself_stops_releases_until_a_person_voids_what_is_open() {
    let mut site = Site::builder().watch("300ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    site.kill_coordinator().unwrap();
    two_unfinished(&site.journal()).await;
    let accept = "pointsman audit accept production --confirm production";
    let v2 = site.artifact("v2").unwrap().display().to_string();
    let deploy = ["deploy", "production", "--artifact", &v2, "--release", "v2", "--yes"];
    // A restart reads the same record.
    for _ in 0..2 {
        site.start_coordinator().unwrap();
        site.coordinator_answers().await.unwrap();
        let told = site.cli(&["status", "production"]).await.unwrap();
        for part in ["[PM0709]", "I6", "since ", "`pointsman audit verify production`", accept] {
            assert!(told.stdout.contains(part), "{part}: {told:?}");
        }
        let status = site.client().unwrap().status().await.unwrap();
        assert!((1..=status.now_ms).contains(&status.trouble_since_ms), "{status:?}");
        let told = site.cli(&deploy).await.unwrap();
        assert!(told.code == 6 && told.says("PM0709"), "{told:?}");
        site.kill_coordinator().unwrap();
    }
    site.start_coordinator().unwrap();
    site.coordinator_answers().await.unwrap();
    let words: Vec<&str> = accept.split(' ').skip(1).collect();
    let told = site.cli(&words).await.unwrap();
    assert!(told.code == 0 && told.says("lb1"), "{told:?}");
    let status = site.client().unwrap().status().await.unwrap();
    assert_eq!((status.trouble, status.trouble_since_ms), (None, 0));
    let told = site.cli(&deploy).await.unwrap();
    assert_eq!(told.code, 0, "{told:?}");
    assert!(site.visit().await.unwrap().contains("\nv2\n"));
    load.more(50).await.unwrap();
    assert_eq!(load.stop().unwrap().failures(), Vec::<String>::new());
}
