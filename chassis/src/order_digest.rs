//! The digest of an order: what a repeated order is recognised by.

use pointsman_core::{Action, Check, Migrations, Order, OrderDigest};
use ring::digest::{Context, SHA256};

/// SHA-256 over every field that says what is asked, each with its length before it. Attempt, epoch, deadline
/// and whether that counts are left out: the same order sent again, by whomever, is the same order. The receiving side computes it from
/// the parsed order, because protobuf has several encodings of one message.
pub fn order_digest(order: &Order) -> OrderDigest {
    let mut context = Context::new(&SHA256);
    let mut field = |text: &str| {
        // Fields are bounded far below 4 GiB by the message limit.
        context.update(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
        context.update(text.as_bytes());
    };
    for text in [order.release.as_str(), order.key.step.as_str(), order.key.host.as_str()] {
        field(text);
    }
    for text in fields(&order.action) {
        field(&text);
    }
    let mut bytes = [0; 32];
    for (to, from) in bytes.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    OrderDigest::from_bytes(bytes)
}

fn optional<T: ToString>(value: Option<&T>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

fn counted<T: ToString>(values: &[T]) -> impl Iterator<Item = String> {
    [values.len().to_string()].into_iter().chain(values.iter().map(ToString::to_string))
}

fn fields(action: &Action) -> Vec<String> {
    let named = |name: &str| vec![name.to_owned()];
    let mut fields;
    match action {
        Action::InspectHost { artifact, activation } => {
            fields = named("inspect-host");
            fields.push(artifact.to_string());
            fields.extend(counted(&activation.restart));
            fields.extend(counted(&activation.hooks));
        }
        // Whether it leaves what serves follows from its release's plan; agents of before knew nothing of it.
        Action::InspectBalancer { expected, backends, leaving: _ } => {
            fields = named("inspect-balancer");
            fields.push(expected.to_string());
            fields.extend(counted(backends));
        }
        Action::Stage { artifact } => {
            fields = named("stage");
            fields.push(artifact.to_string());
        }
        Action::Discard { artifact } => {
            fields = named("discard");
            fields.push(artifact.to_string());
        }
        Action::Activate { artifact, activation } => {
            fields = named("activate");
            fields.push(optional(artifact.as_ref()));
            fields.extend(counted(&activation.restart));
            fields.extend(counted(&activation.hooks));
        }
        Action::Drain { backend, timeout_ms, end } => {
            fields = named("drain");
            fields.extend([backend.to_string(), timeout_ms.to_string(), format!("{end:?}")]);
        }
        // Whether it leads back follows from its release's plan and step; agents of before knew nothing of it.
        Action::SetRoute { expected, wanted, min_up, back: _ } => {
            fields = named("set-route");
            fields.extend(counted(expected));
            fields.extend([wanted.to_string(), min_up.to_string()]);
        }
        Action::ProbeHost { checks, artifact } => {
            fields = named("probe-host");
            fields.extend(checks.iter().flat_map(check_fields));
            fields.extend(artifact.map(|artifact| artifact.to_string()));
        }
        Action::ProbeBalancer { checks, backend, epoch, min_up, patience_ms } => {
            fields = named("probe-balancer");
            fields.extend([
                backend.to_string(),
                epoch.to_string(),
                min_up.to_string(),
                patience_ms.to_string(),
            ]);
            fields.extend(checks.iter().flat_map(check_fields));
        }
        Action::SetFlag { on } => {
            fields = named("set-flag");
            fields.push(on.to_string());
        }
        Action::InspectDatabase { verify, pending } => {
            fields = named("inspect-database");
            fields.push(verify.as_str().to_owned());
            fields.extend(pending.iter().flat_map(migration_fields));
        }
        Action::BackUp { verify } => {
            fields = named("back-up");
            fields.push(verify.as_str().to_owned());
        }
        Action::VerifyBackup { backup, verify } => {
            fields = named("verify-backup");
            fields.extend([backup.to_string(), verify.as_str().to_owned()]);
        }
        Action::Rehearse { migrations } => {
            fields = named("rehearse");
            fields.extend(migration_fields(migrations));
        }
        Action::Migrate { migrations } => {
            fields = named("migrate");
            fields.extend(migration_fields(migrations));
        }
        Action::Restore { backup, accept_loss } => {
            fields = named("restore");
            fields.push(backup.to_string());
            fields.extend(accept_loss.map(|rows| rows.to_string()));
        }
        Action::SettleRestore { backup } => {
            fields = named("settle-restore");
            fields.push(backup.to_string());
        }
        Action::SwapDatabase { backup, to } => {
            fields = named("swap-database");
            fields.extend([backup.to_string(), format!("{to:?}")]);
        }
    }
    fields
}

fn migration_fields(migrations: &Migrations) -> Vec<String> {
    let mut fields = vec![migrations.artifact.to_string(), migrations.phase.as_str().to_owned()];
    fields.extend(counted(&migrations.versions));
    fields.extend(counted(&migrations.out_of_order));
    fields.extend([migrations.max_stall_ms.to_string(), migrations.lock_budget_ms.to_string()]);
    fields
}

fn check_fields(check: &Check) -> [String; 5] {
    [
        check.name.to_string(),
        check.spec.to_string(),
        check.timeout_ms.to_string(),
        check.patience_ms.to_string(),
        check.bound_ms.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_core::{Epoch, HostName, OrderKey, ReleaseId, Step, Timestamp};

    fn order(action: Action, attempt: u32) -> Order {
        let key = OrderKey { step: Step::Switch, host: HostName::parse("lb1").unwrap() };
        let release = ReleaseId::parse("r1").unwrap();
        Order {
            release,
            key,
            attempt,
            epoch: Epoch(u64::from(attempt)),
            deadline: Timestamp(u64::from(attempt)),
            leads_back: false,
            action,
        }
    }

    #[test]
    fn an_order_is_the_same_however_often_and_by_whomever_it_is_sent() {
        let on = Action::SetFlag { on: true };
        assert_eq!(order_digest(&order(on.clone(), 1)), order_digest(&order(on.clone(), 2)));
        assert_ne!(order_digest(&order(on, 1)), order_digest(&order(Action::SetFlag { on: false }, 1)));
    }
}
