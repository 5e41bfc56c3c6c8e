//! Releases that are in memory no more: they are read from the journal when somebody asks, so that what a coordinator holds does
//! not grow with what it ever did.

use pointsman_core::{EnvironmentName, Outcome, Problem, ReleaseId, RequestId};

use crate::journal::{JournalStore, Which};
use crate::opening::{Kept, Opened};

/// The releases of one environment, as its journal has them.
pub struct Archive<'a> {
    journal: &'a JournalStore,
    environment: &'a EnvironmentName,
}

impl<'a> Archive<'a> {
    /// Of this environment.
    pub fn of(journal: &'a JournalStore, environment: &'a EnvironmentName) -> Self {
        Self { journal, environment }
    }

    async fn read(&self, which: Which) -> Result<Vec<Kept>, Problem> {
        let releases = self.journal.releases(self.environment, which).await?;
        let kept = releases.into_iter().map(Kept::of).filter_map(Result::transpose);
        kept.collect::<Result<_, _>>().map_err(|problem| problem.in_environment(self.environment))
    }

    /// One release, if the journal has it. Where that is not over, and is not the open one, it is void: it was open when a person
    /// accepted the journal.
    pub async fn release(&self, id: &ReleaseId) -> Result<Option<Kept>, Problem> {
        Ok(self.read(Which::Named(id.clone())).await?.pop())
    }

    /// The last release of a request that is over.
    pub async fn of_request(&self, id: &RequestId) -> Result<Option<Kept>, Problem> {
        let requested = self.read(Which::Requested(id.clone())).await?;
        Ok(requested.into_iter().find(is_over))
    }

    /// So many that are over and were planned before an entry, newest first; fewer where there are no more.
    pub async fn before(&self, mut seq: u64, limit: usize) -> Result<Vec<Kept>, Problem> {
        let mut found = Vec::new();
        while found.len() < limit {
            let page = self.read(Which::Before(seq, limit.saturating_sub(found.len()))).await?;
            let Some(last) = page.last() else { break };
            seq = last.number;
            found.extend(page.into_iter().filter(is_over));
        }
        Ok(found)
    }

    /// The last that was planned before an entry and is such a one.
    pub async fn last_before(
        &self,
        mut seq: u64,
        is: impl Fn(&Kept) -> bool,
    ) -> Result<Option<Kept>, Problem> {
        loop {
            let page = self.before(seq, PAGE).await?;
            let Some(last) = page.last() else { return Ok(None) };
            seq = last.number;
            if let Some(found) = page.into_iter().find(&is) {
                return Ok(Some(found));
            }
        }
    }

    /// Closes the way back where a journal is read from a plan of a version of before on, which left it open to what had been turned
    /// back: the rollback by which it was is older then than what was read.
    pub async fn mind_what_was_ill(&self, told: &mut Opened) -> Result<(), Problem> {
        let moved =
            |kept: &Kept| kept.state.outcome() == Some(Outcome::Confirmed) && kept.changes_what_is_live();
        let known = told.releases.values().any(|kept| kept.number >= told.since && moved(kept));
        if known || told.since == 0 || told.standing.previous.is_none() {
            return Ok(());
        }
        if let Some(last) = self.last_before(told.since, moved).await? {
            told.standing.mind_what_was_ill(&last.state);
        }
        Ok(())
    }

    /// The first that was planned after an entry and is such a one.
    pub async fn first_after(
        &self,
        mut seq: u64,
        is: impl Fn(&Kept) -> bool,
    ) -> Result<Option<Kept>, Problem> {
        loop {
            let page = self.read(Which::After(seq, PAGE)).await?;
            let Some(last) = page.last() else { return Ok(None) };
            seq = last.number;
            if let Some(found) = page.into_iter().find(&is) {
                return Ok(Some(found));
            }
        }
    }
}

/// How many releases are read at once where it is not known how far back to look.
const PAGE: usize = 50;

