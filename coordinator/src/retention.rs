//! Which artifacts the coordinator keeps, and the moment at which the others go: what a release could still be led to stays,
//! whatever the disk says.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use pointsman_core::{ArtifactDigest, Standing};
use tracing::{info, warn};

use crate::artifact_store::ArtifactStore;
use crate::fileless::FilelessEnvironments;
use crate::journal::JournalStore;
use crate::office::Office;
use crate::opening::Kept;

/// How many of the newest releases of an environment keep their artifacts, whatever came of them: so far back a person may want
/// to release something again.
pub const RELEASES_KEPT: usize = 10;

/// How often the disk is looked after where no release ends.
const LOOK: Duration = Duration::from_secs(30);

/// How many such looks pass between two in which artifacts are looked for that nobody needs, where no release ended.
const LOOKS_BETWEEN: u32 = 120;

/// Looks after the coordinator's disk, for ever: sets room aside for the way back as soon as there is some, and drops artifacts
/// at a start, after each release, and now and then.
pub async fn look_after_disk(
    journal: JournalStore,
    store: ArtifactStore,
    offices: Vec<Arc<Office>>,
    fileless: FilelessEnvironments,
) {
    let mut looks = 0;
    loop {
        journal.keep_room().await;
        if looks == 0 {
            drop_unneeded((&journal, &store), &offices, &fileless).await;
        }
        let ended = tokio::time::timeout(LOOK, store.release_ended()).await.is_ok();
        looks = if ended || looks >= LOOKS_BETWEEN { 0 } else { looks.saturating_add(1) };
    }
}

async fn drop_unneeded(
    (journal, store): (&JournalStore, &ArtifactStore),
    offices: &[Arc<Office>],
    fileless: &FilelessEnvironments,
) {
    // A file that somebody moves away for a minute takes nothing along: what its environment needs the journal knows.
    let led = offices.iter().map(|office| office.environment().name.clone()).collect();
    let fileless = match fileless.read(journal, &led).await {
        Ok(fileless) => fileless,
        Err(problem) => {
            warn!(problem = %problem.in_full(), "artifacts are kept: what environments without a file need is not known");
            return;
        }
    };
    // Of an environment whose journal cannot be trusted it is not known what it needs, and the store is everybody's.
    let needed = join_all(offices.iter().map(|office| office.needed())).await;
    let Some(needed) = needed.into_iter().collect::<Option<Vec<_>>>() else { return };
    let needed = needed.into_iter().flatten().chain(fileless.iter().flat_map(|one| one.needed.clone()));
    let (of_store, needed) = (store.clone(), needed.collect::<BTreeSet<_>>());
    match tokio::task::spawn_blocking(move || of_store.drop_all_but(&needed)).await {
        Ok(Ok(dropped)) if dropped.contents == 0 && dropped.artifacts.is_empty() => {}
        Ok(Ok(dropped)) => {
            let artifacts: Vec<String> =
                dropped.artifacts.iter().map(|artifact| artifact.short().to_string()).collect();
            let artifacts = artifacts.join(" ");
            info!(%artifacts, contents = dropped.contents, bytes = dropped.bytes, "dropped from the store: no release leads there");
        }
        Ok(Err(problem)) => warn!(problem = %problem.in_full(), "artifacts that nobody needs are kept"),
        Err(error) => warn!(%error, "artifacts that nobody needs are kept"),
    }
}

