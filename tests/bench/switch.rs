//! How long a switch takes from order to verified, beside what it cannot be faster than, and what visitors notice.
//!
//! Visitors come all the while. Rollbacks lead from one slot to the other and back, by turns over the API and by the
//! command line; behind each switch follow one sample of every floor, so that whatever else the machine does
//! falls on all of them alike.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use kit::{Client, ENVIRONMENT, Load, LoadPlan, Report, Seen, Site};
use pointsman_chassis::SystemClock;
use pointsman_coordinator::journal::JournalStore;
use pointsman_core::ports::{Clock as _, Journal as _};
use pointsman_core::{EnvironmentName, Epoch, Event, Evidence, HostName, OrderKey, ReleaseId, Step};
use pointsman_proto::v1;
use serde_json::{Value, json};

use crate::figures::{Samples, rounded};
use crate::floor::{self, Durable};
use crate::host::{self, Memory};

/// Rollbacks that are made before anything is measured: programs and files are in memory from then on.
const WARM_UP: usize = 4;
/// Requests that visitors make before the first rollback and after the last.
const VISITS: u64 = 300;
/// The release that the timed commits are of: as long as a real one's name.
const TIMED_RELEASE: &str = "rollback-1234567890";

const METHOD: &str = "Real HAProxy, nginx, agents and coordinator over mutual TLS on one machine, release profile, \
visitors at 640 requests per second meanwhile; rollback releases (preflight, switch), every other one over gRPC and by \
the command line. \
coordinator_* = per switch: `took_us` of the order as the coordinator's journal has it (order sent to answer received, \
the agent's receipts, map file, runtime, and look included) + the intent's and the outcome's commit. The two commits \
are timed right before and after the switch with the coordinator's own journal code on a journal of its own in the \
coordinator's state directory, because the coordinator's figures do not contain its own commits. \
observed_* = cross-check from outside, switches over gRPC only: arrival of `order-done` minus arrival of \
`order-intended` at a follower (order + outcome's commit) + the timed intent's commit. \
cli_* = wall time of the process `pointsman -o json rollback`; cli_overhead = that minus the release's own time \
(entered_at_ms - started_at_ms: whole milliseconds; the plan is made before and the last commit comes after, so both \
count as overhead). api_overhead = the same of a rollback over a standing gRPC channel. \
socat_* = one process `socat` with one `set map` of the standing route. durable_floor_* = what one switch writes, \
nothing else: journal row of 600 bytes, receipt begun with fence, map (write, fsync, rename, fsync folder), receipt \
done, journal row; SQLite WAL, synchronous=FULL; beside the running site's files. Floors are sampled once after every \
switch. p99 is the nearest rank: of fewer than 100 samples the slowest. \
stale = requests that began after a switch was reported (API: arrival of `order-done`; command line: end of the \
process) and were answered under an older route epoch or by another version. \
*_rss_mb = VmRSS (1 MB = 1024 kB, the larger of the two agents) after the run and 2 s in \
which coordinator and agents together used at most 2 % of one CPU; *_anon_mb = RssAnon of it; idle_cpu_percent = what \
all four used of one CPU in these 2 s.";

/// A switch that was reported.
struct Reported {
    /// When.
    at: Instant,
    /// Its route epoch.
    epoch: u64,
    /// The version that it brought.
    version: String,
}

/// What one switch took.
struct Took {
    order: Duration,
    whole: Duration,
    /// The release's own time, by the coordinator's clock.
    release: Duration,
    /// From `order-intended` to `order-done`, as a follower saw them arrive.
    observed: Option<Duration>,
    detail: String,
    reported: Reported,
}

/// The switch of a release, from its account.
struct Account {
    order: Duration,
    release: Duration,
    epoch: u64,
    to_slot: String,
    detail: String,
}

fn epoch_of(route: &str) -> Result<u64> {
    let epoch = route.rsplit(':').next().and_then(|epoch| epoch.parse().ok());
    epoch.with_context(|| format!("no epoch in route `{route}`"))
}

fn account_of_wire(release: &v1::Release) -> Result<Account> {
    if release.outcome != "confirmed" {
        bail!("the rollback ended as `{}`: {release:?}", release.outcome);
    }
    let order = release.orders.iter().find(|order| order.step == "switch").context("no switch")?;
    let plan = release.plan.as_ref().context("no plan")?;
    Ok(Account {
        order: Duration::from_micros(order.took_us),
        release: Duration::from_millis(release.entered_at_ms.saturating_sub(release.started_at_ms)),
        epoch: epoch_of(&plan.route_after)?,
        to_slot: plan.to_slot.clone(),
        detail: order.detail.clone(),
    })
}

