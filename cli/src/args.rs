//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use pointsman_chassis::config::Span;
use pointsman_chassis::site_certificate::CertifiedName;
use pointsman_core::{BackupId, CheckName, EnvironmentName, HostName, ReleaseId, RequestId, SlotName};

/// Release a web application to plain VMs behind HAProxy, without a visitor noticing.
#[derive(Parser)]
#[command(name = "pointsman", version, arg_required_else_help = true, disable_help_subcommand = true)]
#[command(
    after_help = "Examples:\n  pointsman deploy production --artifact dist/ --release 4f2c1ab\n  pointsman rollback production\n\nExit codes: 0 done, 1 failed and traffic is where it was, 2 wrong usage or configuration, 3 rolled back,\n4 refused or undecided, 5 another release runs, 6 held for a person, 7 unreachable, 124 --timeout, 130 detached."
)]
pub struct Arguments {
    /// How results are shown.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Auto)]
    pub output: Output,
    /// Where the coordinators are and with which certificates; else ./pointsman.toml, ~/.config/pointsman/config.toml
    /// or /etc/pointsman/config.toml.
    #[arg(long, global = true, env = "POINTSMAN_CONFIG")]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub verb: Verb,
}

/// How results are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Live on a terminal, plain lines elsewhere.
    Auto,
    /// Live, with a moving line.
    Tty,
    /// One line for every event, nothing moves.
    Plain,
    /// One JSON document on standard output.
    Json,
    /// Markdown: `checklist` alone.
    Md,
    /// JUnit's XML, which CI shows: `checklist` alone.
    Junit,
}

/// Whether words that could not be understood ask for JSON.
pub fn wants_json(words: impl Iterator<Item = std::ffi::OsString>) -> bool {
    let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let joined = ["-ojson", "-o=json", "--output=json"];
    let mut pairs = words.iter().zip(words.iter().skip(1));
    words.iter().any(|word| joined.contains(&word.as_str()))
        || pairs.any(|(flag, value)| (flag == "-o" || flag == "--output") && value == "json")
}

