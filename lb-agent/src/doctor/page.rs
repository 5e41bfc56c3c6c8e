//! The maintenance page: there, small enough for HAProxy's buffer, with a status that is no success.

use super::seen::{Seen, Written};
use super::{Said, add_to, frontend, process};
use crate::haproxy_cfg::{HaproxyConfig, Line};

/// What HAProxy keeps of a buffer for headers, in bytes; a page must fit into the rest.
const KEPT: u64 = 1_024;

/// The action that has a request wait.
const HOLD_ACTION: &str = "lua.pointsman_hold";

/// What tells the script which route to look at.
const HOLD_VARIABLE: &str = "POINTSMAN_HOLD";
/// The end of the script's path.
const HOLD_SCRIPT: &str = "pointsman-hold.lua";

/// A page that needs no file, for whoever has none yet.
pub(crate) const PLAIN_PAGE: &str =
    "string \"<!doctype html><title>Maintenance</title><h1>We are back in a few minutes</h1>\"";

/// The line of a backend that answers with a page, after which browsers try again in so many seconds.
pub(crate) fn page_line(page: &str, again_s: u32) -> String {
    format!(
        "http-request return status 503 content-type \"text/html; charset=utf-8\" {page} hdr Retry-After {again_s} \
         hdr Cache-Control no-store"
    )
}

/// The lines that hold requests.
pub(crate) struct HoldLines {
    /// Those of `global`.
    pub global: String,
    /// In the frontend, before the route is looked up.
    pub frontend: String,
}

/// The lines that hold requests while the route leads to a backend.
pub(crate) fn hold_lines(map: &str, key: &str, backend: &str) -> HoldLines {
    HoldLines {
        global: format!(
            // From 3.1 on HAProxy warns where a script is loaded and this is not chosen; the script is the same by both.
            ".if version_atleast(3.1)\n  tune.lua.bool-sample-conversion normal\n.endif\n\
             setenv POINTSMAN_HOLD \"{map} {key} {backend} 5000\"\nlua-load /etc/haproxy/pointsman-hold.lua"
        ),
        frontend: format!("http-request {HOLD_ACTION} unless trusted {{ req.hdr(X-Pointsman) -m found }}"),
    }
}

fn page_lines<'a>(config: &'a HaproxyConfig, maintenance: &str) -> Vec<&'a Line> {
    let Some(section) = config.backend(maintenance) else { return Vec::new() };
    let mut lines: Vec<&Line> = section.own(&["http-request", "return"]).collect();
    lines.extend(config.all_in_effect(section, &["errorfile", "503"]));
    lines.extend(config.all_in_effect(section, &["http-error", "status", "503"]));
    lines
}

fn file_of(line: &Line) -> Option<&str> {
    if line.word(0) == "errorfile" {
        return Some(line.word(2));
    }
    ["file", "lf-file", "errorfile"].iter().find_map(|word| line.after(word))
}

/// The files that the maintenance backend answers with.
pub(super) fn files(config: &HaproxyConfig, maintenance: &str) -> Vec<String> {
    page_lines(config, maintenance).into_iter().filter_map(file_of).map(str::to_owned).collect()
}

/// What has requests wait while databases are swapped, where that is wanted.
pub(super) fn hold(seen: &Seen, written: &Written) -> Said {
    let (config, wanted) = (&written.config, &seen.wanted);
    let Some(hold) = wanted.hold_backend.as_ref().map(|hold| &hold.0) else {
        return Said::ok("requests are not held: `hold_backend` is not set in lb-agent.toml");
    };
    let load = hold_lines(wanted.map_name().as_str(), &wanted.key, hold.as_str());
    let words = format!("{} {} {hold} ", wanted.map_name(), wanted.key);
    let told = config.global(&["setenv", HOLD_VARIABLE]).any(|line| line.word(2).starts_with(&words));
    let loaded = config.global(&["lua-load"]).any(|line| line.word(1).ends_with(HOLD_SCRIPT));
    if !told || !loaded {
        return Said::fail(
            format!("nothing is loaded that holds requests for `{hold}`: they would get its page at once"),
            format!(
                "add to `global`:\n{}\nand to the frontend, before the route is looked up:\n{}",
                super::indented(&load.global),
                super::indented(&load.frontend)
            ),
        );
    }
    for section in frontend::routing(seen, config) {
        let asks = config.rules(section).iter().any(|(_, line)| line.begins(&["http-request", HOLD_ACTION]));
        if !asks {
            let what = format!("`{}` ({}) holds no requests", section.title(), section.place);
            return Said::fail(what, add_to(section, &load.frontend));
        }
    }
    Said::ok(format!("requests wait while the route leads to `{hold}`"))
}

pub(super) fn page(seen: &Seen, written: &Written) -> Said {
    let line = page_line(PLAIN_PAGE, 120);
    let (config, name) = (&written.config, seen.wanted.maintenance_backend.0.as_str());
    let Some(section) = config.backend(name) else {
        return Said::fail(
            format!("no `backend {name}` in HAProxy's configuration"),
            format!("add:\nbackend {name}\n  mode http\n  {line}"),
        );
    };
    let lines = page_lines(config, name);
    let Some(first) = lines.first() else {
        let servers = section.own(&["server"]).next().is_some();
        return if servers {
            Said::ok(format!("`{name}` has servers of its own"))
        } else {
            Said::warn(
                format!(
                    "`{}` ({}) has no page: visitors get HAProxy's bare 503",
                    section.title(),
                    section.place
                ),
                add_to(section, &line),
            )
        };
    };
    if let Some(status) =
        first.after("status").filter(|status| *status != "503" && first.word(0) == "http-request")
    {
        let what = format!(
            "{}: the page comes with status {status}: search engines and caches keep it",
            first.place
        );
        return Said::warn(what, format!("at {}:\n  {line}", first.place));
    }
    let (_, buffer) = process::buffer(config);
    let most = buffer.saturating_sub(KEPT);
    for line in &lines {
        let Some(path) = file_of(line) else { continue };
        match written.pages.get(path) {
            Some(Ok(bytes)) if *bytes > most => {
                return Said::fail(
                    format!("{}: `{path}` is {bytes} bytes long, more than {most}", line.place),
                    format!("make it smaller: images and styles within a page count\n  wc -c {path}"),
                );
            }
            Some(Ok(_)) => {}
            Some(Err(why)) => {
                return Said::unknown(
                    format!("{}: `{path}` cannot be looked at: {why}", line.place),
                    format!("on the load balancer:\n  chmod a+r {path} && chmod a+x $(dirname {path})"),
                );
            }
            None => return Said::unknown(format!("{}: `{path}` was not looked at", line.place), ""),
        }
    }
    Said::ok(format!("{} answers with it", first.place))
}
