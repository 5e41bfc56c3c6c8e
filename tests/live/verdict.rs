//! What visitors meet decides: a version that fails some of them is gone, a good one is proven, and what is not seen proves
//! nothing. No check knows of any of it.

use std::time::Duration;

use kit::{Books, Client, ENVIRONMENT, Load, LoadPlan, Site};
use pointsman_proto::v1::{self, AskRequest};

/// How long anything here may take: a proof takes so many requests, however slowly a busy machine makes them.
const LONGEST: Duration = Duration::from_secs(300);

/// 1000 requests a second: with bunches assumed, a proof takes about 13 000.
const MANY: LoadPlan =
    LoadPlan { keep_alive: 20, fresh: 0, every: Duration::from_millis(20), with_ids: false };

async fn begun(site: &Site, release: &str) -> Client {
    let mut client = site.client().unwrap();
    let digest = kit::publish(&mut client, &site.artifact(release).unwrap()).await.unwrap();
    client.deploy(&digest, release).await.unwrap();
    client
}

/// The release as it stands, once that satisfies.
async fn stands(client: &Client, what: &str, enough: impl Fn(&v1::Release) -> bool) -> v1::Release {
    kit::until(what, LONGEST, || {
        let mut client = client.clone();
        let enough = &enough;
        async move { client.status().await.ok()?.release.filter(enough) }
    })
    .await
    .unwrap()
}

fn seconds(release: &v1::Release) -> u64 {
    release.verdict.as_ref().map_or(0, |verdict| verdict.seconds)
}

fn requests(release: &v1::Release) -> u64 {
    let errors = release.verdict.as_ref().and_then(|verdict| verdict.errors.as_ref());
    errors.and_then(|errors| errors.new_slot.as_ref()).map_or(0, |new| new.requests)
}

fn judged(site: &Site, release: &str) -> Vec<String> {
    let books = Books::read(site).unwrap();
    let facts = books.of(release).filter(|fact| fact.event() == "judged");
    facts.map(|fact| fact.body["judged"]["verdict"].as_str().unwrap().to_owned()).collect()
}

