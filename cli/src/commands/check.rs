//! `check`: the checks of a slot, made now.

use pointsman_core::Problem;
use pointsman_proto::v1;

use crate::args::Check;
use crate::client::Session;
use crate::exit::Exit;
use crate::out::Out;
use crate::render;

/// Has the checks made, and shows one line for each.
pub async fn check(session: &Session, check: &Check, out: &Out) -> Result<Exit, Problem> {
    let caller = session.caller(&check.environment)?;
    let request = v1::MakeChecksRequest {
        environment: check.environment.to_string(),
        slot: check.slot.as_ref().map(ToString::to_string).unwrap_or_default(),
        name: check.name.as_ref().map(ToString::to_string).unwrap_or_default(),
    };
    let made = caller.answer_of_checks(out, caller.client.clone().make_checks(request)).await?;
    if out.json() {
        out.document(render::json::checks(&check.environment, &made));
    } else {
        out.result(&render::checks(&made));
    }
    let with = |verdict: &'static str| {
        move |made: &v1::CheckMade| made.seen.as_ref().is_some_and(|seen| seen.verdict == verdict)
    };
    let known = made.checks.iter().all(with("passed")) && made.silent.is_empty();
    Ok(match made.checks.iter().any(with("failed")) {
        true => Exit::RolledBack,
        // What could not be looked at is not known to be well, and nothing looked at is nothing known.
        false if !known || made.checks.is_empty() => Exit::Refused,
        false => Exit::Done,
    })
}
