//! `checklist`: what a release is judged by, and what people vouch for.

use pointsman_core::Problem;
use pointsman_proto::v1;

use crate::args::Checklist;
use crate::client::Session;
use crate::exit::Exit;
use crate::out::Out;
use crate::render;

/// Shows the checklist, after ticking a point of it if that is asked for.
pub async fn checklist(session: &Session, asked: &Checklist, out: &Out) -> Result<Exit, Problem> {
    let caller = session.caller(&asked.environment)?;
    let (environment, mut client) = (asked.environment.to_string(), caller.client.clone());
    let release = asked.release.as_ref().map(ToString::to_string).unwrap_or_default();
    let list = match &asked.tick {
        Some(point) => {
            let (point, note) = (point.to_string(), asked.note.clone().unwrap_or_default());
            let request = v1::TickPointRequest { environment, release, point, note };
            caller.answer(client.tick_point(request)).await?
        }
        None => caller.answer(client.get_checklist(v1::ChecklistRequest { environment, release })).await?,
    };
    if out.json() {
        out.document(render::json::checklist(&list));
    } else if out.markdown() {
        out.result(&render::checklist_markdown(&list));
    } else if out.junit() {
        out.result(&render::checklist_junit(&list));
    } else {
        out.result(&render::checklist(&list));
    }
    let any = |verdict: &str| list.points.iter().any(|point| point.verdict == verdict);
    Ok(match (any("failed"), any("no-data") || any("open")) {
        // Ticking was asked for, and was done.
        _ if asked.tick.is_some() => Exit::Done,
        (true, _) => Exit::RolledBack,
        (false, true) => Exit::Refused,
        (false, false) => Exit::Done,
    })
}
