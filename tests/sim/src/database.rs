//! What orders do on the database's host, one visible change after the other: as the real agent does it, with the state
//! exact after every crash.

use pointsman_core::{
    Aftermath, BackupId, Code, MigrationPhase, Migrations, Order, Problem, ReleaseId, Step, SwapTo,
};

use crate::agent::{Go, already, done, failed};
use crate::guard::Guard;
use crate::network::Sent;
use crate::scenario::Files;
use crate::server::{Name, Restore, Server, Stage};
use crate::site;
use crate::truth::Effect;
use crate::world::{Who, World};

/// How work on the database goes wrong half-way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// The server refuses, and what it was asked is undone.
    Refused,
    /// The session ends before the answer, and what it was asked is not done.
    LostBefore,
    /// The session ends before the answer, and what it was asked is done.
    LostAfter,
}

/// The same will happen again.
fn refused(code: Code) -> Go {
    Go::End(Err(Problem::new(code, "not as it should be")))
}

impl World {
    /// The server on a host.
    pub fn server(&mut self, host: usize) -> Option<&mut Server> {
        self.hosts.get_mut(host)?.server_mut()
    }

    fn trouble(&mut self) -> Option<Trouble> {
        if !self.chance.percent(self.scenario.brittle) {
            return None;
        }
        let kinds = [Trouble::Refused, Trouble::Refused, Trouble::LostBefore, Trouble::LostAfter];
        Some(self.chance.pick(&kinds, Trouble::Refused))
    }

    fn stage_of_job(&mut self, host: usize, job: u64) -> u8 {
        self.job(host, job).map_or(0, |job| job.stage)
    }

    fn go_to(&mut self, host: usize, job: u64, stage: u8) {
        if let Some(job) = self.job(host, job) {
            job.stage = stage;
        }
    }

    fn has_changed(&mut self, host: usize, job: u64) -> bool {
        self.job(host, job).is_some_and(|job| job.changed)
    }

    fn changes(&mut self, host: usize, job: u64) {
        if let Some(job) = self.job(host, job) {
            job.changed = true;
        }
    }

    fn end(&mut self, host: usize, job: u64) -> Go {
        if self.has_changed(host, job) { done() } else { already() }
    }

    /// Takes a backup for a release, and reads it to its end.
    pub fn back_up(&mut self, host: usize, job: u64, sent: &Sent) -> Go {
        let (now, release) = (self.now, &sent.order.release);
        if !self.stands(Guard::BackupFirst) {
            return already();
        }
        match self.stage_of_job(host, job) {
            0 => {
                let known = self.server(host).and_then(|server| server.backup_of(release));
                let ms = self.chance.between(20, 400);
                self.go_to(host, job, if known.is_some() { 2 } else { 1 });
                Go::Again(if self.chance.percent(5) { ms * 20 } else { ms })
            }
            1 => {
                if let Err(problem) = self.rules(host, sent) {
                    return Go::End(Err(problem));
                }
                let trouble = self.trouble();
                if trouble == Some(Trouble::Refused) {
                    return failed(Code::BackupFailed, Aftermath::Unchanged);
                }
                if self.point(Who::Agent(host)) {
                    return done();
                }
                if trouble != Some(Trouble::LostBefore) {
                    let damaged = self.chance.percent(self.scenario.brittle);
                    self.effect(host, sent, &Effect::BackedUp);
                    if let Some(server) = self.server(host) {
                        server.take(release, now, damaged);
                    }
                    self.changes(host, job);
                }
                if trouble.is_some() {
                    return failed(Code::BackupFailed, Aftermath::Unknown);
                }
                if self.point(Who::Agent(host)) {
                    return done();
                }
                self.go_to(host, job, 2);
                Go::Again(self.chance.between(10, 100))
            }
            _ => {
                let at = self.server(host).and_then(|server| server.backup_of(release));
                match self.read_backup(host, at) {
                    Some(problem) => problem,
                    None => self.end(host, job),
                }
            }
        }
    }

    /// Reads a backup to its end; what is wrong with it is the answer.
    fn read_backup(&mut self, host: usize, at: Option<usize>) -> Option<Go> {
        let believes = !self.stands(Guard::BackupChecked);
        let backup = at.and_then(|at| self.server(host)?.backups.get_mut(at));
        let Some(backup) = backup else { return Some(refused(Code::BackupUnknown)) };
        if backup.damaged && !believes {
            backup.given_up = true;
            return Some(failed(Code::BackupDamaged, Aftermath::Changed));
        }
        backup.checked = true;
        None
    }

