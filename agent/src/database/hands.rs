//! What the agent on a database's host does with each order.

use std::path::PathBuf;
use std::sync::Arc;

use pointsman_chassis::agent_service::{Hands, Rule};
use pointsman_chassis::artifact::Offer;
use pointsman_core::{
    Action, Activation, BackupId, Code, Epoch, Evidence, MigrationPhase, Migrations, Order, Problem, Step,
    SwapTo,
};
use pointsman_database::backup::{self, BackupOrder};
use pointsman_database::migrate::{self, RunOrder};
use pointsman_database::preflight::{self, Verdict};
use pointsman_database::{Authority, Progress, Settings, VerifyLevel, restore, scratch};
use pointsman_migration::{Phase, Set, Version};
use pointsman_proto::v1;
use tonic::Streaming;
use tracing::{info, warn};

use super::{describe, files, words};
use crate::host::{self, Site};

/// Room that must stay free where migrations are brought to, in bytes: they are text.
const FLOOR_BYTES: u64 = 16 << 20;

/// The hands of the database's agent.
#[derive(Clone)]
pub struct DatabaseHands {
    settings: Arc<Settings>,
    site: Site,
    progress: Progress,
}

/// The coordinator that gave an order, as work on the database sees it.
struct Ruling(Rule);

impl Authority for Ruling {
    fn epoch(&self) -> Epoch {
        self.0.epoch()
    }

    fn check(&self) -> Result<(), Problem> {
        self.0.check()
    }
}

fn not_ours() -> Problem {
    Problem::new(Code::WrongAddressee, "this is a database's agent: it serves no files and routes nobody")
        .hint("compare the agents named in the environment file with their roles")
}

fn done(detail: String, already: bool) -> Evidence {
    Evidence { already, detail, ..Evidence::default() }
}

impl DatabaseHands {
    /// The hands for this configuration. Files of migrations are brought to `folder`.
    pub fn new(settings: Settings, folder: PathBuf) -> Result<Self, Problem> {
        std::fs::create_dir_all(&folder).map_err(|error| {
            Problem::new(
                Code::FileSystem,
                format!("cannot make `{}` for files of migrations", folder.display()),
            )
            .because(&error)
            .hint("`migrations` in agent.toml must be where the agent's user may write, as below its state")
        })?;
        let site = Site::open(folder)?;
        Ok(Self { settings: Arc::new(settings), site, progress: Progress::default() })
    }

    /// Ends what a crash cut short: a swap, and copies that nobody needs any more. What cannot be done now, because the
    /// server is down, is done by the next order.
    pub async fn recover(&self) {
        match restore::recover(&self.settings).await {
            Ok(recovered) => info!(?recovered, "no swap is half done"),
            Err(problem) => {
                warn!(problem = %problem.in_full(), "cannot look for a swap that was cut short")
            }
        }
        if let Err(problem) = scratch::drop_left_over(&self.settings).await {
            warn!(problem = %problem.in_full(), "cannot look for left-over copies");
        }
    }

    async fn back_up(
        &self,
        order: &Order,
        verify: VerifyLevel,
        ruling: &Ruling,
    ) -> Result<Evidence, Problem> {
        let (settings, progress) = (&*self.settings, &self.progress);
        let wanted = BackupOrder { release: order.release.to_string(), label: order.release.to_string() };
        let taken = backup::take(settings, &wanted, ruling, progress).await?;
        let verified = self.checked(&taken.id, verify, ruling).await?;
        // An old backup that could not be removed takes room, and nothing else.
        if let Err(problem) = backup::retain(settings, &[order.release.to_string()]).await {
            warn!(problem = %problem.in_full(), "old backups stay");
        }
        Ok(done(words::backup(&verified.backup), taken.already))
    }

    /// Checks a backup. One that is restored for it stays so, where copies are kept.
    async fn checked(
        &self,
        id: &str,
        verify: VerifyLevel,
        ruling: &Ruling,
    ) -> Result<backup::Verified, Problem> {
        let (settings, progress) = (&*self.settings, &self.progress);
        if verify == VerifyLevel::RestoreTest && settings.backup.keep_copy && self.is_newest(id).await? {
            return restore::prepare(settings, id, ruling, progress).await.map(|(verified, _)| verified);
        }
        backup::verify(settings, id, verify, ruling, progress).await
    }

