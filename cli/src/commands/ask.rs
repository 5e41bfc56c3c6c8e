//! `rollback`, `abort` and `resume`: what is asked of a running release, or instead of one.

use pointsman_core::Problem;
use pointsman_proto::v1;

use super::wait_for;
use crate::args::{Ask, Resume};
use crate::client::Session;
use crate::exit::Exit;
use crate::out::Out;

fn request(ask: &Ask) -> v1::AskRequest {
    v1::AskRequest {
        environment: ask.environment.to_string(),
        release: ask.release.as_ref().map(ToString::to_string).unwrap_or_default(),
        reason: ask.reason.clone().unwrap_or_default(),
        request_id: ask.request_id.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// Moves visitors back. That it worked is a success of this command, whatever it says of the release.
pub async fn rollback(session: &Session, ask: &Ask, out: &Out) -> Result<Exit, Problem> {
    let caller = session.caller(&ask.environment)?;
    let answered = caller.answer(caller.client.clone().rollback(request(ask))).await?;
    let exit = wait_for(session, &ask.environment, answered.release, &ask.waiting, out).await?;
    Ok(wanted(exit))
}

/// Stops a release before it moves visitors.
pub async fn abort(session: &Session, ask: &Ask, out: &Out) -> Result<Exit, Problem> {
    let caller = session.caller(&ask.environment)?;
    let answered = caller.answer(caller.client.clone().abort(request(ask))).await?;
    if answered.already {
        out.say(&format!("no release of {} is running: nothing to abort", ask.environment));
        return Ok(Exit::Done);
    }
    let exit = wait_for(session, &ask.environment, answered.release, &ask.waiting, out).await?;
    Ok(wanted(exit))
}

/// The release ended as it was asked to: back, or undone.
fn wanted(exit: Exit) -> Exit {
    match exit {
        Exit::RolledBack | Exit::Failed => Exit::Done,
        other => other,
    }
}

/// Lets a held release go on.
pub async fn resume(session: &Session, resume: &Resume, out: &Out) -> Result<Exit, Problem> {
    let environment = &resume.ask.environment;
    if !out.confirm(&format!("let the held release of {environment} go on?"), resume.yes)? {
        out.say("nothing was changed");
        return Ok(Exit::Refused);
    }
    let caller = session.caller(environment)?;
    let answered = caller.answer(caller.client.clone().resume(request(&resume.ask))).await?;
    wait_for(session, environment, answered.release, &resume.ask.waiting, out).await
}
