//! What a person can do about a release that is held on its way back. There is nothing to stop: it can only go on, and what that
//! takes depends on why it is held.

use pointsman_core::Code;
use pointsman_proto::v1;

use super::{left_out, or};

/// What to type, and what must be true before it helps.
pub fn way_on(release: &v1::Release, held: &v1::Problem, environment: &str) -> String {
    let resume = format!("`pointsman resume {environment}`");
    let there = if held.host.is_empty() { String::new() } else { format!(" on {}", held.host) };
    match Code::parse(&held.code) {
        Some(Code::OperatorStopped) => format!("go on: {resume}"),
        Some(code @ (Code::JournalBehind | Code::JournalCorrupt | Code::Fenced)) => format!(
            "see who knows more: `pointsman audit verify {environment}`; what then: `pointsman explain {code}`"
        ),
        // What it would lose is a person's to give up; its hint says how.
        Some(Code::LossGrown) => format!("decide by its hint; as it stands: {resume}"),
        Some(Code::BackendUnhealthy) => {
            let plan = release.plan.clone().unwrap_or_default();
            let slot = or(&plan.from_slot, "the maintenance page");
            format!("have a server of {slot} answer, then go on: {resume}")
        }
        Some(Code::AgentUnreachable | Code::AnswerLost) => {
            let offer = left_out::offer(release, environment).map(|offer| format!("; {offer}"));
            format!("bring the agent{there} back, then go on: {resume}{}", offer.unwrap_or_default())
        }
        _ => {
            let offer = left_out::offer(release, environment).map(|offer| format!("; {offer}"));
            format!("mend the cause{there}, then go on: {resume}{}", offer.unwrap_or_default())
        }
    }
}