    /// Whether no sound backup came after this one: the copy that is kept is that of the newest.
    async fn is_newest(&self, id: &str) -> Result<bool, Problem> {
        let backups = backup::list(&self.settings).await?;
        Ok(backups.iter().rfind(|backup| backup.fault.is_none()).is_none_or(|newest| newest.id == id))
    }

    /// A backup checked by restoring it, and a copy of what it was restored into to try something in.
    async fn copied(
        &self,
        id: &str,
        ruling: &Ruling,
    ) -> Result<(backup::Verified, scratch::Scratch), Problem> {
        let (settings, progress) = (&*self.settings, &self.progress);
        if !settings.backup.keep_copy {
            return backup::verify_keeping(settings, id, ruling, progress).await;
        }
        let (verified, prepared) = restore::prepare(settings, id, ruling, progress).await?;
        Ok((verified, restore::branch(settings, id, &prepared).await?))
    }

    async fn verify(&self, id: &BackupId, verify: VerifyLevel, ruling: &Ruling) -> Result<Evidence, Problem> {
        let verified = self.checked(id.as_str(), verify, ruling).await?;
        Ok(done(words::backup(&verified.backup), false))
    }

    /// Restores the backup of this release, which is its deepest check, and tries the migrations on the copy.
    async fn rehearse(
        &self,
        order: &Order,
        wanted: &Migrations,
        ruling: &Ruling,
    ) -> Result<Evidence, Problem> {
        let (settings, progress) = (&*self.settings, &self.progress);
        let set = self.set(wanted).await?;
        let backups = backup::list(settings).await?;
        let ours =
            backups.iter().rfind(|backup| backup.release == order.release.as_str() && backup.fault.is_none());
        let missing = || {
            Problem::new(Code::BackupUnknown, format!("there is no backup of release `{}`", order.release))
        };
        let id = &ours.ok_or_else(missing)?.id;
        let (verified, copy) = self.copied(id, ruling).await?;
        let on_copy = Settings { name: copy.database.clone(), ..settings.clone() };
        let rehearsed = match adopt(&on_copy, &set, ruling).await {
            Ok(()) if wanted.phase == MigrationPhase::Down => {
                let (run, version) = (run_order(order, wanted, &copy.database)?, to_take_back(wanted)?);
                migrate::rehearse_down(settings, &copy.database, &set, &version, &run, ruling, progress).await
            }
            Ok(()) => {
                let run = run_order(order, wanted, &copy.database)?;
                migrate::rehearse(settings, &copy.database, &set, &run, ruling, progress).await
            }
            Err(problem) => Err(problem),
        };
        if let Err(problem) = copy.clone().remove(settings).await {
            warn!(problem = %problem.in_full(), copy = copy.database, "the copy stays until the agent starts again");
        }
        let rehearsed = rehearsed?;
        Ok(done(format!("{}; {}", words::backup(&verified.backup), words::rehearsal(&rehearsed)), false))
    }

    async fn migrate(
        &self,
        order: &Order,
        wanted: &Migrations,
        ruling: &Ruling,
    ) -> Result<Evidence, Problem> {
        let (settings, progress) = (&*self.settings, &self.progress);
        let set = self.set(wanted).await?;
        let run = run_order(order, wanted, &settings.name)?;
        if wanted.phase == MigrationPhase::Down {
            let version = to_take_back(wanted)?;
            let ran = migrate::down(settings, &set, &version, &run, ruling, progress).await?;
            return Ok(done(words::taken_back(&version, &ran), ran.already));
        }
        adopt(settings, &set, ruling).await?;
        let ran = migrate::run(settings, &set, &run, ruling, progress).await?;
        Ok(done(words::ran(&ran), ran.already))
    }