async fn ask(client: &Client, resume: bool) {
    let asked = AskRequest { environment: ENVIRONMENT.to_owned(), ..Default::default() };
    let mut api = client.api.clone();
    if resume {
        api.resume(asked).await.unwrap();
    } else {
        api.promote(asked).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_fails_one_visitor_in_five_is_gone() {
    let site = Site::builder().watch("60s").start().await.unwrap();
    site.released_unwatched("v1").await.unwrap();
    site.green.fail_visitors(true).unwrap();
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    load.more(100).await.unwrap();
    let mut client = begun(&site, "v2").await;
    assert_eq!(client.outcome("v2").await.unwrap(), "rolled-back");
    load.more(100).await.unwrap();
    let report = load.stop().unwrap();
    // Whoever follows it waits for the last of its visitors.
    let told = site.cli(&["status", "production", "--release", "v2", "-f"]).await.unwrap();

    let release = client.status().await.unwrap().release.unwrap();
    let met = release.met.unwrap();
    let why = release.turned_back.unwrap();
    assert_eq!(why.code, "PM0411", "{why:?}");
    let verdict = release.verdict.unwrap();
    let errors = verdict.errors.unwrap();
    let new = errors.new_slot.unwrap();
    assert_eq!(verdict.verdict, "rollback");
    assert!(errors.e_over_limit >= verdict.rollback_at, "{errors:?}");
    assert!(new.low > 0.01 && new.high < 0.5, "{new:?}");
    // Every failure that visitors met was of the new version, and was counted or came after the verdict.
    let failures = report.failures();
    assert!(failures.iter().all(|failure| failure.starts_with("status 500")), "{failures:?}");
    assert!(new.bad > 0 && new.bad <= failures.len() as u64, "{new:?} of {}", failures.len());
    // With those that came between the verdict and the way back all of them are.
    let all = failures.len() as u64;
    assert!(met.to_the_end && met.failures >= new.bad, "{met:?}, {new:?}");
    assert!(met.failures <= all && met.failures * 100 >= all * 95, "{met:?} of {all}");
    assert!(told.stdout.contains("requests failed until nobody was led there any more"), "{told:?}");
    assert_eq!(judged(&site, "v2"), ["rollback"]);
    assert!(site.visit().await.unwrap().contains("v1"));
    assert_eq!(client.status().await.unwrap().live.unwrap().release, "v1");
}

/// Who was hurt before a coordinator was killed is noted, and that not all were counted is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_hurt_is_counted_over_an_end_of_the_coordinator() {
    let mut site = Site::builder().watching("verdict = \"shadow\"").watch("10m").start().await.unwrap();
    site.released_unwatched("v1").await.unwrap();
    site.green.fail_visitors(true).unwrap();
    let client = begun(&site, "v2").await;
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    let failures = |release: &v1::Release| release.met.as_ref().map_or(0, |met| met.failures);
    let before = stands(&client, "the hurt are noted", |release| failures(release) > 0).await;
    site.kill_coordinator().unwrap();
    load.more(500).await.unwrap();
    site.start_coordinator().unwrap();
    let mut client = site.coordinator_answers().await.unwrap();
    stands(&client, "they are noted again", |release| failures(release) > failures(&before)).await;
    let asked = AskRequest { environment: ENVIRONMENT.to_owned(), ..Default::default() };
    client.api.rollback(asked).await.unwrap();
    assert_eq!(client.outcome("v2").await.unwrap(), "rolled-back");
    load.stop().unwrap();
    let told = site.cli(&["status", "production", "--release", "v2", "-f"]).await.unwrap();
    assert!(told.stdout.contains("at least "), "{told:?}");
    let met = client.status().await.unwrap().release.unwrap().met.unwrap();
    assert!(met.to_the_end && met.incomplete > 0 && met.failures > failures(&before), "{met:?}");
}

/// Nobody visits before the plan is made, so that no time is frozen as that of the old version: it would be this machine's,
/// and what else it does then would decide whether requests are slower now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_version_is_proven_and_an_end_of_the_coordinator_loses_nothing() {
    let watching = "min_watch = \"2s\"\nmax_watch = \"10m\"\nlimits = [{ name = \"p99\", max = \"30s\" }]";
    let mut site = Site::builder().watching(watching).start().await.unwrap();
    site.released_unwatched("v1").await.unwrap();
    let client = begun(&site, "v2").await;
    let load = Load::start(site.frontend(), MANY).unwrap();
    let before = stands(&client, "visitors are judged", |release| seconds(release) >= 3).await;
    site.kill_coordinator().unwrap();
    site.start_coordinator().unwrap();
    let client = site.coordinator_answers().await.unwrap();
    let after = stands(&client, "visitors are judged again", |release| {
        release.verdict.as_ref().is_some_and(|verdict| !verdict.chart.is_empty())
            || !release.outcome.is_empty()
    })
    .await;
    assert!(seconds(&after) > seconds(&before), "{after:?}");
    assert!(requests(&after) > requests(&before), "{after:?}");

    let over = |release: &v1::Release| !release.outcome.is_empty() || release.held.is_some();
    let release = stands(&client, "it is over", over).await;
    assert_eq!(release.outcome, "confirmed", "{release:?}");
    let report = load.stop().unwrap();
    assert_eq!(report.failures(), Vec::<String>::new());
    assert_eq!(judged(&site, "v2").last().unwrap(), "promote");
    let verdict = release.verdict.unwrap();
    assert!(verdict.errors.unwrap().evidence_within_limit >= verdict.promote_at);
}