fn account_of_document(document: &Value) -> Result<Account> {
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let number = |pointer: &str| document.pointer(pointer).and_then(Value::as_u64).context("no number");
    if text("/outcome") != "confirmed" {
        bail!("the rollback ended as `{}`: {document}", text("/outcome"));
    }
    let orders = document.pointer("/detail/orders").and_then(Value::as_array).context("no orders")?;
    let is_switch = |order: &&Value| order.get("step").and_then(Value::as_str) == Some("switch");
    let order = orders.iter().find(is_switch).context("no switch")?;
    let ended = number("/detail/entered_at_ms")?;
    Ok(Account {
        order: Duration::from_micros(order.get("took_us").and_then(Value::as_u64).context("no time")?),
        release: Duration::from_millis(ended.saturating_sub(number("/detail/started_at_ms")?)),
        epoch: epoch_of(text("/detail/plan/route_after"))?,
        to_slot: text("/detail/plan/to_slot").to_owned(),
        detail: order.get("detail").and_then(Value::as_str).unwrap_or_default().to_owned(),
    })
}

/// The version that lies on a slot.
fn version_on(site: &Site, slot: &str) -> Result<String> {
    let page = std::fs::read_to_string(site.host(slot)?.live().join("page.txt"))?;
    Ok(page.lines().next().unwrap_or("").to_owned())
}

async fn by_api(site: &Site, client: &mut Client) -> Result<Took> {
    let ask = v1::AskRequest {
        environment: ENVIRONMENT.to_owned(),
        reason: "benchmark".to_owned(),
        ..Default::default()
    };
    let began = Instant::now();
    let release = client.api.rollback(ask).await?.into_inner().release;
    let heard = client.follow(&release, |_| false).await?;
    let whole = began.elapsed();
    let last = heard.last().and_then(|seen| seen.update.release.as_ref()).context("nothing was heard")?;
    let account = account_of_wire(last)?;
    let intended =
        heard.iter().find(|seen| seen.update.kind == "order-intended" && seen.update.step == "switch");
    let intended = intended.context("no intent was heard")?.arrived;
    let done = heard.iter().find(|seen: &&Seen| seen.done("switch")).context("no end was heard")?.arrived;
    let version = version_on(site, &account.to_slot)?;
    Ok(Took {
        order: account.order,
        whole,
        release: account.release,
        observed: Some(done.saturating_duration_since(intended)),
        detail: account.detail,
        reported: Reported { at: done, epoch: account.epoch, version },
    })
}

async fn by_cli(site: &Site) -> Result<Took> {
    let words = ["rollback", ENVIRONMENT, "--reason", "benchmark", "-o", "json"];
    let began = Instant::now();
    let told = site.cli(&words).await?;
    let whole = began.elapsed();
    let at = Instant::now();
    if told.code != 0 {
        bail!("`pointsman rollback` failed: {told:?}");
    }
    let account = account_of_document(&serde_json::from_str(&told.stdout)?)?;
    let version = version_on(site, &account.to_slot)?;
    Ok(Took {
        order: account.order,
        whole,
        release: account.release,
        observed: None,
        detail: account.detail,
        reported: Reported { at, epoch: account.epoch, version },
    })
}

/// The coordinator's own journal code on a file of its own: what a commit costs there.
struct TimedJournal {
    epoch: Epoch,
    store: JournalStore,
    environment: EnvironmentName,
    release: ReleaseId,
    key: OrderKey,
}

impl TimedJournal {
    async fn open(folder: &Path) -> Result<Self> {
        let store = JournalStore::open(&folder.join("timed-journal.db"), "benchmark")?;
        let environment = EnvironmentName::parse(ENVIRONMENT)?;
        Ok(Self {
            epoch: store.take_lease(&environment, "benchmark").await.map_err(|error| error.0)?,
            store,
            environment,
            release: ReleaseId::parse(TIMED_RELEASE)?,
            key: OrderKey { step: Step::Switch, host: HostName::parse("lb1")? },
        })
    }

    async fn append(&self, event: Event) -> Result<Duration> {
        let began = Instant::now();
        let appended = self
            .store
            .append(&self.environment, self.epoch, &self.release, SystemClock.now(), vec![event])
            .await;
        appended.map_err(|error| error.0)?;
        Ok(began.elapsed())
    }

    async fn intent(&self) -> Result<Duration> {
        self.append(Event::OrderIntended { key: self.key.clone(), attempt: 1 }).await
    }

    async fn outcome(&self, took: &Took) -> Result<Duration> {
        let took_us = u64::try_from(took.order.as_micros())?;
        let evidence =
            Evidence { already: false, detail: took.detail.clone(), took_us, ..Evidence::default() };
        self.append(Event::OrderDone { key: self.key.clone(), evidence }).await
    }
}

/// Everything that was measured.
#[derive(Default)]
struct Measured {
    order: Samples,
    commits: Samples,
    coordinator: Samples,
    observed: Samples,
    cli: Samples,
    cli_overhead: Samples,
    api_overhead: Samples,
    socat: Samples,
    durable: Samples,
    reported: Vec<Reported>,
}

impl Measured {
    fn add(&mut self, took: Took, intent: Duration, outcome: Duration) {
        let commits = intent.saturating_add(outcome);
        self.order.push(took.order);
        self.commits.push(commits);
        self.coordinator.push(took.order.saturating_add(commits));
        let overhead = took.whole.saturating_sub(took.release);
        match took.observed {
            Some(observed) => {
                self.observed.push(observed.saturating_add(intent));
                self.api_overhead.push(overhead);
            }
            None => {
                self.cli.push(took.whole);
                self.cli_overhead.push(overhead);
            }
        }
        self.reported.push(took.reported);
    }
}