    /// Checks a backup that was taken before.
    pub fn verify_backup(&mut self, host: usize, id: &BackupId) -> Go {
        let at =
            self.server(host).and_then(|server| server.backups.iter().position(|backup| backup.id == *id));
        self.read_backup(host, at).unwrap_or_else(done)
    }

    /// Whether the files of migrations are on the host's disk, whole.
    fn has_files(&mut self, host: usize, wanted: &Migrations) -> bool {
        let tree = self.server(host).and_then(|server| server.trees.get(&wanted.artifact).copied());
        tree.is_some_and(|tree| tree.marked)
    }

    /// How the files of a version are.
    fn files(&self, version: u8) -> Files {
        site::files(&self.scenario, version)
    }

    /// Tries the migrations on what is restored from the backup of this release.
    pub fn rehearse(&mut self, host: usize, job: u64, sent: &Sent, wanted: &Migrations) -> Go {
        if !self.stands(Guard::RehearsalFirst) {
            return done();
        }
        if !self.has_files(host, wanted) {
            return failed(Code::ArtifactMissing, Aftermath::Unchanged);
        }
        let release = &sent.order.release;
        let (stage, ms) = (self.stage_of_job(host, job), self.chance.between(20, 300));
        let trouble = self.trouble();
        let Some(server) = self.hosts.get_mut(host).and_then(|host| host.server_mut()) else {
            return done();
        };
        let backup = server.backup_of(release).and_then(|at| server.backups.get(at).cloned());
        let Some(backup) = backup else { return refused(Code::BackupUnknown) };
        if stage == 0 {
            server.drop_scratch();
            server.copy(&backup.id, Name::Scratch);
            self.go_to(host, job, 1);
            return Go::Again(ms);
        }
        if self.point(Who::Agent(host)) {
            return done();
        }
        if trouble.is_some() {
            // Of the copy something may be left over.
            return failed(Code::SessionLost, Aftermath::Unchanged);
        }
        if let Some(server) = self.server(host) {
            server.drop_scratch();
        }
        if backup.damaged {
            return refused(Code::BackupUnrestorable);
        }
        let versions = || wanted.versions.iter().filter_map(|version| site::number(version));
        if versions().any(|version| self.files(version) == Files::Unfit) {
            return refused(Code::MigrationsUnfit);
        }
        let contract = wanted.phase == MigrationPhase::Contract;
        if contract && versions().any(|version| !backup.schema.expanded.has(version)) {
            return refused(Code::MigrationsUnfit);
        }
        self.truth.rehearsed(release, wanted);
        done()
    }

    /// Applies migrations: each in a transaction that records it and obeys the epoch.
    pub fn migrate(&mut self, host: usize, job: u64, sent: &Sent, wanted: &Migrations) -> Go {
        if !self.has_files(host, wanted) {
            return failed(Code::ArtifactMissing, Aftermath::Unchanged);
        }
        let (epoch, phase) = (sent.order.epoch, wanted.phase);
        let changed = self.has_changed(host, job);
        let aftermath = if changed { Aftermath::Changed } else { Aftermath::Unchanged };
        if let Err(problem) = self.rules(host, sent) {
            return Go::End(Err(problem.aftermath(aftermath)));
        }
        let (stage, ms) = (self.stage_of_job(host, job), self.chance.between(5, 60));
        let Some(live) = self.server(host).and_then(|server| server.live_mut()) else {
            return failed(Code::DatabaseUnreachable, aftermath);
        };
        if live.fence > epoch {
            let problem = Problem::new(Code::Fenced, "a newer epoch rules the database");
            return Go::End(Err(problem.aftermath(aftermath)));
        }
        if stage == 0 {
            live.fence = epoch;
            self.go_to(host, job, 1);
            return Go::Again(ms);
        }
        let (recorded, effective) = (live.schema.recorded(phase), live.schema.effective(phase));
        let expanded = live.schema.expanded;
        let mut versions = wanted.versions.iter().filter_map(|version| site::number(version));
        let next = if self.stands(Guard::MigratedOnce) {
            versions.find(|version| !recorded.has(*version))
        } else {
            versions.nth(usize::from(stage - 1))
        };
        let Some(version) = next else { return self.end(host, job) };
        if phase == MigrationPhase::Contract && !expanded.has(version) {
            return Go::End(Err(Problem::new(Code::MigrationsUnfit, "not expanded").aftermath(aftermath)));
        }
        if self.files(version) == Files::FailsLive {
            return failed(Code::LockNotHad, aftermath);
        }
        let trouble = self.trouble();
        if trouble == Some(Trouble::Refused) {
            return failed(Code::StatementFailed, aftermath);
        }
        if self.point(Who::Agent(host)) {
            return done();
        }
        if trouble != Some(Trouble::LostBefore) {
            let at_once = self.stands(Guard::RecordedWithin);
            // Without the guard what it did takes effect, and that it did is written down later.
            if at_once || !(changed && effective.has(version)) {
                self.commit_migration(host, job, sent, (version, phase));
                if !at_once {
                    return Go::Again(ms);
                }
            }
            if let Some(live) = self.server(host).and_then(|server| server.live_mut()) {
                live.schema.record(version, phase);
            }
            if !self.stands(Guard::ContractLast) && phase == MigrationPhase::Expand {
                self.commit_migration(host, job, sent, (version, MigrationPhase::Contract));
            }
        }
        if trouble.is_some() {
            return failed(Code::SessionLost, Aftermath::Unknown);
        }
        if self.point(Who::Agent(host)) {
            return done();
        }
        self.go_to(host, job, stage.saturating_add(1));
        Go::Again(ms)
    }

