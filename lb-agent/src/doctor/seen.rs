//! What the preflight looks at: HAProxy's answers, its files, the socket's owner. Looking decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pointsman_chassis::http_check::Answer;
use pointsman_core::{Code, Problem, Route};

use super::reach;
use crate::balancer::Balancer;
use crate::config::{CertificatePath, Haproxy};
use crate::fit::{self, Fit};
use crate::haproxy_cfg::{HaproxyConfig, MAX_BYTES};
use crate::loaded::{self, USUAL_CONFIG};
use crate::own_address;
use crate::reply::{self, CliSocket, Info, Limits, Processes, StatRow};
use crate::socket::Endpoint;
use crate::workers::Workers;

/// Most files that are read of one configuration: HAProxy reads them all at start, nobody has thousands.
const MAX_FILES: usize = 256;

/// Most maps whose values are asked for: a site has one of hosts.
const MAX_MAPS: usize = 16;

/// Who owns a file and who may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// HAProxy's configuration as it stands on disk.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// What stands in the files.
    pub config: HaproxyConfig,
    /// The files, as they were read.
    pub files: Vec<PathBuf>,
    /// Those that HAProxy has loaded and that are not there any more.
    pub gone: Vec<PathBuf>,
    /// Those that have come into a folder of which HAProxy has loaded every file.
    pub new: Vec<PathBuf>,
    /// How long ago the youngest of them was changed.
    pub changed: Option<Duration>,
    /// Sizes of the pages that the maintenance backend answers with, or why they cannot be read.
    pub pages: BTreeMap<String, Result<u64, String>>,
}

/// Everything that was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What lb-agent.toml says of HAProxy.
    pub wanted: Haproxy,
    /// The site's host name, and where the agent asks for it.
    pub host: String,
    /// See `host`.
    pub asked: SocketAddr,
    /// Whether the agent speaks the PROXY protocol there.
    pub proxy_protocol: bool,
    /// The path that the agent asks for when it looks at the route, and what came for an answer.
    pub path: String,
    /// See `path`.
    pub answer: Result<Answer, String>,
    /// The address from which the agent asks the frontend.
    pub source: Option<IpAddr>,
    /// Why another machine than this answers there, if one does, and what mends it.
    pub elsewhere: Option<(String, String)>,
    /// Where the agent takes access lines in, if it does.
    pub log_to: Option<SocketAddr>,
    /// `show info`.
    pub info: Result<Info, Problem>,
    /// The files that HAProxy says it has loaded, if it says so by whole paths.
    pub loaded: Option<Vec<PathBuf>>,
    /// Limits of the worker.
    pub limits: Result<Limits, Problem>,
    /// Level of the agent's socket.
    pub level: Result<String, Problem>,
    /// Every command socket.
    pub sockets: Result<Vec<CliSocket>, Problem>,
    /// The agent's socket in the file system; the error in words.
    pub socket_file: Result<Owner, String>,
    /// The master's socket, where lb-agent.toml names one; the same.
    pub master_file: Option<Result<Owner, String>>,
    /// User and group of the agent.
    pub own: (u32, u32),
    /// What the master says; `None` without a master socket in lb-agent.toml.
    pub processes: Option<Result<Processes, Problem>>,
    /// Files of every map that HAProxy has loaded.
    pub maps: Result<Vec<String>, Problem>,
    /// Keys and values of the agent's map.
    pub entries: Result<Vec<(String, String)>, Problem>,
    /// What stands in the other maps by which HAProxy's configuration names backends, by file.
    pub values: BTreeMap<String, Result<Vec<String>, Problem>>,
    /// The route on disk.
    pub on_disk: Option<Route>,
    /// The route that was confirmed last, and the one that the agent itself led to last.
    pub confirmed: Option<Route>,
    /// See `confirmed`.
    pub begun: Option<Route>,
    /// Why a reload may bring another route than the one that the agent has set, if it may.
    pub unkept: Option<String>,
    /// Every backend.
    pub backends: Result<Vec<String>, Problem>,
    /// `show stat`.
    pub rows: Result<Vec<StatRow>, Problem>,
    /// Which driver fits.
    pub fit: Result<Fit, Problem>,
    /// The certificates that may be renewed, with the length of what is in place, in bytes; the error in words.
    pub certificates: Vec<(CertificatePath, Result<u64, String>)>,
    /// OCSP responses beside certificates that may be renewed that are of other certificates.
    pub foreign_responses: Vec<String>,
    /// HAProxy's configuration.
    pub written: Result<Written, Problem>,
}

