//! Who may call what: one table, and what is not in it is refused.

use std::task::{Context, Poll};

use pointsman_core::{Code, EnvironmentName, Problem, Role};
use pointsman_proto::status_of_problem;
use tower::{Layer, Service};
use tracing::warn;

use crate::tls::Peer;

use Role::{Ci, Coordinator, DatabaseAgent, LbAgent, Operator, Viewer, WebAgent};

/// Every RPC with the roles that may call it. A test walks the descriptors: an RPC without a row fails it.
pub const TABLE: &[(&str, &[Role])] = &[
    (
        "/pointsman.v1.Coordinator/Health",
        &[Operator, Ci, Viewer, Coordinator, WebAgent, LbAgent, DatabaseAgent],
    ),
    ("/pointsman.v1.Coordinator/OfferArtifact", &[Operator, Ci]),
    ("/pointsman.v1.Coordinator/SendContents", &[Operator, Ci]),
    ("/pointsman.v1.Coordinator/MakePlan", &[Operator, Ci]),
    ("/pointsman.v1.Coordinator/CreateRelease", &[Operator, Ci]),
    ("/pointsman.v1.Coordinator/Follow", &[Operator, Ci, Viewer]),
    ("/pointsman.v1.Coordinator/GetStatus", &[Operator, Ci, Viewer]),
    ("/pointsman.v1.Coordinator/ListReleases", &[Operator, Ci, Viewer]),
    ("/pointsman.v1.Coordinator/Rollback", &[Operator, Ci]),
    ("/pointsman.v1.Coordinator/Abort", &[Operator, Ci]),
    ("/pointsman.v1.Coordinator/Pause", &[Operator, Ci]),
    ("/pointsman.v1.Coordinator/Resume", &[Operator]),
    ("/pointsman.v1.Coordinator/Promote", &[Operator, Ci]),
    ("/pointsman.v1.Coordinator/SetMaintenance", &[Operator]),
    ("/pointsman.v1.Coordinator/Diagnose", &[Operator, Ci, Viewer]),
    ("/pointsman.v1.Coordinator/VerifyJournal", &[Operator, Ci, Viewer]),
    ("/pointsman.v1.Coordinator/AcceptJournal", &[Operator]),
    ("/pointsman.v1.Coordinator/WatchTraffic", &[Operator, Ci, Viewer]),
    ("/pointsman.v1.Coordinator/DeployCertificate", &[Operator]),
    ("/pointsman.v1.Coordinator/ShowRateLimits", &[Operator, Viewer]),
    ("/pointsman.v1.Coordinator/Unblock", &[Operator]),
    ("/pointsman.v1.Coordinator/MakeChecks", &[Operator, Ci]),
    ("/pointsman.v1.Coordinator/GetChecklist", &[Operator, Ci, Viewer]),
    ("/pointsman.v1.Coordinator/TickPoint", &[Operator]),
    (
        "/pointsman.agent.v1.Agent/Health",
        &[Operator, Ci, Viewer, Coordinator, WebAgent, LbAgent, DatabaseAgent],
    ),
    ("/pointsman.agent.v1.Agent/Fence", &[Coordinator]),
    ("/pointsman.agent.v1.Agent/Prepare", &[Coordinator]),
    ("/pointsman.agent.v1.Agent/Perform", &[Coordinator]),
    ("/pointsman.agent.v1.Agent/Observe", &[Coordinator]),
    ("/pointsman.agent.v1.Agent/Query", &[Coordinator]),
    ("/pointsman.agent.v1.Agent/Describe", &[Coordinator]),
    ("/pointsman.agent.v1.Agent/Diagnose", &[Coordinator]),
    ("/pointsman.agent.v1.Agent/OfferArtifact", &[Coordinator]),
    ("/pointsman.agent.v1.Agent/SendContents", &[Coordinator]),
    ("/pointsman.agent.v1.Agent/Signals", &[Coordinator]),
    ("/pointsman.agent.v1.Agent/DeployCertificate", &[Coordinator]),
    ("/pointsman.agent.v1.Agent/RateLimits", &[Coordinator]),
];

/// Whether a role may call an RPC, by its path.
pub fn allowed(role: Role, rpc: &str) -> bool {
    TABLE.iter().any(|(path, roles)| *path == rpc && roles.contains(&role))
}

/// Refuses a peer of another environment: a certificate is good for one.
pub fn same_environment(peer: &Peer, environment: &EnvironmentName) -> Result<(), Problem> {
    if peer.name.environment == *environment {
        return Ok(());
    }
    let message = format!("`{}` may do nothing in environment `{environment}`", peer.name);
    Err(Problem::new(Code::NotAllowed, message).hint(format!("use a certificate of `{environment}`")))
}

