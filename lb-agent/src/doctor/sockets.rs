//! HAProxy's command sockets: who may use which, and whether ours can do its work.

use pointsman_core::Problem;

use super::seen::{Owner, Seen, Written};
use super::{Said, Verdict, add_to_global};
use crate::haproxy_cfg::Line;
use crate::reply::CliSocket;
use crate::socket::{CLIENTS, Endpoint};

/// How the master gets its socket, and the agent to it.
const MASTER: &str = "in a drop-in of haproxy.service:\n  [Service]\n  Environment=\"EXTRAOPTS=-S /run/haproxy/master.sock,mode,660,group,pointsman\"\nwhere EXTRAOPTS is set already, in /etc/default/haproxy or another drop-in, add `-S ...` there: only one of them counts\nin lb-agent.toml:\n  [haproxy]\n  master = \"/run/haproxy/master.sock\"";

/// The line of the agent's own socket.
fn socket_line(seen: &Seen) -> String {
    format!(
        "stats socket {} user root group pointsman mode 660 level admin expose-fd listeners",
        socket_path(seen)
    )
}

fn socket_path(seen: &Seen) -> String {
    seen.wanted.socket.0.in_haproxy()
}

/// Every `stats socket` line of the files.
fn written_sockets(seen: &Seen) -> Vec<&Line> {
    let lines = seen.written.as_ref().map(|written| written.config.global(&["stats", "socket"]));
    lines.into_iter().flatten().collect()
}

/// Where a socket stands in the files, as the beginning of what to do.
fn at(seen: &Seen, address: &str) -> String {
    let path = bare(address);
    let line = written_sockets(seen).into_iter().find(|line| bare(line.word(2)) == path);
    line.map_or_else(|| "in `global`".to_owned(), |line| format!("at {}", line.place))
}

/// An address without its kind: `unix@/run/x` and `/run/x` are one.
fn bare(address: &str) -> &str {
    match address.split_once('@') {
        Some(("unix" | "ipv4" | "ipv6", path)) => path,
        _ => address,
    }
}

/// That the agent's socket stands nowhere in HAProxy's configuration, where that is certain.
fn not_written(seen: &Seen) -> Option<Said> {
    let config = &seen.written.as_ref().ok()?.config;
    // Another HAProxy's files, or none, say nothing.
    config.sections(&["frontend", "listen"]).next()?;
    let (path, Endpoint::Unix(_)) = (socket_path(seen), &seen.wanted.socket.0) else { return None };
    let may_be = |line: &&Line| bare(line.word(2)) == bare(&path) || line.word(2).contains('$');
    if written_sockets(seen).iter().any(may_be) {
        return None;
    }
    let what = format!("HAProxy's configuration has no `stats socket {path}`, and nothing answers there");
    Some(Said::fail(what, add_to_global(config, &socket_line(seen))))
}

pub(super) fn level(seen: &Seen) -> Result<Said, &Problem> {
    let level = match (&seen.level, not_written(seen)) {
        (Err(_), Some(said)) => return Ok(said),
        (level, _) => level.as_ref()?,
    };
    if level == "admin" {
        return Ok(Said::ok(format!("`{}` is level admin", socket_path(seen))));
    }
    Ok(Said::fail(
        format!("`{}` is level {level}", socket_path(seen)),
        format!("{}:\n  {}", at(seen, &socket_path(seen)), socket_line(seen)),
    ))
}

pub(super) fn mode(seen: &Seen) -> Result<Said, &Problem> {
    let path = socket_path(seen);
    let own =
        mode_of(seen, &path, &seen.socket_file, &|| format!("{}:\n  {}", at(seen, &path), socket_line(seen)));
    let own = match not_written(seen).filter(|_| own.verdict == Verdict::Unknown) {
        Some(_) => Said { fix: "add its line first: see `socket-level`".to_owned(), ..own },
        None => own,
    };
    // Through the master whoever may connect does with every worker, and with HAProxy, what they like.
    let master = seen.wanted.master.as_ref().zip(seen.master_file.as_ref());
    let master = master
        .map(|(path, file)| mode_of(seen, &path.0.0.display().to_string(), file, &|| MASTER.to_owned()));
    Ok(match master {
        Some(master) if master.verdict > own.verdict => master,
        Some(master) if own.verdict == Verdict::Ok => Said::ok(format!("{}; {}", own.what, master.what)),
        _ => own,
    })
}