/// Looks at everything.
pub async fn look(balancer: &Balancer, log_to: Option<SocketAddr>) -> Seen {
    let wanted = balancer.config.haproxy.clone();
    let workers = &balancer.workers;
    let named = balancer.loaded.ask(workers).await;
    let relative = named.iter().flatten().find(|path| !path.is_absolute()).cloned();
    let loaded = named.filter(|_| relative.is_none());
    let files = files_of(&wanted, loaded.as_deref());
    let is_loaded = wanted.config.is_empty() && loaded.is_some();
    let unnamed = relative.filter(|_| wanted.config.is_empty());
    let (maintenance, socket) = (wanted.maintenance_backend.0.to_string(), wanted.socket.clone());
    let master = wanted.master.as_ref().map(|path| Endpoint::Unix(path.0.0.clone()));
    let certificates: Vec<CertificatePath> =
        wanted.certificates.iter().map(|granted| granted.path.0.clone()).collect();
    let granted = balancer.certificates.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let lengths = certificates.into_iter().map(|path| {
            let length = std::fs::metadata(path.as_path()).map(|found| found.len());
            (path, length.map_err(|error| error.to_string()))
        });
        (
            read(&files, is_loaded, &maintenance),
            owner(&socket.0),
            master.as_ref().map(owner),
            lengths.collect(),
            granted.foreign_responses(),
        )
    });
    let (written, socket_file, master_file, certificates, foreign_responses) =
        reading.await.unwrap_or_else(|error| {
            let unread = unreadable(Path::new(USUAL_CONFIG), &error.to_string());
            (Err(unread), Err(error.to_string()), None, Vec::new(), Vec::new())
        });
    // What stands elsewhere says nothing of what was loaded.
    let written = unnamed.map_or(written, |name| Err(not_found(&name)));
    let map_name = wanted.map_name();
    let values = values(
        workers,
        written.as_ref().map_or_else(|_| BTreeSet::new(), |written| reach::maps(&written.config, &map_name)),
    )
    .await;
    let show_map = ["show", "map", &map_name];
    // Together, so that an HAProxy which accepts and stays silent costs two deadlines and not ten; in two halves, because
    // its socket takes ten connections.
    let (info, limits, level, sockets, processes) = tokio::join!(
        workers.info(),
        workers.ask(&["show", "info"], reply::limits),
        workers.ask(&["show", "cli", "level"], reply::cli_level),
        workers.ask(&["show", "cli", "sockets"], reply::cli_sockets),
        workers.processes(),
    );
    let (maps, entries, backends, rows, answer) = tokio::join!(
        workers.ask(&["show", "map"], reply::maps),
        workers.ask(&show_map, reply::map_entries),
        workers.backends(),
        workers.stat(),
        balancer.look("stable"),
    );
    let elsewhere = balancer.elsewhere().map(|why| (why, own_address::line(&balancer.config.frontend)));
    Seen {
        path: balancer.config.frontend.path.0.as_str().to_owned(),
        answer,
        proxy_protocol: balancer.frontend.proxy_protocol,
        host: balancer.frontend.host.clone(),
        asked: balancer.frontend.address,
        source: own_address::source_towards(balancer.frontend.address),
        elsewhere,
        log_to,
        info,
        loaded,
        limits,
        level,
        sockets,
        socket_file,
        master_file,
        own: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        processes,
        maps,
        entries,
        values,
        on_disk: balancer.file.read(),
        confirmed: balancer.file.remembered(),
        begun: balancer.file.begun(),
        unkept: balancer.file.unkept(),
        backends,
        rows,
        fit: fit::look(balancer).await,
        certificates,
        foreign_responses,
        written,
        wanted,
    }
}

/// What stands in these maps.
async fn values(workers: &Workers, maps: BTreeSet<String>) -> BTreeMap<String, Result<Vec<String>, Problem>> {
    let mut values = BTreeMap::new();
    for map in maps.into_iter().take(MAX_MAPS) {
        let entries = workers.ask(&["show", "map", &map], reply::map_entries).await;
        let found = entries.map(|entries| entries.into_iter().map(|(_, value)| value).collect());
        values.insert(map, found);
    }
    values
}

/// Says that the files which HAProxy has loaded are not found by the name that it knows them by.
fn not_found(name: &Path) -> Problem {
    let message =
        format!("HAProxy was started with `-f {}`, and from which folder is not known", name.display());
    Problem::new(Code::ConfigInvalid, message)
        .hint("name its files in lb-agent.toml, `config = \"/etc/haproxy/haproxy.cfg\"` in `[haproxy]`, or start it with whole paths")
}

