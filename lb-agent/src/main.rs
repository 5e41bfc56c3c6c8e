//! `pointsman-lb-agent`: wires configuration, receipts, certificates and the gRPC service together.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use pointsman_chassis::agent_service::AgentService;
use pointsman_chassis::ledger::Ledger;
use pointsman_chassis::serve::{self, Daemon};
use pointsman_chassis::{config, logs, tls};
use pointsman_core::{HttpPath, Role};
use pointsman_lb_agent::{Config, LbHands, RouteFile, Server, Wishes, snippet};
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
    /// Print what HAProxy's configuration needs, made for this load balancer, in parts to paste.
    ConfigSnippet(ConfigSnippet),
}

#[derive(Args)]
struct ConfigSnippet {
    /// Where visitors come in, as `:80`; else the port that `[frontend]` names. Once for each.
    #[arg(long, value_name = "ADDR")]
    bind: Vec<String>,
    /// A server of a slot, as `be_blue=10.0.0.11:8080`. Once for each; with `driver = "server-state"` in the order of
    /// `[haproxy.servers]`.
    #[arg(long, value_name = "BACKEND=HOST:PORT")]
    server: Vec<Server>,
    /// What HAProxy asks a server for, to see whether it is well.
    #[arg(long, value_name = "PATH", default_value = "/")]
    check_path: HttpPath,
    /// The site's host name; else that of `[frontend]`.
    #[arg(long, value_name = "HOST")]
    site_host: Option<String>,
    /// Serve over TLS with the certificate chain and key in this file.
    #[arg(long, value_name = "PATH")]
    tls_cert: Option<PathBuf>,
    /// The page in maintenance, under 15 KiB; else a line of text.
    #[arg(long, value_name = "PATH")]
    page: Option<PathBuf>,
    /// Where HAProxy reaches the agent with access lines; else the address that `[signals]` names.
    #[arg(long, value_name = "ADDR")]
    log: Option<SocketAddr>,
}

fn main() -> anyhow::Result<()> {
    tls::install_crypto();
    let arguments = Arguments::parse();
    let config: Config = config::read(&arguments.config).map_err(serve::explain)?;
    match arguments.command {
        Some(Command::CheckMap) => check_map(&config),
        Some(Command::ConfigSnippet(wanted)) => config_snippet(&config, wanted),
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

/// The group of HAProxy's command socket, on a host that has it.
const GROUP: &str = "pointsman";

fn config_snippet(config: &Config, wanted: ConfigSnippet) -> anyhow::Result<()> {
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let has_group = groups.lines().any(|line| line.split(':').next() == Some(GROUP));
    let wishes = Wishes {
        bind: wanted.bind,
        servers: wanted.server,
        check_path: wanted.check_path,
        site_host: wanted.site_host,
        tls_cert: wanted.tls_cert,
        page: wanted.page,
        log: wanted.log,
        group: has_group.then(|| GROUP.to_owned()),
    };
    let text = snippet(config, &wishes).map_err(serve::explain)?;
    std::io::stdout().write_all(text.as_bytes()).context("cannot write the fragment")
}

async fn run(config: Config) -> anyhow::Result<()> {
    let daemon = Daemon::start(config.pki.clone(), &[Role::LbAgent]).map_err(serve::explain)?;
    let ledger = Ledger::open(&config.state.join("receipts.db")).map_err(serve::explain)?;
    let listen = config.listen;
    let hands = LbHands::new(config).map_err(serve::explain)?;
    hands.settle_at_start().await;
    let guarding = hands.clone();
    tokio::spawn(async move { guarding.guard_route().await });
    let gathering = hands.clone();
    tokio::spawn(async move { gathering.gather_signals().await });
    let renewing = hands.clone();
    tokio::spawn(async move { renewing.watch_certificates().await });
    info!(name = %daemon.name(), %listen, "lb-agent starts");
    let probe = ledger.clone();
    let service = AgentService::new(hands, ledger, daemon.name());
    daemon.serve_agent(listen, service, move || probe.works()).await.map_err(serve::explain)
}