/// The artifacts that an environment may still need: what its slots hold, what an open release brings or leads back to, and those
/// of its newest releases, the migrations among them. A release may be told twice.
pub fn needed<'a>(standing: &Standing, releases: impl Iterator<Item = &'a Kept>) -> BTreeSet<ArtifactDigest> {
    let held = standing.live.iter().chain(&standing.previous).chain(standing.slots.values());
    let mut needed: BTreeSet<ArtifactDigest> = held.filter_map(|held| held.artifact).collect();
    let mut newest: Vec<&Kept> = releases.collect();
    newest.sort_by_key(|kept| std::cmp::Reverse(kept.number));
    newest.dedup_by_key(|kept| kept.number);
    let kept = newest
        .iter()
        .enumerate()
        .filter(|(place, kept)| *place < RELEASES_KEPT || kept.state.outcome().is_none());
    for plan in kept.map(|(_, kept)| &kept.state.plan) {
        let migrations = plan.database.as_ref().and_then(|database| database.migrations.as_ref());
        needed.extend(plan.artifact().into_iter().chain(migrations.map(|migrations| migrations.artifact)));
    }
    needed
}

/// The part of the disk that nothing is published into, in bytes: a twentieth of it, and no more than this.
const FLOOR_BYTES: u64 = 256 << 20;
const FLOOR_SHARE: u64 = 20;

/// Room on the disk of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Free, in bytes.
    pub free: u64,
    /// Altogether, in bytes.
    pub total: u64,
    /// Free inodes, and all of them; both 0 where the file system counts none.
    pub inodes: (u64, u64),
}

impl Room {
    /// The room on the disk of a folder, where that can be found out.
    pub fn of(folder: &Path) -> Option<Self> {
        let found = rustix::fs::statvfs(folder).ok()?;
        Some(Self {
            free: found.f_bavail.saturating_mul(found.f_frsize),
            total: found.f_blocks.saturating_mul(found.f_frsize),
            inodes: (found.f_favail, found.f_files),
        })
    }

    /// What is left free by whoever publishes, in bytes.
    pub fn floor(&self) -> u64 {
        (self.total / FLOOR_SHARE).min(FLOOR_BYTES)
    }

    /// What must be free for so many bytes in so many files, where it is not: in bytes, and whether it is inodes that lack.
    pub fn lacks(&self, bytes: u64, files: u64) -> Option<Lacks> {
        let needed = bytes.saturating_add(self.floor());
        if self.free < needed {
            return Some(Lacks::Bytes(needed));
        }
        let (free, total) = self.inodes;
        let needed = files.saturating_add(total / FLOOR_SHARE / 5);
        (total > 0 && free < needed).then_some(Lacks::Inodes(needed))
    }
}

