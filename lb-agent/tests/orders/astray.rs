//! Visitors who do not get to where the route leads, behind a real HAProxy: a move is called done when the backend that
//! it names answers, and who goes elsewhere all the same is told.

use std::net::SocketAddr;
use std::path::Path;

use pointsman_core::{Aftermath, Code};

use crate::real::{Haproxy, logged};
use crate::rig::{Agent, P, Setup, V, route};

/// An HAProxy of this configuration, changed, with an agent that takes access lines in.
async fn started(change: impl FnOnce(String) -> String) -> Option<Haproxy> {
    let lines = crate::net::free();
    let agent = |folder: &Path, frontend: SocketAddr| {
        Agent::start(&Setup { signals: Some(lines), ..Setup::beside(folder, frontend) })
    };
    let haproxy = Haproxy::begin(|folder, frontend| change(logged(folder, frontend, lines)), agent)?;
    haproxy.healthy().await;
    Some(haproxy)
}

const STABLE: &str = "  use_backend %[var(txn.stable)]\n";

async fn get(address: SocketAddr, path: &str) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: www.example.org\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.read_to_end(&mut Vec::new()).await.unwrap();
}

async fn told(haproxy: &Haproxy) -> Vec<String> {
    let found = haproxy.agent.describe().await.balancer.unwrap_or_default();
    let told = found.events.into_iter().filter(|event| event.kind == "old-slot-serves");
    told.map(|event| event.detail).collect()
}

#[tokio::test]
async fn a_move_that_moves_nobody_is_taken_back() {
    let in_the_way =
        |text: String| text.replace(STABLE, &format!("  use_backend be_blue if {{ path_beg / }}\n{STABLE}"));
    let Some(haproxy) = started(in_the_way).await else { return };
    // Blue is live, and answers.
    haproxy.agent.inspect(P).await.unwrap();
    let problem = haproxy.agent.set_route(P, V).await.unwrap_err();
    assert_eq!((problem.code, problem.aftermath), (Code::RouteNotSeen, Aftermath::Unchanged), "{problem:?}");
    assert!(
        problem.message.contains("answered by `be_blue`") && problem.message.contains("leads to `be_green`")
    );
    assert_eq!(haproxy.agent.on_disk(), Some(route(P)));
    let page = haproxy.agent.set_route(P, "be_maint:be_green:0:7").await.unwrap_err();
    assert_eq!(page.code, Code::RouteNotSeen, "nor does everybody see the page");
}

/// What an earlier `config-snippet` printed goes on working.
#[tokio::test]
async fn a_frontend_that_does_not_show_the_backend_is_believed_by_the_epoch() {
    let Some(haproxy) = started(|text| text.replace(" be=%[be_name]", "")).await else { return };
    haproxy.agent.inspect(P).await.unwrap();
    haproxy.agent.set_route(P, V).await.unwrap();
    haproxy.agent.inspect(V).await.unwrap();
}

#[tokio::test]
async fn visitors_whom_a_rule_keeps_on_the_old_slot_are_told_of() {
    let in_the_way = |text: String| {
        text.replace(STABLE, &format!("  use_backend be_blue if {{ path_beg /app }}\n{STABLE}"))
    };
    let Some(haproxy) = started(in_the_way).await else { return };
    let hands = haproxy.agent.hands.clone();
    let guard = tokio::spawn(async move { hands.guard_route().await });
    haproxy.agent.set_route(P, V).await.unwrap();
    haproxy
        .until("it is told", async |haproxy| {
            get(haproxy.frontend, "/app").await;
            get(haproxy.frontend, "/").await;
            !told(haproxy).await.is_empty()
        })
        .await;
    let events = told(&haproxy).await;
    assert_eq!(events.len(), 1, "once: {events:?}");
    assert!(
        events[0].starts_with("PM0118") && events[0].contains("on `be_blue`, led there by a rule"),
        "{events:?}"
    );
    guard.abort();
}