#[derive(Subcommand)]
pub enum Verb {
    /// Show what a deploy would do. Changes nothing anywhere.
    Plan(Wish),
    /// Make an artifact live, watch it, and move visitors back if they fare badly.
    Deploy(Deploy),
    /// Show how an environment stands, or follow its release.
    Status(Status),
    /// Move visitors back to the slot that was live before. Asks nothing: the safe way is fast.
    Rollback(Rollback),
    /// Stop a release that has not moved visitors yet, and clean up after it.
    Abort(Ask),
    /// Hold a release where it stands until somebody resumes it. What watches it goes on watching.
    Pause(Ask),
    /// Let a held release go on where it stopped.
    Resume(Resume),
    /// End the watch of a release as soon as its gates are green: more visitors follow, or it is confirmed.
    Promote(Ask),
    /// List the releases that were.
    History {
        /// The environment, as `production`.
        environment: EnvironmentName,
        /// At most this many.
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Where visitors go.
    Traffic {
        #[command(subcommand)]
        verb: TrafficVerb,
    },
    /// The site's certificates.
    Cert {
        #[command(subcommand)]
        verb: CertVerb,
    },
    /// Make the checks of a slot now: on its hosts, and through the load balancers. Nothing is released.
    Check(Check),
    /// Show the checklist of a release with its evidence, or tick a point of it.
    Checklist(Checklist),
    /// The maintenance page.
    Maintenance {
        #[command(subcommand)]
        verb: MaintenanceVerb,
    },
    /// The database: backups, migrations, restore.
    Db {
        #[command(subcommand)]
        verb: DbVerb,
    },
    /// Look at everything a release needs, and say what is not as it should be.
    Doctor(Doctor),
    /// The environment's file on the coordinator.
    Config {
        #[command(subcommand)]
        verb: ConfigVerb,
    },
    /// The coordinator's record of everything that was asked, ordered and answered.
    Audit {
        #[command(subcommand)]
        verb: AuditVerb,
    },
    /// Make a certificate authority, certificates and first configuration files for a small set-up.
    Init(Init),
    /// Explain an error code. Works offline.
    Explain {
        /// The code, as `PM0401`.
        code: String,
    },
}

impl Verb {
    /// The environment that the verb is about, if it is about one.
    pub fn environment(&self) -> Option<EnvironmentName> {
        let environment = match self {
            Self::Plan(wish) => &wish.environment,
            Self::Deploy(deploy) => &deploy.wish.environment,
            Self::Status(status) => &status.environment,
            Self::Abort(ask) | Self::Pause(ask) | Self::Promote(ask) => &ask.environment,
            Self::Rollback(rollback) => &rollback.ask.environment,
            Self::Resume(resume) => &resume.ask.environment,
            Self::History { environment, .. } => environment,
            Self::Check(check) => &check.environment,
            Self::Checklist(checklist) => &checklist.environment,
            Self::Doctor(doctor) => return doctor.environment().cloned(),
            Self::Config { verb: ConfigVerb::Check { environment } } => environment,
            Self::Traffic { verb } => verb.environment(),
            Self::Cert { verb: CertVerb::Deploy { environment, .. } | CertVerb::Show { environment } } => {
                environment
            }
            Self::Maintenance { verb } => verb.environment(),
            Self::Db { verb } => verb.environment(),
            Self::Audit {
                verb: AuditVerb::Verify { environment } | AuditVerb::Accept { environment, .. },
            } => environment,
            Self::Init(_) | Self::Explain { .. } => return None,
        };
        Some(environment.clone())
    }
}

#[derive(Args)]
pub struct Check {
    /// The environment, as `production`.
    pub environment: EnvironmentName,
    /// Which slot; else the one that serves.
    #[arg(long)]
    pub slot: Option<SlotName>,
    /// Only this check, with what it builds on.
    #[arg(long)]
    pub name: Option<CheckName>,
}

#[derive(Args)]
pub struct Checklist {
    /// The environment, as `production`.
    pub environment: EnvironmentName,
    /// Which release; else the running one, or the last.
    #[arg(long)]
    pub release: Option<ReleaseId>,
    /// Vouch for this point, in your name: it is recorded with the release.
    #[arg(long, value_name = "POINT", requires = "release")]
    pub tick: Option<CheckName>,
    /// What you saw, for the record.
    #[arg(long, requires = "tick")]
    pub note: Option<String>,
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Doctor {
    #[command(subcommand)]
    part: Option<DoctorPart>,
    /// The environment, as `production`.
    #[arg(required = true)]
    environment: Option<EnvironmentName>,
}

#[derive(Subcommand)]
enum DoctorPart {
    /// The load balancers alone: HAProxy's sockets, map and configuration, with the line to add for whatever is missing.
    Lb {
        /// The environment, as `production`.
        environment: EnvironmentName,
    },
}

#[derive(Subcommand)]
pub enum ConfigVerb {
    /// Say whether the file is valid and in effect, and ask every monitoring service that its checks name once.
    Check {
        /// The environment, as `production`.
        environment: EnvironmentName,
    },
}

impl Doctor {
    /// The environment to look at, which the command line must name.
    pub fn environment(&self) -> Option<&EnvironmentName> {
        match &self.part {
            Some(DoctorPart::Lb { environment }) => Some(environment),
            None => self.environment.as_ref(),
        }
    }