/// The files to read: those of lb-agent.toml; else those that HAProxy has loaded, so that no others are taken for them;
/// else the usual one.
fn files_of(wanted: &Haproxy, loaded: Option<&[PathBuf]>) -> Vec<PathBuf> {
    match (wanted.config.as_slice(), loaded) {
        ([], Some(loaded)) => loaded.to_vec(),
        ([], None) => vec![PathBuf::from(USUAL_CONFIG)],
        (named, _) => named.to_vec(),
    }
}

fn owner(socket: &Endpoint) -> Result<Owner, String> {
    let Endpoint::Unix(path) = socket else {
        return Err(format!("`{socket}` has no owner: only a firewall rule keeps others from it"));
    };
    let found = std::fs::metadata(path).map_err(|error| format!("`{}`: {error}", path.display()))?;
    Ok(Owner { mode: found.mode() & 0o7777, uid: found.uid(), gid: found.gid() })
}

fn unreadable(path: &Path, why: &str) -> Problem {
    let path = path.display();
    let hint = format!(
        "on the load balancer: `chgrp pointsman {path} && chmod g+r {path}`, and `g+x` on its folder"
    );
    Problem::new(Code::ConfigInvalid, format!("cannot read `{path}`: {why}")).hint(hint)
}

/// Reads HAProxy's configuration: files, and of folders every `*.cfg` by name, as HAProxy does. Where HAProxy said that it has
/// loaded them, one that is gone is told, and so is one that has come.
pub fn read(paths: &[PathBuf], is_loaded: bool, maintenance: &str) -> Result<Written, Problem> {
    let mut files = Vec::new();
    for path in paths {
        files.extend(files_in(path)?);
    }
    if files.len() > MAX_FILES {
        let first = files.first().cloned().unwrap_or_default();
        return Err(unreadable(&first, &format!("there are {} files, more than {MAX_FILES}", files.len())));
    }
    let (mut texts, mut bytes) = (Vec::new(), 0u64);
    let mut youngest: Option<SystemTime> = None;
    let mut gone = Vec::new();
    for file in &files {
        let failed = |error: std::io::Error| unreadable(file, &error.to_string());
        let found = match std::fs::metadata(file) {
            // One that lb-agent.toml names wrongly is told as such.
            Err(error) if error.kind() == ErrorKind::NotFound && is_loaded => {
                gone.push(file.clone());
                continue;
            }
            found => found.map_err(failed)?,
        };
        bytes = bytes.saturating_add(found.len());
        if bytes > MAX_BYTES || !found.is_file() {
            return Err(unreadable(file, "it is too large, or no file"));
        }
        youngest = youngest.max(found.modified().ok());
        let text = std::fs::read(file).map_err(failed)?;
        // A comment may be in any encoding.
        texts.push((file.display().to_string(), String::from_utf8_lossy(&text).into_owned()));
    }
    let config = HaproxyConfig::parse(texts.iter().map(|(name, text)| (name.as_str(), text.as_str())));
    let pages = super::page::files(&config, maintenance)
        .into_iter()
        .map(|path| {
            let size = std::fs::metadata(&path).map(|found| found.len()).map_err(|error| error.to_string());
            (path, size)
        })
        .collect();
    let changed = youngest.and_then(|changed| SystemTime::now().duration_since(changed).ok());
    files.retain(|file| !gone.contains(file));
    let new = if is_loaded { not_loaded(paths)? } else { Vec::new() };
    Ok(Written { config, files, gone, new, changed, pages })
}

/// The files that HAProxy's next reload would read beside those that it has loaded.
fn not_loaded(loaded: &[PathBuf]) -> Result<Vec<PathBuf>, Problem> {
    let mut new = Vec::new();
    for together in loaded::by_folder(loaded).filter(|together| loaded::are_a_folder(together)) {
        let folder = together.first().and_then(|file| file.parent()).filter(|folder| folder.is_dir());
        let files = folder.map(files_in).transpose()?.unwrap_or_default();
        new.extend(files.into_iter().filter(|file| !loaded.contains(file)));
    }
    Ok(new)
}

fn files_in(path: &Path) -> Result<Vec<PathBuf>, Problem> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failed = |error: std::io::Error| unreadable(path, &error.to_string());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)?.take(MAX_FILES) {
        let file = entry.map_err(failed)?.path();
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if file.extension().is_some_and(|ending| ending == "cfg") && !hidden {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}
