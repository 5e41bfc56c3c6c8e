//! `rollback`, `abort`, `pause`, `resume` and `promote`: what is asked of a running release, or instead of one.

use pointsman_core::Problem;
use pointsman_proto::v1;

use super::{Asked, wait_for};
use crate::args::{Ask, Resume, Rollback};
use crate::client::Session;
use crate::exit::Exit;
use crate::out::Out;

fn request(ask: &Ask) -> v1::AskRequest {
    v1::AskRequest {
        environment: ask.environment.to_string(),
        release: ask.release.as_ref().map(ToString::to_string).unwrap_or_default(),
        reason: ask.reason.clone().unwrap_or_default(),
        request_id: ask.request_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        without: Vec::new(),
    }
}

/// Moves visitors back.
pub async fn rollback(session: &Session, rollback: &Rollback, out: &Out) -> Result<Exit, Problem> {
    let ask = &rollback.ask;
    let caller = session.caller(&ask.environment)?;
    let without = rollback.without.iter().map(ToString::to_string).collect();
    let asked = v1::AskRequest { without, ..request(ask) };
    let answered = caller.answer(caller.client.clone().rollback(asked)).await?;
    wait_for(session, &ask.environment, answered.release, &ask.waiting, Asked::Back, out).await
}

/// Stops a release before it moves visitors.
pub async fn abort(session: &Session, ask: &Ask, out: &Out) -> Result<Exit, Problem> {
    let caller = session.caller(&ask.environment)?;
    let answered = caller.answer(caller.client.clone().abort(request(ask))).await?;
    if answered.release.is_empty() {
        let text = match &ask.release {
            Some(release) => {
                format!("release `{release}` of `{}` is not running: nothing to abort", ask.environment)
            }
            None => format!("no release of `{}` is running: nothing to abort", ask.environment),
        };
        if out.json() {
            out.document(serde_json::json!({
                "kind": "nothing-to-abort", "environment": ask.environment.as_str(), "exit_code": Exit::Done.code(),
            }));
        } else {
            out.result(&text);
        }
        return Ok(Exit::Done);
    }
    if answered.already {
        out.say(&format!("release {} is being aborted already", answered.release));
    }
    wait_for(session, &ask.environment, answered.release, &ask.waiting, Asked::Stop, out).await
}

/// Holds a release where it stands.
pub async fn pause(session: &Session, ask: &Ask, out: &Out) -> Result<Exit, Problem> {
    let caller = session.caller(&ask.environment)?;
    let answered = caller.answer(caller.client.clone().pause(request(ask))).await?;
    wait_for(session, &ask.environment, answered.release, &ask.waiting, Asked::Hold, out).await
}

/// Ends the watch of a release as soon as its gates are green.
pub async fn promote(session: &Session, ask: &Ask, out: &Out) -> Result<Exit, Problem> {
    let caller = session.caller(&ask.environment)?;
    let answered = caller.answer(caller.client.clone().promote(request(ask))).await?;
    wait_for(session, &ask.environment, answered.release, &ask.waiting, Asked::Forward, out).await
}

/// Lets a held release go on.
pub async fn resume(session: &Session, resume: &Resume, out: &Out) -> Result<Exit, Problem> {
    let environment = &resume.ask.environment;
    let without: Vec<String> = resume.without.iter().map(ToString::to_string).collect();
    let question = match without.as_slice() {
        [] => format!("let the held release of {environment} go on?"),
        out => format!(
            "{} stays as it is; let the held release of {environment} go back without it?",
            out.join(", ")
        ),
    };
    if !out.confirm(&question, resume.yes)? {
        return Ok(super::declined(out));
    }
    let caller = session.caller(environment)?;
    let asked = v1::AskRequest { without, ..request(&resume.ask) };
    let answered = caller.answer(caller.client.clone().resume(asked)).await?;
    wait_for(session, environment, answered.release, &resume.ask.waiting, Asked::Forward, out).await
}
