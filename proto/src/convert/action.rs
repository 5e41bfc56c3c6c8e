//! What agents are asked to do.

use pointsman_core::{
    Action, Activation, BackendName, Check, CheckFrom, CheckSpec, DrainEnd, HookName, Problem, Route,
    RouteEpoch, SwapTo, UnitName,
};

use super::database::{migrations_from_wire, migrations_to_wire, verify_from_wire};
use super::{field, missing, optional_field};
use crate::agent_v1 as wire;

/// Most entries of any list in an action: far above what environments have, small enough to hold.
const MAX_LIST: usize = 256;

pub(super) fn list<T>(name: &str, texts: &[String]) -> Result<Vec<T>, Problem>
where
    T: std::str::FromStr<Err: std::error::Error + 'static>,
{
    bounded(name, texts.len())?;
    texts.iter().map(|text| field(name, text)).collect()
}

fn bounded(name: &str, count: usize) -> Result<(), Problem> {
    if count <= MAX_LIST {
        return Ok(());
    }
    let message = format!("field `{name}` of the message has {count} entries, more than {MAX_LIST}");
    Err(Problem::new(pointsman_core::Code::MessageInvalid, message))
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn optional<T: ToString>(value: Option<&T>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

/// An action for the wire.
pub fn action_to_wire(action: &Action) -> wire::Action {
    use wire::action::Kind;
    let kind = match action {
        Action::InspectHost { artifact, activation } => Kind::InspectHost(wire::InspectHost {
            artifact: artifact.to_string(),
            restart: texts(&activation.restart),
            hooks: texts(&activation.hooks),
        }),
        Action::InspectBalancer { expected, backends, leaving } => {
            Kind::InspectBalancer(wire::InspectBalancer {
                expected_route: expected.to_string(),
                backends: texts(backends),
                leaving: *leaving,
            })
        }
        Action::Stage { artifact } => Kind::Stage(wire::Stage { artifact: artifact.to_string() }),
        Action::Discard { artifact } => Kind::Discard(wire::Discard { artifact: artifact.to_string() }),
        Action::Activate { artifact, activation } => Kind::Activate(wire::Activate {
            artifact: optional(artifact.as_ref()),
            restart: texts(&activation.restart),
            hooks: texts(&activation.hooks),
        }),
        Action::Drain { backend, timeout_ms, end } => Kind::Drain(wire::Drain {
            backend: backend.to_string(),
            timeout_ms: *timeout_ms,
            cut: *end == DrainEnd::Cut,
        }),
        Action::SetRoute { expected, wanted, min_up, back } => Kind::SetRoute(wire::SetRoute {
            expected: texts(expected),
            wanted: wanted.to_string(),
            min_up: *min_up,
            back: *back,
        }),
        Action::ProbeHost { checks, artifact } => Kind::ProbeHost(wire::ProbeHost {
            checks: checks.iter().map(check_to_wire).collect(),
            artifact: artifact.map(|artifact| artifact.to_string()).unwrap_or_default(),
        }),
        Action::ProbeBalancer { checks, backend, epoch, min_up, patience_ms } => {
            Kind::ProbeBalancer(wire::ProbeBalancer {
                checks: checks.iter().map(check_to_wire).collect(),
                backend: backend.to_string(),
                route_epoch: epoch.0,
                min_up: *min_up,
                patience_ms: *patience_ms,
            })
        }
        Action::SetFlag { on } => Kind::SetFlag(wire::SetFlag { on: *on }),
        Action::InspectDatabase { verify, pending } => Kind::InspectDatabase(wire::InspectDatabase {
            verify: verify.as_str().to_owned(),
            pending: pending.as_ref().map(migrations_to_wire),
        }),
        Action::BackUp { verify } => Kind::BackUp(wire::BackUp { verify: verify.as_str().to_owned() }),
        Action::VerifyBackup { backup, verify } => Kind::VerifyBackup(wire::VerifyBackup {
            backup: backup.to_string(),
            verify: verify.as_str().to_owned(),
        }),
        Action::Rehearse { migrations } => {
            Kind::Rehearse(wire::Rehearse { migrations: Some(migrations_to_wire(migrations)) })
        }
        Action::Migrate { migrations } => {
            Kind::Migrate(wire::Migrate { migrations: Some(migrations_to_wire(migrations)) })
        }
        Action::Restore { backup, accept_loss } => {
            Kind::Restore(wire::Restore { backup: backup.to_string(), accept_loss: *accept_loss })
        }
        Action::SettleRestore { backup } => {
            Kind::SettleRestore(wire::SettleRestore { backup: backup.to_string() })
        }
        Action::SwapDatabase { backup, to } => Kind::SwapDatabase(wire::SwapDatabase {
            backup: backup.to_string(),
            before: matches!(to, SwapTo::Before { .. }),
            accept_loss: match to {
                SwapTo::Restored { accept_loss } | SwapTo::Before { accept_loss } => *accept_loss,
            },
        }),
    };
    wire::Action { kind: Some(kind) }
}

/// What is done after a change of version, from the fields `restart` and `hooks` of a message.
pub fn activation_from_wire(
    message: &str,
    restart: &[String],
    hooks: &[String],
) -> Result<Activation, Problem> {
    Ok(Activation {
        restart: list::<UnitName>(&format!("{message}.restart"), restart)?,
        hooks: list::<HookName>(&format!("{message}.hooks"), hooks)?,
    })
}

/// An action from the wire.
pub fn action_from_wire(action: &wire::Action) -> Result<Action, Problem> {
    use wire::action::Kind;
    Ok(match action.kind.as_ref().ok_or_else(|| missing("action"))? {
        Kind::InspectHost(inspect) => Action::InspectHost {
            artifact: field("inspect_host.artifact", &inspect.artifact)?,
            activation: activation_from_wire("inspect_host", &inspect.restart, &inspect.hooks)?,
        },
        Kind::InspectBalancer(inspect) => Action::InspectBalancer {
            expected: field::<Route>("inspect_balancer.expected_route", &inspect.expected_route)?,
            backends: list::<BackendName>("inspect_balancer.backends", &inspect.backends)?,
            leaving: inspect.leaving,
        },
        Kind::Stage(stage) => Action::Stage { artifact: field("stage.artifact", &stage.artifact)? },
        Kind::Discard(discard) => Action::Discard { artifact: field("discard.artifact", &discard.artifact)? },
        Kind::Activate(activate) => Action::Activate {
            artifact: optional_field("activate.artifact", &activate.artifact)?,
            activation: activation_from_wire("activate", &activate.restart, &activate.hooks)?,
        },
        Kind::Drain(drain) => Action::Drain {
            backend: field("drain.backend", &drain.backend)?,
            timeout_ms: drain.timeout_ms,
            end: if drain.cut { DrainEnd::Cut } else { DrainEnd::Leave },
        },
        Kind::SetRoute(set) => Action::SetRoute {
            expected: list::<Route>("set_route.expected", &set.expected)?,
            wanted: field("set_route.wanted", &set.wanted)?,
            min_up: set.min_up,
            back: set.back,
        },
        Kind::ProbeHost(probe) => Action::ProbeHost {
            checks: checks(&probe.checks)?,
            artifact: optional_field("probe_host.artifact", &probe.artifact)?,
        },
        Kind::ProbeBalancer(probe) => Action::ProbeBalancer {
            checks: checks(&probe.checks)?,
            backend: field("probe_balancer.backend", &probe.backend)?,
            epoch: RouteEpoch(probe.route_epoch),
            min_up: probe.min_up,
            patience_ms: probe.patience_ms,
        },
        Kind::SetFlag(flag) => Action::SetFlag { on: flag.on },
        Kind::InspectDatabase(inspect) => Action::InspectDatabase {
            verify: verify_from_wire("inspect_database.verify", &inspect.verify)?,
            pending: inspect.pending.as_ref().map(migrations_from_wire).transpose()?,
        },
        Kind::BackUp(back_up) => {
            Action::BackUp { verify: verify_from_wire("back_up.verify", &back_up.verify)? }
        }
        Kind::VerifyBackup(check) => Action::VerifyBackup {
            backup: field("verify_backup.backup", &check.backup)?,
            verify: verify_from_wire("verify_backup.verify", &check.verify)?,
        },
        Kind::Rehearse(rehearse) => Action::Rehearse {
            migrations: migrations_from_wire(
                rehearse.migrations.as_ref().ok_or_else(|| missing("rehearse.migrations"))?,
            )?,
        },
        Kind::Migrate(migrate) => Action::Migrate {
            migrations: migrations_from_wire(
                migrate.migrations.as_ref().ok_or_else(|| missing("migrate.migrations"))?,
            )?,
        },
        Kind::Restore(restore) => Action::Restore {
            backup: field("restore.backup", &restore.backup)?,
            accept_loss: restore.accept_loss,
        },
        Kind::SettleRestore(settle) => {
            Action::SettleRestore { backup: field("settle_restore.backup", &settle.backup)? }
        }
        Kind::SwapDatabase(swap) => Action::SwapDatabase {
            backup: field("swap_database.backup", &swap.backup)?,
            to: if swap.before {
                SwapTo::Before { accept_loss: swap.accept_loss }
            } else {
                SwapTo::Restored { accept_loss: swap.accept_loss }
            },
        },
    })
}

fn checks(wire: &[wire::Check]) -> Result<Vec<Check>, Problem> {
    bounded("checks", wire.len())?;
    wire.iter().map(check_from_wire).collect()
}

fn check_to_wire(check: &Check) -> wire::Check {
    wire::Check {
        name: check.name.to_string(),
        through_balancer: check.from == CheckFrom::Balancers,
        before_switch: check.before_switch,
        after_switch: check.after_switch,
        timeout_ms: check.timeout_ms,
        patience_ms: check.patience_ms,
        spec: check.spec.to_string(),
        bound_ms: check.bound_ms,
        ..Default::default()
    }
}

fn check_from_wire(check: &wire::Check) -> Result<Check, Problem> {
    Ok(Check {
        name: field("check.name", &check.name)?,
        from: if check.through_balancer { CheckFrom::Balancers } else { CheckFrom::Hosts },
        before_switch: check.before_switch,
        after_switch: check.after_switch,
        spec: match check.spec.as_str() {
            "" => request(check)?,
            spec => field("check.spec", spec)?,
        },
        timeout_ms: check.timeout_ms,
        patience_ms: check.patience_ms,
        bound_ms: check.bound_ms,
    })
}

/// The one request of a coordinator that knows no descriptions.
fn request(check: &wire::Check) -> Result<CheckSpec, Problem> {
    let status = u16::try_from(check.status)
        .ok()
        .filter(|s| (100..600).contains(s))
        .ok_or_else(|| missing("check.status"))?;
    let body = Some(check.body_contains.as_str()).filter(|text| !text.is_empty());
    Ok(CheckSpec::get(&field("check.path", &check.path)?, status, body))
}
