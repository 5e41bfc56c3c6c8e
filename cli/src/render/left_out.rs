//! Hosts that are gone for good: who was left out of a release's way back, what to do when it is back, and who could be.

use pointsman_proto::v1;

/// What is typed to lead a held release back without these hosts, as far as its record tells that this could be accepted. A
/// look at them decides.
pub fn offer(release: &v1::Release, environment: &str) -> Option<String> {
    let hosts = release.may_leave_out.as_slice();
    let named: Vec<String> = hosts.iter().map(|host| format!("--without {host}")).collect();
    let (are, all) = (if hosts.len() == 1 { "is" } else { "are" }, hosts.join(", "));
    (!hosts.is_empty()).then(|| {
        format!(
            "if {all} {are} gone for good: `pointsman resume {environment} {} --reason TEXT`",
            named.join(" ")
        )
    })
}

/// Who was left out, by whom and why, for the screen of a release.
pub fn block(release: &v1::Release) -> String {
    let line = |out: &v1::LeftOut| {
        let (host, by, at) = (&out.host, &out.by, super::time(out.at_ms));
        format!(
            "left out    {host} by {by} at {at}: {}\n            when it is back: {}\n",
            out.reason,
            then(release, host)
        )
    };
    release.left_out.iter().map(line).collect()
}

/// The same where a release has ended.
pub fn ended(release: &v1::Release) -> String {
    let line = |out: &v1::LeftOut| {
        format!(
            "\n  without {}, left out by {}: {}\n  when it is back: {}",
            out.host,
            out.by,
            out.reason,
            then(release, &out.host)
        )
    };
    release.left_out.iter().map(line).collect()
}

/// The hosts that were left out, for a sentence; none where nobody was.
pub fn hosts(release: &v1::Release) -> Option<String> {
    let hosts: Vec<&str> = release.left_out.iter().map(|out| out.host.as_str()).collect();
    (!hosts.is_empty()).then(|| hosts.join(", "))
}

/// What to do about a host that was left out when it is back.
fn then(release: &v1::Release, host: &String) -> String {
    let plan = release.plan.clone().unwrap_or_default();
    let environment = &plan.environment;
    if plan.balancers.contains(host) {
        return format!(
            "it leads visitors as before; bring it to the route of the others: `pointsman explain PM0109`; until then releases \
             of {environment} are refused"
        );
    }
    if plan.purpose == "deploy" && plan.to_hosts.contains(host) {
        let slot = &plan.to_slot;
        return format!(
            "what it holds is not known, so no rollback leads to {slot}; the next deploy of {environment} fills {slot} anew"
        );
    }
    if plan.purpose.starts_with("maintenance") {
        return format!("its maintenance file is as it was: `pointsman doctor {environment}`");
    }
    format!("files that {} brought are still there, and harm nobody", plan.release)
}