/// What a disk has too little of, and how much of it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacks {
    /// Bytes.
    Bytes(u64),
    /// Inodes.
    Inodes(u64),
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::{self, File};
    use std::time::SystemTime;

    use pointsman_chassis::artifact::{digest_of, hash_of};
    use pointsman_core::manifest::{Entry, Kind, Manifest};
    use pointsman_core::ports::Journal as _;
    use pointsman_core::{
        EnvironmentName, Epoch, Event, LiveRelease, Plan, Problem, SlotName, Stamped, State, machine,
    };

    use super::*;
    use crate::fixture;

    #[test]
    fn what_slots_hold_what_is_open_and_the_newest_are_needed_and_nothing_else() {
        let of = |number: u8| ArtifactDigest::from_bytes([number; 32]);
        let environment = fixture::environment(&["lb1"], "");
        let kept = |number: u8, over: bool| {
            let mut plan = fixture::plan(&environment, &format!("r{number}"));
            plan.purpose = pointsman_core::Purpose::Deploy { artifact: of(number) };
            let mut state = State::begin(plan, Epoch(1), fixture::PLANNED_AT);
            if over {
                let event = Event::TurnedBack(Problem::new(pointsman_core::Code::CheckFailed, "500"));
                machine::fold(&mut state, &Stamped { at: fixture::PLANNED_AT, event }).unwrap();
            }
            Kept::new(fixture::PLANNED_AT, u64::from(number), state)
        };
        let held = |name: &str, number| {
            let slot = SlotName::parse(name).unwrap();
            (slot.clone(), LiveRelease { slot, release: None, artifact: Some(of(number)) })
        };
        let standing = Standing {
            live: Some(held("green", 101).1),
            previous: Some(held("blue", 102).1),
            slots: BTreeMap::from([held("blue", 103)]),
            ..Standing::default()
        };
        let releases: Vec<Kept> = (1..=14).map(|number| kept(number, number != 2)).collect();
        let expected = [2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 101, 102, 103].map(of);
        assert_eq!(needed(&standing, releases.iter()), BTreeSet::from(expected));
    }

    /// Names an artifact of one page complete, as it was published a week ago.
    fn published(store: &ArtifactStore, text: &str) -> ArtifactDigest {
        let size = u64::try_from(text.len()).unwrap();
        let kind = Kind::File { size, content: hash_of(text.as_bytes()), executable: false };
        let entry = Entry { path: "index.html".to_owned(), kind };
        let bytes = Manifest::new(vec![entry]).unwrap().encode();
        let artifact = digest_of(&bytes);
        let path = store.root().join("manifests").join(artifact.to_string());
        fs::write(&path, &bytes).unwrap();
        let week_ago = SystemTime::now() - Duration::from_secs(7 * 86_400);
        File::options().write(true).open(&path).unwrap().set_modified(week_ago).unwrap();
        artifact
    }

    #[tokio::test]
    async fn what_an_environment_without_a_file_needs_is_kept_and_its_open_release_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let journal = JournalStore::open(&folder.path().join("journal.db"), "test").unwrap();
        let store = ArtifactStore::open(folder.path().join("artifacts")).unwrap();
        let [open, nobodys] = ["open", "nobody's"].map(|text| published(&store, text));
        let plan = fixture::plan(&fixture::environment(&["lb1"], ""), "r1");
        let (production, release) = (plan.environment.clone(), plan.release.clone());
        let purpose = pointsman_core::Purpose::Deploy { artifact: open };
        let planned = Event::Planned(Arc::new(Plan { purpose, ..plan }));
        let epoch = journal.take_lease(&production, "test").await.unwrap();
        journal.append(&production, epoch, &release, fixture::PLANNED_AT, vec![planned]).await.unwrap();
        // One that never released anything lacks nothing.
        let other = EnvironmentName::parse("staging").unwrap();
        journal.take_lease(&other, "test").await.unwrap();

        let fileless = FilelessEnvironments::default();
        drop_unneeded((&journal, &store), &[], &fileless).await;
        assert!(store.manifest(&open).is_ok(), "the open release cannot go on when its file is back");
        assert!(store.manifest(&nobodys).is_err(), "nothing is dropped any more");
        let found: Vec<_> = fileless.findings().collect();
        let what = "release `r1` of `production` is open, and there is no file for environment `production`";
        assert!(found.len() == 1 && found[0].what.contains(what), "{found:?}");
        assert!(found[0].fix.contains("`production.toml`"), "{found:?}");
        let why_not = fileless.why_not(&production).unwrap();
        assert!(why_not.message.contains(what), "{why_not:?}");
        assert_eq!(fileless.why_not(&other), None);

        // With its file it is an environment like any other.
        let led = BTreeSet::from([production]);
        assert_eq!(FilelessEnvironments::default().read(&journal, &led).await, Ok(&[][..]));
    }

    #[test]
    fn a_twentieth_of_a_small_disk_is_left_and_not_more_than_enough_of_a_large_one() {
        let mib = 1 << 20;
        let small = Room { free: 3 * mib, total: 40 * mib, inodes: (0, 0) };
        assert_eq!([small.floor(), Room { total: 1 << 50, ..small }.floor()], [2 * mib, 256 * mib]);
        assert_eq!([small.lacks(mib, 9), small.lacks(mib + 1, 9)], [None, Some(Lacks::Bytes(3 * mib + 1))]);
        let files = Room { inodes: (109, 10_000), ..small };
        assert_eq!([files.lacks(0, 9), files.lacks(0, 10)], [None, Some(Lacks::Inodes(110))]);
    }
}
