//! `pointsman-coordinator`: wires configuration, journal, artifact store, environments and the gRPC service together.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use futures_util::future::try_join_all;
use pointsman_chassis::serve::{self, Daemon};
use pointsman_chassis::{config, logs, tls};
use pointsman_coordinator::journal::{self, JournalStore};
use pointsman_coordinator::{
    Api, ArtifactStore, Config, Environment, FilelessEnvironments, Office, audit, lock, look_after_disk,
};
use pointsman_core::{Code, Problem, Role};
use pointsman_proto::MAX_MESSAGE_BYTES;
use pointsman_proto::v1::coordinator_server::CoordinatorServer;
use tonic::service::Routes;
use tracing::{info, warn};

/// The pointsman coordinator: decides, records, orders the agents, and serves the command line and CI.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The coordinator's own configuration.
    #[arg(long, global = true, default_value = "/etc/pointsman/coordinator.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the coordinator (the default).
    Serve,
    /// Verify the journal without running. Changes nothing: exit code 0 if it is whole, 6 if it cannot be trusted.
    VerifyJournal,
    /// Put a journal of what can be believed in the place of a damaged one, and keep that aside. Refused while a coordinator uses
    /// it, and for a journal that is whole.
    SalvageJournal,
    /// Read every environment file, as at a start, and say what is wrong. Changes nothing: exit code 0 if all are valid.
    CheckConfig,
}

/// The exit code of a journal that cannot be trusted: the same as `pointsman audit verify` has for it.
const UNTRUSTED: u8 = 6;

fn main() -> anyhow::Result<ExitCode> {
    tls::install_crypto();
    let arguments = Arguments::parse();
    let config: Config = config::read(&arguments.config).map_err(serve::explain)?;
    match arguments.command {
        Some(Command::VerifyJournal) => verify_journal(&config),
        Some(Command::SalvageJournal) => salvage_journal(&config),
        Some(Command::CheckConfig) => check_config(&config),
        Some(Command::Serve) | None => {
            logs::start();
            serve::runtime()?.block_on(run(config)).map(|()| ExitCode::SUCCESS)
        }
    }
}

/// Says whether the journal is what was written. What agents know of it only a running coordinator can ask them.
fn verify_journal(config: &Config) -> anyhow::Result<ExitCode> {
    let verified = journal::verify_file(&journal_of(config)).map_err(serve::explain)?;
    let mut text = audit::text(&audit::of_journal(&verified));
    let whole = verified.first_problem.is_none();
    text.push_str(if whole {
        "the journal is whole; whether agents know more than it, a running coordinator says: `pointsman audit verify ENV`\n"
    } else {
        "the journal cannot be trusted: `pointsman explain PM0703` says what to do, and when `salvage-journal` helps\n"
    });
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::from(UNTRUSTED) })
}

/// Makes a journal of what a damaged one still holds. What agents know beyond it they say when the coordinator starts.
fn salvage_journal(config: &Config) -> anyhow::Result<ExitCode> {
    let _nobody_else = lock(&config.state).map_err(serve::explain)?;
    let salvaged = journal::salvage(&journal_of(config)).map_err(serve::explain)?;
    std::io::stdout().write_all(journal::salvaged_text(&salvaged).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Says whether the coordinator would start with its environment files. Whether what they say holds, a running one finds
/// out: `pointsman config check ENV`.
fn check_config(config: &Config) -> anyhow::Result<ExitCode> {
    let environments = environments(&config.environments).map_err(serve::explain)?;
    let mut text = String::new();
    for environment in &environments {
        text.push_str(&format!("{} is valid\n", environment.file.display()));
    }
    if environments.is_empty() {
        text.push_str(&format!("there is no environment in `{}`\n", config.environments.display()));
    }
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn journal_of(config: &Config) -> PathBuf {
    config.state.join("journal.db")
}

/// Every `NAME.toml` in the folder, parsed. One that is wrong keeps the coordinator from starting: half a fleet of
/// environments would be a surprise.
fn environments(folder: &Path) -> Result<Vec<Environment>, Problem> {
    let unreadable = |error: &std::io::Error| {
        Problem::new(Code::ConfigInvalid, format!("cannot read the folder `{}`", folder.display()))
            .because(error)
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| unreadable(&error))? {
        let path = entry.map_err(|error| unreadable(&error))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| Environment::read(path)).collect()
}

async fn run(config: Config) -> anyhow::Result<()> {
    let daemon = Daemon::start(config.pki.clone(), &[Role::Coordinator]).map_err(serve::explain)?;
    let credentials = daemon.credentials();
    let (state, path, principal) = (config.state.clone(), journal_of(&config), daemon.name().to_string());
    let file = path.clone();
    let opening = journal::told_of(&file, move || {
        let only_one = lock(&state)?;
        let journal = JournalStore::open(&path, &principal)?;
        Ok((only_one, journal, ArtifactStore::open(state.join("artifacts"))?))
    });
    let (_only_one, journal, store) = opening.await.map_err(serve::explain)?;
    let verdicts = config.state.join("verdicts");
    let holder = format!("{} pid {}", daemon.name().name, std::process::id());
    if !journal.keep_room().await {
        warn!("no room can be set aside for the way back");
    }
    // All at once: an agent that hangs in one environment must not keep the others waiting.
    let opening =
        environments(&config.environments).map_err(serve::explain)?.into_iter().map(|environment| {
            let places = (journal.clone(), store.clone(), verdicts.as_path());
            Office::open(environment, places, &credentials, holder.clone())
        });
    let offices: Vec<Arc<Office>> = try_join_all(opening).await.map_err(serve::explain)?;
    let rest = journal.clone();
    tokio::spawn(async move { rest.verify_the_rest().await });
    let fileless = FilelessEnvironments::default();
    tokio::spawn(look_after_disk(journal.clone(), store.clone(), offices.clone(), fileless.clone()));
    let (tried, served) = (journal.clone(), offices.clone());
    tokio::spawn(async move {
        tried.keep_trying(|| served.iter().any(|office| office.open_release().is_some())).await;
    });
    info!(name = %daemon.name(), environments = offices.len(), listen = %config.listen, "coordinator starts");
    let watched = offices.clone();
    let api =
        CoordinatorServer::new(Api::new((offices, fileless), journal, store, credentials, daemon.shutdown()))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
    // A journal that cannot be written, or whose disk hangs, is trouble that a restart does not cure, and would take away who
    // tells of it, so the watchdog is fed: `status`, `doctor` and the log say it. Reaching every office shows that none hangs.
    let alive = move || {
        watched.iter().for_each(|office| drop(office.trouble()));
        Ok(())
    };
    daemon.serve(config.listen, Routes::new(api), alive).await.map_err(serve::explain)
}
