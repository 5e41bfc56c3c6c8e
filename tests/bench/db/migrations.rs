//! Migrations: whom they stall behind those who hold a table for long, what stands after every crash, and which bad ones
//! are stopped before the live database is touched. A program of its own, in the profile with failpoints: prints one JSON
//! object on standard output, everything else to standard error.

#[path = "../../../database/tests/migrate/arena.rs"]
mod arena;
#[path = "../../../database/tests/migrate/corpus.rs"]
mod corpus;
#[path = "../../../database/tests/migrate/kit.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod kit;

use std::io::Write as _;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use pointsman_migration::Phase;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use arena::{Arena, Blow, CUT, MIXED, PLAIN, Victim};
use kit::Ground;

/// What makes this program be the agent that is killed.
const CHILD: &str = "migrate-child";

/// Visitors, each with a connection of its own, who ask a hundred times a second together.
const VISITORS: u32 = 40;
const ASK_EVERY: Duration = Duration::from_millis(400);
/// How long whoever is in the way holds the table.
const HOLD: Duration = Duration::from_secs(12);
/// A request that takes longer is stalled.
const STALLED: Duration = Duration::from_millis(200);

const TABLE: &str = "CREATE TABLE features (id int PRIMARY KEY, name text);
INSERT INTO features SELECT n, repeat('x', 100) FROM generate_series(1, 250000) n";

/// What was measured, in words.
const METHOD: &str = "ddl_stalled = requests over 200 ms of 100 a second on 40 connections while \
`ALTER TABLE … ADD COLUMN` goes past a 12 s report, a pg_dump that stands still for 12 s and a transaction idle for 12 s, less \
those over 200 ms without any ALTER; ddl_stalled_plain = the same with the statement as it is. \
crash_points = kills of agent, server process, connections and whole server at every place that a run passes, and of each of \
them at twenty moments of a commit; crash_points_exact = those after which what was told was so, and the next run ended as an \
undisturbed one, no effect twice. bad_migrations = bad files; bad_migrations_stopped = those stopped with the live \
database unchanged, by pg_dump.";

fn main() -> Result<ExitCode> {
    if std::env::args().nth(1).as_deref() == Some(CHILD) {
        arena::child();
        return Ok(ExitCode::SUCCESS);
    }
    anyhow::ensure!(cfg!(debug_assertions), "this profile has no failpoints: build it without `--release`");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let found = runtime.block_on(measure())?;
    writeln!(std::io::stdout(), "{found:#}")?;
    Ok(ExitCode::SUCCESS)
}

/// Measures everything.
async fn measure() -> Result<Value> {
    let (mut ours, mut plain) = (0, 0);
    for holder in [Holder::Report, Holder::Dump, Holder::Idle] {
        let nobody = stalled(holder, How::NotAtAll).await?;
        ours += stalled(holder, How::Ours).await?.saturating_sub(nobody);
        plain += stalled(holder, How::Plain).await?.saturating_sub(nobody);
    }
    let (crashes, wrong) = crashes().await;
    for line in &wrong {
        eprintln!("not exact: {line}");
    }
    let (by_reading, mut missed) = corpus::by_reading().await;
    let (by_rehearsal, more) = corpus::by_rehearsal().await;
    missed.extend(more);
    for line in &missed {
        eprintln!("not stopped: {line}");
    }
    Ok(json!({
        "method": METHOD,
        "ddl_stalled": ours, "ddl_stalled_plain": plain,
        "crash_points": crashes, "crash_points_exact": crashes.saturating_sub(wrong.len()),
        "bad_migrations": by_reading + by_rehearsal,
        "bad_migrations_stopped": (by_reading + by_rehearsal).saturating_sub(missed.len()),
    }))
}

async fn crashes() -> (usize, Vec<String>) {
    let (mut hits, mut wrong) = (0, Vec::new());
    for story in [&PLAIN, &MIXED, &CUT] {
        let mut arena = Arena::new(story, &[CHILD]).await;
        for blow in [Blow::Agent, Blow::Backend, Blow::Connections, Blow::Server] {
            let (more, found) = arena.every_place(blow).await;
            eprintln!("== {}, {blow:?}: {more} places, {} not exact", story.name, found.len());
            hits += more;
            wrong.extend(found);
        }
    }
    let mut arena = Arena::new(&PLAIN, &[CHILD]).await;
    for whom in [Victim::Agent, Victim::Backend, Victim::Connections, Victim::Server] {
        for micros in (0..2_000).step_by(100) {
            hits += 1;
            match arena.bout("migrate-commit", 1, Blow::InCommit { whom, micros }).await {
                Some(found) if found.is_empty() => {}
                Some(found) => {
                    wrong.push(format!("{whom:?} in the commit, {micros} µs: {}", found.join("; ")))
                }
                None => wrong.push(format!("{whom:?} in the commit, {micros} µs: not hit")),
            }
        }
        eprintln!("== in the commit, {whom:?}: {hits} places so far, {} not exact", wrong.len());
    }
    (hits, wrong)
}

