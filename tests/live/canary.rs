//! A release in shares: how many visitors are moved at each, that each of them keeps a side, and the ways on and back.

use std::collections::BTreeMap;

use kit::{Books, Client, ENVIRONMENT, Load, LoadPlan, Met, Site, ask_with, ids, sides, sigmas};
use pointsman_proto::v1::AskRequest;

/// Visitors that are counted at each split.
const IDS: usize = 2_000;
/// Longer than the test: only a promotion ends such a hold.
const LONG: &str = "60s";
/// What says the version in one line.
const PAGE: &str = "/index.html";

fn page_of(version: &str) -> String {
    format!("<title>{version}</title>")
}

/// A site with v1 live and splits to come.
async fn with_v1(hold: &str) -> Site {
    let site = Site::builder().canary(&[10, 50], hold).watch("300ms").start().await.unwrap();
    // The first release has nobody to move in shares.
    site.released("v1").await.unwrap();
    site
}

/// Begins a release and waits until this step of it has moved visitors.
async fn begun(site: &Site, release: &str, step: &str) -> Client {
    let mut client = site.client().unwrap();
    let digest = kit::publish(&mut client, &site.artifact(release).unwrap()).await.unwrap();
    client.deploy(&digest, release).await.unwrap();
    moved(&mut client, release, step).await;
    client
}

async fn moved(client: &mut Client, release: &str, step: &str) {
    let heard = client.follow(release, |seen| seen.done(step)).await.unwrap();
    assert!(heard.last().unwrap().done(step), "{:?}", heard.last());
}

/// Has the hold end as soon as the gates were read.
async fn promote(client: &mut Client) {
    let ask = AskRequest { environment: ENVIRONMENT.to_owned(), ..Default::default() };
    client.api.promote(ask).await.unwrap();
}

/// Who is on the canary, in the order of the ids. Every answer's mark and page must be of one side.
fn on_canary(met: &[Met], old: &str, new: &str) -> Vec<bool> {
    for met in met {
        assert_eq!(met.page, page_of(if met.canary { new } else { old }), "{met:?}");
    }
    met.iter().map(|met| met.canary).collect()
}

/// Counts a split, twice over. Returns who is on the canary.
async fn counted(site: &Site, percent: u8) -> Vec<bool> {
    let route = site.haproxy.route().await.unwrap();
    assert!(route.starts_with(&format!("be_blue:be_green:{percent}:")), "{route}");
    let ids = ids(IDS);
    let met = sides(site.frontend(), PAGE, &ids).await.unwrap();
    let off = sigmas(&met, percent);
    assert!(off <= 3.0, "the share at {percent} % is {off} sigma off");
    let who = on_canary(&met, "v1", "v2");
    let again = on_canary(&sides(site.frontend(), PAGE, &ids).await.unwrap(), "v1", "v2");
    assert_eq!(who, again, "visitors changed side at {percent} %");
    who
}

