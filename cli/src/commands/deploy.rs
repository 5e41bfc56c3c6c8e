//! `plan` and `deploy`.

use pointsman_core::Problem;
use pointsman_proto::v1;

use super::{Asked, wait_for};
use crate::args::{Deploy, Wish};
use crate::client::{Caller, Session};
use crate::exit::Exit;
use crate::out::Out;
use crate::publish::publish;
use crate::render;

async fn request(caller: &mut Caller, wish: &Wish, out: &Out) -> Result<v1::PlanRequest, Problem> {
    let artifact = publish(caller, &wish.environment, &wish.artifact, out).await?;
    let migrations = match &wish.migrations {
        Some(migrations) => publish(caller, &wish.environment, migrations, out).await?.to_string(),
        None => String::new(),
    };
    Ok(v1::PlanRequest {
        environment: wish.environment.to_string(),
        release: wish.release.as_ref().map(ToString::to_string).unwrap_or_default(),
        request_id: wish.request_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        reason: wish.reason.clone().unwrap_or_default(),
        purpose: Some(v1::plan_request::Purpose::Deploy(v1::DeployPurpose {
            artifact: artifact.to_string(),
            at_once: wish.at_once,
            fix_forward: wish.fix_forward,
            migrations,
            out_of_order: wish.out_of_order.clone(),
        })),
    })
}

/// Shows what a deploy would do.
pub async fn plan(session: &Session, wish: &Wish, out: &Out) -> Result<Exit, Problem> {
    let mut caller = session.caller(&wish.environment)?;
    let request = request(&mut caller, wish, out).await?;
    let made = caller.answer(caller.client.clone().make_plan(request)).await?;
    let plan = made.plan.unwrap_or_default();
    if out.json() {
        out.document(render::json::plan(&plan, &made.fingerprint));
    } else {
        out.result(&render::plan(&plan));
    }
    Ok(Exit::Done)
}

/// Makes an artifact live.
pub async fn deploy(session: &Session, deploy: &Deploy, out: &Out) -> Result<Exit, Problem> {
    let mut caller = session.caller(&deploy.wish.environment)?;
    if !deploy.yes && !out.can_ask() {
        // Before anything is sent, not after.
        out.confirm("", false)?;
    }
    let wish = request(&mut caller, &deploy.wish, out).await?;
    let mut fingerprint = String::new();
    if !deploy.yes {
        let made = caller.answer(caller.client.clone().make_plan(wish.clone())).await?;
        let plan = made.plan.unwrap_or_default();
        out.say(&render::plan(&plan));
        if !out.confirm(&format!("switch {} to {}?", plan.environment, plan.release), false)? {
            return Ok(super::declined(out));
        }
        fingerprint = made.fingerprint;
    }
    let request = v1::CreateReleaseRequest { plan: Some(wish), fingerprint };
    let created = caller.answer(caller.client.clone().create_release(request)).await?;
    let verb = if created.attached { "attached to" } else { "started" };
    out.say(&format!("{verb} release {} in {}", created.release, deploy.wish.environment));
    wait_for(session, &deploy.wish.environment, created.release, &deploy.waiting, Asked::Forward, out).await
}
