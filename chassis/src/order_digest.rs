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
    use pointsman_core::{
        Activation, ArtifactDigest, BackendName, BackupId, DrainEnd, Epoch, HostName, MigrationPhase,
        OrderKey, ReleaseId, Route, RouteEpoch, Step, SwapTo, Timestamp, VerifyLevel,
    };

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

    /// An agent, or the coordinator, is replaced by a newer version in the middle of a release: what was begun is asked for again,
    /// and must be known again. Whoever changes a line here holds every release that is open while it is installed.
    #[test]
    fn digests_are_those_that_earlier_versions_have_kept() {
        const P: &str = "be_blue:be_green:0:5";
        const V: &str = "be_green:be_blue:0:6";
        let route = |text| Route::parse(text).unwrap();
        let name = |text: &str| BackendName::parse(text).unwrap();
        let artifact = || ArtifactDigest::parse(&"ab".repeat(32)).unwrap();
        let backup = || BackupId::parse("b1").unwrap();
        let migrations = || Migrations {
            artifact: artifact(),
            phase: MigrationPhase::Expand,
            versions: vec!["20260101".to_owned(), "20260102".to_owned()],
            out_of_order: vec!["20260101".to_owned()],
            max_stall_ms: 2_000,
            lock_budget_ms: 9_000,
        };
        let activation = || Activation {
            restart: vec!["site.service".parse().unwrap()],
            hooks: vec!["warm".parse().unwrap()],
        };
        let kept = [
            (
                Action::InspectHost { artifact: artifact(), activation: activation() },
                "21983f3046be1f0f704f563fdb753cad09783d05f882f7c128fa5a06048e1887",
            ),
            (
                Action::InspectBalancer {
                    expected: route(P),
                    backends: vec![name("be_blue")],
                    leaving: true,
                },
                "60359ea11802b80e859abf379a2ee9b6abbc4fdaa8fef1927c2bd28fac243072",
            ),
            (
                Action::Stage { artifact: artifact() },
                "29f5777ce6ca0b0842057fbecb9920c5a75b52a466eb8078a2a7ff0eb8a130e1",
            ),
            (
                Action::Discard { artifact: artifact() },
                "28d02d675563fb07137078b248b86b79fffc6210c66e2a6c4ebe6e0bda1212a2",
            ),
            (
                Action::Activate { artifact: Some(artifact()), activation: activation() },
                "0fcfec2572d8da991f1b677261e09ae7c9a24e3bfb64062ace85e69f90991435",
            ),
            (
                Action::Activate { artifact: None, activation: Activation::default() },
                "d2fd5a7f40f0d7ad1807fc9ddd60d28be452a58f6d987bad6babb68bebaf0159",
            ),
            (
                Action::Drain { backend: name("be_blue"), timeout_ms: 30_000, end: DrainEnd::Cut },
                "f84898c3287e896515e3a5d7f033297032b7f31b3c7058edcdd6b217137f0de5",
            ),
            (
                Action::Drain { backend: name("be_blue"), timeout_ms: 30_000, end: DrainEnd::Leave },
                "7e3378ac7fe160c740066d9701b0ea170c1cd3421c60480403708db941be0b10",
            ),
            (
                Action::SetRoute {
                    expected: vec![route(P), route(V)],
                    wanted: route(V),
                    min_up: 2,
                    back: false,
                },
                "1dfbdebce4d40702e398d122cd185c4ccafcfd99df394a9d612dc91ae87d3232",
            ),
            (
                Action::SetFlag { on: true },
                "7f37c87c9b2f070526dd3f7489078213a975297bf0ce01ebe6c6a75c40117b72",
            ),
            (
                Action::BackUp { verify: VerifyLevel::Read },
                "6f3a65b99b16d5beac7089363396d71f00ae0ecee2b5222faca35d4e942dc460",
            ),
            (
                Action::SwapDatabase { backup: backup(), to: SwapTo::Restored { accept_loss: 3 } },
                "245d8852529bf6a32c4ecf9893145e07c82e3e13f90002b03780c0b35dbf00fb",
            ),
            (
                Action::SwapDatabase { backup: backup(), to: SwapTo::Before { accept_loss: 0 } },
                "3884035c015576043295883d4cf97de11e4112faf524066d5eca663e8699330c",
            ),
            (
                Action::Restore { backup: backup(), accept_loss: None },
                "85026f505c59edf07af1f6f8bc801d9d4a9713201c5364717799efcec8238586",
            ),
            (
                Action::SettleRestore { backup: backup() },
                "2a3079007feeaeda99891ca38f6511c45afe053a0cc41cf8a3fd369db36f922d",
            ),
            (
                Action::ProbeHost { checks: Vec::new(), artifact: Some(artifact()) },
                "ff51241206b02943905546c9032e58fb58cbf983bb67e77483b1168f4001371c",
            ),
            (
                Action::ProbeHost { checks: Vec::new(), artifact: None },
                "020aafbfa4d6c850fb894fb1e3c5c617dd36a4abe3f92dac98f587958607734a",
            ),
            (
                Action::ProbeBalancer {
                    checks: Vec::new(),
                    backend: name("be_blue"),
                    epoch: RouteEpoch(5),
                    min_up: 2,
                    patience_ms: 3_000,
                },
                "88dfa6bf4139e8c959260a2fef0acbe923a52e5e058df6c7e34fa5fff5063c22",
            ),
            (
                Action::VerifyBackup { backup: backup(), verify: VerifyLevel::Read },
                "b1e6442126229a9a581bdcfc8758aad4bf5b6e3a3284d0d1ba2832d9c7d0b169",
            ),
            (
                Action::Migrate { migrations: migrations() },
                "3f9dce8fce6e5bd71673b13257eef0fc3cfa07f673239b16649a9b9092e00070",
            ),
            (
                Action::Rehearse { migrations: migrations() },
                "89e7ed02d41f75b32636da462509c5447b70616dcea27bd88af62f3b48f9b4e5",
            ),
            (
                Action::InspectDatabase { verify: VerifyLevel::Read, pending: None },
                "abf72f62c16f4d18a72f68db2a386d1c270ce774f62a8bd23cfb46cc8a1ffad5",
            ),
        ];
        for (action, digest) in kept {
            assert_eq!(order_digest(&order(action.clone(), 1)).to_string(), digest, "{action:?}");
            // That it leads back follows from its plan and step; agents of before knew nothing of it, and know it again.
            let mut back = order(action.clone(), 1);
            back.leads_back = true;
            if let Action::SetRoute { back, .. } = &mut back.action {
                *back = true;
            }
            assert_eq!(order_digest(&back).to_string(), digest, "{action:?}, leading back");
        }
    }
}
