//! Rate limits of a real HAProxy: who asks too often is refused, seen, let in again; the agent's own address is exempt.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use crate::real::Haproxy;

/// Requests in the table's period, beyond which an address is refused.
const LIMIT: u64 = 20;

/// The status of one request from an address of this machine.
async fn status(from: &str, to: SocketAddr) -> String {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    let mut stream = socket.connect(to).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: www.example.org\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn who_is_limited_is_seen_and_let_in_again() {
    let address = crate::net::free();
    let started = Haproxy::start_with(|_| {
        let sections = format!(
            "frontend limited
  bind {address}
  acl trusted src 127.0.0.1
  http-request track-sc0 src table st_rl unless trusted
  http-request deny deny_status 429 if {{ sc_http_req_rate(0,st_rl) gt {LIMIT} }}
  http-request return status 200
backend st_rl
  stick-table type ip size 100k expire 10m store http_req_rate(60s)
"
        );
        (sections, "rate_limit_tables = [\"st_rl\"]".to_owned())
    });
    let Some(haproxy) = started.await else { return };
    for _ in 0..LIMIT {
        assert_eq!(status("127.0.0.9", address).await, "200");
        // The agent and testers are never counted.
        assert_eq!(status("127.0.0.1", address).await, "200");
    }
    assert_eq!(status("127.0.0.8", address).await, "200");
    assert_eq!(status("127.0.0.9", address).await, "429");
    assert_eq!(status("127.0.0.1", address).await, "200");
    let all = haproxy.agent.rate_limits("", "", 0).await.unwrap();
    let seen: Vec<_> = all.entries.iter().map(|entry| (entry.key.as_str(), entry.rate)).collect();
    assert_eq!(seen, [("127.0.0.9", LIMIT + 1), ("127.0.0.8", 1)]);
    assert_eq!((all.entries[0].period_ms, all.entries[0].table.as_str()), (60_000, "st_rl"));
    let limited = haproxy.agent.rate_limits("st_rl", "", 20).await.unwrap();
    assert_eq!(limited.entries.len(), 1);
    let left = haproxy.agent.rate_limits("", "127.0.0.9", 0).await.unwrap();
    assert!(left.entries.is_empty(), "{left:?}");
    assert_eq!(status("127.0.0.9", address).await, "200");
    // Nobody else was forgotten, and whoever was not there is no error.
    assert_eq!(haproxy.agent.rate_limits("", "127.0.0.77", 0).await.unwrap().entries.len(), 0);
    assert_eq!(haproxy.agent.rate_limits("", "", 0).await.unwrap().entries.len(), 2);
}

/// A table for both kinds of addresses holds one of version 4 as one of version 6: it is found by either way of writing it,
/// and one table that is not there keeps nobody out of the others.
#[tokio::test]
async fn an_address_is_let_in_again_whatever_the_type_of_the_table() {
    let address = crate::net::free();
    let started = Haproxy::start_with(|_| {
        let sections = format!(
            "frontend limited
  bind {address}
  http-request track-sc0 src table st_both
  http-request track-sc1 src table st_four
  http-request deny deny_status 429 if {{ sc_http_req_rate(0,st_both) gt {LIMIT} }}
  http-request deny deny_status 429 if {{ sc_http_req_rate(1,st_four) gt {LIMIT} }}
  http-request return status 200
backend st_both
  stick-table type ipv6 size 100k expire 10m store http_req_rate(60s)
backend st_four
  stick-table type ip size 100k expire 10m store http_req_rate(60s)
"
        );
        (sections, "rate_limit_tables = [\"st_gone\", \"st_both\", \"st_four\"]".to_owned())
    });
    let Some(haproxy) = started.await else { return };
    for written in ["127.0.0.9", "::ffff:127.0.0.9"] {
        for _ in 0..LIMIT {
            assert_eq!(status("127.0.0.9", address).await, "200", "{written}");
        }
        assert_eq!(status("127.0.0.9", address).await, "429");
        for table in ["st_both", "st_four"] {
            let seen = haproxy.agent.rate_limits(table, "", 0).await.unwrap().entries;
            assert_eq!((seen.len(), seen[0].key.as_str()), (1, "127.0.0.9"), "{table}");
        }
        // The first table is not there: that is said, when the others have forgotten the address.
        let missing = haproxy.agent.rate_limits("", written, 0).await.unwrap_err();
        assert_eq!(missing.code, pointsman_core::Code::RateTableUnknown, "{missing:?}");
        assert!(missing.message.contains("st_gone"), "{missing:?}");
        assert_eq!(status("127.0.0.9", address).await, "200", "{written}");
        for table in ["st_both", "st_four"] {
            let left = haproxy.agent.rate_limits(table, written, 0).await.unwrap();
            assert!(left.entries.is_empty(), "{written}, {table}: {left:?}");
        }
    }
    // What a table of version 4 cannot hold, it has not.
    assert!(haproxy.agent.rate_limits("st_four", "2001:db8::1", 0).await.unwrap().entries.is_empty());
    assert!(haproxy.agent.rate_limits("st_both", "2001:db8::1", 0).await.unwrap().entries.is_empty());
}

#[tokio::test]
async fn a_table_that_haproxy_does_not_have() {
    let started = Haproxy::start_with(|_| (String::new(), "rate_limit_tables = [\"st_rl\"]".to_owned()));
    let Some(haproxy) = started.await else { return };
    for unblock in ["", "127.0.0.9"] {
        let unknown = haproxy.agent.rate_limits("", unblock, 0).await.unwrap_err();
        assert_eq!(unknown.code, pointsman_core::Code::RateTableUnknown, "{unknown:?}");
    }
}

/// A limit by a header, beside one by address and a table that is not there: who is counted is seen all the same.
#[tokio::test]
async fn what_is_counted_by_texts_is_seen_and_hides_no_other_table() {
    let address = crate::net::free();
    let started = Haproxy::start_with(|_| {
        let sections = format!(
            "frontend limited
  bind {address}
  http-request track-sc0 hdr(Host) table st_key
  http-request track-sc1 src table st_rl
  http-request return status 200
backend st_key
  stick-table type string len 64 size 100k expire 10m store http_req_rate(60s)
backend st_rl
  stick-table type ip size 100k expire 10m store http_req_rate(60s)
"
        );
        (sections, "rate_limit_tables = [\"st_gone\", \"st_key\", \"st_rl\"]".to_owned())
    });
    let Some(haproxy) = started.await else { return };
    assert_eq!(status("127.0.0.9", address).await, "200");
    let all = haproxy.agent.rate_limits("", "", 0).await.unwrap();
    let mut seen: Vec<_> =
        all.entries.iter().map(|entry| (entry.table.as_str(), entry.key.as_str())).collect();
    seen.sort_unstable();
    assert_eq!(seen, [("st_key", "www.example.org"), ("st_rl", "127.0.0.9")]);
    assert_eq!(
        (all.unread.len(), all.unread[0].code.as_str()),
        (1, pointsman_core::Code::RateTableUnknown.as_str())
    );
    assert!(all.unread[0].message.contains("st_gone"), "{all:?}");
    // It alone is an error.
    assert!(haproxy.agent.rate_limits("st_gone", "", 0).await.is_err());
}

/// Who is banned by a mark, or by the rate of connections, is in a table without `http_req_rate`; one of `peers` has two names.
#[tokio::test]
async fn an_address_is_let_in_again_whatever_the_table_counts() {
    let address = crate::net::free();
    let started = Haproxy::start_with(|_| {
        let sections = format!(
            "peers mine
  table st_src type ip size 100k expire 10m store http_req_rate(60s)
frontend limited
  bind {address}
  http-request track-sc0 src table mine/st_src
  http-request track-sc1 src table st_ban
  http-request track-sc2 src table st_conn
  http-request sc-inc-gpc0(1) if {{ sc_http_req_rate(0,mine/st_src) gt {LIMIT} }}
  http-request deny deny_status 403 if {{ sc_get_gpc0(1,st_ban) gt 0 }}
  http-request return status 200
backend st_ban
  stick-table type ipv6 size 100k expire 1h store gpc0
backend st_conn
  stick-table type ip size 100k expire 10m store conn_rate(60s)
"
        );
        (sections, "rate_limit_tables = [\"mine/st_src\", \"st_ban\", \"st_conn\"]".to_owned())
    });
    let Some(haproxy) = started.await else { return };
    for _ in 0..=LIMIT {
        status("127.0.0.9", address).await;
    }
    assert_eq!(status("127.0.0.9", address).await, "403");
    let all = haproxy.agent.rate_limits("", "", 0).await.unwrap();
    let seen: Vec<_> = all.entries.iter().map(|entry| (entry.table.as_str(), entry.key.as_str())).collect();
    assert_eq!(seen, [("mine/st_src", "127.0.0.9")]);
    // Nobody is shown of the others, which is said.
    let unread: Vec<_> = all.unread.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(unread.len(), 2, "{unread:?}");
    let left = haproxy.agent.rate_limits("", "127.0.0.9", 0).await.unwrap();
    assert!(left.entries.is_empty() && left.unread.is_empty(), "{left:?}");
    for table in ["mine/st_src", "st_ban", "st_conn"] {
        let held = haproxy.admin(&format!("show table {table}")).await;
        assert!(held.contains("used:0"), "{held}");
    }
    assert_eq!(status("127.0.0.9", address).await, "200");
    let only = haproxy.agent.rate_limits("st_ban", "127.0.0.9", 0).await.unwrap();
    assert!(only.entries.is_empty() && only.unread.is_empty(), "{only:?}");
    assert!(haproxy.agent.rate_limits("st_ban", "", 0).await.is_err());
}
