//! Failures as gRPC statuses: the [`Problem`] travels whole in the status details.

use pointsman_core::{Aftermath, Code, Problem};
use prost::Message as _;

use crate::{convert, v1};

/// The status that carries a problem.
pub fn status_of_problem(problem: &Problem) -> tonic::Status {
    let details = convert::problem_to_wire(problem).encode_to_vec();
    tonic::Status::with_details(grpc_code(problem.code), problem.to_string(), details.into())
}

/// gRPC's own codes are for proxies and generic clients; pointsman decides by [`Problem::code`].
fn grpc_code(code: Code) -> tonic::Code {
    match code {
        Code::NotAllowed | Code::CertificateRefused | Code::WrongAddressee => tonic::Code::PermissionDenied,
        Code::EnvironmentBusy | Code::ReleaseIdTaken => tonic::Code::AlreadyExists,
        Code::EnvironmentUnknown | Code::ReleaseUnknown | Code::ArtifactMissing => tonic::Code::NotFound,
        Code::ConfigInvalid
        | Code::UsageWrong
        | Code::MessageInvalid
        | Code::PathRefused
        | Code::LinkRefused => tonic::Code::InvalidArgument,
        Code::DeadlinePassed => tonic::Code::DeadlineExceeded,
        Code::AgentUnreachable | Code::CoordinatorUnreachable => tonic::Code::Unavailable,
        _ => tonic::Code::FailedPrecondition,
    }
}

/// The problem that a status carries. A status without one was made by the transport, where an answer may have
/// been lost: then `unreachable` names the code, and nothing is known of the aftermath.
pub fn problem_of_status(status: &tonic::Status, unreachable: Code, peer: &str) -> Problem {
    if let Some(problem) = v1::Problem::decode(status.details()).ok().and_then(convert::problem_from_wire) {
        return problem;
    }
    let code = match status.code() {
        tonic::Code::ResourceExhausted | tonic::Code::InvalidArgument | tonic::Code::Unimplemented => {
            Code::MessageInvalid
        }
        tonic::Code::DeadlineExceeded => Code::DeadlinePassed,
        _ => unreachable,
    };
    let problem =
        Problem::new(code, format!("no answer from {peer}")).aftermath(Aftermath::Unknown).retry_useful();
    // What is below a transport's status says more than the status does.
    match std::error::Error::source(status) {
        Some(source) => problem.because(source),
        None => problem.cause(status.message()),
    }
}
