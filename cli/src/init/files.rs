//! First configuration files, complete but for what only the site knows.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use pointsman_core::{Code, Problem, Role};

use super::Part;
use crate::args::Init;

/// Writes a file where none is.
pub fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), Problem> {
    let failed = |error: std::io::Error| {
        let code = if error.kind() == std::io::ErrorKind::AlreadyExists {
            Code::FileExists
        } else {
            Code::FileSystem
        };
        Problem::new(code, format!("cannot write `{}`", path.display()))
            .because(&error)
            .hint("choose another `--dir`, or move the file away")
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

/// Sets certificate and key of a part aside, as `.before`, so that new ones are made. The certificate goes first: without it
/// nothing is taken for whole.
pub fn set_aside(folder: &Path) -> Result<(), Problem> {
    for name in ["cert.pem", "key.pem"] {
        let (path, before) = (folder.join(name), folder.join(format!("{name}.before")));
        match std::fs::rename(&path, before) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let message = format!("cannot set `{}` aside", path.display());
                return Err(Problem::new(Code::FileSystem, message).because(&error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn pki(daemon: &str) -> String {
    format!(
        "[pki]\ncert = \"/etc/pointsman/pki/{daemon}/cert.pem\"\nkey  = \"/etc/pointsman/pki/{daemon}/key.pem\"\nca   = \"/etc/pointsman/pki/ca.pem\"\n"
    )
}

/// The configuration of a part, and where it goes.
pub fn configuration(init: &Init, part: &Part<'_>) -> Option<(PathBuf, String)> {
    let port = part.address.and_then(|address| address.rsplit_once(':')).map_or("7444", |(_, port)| port);
    let host = |file: &str| init.dir.join(format!("hosts/{}/etc/pointsman/{file}", part.name));
    match part.role {
        Role::Coordinator => Some((
            host("coordinator.toml"),
            format!(
                "listen       = \"0.0.0.0:{port}\"\nstate        = \"/var/lib/pointsman-coordinator\"\nenvironments = \"/etc/pointsman/environments\"\n\n{}",
                pki("coordinator")
            ),
        )),
        Role::WebAgent => Some((
            host("agent.toml"),
            format!(
                "listen = \"0.0.0.0:{port}\"\nstate  = \"/var/lib/pointsman-agent\"\n\n\
                 # What an activation may do besides, by name; above every [section]:\n# units = [\"app.service\"]\n\
                 # hooks.warm-up = {{ argv = [\"/usr/local/bin/warm-up\"], timeout = \"30s\" }}\n\n{}\n\
                 # The site on this host: nginx serves `current` in the root.\n\
                 [web]\nroot   = \"/var/www/site\"\nserver = \"127.0.0.1:8080\"\nhost   = \"www.{}\"\n",
                pki("agent"),
                init.trust_domain
            ),
        )),
        Role::DatabaseAgent => Some((
            host("agent.toml"),
            format!(
                "listen = \"0.0.0.0:{port}\"\nstate  = \"/var/lib/pointsman-agent\"\n\n{}\n\
                 # The database on this host: docs/database.md has the role that the agent connects as.\n\
                 [database]\nname = \"site\"\nuser = \"pointsman-agent\"\n\n\
                 [database.backup]\ndir  = \"/var/backups/pointsman\"\nkeep = 14\n",
                pki("agent"),
            ),
        )),
        Role::LbAgent => Some((
            host("lb-agent.toml"),
            format!(
                "listen = \"0.0.0.0:{port}\"\nstate  = \"/var/lib/pointsman\"\n\n{}\n\
                 # The HAProxy on this host: see docs/haproxy.md for what its configuration needs.\n\
                 [haproxy]\nsocket = \"/run/haproxy/pointsman.sock\"\nmaster = \"/run/haproxy/master.sock\"\n\
                 map    = \"/var/lib/pointsman/route.map\"\nbackends = [\"be_blue\", \"be_green\"]\nmaintenance_backend = \"be_maint\"\n\n\
                 # How a visitor reaches the site from here. With TLS add: tls_ca = \"/etc/ssl/certs/ca-certificates.crt\"\n\
                 [frontend]\naddress = \"127.0.0.1:80\"\nhost    = \"www.{}\"\n\n\
                 # Where haproxy.cfg's ring sends access lines: what visitors meet is counted from them, see docs/signals.md.\n\
                 [signals]\nlisten = \"127.0.0.1:5515\"\n",
                pki("lb-agent"),
                init.trust_domain
            ),
        )),
        Role::Operator | Role::Ci | Role::Viewer => Some((
            init.dir.join(format!("people/{}-{}/config.toml", part.role, part.name)),
            format!(
                "[environments.{}]\ncoordinator = \"{}\"\nname = \"{}\"\ncert = \"cert.pem\"\nkey  = \"key.pem\"\nca   = \"ca.pem\"\n",
                init.environment, init.coordinator.address, init.coordinator.name
            ),
        )),
    }
}

/// The environment file: the first web host is blue, the second green.
pub fn environment(init: &Init) -> String {
    let quoted =
        |names: Vec<String>| names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let agents: String = init
        .balancer
        .iter()
        .chain(&init.web)
        .chain(&init.database)
        .map(|peer| format!("{} = \"{}\"\n", peer.name, peer.address))
        .collect();
    let balancers = quoted(init.balancer.iter().map(|peer| peer.name.to_string()).collect());
    let mut text = format!(
        "schema      = 1\nenvironment = \"{}\"\nurl         = \"https://www.{}\"\n\n# Where each agent listens.\n[agents]\n{agents}\n[lb]\nagents = [{balancers}]\n\n",
        init.environment, init.trust_domain
    );
    for (slot, peer) in ["blue", "green"].into_iter().zip(&init.web) {
        text.push_str(&format!("[slots.{slot}]\nbackend = \"be_{slot}\"\nhosts   = [\"{}\"]\n\n", peer.name));
    }
    if let Some(database) = &init.database {
        text.push_str(&format!("[database]\nagent = \"{}\"\n\n", database.name));
    }
    text.push_str(
        "[[checks]]\nname  = \"frontend\"\nphase = [\"before-switch\", \"after-switch\"]\nhttp  = { path = \"/\", expect = { status = 200 } }\n\n\
         [watch]\nduration = \"5m\"\n\
         # A watch ends after its time, whether visitors have proven the version good by then or not. To demand a proof, and wait for a\n\
         # person where there is none in time: longer than the time that `pointsman plan` announces.\n\
         # max_watch = \"15m\"\n\n[maintenance]\nbackend = \"be_maint\"\n",
    );
    text
}
