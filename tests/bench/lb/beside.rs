//! What others do to move visitors, on the same machine and the same HAProxy: a script of two `socat` calls, and a
//! playbook where ansible is installed. Both by states of servers, each timed as a whole.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use kit::Site;

use crate::figures::Samples;

/// How often each is run.
const SCRIPTS: usize = 40;
const PLAYBOOKS: usize = 5;

const SCRIPT: &str = r#"#!/bin/sh
# haproxy-switch.sh TO FROM SOCKET
set -e
echo "set server be_$1/s1 state ready" | socat stdio "UNIX-CONNECT:$3"
echo "set server be_$2/s1 state drain" | socat stdio "UNIX-CONNECT:$3"
"#;

fn playbook(to: &str, from: &str, socket: &Path) -> String {
    let task = |slot: &str, state: &str| {
        format!(
            "    - community.general.haproxy: {{ state: {state}, host: s1, backend: be_{slot}, socket: {socket:?} }}\n"
        )
    };
    format!(
        "- hosts: localhost\n  connection: local\n  gather_facts: false\n  vars:\n    ansible_python_interpreter: \"{{{{ ansible_playbook_python }}}}\"\n  tasks:\n{}{}",
        task(to, "enabled"),
        task(from, "drain")
    )
}

fn timed(command: &mut Command, samples: &mut Samples) -> Result<()> {
    let began = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    let took = began.elapsed();
    if !output.status.success() {
        bail!(
            "{command:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    samples.push(took);
    Ok(())
}

/// The two slots, to and fro.
fn turns(count: usize) -> impl Iterator<Item = (&'static str, &'static str)> {
    [("green", "blue"), ("blue", "green")].into_iter().cycle().take(count)
}

/// The script.
pub fn script(site: &Site) -> Result<Samples> {
    let path = site.folder().join("haproxy-switch.sh");
    std::fs::write(&path, SCRIPT)?;
    let mut samples = Samples::default();
    for (to, from) in turns(SCRIPTS) {
        let mut command = Command::new("sh");
        command.arg(&path).args([to, from]).arg(site.haproxy.layout().socket());
        timed(&mut command, &mut samples).context("is socat installed?")?;
    }
    Ok(samples)
}

/// The playbook; none where ansible or its module is not installed.
pub fn ansible(site: &Site) -> Result<Option<Samples>> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let program: Option<PathBuf> = std::env::split_paths(&folders)
        .map(|folder| folder.join("ansible-playbook"))
        .find(|path| path.is_file());
    let Some(program) = program else { return Ok(None) };
    let mut samples = Samples::default();
    for (to, from) in turns(PLAYBOOKS) {
        let path = site.folder().join("switch.yml");
        std::fs::write(&path, playbook(to, from, &site.haproxy.layout().socket()))?;
        let mut command = Command::new(&program);
        command.args(["-i", "localhost,"]).arg(&path);
        if let Err(error) = timed(&mut command, &mut samples) {
            eprintln!("   ansible is there but cannot do it: {error:#}");
            return Ok(None);
        }
    }
    Ok(Some(samples))
}
