//! `pointsman-agent`: wires configuration, receipts, certificates and the gRPC service together.

use std::path::PathBuf;

use clap::Parser;
use pointsman_agent::{Config, DatabaseHands, WebHands};
use pointsman_chassis::agent_service::{AgentService, Hands};
use pointsman_chassis::ledger::Ledger;
use pointsman_chassis::serve::{self, Daemon};
use pointsman_chassis::{config, logs, tls};
use pointsman_core::{Code, Problem, Role};
use tracing::info;

/// The pointsman agent on a web host or a database's: brings artifacts and makes them current, or backs up, migrates and
/// restores, on orders of its coordinator.
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
    match (config.web.clone(), config.database.clone()) {
        (Some(web), None) => {
            let daemon = Daemon::start(config.pki.clone(), &[Role::WebAgent]).map_err(serve::explain)?;
            let hands = WebHands::new(config.clone(), web).map_err(serve::explain)?;
            act_with(hands, daemon, &config).await
        }
        (None, Some(database)) => {
            let daemon = Daemon::start(config.pki.clone(), &[Role::DatabaseAgent]).map_err(serve::explain)?;
            let hands = DatabaseHands::new(database, config.migrations.clone()).map_err(serve::explain)?;
            hands.recover().await;
            act_with(hands, daemon, &config).await
        }
        _ => Err(serve::explain(
            Problem::new(
                Code::ConfigInvalid,
                "the configuration needs `[web]` or `[database]`, and one of them",
            )
            .hint(
                "a host that is both runs two agents, each with a certificate, a file and a state of its own",
            ),
        )),
    }
}

async fn act_with(hands: impl Hands, daemon: Daemon, config: &Config) -> anyhow::Result<()> {
    let ledger = Ledger::open(&config.state.join("receipts.db")).map_err(serve::explain)?;
    let listen = config.listen;
    info!(name = %daemon.name(), %listen, "agent starts");
    let probe = ledger.clone();
    let service = AgentService::new(hands, ledger, daemon.name());
    daemon.serve_agent(listen, service, move || probe.works()).await.map_err(serve::explain)
}
