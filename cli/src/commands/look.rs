//! `status`, `history`, `traffic show` and `doctor`: verbs that only look.

use pointsman_core::{Code, EnvironmentName, Problem};
use pointsman_proto::v1;

use super::{Asked, wait_for};
use crate::args::{Doctor, Status};
use crate::client::{Caller, Session};
use crate::exit::Exit;
use crate::out::Out;
use crate::render;

async fn look(
    caller: &Caller,
    environment: &EnvironmentName,
    release: String,
) -> Result<v1::StatusReply, Problem> {
    let request = v1::StatusRequest { environment: environment.to_string(), release };
    caller.answer(caller.client.clone().get_status(request)).await
}

/// Whether everything that could be asked is as it should be. What the screen marks as wrong is not 0.
fn health(status: &v1::StatusReply) -> Exit {
    let settled = status.release.as_ref().is_none_or(|release| !release.outcome.is_empty());
    let held = status.release.as_ref().is_some_and(|release| release.held.is_some());
    let wrong = |found: &v1::BalancerFacts| {
        let drift = settled && !status.wanted_route.is_empty() && found.route != status.wanted_route;
        let dead =
            found.backends.iter().any(|b| render::share_of(&found.route, &b.name) > 0 && b.servers_up == 0);
        drift
            || !found.drift.is_empty()
            || !found.unkept.is_empty()
            || dead
            || found.route != found.route_on_disk
            || !found.stale_workers.is_empty()
    };
    let page_is_up = status.maintenance.as_ref().is_some_and(|page| page.on);
    let left_over = settled
        && !page_is_up
        && status.agents.iter().filter_map(|agent| agent.web.as_ref()).any(|web| web.maintenance_file);
    if held
        || left_over
        || status.trouble.is_some()
        || render::alarm(status)
        || status.agents.iter().filter_map(|a| a.balancer.as_ref()).any(wrong)
    {
        Exit::RolledBack
    } else if status.agents.iter().any(|agent| agent.problem.is_some()) {
        Exit::Refused
    } else {
        Exit::Done
    }
}

/// Shows how an environment stands, or follows its release.
pub async fn status(session: &Session, status: &Status, out: &Out) -> Result<Exit, Problem> {
    let caller = session.caller(&status.environment)?;
    let wanted = status.release.as_ref().map(ToString::to_string).unwrap_or_default();
    let seen = look(&caller, &status.environment, wanted.clone()).await?;
    if out.json() && !status.follow {
        out.document(render::json::status(&seen));
    } else if !out.json() {
        out.result(&render::status(&seen));
    }
    let release = seen.release.as_ref();
    if status.follow {
        let Some(release) = release else { return Ok(health(&seen)) };
        let id = release.plan.as_ref().map(|plan| plan.release.clone()).unwrap_or_default();
        return wait_for(session, &status.environment, id, &status.waiting, Asked::Forward, out).await;
    }
    // A second look at a release gives the code of its first.
    match release.filter(|_| !wanted.is_empty()) {
        Some(release) => Ok(Exit::of_release(release).unwrap_or(Exit::Refused)),
        None => Ok(health(&seen)),
    }
}

/// Lists the releases that were.
pub async fn history(
    session: &Session,
    environment: &EnvironmentName,
    limit: u32,
    out: &Out,
) -> Result<Exit, Problem> {
    let caller = session.caller(environment)?;
    let request = v1::ListReleasesRequest { environment: environment.to_string(), limit };
    let listed = caller.answer(caller.client.clone().list_releases(request)).await?;
    if out.json() {
        out.document(render::json::history(&listed.releases));
    } else {
        out.result(&render::history(&listed.releases));
    }
    Ok(Exit::Done)
}

/// Shows where visitors go.
pub async fn traffic(session: &Session, environment: &EnvironmentName, out: &Out) -> Result<Exit, Problem> {
    let caller = session.caller(environment)?;
    let seen = look(&caller, environment, String::new()).await?;
    if out.json() {
        out.document(render::json::traffic(&seen));
    } else {
        out.result(&render::traffic(&seen));
    }
    Ok(health(&seen))
}

/// Looks at everything a release needs, or at the load balancers alone.
pub async fn doctor(session: &Session, doctor: &Doctor, out: &Out) -> Result<Exit, Problem> {
    let missing =
        || Problem::new(Code::UsageWrong, "no environment is named").hint("`pointsman doctor --help`");
    let environment = doctor.environment().ok_or_else(missing)?;
    match doctor.balancers_only() {
        true => findings(session, environment, "lb", None, out).await,
        false => findings(session, environment, "", Some(environment), out).await,
    }
}

/// Looks at the environment's file, and at what its checks ask monitoring services.
pub async fn config_check(
    session: &Session,
    environment: &EnvironmentName,
    out: &Out,
) -> Result<Exit, Problem> {
    findings(session, environment, "config", None, out).await
}

async fn findings(
    session: &Session,
    environment: &EnvironmentName,
    part: &str,
    folded: Option<&EnvironmentName>,
    out: &Out,
) -> Result<Exit, Problem> {
    let caller = session.caller(environment)?;
    let request = v1::DiagnoseRequest { environment: environment.to_string(), part: part.to_owned() };
    let mut client = caller.client.clone();
    let asked = client.diagnose(request);
    let mut found = match part {
        // Its queries are asked.
        "config" => caller.answer_of_checks(out, asked).await?,
        _ => caller.answer(asked).await?,
    };
    if part.is_empty() {
        let now_s = jiff::Timestamp::now().as_second();
        let (name, end_s) = &caller.own;
        let told = (*end_s > 0).then(|| render::own(name, end_s.saturating_sub(now_s)));
        found.findings.extend(told.flatten());
    }
    if out.json() {
        out.document(render::json::findings(&found.findings));
    } else {
        out.result(&render::findings(&found.findings, folded));
    }
    let any = |verdict: &str| found.findings.iter().any(|finding| finding.verdict == verdict);
    Ok(match (any("fail"), any("unknown")) {
        (true, _) => Exit::RolledBack,
        // What could not be looked at is not known to be well.
        (false, true) => Exit::Refused,
        (false, false) => Exit::Done,
    })
}
