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
    parts.extend(init.database.iter().map(|peer| Part {
        role: Role::DatabaseAgent,
        name: peer.name.to_string(),
        daemon: Some("agent"),
        address: Some(&peer.address),
    }));
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
    // Every name is looked at before anything is written.
    let named = parts(init).into_iter().map(|part| Ok((name_of(init, &part)?, part)));
    let named: Vec<(PeerName, Part<'_>)> = named.collect::<Result<_, Problem>>()?;
    if let Some(unknown) = init.renew.iter().find(|name| !named.iter().any(|(_, part)| part.name == **name)) {
        let message = format!("`--renew {unknown}` names none of the parts that this command makes");
        return Err(Problem::new(Code::UsageWrong, message)
            .hint("name the host or person as in `--coordinator`, `--balancer`, `--web`, `--database`, `--operator`, `--ci` or `--viewer`"));
    }
    let authority = Authority::open_or_make(&init.dir.join("ca"), &init.trust_domain)?;
    let mut made = Vec::new();
    for (name, part) in named {
        let folder = folder_of(&init.dir, &part);
        // The certificate is written last, so one that is there has its key.
        if init.renew.contains(&part.name) {
            files::set_aside(&folder)?;
        }
        if folder.join("cert.pem").exists() && folder.join("key.pem").exists() {
            out.say(&format!("kept     {}", folder.display()));
            continue;
        }
        let (certificate, key) = authority.issue(&name)?;
        write_new(&folder.join("key.pem"), &key, 0o600)?;
        write_new(&folder.join("cert.pem"), &certificate, 0o644)?;
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
    let fresh = write_new(&path, &environment, 0o640);
    if fresh.as_ref().is_err_and(|problem| problem.code == Code::FileExists) && !made.is_empty() {
        out.say(&format!(
            "not changed: {}; hosts that are new belong into its `[agents]` and a slot",
            path.display()
        ));
    }
    fresh.or_else(already_there)?;
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

fn name_of(init: &Init, part: &Part<'_>) -> Result<PeerName, Problem> {
    PeerName::new(&init.trust_domain, init.environment.clone(), part.role, &part.name).map_err(|error| {
        let message = format!("`{}` or `{}` cannot stand in a certificate", part.name, init.trust_domain);
        Problem::new(Code::UsageWrong, message)
            .because(&error)
            .hint("names are 1 to 63 of `a-z`, `0-9`, `-`; the domain is lower case, as `example.org`")
    })
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