/// The peer of a request.
pub fn peer_of<T>(request: &tonic::Request<T>) -> Result<Peer, tonic::Status> {
    request.extensions().get::<Peer>().cloned().ok_or_else(|| status_of_problem(&nobody()))
}

fn nobody() -> Problem {
    Problem::new(Code::CertificateRefused, "certificate refused: none presented")
}

fn decide(peer: Option<&Peer>, trust_domain: &str, rpc: &str) -> Result<(), Problem> {
    let peer = peer.ok_or_else(nobody)?;
    if peer.name.trust_domain != trust_domain {
        let message = format!("`{}` is of another trust domain than `{trust_domain}`", peer.name);
        return Err(Problem::new(Code::NotAllowed, message));
    }
    if allowed(peer.name.role, rpc) {
        return Ok(());
    }
    let verb = rpc.rsplit('/').next().unwrap_or_default();
    let message = format!("role `{}` may not call `{verb}`", peer.name.role);
    Err(Problem::new(Code::NotAllowed, message).hint("use a certificate with a role that may"))
}

/// A layer in front of every service: decides by certificate and path before anything else is looked at.
#[derive(Clone, Debug)]
pub struct AccessLayer {
    trust_domain: String,
}

impl AccessLayer {
    /// Lets in peers of one trust domain only.
    pub fn new(trust_domain: String) -> Self {
        Self { trust_domain }
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = AccessService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AccessService { inner, trust_domain: self.trust_domain.clone() }
    }
}

/// The service that [`AccessLayer`] makes.
#[derive(Clone, Debug)]
pub struct AccessService<S> {
    inner: S,
    trust_domain: String,
}

impl<S, B, R> Service<http::Request<B>> for AccessService<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Default + Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let peer = request.extensions().get::<Peer>();
        match decide(peer, &self.trust_domain, request.uri().path()) {
            Ok(()) => Box::pin(self.inner.call(request)),
            Err(problem) => {
                let who = peer.map(|peer| peer.name.to_string()).unwrap_or_default();
                warn!(peer = who, problem = %problem.in_full(), "refused a call");
                let refusal = status_of_problem(&problem).into_http();
                Box::pin(async move { Ok(refusal) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use std::collections::BTreeSet;

    fn rpcs_of_descriptors() -> BTreeSet<String> {
        // The descriptor set is itself a protobuf message; a minimal reading of it needs no further crate.
        #[derive(Clone, PartialEq, prost::Message)]
        struct Set {
            #[prost(message, repeated, tag = "1")]
            file: Vec<File>,
        }
        #[derive(Clone, PartialEq, prost::Message)]
        struct File {
            #[prost(string, tag = "2")]
            package: String,
            #[prost(message, repeated, tag = "6")]
            service: Vec<Services>,
        }
        #[derive(Clone, PartialEq, prost::Message)]
        struct Services {
            #[prost(string, tag = "1")]
            name: String,
            #[prost(message, repeated, tag = "2")]
            method: Vec<Method>,
        }
        #[derive(Clone, PartialEq, prost::Message)]
        struct Method {
            #[prost(string, tag = "1")]
            name: String,
        }
        let set = Set::decode(pointsman_proto::DESCRIPTORS).unwrap();
        let path = |file: &File, service: &Services, method: &Method| {
            format!("/{}.{}/{}", file.package, service.name, method.name)
        };
        set.file
            .iter()
            .flat_map(|file| file.service.iter().map(move |service| (file, service)))
            .flat_map(|(file, service)| service.method.iter().map(move |method| path(file, service, method)))
            .collect()
    }

    #[test]
    fn every_rpc_has_exactly_one_row() {
        let rows: BTreeSet<String> = TABLE.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(rows.len(), TABLE.len());
        assert_eq!(rows, rpcs_of_descriptors());
    }

    #[test]
    fn agents_obey_their_coordinator_only() {
        for (path, roles) in TABLE.iter().filter(|(path, _)| path.starts_with("/pointsman.agent.v1.")) {
            if !path.ends_with("/Health") {
                assert_eq!(*roles, [Coordinator], "{path}");
            }
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_refused() {
        for role in Role::ALL {
            assert!(!allowed(role, "/pointsman.v1.Coordinator/DropEverything"));
            assert!(!allowed(role, ""));
        }
        assert!(!allowed(Viewer, "/pointsman.v1.Coordinator/CreateRelease"));
        assert!(!allowed(Ci, "/pointsman.v1.Coordinator/Resume"));
        assert!(allowed(Ci, "/pointsman.v1.Coordinator/CreateRelease"));
    }
}
