//! `pointsman-agent`: wires configuration, receipts, certificates and the gRPC service together.

use std::path::PathBuf;

use clap::Parser;
use pointsman_agent::{Config, WebHands};
use pointsman_chassis::agent_service::AgentService;
use pointsman_chassis::ledger::Ledger;
use pointsman_chassis::serve::{self, Daemon};
use pointsman_chassis::{config, logs, tls};
use pointsman_core::Role;
use tracing::info;

/// The pointsman agent on a web host: brings artifacts and makes them current, on orders of its coordinator.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The agent's own configuration.
    #[arg(long, default_value = "/etc/pointsman/agent.toml")]
    config: PathBuf,
}

fn main() -> anyhow::Result<()> {
    tls::install_crypto();
    let arguments = Arguments::parse();
    let config: Config = config::read(&arguments.config).map_err(serve::explain)?;
    logs::start();
    serve::runtime()?.block_on(run(config))
}

async fn run(config: Config) -> anyhow::Result<()> {
    let daemon = Daemon::start(config.pki.clone(), &[Role::WebAgent]).map_err(serve::explain)?;
    let ledger = Ledger::open(&config.state.join("receipts.db")).map_err(serve::explain)?;
    let listen = config.listen;
    let hands = WebHands::new(config).map_err(serve::explain)?;
    info!(name = %daemon.name(), %listen, "agent starts");
    let probe = ledger.clone();
    let service = AgentService::new(hands, ledger, daemon.name());
    daemon.serve_agent(listen, service, move || probe.fence_state().map(drop)).await.map_err(serve::explain)
}