/// Requests that began after a switch was reported, and were answered by what was before it.
fn stale(report: &Report, reported: &[Reported]) -> usize {
    let late = report.visits.iter().filter(|visit| {
        // Failed requests are counted elsewhere.
        let Some(status) = visit.status else { return false };
        let Some(last) = reported.iter().rev().find(|switch| switch.at < visit.began) else { return false };
        let epoch = visit.epoch.unwrap_or(0);
        epoch < last.epoch || (epoch == last.epoch && status == 200 && visit.marker != last.version)
    });
    late.count()
}

/// Runs the benchmark.
pub async fn measure(switches: usize) -> Result<Value> {
    let machine = host::machine()?;
    eprintln!("== start a site, release v1 and v2");
    let site = Site::builder().watch("300ms").start().await?;
    site.released("v1").await?;
    site.released("v2").await?;
    let (coordinator, lb_agent) = (site.folder().join("coordinator/state"), site.folder().join("lb1/state"));
    let mut durable = Durable::new(&coordinator, &lb_agent)?;
    let journal = TimedJournal::open(&coordinator).await?;
    let mut client = site.client()?;
    let (socket, map) = (site.haproxy.layout().socket(), site.haproxy.layout().map.clone());

    eprintln!("== {switches} switches under load");
    let load = Load::start(site.frontend(), LoadPlan::default())?;
    load.more(VISITS).await?;
    let mut measured = Measured::default();
    for number in 0..switches.saturating_add(WARM_UP) {
        let intent = journal.intent().await?;
        let took = if number % 2 == 0 { by_api(&site, &mut client).await? } else { by_cli(&site).await? };
        let outcome = journal.outcome(&took).await?;
        let socat = floor::socat(&socket, &map, &site.haproxy.route().await?)?;
        let written = durable.once()?;
        if number < WARM_UP {
            measured.reported.push(took.reported);
            continue;
        }
        measured.add(took, intent, outcome);
        measured.socat.push(socat);
        measured.durable.push(written);
    }
    load.more(VISITS).await?;
    let report = load.stop()?;
    for failure in report.failures().iter().take(5) {
        eprintln!("   failed: {failure}");
    }

    eprintln!("== wait until the site is idle");
    drop(client);
    let pids = |program: &str| -> Result<Vec<u32>> { host::processes(program, site.folder()) };
    let (agents, lb_agents) = (pids("pointsman-agent")?, pids("pointsman-lb-agent")?);
    let coordinators = pids("pointsman-coordinator")?;
    let idle_share = host::quiet(&[agents.as_slice(), &lb_agents, &coordinators].concat()).await?;
    let memory = [Memory::largest(&agents)?, Memory::largest(&lb_agents)?, Memory::largest(&coordinators)?];
    let mut found = document(&measured, &report, memory);
    if let Some(found) = found.as_object_mut() {
        found.insert("idle_cpu_percent".to_owned(), rounded(idle_share * 100.0).into());
        found.insert("machine".to_owned(), machine);
    }
    Ok(found)
}

fn document(measured: &Measured, report: &Report, memory: [Memory; 3]) -> Value {
    let Measured { order, commits, coordinator, observed, cli, cli_overhead, api_overhead, .. } = measured;
    let Measured { socat, durable, reported, .. } = measured;
    let [agent, lb_agent, coordinator_memory] = memory;
    json!({
        "switches": reported.len().saturating_sub(WARM_UP),
        "coordinator_p50_ms": rounded(coordinator.p50()), "coordinator_p99_ms": rounded(coordinator.p99()),
        "order_p50_ms": rounded(order.p50()), "order_p99_ms": rounded(order.p99()),
        "commits_p50_ms": rounded(commits.p50()), "commits_p99_ms": rounded(commits.p99()),
        "observed_p50_ms": rounded(observed.p50()), "observed_p99_ms": rounded(observed.p99()),
        "cli_p50_ms": rounded(cli.p50()), "cli_overhead_p50_ms": rounded(cli_overhead.p50()),
        "api_overhead_p50_ms": rounded(api_overhead.p50()),
        "socat_p50_ms": rounded(socat.p50()), "socat_p99_ms": rounded(socat.p99()),
        "durable_floor_p50_ms": rounded(durable.p50()), "durable_floor_p99_ms": rounded(durable.p99()),
        "ratio_p50": rounded(coordinator.p50() / (socat.p50() + durable.p50())),
        "ratio_p99": rounded(coordinator.p99() / (socat.p99() + durable.p99())),
        "requests": report.visits.len(), "requests_per_second": report.rate().round(),
        "failed": report.failures().len(), "stale": stale(report, reported),
        "agent_rss_mb": agent.rss, "lb_agent_rss_mb": lb_agent.rss, "coordinator_rss_mb": coordinator_memory.rss,
        "agent_anon_mb": agent.anonymous, "lb_agent_anon_mb": lb_agent.anonymous,
        "coordinator_anon_mb": coordinator_memory.anonymous,
        "method": METHOD,
    })
}