/// Who is in the way.
#[derive(Clone, Copy, Debug)]
enum Holder {
    Report,
    Dump,
    Idle,
}

/// How the table is altered.
#[derive(Clone, Copy, Debug)]
enum How {
    NotAtAll,
    Ours,
    Plain,
}

async fn stalled(holder: Holder, how: How) -> Result<usize> {
    let ground = Ground::new(TABLE);
    let over = Arc::new(AtomicBool::new(false));
    let visitors = visitors(&ground, &over).await;
    let held = hold(&ground, holder).await?;
    let altered = alter(&ground, how).await;
    held.await??;
    altered.await??;
    tokio::time::sleep(Duration::from_secs(1)).await;
    over.store(true, Ordering::SeqCst);
    let mut stalled = 0;
    for visitor in visitors {
        stalled += visitor.await??;
    }
    eprintln!("== behind {holder:?}, {how:?}: {stalled} requests over {STALLED:?}");
    Ok(stalled)
}

async fn visitors(ground: &Ground, over: &Arc<AtomicBool>) -> Vec<JoinHandle<Result<usize>>> {
    let mut visitors = Vec::new();
    for number in 0..VISITORS {
        let (client, over) = (ground.client("visitor", "app").await, Arc::clone(over));
        visitors.push(tokio::spawn(async move {
            tokio::time::sleep(ASK_EVERY * number / VISITORS).await;
            let mut tick = tokio::time::interval(ASK_EVERY);
            let mut stalled = 0;
            while !over.load(Ordering::SeqCst) {
                // A request is late by what it waited for the one before it, too: that is what its visitor sees.
                let due = tick.tick().await;
                client.query_one("SELECT name FROM features WHERE id = 7", &[]).await?;
                stalled += usize::from(due.elapsed() > STALLED);
            }
            Ok(stalled)
        }));
    }
    visitors
}

async fn hold(ground: &Ground, holder: Holder) -> Result<JoinHandle<Result<()>>> {
    let (client, before) = (ground.client("report-job", "app").await, "BEGIN; SELECT count(*) FROM features");
    Ok(match holder {
        Holder::Report | Holder::Idle => {
            client.batch_execute(before).await?;
            tokio::spawn(async move {
                match holder {
                    Holder::Report => {
                        client.batch_execute(&format!("SELECT pg_sleep({}); COMMIT", HOLD.as_secs())).await?
                    }
                    _ => {
                        tokio::time::sleep(HOLD).await;
                        client.batch_execute("COMMIT").await?;
                    }
                }
                Ok(())
            })
        }
        Holder::Dump => {
            let mut dump = ground.cluster.client("pg_dump", "postgres", &ground.settings.name);
            let mut dump = dump.arg("--inserts").stdout(Stdio::piped()).spawn()?;
            let pipe = dump.stdout.take().context("no pipe")?;
            tokio::task::spawn_blocking(move || {
                // Nobody reads, so it stands still with its locks.
                std::thread::sleep(HOLD);
                let read = std::io::copy(&mut { pipe }, &mut std::io::sink())?;
                anyhow::ensure!(dump.wait()?.success() && read > 0, "the dump failed");
                Ok(())
            })
        }
    })
}

async fn alter(ground: &Ground, how: How) -> JoinHandle<Result<()>> {
    let (settings, client) = (ground.settings.clone(), ground.client("psql", "pointsman").await);
    tokio::spawn(async move {
        let began = Instant::now();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let sql = "ALTER TABLE features ADD COLUMN c_new int";
        match how {
            How::NotAtAll => {}
            How::Plain => client.batch_execute(sql).await?,
            How::Ours => {
                let order = pointsman_database::migrate::RunOrder {
                    phase: Phase::Expand,
                    release: "r1".to_owned(),
                    out_of_order: Vec::new(),
                    max_stall_ms: 200,
                    lock_budget_ms: 60_000,
                    database: &settings.name,
                };
                let (set, progress) =
                    (kit::set(&[("v1.0.0.sql", sql)]), pointsman_database::Progress::default());
                let ran = pointsman_database::migrate::run(&settings, &set, &order, &kit::Crew(1), &progress)
                    .await?;
                eprintln!(
                    "== altered after {:?}: {:?}",
                    began.elapsed(),
                    ran.applied.first().map(|file| &file.segments)
                );
            }
        }
        Ok(())
    })
}
