//! Tables of rate limits.

use std::net::IpAddr;

use pointsman_proto::v1;

use super::span;

/// Who is counted, one a line; then the tables of which that is not known.
pub fn limits(found: &v1::RateLimitsReply) -> String {
    let unread = found.unread.iter().flat_map(|problem| {
        let why = problem.causes.iter().map(|cause| format!("\n  cause: {cause}"));
        let hint = (!problem.hint.is_empty()).then(|| format!("\n  hint: {}", problem.hint));
        std::iter::once(format!("\nnot read on {}: {} [{}]", problem.host, problem.message, problem.code))
            .chain(why)
            .chain(hint)
    });
    format!("{}{}", counted(found), unread.collect::<String>())
}

fn counted(found: &v1::RateLimitsReply) -> String {
    if found.entries.is_empty() {
        return "nobody is counted above that".to_owned();
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["balancer", "table", "address", "requests", "in", "forgotten in"]);
    for entry in &found.entries {
        table.add_row([
            entry.host.clone(),
            entry.table.clone(),
            entry.key.clone(),
            entry.rate.to_string(),
            span(entry.period_ms),
            span(entry.expires_ms),
        ]);
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n");
    let shown = found.entries.len() as u64;
    if found.found > shown {
        return format!("{lines}\n{shown} of {} are shown: ask for fewer with `--min-rate`", found.found);
    }
    lines
}

/// What is left of an address after it was forgotten.
pub fn unblocked(address: IpAddr, left: &v1::RateLimitsReply) -> String {
    match left.entries.iter().map(|entry| entry.rate).max() {
        None => format!("{address} is forgotten: it is counted from nothing again"),
        Some(rate) => format!("{address} is forgotten, and counted anew: {rate} requests since"),
    }
}