    fn commit_migration(
        &mut self,
        host: usize,
        job: u64,
        sent: &Sent,
        (version, phase): (u8, MigrationPhase),
    ) {
        self.effect(host, sent, &Effect::Migrated { version, phase });
        self.changes(host, job);
        if let Some(live) = self.server(host).and_then(|server| server.live_mut()) {
            live.schema.apply(version, phase);
        }
        self.fits_whoever_is_served("a migration");
    }

    /// Restores a backup beside the live database. Where a swap is to follow, more may not be lost by it than is accepted.
    pub fn restore(
        &mut self,
        host: usize,
        job: u64,
        sent: &Sent,
        (id, accepted): (&BackupId, Option<u64>),
    ) -> Go {
        if let Err(problem) = self.rules(host, sent) {
            return Go::End(Err(problem));
        }
        let (now, stage) = (self.now, self.stage_of_job(host, job));
        let (trouble, ms) = (self.trouble(), self.chance.between(30, 500));
        let Some(server) = self.server(host) else { return done() };
        let Some(backup) = server.backup(id).cloned() else { return refused(Code::BackupUnknown) };
        if stage == 0 {
            server.finish(now);
            match server.restore.as_ref().map(|restore| (restore.stage, restore.restored)) {
                Some((Stage::Swapped, _)) => return refused(Code::RestorePending),
                Some((Stage::Ready, _))
                    if server.restore.as_ref().is_some_and(|restore| restore.backup == *id) =>
                {
                    let loss = server.loss(now);
                    return match self.grown(loss, accepted) {
                        true => refused(Code::LossGrown),
                        false => already(),
                    };
                }
                Some((Stage::Filling | Stage::Ready, left_over)) => {
                    server.databases.remove(&left_over);
                }
                _ => {}
            }
            server.restore = None;
            let Some((replaced, _)) = server.live() else {
                return failed(Code::DatabaseUnreachable, Aftermath::Unchanged);
            };
            let Some(restored) = server.copy(id, Name::Aside) else { return refused(Code::BackupUnknown) };
            server.restore = Some(Restore {
                backup: id.clone(),
                stage: Stage::Filling,
                restored,
                replaced,
                rows_at_swap: 0,
                rows_in_backup: backup.rows,
            });
            self.go_to(host, job, 1);
            return Go::Again(ms);
        }
        if backup.damaged {
            return Go::End(Err(
                Problem::new(Code::BackupUnrestorable, "damaged").aftermath(Aftermath::Changed)
            ));
        }
        if trouble.is_some_and(|trouble| trouble != Trouble::LostAfter) {
            return failed(Code::SessionLost, Aftermath::Changed);
        }
        if self.point(Who::Agent(host)) {
            return done();
        }
        self.effect(host, sent, &Effect::Restored);
        let epoch = sent.order.epoch;
        if let Some(server) = self.server(host)
            && let Some(restore) = &mut server.restore
        {
            restore.stage = Stage::Ready;
            let restored = restore.restored;
            if let Some(restored) = server.databases.get_mut(&restored) {
                restored.fence = epoch;
            }
        }
        self.point(Who::Agent(host));
        let loss = self.server(host).map_or(0, |server| server.loss(now));
        match trouble {
            Some(_) => failed(Code::SessionLost, Aftermath::Unknown),
            None if self.grown(loss, accepted) => refused(Code::LossGrown),
            None => done(),
        }
    }

