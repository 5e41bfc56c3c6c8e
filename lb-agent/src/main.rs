//! `pointsman-lb-agent`: wires configuration, receipts, certificates and the gRPC service together.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use pointsman_chassis::agent_service::AgentService;
use pointsman_chassis::ledger::Ledger;
use pointsman_chassis::serve::{self, Daemon};
use pointsman_chassis::{config, logs, tls};
use pointsman_core::Role;
use pointsman_lb_agent::{Config, LbHands, RouteFile};
use tracing::info;

/// The pointsman agent on a load balancer: keeps HAProxy's route, on orders of its coordinator.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The agent's own configuration.
    #[arg(long, global = true, default_value = "/etc/pointsman/lb-agent.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent (the default).
    Serve,
    /// Make sure that the map file holds a valid route before HAProxy starts; without one HAProxy would not start.
    CheckMap,
}

fn main() -> anyhow::Result<()> {
    tls::install_crypto();
    let arguments = Arguments::parse();
    let config: Config = config::read(&arguments.config).map_err(serve::explain)?;
    match arguments.command {
        Some(Command::CheckMap) => check_map(&config),
        Some(Command::Serve) | None => {
            logs::start();
            serve::runtime()?.block_on(run(config))
        }
    }
}

/// Leaves a valid file alone. A missing or broken one is replaced by the last confirmed route; where that is lost
/// too, by the maintenance page: a page that says "maintenance" beats a slot that nobody chose, and an HAProxy that
/// does not start.
fn check_map(config: &Config) -> anyhow::Result<()> {
    // HAProxy then starts without a file of the agent's.
    if !config.haproxy.owns_the_map() {
        return Ok(());
    }
    let file = RouteFile::of(config).map_err(serve::explain)?;
    if file.read().is_some() {
        return Ok(());
    }
    let maintenance = config.haproxy.maintenance_backend.0.clone();
    let route = file.remembered().unwrap_or(pointsman_core::Route {
        stable: maintenance.clone(),
        canary: maintenance,
        percent: 0,
        epoch: file.highest_epoch(),
    });
    file.write_here(&route)
        .map_err(serve::explain)
        .with_context(|| format!("no valid route in `{}`", config.haproxy.map.display()))
}

async fn run(config: Config) -> anyhow::Result<()> {
    let daemon = Daemon::start(config.pki.clone(), &[Role::LbAgent]).map_err(serve::explain)?;
    let ledger = Ledger::open(&config.state.join("receipts.db")).map_err(serve::explain)?;
    let listen = config.listen;
    let hands = LbHands::new(config).map_err(serve::explain)?;
    hands.resume_switch().await;
    let guarding = hands.clone();
    tokio::spawn(async move { guarding.guard_route().await });
    info!(name = %daemon.name(), %listen, "lb-agent starts");
    let probe = ledger.clone();
    let service = AgentService::new(hands, ledger, daemon.name());
    daemon.serve_agent(listen, service, move || probe.fence_state().map(drop)).await.map_err(serve::explain)
}
