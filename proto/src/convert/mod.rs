//! Wire ↔ domain, in one place. Everything from the wire is checked here once; errors name the field.

mod action;
mod database;
mod order;
mod plan;
mod problem;
mod release;
mod seen;
mod signal;
mod update;
mod verdict;

pub use action::{action_from_wire, action_to_wire, activation_from_wire};
pub use order::{
    Exchange, ReceivedOrder, accepted_from_wire, evidence_from_wire, evidence_to_wire, order_from_wire,
    order_to_wire,
};
pub use plan::plan_to_wire;
pub use problem::{problem_from_wire, problem_to_wire};
pub use release::{met_to_wire, release_to_wire};
pub use seen::{seen_from_wire, seen_to_wire};
pub use signal::{
    cell_from_wire, cell_to_wire, coverage_from_wire, coverage_to_wire, growth_to_wire, probes_to_wire,
    tick_from_wire, tick_to_wire,
};
pub use update::{update_to_wire, warning};
pub use verdict::{verdict_plan_to_wire, verdict_to_wire};

use pointsman_core::{Code, Problem};

/// Parses one field of a message; the error names the field.
pub fn field<T>(name: &str, text: &str) -> Result<T, Problem>
where
    T: std::str::FromStr<Err: std::error::Error + 'static>,
{
    text.parse().map_err(|error: T::Err| {
        Problem::new(Code::MessageInvalid, format!("field `{name}` of the message is wrong")).because(&error)
    })
}

/// Parses a field that may be empty.
pub fn optional_field<T>(name: &str, text: &str) -> Result<Option<T>, Problem>
where
    T: std::str::FromStr<Err: std::error::Error + 'static>,
{
    if text.is_empty() { Ok(None) } else { field(name, text).map(Some) }
}

/// A message that the field it was needed for lacks.
pub(crate) fn missing(name: &str) -> Problem {
    Problem::new(Code::MessageInvalid, format!("field `{name}` of the message is missing"))
}
