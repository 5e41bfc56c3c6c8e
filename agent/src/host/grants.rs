//! What an activation needs of this host: that the agent's own file grants it, that systemd knows the unit and lets the
//! agent restart it, that a hook's program is there. Found out before anything moves, and without any effect.

use std::path::Path;
use std::time::Duration;

use pointsman_chassis::process::{self, RunError};
use pointsman_core::{Activation, Code, HookName, Problem, UnitName};
use pointsman_proto::v1;
use rustix::fs::{Access, access};

use super::activate::SYSTEMCTL;
use crate::config::{Config, Hook};

/// How long systemd and polkit may take to say whether a unit may be restarted.
const ASKING: Duration = Duration::from_secs(2);
/// What systemd says when a restart is permitted and asked for in the one mode that no restart can have.
const PERMITTED: &str = "Isolate is only valid for start";
/// What stands in its answer when the restart is not permitted, or nobody is there who could permit it.
const REFUSED: [&str; 3] = ["Access denied", "authentication required", "polkit"];

/// What was found of one thing that an activation needs.
enum Found {
    Fine(String),
    Lacking(Problem),
    /// It could not be looked at: it may well be fine.
    Unknown(String),
}

/// The hooks of an activation, if the agent's own file grants them and its units.
pub fn granted<'a>(
    config: &'a Config,
    activation: &'a Activation,
) -> Result<Vec<(&'a str, &'a Hook)>, Problem> {
    activation.restart.iter().try_for_each(|unit| unit_granted(config, unit))?;
    activation.hooks.iter().map(|name| hook_granted(config, name)).collect()
}

fn unit_granted(config: &Config, unit: &UnitName) -> Result<(), Problem> {
    if config.grants(unit) {
        return Ok(());
    }
    Err(not_granted(&format!("restarting unit `{unit}`"), &format!("units = [\"{unit}\"]")))
}

fn hook_granted<'a>(config: &'a Config, name: &'a HookName) -> Result<(&'a str, &'a Hook), Problem> {
    let line = format!("hooks.{name} = {{ argv = [\"/absolute/path\"], timeout = \"10s\" }}");
    match config.hook(name) {
        Some(hook) if hook.argv.first().is_some_and(|program| program.starts_with('/')) => {
            Ok((name.as_str(), hook))
        }
        Some(_) => Err(not_granted(&format!("hook `{name}` without an absolute path"), &line)),
        None => Err(not_granted(&format!("hook `{name}`"), &line)),
    }
}

fn not_granted(what: &str, line: &str) -> Problem {
    Problem::new(Code::NotGranted, format!("{what} is not allowed on this host")).hint(format!(
        "have `{line}` in this host's /etc/pointsman/agent.toml, above its first `[section]`, then: \
         `systemctl restart pointsman-agent`"
    ))
}

/// Says whether the host can do what the activation wants: the first thing that it cannot.
pub async fn fit(config: &Config, activation: &Activation) -> Result<(), Problem> {
    granted(config, activation)?;
    for (_, found) in look(config, activation).await {
        if let Found::Lacking(problem) = found {
            return Err(problem);
        }
    }
    Ok(())
}

/// Every unit and hook of the activation, each with what was found.
pub async fn findings(config: &Config, activation: &Activation) -> Vec<v1::Finding> {
    let found = look(config, activation).await;
    let wire = |(check, found): (&str, Found)| {
        let (verdict, what, problem) = match found {
            Found::Fine(what) => ("ok", what, None),
            Found::Lacking(problem) => ("fail", problem.message.clone(), Some(problem)),
            Found::Unknown(what) => ("unknown", what, None),
        };
        v1::Finding {
            check: check.to_owned(),
            why: match verdict {
                "ok" => String::new(),
                _ => "every release to this host would turn back".to_owned(),
            },
            verdict: verdict.to_owned(),
            what,
            problem: problem.as_ref().map(pointsman_proto::convert::problem_to_wire),
            ..Default::default()
        }
    };
    found.into_iter().map(wire).collect()
}

async fn look(config: &Config, activation: &Activation) -> Vec<(&'static str, Found)> {
    let mut all = Vec::new();
    for unit in &activation.restart {
        let found = match unit_granted(config, unit) {
            Ok(()) => permitted(unit).await,
            Err(problem) => Found::Lacking(problem),
        };
        all.push(("activate-unit", found));
    }
    for name in &activation.hooks {
        let found = match hook_granted(config, name) {
            Ok((_, hook)) => runnable(name, hook),
            Err(problem) => Found::Lacking(problem),
        };
        all.push(("activate-hook", found));
    }
    all
}

/// Asks systemd whether the agent may restart the unit, by a restart in a mode that is for starts alone: systemd asks
/// polkit first, and refuses the mode where polkit permits. Nothing is restarted either way.
async fn permitted(unit: &UnitName) -> Found {
    let shown = ["show", "--property=LoadState", "--value", "--", unit.as_str()].map(str::to_owned);
    match process::run(SYSTEMCTL, &shown, ASKING).await {
        Ok(state) if matches!(state.trim(), "not-found" | "masked" | "bad-setting" | "error") => {
            let state = state.trim();
            return Found::Lacking(
                Problem::new(Code::ActivationUnfit, format!("unit `{unit}` cannot be restarted: {state}"))
                    .hint(format!("look at it on this host: `systemctl status {unit}`")),
            );
        }
        Ok(_) => {}
        Err(error) => return Found::Unknown(format!("systemd does not say what unit `{unit}` is: {error}")),
    }
    let asked =
        ["--no-ask-password", "--job-mode=isolate", "restart", "--", unit.as_str()].map(str::to_owned);
    match process::run(SYSTEMCTL, &asked, ASKING).await {
        Err(RunError::Ended { output, .. }) if output.contains(PERMITTED) => {
            Found::Fine(format!("unit `{unit}` may be restarted"))
        }
        Err(RunError::Ended { output, .. }) if REFUSED.iter().any(|word| output.contains(word)) => {
            Found::Lacking(
                Problem::new(Code::ActivationUnfit, format!("systemd lets nobody but root restart `{unit}`"))
                    .cause(output)
                    .hint(format!(
                        "name it in POINTSMAN_UNITS of this host's \
                         /etc/polkit-1/rules.d/50-pointsman-agent.rules, then `systemctl try-restart polkit`; without polkit: \
                         `apt install polkitd` (docs: systemd/README.md); the unit's real name: `systemctl show -P Id {unit}`"
                    )),
            )
        }
        Err(error) => Found::Unknown(format!("systemd does not say whether `{unit}` may be restarted: {error}")),
        Ok(_) => Found::Unknown(format!("systemd does not say whether `{unit}` may be restarted")),
    }
}

fn runnable(name: &HookName, hook: &Hook) -> Found {
    let program = hook.argv.first().map(String::as_str).unwrap_or_default();
    match access(Path::new(program), Access::EXEC_OK) {
        Ok(()) => Found::Fine(format!("hook `{name}` runs `{program}`")),
        Err(error) => Found::Lacking(
            Problem::new(Code::ActivationUnfit, format!("hook `{name}` cannot run `{program}`"))
                .cause(error.to_string())
                .hint(format!("on this host, as the agent's user: `ls -l {program}`")),
        ),
    }
}
