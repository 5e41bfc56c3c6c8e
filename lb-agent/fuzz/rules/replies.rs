//! Every parser of HAProxy's answers, on any bytes: no panic, and a cut answer says nothing.

use pointsman_lb_agent::reply;

/// Holds the parsers against the rule.
pub fn hold(bytes: &[u8]) {
    // The socket client refuses what is not text before any parser sees it.
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = reply::info(text);
    let _ = reply::map_value(text);
    let _ = reply::map_entries(text);
    let _ = reply::backends(text);
    let _ = reply::processes(text);
    let _ = reply::server_states(text);
    let _ = reply::algorithms(text);
    let _ = reply::is_empty_success(text);
    let _ = reply::limits(text);
    let _ = reply::cli_sockets(text);
    let _ = reply::cli_level(text);
    let _ = reply::maps(text);
    let _ = reply::loaded_files(text);
    let _ = reply::sessions(text);
    let _ = reply::buffer_bytes(text);
    let _ = reply::certificate(text);
    let _ = reply::certificate_is_set(text, "/certs/www.pem");
    let _ = reply::certificate_is_committed(text);
    // What visitors write stands in tables, and goes to a person's terminal.
    if let Some(table) = reply::table(text, "st_rl") {
        for entry in &table.entries {
            assert!(!entry.key.to_string().contains(char::is_control), "{entry:?}");
        }
    }
    if let Some(rows) = reply::stat(text) {
        assert!(rows.iter().all(|row| row.server != "FRONTEND"));
        for row in rows.iter().filter(|row| row.healthy()) {
            assert_eq!(row.status, "UP");
        }
    }
    // A whole answer ends with an empty line; without it, it was cut.
    if !text.ends_with("\n\n") && text != "\n" {
        assert!(reply::stat(text).is_none() && reply::server_states(text).is_none());
        assert!(reply::map_value(text).is_none() && reply::backends(text).is_none());
    }
}
