//! What stands after every crash: the agent, the server's process of its session, the whole server and the connection are
//! killed at every place that a run passes. The state must be told exactly, and the next run must end as if nothing had been.

use crate::arena::{Arena, Blow, CUT, MIXED, PLAIN, Story, Victim};

/// Is run in a process of its own, which is killed or stopped.
#[test]
#[ignore = "the part of other tests that runs in a process of its own"]
fn child() {
    crate::arena::child();
}

/// What makes this program run `child` and nothing else.
const CHILD: [&str; 5] = ["--exact", "crash::child", "--ignored", "--nocapture", "--test-threads=1"];

async fn every_place(story: &Story, blow: Blow) -> usize {
    let (hits, wrong) = Arena::new(story, &CHILD).await.every_place(blow).await;
    assert_eq!(wrong, Vec::<String>::new());
    hits
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_killed_at_every_place_of_one_transaction() {
    assert_eq!(every_place(&PLAIN, Blow::Agent).await, 11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_killed_at_every_place_of_a_split_file() {
    assert_eq!(every_place(&MIXED, Blow::Agent).await, 31);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_killed_at_every_place_of_a_backfill() {
    assert_eq!(every_place(&CUT, Blow::Agent).await, 14);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backend_killed_at_every_place_of_a_split_file() {
    assert_eq!(every_place(&MIXED, Blow::Backend).await, 31);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connections_cut_at_every_place_of_a_split_file() {
    assert_eq!(every_place(&MIXED, Blow::Connections).await, 31);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_killed_at_every_place_of_one_transaction() {
    assert_eq!(every_place(&PLAIN, Blow::Server).await, 11);
}

/// Killed or cut at some moment of the commit itself, before or after it took effect.
async fn within_the_commit(whom: Victim, moments: &[u64]) {
    let mut arena = Arena::new(&PLAIN, &CHILD).await;
    for micros in moments.iter().copied() {
        let found = arena.bout("migrate-commit", 1, Blow::InCommit { whom, micros }).await;
        assert_eq!(found, Some(Vec::new()), "{whom:?} after {micros} µs");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backend_killed_inside_of_the_commit() {
    within_the_commit(Victim::Backend, &[0, 50, 100, 150, 200, 300, 400, 600, 800, 1_200]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_others_hit_inside_of_the_commit() {
    for whom in [Victim::Agent, Victim::Connections, Victim::Server] {
        within_the_commit(whom, &[0, 100, 300, 1_000]).await;
    }
}
