//! How long pointsman's own certificates last, where that is not for long.

use pointsman_core::lasting::{self, Lasting};
use pointsman_proto::v1;

/// Whose certificate it is, and how many seconds it lasts.
type Left<'a> = (&'a str, i64);

/// The lines of `status` about certificates that end soon; empty where none does. What an older coordinator or agent does
/// not tell of is not in them.
pub fn certificates(status: &v1::StatusReply) -> String {
    let mut text = String::new();
    for (name, left_s) in told(status) {
        let sign = match Lasting::of(left_s) {
            Lasting::Long => continue,
            Lasting::Soon => "॥",
            Lasting::Critical | Lasting::Ended => "✖",
        };
        let from = if left_s > 0 { "from then on" } else { "since then" };
        text.push_str(&format!(
            "certificate {name:<12} {sign} {}: {from} new connections with it are refused\n            {}\n",
            lasting::ends(left_s),
            lasting::renewal(name)
        ));
    }
    text
}

/// Whether one of them is an alarm.
pub fn alarm(status: &v1::StatusReply) -> bool {
    told(status).any(|(_, left_s)| Lasting::of(left_s) >= Lasting::Critical)
}

fn told(status: &v1::StatusReply) -> impl Iterator<Item = Left<'_>> {
    let now_s = i64::try_from(status.now_ms / 1_000).unwrap_or(i64::MAX);
    let coordinator = (status.coordinator.as_str(), status.certificate_ends_s);
    let agents = status.agents.iter().map(|agent| (agent.host.as_str(), agent.certificate_ends_s));
    let all = std::iter::once(coordinator).chain(agents).filter(|(_, end_s)| *end_s > 0);
    all.map(move |(name, end_s)| (name, end_s.saturating_sub(now_s)))
}

/// What `doctor` finds of the certificate that it is called with, where that does not last for long.
pub fn own(name: &str, left_s: i64) -> Option<v1::Finding> {
    let verdict = match Lasting::of(left_s) {
        Lasting::Long => return None,
        Lasting::Soon => "warn",
        Lasting::Critical | Lasting::Ended => "fail",
    };
    Some(v1::Finding {
        subject: name.to_owned(),
        verdict: verdict.to_owned(),
        what: format!("your own certificate {}", lasting::ends(left_s)),
        fix: lasting::renewal(name),
        ..Default::default()
    })
}