fn mode_of(seen: &Seen, path: &str, file: &Result<Owner, String>, change: &dyn Fn() -> String) -> Said {
    let owner = match file {
        Ok(owner) => owner,
        Err(why) => return Said::unknown(format!("the socket cannot be looked at: {why}"), ""),
    };
    let (uid, gid) = seen.own;
    let mode = owner.mode & 0o777;
    // To connect is to write.
    if mode & 0o002 != 0 {
        return Said::fail(format!("everybody on this host may use `{path}`: mode {mode:o}"), change());
    }
    if mode & 0o020 != 0 && owner.gid != gid {
        let what = format!(
            "`{path}` is open to group {}, which is not the agent's ({gid}): mode {mode:o}",
            owner.gid
        );
        return Said::warn(what, change());
    }
    if owner.uid != 0 && owner.uid != uid && mode & 0o200 != 0 {
        let what =
            format!("`{path}` belongs to user {}, which is neither root nor the agent ({uid})", owner.uid);
        return Said::warn(what, change());
    }
    Said::ok(format!("`{path}` is mode {mode:o}, for the agent and root"))
}

pub(super) fn others(seen: &Seen) -> Result<Said, &Problem> {
    let canonical = |path: &str| std::path::Path::new(path).canonicalize().ok();
    let own = socket_path(seen);
    let is_own = |socket: &CliSocket| {
        let path = bare(&socket.address);
        path == bare(&own)
            || (path.starts_with('/') && canonical(path).is_some_and(|path| Some(path) == canonical(&own)))
    };
    // The master reaches its workers through a pair of sockets that nobody else has.
    let others = seen.sockets.as_ref()?.iter().filter(|s| !s.address.starts_with("sockpair@") && !is_own(s));
    let others: Vec<&CliSocket> = others.collect();
    if others.is_empty() {
        return Ok(Said::ok("no other stats socket"));
    }
    let names =
        super::listed(others.iter().map(|socket| format!("{} level {}", socket.address, socket.level)));
    let places = others.iter().map(|socket| {
        format!("remove {}:\n  stats socket {} ...", at(seen, &socket.address), bare(&socket.address))
    });
    let fix = places.collect::<Vec<_>>().join("\n");
    let on_network = others
        .iter()
        .any(|socket| !["unix@", "abns@", "abnsz@", "/"].iter().any(|kind| socket.address.starts_with(kind)));
    Ok(if on_network {
        Said::fail(format!("there are other stats sockets, also on the network: {names}"), fix)
    } else {
        Said::warn(format!("there are other stats sockets: {names}"), fix)
    })
}

/// So many leave room: the agent has up to six under way, and exporters, scripts and people keep some open.
const ENOUGH_CLIENTS: u64 = 50;

/// Whether other clients of HAProxy's command sockets, which share their places, can keep the agent out.
pub(super) fn clients(_: &Seen, written: &Written) -> Said {
    let line = written.config.global(&["stats", "maxconn"]).last();
    let most = line.and_then(|line| line.word(2).parse().ok()).unwrap_or(CLIENTS);
    if most >= ENOUGH_CLIENTS {
        return Said::ok(format!("up to {most} clients"));
    }
    let what = format!("HAProxy's stats sockets take {most} clients at a time");
    const LINE: &str = "stats maxconn 100";
    match line {
        Some(line) => Said::warn(format!("{}: {what}", line.place), format!("at {}:\n  {LINE}", line.place)),
        None => Said::warn(what, add_to_global(&written.config, LINE)),
    }
}

pub(super) fn master(seen: &Seen) -> Result<Said, &Problem> {
    Ok(match (&seen.processes, &seen.wanted.master) {
        (Some(Ok(processes)), _) => match processes.old_workers.len() {
            0 => Said::ok("the master answers"),
            1 => Said::ok("the master answers, 1 old worker still serves"),
            count => Said::ok(format!("the master answers, {count} old workers still serve")),
        },
        (Some(Err(problem)), Some(path)) => {
            let cause = problem.causes.first().map_or_else(String::new, |cause| format!(": {cause}"));
            Said::fail(format!("the master socket `{}` does not answer{cause}", path.0.0.display()), MASTER)
        }
        _ => Said::warn("no master socket in lb-agent.toml: old workers cannot be told", MASTER),
    })
}