    /// Whether the load balancers alone are looked at.
    pub fn balancers_only(&self) -> bool {
        self.part.is_some()
    }
}

/// What is to be released.
#[derive(Args)]
pub struct Wish {
    /// The environment, as `production`.
    pub environment: EnvironmentName,
    /// A folder of files, published first, or the digest of an artifact that was published before.
    #[arg(long)]
    pub artifact: String,
    /// The release's id, unique in its environment: the commit, as a rule.
    #[arg(long)]
    pub release: Option<ReleaseId>,
    /// What CI calls this request (the pipeline): a repeated job attaches to its release instead of starting another.
    #[arg(long)]
    pub request_id: Option<RequestId>,
    /// Why, for the record.
    #[arg(long)]
    pub reason: Option<String>,
    /// The files of its migrations: a folder, published first, or the digest of one that was published before. They are
    /// rehearsed on a restored backup and applied before any visitor meets the new version.
    #[arg(long, value_name = "FOLDER|DIGEST")]
    pub migrations: Option<String>,
    /// A version of these that may be older than one which is applied already. Once for each.
    #[arg(long, value_name = "VERSION", requires = "migrations")]
    pub out_of_order: Vec<String>,
    /// Move all visitors at once, without the shares that the environment's strategy begins with.
    #[arg(long)]
    pub at_once: bool,
    /// The version mends a site that fails already: where the limits are tighter it is held to what was counted before.
    #[arg(long)]
    pub fix_forward: bool,
}

#[derive(Args)]
pub struct Deploy {
    #[command(flatten)]
    pub wish: Wish,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub waiting: Waiting,
}

/// How long the command stays.
#[derive(Args)]
pub struct Waiting {
    /// Return as soon as the release is accepted; it goes on by itself.
    #[arg(long)]
    pub detach: bool,
    /// Stop waiting after this time (`30m`) with exit code 124; the release goes on.
    #[arg(long, value_parser = span)]
    pub timeout: Option<Span>,
}

fn span(text: &str) -> Result<Span, String> {
    Span::parse(text)
        .ok_or_else(|| "expected a length of time such as `500ms`, `30s`, `10m`, `2h` or `3d`".to_owned())
}

#[derive(Args)]
pub struct Status {
    /// The environment, as `production`.
    pub environment: EnvironmentName,
    /// This release instead of the last one; the exit code is that of its deploy.
    #[arg(long)]
    pub release: Option<ReleaseId>,
    /// Stay until the release is over.
    #[arg(short, long)]
    pub follow: bool,
    #[command(flatten)]
    pub waiting: Waiting,
}

#[derive(Args)]
pub struct Ask {
    /// The environment, as `production`.
    pub environment: EnvironmentName,
    /// Only if this release is the one that runs; for `rollback` also if it is the one that is live.
    #[arg(long)]
    pub release: Option<ReleaseId>,
    /// Why, for the record.
    #[arg(long)]
    pub reason: Option<String>,
    /// What CI calls this request.
    #[arg(long)]
    pub request_id: Option<RequestId>,
    #[command(flatten)]
    pub waiting: Waiting,
}

#[derive(Args)]
pub struct Rollback {
    #[command(flatten)]
    pub ask: Ask,
    /// A load balancer that is out of service: it does not answer, and the others are moved without it. Once for each.
    #[arg(long, value_name = "HOST")]
    pub without: Vec<HostName>,
}

#[derive(Args)]
pub struct Resume {
    #[command(flatten)]
    pub ask: Ask,
    /// A host that is gone for good, and holds a release on its way back: the others go back without it. Needs `--reason`.
    /// Once for each.
    #[arg(long, value_name = "HOST", requires = "reason")]
    pub without: Vec<HostName>,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
}

#[derive(Subcommand)]
pub enum TrafficVerb {
    /// Show the route and the backends of every load balancer.
    Show {
        /// The environment, as `production`.
        environment: EnvironmentName,
    },
    /// Show what visitors meet, second by second: rate, errors and latency of every slot.
    ///
    /// Needs the access lines of every load balancer: see docs/signals.md. With `-o json` every second is one line.
    Watch {
        /// The environment, as `production`.
        environment: EnvironmentName,
        /// Stop so long after the first second that is shown (`30s`); else at Ctrl-C.
        #[arg(long = "for", value_parser = span)]
        length: Option<Span>,
    },
    /// List the addresses whose requests the load balancers count, the busiest first.
    Limits {
        /// The environment, as `production`.
        environment: EnvironmentName,
        /// Only those with more requests than this in the table's period.
        #[arg(long, default_value_t = 0)]
        min_rate: u32,
    },
    /// Have every load balancer forget what it has counted for one address.
    Unblock {
        /// The environment, as `production`.
        environment: EnvironmentName,
        /// The address, IPv4 or IPv6.
        address: std::net::IpAddr,
    },
}

impl TrafficVerb {
    fn environment(&self) -> &EnvironmentName {
        match self {
            Self::Show { environment }
            | Self::Watch { environment, .. }
            | Self::Limits { environment, .. }
            | Self::Unblock { environment, .. } => environment,
        }
    }
}

#[derive(Subcommand)]
pub enum CertVerb {
    /// Have every load balancer serve a renewed certificate, one after the other, without a reload.
    ///
    /// Each puts it on disk, hands it to HAProxy and sees it in a new handshake; if that fails, the one before is put
    /// back, and the load balancers after it are not asked.
    Deploy {
        /// The environment, as `production`.
        environment: EnvironmentName,
        /// Certificate, chain and private key in one file, PEM.
        #[arg(long, value_name = "PEM")]
        file: PathBuf,
        /// Which certificate, as `haproxy.cfg` names it; not needed where there is only one.
        #[arg(long)]
        path: Option<String>,
        /// A name of the certificate in place that this one may lack: whoever asks for it then meets an error. Once for each.
        #[arg(long, value_name = "NAME")]
        drop_name: Vec<CertifiedName>,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
    /// Show the certificates that may be renewed. Exit code 3 if one has ended or is not what is on disk.
    Show {
        /// The environment, as `production`.
        environment: EnvironmentName,
    },
}

#[derive(Subcommand)]
pub enum AuditVerb {
    /// Verify the whole journal, and compare its end with what the agents have acted on.
    ///
    /// Exit code 0 if it can be trusted, 6 if not, 4 if an agent cannot be asked.
    Verify {
        /// The environment whose agents are asked, as `production`. The journal is one for all environments.
        environment: EnvironmentName,
    },
    /// Go on with a journal that is older than what the agents know, because the newest is gone for good.
    ///
    /// Every agent of the environment must answer. Afterwards look at `status` and `traffic show`: the journal does not
    /// know of releases that were made since.
    Accept {
        /// The environment, as `production`.
        environment: EnvironmentName,
        /// Its name once more.
        #[arg(long, value_name = "ENVIRONMENT")]
        confirm: EnvironmentName,
    },
}

#[derive(Subcommand)]
pub enum MaintenanceVerb {
    /// Put the maintenance page up on every load balancer.
    On {
        /// The environment, as `production`.
        environment: EnvironmentName,
        /// How long it is meant to be up, for people to see. Nothing takes it down by itself.
        #[arg(long = "for", value_parser = span)]
        length: Option<Span>,
        /// Why, for the record and `status`.
        #[arg(long)]
        reason: Option<String>,
        /// A load balancer that is out of service: it does not answer, and the others are moved without it. Once for each.
        #[arg(long, value_name = "HOST")]
        without: Vec<HostName>,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Take the maintenance page down. Asks nothing.
    Off {
        /// The environment, as `production`.
        environment: EnvironmentName,
        /// A load balancer that is out of service: it does not answer, and the others are moved without it. Once for each.
        #[arg(long, value_name = "HOST")]
        without: Vec<HostName>,
        #[arg(short, long, hide = true)]
        yes: bool,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Show whether the maintenance page is up: exit code 0 if it is down, 3 if it is up.
    Status {
        /// The environment, as `production`.
        environment: EnvironmentName,
    },
}

impl MaintenanceVerb {
    fn environment(&self) -> &EnvironmentName {
        match self {
            Self::On { environment, .. } | Self::Off { environment, .. } | Self::Status { environment } => {
                environment
            }
        }
    }
}

#[derive(Subcommand)]
pub enum DbVerb {
    /// Show the database: version of its schema, what is applied, backups, and what runs just now.
    Status {
        /// The environment, as `production`.
        environment: EnvironmentName,
    },
    /// List the backups, newest first.
    List {
        /// The environment, as `production`.
        environment: EnvironmentName,
    },
    /// Take a backup, and check it as the environment says.
    Backup(DbWork),
    /// Check a backup again: everything is read and, as the environment says, restored into a database of its own.
    Verify {
        #[command(flatten)]
        work: DbWork,
        /// The backup, as `db list` names it.
        #[arg(long)]
        backup: BackupId,
    },
    /// Apply the migrations that the version before would not have survived. Afterwards nothing leads back to it.
    Contract {
        #[command(flatten)]
        work: DbWork,
        /// The files: a folder, published first, or the digest of one that was published before.
        #[arg(long, value_name = "FOLDER|DIGEST")]
        migrations: String,
        /// A version of these that may be older than one which is applied already. Once for each.
        #[arg(long, value_name = "VERSION")]
        out_of_order: Vec<String>,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
    /// Take the newest version back by its down file. Its rows in what the version had added are lost.
    Down {
        #[command(flatten)]
        work: DbWork,
        /// The version, as `1.10.0`.
        version: String,
        /// The files: a folder, published first, or the digest of one that was published before.
        #[arg(long, value_name = "FOLDER|DIGEST")]
        migrations: String,
        /// The environment's name once more, where nobody can be asked.
        #[arg(long, value_name = "ENV")]
        confirm: Option<EnvironmentName>,
    },
    /// Restore a backup beside the live database, say what would be lost with it and, when that is accepted, make it the
    /// live one. The database that was live is kept.
    Restore {
        #[command(flatten)]
        work: DbWork,
        /// The backup, as `db list` names it.
        #[arg(long)]
        backup: BackupId,
        /// The environment's name once more, where nobody can be asked. Without `--accept-loss` it restores beside and says
        /// the loss, and no more.
        #[arg(long, value_name = "ENVIRONMENT")]
        confirm: Option<EnvironmentName>,
        /// How many rows written since the backup (with `--undo`: since the swap) are given up: the number that was shown,
        /// or more.
        #[arg(long, value_name = "ROWS")]
        accept_loss: Option<u64>,
        /// Make the database that was live before such a restore the live one again.
        #[arg(long)]
        undo: bool,
        /// Drop the database of this restore that is not live: nothing leads back to it.
        #[arg(long, conflicts_with_all = ["accept_loss", "undo"])]
        settle: bool,
    },
}

/// What every verb that changes something of the database takes.
#[derive(Args)]
pub struct DbWork {
    /// The environment, as `production`.
    pub environment: EnvironmentName,
    /// Why, for the record.
    #[arg(long)]
    pub reason: Option<String>,
    /// What CI calls this request.
    #[arg(long)]
    pub request_id: Option<RequestId>,
    #[command(flatten)]
    pub waiting: Waiting,
}

impl DbVerb {
    fn environment(&self) -> &EnvironmentName {
        match self {
            Self::Status { environment } | Self::List { environment } => environment,
            Self::Backup(work)
            | Self::Verify { work, .. }
            | Self::Contract { work, .. }
            | Self::Down { work, .. }
            | Self::Restore { work, .. } => &work.environment,
        }
    }
}

#[derive(Args)]
pub struct Init {
    /// The environment.
    #[arg(long)]
    pub environment: EnvironmentName,
    /// The domain in every name of a certificate, as `example.org`.
    #[arg(long)]
    pub trust_domain: String,
    /// The folder to write to. An authority that is there already is used again.
    #[arg(long)]
    pub dir: PathBuf,
    /// The coordinator, as `NAME=HOST:PORT`.
    #[arg(long)]
    pub coordinator: Peer,
    /// A load balancer, as `NAME=HOST:PORT`. Once for each.
    #[arg(long)]
    pub balancer: Vec<Peer>,
    /// A web host, as `NAME=HOST:PORT`. Once for each: the first becomes blue, the second green.
    #[arg(long)]
    pub web: Vec<Peer>,
    /// The database's host, as `NAME=HOST:PORT`.
    #[arg(long)]
    pub database: Option<Peer>,
    /// A person who may change things. Once for each.
    #[arg(long, default_value = "admin")]
    pub operator: Vec<String>,
    /// A CI project that may release. Once for each.
    #[arg(long)]
    pub ci: Vec<String>,
    /// A person or program that may look. Once for each.
    #[arg(long)]
    pub viewer: Vec<String>,
    /// Make a new key and certificate for this one of them, though it has some. Once for each.
    #[arg(long, value_name = "NAME")]
    pub renew: Vec<String>,
}

/// `NAME=HOST:PORT`.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The name in its certificate.
    pub name: pointsman_core::HostName,
    /// Where it listens.
    pub address: String,
}

impl std::str::FromStr for Peer {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("`{text}`: expected `NAME=HOST:PORT`");
        let (name, address) = text.split_once('=').ok_or_else(expected)?;
        let port = address.rsplit_once(':').map(|(_, port)| port).ok_or_else(expected)?;
        port.parse::<u16>().map_err(|_| expected())?;
        Ok(Self {
            name: name.parse().map_err(|error: pointsman_core::InvalidName| error.to_string())?,
            address: address.to_owned(),
        })
    }
}
