//! An agent on a simulated host: the real service, the real ledger, made-up hands.

use std::path::PathBuf;

use pointsman_chassis::agent_service::{AgentService, Hands};
use pointsman_chassis::ledger::Ledger;
use pointsman_chassis::serve;

use crate::{identities, network};

/// Runs an agent until its host crashes. Its ledger is in `folder` and outlives it.
pub async fn run(host: String, folder: PathBuf, hands: impl Hands) -> turmoil::Result {
    let credentials = identities::of(&host);
    let ledger = Ledger::open(&folder.join(format!("{host}.db")))?;
    let service = AgentService::new(hands, ledger, credentials.name());
    network::serve(credentials, serve::agent_routes(service)).await
}
