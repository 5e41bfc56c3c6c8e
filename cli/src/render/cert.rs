//! Certificates of the site.

use pointsman_chassis::site_certificate::{CertifiedName, LeafFacts};
use pointsman_proto::v1;

use super::{or, problem_line, span, time};

fn moment(seconds: i64) -> String {
    time(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000))
}

/// A certificate that is about to be deployed, and the names of the one before that it may lack.
pub fn certificate(facts: &LeafFacts, drop: &[CertifiedName]) -> String {
    let names: Vec<&str> = facts.names.iter().map(String::as_str).collect();
    let dropped: Vec<&str> = drop.iter().map(CertifiedName::as_str).collect();
    let dropped = if drop.is_empty() { String::new() } else { format!("\ndrops   {}", dropped.join(", ")) };
    format!(
        "names   {}{dropped}\nserial  {}\nvalid   {} to {}",
        names.join(", "),
        facts.serial,
        moment(facts.not_before),
        moment(facts.not_after)
    )
}

/// What each load balancer said.
pub fn certificate_deployed(deployed: &v1::DeployCertificateReply) -> String {
    let line = |found: &v1::CertificateDeployed| {
        let already = if found.already { "already " } else { "" };
        format!("✔ done   {:<12} {already}{}\n", found.host, found.detail)
    };
    deployed.balancers.iter().map(line).collect()
}

/// The certificates of every load balancer.
pub fn certificates(status: &v1::StatusReply) -> String {
    let mut text = String::new();
    for agent in status.agents.iter().filter(|agent| agent.role == "lb-agent") {
        if let Some(problem) = &agent.problem {
            text.push_str(&format!(
                "{:<12} unknown: {}\n{:<12} hint: {}\n",
                agent.host,
                problem_line(problem),
                "",
                problem.hint
            ));
        }
        let all =
            agent.balancer.as_ref().map(|balancer| balancer.certificates.as_slice()).unwrap_or_default();
        if agent.problem.is_none() && all.is_empty() {
            text.push_str(&format!("{:<12} may renew no certificate\n", agent.host));
        }
        all.iter().for_each(|found| text.push_str(&lines(&agent.host, found, status.now_ms)));
    }
    text
}

fn lines(host: &str, found: &v1::CertificateFacts, now_ms: u64) -> String {
    let mut text = format!("{host:<12} {}\n", found.path);
    let mut line = |words: String| text.push_str(&format!("{:<12}   {words}\n", ""));
    if found.not_after > 0 {
        line(format!("names   {}", or(&found.names.join(", "), "none")));
        line(format!("serial  {}", found.serial));
        line(format!(
            "valid   {} to {}, {}",
            moment(found.not_before),
            moment(found.not_after),
            left(found, now_ms)
        ));
    }
    if !found.watched.is_empty() {
        line(format!("renewed from {}", found.watched));
    }
    if let Some(problem) = &found.problem {
        line(format!("✖ {}", problem_line(problem)));
        line(format!("  hint: {}", problem.hint));
    } else if !found.served {
        line("✖ HAProxy serves another: a reload would bring this one".to_owned());
    }
    text
}

fn left(found: &v1::CertificateFacts, now_ms: u64) -> String {
    let end_ms = u64::try_from(found.not_after).unwrap_or(0).saturating_mul(1000);
    match end_ms.checked_sub(now_ms).filter(|left_ms| *left_ms > 0) {
        Some(left_ms) if left_ms > 2 * DAY_MS => format!("for {} days more", left_ms / DAY_MS),
        Some(left_ms) => format!("✖ for {} more", span(left_ms)),
        None => "✖ ended".to_owned(),
    }
}

const DAY_MS: u64 = 86_400_000;
