//! What a reload does to visitors.

use super::seen::{Seen, Written};
use super::{Said, add_to, add_to_global, frontend, listed};
use crate::haproxy_cfg::{Setting, time_us};

pub(super) fn idle_close(seen: &Seen, written: &Written) -> Said {
    const OPTION: &str = "idle-close-on-response";
    let config = &written.config;
    let fronts = frontend::routing_or_all(seen, config);
    let lacking = fronts.iter().find_map(|section| match config.option(section, OPTION) {
        Setting::On(_) => None,
        Setting::Off(place) => Some((*section, format!("switched off at {place}"))),
        Setting::Absent => Some((*section, "not in effect".to_owned())),
    });
    match lacking {
        None if fronts.is_empty() => Said::ok("there is no frontend that would need it"),
        None => Said::ok(format!("in effect for {}", listed(fronts.iter().map(|section| section.title())))),
        Some((section, how)) => {
            let home = if how.starts_with("not") { config.home_of(section) } else { section };
            Said::fail(
                format!("`option {OPTION}` is {how} for `{}` ({})", section.title(), section.place),
                add_to(home, &format!("option {OPTION}")),
            )
        }
    }
}

pub(super) fn close_spread(_: &Seen, written: &Written) -> Said {
    match written.config.global(&["close-spread-time"]).last() {
        None => Said::ok("not set"),
        Some(line) => Said::fail(
            format!("{}: `close-spread-time {}`", line.place, line.word(1)),
            format!("remove at {}:\n  close-spread-time {}", line.place, line.word(1)),
        ),
    }
}

pub(super) fn hard_stop(seen: &Seen, written: &Written) -> Said {
    let config = &written.config;
    // The time that an idle client may take: one that HAProxy waits for longest, over all frontends that route.
    let idle = frontend::routing_or_all(seen, config).into_iter().filter_map(|section| {
        let timeout = |name| config.in_effect(section, &["timeout", name]);
        // As HAProxy does: without the one, the next.
        let line =
            timeout("http-keep-alive").or_else(|| timeout("http-request")).or_else(|| timeout("client"))?;
        Some((time_us(line.word(2))?, line))
    });
    let idle = idle.max_by_key(|(us, _)| *us);
    let needed_s = idle.as_ref().map_or(30, |(us, _)| us.div_ceil(1_000_000)).max(30).saturating_mul(2);
    let Some(line) = config.global(&["hard-stop-after"]).last() else {
        return Said::warn(
            "`hard-stop-after` is not set",
            add_to_global(config, &format!("hard-stop-after {needed_s}s")),
        );
    };
    let Some(stop) = time_us(line.word(1)) else {
        return Said::unknown(format!("{}: `{}` is no length of time", line.place, line.word(1)), "");
    };
    match idle {
        Some((idle_us, idle)) if stop <= idle_us => Said::fail(
            format!(
                "{}: `hard-stop-after {}` is not longer than `timeout {} {}` ({})",
                line.place,
                line.word(1),
                idle.word(1),
                idle.word(2),
                idle.place
            ),
            format!("at {}:\n  hard-stop-after {needed_s}s", line.place),
        ),
        _ => Said::ok(format!("{} after a reload", line.word(1))),
    }
}