    fn grown(&self, loss: u64, accepted: Option<u64>) -> bool {
        accepted.is_some_and(|accepted| loss > accepted) && self.stands(Guard::LossCounted)
    }

    /// Puts the restored database in the live one's place, or back.
    pub fn swap(&mut self, host: usize, job: u64, sent: &Sent, to: &SwapTo) -> Go {
        match self.stage_of_job(host, job) {
            0 => self.intend_swap(host, job, sent, to),
            1 => {
                if let Some(server) = self.hosts.get_mut(host).and_then(|host| host.server_mut()) {
                    server.let_in(self.now, false);
                }
                if self.point(Who::Agent(host)) {
                    return done();
                }
                self.go_to(host, job, 2);
                Go::Again(self.chance.between(1, 30))
            }
            2 => self.swap_names(host, job, sent, to),
            _ => {
                let now = self.now;
                if let Some(server) = self.server(host) {
                    server.let_in(now, true);
                    server.finish(now);
                }
                self.point(Who::Agent(host));
                done()
            }
        }
    }

    fn too_much(&self, loss: u64, to: &SwapTo) -> bool {
        let (SwapTo::Restored { accept_loss } | SwapTo::Before { accept_loss }) = to;
        self.grown(loss, Some(*accept_loss))
    }

    fn intend_swap(&mut self, host: usize, job: u64, sent: &Sent, to: &SwapTo) -> Go {
        if let Err(problem) = self.rules(host, sent) {
            return Go::End(Err(problem));
        }
        let (now, trouble, ms) = (self.now, self.trouble(), self.chance.between(2, 60));
        let notes = self.stands(Guard::SwapNoted);
        let back = matches!(to, SwapTo::Before { .. });
        let undoes = sent.order.key.step == Step::Unswap;
        let Some(server) = self.server(host) else { return done() };
        server.finish(now);
        let loss = server.loss(now);
        let (before, other) = (server.live().map(|(number, _)| number), &mut server.restore);
        let Some(restore) = other.as_mut().filter(|restore| back || ours(restore, &sent.order)) else {
            return if undoes { already() } else { refused(Code::CopyMissing) };
        };
        let (from, wanted, on_the_way) = match back {
            false => (Stage::Ready, Stage::Swapped, Stage::Swapping),
            true => (Stage::Swapped, Stage::TakenBack, Stage::SwappingBack),
        };
        if restore.stage == wanted {
            return already();
        }
        if restore.stage != from {
            return if undoes { already() } else { refused(Code::CopyMissing) };
        }
        let stands = if back { restore.restored } else { restore.replaced };
        if before != Some(stands) {
            return refused(Code::CopyMissing);
        }
        if !back {
            restore.rows_at_swap = restore.rows_in_backup;
        }
        if self.too_much(loss, to) {
            return refused(Code::LossGrown);
        }
        if trouble.is_some() {
            return failed(Code::SessionLost, Aftermath::Unchanged);
        }
        if let Some(restore) = self.server(host).and_then(|server| server.restore.as_mut())
            && notes
        {
            restore.stage = on_the_way;
        }
        if self.point(Who::Agent(host)) {
            return done();
        }
        self.go_to(host, job, 1);
        Go::Again(ms)
    }

