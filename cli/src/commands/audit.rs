//! `audit verify`: whether the journal can be trusted.

use pointsman_core::{EnvironmentName, Problem};
use pointsman_proto::{convert, v1};

use crate::client::Session;
use crate::exit::Exit;
use crate::out::Out;
use crate::render;

/// Verifies the journal, and asks the agents of an environment what they have acted on.
pub async fn verify(session: &Session, environment: &EnvironmentName, out: &Out) -> Result<Exit, Problem> {
    let caller = session.caller(environment)?;
    let request = v1::VerifyJournalRequest { environment: environment.to_string() };
    let verified = caller.answer(caller.client.clone().verify_journal(request)).await?;
    let exit = trust(&verified);
    if out.json() {
        out.document(render::json::audit(environment, &verified, exit));
    } else {
        out.result(&render::audit(environment, &verified));
    }
    Ok(exit)
}

/// 0 only when everything was looked at and is well.
fn trust(verified: &v1::VerifyJournalReply) -> Exit {
    let bad = verified.findings.iter().find(|finding| finding.verdict == "fail");
    if let Some(finding) = bad {
        let problem = finding.problem.clone().and_then(convert::problem_from_wire);
        return problem.map_or(Exit::Held, |problem| Exit::of_problem(&problem));
    }
    if verified.findings.iter().all(|finding| finding.verdict == "ok") { Exit::Done } else { Exit::Refused }
}

/// Goes on with a journal that is older than what the agents know.
pub async fn accept(
    session: &Session,
    environment: &EnvironmentName,
    confirm: &EnvironmentName,
    out: &Out,
) -> Result<Exit, Problem> {
    let caller = session.caller(environment)?;
    let request =
        v1::AcceptJournalRequest { environment: environment.to_string(), confirm: confirm.to_string() };
    let accepted = caller.answer(caller.client.clone().accept_journal(request)).await?;
    if out.json() {
        out.document(serde_json::json!({
            "kind": "journal-accepted", "environment": environment.as_str(), "hosts": accepted.hosts, "exit_code": Exit::Done.code(),
        }));
    } else {
        out.result(&format!(
            "accepted: {} have forgotten what the journal does not know\n",
            accepted.hosts.join(", ")
        ));
        out.say(&format!(
            "the journal does not know of releases made since: look at `pointsman status {environment}`"
        ));
    }
    Ok(Exit::Done)
}