/// Testers reach either side, whichever theirs would be.
async fn testers_reach_both(site: &Site, who: &[bool]) {
    let ids = ids(IDS);
    let one_of = |canary: bool| &ids[who.iter().position(|on| *on == canary).unwrap()];
    for (id, side, version) in
        [(one_of(false), "canary", "v2"), (one_of(true), "stable", "v1"), (one_of(true), "canary", "v2")]
    {
        let headers = format!("Cookie: pm_id={id}\r\nX-Pointsman: {side}\r\n");
        let answer = ask_with(site.frontend(), PAGE, &headers).await.unwrap();
        assert!(answer.contains(&page_of(version)), "{side}: {answer}");
        assert!(answer.contains(&format!("side={side}")), "{side}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_visitor_keeps_a_side_and_nobody_moves_back() {
    let site = with_v1(LONG).await;
    let mut client = begun(&site, "v2", "canary-1").await;
    let tenth = counted(&site, 10).await;
    testers_reach_both(&site, &tenth).await;

    promote(&mut client).await;
    moved(&mut client, "v2", "canary-2").await;
    let half = counted(&site, 50).await;
    let back = tenth.iter().zip(&half).filter(|(before, after)| **before && !**after).count();
    assert_eq!(back, 0, "visitors moved back when the share rose");

    promote(&mut client).await;
    client.confirmed("v2").await.unwrap();
    let all = sides(site.frontend(), PAGE, &ids(100)).await.unwrap();
    assert!(all.iter().all(|met| met.page == page_of("v2")), "{all:?}");
}

/// What was ordered of a release that moves visitors, in order.
fn moves(site: &Site, release: &str) -> Vec<String> {
    let books = Books::read(site).unwrap();
    let ordered = books.of(release).filter(|fact| fact.event() == "order-intended");
    let steps = ordered.map(|fact| fact.text("step").to_owned());
    steps.filter(|step| step.starts_with("canary") || step == "switch" || step == "route-back").collect()
}

async fn everybody_is_on_v1(site: &Site) {
    let route = site.haproxy.route().await.unwrap();
    assert!(route.starts_with("be_blue:") && route.contains(":0:"), "{route}");
    let all = sides(site.frontend(), PAGE, &ids(200)).await.unwrap();
    assert!(all.iter().all(|met| met.page == page_of("v1")), "{all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_or_is_given_up_in_a_split_goes_no_further() {
    let site = with_v1(LONG).await;

    // It passed every check before visitors came, and fails the one that is made while they are there.
    let mut client = begun(&site, "v2", "canary-1").await;
    site.green.fail_deep(true).unwrap();
    assert_eq!(client.outcome("v2").await.unwrap(), "rolled-back");
    assert_eq!(moves(&site, "v2"), ["canary-1", "route-back"]);
    everybody_is_on_v1(&site).await;
    site.green.fail_deep(false).unwrap();

    // Somebody wants it back.
    let mut client = begun(&site, "v3", "canary-1").await;
    let told = site.cli(&["rollback", "production", "--reason", "test"]).await.unwrap();
    assert_eq!(client.outcome("v3").await.unwrap(), "rolled-back", "{told:?}");
    assert_eq!(moves(&site, "v3"), ["canary-1", "route-back"]);
    everybody_is_on_v1(&site).await;
}

/// With nobody's help, under load: each hold ends by itself, and visitors go one way only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn splits_follow_each_other_under_load() {
    let site = with_v1("500ms").await;
    let plan =
        LoadPlan { keep_alive: 30, fresh: 10, every: std::time::Duration::from_millis(50), with_ids: true };
    let load = Load::start(site.frontend(), plan).unwrap();
    load.more(100).await.unwrap();
    let mut client = begun(&site, "v2", "canary-1").await;
    client.confirmed("v2").await.unwrap();
    load.more(100).await.unwrap();
    let mut report = load.stop().unwrap();
    assert_eq!(report.failures(), Vec::<String>::new());
    assert_eq!(moves(&site, "v2"), ["canary-1", "canary-2", "switch"]);

    // Each client asks once at a time: its own answers are in order.
    report.visits.sort_by_key(|visit| visit.began);
    let mut on_new: BTreeMap<u32, bool> = BTreeMap::new();
    for visit in &report.visits {
        let before = on_new.insert(visit.client, visit.marker == "v2").unwrap_or(false);
        assert!(!before || visit.marker == "v2", "client {} was moved back", visit.client);
    }
    assert_eq!(on_new.len(), 40);
    assert!(on_new.values().all(|on_new| *on_new), "{on_new:?}");
    let only_some = |visit: &&kit::Visit| visit.marker == "v1" && visit.began > first_of(&report, "v2");
    assert!(report.visits.iter().filter(only_some).count() > 50, "no split was seen");
}

fn first_of(report: &kit::Report, marker: &str) -> std::time::Instant {
    report.visits.iter().find(|visit| visit.marker == marker).unwrap().began
}
