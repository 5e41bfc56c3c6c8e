//! What a drain cuts of a real HAProxy, and what it cannot.

use std::io::Write as _;
use std::net::TcpStream;

use pointsman_core::{Action, Aftermath, Code, DrainEnd, Evidence, Problem};

use crate::real::{Haproxy, configuration};
use crate::rig::{Agent, Setup};

/// With this in the idle slot's backend, and these words behind its server.
async fn started(line: &str, server: &str) -> Option<Haproxy> {
    let change = |text: String| {
        let (before, slot) = text.split_once("backend be_green\n").unwrap();
        let slot = slot.replacen(" check inter", &format!(" {server} check inter"), 1);
        format!("{before}backend be_green\n{line}{slot}")
    };
    let haproxy = Haproxy::begin(
        |folder, frontend| change(configuration(folder, frontend)),
        |folder, frontend| Agent::start(&Setup::beside(folder, frontend)),
    )?;
    haproxy.healthy().await;
    Some(haproxy)
}

/// A tester's request to the idle slot that has not ended.
fn unfinished(haproxy: &Haproxy, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(haproxy.frontend).unwrap();
    write!(stream, "{head} HTTP/1.1\r\nHost: x\r\nX-Pointsman: canary\r\nContent-Length: 9\r\n\r\nx")
        .unwrap();
    stream
}

async fn runs(haproxy: &Haproxy, wanted: u64) {
    haproxy
        .until("requests run on the slot", async |haproxy| {
            let found = haproxy.agent.describe().await.balancer.unwrap_or_default();
            found.backends.iter().any(|slot| slot.name == "be_green" && slot.sessions == wanted)
        })
        .await;
}

async fn cut(haproxy: &Haproxy) -> Result<Evidence, Problem> {
    let backend = "be_green".parse().unwrap();
    haproxy.agent.perform(Action::Drain { backend, timeout_ms: 100, end: DrainEnd::Cut }).await
}

/// Whoever waits for the place of a request that is cut gets it, and is cut as well.
#[tokio::test]
async fn a_queue_behind_what_is_cut_is_cut() {
    let Some(haproxy) = started("", "maxconn 1").await else { return };
    let _running: Vec<TcpStream> = (0..3).map(|_| unfinished(&haproxy, "GET /hang")).collect();
    runs(&haproxy, 3).await;
    let done = cut(&haproxy).await.unwrap();
    assert!(done.detail.contains("3 requests on `be_green` cut"), "{done:?}");
    runs(&haproxy, 0).await;
}

/// HAProxy does not end the requests of a server in a worker that was reloaded away: each is ended by itself.
#[tokio::test]
async fn what_an_old_worker_serves_is_cut() {
    let Some(haproxy) = started("", "").await else { return };
    let _running: Vec<TcpStream> = (0..3).map(|_| unfinished(&haproxy, "GET /hang")).collect();
    runs(&haproxy, 3).await;
    haproxy.reload().await;
    let _newer = unfinished(&haproxy, "GET /hang");
    runs(&haproxy, 4).await;
    let done = cut(&haproxy).await.unwrap();
    assert!(done.detail.contains("4 requests on `be_green` cut"), "{done:?}");
    runs(&haproxy, 0).await;
}

/// A body that is still on its way has no server by which HAProxy could cut it: that is said, and what ends it.
#[tokio::test]
async fn what_has_no_server_yet_cannot_be_cut_and_is_told() {
    let Some(haproxy) = started("  option http-buffer-request\n", "").await else { return };
    let running = unfinished(&haproxy, "POST /slow");
    runs(&haproxy, 1).await;
    let problem = cut(&haproxy).await.unwrap_err();
    assert_eq!((problem.code, problem.aftermath), (Code::DrainIncomplete, Aftermath::Changed), "{problem:?}");
    assert!(problem.message.starts_with("1 request has no server yet on `be_green`"), "{problem:?}");
    assert!(problem.hint.contains("timeout http-request"), "{problem:?}");
    // When it has gone the same order finds the slot empty.
    drop(running);
    runs(&haproxy, 0).await;
    cut(&haproxy).await.unwrap();
}
