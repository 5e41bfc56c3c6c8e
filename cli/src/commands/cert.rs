//! `cert deploy` and `cert show`.

use std::path::Path;
use std::time::Duration;

use pointsman_chassis::site_certificate::{CertifiedName, SiteCertificate};
use pointsman_core::{EnvironmentName, Problem};
use pointsman_proto::v1;

use crate::client::Session;
use crate::exit::Exit;
use crate::out::Out;
use crate::render;

/// Bound on the answer: the coordinator waits up to a minute for each load balancer that fails, and there are a few.
const ANSWER: Duration = Duration::from_secs(300);

/// Has every load balancer serve a renewed certificate, which may lack the names in `drop`.
pub async fn deploy_certificate(
    session: &Session,
    environment: &EnvironmentName,
    file: &Path,
    path: Option<String>,
    drop: &[CertifiedName],
    yes: bool,
    out: &Out,
) -> Result<Exit, Problem> {
    // Looked at before it leaves this machine, and what leaves is the certificate and nothing else of the file.
    let certificate = SiteCertificate::read(file)?;
    out.say(&render::certificate(certificate.facts(), drop));
    if !out.confirm(&format!("serve this certificate on every load balancer of {environment}?"), yes)? {
        return Ok(super::declined(out));
    }
    let caller = session.caller(environment)?;
    let request = v1::DeployCertificateRequest {
        environment: environment.to_string(),
        path: path.unwrap_or_default(),
        pem: certificate.pem().as_bytes().to_vec(),
        drop_names: drop.iter().map(|name| name.as_str().to_owned()).collect(),
    };
    let deployed = caller.answer_within(ANSWER, caller.client.clone().deploy_certificate(request)).await?;
    if out.json() {
        out.document(render::json::certificate_deployed(environment, certificate.facts(), &deployed));
    } else {
        out.result(&render::certificate_deployed(&deployed));
    }
    Ok(Exit::Done)
}

/// Shows the certificates that may be renewed.
pub async fn certificates(
    session: &Session,
    environment: &EnvironmentName,
    out: &Out,
) -> Result<Exit, Problem> {
    let caller = session.caller(environment)?;
    let request = v1::StatusRequest { environment: environment.to_string(), ..Default::default() };
    let seen = caller.answer(caller.client.clone().get_status(request)).await?;
    if out.json() {
        out.document(render::json::certificates(&seen));
    } else {
        out.result(&render::certificates(&seen));
    }
    Ok(health(&seen))
}

/// 0 only when every load balancer could be asked, serves what is on its disk, and that has not ended.
fn health(seen: &v1::StatusReply) -> Exit {
    let now_s = i64::try_from(seen.now_ms / 1000).unwrap_or(i64::MAX);
    let mut all =
        seen.agents.iter().filter_map(|agent| agent.balancer.as_ref()).flat_map(|found| &found.certificates);
    let silent = seen.agents.iter().any(|agent| agent.role == "lb-agent" && agent.problem.is_some());
    if all.any(|found| !found.served || found.problem.is_some() || found.not_after <= now_s) {
        Exit::RolledBack
    } else if silent {
        Exit::Refused
    } else {
        Exit::Done
    }
}
