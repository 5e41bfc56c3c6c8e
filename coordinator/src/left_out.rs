//! Looks whether hosts that a person wants left out of a release's way back are really gone. What follows is decided in
//! [`pointsman_core::left_out`].

use futures_util::future::join_all;
use pointsman_core::left_out::{self, Heard};
use pointsman_core::{Code, HostName, Problem, State};

use crate::fleet::GrpcFleet;

/// Bound on one look, in milliseconds: the patience that plans have with a load balancer.
const LOOK_MS: u64 = 4_000;

/// Refuses where one of these hosts may not be left out, by what is recorded or by what agents say just now.
pub async fn must_be_gone(fleet: &GrpcFleet, state: &State, hosts: &[HostName]) -> Result<(), Problem> {
    left_out::possible(state, hosts)?;
    let asked = left_out::to_ask(state, hosts).into_iter().map(|host| async move {
        let heard = match fleet.describe(&host, LOOK_MS).await {
            Err(problem) if problem.code == Code::AgentUnreachable => Heard::Silence,
            // Somebody has taken it out of the environment already, and nobody will ever ask it again.
            Err(_) if !fleet.knows(&host) => Heard::Silence,
            // Whoever refuses is there, whatever it says.
            _ => Heard::Answer,
        };
        (host, heard)
    });
    left_out::gone(state, hosts, &join_all(asked).await.into_iter().collect())
}
