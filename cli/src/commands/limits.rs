//! `traffic limits` and `traffic unblock`.

use std::net::IpAddr;

use pointsman_core::{EnvironmentName, Problem};
use pointsman_proto::v1;

use crate::client::Session;
use crate::exit::Exit;
use crate::out::Out;
use crate::render;

/// Lists the addresses that the load balancers count.
pub async fn limits(
    session: &Session,
    environment: &EnvironmentName,
    min_rate: u32,
    out: &Out,
) -> Result<Exit, Problem> {
    let caller = session.caller(environment)?;
    let request = v1::ShowRateLimitsRequest { environment: environment.to_string(), min_rate };
    let found = caller.answer(caller.client.clone().show_rate_limits(request)).await?;
    if out.json() {
        out.document(render::json::limits(environment, &found));
    } else {
        out.result(&render::limits(&found));
    }
    Ok(Exit::Done)
}

/// Has the load balancers forget an address. Asks nothing: who goes on as before is limited again.
pub async fn unblock(
    session: &Session,
    environment: &EnvironmentName,
    address: IpAddr,
    out: &Out,
) -> Result<Exit, Problem> {
    let caller = session.caller(environment)?;
    let request = v1::UnblockRequest { environment: environment.to_string(), address: address.to_string() };
    let left = caller.answer(caller.client.clone().unblock(request)).await?;
    if out.json() {
        out.document(render::json::unblocked(environment, address, &left));
    } else {
        out.result(&render::unblocked(address, &left));
    }
    Ok(Exit::Done)
}