    async fn restore(
        &self,
        id: &BackupId,
        accept_loss: Option<u64>,
        ruling: &Ruling,
    ) -> Result<Evidence, Problem> {
        let beside = restore::beside(&self.settings, id.as_str(), ruling, &self.progress).await?;
        let loss = restore::loss(&self.settings, id.as_str(), &self.progress).await?;
        if let Some(accepted) = accept_loss {
            restore::must_be_accepted(&loss, accepted)?;
            // A swap would refuse it when visitors are led away already.
            restore::must_look_alike(&self.settings, id.as_str(), &beside.database).await?;
        }
        Ok(done(words::restored(&beside, &loss), beside.already))
    }

    async fn swap(&self, id: &BackupId, to: &SwapTo, ruling: &Ruling) -> Result<Evidence, Problem> {
        let (settings, id, progress) = (&*self.settings, id.as_str(), &self.progress);
        let swapped = match to {
            SwapTo::Restored { accept_loss } => {
                restore::swap(settings, id, *accept_loss, ruling, progress).await?
            }
            SwapTo::Before { accept_loss } => {
                restore::swap_back(settings, *accept_loss, ruling, progress).await?
            }
        };
        Ok(done(words::swapped(&swapped), swapped.already))
    }

    /// Drops the database of a restore that is not live.
    async fn settle(&self, ruling: &Ruling) -> Result<Evidence, Problem> {
        let settings = &*self.settings;
        let Some(pending) = restore::pending(settings)? else {
            return Ok(done("no restore is to be settled".to_owned(), true));
        };
        if pending.stage != restore::Stage::Swapped {
            restore::discard(settings, ruling).await?;
            return Ok(done(format!("`{}` is dropped, the live database stays", pending.restored), false));
        }
        let kept = restore::confirm(settings, ruling).await?;
        let words = match kept {
            Some(kept) => format!("`{kept}` is kept: something in it is in no dump; drop it by hand"),
            None => format!("`{}` is dropped, the restored database stays", pending.replaced),
        };
        Ok(done(words, false))
    }

    async fn set(&self, wanted: &Migrations) -> Result<Set, Problem> {
        let (site, artifact) = (self.site.clone(), wanted.artifact);
        host::on_disk(move || files::read(&site, &artifact)).await
    }

    /// Looks at everything that the work will need; the first thing that is not as it should be is the answer.
    async fn inspect(&self, verify: VerifyLevel, pending: Option<&Migrations>) -> Result<Evidence, Problem> {
        let findings = preflight::look(&self.settings).await;
        // A rehearsal runs on a restored backup.
        let rehearses = pending.is_some();
        // A backup that only a superuser could restore is better than none: its check says so.
        preflight::judge(&findings, if rehearses { Verdict::Warning } else { Verdict::Unrestorable })?;
        if rehearses || verify == VerifyLevel::RestoreTest {
            preflight::must_have_room_for_copy(&self.settings).await?;
        }
        if rehearses {
            migrate::history_is_known(&self.settings).await?;
        }
        // What is to be taken back is applied: whether it may be is judged where it is done.
        if let Some(pending) = pending.filter(|pending| pending.phase != MigrationPhase::Down) {
            must_be_pending(&migrate::status(&self.settings).await?, pending)?;
        }
        let warnings = findings.iter().filter(|finding| finding.verdict >= Verdict::Warning);
        let warnings: Vec<&str> = warnings.map(|finding| finding.found.as_str()).collect();
        let words = match warnings.as_slice() {
            [] => format!("{} things looked at, all fit", findings.len()),
            warnings => format!("fit; {}", warnings.join("; ")),
        };
        Ok(done(words, true))
    }
}

/// Refuses when somebody has applied since the plan was made what it is about to apply.
fn must_be_pending(status: &migrate::Status, wanted: &Migrations) -> Result<(), Problem> {
    let phase = phase_of(wanted);
    let of_table = status.schema_version.as_deref().filter(|_| status.records.is_empty());
    let of_table = of_table.and_then(|version| Version::parse(version).ok());
    let there = |version: &Version| {
        let stands = |record: &migrate::Record| record.phase == phase && record.version == *version;
        status.records.iter().any(|record| stands(record) && !record.unverified)
            || of_table.as_ref().is_some_and(|highest| version <= highest)
    };
    let versions = wanted.versions.iter().filter_map(|text| Version::parse(text).ok());
    let applied: Vec<String> = versions.filter(there).map(|version| format!("v{version}")).collect();
    if applied.is_empty() {
        return Ok(());
    }
    let message = format!("{} was applied since the plan was made, and not by it", applied.join(", "));
    Err(Problem::new(Code::PlanOutOfDate, message).hint(
        "see by whom: `pointsman db status ENV`; then start again: what is applied already is left out",
    ))
}

