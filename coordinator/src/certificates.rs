//! Renewing a certificate on every load balancer of an environment. No release is needed and none is in its way; what
//! stands on each load balancer is what the agents say, and nothing of it is recorded here.

use pointsman_core::{Aftermath, EnvironmentName, Epoch, HostName, Problem};
use pointsman_proto::{agent_v1, v1};
use tracing::{info, warn};

use crate::office::Office;

/// Bound on one load balancer: the agent's own waits, also those for taking a certificate back, add up to less.
const ONE_BALANCER_MS: u64 = 60_000;

/// One load balancer after the other, so that a certificate that does not do breaks one at most. Stops at the first that
/// fails, and says where each stands.
pub async fn deploy(
    office: &Office,
    asked: &v1::DeployCertificateRequest,
    by: &str,
) -> Result<v1::DeployCertificateReply, Problem> {
    if let Some(trouble) = office.trouble() {
        return Err(trouble);
    }
    let hosts = &office.environment().balancers;
    let mut done: Vec<v1::CertificateDeployed> = Vec::new();
    for host in hosts {
        let request = passed_on(asked, &office.environment().name, host, office.epoch());
        match office.fleet().deploy_certificate(host, request, ONE_BALANCER_MS).await {
            Ok(answer) => {
                info!(environment = %office.environment().name, %host, by, detail = answer.detail, "certificate deployed");
                let (already, detail) = (answer.already, answer.detail);
                done.push(v1::CertificateDeployed { host: host.to_string(), already, detail });
            }
            Err(problem) => {
                warn!(environment = %office.environment().name, %host, by, problem = %problem.in_full(), "certificate not deployed");
                return Err(half_done(hosts, &done, problem));
            }
        }
    }
    Ok(v1::DeployCertificateReply { balancers: done })
}

/// The same for one load balancer.
fn passed_on(
    asked: &v1::DeployCertificateRequest,
    environment: &EnvironmentName,
    host: &HostName,
    epoch: Epoch,
) -> agent_v1::DeployCertificateRequest {
    agent_v1::DeployCertificateRequest {
        environment: environment.to_string(),
        host: host.to_string(),
        epoch: epoch.0,
        path: asked.path.clone(),
        pem: asked.pem.clone(),
        drop_names: asked.drop_names.clone(),
    }
}

/// Where each load balancer stands when one has failed.
fn half_done(hosts: &[HostName], done: &[v1::CertificateDeployed], problem: Problem) -> Problem {
    let failed = match problem.aftermath {
        Aftermath::Unchanged => "serves the certificate that it had",
        Aftermath::Changed => "serves the new certificate",
        Aftermath::Unknown => "what it serves is not known: see `pointsman cert show`",
    };
    let changed = done.iter().any(|balancer| !balancer.already);
    let problem = hosts.iter().enumerate().fold(problem, |problem, (place, host)| {
        let stands = match place.cmp(&done.len()) {
            std::cmp::Ordering::Less => "serves the new certificate",
            std::cmp::Ordering::Equal => failed,
            std::cmp::Ordering::Greater => "was not asked",
        };
        problem.cause(format!("{host}: {stands}"))
    });
    match problem.aftermath {
        Aftermath::Unchanged if changed => problem.aftermath(Aftermath::Changed),
        _ => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_core::Code;

    #[test]
    fn each_load_balancer_is_told_all_of_it() {
        let asked = v1::DeployCertificateRequest {
            environment: "production".to_owned(),
            path: "/www.pem".to_owned(),
            pem: b"pem".to_vec(),
            drop_names: vec!["old.example.org".to_owned()],
        };
        let environment = "production".parse().unwrap();
        let told = passed_on(&asked, &environment, &HostName::parse("lb1").unwrap(), Epoch(7));
        assert_eq!((told.environment.as_str(), told.host.as_str(), told.epoch), ("production", "lb1", 7));
        assert_eq!((told.path, told.pem, told.drop_names), (asked.path, asked.pem, asked.drop_names));
    }

    #[test]
    fn the_answer_names_where_each_load_balancer_stands() {
        let hosts = ["lb1", "lb2", "lb3"].map(|name| HostName::parse(name).unwrap());
        let done =
            |already| v1::CertificateDeployed { host: "lb1".to_owned(), already, detail: String::new() };
        let failed = |aftermath| Problem::new(Code::CertificateNotSeen, "not seen").aftermath(aftermath);
        let half = half_done(&hosts, &[done(false)], failed(Aftermath::Unchanged));
        assert_eq!(half.aftermath, Aftermath::Changed);
        assert_eq!(
            half.causes,
            [
                "lb1: serves the new certificate",
                "lb2: serves the certificate that it had",
                "lb3: was not asked"
            ]
        );
        let nothing = half_done(&hosts, &[done(true)], failed(Aftermath::Unchanged));
        assert_eq!(nothing.aftermath, Aftermath::Unchanged);
        assert_eq!(half_done(&hosts, &[], failed(Aftermath::Unknown)).aftermath, Aftermath::Unknown);
    }
}
