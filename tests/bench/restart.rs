//! How long a release waits for its coordinator that was killed, by the age of the journal.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use kit::{Daemon, Site, until};
use pointsman_proto::v1;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::figures::{Samples, rounded};

/// Restarts that are measured with each journal.
const RUNS: usize = 20;
/// Entries of a young journal beside which old ones are shown.
const YOUNG: u64 = 1_000;
/// Longest time for a release to go on.
const LONGEST: Duration = Duration::from_secs(120);

const METHOD: &str = "real HAProxy, nginx, agents and coordinator over mutual TLS on one machine, release profile; the journal is \
that of a release of this site, recorded again and again under other names until it has so many entries. While visitors of a \
new release are watched the coordinator is killed (SIGKILL) and started, restart_runs times. restart_ms = median, \
restart_p99_ms = slowest, of: start of the process to the first acknowledgement of the new epoch by an agent that is recorded, \
by when the watch goes on; the file is in the page cache. memory_mib = most memory that the last of these processes had (VmHWM), \
after the whole journal was verified beside its work. by_entries has the same of younger journals";

/// Restarts with a young journal, with one of a tenth of these entries, and with one of all of them.
pub async fn measure(entries: u64) -> Result<Value> {
    let mut site = Site::builder().watch("600s").start().await?;
    site.released_unwatched("v1").await?;
    let mut found = Vec::new();
    for (number, entries) in [YOUNG, entries / 10, entries].into_iter().enumerate() {
        site.kill_coordinator()?;
        let entries = kit::age(&site.journal(), entries).await?;
        eprintln!("a journal of {entries} entries");
        let at = site.journal().metadata()?.len();
        site.start_coordinator()?;
        site.coordinator_answers().await?;
        site.ready().await?;
        let open = Open::begin(&site, number).await?;
        let mut waits = Samples::default();
        for _ in 0..RUNS {
            waits.push(open.survives(&mut site).await?);
        }
        let memory = open.end(&mut site).await?;
        found.push(json!({
            "entries": entries,
            "bytes": at,
            "restart_ms": rounded(waits.p50()),
            "restart_p99_ms": rounded(waits.p99()),
            "memory_mib": memory / 1024,
        }));
    }
    let mut oldest = found.last().cloned().context("nothing was measured")?;
    let fields = oldest.as_object_mut().context("it is no object")?;
    fields.insert("restart_runs".to_owned(), json!(RUNS));
    fields.insert("by_entries".to_owned(), json!(found));
    fields.insert("method".to_owned(), json!(METHOD));
    Ok(oldest)
}

/// A release that is watched.
struct Open(String);

impl Open {
    async fn begin(site: &Site, number: usize) -> Result<Self> {
        let (mut client, release) = (site.client()?, format!("open-{number}"));
        let digest = kit::publish(&mut client, &site.artifact(&release)?).await?;
        client.deploy(&digest, &release).await?;
        client.follow(&release, |seen| seen.done("switch")).await?;
        Ok(Self(release))
    }

    /// From the start of a coordinator to the moment at which its release goes on, after the one before it was killed.
    async fn survives(&self, site: &mut Site) -> Result<Duration> {
        site.kill_coordinator()?;
        let journal = site.journal();
        let before = acknowledged(&journal, &self.0)?;
        let began = Instant::now();
        site.start_coordinator()?;
        loop {
            if acknowledged(&journal, &self.0)? > before {
                return Ok(began.elapsed());
            }
            anyhow::ensure!(began.elapsed() < LONGEST, "the release does not go on");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The most memory that the coordinator needed, in KiB, with all of its journal verified. The release is over then.
    async fn end(self, site: &mut Site) -> Result<u64> {
        let mut client = site.coordinator_answers().await?;
        // It waits for whoever verifies already.
        let verify = v1::VerifyJournalRequest { environment: kit::ENVIRONMENT.to_owned() };
        client.api.verify_journal(verify).await?;
        let memory = site.most_memory(Daemon::Coordinator)?;
        let ask = v1::AskRequest { environment: kit::ENVIRONMENT.to_owned(), ..Default::default() };
        let api = client.api.clone();
        until("the release takes the request", LONGEST, || {
            let (mut api, ask) = (api.clone(), ask.clone());
            async move { api.promote(ask).await.ok() }
        })
        .await?;
        client.confirmed(&self.0).await?;
        Ok(memory)
    }
}

/// The newest entry of a release in which an agent acknowledges an epoch.
fn acknowledged(journal: &Path, release: &str) -> Result<i64> {
    let connection = Connection::open_with_flags(journal, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let sql = "SELECT coalesce(max(seq), 0) FROM entry
               WHERE environment = ?1 AND release = ?2 AND kind = 'observed'";
    Ok(connection.query_row(sql, [kit::ENVIRONMENT, release], |row| row.get(0))?)
}
