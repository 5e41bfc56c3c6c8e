//! HAProxy as a program: its version, what it has loaded, what it could not load.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use pointsman_core::Problem;

use super::seen::{Seen, Written};
use super::{Said, add_to_global, listed};
use crate::certificates::runtime::{DEFAULT_BUFFER_BYTES, Runtime};
use crate::haproxy_cfg::{HaproxyConfig, Line};
use crate::loaded::{self, USUAL_CONFIG};

/// Versions that are known, both included.
const OLDEST: (u32, u32) = (2, 4);
const NEWEST: (u32, u32) = (3, 2);

/// How much younger than its worker a file may seem: HAProxy counts its uptime in whole seconds, and reads its files
/// before the worker starts.
const SLACK: Duration = Duration::from_secs(2);

/// Descriptors beside those of connections: listeners, checks, sockets.
const OTHER_FILES: u64 = 40;

fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(['.', '-', '+']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

pub(super) fn version(seen: &Seen) -> Result<Said, &Problem> {
    let version = &seen.info.as_ref()?.version;
    Ok(match major_minor(version) {
        None => Said::unknown(format!("HAProxy says it is `{version}`, which is no version"), ""),
        Some(found) if found < OLDEST => {
            Said::fail(format!("HAProxy {version} is older than 2.4"), "install HAProxy 2.6 or newer")
        }
        Some(found) if found > NEWEST => Said::warn(
            format!("HAProxy {version} is newer than 3.2: a reload may turn a release back that is watched"),
            "try a switch and a reload in an environment without visitors first",
        ),
        Some(_) => Said::ok(format!("HAProxy {version}")),
    })
}

pub(super) fn config_readable(seen: &Seen) -> Result<Said, &Problem> {
    let files = &seen.written.as_ref()?.files;
    if seen.written.as_ref()?.config.sections(&["frontend", "listen"]).next().is_none() {
        let what = format!("no frontend stands in {}", listed(files.iter().map(|file| file.display())));
        return Ok(Said::unknown(
            what,
            "name HAProxy's configuration in lb-agent.toml:\n  [haproxy]\n  config = [\"/etc/haproxy/haproxy.cfg\"]",
        ));
    }
    Ok(Said::ok(format!("read {}", listed(files.iter().map(|file| file.display())))))
}

pub(super) fn config_loaded(seen: &Seen, written: &Written) -> Said {
    let named = !seen.wanted.config.is_empty();
    if let Some(loaded) = seen.loaded.as_ref().filter(|loaded| named && !same_files(loaded, &written.files)) {
        let (loaded, read) =
            (loaded.iter().map(|path| path.display()), written.files.iter().map(|path| path.display()));
        return Said::warn(
            format!("HAProxy has loaded {}, the findings are about {}", listed(loaded), listed(read)),
            "take `config` out of lb-agent.toml: HAProxy is then asked which files it has loaded",
        );
    }
    let load = load_again(seen);
    if !written.gone.is_empty() {
        return Said::warn(
            format!(
                "HAProxy runs by what stood in {}, not there any more",
                listed(written.gone.iter().map(|path| path.display()))
            ),
            format!("put back what was taken away by mistake; else, {load}"),
        );
    }
    if !written.new.is_empty() {
        let new = listed(written.new.iter().map(|path| path.display()));
        return Said::warn(format!("HAProxy has not loaded {new}, and will with the next reload"), load);
    }
    let (Ok(info), Some(changed)) = (&seen.info, written.changed) else {
        return Said::unknown("whether HAProxy runs what stands in its files cannot be seen", "");
    };
    let running = Duration::from_secs(info.uptime_s);
    if changed.saturating_add(SLACK) >= running {
        return Said::ok("loaded since its last change");
    }
    Said::warn(
        format!(
            "changed {} s ago, HAProxy runs what it loaded {} s ago",
            changed.as_secs(),
            running.as_secs()
        ),
        "on the load balancer:\n  systemctl reload haproxy",
    )
}

/// Whether two lists name the same files in the same order, by whatever paths.
fn same_files(some: &[PathBuf], others: &[PathBuf]) -> bool {
    let real = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
    some.iter().map(real).eq(others.iter().map(real))
}

pub(super) fn failed_reloads(seen: &Seen) -> Result<Said, &Problem> {
    let Some(processes) = &seen.processes else {
        return Ok(Said::ok("not known without a master socket: see `master-socket`"));
    };
    Ok(match processes.as_ref()?.failed_reloads {
        0 => Said::ok("the last reload went well"),
        1 => Said::fail("the last reload failed", load_again(seen)),
        times => Said::fail(format!("the last {times} reloads failed"), load_again(seen)),
    })
}

/// How a person sees what is wrong with the files that HAProxy reads, and loads them.
fn load_again(seen: &Seen) -> String {
    let files = seen.loaded.as_deref().or_else(|| Some(&seen.written.as_ref().ok()?.files));
    let named = arguments(files.unwrap_or_default());
    let named = if named.is_empty() { format!(" -f {USUAL_CONFIG}") } else { named };
    format!("on the load balancer:\n  haproxy -c{named} && systemctl reload haproxy")
}

/// The options that have HAProxy read these files. Of a folder one counts too that is new.
fn arguments(files: &[PathBuf]) -> String {
    let mut named = String::new();
    for together in loaded::by_folder(files) {
        let folder = together.first().and_then(|file| file.parent());
        match folder.filter(|_| loaded::are_a_folder(together)) {
            Some(folder) => {
                let _ = write!(named, " -f {}", folder.display());
            }
            None => together.iter().for_each(|file| {
                let _ = write!(named, " -f {}", file.display());
            }),
        }
    }
    named
}

pub(super) fn maxconn(seen: &Seen, written: &Written) -> Said {
    let line = written.config.global(&["maxconn"]).last();
    let Some((line, wanted)) = line.and_then(|line| Some((line, line.word(1).parse::<u64>().ok()?))) else {
        return Said::ok("left to HAProxy");
    };
    let Ok(limits) = &seen.limits else {
        return Said::unknown("the file limit of HAProxy cannot be seen", "");
    };
    let needed = wanted.saturating_mul(2).saturating_add(OTHER_FILES);
    // What runs already has what it needs, be it just so.
    if limits.connections == wanted || needed <= limits.files {
        return Said::ok(format!("{wanted} connections, {} files", limits.files));
    }
    let fits = limits.files.saturating_sub(OTHER_FILES) / 2;
    Said::warn(
        format!("{}: `maxconn {wanted}` needs {needed} files, HAProxy may open {}", line.place, limits.files),
        format!(
            "in a drop-in of haproxy.service:\n  [Service]\n  LimitNOFILE={needed}\nor at {}:\n  maxconn {fits}",
            line.place
        ),
    )
}

/// What a buffer holds where the configuration does not say, in bytes.
pub(super) const BUFFER_BYTES: u64 = 16_384;

/// The line that sets how much a buffer holds, and how much that is.
pub(super) fn buffer(config: &HaproxyConfig) -> (Option<&Line>, u64) {
    let line = config.global(&["tune.bufsize"]).last();
    (line, line.and_then(|line| size(line.word(1))).unwrap_or(BUFFER_BYTES))
}

/// A size as HAProxy writes it: bytes, or from 2.9 on kilobytes and more with a letter after them.
fn size(text: &str) -> Option<u64> {
    let shift = match text.chars().last()?.to_ascii_lowercase() {
        'k' => 10,
        'm' => 20,
        _ => return text.parse().ok(),
    };
    text.get(..text.len().checked_sub(1)?)?.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// What an authority has said of a certificate is shown with that very one alone.
pub(super) fn responses(seen: &Seen) -> Result<Said, &Problem> {
    let foreign = &seen.foreign_responses;
    if foreign.is_empty() {
        return Ok(Said::ok("no OCSP response of another certificate stands beside one that may be renewed"));
    }
    let are = if foreign.len() == 1 {
        "is of another certificate than the one"
    } else {
        "are of other certificates than those"
    };
    Ok(Said::warn(
        format!("{} {are} in place", super::listed(foreign)),
        format!(
            "have the authority's response for the renewed one written there, as by a hook of the renewal, or remove it; then:\n  systemctl reload haproxy\n{}",
            foreign.iter().map(|path| format!("  # {path}")).collect::<Vec<_>>().join("\n")
        ),
    ))
}

pub(super) fn bufsize(seen: &Seen, written: &Written) -> Said {
    if seen.certificates.is_empty() {
        return Said::ok("no certificate is renewed through it: no `certificates` in lb-agent.toml");
    }
    let (line, bytes) = buffer(&written.config);
    let more = |bytes: usize| match line {
        Some(line) => format!("at {}:\n  tune.bufsize {bytes}", line.place),
        None => add_to_global(&written.config, &format!("tune.bufsize {bytes}")),
    };
    let whole = usize::try_from(bytes).unwrap_or(usize::MAX);
    for (path, length) in &seen.certificates {
        let Ok(length) = length else { continue };
        let room = Runtime::room(path, Some(whole));
        let length = usize::try_from(*length).unwrap_or(usize::MAX);
        if length <= room {
            continue;
        }
        let what = format!(
            "`{}` is {length} bytes long with its chain and key, and {room} go through a buffer",
            path.as_str()
        );
        let fix = format!(
            "{}\nor leave certificates out of its chain that visitors have already, as the root",
            more(Runtime::buffer_for(path, length))
        );
        return Said::fail(what, fix);
    }
    match line.filter(|_| bytes < BUFFER_BYTES) {
        Some(line) => Said::warn(
            format!(
                "{}: `tune.bufsize {}` is below its default: a longer certificate than those in place may not fit",
                line.place,
                line.word(1)
            ),
            more(DEFAULT_BUFFER_BYTES),
        ),
        None => Said::ok(format!("buffers of {bytes} bytes")),
    }
}