/// Some visitors for the coordinator, and some while there is none: the next one has to hear of all of them, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visitors_who_come_while_no_coordinator_runs_are_counted_once() {
    let mut site = Site::builder().watch("10m").start().await.unwrap();
    site.released_unwatched("v1").await.unwrap();
    let client = begun(&site, "v2").await;
    stands(&client, "visitors are listened for", |release| seconds(release) >= 1).await;
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    load.more(500).await.unwrap();
    for _ in 0..2 {
        let counted =
            requests(&stands(&client, "visitors are judged", |release| requests(release) > 0).await);
        site.kill_coordinator().unwrap();
        // Far more than the second that was not yet put away.
        load.more(4_000).await.unwrap();
        site.start_coordinator().unwrap();
        site.coordinator_answers().await.unwrap();
        stands(&client, "visitors are judged again", |release| requests(release) > counted + 3_000).await;
    }
    let report = load.stop().unwrap();
    assert_eq!(report.failures(), Vec::<String>::new());
    let sent = report.visits.len() as u64;
    // What is counted twice may come last: some seconds without visitors follow before anybody looks.
    let heard = seconds(&stands(&client, "visitors are counted", |_| true).await);
    let release = stands(&client, "nothing more comes", |release| seconds(release) >= heard + 5).await;
    // On a busy machine a second may come without all of its lines, and then it counts for nothing.
    assert!(requests(&release) * 100 >= sent * 95, "{} of {sent}: {release:?}", requests(&release));
    // The watch's own checks came through the load balancer as well.
    let verdict = release.verdict.as_ref().unwrap();
    assert!(verdict.probes_new.as_ref().unwrap().requests > 0, "{verdict:?}");
    assert!(requests(&release) <= sent, "counted twice: {release:?}");
    assert_eq!((release.held, release.turned_back, release.outcome.as_str()), (None, None, ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_seen_proves_nothing() {
    let mut site = Site::builder().watch("60s").blind("4s").start().await.unwrap();
    site.released_unwatched("v1").await.unwrap();
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    load.more(100).await.unwrap();
    let mut client = begun(&site, "v2").await;
    stands(&client, "visitors are judged", |release| seconds(release) >= 2).await;
    site.lose_signals().unwrap();
    let release = stands(&client, "it is blind", |release| release.blind.is_some()).await;
    let blind = release.blind.unwrap();
    assert_eq!((blind.why.unwrap().code.as_str(), blind.held_at_ms), ("PM0403", blind.since_ms + 4_000));
    let release = stands(&client, "it is held", |release| release.held.is_some()).await;
    let why = release.held.unwrap();
    assert_eq!(why.code, "PM0403", "{why:?}");

    // Only a person goes on without them, and the gates are read all the same.
    ask(&client, true).await;
    stands(&client, "it goes on", |release| release.held.is_none()).await;
    ask(&client, false).await;
    client.confirmed("v2").await.unwrap();
    assert_eq!(load.stop().unwrap().failures(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_fails_after_its_release_is_gone_too() {
    let mut site = Site::builder().watching("after = \"10m\"").start().await.unwrap();
    site.released_unwatched("v1").await.unwrap();
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    load.more(100).await.unwrap();
    let mut client = begun(&site, "v2").await;
    client.confirmed("v2").await.unwrap();
    let release = client.status().await.unwrap().release.unwrap();
    assert!(release.watched_on_until_ms > release.entered_at_ms, "{release:?}");
    // Whoever followed it hears that as well, though they hear of its end first.
    let told = site.cli(&["status", "production", "--release", "v2", "-f"]).await.unwrap();
    assert!(told.code == 0 && told.stdout.contains("its visitors are watched on until"), "{told:?}");
    assert!(client.status().await.unwrap().way_back.unwrap().ready);

    // The next coordinator watches on.
    site.kill_coordinator().unwrap();
    site.start_coordinator().unwrap();
    let client = site.coordinator_answers().await.unwrap();
    // Somebody has moved what the way back leads to: that is said, and tried again.
    let (current, held) = (site.blue.live(), site.blue.live().read_link().unwrap());
    std::fs::remove_file(&current).unwrap();
    std::os::unix::fs::symlink("releases/other", &current).unwrap();
    // Before anybody needs it, too.
    stands(&client, "that there is no way back is told", |release| {
        release.verdict.as_ref().is_some_and(|verdict| verdict.no_way_back.contains("blue"))
    })
    .await;
    site.green.fail_visitors(true).unwrap();
    let closed = stands(&client, "the way back is closed", |release| release.after_end.is_some()).await;
    let after_end = closed.after_end.unwrap();
    assert!(after_end.message.starts_with("errors on `green`"), "{after_end:?}");
    assert!(after_end.causes.iter().any(|cause| cause.contains("releases/other")), "{after_end:?}");
    std::fs::remove_file(&current).unwrap();
    std::os::unix::fs::symlink(held, &current).unwrap();
    let back = stands(&client, "it goes back by itself", |release| {
        let rollback = release.plan.as_ref().is_some_and(|plan| plan.purpose == "rollback");
        rollback && !release.outcome.is_empty()
    })
    .await;
    let plan = back.plan.unwrap();
    assert_eq!((back.outcome.as_str(), plan.created_by.as_str()), ("confirmed", "pointsman"));
    assert!(plan.reason.starts_with("after its end: "), "{}", plan.reason);
    assert!(site.visit().await.unwrap().contains("v1"));
    let failures = load.stop().unwrap().failures();
    assert!(failures.iter().all(|failure| failure.starts_with("status 500")), "{failures:?}");

    // It is not turned again: what is live now was not released just now.
    let status = client.clone().status().await.unwrap();
    assert_eq!(status.live.unwrap().release, "v1");
    assert_eq!(status.release.unwrap().watched_on_until_ms, 0);
}
