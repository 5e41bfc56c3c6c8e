//! Problems.

use pointsman_core::{Aftermath, Code, HostName, Problem, Retry};

use super::seen::{seen_from_wire, seen_to_headers};
use crate::v1;

/// A problem for the wire.
pub fn problem_to_wire(problem: &Problem) -> v1::Problem {
    let aftermath = match problem.aftermath {
        Aftermath::Unchanged => v1::Aftermath::Unchanged,
        Aftermath::Changed => v1::Aftermath::Changed,
        Aftermath::Unknown => v1::Aftermath::Unknown,
    };
    v1::Problem {
        code: problem.code.as_str().to_owned(),
        aftermath: aftermath.into(),
        retry_useful: problem.retry == Retry::Useful,
        host: problem.host.as_ref().map(ToString::to_string).unwrap_or_default(),
        message: problem.message.clone(),
        causes: problem.causes.clone(),
        hint: problem.hint.clone(),
        checks: seen_to_headers(&problem.checks),
    }
}

/// A problem from the wire; `None` when it has no code that this version knows.
pub fn problem_from_wire(wire: v1::Problem) -> Option<Problem> {
    let aftermath = match wire.aftermath() {
        v1::Aftermath::Unchanged => Aftermath::Unchanged,
        v1::Aftermath::Changed => Aftermath::Changed,
        v1::Aftermath::Unknown | v1::Aftermath::Unspecified => Aftermath::Unknown,
    };
    let mut problem =
        Problem::new(Code::parse(&wire.code)?, &wire.message).aftermath(aftermath).hint(&wire.hint);
    if wire.retry_useful {
        problem = problem.retry_useful();
    }
    problem.host = HostName::parse(&wire.host).ok();
    problem.checks = seen_from_wire(&wire.checks);
    Some(wire.causes.iter().fold(problem, |problem, cause| problem.cause(cause)))
}