    /// The one visible instant; or the database is opened again, as it was.
    fn swap_names(&mut self, host: usize, job: u64, sent: &Sent, to: &SwapTo) -> Go {
        let (now, trouble) = (self.now, self.trouble());
        let rules = self.rules(host, sent);
        let at_once = self.stands(Guard::OneRename);
        let Some(server) = self.server(host) else { return done() };
        let loss = server.loss(now);
        let Some(restore) = server.restore.clone() else { return refused(Code::CopyMissing) };
        let refusal = match (rules, self.too_much(loss, to)) {
            (Err(problem), _) => Some(problem),
            (Ok(()), true) => Some(Problem::new(Code::LossGrown, "more would be lost")),
            (Ok(()), false) if trouble == Some(Trouble::Refused) => {
                Some(Problem::new(Code::SwapRefused, "a session does not end").retry_useful())
            }
            _ => None,
        };
        if let Some(problem) = refusal {
            if let Some(server) = self.server(host) {
                server.let_in(now, true);
                server.finish(now);
            }
            return Go::End(Err(problem));
        }
        if self.point(Who::Agent(host)) {
            return done();
        }
        let (old, new) = match to {
            SwapTo::Restored { .. } => (restore.replaced, restore.restored),
            SwapTo::Before { .. } => (restore.restored, restore.replaced),
        };
        let (SwapTo::Restored { accept_loss } | SwapTo::Before { accept_loss }) = to;
        if trouble != Some(Trouble::LostBefore) {
            self.effect(host, sent, &Effect::Swapped { loss, accepted: *accept_loss });
            if let Some(server) = self.server(host) {
                server.rename(old, Name::Aside, now);
            }
            if !at_once {
                self.one_is_live(host);
            }
            if let Some(server) = self.server(host) {
                server.rename(new, Name::Live, now);
            }
            self.changes(host, job);
        }
        if trouble.is_some() {
            // Another session looks who is live, and opens it; what came of it may be told, or not.
            let told = self.chance.percent(50);
            if let Some(server) = self.server(host) {
                server.let_in(now, true);
                server.finish(now);
            }
            return match (told, trouble == Some(Trouble::LostBefore)) {
                (false, _) => failed(Code::SwapCutShort, Aftermath::Unknown),
                (true, true) => failed(Code::SwapRefused, Aftermath::Unchanged),
                (true, false) => done(),
            };
        }
        if self.point(Who::Agent(host)) {
            return done();
        }
        self.go_to(host, job, 3);
        Go::Again(1)
    }

    /// Drops the database of a restore that is not live.
    pub fn settle_restore(&mut self, host: usize, sent: &Sent) -> Go {
        if let Err(problem) = self.rules(host, sent) {
            return Go::End(Err(problem));
        }
        let (now, looks) = (self.now, self.stands(Guard::SettleLooks));
        let Some(server) = self.server(host) else { return done() };
        server.finish(now);
        let Some(restore) = server.restore.clone() else { return already() };
        if self.point(Who::Agent(host)) {
            return done();
        }
        let swapped = restore.stage == Stage::Swapped || !looks;
        let goes = if swapped { restore.replaced } else { restore.restored };
        self.effect(host, sent, &Effect::Dropped);
        if let Some(server) = self.server(host) {
            server.databases.remove(&goes);
            server.restore = None;
        }
        self.point(Who::Agent(host));
        done()
    }

    /// What the agent on a database's host does when it starts.
    pub fn recover_database(&mut self, host: usize) {
        let now = self.now;
        if let Some(server) = self.server(host) {
            server.finish(now);
            server.drop_scratch();
        }
    }

    /// The versions of a folder that are to be applied, as the planner is told.
    pub fn pending(&self, folder: u8, phase: MigrationPhase) -> Vec<String> {
        let server = self.hosts.iter().find_map(|host| host.server());
        let recorded = server.and_then(|server| server.live()).map(|(_, live)| live.schema.recorded(phase));
        let all = site::brought(&self.scenario, folder);
        all.each()
            .filter(|version| recorded.is_none_or(|recorded| !recorded.has(*version)))
            .map(site::written)
            .collect()
    }

    /// The backup that people mean: the one of the restore that is not settled or, without one, the newest.
    pub fn meant(&self) -> Option<(BackupId, u64)> {
        let server = self.hosts.iter().find_map(|host| host.server())?;
        let newest = server.backups.iter().rfind(|backup| !backup.given_up).map(|backup| &backup.id);
        let id = server.restore.as_ref().map(|restore| &restore.backup).or(newest)?;
        Some((id.clone(), server.loss(self.now)))
    }
}

/// Whether a restore is of the backup that an order names.
fn ours(restore: &Restore, order: &Order) -> bool {
    matches!(&order.action, pointsman_core::Action::SwapDatabase { backup, .. } if *backup == restore.backup)
}

/// Whether a release has a checked backup of what is live that can be restored.
pub fn backed_up(server: &Server, release: &ReleaseId) -> bool {
    let live = server.live().map(|(number, _)| number);
    let sound = |backup: &crate::server::Backup| {
        backup.release == *release && Some(backup.of) == live && backup.checked && !backup.damaged
    };
    server.backups.iter().any(sound)
}
