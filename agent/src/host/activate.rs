//! Making an artifact current, or what was current before: one symbolic link, replaced in one instant, then what the
//! environment wants done after it.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use pointsman_chassis::agent_service::Rule;
use pointsman_chassis::artifact::file_problem;
use pointsman_chassis::{failpoint, process};
use pointsman_core::{Activation, Aftermath, ArtifactDigest, Code, Evidence, Problem, ReleaseId, Step};
use tracing::warn;

use super::{Site, granted};
use crate::config::Config;

/// What restarts units. Never another one that a search path may lead to.
pub const SYSTEMCTL: &str = "/usr/bin/systemctl";
/// How long a unit may take to restart: systemd's own limit for starting is 90 s.
const RESTART: Duration = Duration::from_secs(100);

/// Points `current` at `artifact` (or takes it away), then restarts units and runs hooks if anything moved.
pub async fn activate(
    site: &Site,
    (config, keep): (&Config, usize),
    (release, step): (&ReleaseId, Step),
    artifact: Option<ArtifactDigest>,
    activation: &Activation,
    rule: &Rule,
) -> Result<Evidence, Problem> {
    // Before anything moves: what may not be done at the end must not be found out at the end.
    let hooks = granted(config, activation)?;
    let (worker, id, linker) = (site.clone(), release.clone(), rule.clone());
    let moved = tokio::task::spawn_blocking(move || {
        if step == Step::LinkBack && nothing_stands(&worker, artifact)? {
            return Ok(None);
        }
        point_current(&worker, &id, artifact, &linker).map(Some)
    })
    .await
    .map_err(|error| {
        Problem::new(Code::FileSystem, "moving the link ended abruptly")
            .aftermath(Aftermath::Unknown)
            .because(&error)
    })??;
    let Some(moved) = moved else {
        let detail = "nothing stands here: the host is new".to_owned();
        return Ok(Evidence { already: true, detail, ..Evidence::default() });
    };
    // Also when the link stood there already: an earlier try may have ended between link and hooks.
    let still_rules = || rule.check().map_err(|problem| problem.aftermath(Aftermath::Changed));
    for unit in &activation.restart {
        still_rules()?;
        let arguments = ["restart", "--", unit.as_str()].map(str::to_owned);
        let restarted = process::run(SYSTEMCTL, &arguments, RESTART).await;
        restarted.map_err(|error| {
            let hint = format!(
                "on this host: `journalctl -u {unit} -n 50`; if it was not permitted: `journalctl -u polkit -n 20`"
            );
            hook_failed(&format!("restart of `{unit}`"), &hint, &error)
        })?;
    }
    for (name, hook) in hooks {
        let Some((program, arguments)) = hook.argv.split_first() else { continue };
        still_rules()?;
        let run = process::run(program, arguments, Duration::from_millis(hook.timeout.ms())).await;
        run.map_err(|error| {
            let hint = "run it by hand on this host, as the agent's user, and look at its output";
            hook_failed(&format!("hook `{name}`"), hint, &error)
        })?;
    }
    let site = site.clone();
    tokio::task::spawn_blocking(move || collect(&site, keep));
    let what = artifact.map_or_else(|| "nothing".to_owned(), |artifact| artifact.short());
    Ok(Evidence { already: !moved, detail: format!("`current` is {what}"), ..Evidence::default() })
}

fn hook_failed(what: &str, hint: &str, error: &process::RunError) -> Problem {
    // The link has moved, so this is not nothing; the same order runs the rest again.
    Problem::new(Code::HookFailed, format!("{what} failed"))
        .aftermath(Aftermath::Changed)
        .retry_useful()
        .cause(error.to_string())
        .hint(hint)
}

/// Whether there is nothing to lead back to, nor from: the host was replaced since the release began. Nobody is served there,
/// and a release whose way back ended here would hold its environment for ever.
fn nothing_stands(site: &Site, artifact: Option<ArtifactDigest>) -> Result<bool, Problem> {
    let Some(artifact) = artifact else { return Ok(false) };
    Ok(site.link("current")?.is_none() && !site.is_complete(&artifact)?)
}

