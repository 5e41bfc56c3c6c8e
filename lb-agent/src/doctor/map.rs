//! The map at run time: loaded, with one entry, and the same on disk.

use pointsman_core::{Problem, Route};

use super::seen::Seen;
use super::{Said, listed};

pub(super) fn loaded(seen: &Seen) -> Result<Said, &Problem> {
    let (maps, map) = (seen.maps.as_ref()?, seen.wanted.map_name());
    if maps.contains(&map) {
        return Ok(Said::ok(format!("`{map}` is loaded")));
    }
    let has = if maps.is_empty() { "no map".to_owned() } else { listed(maps) };
    let line = super::frontend::lookup_line(&seen.wanted);
    Ok(Said::fail(
        format!("HAProxy has not loaded `{map}`: it has {has}"),
        format!("add to the frontend, or correct `map` in lb-agent.toml:\n  {line}"),
    ))
}

pub(super) fn one_entry(seen: &Seen) -> Result<Said, &Problem> {
    let (entries, key) = (seen.entries.as_ref()?, &seen.wanted.key);
    let (map, socket) = (seen.wanted.map_name(), seen.wanted.socket.0.socat());
    match entries.as_slice() {
        [(only, value)] if only == key => Ok(match Route::parse(value) {
            Ok(route) => Said::ok(format!("one entry: `{route}`")),
            Err(_) => Said::fail(
                format!("the value of `{key}` is no route: `{value}`"),
                format!(
                    "on the load balancer:\n  pointsman-lb-agent check-map && systemctl reload haproxy\nthe file must read:\n  {key} be_blue:be_blue:0:1"
                ),
            ),
        }),
        [] => Ok(Said::fail(
            "the map is empty",
            format!(
                "on the load balancer:\n  pointsman-lb-agent check-map && systemctl reload haproxy\nthe file must read:\n  {key} be_blue:be_blue:0:1"
            ),
        )),
        entries => Ok(Said::fail(
            format!(
                "the map has {} entries ({}), expected `{key}` once",
                entries.len(),
                listed(entries.iter().map(|(key, _)| key))
            ),
            format!(
                "see them, keep one in the file, and reload:\n  echo 'show map {map}' | {socket}\n  systemctl reload haproxy"
            ),
        )),
    }
}

/// The line that gives HAProxy a route, by hand. Where the key is gone, only the file brings it back.
fn set_running(seen: &Seen, route: &str) -> String {
    let (map, key, socket) = (seen.wanted.map_name(), &seen.wanted.key, seen.wanted.socket.0.socat());
    let is_there = seen.entries.as_ref().is_ok_and(|entries| entries.iter().any(|(known, _)| known == key));
    let verb = if is_there { "set" } else { "add" };
    format!("echo '{verb} map {map} {key} {route}' | {socket}")
}

/// The line that has the next reload read a route.
fn set_kept(seen: &Seen, route: &str) -> String {
    let key = &seen.wanted.key;
    match seen.wanted.opnsense {
        None => format!("echo '{key} {route}' > {}", seen.wanted.map_name()),
        Some(_) => format!("in OPNsense, Map Files, as the whole content:\n  {key} {route}"),
    }
}

pub(super) fn on_disk(seen: &Seen) -> Result<Said, &Problem> {
    let entries = seen.entries.as_ref()?;
    let running = entries.iter().find(|(key, _)| *key == seen.wanted.key).map(|(_, value)| value.as_str());
    let on_disk = seen.on_disk.as_ref().map(ToString::to_string);
    let confirmed = seen.confirmed.as_ref().map(ToString::to_string);
    let same = on_disk.is_some() && on_disk.as_deref() == running;
    if same && (confirmed.is_none() || confirmed == on_disk || seen.begun == seen.on_disk) {
        return Ok(Said::ok("the map file and HAProxy hold the same route"));
    }
    if let Some(unkept) = seen.unkept.as_ref().filter(|_| !same) {
        return Ok(Said::fail(
            unkept.clone(),
            "the agent goes on asking; mend OPNsense's API or its key, and see from the agent's host:\n  journalctl -u pointsman-lb-agent\nuntil then releases only go back",
        ));
    }
    let what = match same {
        true => format!("the map file and HAProxy hold `{}`", running.unwrap_or_default()),
        false => format!(
            "the map file holds `{}`, HAProxy routes by `{}`",
            on_disk.as_deref().unwrap_or("no route"),
            running.unwrap_or("no route")
        ),
    };
    let Some(route) = confirmed else {
        let see =
            "somebody else changed one of them; what pointsman set last:\n  pointsman history ENV --limit 1";
        let lines = |route| format!("{}\n  {}", set_running(seen, route), set_kept(seen, route));
        return Ok(Said::fail(
            what,
            format!(
                "{see}\non the load balancer, with that route:\n  {}",
                lines(on_disk.as_deref().or(running).unwrap_or("ROUTE"))
            ),
        ));
    };
    let mut lines = Vec::new();
    if running != Some(&route) {
        lines.push(set_running(seen, &route));
    }
    if on_disk.as_ref() != Some(&route) {
        lines.push(set_kept(seen, &route));
    }
    Ok(Said::fail(
        format!("{what}; `{route}` was confirmed last"),
        format!("stop what changes it, and put it back on the load balancer:\n  {}", lines.join("\n  ")),
    ))
}