/// The one version that is to be taken back.
fn to_take_back(wanted: &Migrations) -> Result<Version, Problem> {
    let version = wanted.versions.first().and_then(|version| Version::parse(version).ok());
    version
        .ok_or_else(|| Problem::new(Code::MigrationsRefused, "no version is named that could be taken back"))
}

fn phase_of(wanted: &Migrations) -> Phase {
    match wanted.phase {
        MigrationPhase::Expand => Phase::Expand,
        MigrationPhase::Contract => Phase::Contract,
        MigrationPhase::Down => Phase::Down,
    }
}

/// Where a table from before says which versions are there, and nothing is recorded yet, that is recorded.
async fn adopt(settings: &Settings, set: &Set, ruling: &Ruling) -> Result<(), Problem> {
    let status = migrate::status(settings).await?;
    if status.records.is_empty() && status.schema_version.is_some() {
        migrate::adopt(settings, set, ruling).await?;
    }
    Ok(())
}

/// What undoes a swap is done where none has happened: the database that was live before is live.
fn nothing_to_undo(problem: Problem, stage: Option<restore::Stage>) -> Result<Evidence, Problem> {
    if problem.code != Code::CopyMissing || stage == Some(restore::Stage::Swapped) {
        return Err(problem);
    }
    Ok(done("no swap has happened: the database that was live before is live".to_owned(), true))
}

fn run_order<'a>(order: &Order, wanted: &Migrations, database: &'a str) -> Result<RunOrder<'a>, Problem> {
    let parsed = |version: &String| {
        Version::parse(version).map_err(|error| {
            Problem::new(Code::MigrationsRefused, format!("`{version}` is no version")).because(&error)
        })
    };
    Ok(RunOrder {
        phase: phase_of(wanted),
        release: order.release.to_string(),
        out_of_order: wanted.out_of_order.iter().map(parsed).collect::<Result<_, _>>()?,
        max_stall_ms: wanted.max_stall_ms,
        lock_budget_ms: wanted.lock_budget_ms,
        database,
    })
}

impl Hands for DatabaseHands {
    async fn act(&self, order: &Order, rule: &Rule) -> Result<Evidence, Problem> {
        let (site, ruling) = (self.site.clone(), Ruling(rule.clone()));
        let rule = rule.clone();
        let acted = match &order.action {
            Action::Stage { artifact } => {
                let artifact = *artifact;
                host::on_disk(move || host::seal(&site, &artifact, &rule)).await
            }
            Action::Discard { artifact } => {
                let artifact = *artifact;
                host::on_disk(move || host::discard(&site, &artifact, &rule)).await
            }
            Action::BackUp { verify } => self.back_up(order, *verify, &ruling).await,
            Action::VerifyBackup { backup, verify } => self.verify(backup, *verify, &ruling).await,
            Action::Rehearse { migrations } => self.rehearse(order, migrations, &ruling).await,
            Action::Migrate { migrations } => self.migrate(order, migrations, &ruling).await,
            Action::Restore { backup, accept_loss } => self.restore(backup, *accept_loss, &ruling).await,
            Action::SwapDatabase { backup, to } => {
                let swapped = self.swap(backup, to, &ruling).await;
                match swapped {
                    Err(problem) if order.key.step == Step::Unswap => {
                        let pending = restore::pending(&self.settings)?;
                        nothing_to_undo(problem, pending.map(|pending| pending.stage))
                    }
                    swapped => swapped,
                }
            }
            Action::SettleRestore { .. } => self.settle(&ruling).await,
            looking => self.observe(looking).await,
        };
        self.progress.done();
        acted
    }

