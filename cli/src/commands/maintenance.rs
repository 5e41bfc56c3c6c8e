//! `maintenance on|off|status`.

use pointsman_core::{EnvironmentName, Problem};
use pointsman_proto::v1;

use super::{Asked, wait_for};
use crate::args::{MaintenanceVerb, Waiting};
use crate::client::Session;
use crate::exit::Exit;
use crate::out::Out;
use crate::render;

/// Puts the page up, takes it down, or says which.
pub async fn maintenance(session: &Session, verb: &MaintenanceVerb, out: &Out) -> Result<Exit, Problem> {
    match verb {
        MaintenanceVerb::On { environment, length, reason, without, yes, waiting } => {
            if !out.confirm(&format!("show the maintenance page to every visitor of {environment}?"), *yes)? {
                return Ok(super::declined(out));
            }
            let request = v1::SetMaintenanceRequest {
                environment: environment.to_string(),
                on: true,
                for_ms: length.map_or(0, |length| length.ms()),
                reason: reason.clone().unwrap_or_default(),
                without: without.iter().map(ToString::to_string).collect(),
            };
            set(session, environment, request, waiting, out).await
        }
        MaintenanceVerb::Off { environment, without, waiting, .. } => {
            let request = v1::SetMaintenanceRequest {
                environment: environment.to_string(),
                without: without.iter().map(ToString::to_string).collect(),
                ..Default::default()
            };
            set(session, environment, request, waiting, out).await
        }
        MaintenanceVerb::Status { environment } => show(session, environment, out).await,
    }
}

async fn set(
    session: &Session,
    environment: &EnvironmentName,
    request: v1::SetMaintenanceRequest,
    waiting: &Waiting,
    out: &Out,
) -> Result<Exit, Problem> {
    let caller = session.caller(environment)?;
    let on = request.on;
    let answered = caller.answer(caller.client.clone().set_maintenance(request)).await?;
    if answered.already {
        let text =
            format!("the maintenance page of {environment} is {} already", if on { "up" } else { "down" });
        if out.json() {
            out.document(serde_json::json!({ "kind": "maintenance", "environment": environment.as_str(), "on": on, "already": true }));
        } else {
            out.result(&text);
        }
        return Ok(Exit::Done);
    }
    wait_for(session, environment, answered.release, waiting, Asked::Forward, out).await
}

async fn show(session: &Session, environment: &EnvironmentName, out: &Out) -> Result<Exit, Problem> {
    let caller = session.caller(environment)?;
    let request = v1::StatusRequest { environment: environment.to_string(), ..Default::default() };
    let seen = caller.answer(caller.client.clone().get_status(request)).await?;
    let on = seen.maintenance.as_ref().is_some_and(|page| page.on);
    if out.json() {
        out.document(render::json::maintenance(&seen));
    } else {
        out.result(&render::maintenance(&seen));
    }
    Ok(if on { Exit::RolledBack } else { Exit::Done })
}
