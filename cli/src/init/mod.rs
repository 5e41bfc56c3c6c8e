//! `init`: an authority, a certificate for every part of an environment, and first configuration files. For the demo
//! and small set-ups: keys are made here and carried to the hosts by hand.

mod files;
mod pki;

use std::path::Path;

use pointsman_core::{Code, PeerName, Problem, Role};

use crate::args::Init;
use crate::exit::Exit;
use crate::out::Out;

use files::write_new;
use pki::Authority;

/// One part of the environment that gets a certificate.
struct Part<'a> {
    role: Role,
    name: String,
    /// The daemon it runs as; people have none.
    daemon: Option<&'static str>,
    address: Option<&'a str>,
}

fn parts(init: &Init) -> Vec<Part<'_>> {
    let mut parts = vec![Part {
        role: Role::Coordinator,
        name: init.coordinator.name.to_string(),
        daemon: Some("coordinator"),
        address: Some(&init.coordinator.address),
    }];
    for (peers, role, daemon) in
        [(&init.balancer, Role::LbAgent, "lb-agent"), (&init.web, Role::WebAgent, "agent")]
    {
        parts.extend(peers.iter().map(|peer| Part {
            role,
            name: peer.name.to_string(),
            daemon: Some(daemon),
            address: Some(&peer.address),
        }));
    }
    for (people, role) in
        [(&init.operator, Role::Operator), (&init.ci, Role::Ci), (&init.viewer, Role::Viewer)]
    {
        parts.extend(people.iter().map(|name| Part {
            role,
            name: name.clone(),
            daemon: None,
            address: None,
        }));
    }
    parts
}

/// Writes everything. Nothing that is there is overwritten, so hosts can be added later by the same command.
pub fn init(init: &Init, out: &Out) -> Result<Exit, Problem> {
    let authority = Authority::open_or_make(&init.dir.join("ca"), &init.trust_domain)?;
    let mut made = Vec::new();
    for part in parts(init) {
        let name = PeerName::new(&init.trust_domain, init.environment.clone(), part.role, &part.name)
            .map_err(|error| {
                Problem::new(Code::UsageWrong, error.to_string())
                    .hint("names are 1 to 63 of `a-z`, `0-9`, `-`")
            })?;
        let folder = folder_of(&init.dir, &part);
        if folder.join("cert.pem").exists() {
            out.say(&format!("kept     {}", folder.display()));
            continue;
        }
        let (certificate, key) = authority.issue(&name)?;
        write_new(&folder.join("cert.pem"), &certificate, 0o644)?;
        write_new(&folder.join("key.pem"), &key, 0o600)?;
        write_new(&authority_copy(&init.dir, &part), authority.certificate(), 0o644)
            .or_else(already_there)?;
        if let Some((path, text)) = files::configuration(init, &part) {
            write_new(&path, &text, 0o640).or_else(already_there)?;
        }
        made.push(name.to_string());
    }
    let environment = files::environment(init);
    let path = init.dir.join(format!(
        "hosts/{}/etc/pointsman/environments/{}.toml",
        init.coordinator.name, init.environment
    ));
    write_new(&path, &environment, 0o640).or_else(already_there)?;
    if out.json() {
        out.document(serde_json::json!({ "kind": "init", "dir": init.dir, "certificates": made }));
        return Ok(Exit::Done);
    }
    for name in &made {
        out.result(&format!("made     {name}"));
    }
    out.say(&format!(
        "next: copy each folder under {}/hosts/NAME/etc to that host's /etc, complete its files, start its daemon;\n      \
         people find theirs under {}/people; keep {}/ca where nobody else reads it",
        init.dir.display(),
        init.dir.display(),
        init.dir.display()
    ));
    Ok(Exit::Done)
}

/// What is there already stays.
fn already_there(problem: Problem) -> Result<(), Problem> {
    if problem.code == Code::FileExists { Ok(()) } else { Err(problem) }
}

fn folder_of(dir: &Path, part: &Part<'_>) -> std::path::PathBuf {
    match part.daemon {
        Some(daemon) => dir.join(format!("hosts/{}/etc/pointsman/pki/{daemon}", part.name)),
        None => dir.join(format!("people/{}-{}", part.role, part.name)),
    }
}

fn authority_copy(dir: &Path, part: &Part<'_>) -> std::path::PathBuf {
    match part.daemon {
        Some(_) => dir.join(format!("hosts/{}/etc/pointsman/pki/ca.pem", part.name)),
        None => folder_of(dir, part).join("ca.pem"),
    }
}