    async fn prepare(&self, _: &Order, _: &Rule) -> Result<Evidence, Problem> {
        // Nothing that is done with the database is done together with others.
        Err(not_ours())
    }

    async fn observe(&self, action: &Action) -> Result<Evidence, Problem> {
        match action {
            Action::InspectDatabase { verify, pending } => self.inspect(*verify, pending.as_ref()).await,
            _ => Err(not_ours()),
        }
    }

    async fn diagnose(&self, _: &Activation) -> Vec<v1::Finding> {
        preflight::look(&self.settings).await.iter().map(words::finding).collect()
    }

    async fn describe(&self) -> v1::AgentStatus {
        describe::describe(&self.settings, &self.progress).await
    }

    async fn offer(&self, offer: Offer, _: &Rule) -> Result<v1::ArtifactNeed, Problem> {
        let site = self.site.clone();
        host::on_disk(move || host::accept_offer(&site, &offer, FLOOR_BYTES)).await
    }

    async fn contents(
        &self,
        first: v1::ContentPiece,
        messages: Streaming<v1::ContentPiece>,
        rule: &Rule,
    ) -> Result<v1::ContentReceipt, Problem> {
        host::receive(self.site.clone(), first, messages, rule).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use restore::Stage;

    #[test]
    fn a_swap_that_never_happened_is_undone() {
        let undone = |code, stage| nothing_to_undo(Problem::new(code, "refused"), stage);
        for stage in [None, Some(Stage::Filling), Some(Stage::Ready), Some(Stage::TakenBack)] {
            assert!(undone(Code::CopyMissing, stage).is_ok_and(|evidence| evidence.already), "{stage:?}");
            assert!(undone(Code::DatabaseUnreachable, stage).is_err(), "{stage:?}");
        }
        // Somebody has renamed one of the two: which is live is for a person to see.
        assert!(undone(Code::CopyMissing, Some(Stage::Swapped)).is_err());
        assert!(undone(Code::LossGrown, Some(Stage::Swapped)).is_err());
    }

    #[test]
    fn what_somebody_else_has_applied_meanwhile_is_refused_with_its_version() {
        let wanted = |phase| Migrations {
            artifact: pointsman_core::ArtifactDigest::from_bytes([1; 32]),
            phase,
            versions: vec!["1.9.0".to_owned(), "1.10.0".to_owned()],
            out_of_order: Vec::new(),
            max_stall_ms: 200,
            lock_budget_ms: 1_000,
        };
        let record = |version: &str, phase| migrate::Record {
            version: Version::parse(version).unwrap(),
            phase,
            adopted: false,
            unverified: false,
            had_verify_file: false,
            release: "by-hand".to_owned(),
            at: String::new(),
            raw_hash: [0; 32],
            token_hash: [0; 32],
        };
        let stands = |records, schema_version: Option<&str>| migrate::Status {
            records,
            schema_version: schema_version.map(str::to_owned),
            ..migrate::Status::default()
        };
        let (expand, contract) = (wanted(MigrationPhase::Expand), wanted(MigrationPhase::Contract));
        let fresh = stands(vec![record("1.8.0", Phase::Expand)], Some("1.8.0"));
        assert!(must_be_pending(&fresh, &expand).is_ok());
        let applied = stands(vec![record("1.10.0", Phase::Expand)], Some("1.10.0"));
        let refused = must_be_pending(&applied, &expand).unwrap_err();
        assert_eq!(refused.code, Code::PlanOutOfDate);
        assert!(refused.message.starts_with("v1.10.0 was applied"), "{refused:?}");
        assert!(must_be_pending(&applied, &contract).is_ok());
        // What stands and was not verified is part of the plan: its verify file is looked at again.
        let unverified = migrate::Record { unverified: true, ..record("1.10.0", Phase::Expand) };
        assert!(must_be_pending(&stands(vec![unverified], Some("1.10.0")), &expand).is_ok());
        // A table from before pointsman counts by its highest version, as when it is adopted.
        let by_hand = must_be_pending(&stands(Vec::new(), Some("1.9.0")), &expand).unwrap_err();
        assert!(by_hand.message.starts_with("v1.9.0 was"), "{by_hand:?}");
    }
}