/// Replaces `current` in one instant; before that `previous` the same way. Returns whether anything moved.
fn point_current(
    site: &Site,
    release: &ReleaseId,
    artifact: Option<ArtifactDigest>,
    rule: &Rule,
) -> Result<bool, Problem> {
    let now = site.link("current")?;
    // Taking away a link that leads nowhere does no harm; going on from it would.
    if let Some(now) = now
        && artifact.is_some()
        && !site.is_complete(&now)?
    {
        return Err(Problem::new(
            Code::SiteRootUnfit,
            format!("`current` is a link to artifact {}, which is not complete on this host", now.short()),
        )
        .hint("take the link away by hand, then go on with the release"));
    }
    if now == artifact {
        return Ok(false);
    }
    if let Some(artifact) = artifact
        && !site.is_complete(&artifact)?
    {
        return Err(Problem::new(
            Code::ArtifactMissing,
            format!("artifact {} is not complete on this host", artifact.short()),
        )
        .hint("deploy it: `pointsman deploy ENV --artifact DIGEST --release ID`"));
    }
    let failed =
        |error: io::Error| file_problem("cannot move `current`", &error).aftermath(Aftermath::Unknown);
    rule.check()?;
    match artifact {
        Some(artifact) => {
            if let Some(now) = now {
                replace_link(site, release, "previous", &now).map_err(failed)?;
            }
            failpoint::pass("link-before-rename");
            replace_link(site, release, "current", &artifact).map_err(failed)?;
            failpoint::pass("link-after-rename");
        }
        None => site.root().remove("current").map_err(failed)?,
    }
    site.root().sync().map_err(failed)?;
    let found = site.link("current")?;
    if found != artifact {
        return Err(Problem::new(Code::SiteRootUnfit, "`current` is not what it was just set to")
            .aftermath(Aftermath::Unknown));
    }
    Ok(true)
}

fn replace_link(site: &Site, release: &ReleaseId, name: &str, artifact: &ArtifactDigest) -> io::Result<()> {
    let temporary = format!(".{name}.{release}");
    site.root().remove(&temporary)?;
    site.root().link(&temporary, &format!("artifacts/{artifact}"))?;
    site.root().rename(&temporary, name)
}

/// Refuses unless an artifact is whole here, and `current`: a host may have been replaced, or put back to an older disk.
pub fn holds(site: &Site, artifact: &ArtifactDigest) -> Result<(), Problem> {
    let found = site.link("current")?;
    if found.as_ref() == Some(artifact) && site.is_complete(artifact)? {
        return Ok(());
    }
    let what = match found {
        None => "no `current`".to_owned(),
        Some(found) if found == *artifact => format!("`current` at {}, which is not whole", found.short()),
        Some(found) => format!("`current` at {}", found.short()),
    };
    let message = format!("artifact {} was released to this host, which has {what}", artifact.short());
    Err(Problem::new(Code::NotHeld, message)
        .hint("was the host replaced, or its disk put back? `pointsman explain PM0719`"))
}

/// Drops old artifacts beyond `keep`; never the current or the previous one. What cannot be dropped stays, and is
/// tried again after the next activation.
fn collect(site: &Site, keep: usize) {
    let (Ok(current), Ok(previous)) = (site.link("current"), site.link("previous")) else { return };
    let kept: BTreeSet<ArtifactDigest> = current.into_iter().chain(previous).collect();
    let marked = |artifact: &ArtifactDigest| {
        let mark = site.path().join(".pointsman/complete").join(artifact.to_string());
        std::fs::metadata(mark).and_then(|metadata| metadata.modified()).ok()
    };
    let mut others: Vec<_> =
        site.artifacts().into_iter().filter(|artifact| !kept.contains(artifact)).collect();
    others.sort_by_key(|artifact| std::cmp::Reverse(marked(artifact)));
    for artifact in others.into_iter().skip(keep) {
        if let Err(error) = drop_artifact(site, &artifact) {
            warn!(%artifact, %error, "cannot drop an old artifact");
        }
    }
}

/// The tree goes out of its place whole, by one rename: a half-removed one must never stand there. What a kill leaves
/// of the rest is cleared away when the agent starts.
fn drop_artifact(site: &Site, artifact: &ArtifactDigest) -> io::Result<()> {
    let (root, name) = (site.root(), artifact.to_string());
    let (artifacts, dropped) = (root.folder("artifacts")?, root.folder(".pointsman/dropped")?);
    dropped.remove_tree(&name)?;
    artifacts.rename_new(&name, &dropped, &name)?;
    artifacts.sync()?;
    root.folder(".pointsman/complete")?.remove(&name)?;
    dropped.remove_tree(&name)?;
    root.folder(".pointsman/manifests")?.remove(&name)
}