fn is_over(kept: &Kept) -> bool {
    kept.state.outcome().is_some()
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use pointsman_core::ports::Journal as _;
    use pointsman_core::{Code, Event, Purpose, Standing, Timestamp};
    use rusqlite::Connection;
    use tempfile::TempDir;

    use super::*;
    use crate::environment::Environment;
    use crate::fixture;
    use crate::opening::{self, KEPT};

    /// More releases than a coordinator reads at its start.
    const MANY: usize = 1_200;

    /// A folder in memory, where this machine has that: what a disk makes of a flush is not what these tests are about.
    fn folder() -> TempDir {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
    }

    fn production() -> Environment {
        fixture::environment(&["lb1", "lb2", "lb3", "lb4"], "")
    }

    /// The journal of a site of many years, and how the site stands.
    async fn old(folder: &TempDir, stood: bool) -> (PathBuf, Standing) {
        let path = folder.path().join("journal.db");
        let store = JournalStore::open(&path, "test").unwrap();
        let standing = fixture::grow(&store, &production(), (0, MANY), stood, Standing::default()).await;
        assert!(store.head().borrow().seq > 30_000, "{:?}", store.head().borrow().seq);
        (path, standing)
    }

    /// Every release, oldest first, from every entry that there is.
    async fn all(store: &JournalStore) -> Vec<Kept> {
        let entries = store.entries_after(&production().name, None, 0).await.unwrap();
        let mut of: Vec<Vec<_>> = Vec::new();
        for entry in entries {
            match of
                .iter_mut()
                .rev()
                .find(|of: &&mut Vec<pointsman_core::Entry>| of[0].release == entry.release)
            {
                Some(of) => of.push(entry),
                None => of.push(vec![entry]),
            }
        }
        of.into_iter().map(|entries| Kept::of(entries).unwrap().unwrap()).collect()
    }

    fn must_be_the_newest(told: &Opened, all: &[Kept]) {
        assert!(told.releases.len() <= 2 * KEPT + 4, "{} are in memory", told.releases.len());
        let newest: Vec<&Kept> = all.iter().filter(|kept| kept.number >= told.since).collect();
        assert!(newest.len() >= KEPT, "{}", newest.len());
        for kept in newest {
            assert_eq!(told.releases.get(&kept.state.plan.release), Some(kept));
        }
        for kept in told.releases.values() {
            assert!(all.contains(kept), "{kept:?}");
        }
    }

    #[tokio::test]
    async fn the_end_of_an_old_journal_says_what_all_of_it_says_and_the_rest_is_read_when_somebody_asks() {
        let folder = folder();
        let (path, standing) = old(&folder, true).await;
        let (store, environment) = (JournalStore::open(&path, "test").unwrap(), production().name);
        let told = opening::look(&store, &environment).await.unwrap();
        assert_eq!(told.standing, standing);
        let count = |read: &mut usize, _| {
            *read += 1;
            Ok(())
        };
        let (read, whole) = store.fold(&environment, 0, count).await.unwrap();
        assert!(!whole);
        assert!((19_000..=20_000).contains(&read), "{read} entries are read");
        let all = all(&store).await;
        assert_eq!(all.len(), MANY);
        let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND name LIKE 'entry_of_%'";
        assert_eq!(Connection::open(&path).unwrap().query_row(sql, [], |row| row.get(0)), Ok(2));
        must_be_the_newest(&told, &all);

        let archive = Archive::of(&store, &environment);
        for kept in all.iter().step_by(97) {
            assert_eq!(archive.release(&kept.state.plan.release).await.unwrap().as_ref(), Some(kept));
        }
        assert_eq!(archive.release(&ReleaseId::parse("other").unwrap()).await, Ok(None));
        let newest: Vec<Kept> = all.iter().rev().skip(9).take(500).cloned().collect();
        assert_eq!(archive.before(all[MANY - 9].number, 500).await.unwrap(), newest);
        let oldest: Vec<Kept> = all.iter().take(3).rev().cloned().collect();
        assert_eq!(archive.before(all[3].number, 500).await.unwrap(), oldest);
        // Whoever asks by a request is told of the last release of it.
        let of_request = |id: &RequestId| {
            all.iter().rev().find(|kept| kept.state.plan.request_id.as_ref() == Some(id)).cloned()
        };
        for id in ["job-3", "job-40", "job-599", "job-600"].map(|id| RequestId::parse(id).unwrap()) {
            assert_eq!(archive.of_request(&id).await.unwrap(), of_request(&id), "{id}");
        }
        let rolls_back = |kept: &Kept| matches!(kept.state.plan.purpose, Purpose::Rollback { .. });
        let last = all[..800].iter().rev().find(|kept| rolls_back(kept)).cloned();
        assert_eq!(archive.last_before(all[800].number, rolls_back).await.unwrap(), last);
        let first = all[8..].iter().find(|kept| rolls_back(kept)).cloned();
        assert_eq!(archive.first_after(all[7].number, rolls_back).await.unwrap(), first);
        let never = |_: &Kept| false;
        assert_eq!(archive.last_before(u64::MAX, never).await, Ok(None));
        assert_eq!(archive.first_after(0, never).await, Ok(None));
    }

    #[tokio::test]
    async fn a_journal_of_versions_that_did_not_say_how_it_stood_is_read_whole_until_one_release_says_so() {
        let folder = folder();
        let (path, standing) = old(&folder, false).await;
        let store = JournalStore::open(&path, "test").unwrap();
        let environment = production();
        let told = opening::look(&store, &environment.name).await.unwrap();
        assert_eq!(told.standing, standing);
        must_be_the_newest(&told, &all(&store).await);

        let standing = fixture::grow(&store, &environment, (MANY, 1), true, standing).await;
        let newest = store.head().borrow().seq;
        let told =
            opening::look(&JournalStore::open(&path, "test").unwrap(), &environment.name).await.unwrap();
        assert_eq!(told.standing, standing);
        let release = ReleaseId::parse(&format!("r{MANY}")).unwrap();
        assert!(told.since + 100 > newest && told.releases.len() == 1, "{}", told.since);
        assert!(told.releases.contains_key(&release));
        assert_eq!(told.missing().is_empty(), told.standing.live.is_none());
    }

    /// Ends well, and is recorded as releases of before are: what it says of how it stood is what such a version made of it.
    async fn record(store: &JournalStore, wish: crate::planner::Wish, standing: &mut Standing) -> Kept {
        let epoch = store.take_lease(&production().name, "test").await.unwrap();
        let mut seen = fixture::seen(&production());
        for facts in seen.balancers.values_mut() {
            let route = standing.route.clone().unwrap_or_else(|| facts.route.parse().unwrap());
            (facts.route, facts.highest_epoch) = (route.to_string(), route.epoch.0);
        }
        let mut plan = crate::planner::plan(&production(), standing, wish, &seen).unwrap();
        plan.verdict.mode = pointsman_core::VerdictMode::Off;
        plan.stood = Some(Box::new(standing.clone()));
        let number = store.head().borrow().seq + 1;
        let (events, state) = fixture::history(plan, false);
        let release = state.plan.release.clone();
        store.append(&production().name, epoch, &release, fixture::PLANNED_AT, events).await.unwrap();
        standing.fold(&state);
        Kept::new(fixture::PLANNED_AT, number, state)
    }

    #[tokio::test]
    async fn a_way_back_that_a_version_of_before_left_open_to_what_was_turned_back_is_closed_at_a_start() {
        let folder = folder();
        let path = folder.path().join("journal.db");
        let store = JournalStore::open(&path, "test").unwrap();
        let mut standing = Standing::default();
        for release in ["r0", "r1"] {
            record(&store, fixture::deploy(release), &mut standing).await;
        }
        let ill = standing.live.clone();
        let back = crate::planner::Wish {
            by: "pointsman".to_owned(),
            reason: Some("after its end: errors".to_owned()),
            ..fixture::wish(crate::planner::Wanted::Rollback, "back")
        };
        record(&store, back, &mut standing).await;
        assert_eq!(standing.turned_back.clone().map(|turned| turned.what), ill);
        (standing.previous, standing.turned_back) = (ill.clone(), None);
        let page = fixture::wish(crate::planner::Wanted::MaintenanceOn(None), "page");
        record(&store, page, &mut standing).await;
        let staging = fixture::file(&["lb1"], "").replace("\"production\"", "\"staging\"");
        let staging = Environment::parse(Path::new("staging.toml"), &staging).unwrap();
        fixture::grow(&store, &staging, (0, 2 * MANY), true, Standing::default()).await;

        let environment = production().name;
        let mut told = opening::look(&store, &environment).await.unwrap();
        assert_eq!((told.releases.len(), &told.standing.previous), (1, &ill), "it begins with the page");
        Archive::of(&store, &environment).mind_what_was_ill(&mut told).await.unwrap();
        assert_eq!(told.standing.previous, None);
        let turned = told.standing.turned_back.unwrap();
        assert_eq!((Some(turned.what), turned.why.as_str()), (ill, "errors"));
    }

    fn change(path: &Path, seq: u64) {
        let connection = Connection::open(path).unwrap();
        let guard: String = connection
            .query_row("SELECT sql FROM sqlite_schema WHERE name = 'entry_stays'", [], |row| row.get(0))
            .unwrap();
        connection.execute_batch("DROP TRIGGER entry_stays").unwrap();
        let changed = connection
            .execute("UPDATE entry SET principal = 'mallory' WHERE seq = ?1", [i64::try_from(seq).unwrap()]);
        assert_eq!(changed, Ok(1));
        connection.execute_batch(&guard).unwrap();
    }

    #[tokio::test]
    async fn what_is_wrong_with_the_old_part_of_a_journal_is_found_later_and_nothing_is_recorded_from_then_on()
     {
        let folder = folder();
        let (path, _) = old(&folder, true).await;
        let environment = production();
        let store = JournalStore::open(&path, "test").unwrap();
        store.verify_the_rest().await;
        assert_eq!(*store.damage().borrow(), None);
        let head = store.head().borrow().seq;
        drop(store);

        change(&path, 7);
        let store = JournalStore::open(&path, "test").unwrap();
        let epoch = store.take_lease(&environment.name, "test").await.unwrap();
        let release = ReleaseId::parse("r1").unwrap();
        let note = || {
            let tick = pointsman_core::Note::Tick {
                point: "looked".parse().unwrap(),
                by: "ada".to_owned(),
                text: None,
            };
            vec![Event::Noted(tick)]
        };
        let record = |store: JournalStore| {
            let (environment, release) = (environment.name.clone(), release.clone());
            async move { store.append(&environment, epoch, &release, Timestamp(5), note()).await }
        };
        record(store.clone()).await.unwrap();
        store.verify_the_rest().await;
        let problem = store.damage().borrow().clone().unwrap();
        assert!(problem.code == Code::JournalCorrupt && problem.message.contains("entry 7 "), "{problem:?}");
        assert_eq!(record(store.clone()).await.unwrap_err().0, problem);
        assert_eq!(store.take_lease(&environment.name, "test").await.unwrap_err().0, problem);
        assert_eq!(store.must_be_writable().await, Err(problem.clone()));
        assert_eq!(opening::look(&store, &environment.name).await.map(drop), Err(problem));
        drop(store);

        // What is near the end keeps a coordinator from starting at all.
        change(&path, head - 100);
        let problem = JournalStore::open(&path, "test").map(drop).unwrap_err();
        assert!(problem.message.contains(&format!("entry {} ", head - 100)), "{problem:?}");
    }

    #[tokio::test]
    async fn what_an_environment_that_is_hardly_used_rests_on_is_verified_before_it_is_used() {
        let folder = folder();
        let path = folder.path().join("journal.db");
        let store = JournalStore::open(&path, "test").unwrap();
        let staging = Environment::parse(
            Path::new("staging.toml"),
            &fixture::file(&["lb1"], "").replace("\"production\"", "\"staging\""),
        );
        let (staging, production) = (staging.unwrap(), production());
        let standing = fixture::grow(&store, &production, (0, 5), true, Standing::default()).await;
        let stands = fixture::grow(&store, &staging, (0, 3), true, Standing::default()).await;
        let between = store.head().borrow().seq + 50;
        fixture::grow(&store, &production, (5, MANY), true, standing).await;
        drop(store);
        let store = JournalStore::open(&path, "test").unwrap();
        let told = opening::look(&store, &staging.name).await.unwrap();
        assert_eq!((told.standing, told.releases.len()), (stands, 1));
        let older = Archive::of(&store, &staging.name).before(told.since, 9).await.unwrap();
        assert_eq!(older.len(), 2);
        drop(store);

        // Another environment's entry, but its own hang together with the end of the journal by it.
        change(&path, between);
        let store = JournalStore::open(&path, "test").unwrap();
        assert!(opening::look(&store, &production.name).await.is_ok());
        let problem = opening::look(&store, &staging.name).await.map(drop).unwrap_err();
        assert!(problem.message.contains(&format!("entry {between} ")), "{problem:?}");
    }
}