/// Requests that run during the move, connections that stay open over it, testers and checks are no strays.
#[tokio::test]
async fn whoever_goes_by_the_route_is_not_told_of() {
    let Some(haproxy) = started(|text| text).await else { return };
    let hands = haproxy.agent.hands.clone();
    let guard = tokio::spawn(async move { hands.guard_route().await });
    // A download that runs over the move, and ends a while after it.
    let download = tokio::net::TcpStream::connect(haproxy.frontend).await.unwrap();
    let mut download = download.into_std().unwrap();
    download.set_nonblocking(false).unwrap();
    std::io::Write::write_all(&mut download, b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    std::io::Read::read_exact(&mut download, &mut [0; 500]).unwrap();
    let mut ticks = haproxy.agent.signals().await.unwrap();
    haproxy.agent.set_route(P, V).await.unwrap();
    let mut left = Some(download);
    for second in 0..6 {
        get(haproxy.frontend, "/").await;
        let mut tester = std::net::TcpStream::connect(haproxy.frontend).unwrap();
        let asks = b"GET / HTTP/1.1\r\nHost: x\r\nX-Pointsman: canary\r\nConnection: close\r\n\r\n";
        std::io::Write::write_all(&mut tester, asks).unwrap();
        std::io::Read::read_to_end(&mut tester, &mut Vec::new()).unwrap();
        if second == 4 {
            drop(left.take());
        }
        let next = tokio::time::timeout(
            std::time::Duration::from_secs(5),
            futures_util::StreamExt::next(&mut ticks),
        );
        next.await.unwrap().unwrap().unwrap();
    }
    assert_eq!(told(&haproxy).await, Vec::<String>::new());
    guard.abort();
}

/// What stands above the lines of the route, or right below them, and takes every path that a visitor asks for.
const ASKED: &str = "  http-request auth realm Site unless { http_auth(people) }\n";
const SENT_ON: &str = "  http-request redirect location /login unless { req.cook(session) -m found }\n";
const PEOPLE: &str = "userlist people\n  user one insecure-password secret\n";

fn below(rule: &'static str) -> impl FnOnce(String) -> String {
    move |text| text.replace(STABLE, &format!("{rule}{STABLE}")) + PEOPLE
}

/// A password or a redirect for every path is the frontend's own answer, which names no backend: no rule takes visitors
/// from the route there. How little was seen is said.
#[tokio::test]
async fn a_site_that_asks_everybody_for_a_password_can_be_moved() {
    for (rule, status) in [(ASKED, "401"), (SENT_ON, "302")] {
        let Some(haproxy) = started(below(rule)).await else { return };
        let looked = haproxy.agent.inspect(P).await.unwrap();
        let said = format!("`fe` answered by a rule of its own, with status {status}");
        assert!(looked.detail.contains(&said), "{looked:?}");
        let done = haproxy.agent.set_route(P, V).await.unwrap();
        assert!(done.detail.contains(&said), "{done:?}");
        haproxy.agent.inspect(V).await.unwrap();
        let page = "be_maint:be_green:0:7";
        assert!(haproxy.agent.set_route(V, page).await.unwrap().detail.contains(&said));
        assert_eq!(haproxy.agent.on_disk(), Some(route(page)));
    }
}

/// Whom the rule spares comes to the slot, and then all is seen as anywhere else.
#[tokio::test]
async fn a_path_without_a_password_shows_where_the_route_leads() {
    let spared =
        "  http-request auth realm Site unless { http_auth(people) } or { req.hdr(X-Pointsman) -m found }\n";
    let Some(haproxy) = started(below(spared)).await else { return };
    let done = haproxy.agent.set_route(P, V).await.unwrap();
    assert!(
        done.detail.contains("seen by 3 new connections") && !done.detail.contains("its own"),
        "{done:?}"
    );
}

/// Above the lookup nothing of the route can be seen: nothing is moved on trust.
#[tokio::test]
async fn a_password_that_is_asked_for_before_the_route_is_looked_up_hides_it() {
    let above = |text: String| {
        let lookup = "  http-request set-var(txn.route) ";
        text.replacen(lookup, &format!("{ASKED}{lookup}"), 1) + PEOPLE
    };
    let Some(haproxy) = started(above).await else { return };
    for refused in [haproxy.agent.inspect(P).await, haproxy.agent.set_route(P, V).await] {
        let problem = refused.unwrap_err();
        assert_eq!((problem.code, problem.aftermath), (Code::RouteNotSeen, Aftermath::Unchanged));
        assert!(
            problem.causes[0].contains("status 401") && problem.hint.contains("above every rule"),
            "{problem:?}"
        );
    }
    assert_eq!(haproxy.agent.on_disk(), Some(route(P)));
}
