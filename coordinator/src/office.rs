//! One environment at work: what its journal says, the one release that may run, and the task that drives it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use pointsman_chassis::SystemClock;
use pointsman_chassis::tls::Credentials;
use pointsman_core::machine;
use pointsman_core::ports::{Clock as _, Journal as _};
use pointsman_core::{
    Activation, Aftermath, ArtifactDigest, BackendName, Code, DatabaseWork, Entry, EnvironmentName, Epoch,
    Event, Found, HostName, Note, Outcome, Phase, Plan, Problem, Purpose, ReleaseId, Request, RequestId,
    RequestKind, Route, RouteEpoch, Standing, State, Step, Timestamp, TrafficSeen, Unaccounted, VerdictMode,
};
use pointsman_proto::{convert, v1};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tracing::{error, info, warn};

use crate::afterwatch::{self, afterwatch};
use crate::archive::Archive;
use crate::artifact_store::ArtifactStore;
use crate::driver::{Asked, Driver};
use crate::environment::Environment;
use crate::fleet::GrpcFleet;
use crate::journal::JournalStore;
use crate::left_out;
use crate::migrations;
use crate::old_side::OldSide;
use crate::opening::{self, Kept, Opened};
use crate::planner::{self, Seen, Wanted, Wish};
use crate::release_ids::{self, Borne};
use crate::repeated;
use crate::retention;
use crate::unaccounted;
use crate::visitors::Visitors;
use crate::visitors::lookout::{Delivers, Lookout};
use crate::warnings;
use crate::way_back;
use crate::witness::{self, witness};

/// The same for web hosts where an answer is welcome but not needed: going back and lifting the page must be fast.
const SHORT_LOOK_MS: u64 = 1_000;
/// Pause before a journal that did not take a fact is tried again.
const JOURNAL_AGAIN: Duration = Duration::from_secs(1);
/// Bound on one look at one agent, for plans and `status`.
const LOOK_MS: u64 = 4_000;
/// How long work on the database may take to give way: it is not waited for, whatever its agent is at.
const GIVES_WAY: Duration = Duration::from_secs(15);
/// Requests of people that wait for the driver: it takes each within milliseconds.
const REQUESTS: usize = 16;
/// Bound on one look into a load balancer, for `doctor`: a dozen questions to an HAProxy that may be silent, and files.
const LOOK_INTO_MS: u64 = 10_000;

/// How long a release may be neither driven nor over while something is asked of it, and how often that is looked at:
/// its driver takes it up within milliseconds.
const DRIVER_TAKES: Duration = Duration::from_secs(5);
const DRIVER_AGAIN: Duration = Duration::from_millis(10);

/// How long accepting a journal waits for its turn: whoever drives lets go at once, unless the journal's disk is stuck.
const LETS_GO: Duration = Duration::from_secs(10);

/// Has whoever drives let go for as long as this lives.
struct LetGo<'a>(&'a watch::Sender<usize>);

impl<'a> LetGo<'a> {
    fn ask(asked: &'a watch::Sender<usize>) -> Self {
        asked.send_modify(|asked| *asked += 1);
        Self(asked)
    }
}

impl Drop for LetGo<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|asked| *asked -= 1);
    }
}

#[derive(Default)]
struct Book {
    /// What the journal tells, and what has been added to it since.
    told: Opened,
    /// What is told was let go of, or could not be read: the journal is opened anew before anything is driven.
    stale: bool,
    /// Since when there is trouble, of whatever kind.
    trouble_since: Option<Timestamp>,
    /// What a person should know of a release that is over, and watched on.
    after_end: Option<(ReleaseId, Problem)>,
    /// The release that is driven, and the ear of its driver.
    driven: Option<(ReleaseId, mpsc::Sender<Asked>)>,
}

impl Book {
    /// Notes when trouble began, and that it is over.
    fn note(&mut self, now: Timestamp) {
        let since = self.trouble_since.unwrap_or(now);
        self.trouble_since = self.told.trouble.as_ref().map(|_| since);
    }
}

/// An environment at work. Cheap to clone through its `Arc`.
pub struct Office {
    environment: Environment,
    journal: JournalStore,
    store: ArtifactStore,
    fleet: GrpcFleet,
    visitors: Visitors,
    old_side: Arc<OldSide>,
    holder: String,
    credentials: Arc<Credentials>,
    book: Mutex<Book>,
    /// Held by whoever drives the open release, and by whoever takes the lease: never both at once.
    turn: tokio::sync::Mutex<()>,
    /// How many wait for whoever drives to let go.
    let_go: watch::Sender<usize>,
    /// One release is begun at a time.
    beginning: tokio::sync::Mutex<()>,
    /// One thing is asked of it at a time, so that what was asked before is known.
    asking: tokio::sync::Mutex<()>,
    begun: Notify,
    /// Changes whenever a release is somewhere else than before.
    moved: watch::Sender<u64>,
    /// The release whose visitors are being counted.
    counted: watch::Sender<Option<ReleaseId>>,
    /// What visitors of a release have met since that was noted last.
    meets: watch::Sender<Option<(ReleaseId, TrafficSeen)>>,
}

/// A release that somebody names.
enum Known {
    /// There is none of that name.
    Nobody,
    /// It was open when a person accepted the journal: its name stays taken.
    Void,
    /// It is known.
    Release(Box<Kept>),
}

/// A failure whose code a newer agent made up.
fn unnamed(host: &HostName) -> Problem {
    Problem::new(
        Code::AgentUnreachable,
        format!("agent `{host}` reports a failure that this version does not know"),
    )
}

/// What all load balancers lead visitors to. Which slot serves is known only where they agree on it; of shares that differ the
/// largest is told.
fn joined(mut found: impl Iterator<Item = Found>) -> Found {
    let Some(mut joined) = found.next() else { return Found::default() };
    for other in found {
        if (&other.slot, other.page) != (&joined.slot, joined.page) {
            return Found::default();
        }
        let percent = |found: &Found| found.unaccounted.as_ref().map_or(0, |share| share.percent);
        if percent(&other) > percent(&joined) {
            joined.unaccounted = other.unaccounted;
        }
    }
    joined
}

impl Office {
    /// Opens the environment: reads its journal, takes its lease, and goes on with what was open. `verdicts` is the folder
    /// in which what is known of visitors is kept.
    pub async fn open(
        environment: Environment,
        (journal, store, verdicts): (JournalStore, ArtifactStore, &Path),
        credentials: &Arc<Credentials>,
        holder: String,
    ) -> Result<Arc<Self>, Problem> {
        let fleet = GrpcFleet::new(&environment, credentials, store.clone(), journal.clone())?;
        let listens = environment.verdict.mode != VerdictMode::Off;
        let lookout = listens.then(|| Lookout::new(environment.verdict.p99_ms));
        let visitors = Visitors::new(verdicts, &environment.name, lookout);
        let office = Arc::new(Self {
            environment,
            journal,
            store,
            fleet,
            visitors,
            old_side: Arc::default(),
            holder,
            credentials: Arc::clone(credentials),
            book: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            let_go: watch::Sender::new(0),
            beginning: tokio::sync::Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            begun: Notify::new(),
            moved: watch::Sender::new(0),
            counted: watch::Sender::new(None),
            meets: watch::Sender::new(None),
        });
        office.begin_with_its_record().await?;
        office.look_out().await;
        tokio::spawn(Arc::clone(&office).work());
        tokio::spawn(Arc::clone(&office).stop_if_damaged());
        tokio::spawn(witness(Arc::clone(&office)));
        tokio::spawn(afterwatch(Arc::clone(&office)));
        tokio::spawn(way_back::keep_known(Arc::clone(&office)));
        Ok(office)
    }

    /// The environment.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The agents.
    pub fn fleet(&self) -> &GrpcFleet {
        &self.fleet
    }

    /// The visitors of its releases.
    pub fn visitors(&self) -> &Visitors {
        &self.visitors
    }

    /// Refuses where nothing can be recorded just now, by trying it.
    pub async fn must_record(&self) -> Result<(), Problem> {
        self.trouble().map_or(Ok(()), Err)?;
        self.journal.must_be_writable().await
    }

    /// Whether room is set aside beside the journal for the way back, and the journal's file.
    pub fn journal_room(&self) -> (bool, &Path) {
        self.journal.room()
    }

    /// The slot that its visitors would go back to.
    pub fn old_side(&self) -> &OldSide {
        &self.old_side
    }

    fn archive(&self) -> Archive<'_> {
        Archive::of(&self.journal, &self.environment.name)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first look into the journal. The end of the file was found whole, so what is wrong then is wrong with this environment's
    /// record alone: it stands still, and says so, and the others of the coordinator do not.
    async fn begin_with_its_record(&self) -> Result<(), Problem> {
        match self.reopen().await {
            Err(problem) if problem.code != Code::JournalUnwritable => {
                let problem = problem.in_environment(&self.environment.name);
                error!(environment = %self.environment.name, problem = %problem.in_full(), "nothing is ordered");
                let mut book = self.book();
                // A disk that is full, or hangs, is read from again, and again, until there is room or it answers.
                book.stale = matches!(problem.code, Code::JournalFull | Code::JournalSilent);
                book.told.trouble = Some(problem);
                book.note(SystemClock.now());
                Ok(())
            }
            opened => opened,
        }
    }

    /// Takes the lease, folds the journal, and marks the open release's answers as lost.
    async fn reopen(&self) -> Result<(), Problem> {
        let ports = (&self.journal, &self.fleet, &SystemClock);
        let (name, agents) = (&self.environment.name, self.environment.agents.keys());
        let mut told = opening::open(ports, name, agents, &self.holder, SHORT_LOOK_MS).await?;
        for id in told.missing() {
            // What is shown of it would lack a name. Nothing that is ordered depends on it.
            match self.archive().release(&id).await {
                Ok(kept) => told.releases.extend(kept.map(|kept| (id, kept))),
                Err(problem) => {
                    warn!(environment = %name, release = %id, problem = %problem.in_full(), "it cannot be read");
                }
            }
        }
        if let Err(problem) = self.archive().mind_what_was_ill(&mut told).await {
            warn!(environment = %name, problem = %problem.in_full(), "what a rollback led away from cannot be read");
        }
        match (&told.trouble, told.open()) {
            (Some(problem), _) => {
                error!(environment = %name, problem = %problem.in_full(), "nothing is ordered");
            }
            (None, Some(kept)) => {
                info!(environment = %name, release = %kept.state.plan.release, "going on with the open release");
            }
            (None, None) => {}
        }
        {
            let mut book = self.book();
            (book.told, book.stale) = (told, false);
            book.note(SystemClock.now());
        }
        self.tell_of_moves();
        Ok(())
    }

    /// Begins to hear the load balancers. Where a release goes on whose visitors were heard before, so does that.
    async fn look_out(&self) {
        let Some(lookout) = self.visitors.lookout() else { return };
        // What is known says so itself; also while trouble keeps everything else from going on.
        let from = self.visitors.heard_to().await;
        lookout.begin(&self.environment.balancers, &self.fleet, from);
    }

    /// Drives whatever release is open, for ever.
    async fn work(self: Arc<Self>) {
        let (journal, fleet, signals) = (self.journal.clone(), self.fleet.clone(), self.visitors.clone());
        let old_side = Arc::clone(&self.old_side);
        let driver = Driver { journal, fleet, clock: SystemClock, signals, old_side };
        let mut let_go = self.let_go.subscribe();
        loop {
            let turn = self.turn.lock().await;
            if self.book().stale
                && let Err(problem) = self.reopen().await
            {
                self.recover(problem).await;
            }
            let Some((state, mut requests)) = self.take_open() else {
                drop(turn);
                self.begun.notified().await;
                continue;
            };
            let driven = tokio::select! { biased;
                driven = driver.drive(state, &mut requests, |state| self.keep(state)) => Some(driven),
                // What was ordered goes on at its agent, until that hears of a newer epoch.
                _ = let_go.wait_for(|asked| *asked > 0) => None,
            };
            drop(requests);
            self.book().driven = None;
            match driven {
                Some(Ok(state)) => self.over(&state),
                Some(Err(error)) => self.recover(error.0).await,
                // Nobody waits any more for what it had ordered.
                None => self.book().stale = true,
            }
            drop(turn);
        }
    }

    /// Lets go of what is driven, and stands still, as soon as the journal is found damaged while it is used.
    async fn stop_if_damaged(self: Arc<Self>) {
        let mut damage = self.journal.damage();
        if damage.wait_for(Option::is_some).await.is_err() {
            return;
        }
        let let_go = LetGo::ask(&self.let_go);
        let turn = self.turn.lock().await;
        drop(let_go);
        {
            let mut book = self.book();
            (book.told.trouble, book.stale) = (self.damage(), false);
            book.note(SystemClock.now());
        }
        error!(environment = %self.environment.name, "releases stop: the journal is damaged");
        drop(turn);
    }

    /// The open release and the ear for what people ask of it.
    fn take_open(&self) -> Option<(State, mpsc::Receiver<Asked>)> {
        let mut book = self.book();
        if book.told.trouble.is_some() {
            return None;
        }
        let state = book.told.open()?.state.clone();
        let (ask, requests) = mpsc::channel(REQUESTS);
        book.driven = Some((state.plan.release.clone(), ask));
        Some((state, requests))
    }

    fn keep(&self, state: &State) {
        if let Some(kept) = self.book().told.releases.get_mut(&state.plan.release) {
            kept.state = state.clone();
        }
        self.tell_of_moves();
    }

    fn tell_of_moves(&self) {
        self.moved.send_modify(|number| *number = number.wrapping_add(1));
    }

    /// Changes whenever a release is somewhere else than before, as [`Office::release`] then shows it, and when the journal
    /// is read anew.
    pub fn moves(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// Keeps what visitors of a release have met since that was noted last.
    pub fn note_met(&self, met: Option<(ReleaseId, TrafficSeen)>) {
        self.meets.send_replace(met);
    }

    /// What visitors of a release have met that no entry of the journal has yet.
    pub fn met_since(&self, release: &ReleaseId) -> Option<TrafficSeen> {
        self.meets.borrow().as_ref().filter(|(of, _)| of == release).map(|(_, met)| met.clone())
    }

    /// Notes whose visitors are being counted, and that it is nobody's any more.
    pub fn note_counted(&self, release: Option<ReleaseId>) {
        self.counted.send_replace(release);
    }

    /// Waits until the visitors of a release that is over are counted to the last of them, and noted: whoever tells of its end
    /// tells of them too. At most as long as that takes.
    pub async fn counted(&self, release: &ReleaseId) {
        let mut counted = self.counted.subscribe();
        let others = counted.wait_for(|counted| counted.as_ref() != Some(release));
        // Where it takes longer, what is known by then is told.
        let _ = tokio::time::timeout(witness::LAST_WORD, others).await;
    }

    fn over(&self, state: &State) {
        // The standing first: whoever hears that the release is over finds what it led to.
        self.book().told.standing.fold(state);
        self.keep(state);
        self.store.tell_of_end();
        let outcome = state.outcome().map_or("open", Outcome::as_str);
        let (environment, release) = (&self.environment.name, &state.plan.release);
        match &state.turned_back {
            None => info!(%environment, %release, outcome, "release over"),
            Some(problem) => {
                warn!(%environment, %release, outcome, code = %problem.code, problem = %problem.in_full(), "release over");
            }
        }
    }

    /// The journal did not take a fact. Nothing is ordered until it does; then everything is asked for again.
    async fn recover(&self, problem: Problem) {
        error!(environment = %self.environment.name, problem = %problem.in_full(), "releases stop");
        // Asking again changes nothing about what a person must decide, nor about a file that is damaged.
        let final_stop = opening::may_be_accepted(&problem) || problem.code == Code::JournalCorrupt;
        {
            let mut book = self.book();
            book.told.trouble = Some(problem.in_environment(&self.environment.name));
            book.note(SystemClock.now());
        }
        if final_stop {
            // Until a person has accepted the journal, which opens it anew.
            return;
        }
        loop {
            tokio::time::sleep(JOURNAL_AGAIN).await;
            // What is set aside is not given up for another try at what it is not meant for.
            let opened = match self.journal.must_be_writable().await {
                Ok(()) => self.reopen().await,
                Err(problem) => Err(problem),
            };
            match opened {
                Ok(()) if self.trouble().is_some() => return,
                Ok(()) => return info!(environment = %self.environment.name, "the journal works again"),
                Err(problem) => {
                    warn!(problem = %problem.in_full(), "the journal still does not work");
                    if problem.code == Code::JournalCorrupt {
                        self.book().told.trouble = Some(problem.in_environment(&self.environment.name));
                        return;
                    }
                }
            }
        }
    }

    /// Goes on with a journal that is older than what agents have heard of, or without a release that broke a rule of the
    /// engine, because a person says so: see [`opening::accept`]. Returns the names of the agents that have forgotten.
    ///
    /// On a task of its own: whoever asked may be gone before it is over, and what is begun leads to an end. Nothing is
    /// driven meanwhile, and the journal is read anew whatever came of it.
    pub async fn accept_journal(self: &Arc<Self>, by: &str) -> Result<Vec<String>, Problem> {
        let (office, by) = (Arc::clone(self), by.to_owned());
        let accepted = tokio::spawn(async move { office.accept(&by).await }).await;
        accepted.unwrap_or_else(|error| {
            Err(Problem::new(Code::AnswerLost, "accepting the journal ended without an answer")
                .aftermath(Aftermath::Unknown)
                .because(&error)
                .hint(format!("see it: `pointsman status {}`", self.environment.name)))
        })
    }

    async fn accept(&self, by: &str) -> Result<Vec<String>, Problem> {
        self.must_be_acceptable()?;
        // Whoever drives a held release lets it go: what it would record next is of a lease that is taken from it.
        let let_go = LetGo::ask(&self.let_go);
        let turn = tokio::time::timeout(LETS_GO, self.turn.lock()).await.map_err(|_| {
            Problem::new(Code::NotPossibleNow, "the coordinator is at its journal just now")
                .retry_useful()
                .hint(format!("see it: `pointsman status {}`, then again", self.environment.name))
        })?;
        drop(let_go);
        // It was somebody else's turn until now.
        self.must_be_acceptable()?;
        // What nobody can vouch for is not gone on with: entries may be missing in its middle, or be other ones.
        if let Some(problem) = self.journal.verify().await?.first_problem {
            return Err(problem);
        }
        let (name, agents) = (&self.environment.name, self.environment.agents.keys());
        let ports = (&self.journal, &self.fleet, &SystemClock);
        let found = self.found().await;
        let accepted = opening::accept(ports, name, agents, (&self.holder, by, found), LOOK_MS).await;
        match &accepted {
            Ok(_) => {
                warn!(environment = %name, by, "a person accepted that the newest journal is gone");
            }
            Err(problem) => {
                warn!(environment = %name, by, problem = %problem.in_full(), "the journal was not accepted");
            }
        }
        if let Err(problem) = self.reopen().await {
            let mut book = self.book();
            (book.told.trouble, book.stale) = (Some(problem.in_environment(name)), true);
            book.note(SystemClock.now());
        }
        drop(turn);
        self.begun.notify_one();
        Ok(accepted?.into_iter().map(|host| host.to_string()).collect())
    }

    /// What visitors get by the load balancers' routes; nothing is known of it where they do not agree.
    async fn found(&self) -> Found {
        let agents = self.look().await;
        let routes = agents.iter().filter_map(|agent| agent.balancer.as_ref());
        let routes = routes.filter_map(|facts| Route::parse(&facts.route).ok());
        joined(routes.map(|route| self.environment.found(&route)))
    }

    /// Refuses where there is nothing that a person could accept.
    fn must_be_acceptable(&self) -> Result<(), Problem> {
        let book = self.book();
        let held = book.told.open().is_some_and(|kept| match &kept.state.phase {
            Phase::Held { why, .. } => opening::knows_more(why),
            _ => false,
        });
        if held || book.told.trouble.as_ref().is_some_and(opening::may_be_accepted) {
            return Ok(());
        }
        let message =
            "no agent knows more than the journal, and no rule is broken: there is nothing to accept";
        Err(Problem::new(Code::NotPossibleNow, message)
            .hint(format!("see it: `pointsman audit verify {}`", self.environment.name)))
    }

    /// The release whose visitors are watched on although it is over, and until when. Anything that has moved visitors since
    /// ends that: then it is not the last word any more. What was refused, or undone before it moved anybody, does not: a way
    /// back that failed for a moment must not be the last. Nor does work on the database that would give way to a rollback.
    pub fn watched_on(&self) -> Option<(State, Timestamp)> {
        let book = self.book();
        let told = &book.told;
        let busy = told.open().is_some_and(|kept| !kept.state.gives_way());
        if told.trouble.is_some() || busy || told.standing.previous.is_none() {
            return None;
        }
        let last = told.of_now().filter(|kept| kept.moves_visitors()).max_by_key(|kept| kept.number)?;
        let until =
            afterwatch::until(&last.state, self.hears()).filter(|until| SystemClock.now() < *until)?;
        Some((last.state.clone(), until))
    }

    /// Until when the visitors of a release that is just over are watched on, for whoever follows it: they hear of its end
    /// before the standing does. Only of the newest; whether something has ended that since, [`Office::watched_on`] says.
    pub fn just_over_and_watched_on(&self, state: &State) -> Option<Timestamp> {
        let book = self.book();
        let newest = book.told.of_now().max_by_key(|kept| kept.number)?;
        let leads_back = newest.state.plan.release == state.plan.release && state.plan.from.is_some();
        afterwatch::until(state, self.hears()).filter(|until| leads_back && SystemClock.now() < *until)
    }

    fn hears(&self) -> bool {
        self.visitors.lookout().is_some()
    }

    /// Notes what is wrong with a release that is over and watched on: its visitors fare badly, and it does not go back by
    /// itself, or nobody sees them. None if nothing is.
    pub fn found_after_end(&self, release: &ReleaseId, problem: Option<Problem>) {
        let mut book = self.book();
        let known = book.after_end.as_ref().map(|(_, known)| known.code);
        if let Some(problem) = problem.as_ref().filter(|problem| known != Some(problem.code)) {
            warn!(%release, problem = %problem.in_full(), "after the end of the release");
        }
        book.after_end = problem.map(|problem| (release.clone(), problem));
    }

    /// Rolls back what visitors get: `of`, if that is given, and nothing else. Work on the database that holds the
    /// environment, and gives way, is stopped first. What was `found` against it is kept, and what is known anyway.
    pub async fn roll_back(
        &self,
        wish: WishOf,
        of: Option<&ReleaseId>,
        found: Option<&str>,
    ) -> Result<ReleaseId, Problem> {
        let meant = || of.map_or(Ok(()), |of| self.must_be_live(of));
        meant()?;
        self.make_way(&wish).await?;
        let mut plan = self.plan(Wanted::Rollback, None, wish).await?;
        plan.found_ill = found.map(str::to_owned).or_else(|| self.known_ill());
        // From here on a plan that is not of this moment is refused when it begins: its route would not be the last.
        meant()?;
        self.begin(plan).await
    }

    /// What is known just now against what is live: it is watched on, and did not go back by itself. What both slots fail at, and
    /// that nobody is seen, is not held against it.
    fn known_ill(&self) -> Option<String> {
        let book = self.book();
        let live = book.told.standing.live.as_ref()?.release.as_ref()?;
        let (_, problem) = book.after_end.as_ref().filter(|(of, _)| of == live)?;
        let its_own =
            matches!(problem.code, Code::VerdictAgainst | Code::CheckFailed | Code::BackendUnhealthy);
        its_own.then(|| problem.message.clone())
    }

    fn must_be_live(&self, release: &ReleaseId) -> Result<(), Problem> {
        let live = self.standing().live.and_then(|live| live.release);
        if live.as_ref() == Some(release) {
            return Ok(());
        }
        let now = live.map_or_else(|| "something else".to_owned(), |live| format!("`{live}`"));
        Err(Problem::new(Code::NotPossibleNow, format!("release `{release}` is not live: {now} is"))
            .hint(format!("see it: `pointsman status {}`", self.environment.name)))
    }

    /// Stops what gives way to a rollback, if that holds the environment, and waits until it is over.
    async fn make_way(&self, wish: &WishOf) -> Result<(), Problem> {
        let Some(open) = self.running().map(|kept| kept.state) else { return Ok(()) };
        if open.closes_the_way_back() {
            return Err(planner::nothing_to_roll_back(&self.environment.name));
        }
        if !open.gives_way() {
            return Ok(());
        }
        let open = open.plan;
        // Nothing is stopped for a rollback that would be refused.
        self.plan_beside(Wanted::Rollback, None, wish.clone()).await?;
        info!(environment = %self.environment.name, release = %open.release, by = wish.by, "gives way to a rollback");
        let reason = Some("it gives way to a rollback".to_owned());
        let abort = Request { kind: RequestKind::Abort, by: wish.by.clone(), reason, without: Vec::new() };
        let mut moves = self.moves();
        self.ask(Some(&open.release), abort).await?;
        let over = async {
            while self.open_release().as_ref() == Some(&open.release) {
                if moves.changed().await.is_err() {
                    break;
                }
            }
        };
        tokio::time::timeout(GIVES_WAY, over).await.map_err(|_| {
            let (release, name) = (&open.release, &self.environment.name);
            let message = format!("`{release}` is being stopped to make way, and is not over yet");
            Problem::new(Code::NotPossibleNow, message)
                .retry_useful()
                .hint(format!("see it: `pointsman status {name}`; then `pointsman rollback {name}` again"))
        })
    }

    /// What is wrong with the coordinator itself, if anything is. A disk that hangs is told of by whoever waits for it, so that
    /// all who share it say so at once.
    pub fn trouble(&self) -> Option<Problem> {
        let silent = self.journal.silence().map(|(_, problem)| problem);
        silent.or_else(|| self.damage()).or_else(|| self.book().told.trouble.clone())
    }

    /// Since when there is trouble.
    pub fn trouble_since(&self) -> Option<Timestamp> {
        self.journal.silence().map(|(since, _)| since).or_else(|| self.book().trouble_since)
    }

    /// The epoch in whose name this coordinator orders.
    pub fn epoch(&self) -> Epoch {
        self.book().told.epoch
    }

    /// How the environment stands.
    pub fn standing(&self) -> Standing {
        self.book().told.standing.clone()
    }

    /// What was found wrong with the journal while it was used.
    fn damage(&self) -> Option<Problem> {
        let damage = self.journal.damage().borrow().clone();
        damage.map(|problem| problem.in_environment(&self.environment.name))
    }

    /// A release by its id; without one the open release, or else the last. One that is long over is read from the journal.
    pub async fn release(&self, id: Option<&ReleaseId>) -> Result<Option<Kept>, Problem> {
        let Some(id) = id else {
            return Ok(self.book().told.releases.values().max_by_key(|kept| kept.number).cloned());
        };
        match self.find(id).await? {
            Known::Release(kept) => Ok(Some(*kept)),
            Known::Nobody | Known::Void => Err(self.unknown_release(id)),
        }
    }

    async fn find(&self, id: &ReleaseId) -> Result<Known, Problem> {
        {
            let told = &self.book().told;
            if let Some(kept) = told.releases.get(id) {
                return Ok(Known::Release(Box::new(kept.clone())));
            }
            if told.void.contains(id) {
                return Ok(Known::Void);
            }
            if told.since == 0 {
                return Ok(Known::Nobody);
            }
        }
        Ok(match self.archive().release(id).await? {
            Some(kept) if kept.state.outcome().is_some() => Known::Release(Box::new(kept)),
            Some(_) => Known::Void,
            None => Known::Nobody,
        })
    }

    /// A release that is open, or was not long ago.
    pub fn recent(&self, id: &ReleaseId) -> Option<Kept> {
        self.book().told.releases.get(id).cloned()
    }

    /// The release that was deployed last, whatever became of it.
    pub async fn newest_deploy(&self) -> Result<Option<Kept>, Problem> {
        let since = {
            let told = &self.book().told;
            let deploys = told.releases.values().filter(|kept| kept.is_deploy());
            let last = deploys.max_by_key(|kept| kept.number).cloned();
            match last.filter(|kept| kept.number >= told.since) {
                None if told.since > 0 => told.since,
                last => return Ok(last),
            }
        };
        self.archive().last_before(since, Kept::is_deploy).await
    }

    /// The rollback that led visitors back from a deploy after it was confirmed, if what moved them next was one.
    pub async fn rolled_back_by(&self, deployed: &Kept) -> Result<Option<Kept>, Problem> {
        let confirmed = |kept: &Kept| kept.state.outcome() == Some(Outcome::Confirmed);
        if !confirmed(deployed) || !deployed.is_deploy() {
            return Ok(None);
        }
        let rolls_back = |kept: &Kept| kept.changes_what_is_live() && !kept.is_deploy();
        let moved = |kept: &Kept| confirmed(kept) && kept.changes_what_is_live();
        let all_are_here = {
            let told = &self.book().told;
            let later = told.releases.values().filter(|kept| kept.number > deployed.number && moved(kept));
            (deployed.number >= told.since).then(|| later.min_by_key(|kept| kept.number).cloned())
        };
        let next = match all_are_here {
            Some(next) => next,
            None => self.archive().first_after(deployed.number, moved).await?,
        };
        Ok(next.filter(rolls_back))
    }

    fn unknown_release(&self, id: &ReleaseId) -> Problem {
        Problem::new(
            Code::ReleaseUnknown,
            format!("there is no release `{id}` in `{}`", self.environment.name),
        )
        .hint(format!("`pointsman history {}` names them", self.environment.name))
    }

    /// The releases, newest first.
    pub async fn releases(&self, limit: usize) -> Result<Vec<Kept>, Problem> {
        let (mut releases, since) = {
            let told = &self.book().told;
            let here = told.releases.values().filter(|kept| kept.number >= told.since);
            (here.cloned().collect::<Vec<_>>(), told.since)
        };
        releases.sort_by_key(|kept| std::cmp::Reverse(kept.number));
        releases.truncate(limit);
        if since > 0 && releases.len() < limit {
            releases.extend(self.archive().before(since, limit.saturating_sub(releases.len())).await?);
        }
        Ok(releases)
    }

    /// The artifacts that it may still need; none where its journal is not to be trusted, or cannot be read, so that nobody knows.
    pub async fn needed(&self) -> Option<BTreeSet<ArtifactDigest>> {
        let newest = match self.releases(retention::RELEASES_KEPT).await {
            Ok(newest) => newest,
            Err(problem) => {
                let environment = &self.environment.name;
                warn!(%environment, problem = %problem.in_full(), "artifacts are kept: what is needed is not known");
                return None;
            }
        };
        if self.trouble().is_some() {
            return None;
        }
        let told = &self.book().told;
        Some(retention::needed(&told.standing, newest.iter().chain(told.open())))
    }

    /// Which releases' artifacts visitors could meet, with the slot, the backend and the route epoch from which on they were
    /// there, oldest first.
    pub fn exposed(&self) -> Vec<Exposed> {
        let mut exposed: Vec<Exposed> = self.book().told.releases.values().filter_map(exposed_by).collect();
        exposed.sort_by_key(|exposed| exposed.since);
        exposed
    }

    /// How many files and bytes a release's artifact has, where the store still knows it.
    pub fn size_of(&self, plan: &Plan) -> Option<(u64, u64)> {
        let (manifest, _) = self.store.manifest(&plan.artifact()?).ok()?;
        Some((manifest.file_count(), manifest.total_bytes()))
    }

    /// A release for the wire.
    pub fn to_wire(&self, kept: &Kept) -> v1::Release {
        let mut release = convert::release_to_wire(&kept.state, kept.started_at, None);
        let on = self.watched_on().filter(|(state, _)| state.plan.release == kept.state.plan.release);
        release.watched_on_until_ms = on.map_or(0, |(_, until)| until.0);
        let after_end = self
            .book()
            .after_end
            .clone()
            .filter(|(of, _)| *of == kept.state.plan.release && release.watched_on_until_ms > 0);
        release.after_end = after_end.map(|(_, problem)| convert::problem_to_wire(&problem));
        release.met = kept.met.as_ref().map(convert::met_to_wire);
        release.warnings = warnings::to_wire(&kept.state);
        // While visitors are watched what is known of them is newer than what is recorded.
        if kept.state.judged_after().is_some() || release.watched_on_until_ms > 0 {
            release.verdict = self.visitors.now(&kept.state.plan.release).or(release.verdict);
        }
        release
    }

    /// Asks every agent how its host stands.
    pub async fn look(&self) -> Vec<v1::AgentStatus> {
        let asked = self.environment.agents.keys().map(|host| async move {
            let mut status =
                self.fleet.describe(host, LOOK_MS).await.unwrap_or_else(|problem| v1::AgentStatus {
                    host: host.to_string(),
                    role: self.environment.role_of(host).as_str().to_owned(),
                    problem: Some(convert::problem_to_wire(&problem)),
                    ..Default::default()
                });
            status.slot =
                self.environment.slot_of(host).map(|slot| slot.name.to_string()).unwrap_or_default();
            for backend in status.balancer.iter_mut().flat_map(|found| &mut found.backends) {
                let behind = BackendName::parse(&backend.name).ok();
                let slot = behind.and_then(|backend| self.environment.slot_behind(&backend));
                backend.slot = slot.map(|slot| slot.name.to_string()).unwrap_or_default();
            }
            status
        });
        join_all(asked).await
    }

    /// The share of the visitors that no release accounts for, by what agents have said; none while a release is open.
    pub fn unaccounted(&self, standing: &Standing, agents: &[v1::AgentStatus]) -> Option<Unaccounted> {
        if self.open_release().is_some() {
            return None;
        }
        let balancers = agents.iter().filter_map(|agent| agent.balancer.as_ref());
        let seen: Vec<Route> = balancers.filter_map(|facts| Route::parse(&facts.route).ok()).collect();
        unaccounted::unaccounted(&self.environment, standing, &seen)
    }

    /// Whether a host has its maintenance file, as far as hosts can be asked.
    pub async fn shows_a_page(&self) -> bool {
        let shows = |agent: &v1::AgentStatus| agent.web.as_ref().is_some_and(|web| web.maintenance_file);
        let ours = |agent: &v1::AgentStatus| {
            self.environment.flag_hosts.iter().any(|host| host.as_str() == agent.host)
        };
        self.look().await.iter().any(|agent| shows(agent) && ours(agent))
    }

    /// How far the job is that the database's host is at; empty where it does none, or does not say.
    pub async fn database_progress(&self, host: &HostName) -> String {
        let described = self.fleet.describe(host, LOOK_MS).await;
        described.ok().and_then(|status| status.database).map(|facts| facts.progress).unwrap_or_default()
    }

    /// Asks every agent what it finds of all that orders will need of its host: switches, what follows a change of
    /// version, backups, migrations and restores.
    pub async fn look_into(&self) -> Vec<(HostName, Result<Option<Vec<v1::Finding>>, Problem>)> {
        let (environment, nothing) = (&self.environment, &Activation::default());
        let asked = environment.agents.keys().map(|host| async move {
            let activated = environment.slots.values().any(|slot| slot.hosts.contains(host));
            let activation = if activated { &environment.activation } else { nothing };
            (host.clone(), self.fleet.diagnose(host, activation, LOOK_INTO_MS).await)
        });
        join_all(asked).await
    }

    /// Looks at what plans depend on. Every load balancer must answer but those that are out of service; whether a silent web host matters is for the
    /// planner to say.
    async fn see(&self, wanted: &Wanted, without: &[HostName]) -> Result<Seen, Problem> {
        let patient = matches!(wanted, Wanted::Deploy { .. } | Wanted::Database(..));
        let host_ms = if patient { LOOK_MS } else { SHORT_LOOK_MS };
        let mut seen = Seen::default();
        let own = (self.credentials.name().name, self.credentials.end_to_tell());
        seen.certificates.own = Some(own).filter(|(_, end_s)| *end_s > 0);
        let asked = self.environment.agents.keys().map(|host| async move {
            let balancer = self.environment.balancers.contains(host);
            let described = self.fleet.describe(host, if balancer { LOOK_MS } else { host_ms }).await;
            let status = described.and_then(|status| match status.problem.clone() {
                Some(problem) => Err(convert::problem_from_wire(problem).unwrap_or_else(|| unnamed(host))),
                None => Ok(status),
            });
            (host, balancer, status.map_err(|problem| problem.on(host)))
        });
        for (host, balancer, answer) in join_all(asked).await {
            match answer {
                Ok(status) => {
                    seen.certificates.note(host, &status);
                    seen.balancers.extend(status.balancer.map(|facts| (host.clone(), facts)));
                    seen.hosts.extend(status.web.map(|facts| (host.clone(), facts)));
                    seen.database = status.database.or(seen.database);
                }
                // What moves no visitor needs no load balancer.
                Err(problem) if balancer && !wanted.database_only() && !without.contains(host) => {
                    let name = &self.environment.name;
                    let command = |verb: &str| format!("`pointsman {verb} {name} --without {host}`");
                    let way = match wanted {
                        Wanted::Rollback => command("rollback"),
                        Wanted::MaintenanceOn(_) => command("maintenance on"),
                        Wanted::MaintenanceOff => command("maintenance off"),
                        // Nothing is asked to be urgent, and the slot to be overwritten may be the one it serves from.
                        Wanted::Deploy { .. } => {
                            format!(
                                "take it out of `[lb]` and `[agents]` in the environment's file of `{name}`"
                            )
                        }
                        Wanted::Database(..) => return Err(problem),
                    };
                    let hint = format!("{}; if it is out of service: {way}", problem.hint);
                    return Err(problem.hint(hint));
                }
                Err(problem) => drop(seen.silent.insert(host.clone(), problem)),
            }
        }
        Ok(seen)
    }

    /// Makes a plan. An id that an unfinished or successful release bears is refused; one whose release failed gets
    /// a number, so that a repeated CI job needs no new name.
    pub async fn plan(&self, wanted: Wanted, id: Option<ReleaseId>, wish: WishOf) -> Result<Plan, Problem> {
        if let Wanted::Deploy { artifact, .. } = &wanted {
            let (store, artifact) = (self.store.clone(), *artifact);
            let known = tokio::task::spawn_blocking(move || store.manifest(&artifact).map(drop)).await;
            known.map_err(|error| {
                Problem::new(Code::StoreUnwritable, "reading the store ended abruptly").because(&error)
            })??;
        }
        self.must_be_free()?;
        let plan = self.plan_beside(wanted, id, wish).await?;
        // A release that began meanwhile moves what was just seen.
        self.must_be_free()?;
        Ok(plan)
    }

    /// The same beside a release that is open.
    async fn plan_beside(
        &self,
        wanted: Wanted,
        id: Option<ReleaseId>,
        wish: WishOf,
    ) -> Result<Plan, Problem> {
        let mut seen = self.see(&wanted, &wish.without).await?;
        if let Wanted::Database(DatabaseWork::Down { version }, Some(files)) = &wanted {
            migrations::may_go_down(&self.store, files, version, seen.database.as_ref()).await?;
            seen.pending = vec![version.clone()];
        } else if let Some((files, phase)) = wanted.files() {
            seen.pending = migrations::pending(&self.store, files, phase, seen.database.as_ref()).await?;
        }
        if let Some(lookout) = self.visitors.lookout().filter(|_| matches!(wanted, Wanted::Deploy { .. })) {
            seen.without_signals = lookout.delivers().await == Delivers::No;
            let backends = self.environment.slots.values().map(|slot| slot.backend.clone());
            seen.visitors = backends.map(|backend| (backend.clone(), lookout.before(&backend))).collect();
        }
        let now = SystemClock.now();
        let backups = seen.database.as_ref().map(|facts| facts.backups.as_slice()).unwrap_or_default();
        let release = self.free_id(id.as_ref(), &wanted, backups, now).await?;
        let wish = Wish {
            wanted,
            release,
            request_id: wish.request_id,
            reason: wish.reason,
            by: wish.by,
            without: wish.without,
            now,
        };
        planner::plan(&self.environment, &self.standing(), wish, &seen)
    }

    async fn free_id(
        &self,
        id: Option<&ReleaseId>,
        wanted: &Wanted,
        backups: &[v1::BackupFacts],
        now: Timestamp,
    ) -> Result<ReleaseId, Problem> {
        for id in release_ids::tries(id, wanted, now) {
            let id = id?;
            let borne = match self.find(&id).await? {
                Known::Nobody => Borne::ByNone,
                Known::Void => Borne::ByVoid,
                Known::Release(kept) => Borne::By(kept.state.outcome()),
            };
            let free = release_ids::is_free(&id, borne, backups, wanted);
            if free.map_err(|problem| problem.in_environment(&self.environment.name))? {
                return Ok(id);
            }
        }
        Err(release_ids::all_taken())
    }

    /// The release of a request that was made before, if it is running or went well. Refused if that was another request,
    /// or what it brought about is no longer so: whoever repeats a job must not be told that all is well.
    pub async fn attached(
        &self,
        request_id: &RequestId,
        wanted: &Wanted,
        release: Option<&ReleaseId>,
    ) -> Result<Option<ReleaseId>, Problem> {
        let lives = |kept: &Kept| matches!(kept.state.outcome(), None | Some(Outcome::Confirmed));
        let Some(last) = self.last_of(request_id).await?.filter(lives) else { return Ok(None) };
        let plan = &last.state.plan;
        let name = &self.environment.name;
        let refused = |message: String| {
            Problem::new(Code::RequestIdTaken, message).hint(format!(
                "give this request an id of its own; what happened: `pointsman history {name}`"
            ))
        };
        if !repeated::repeats(plan, wanted, release) {
            let message = format!(
                "request `{request_id}` was made before, for `{}`, and was another one",
                plan.release
            );
            return Err(refused(message));
        }
        let standing = self.standing();
        let still_so = match &plan.purpose {
            Purpose::Deploy { .. } => {
                standing.live.as_ref().and_then(|live| live.release.as_ref()) == Some(&plan.release)
            }
            Purpose::Maintenance { on, .. } => standing.maintenance.is_some() == *on,
            Purpose::Rollback { to, .. } => {
                standing.live.as_ref().is_some_and(|live| live.slot == plan.to.name && live.release == *to)
            }
            Purpose::Database(_) => true,
        };
        if last.state.outcome().is_some() && !still_so {
            let message = format!(
                "request `{request_id}` was `{}`, which went well, and is no longer what stands: somebody went on or back since",
                plan.release
            );
            return Err(refused(message));
        }
        Ok(Some(plan.release.clone()))
    }

    /// The last release of a request.
    async fn last_of(&self, request_id: &RequestId) -> Result<Option<Kept>, Problem> {
        {
            let told = &self.book().told;
            let of_it = |kept: &&Kept| {
                kept.number >= told.since && kept.state.plan.request_id.as_ref() == Some(request_id)
            };
            let last = told.releases.values().filter(of_it).max_by_key(|kept| kept.number);
            if last.is_some() || told.since == 0 {
                return Ok(last.cloned());
            }
        }
        self.archive().of_request(request_id).await
    }

    /// Refuses while a release is open: what its orders change just now is nobody's business but its own.
    fn must_be_free(&self) -> Result<(), Problem> {
        self.trouble().map_or(Ok(()), Err)?;
        let book = self.book();
        let Some(kept) = book.told.open() else { return Ok(()) };
        let (holder, by) = (&kept.state.plan.release, &kept.state.plan.created_by);
        let message = format!("release `{holder}` by {by} holds `{}`", self.environment.name);
        let environment = &self.environment.name;
        let hint = match kept.state.phase {
            Phase::Held { .. } => format!(
                "it waits for a person: `pointsman status {environment}` says why, `pointsman resume {environment}` goes on"
            ),
            _ => format!("wait for it: `pointsman status {environment} -f`"),
        };
        Err(Problem::new(Code::EnvironmentBusy, message).retry_useful().hint(hint))
    }

    /// Begins a release: from here on it runs by itself. At most one is open.
    pub async fn begin(&self, mut plan: Plan) -> Result<ReleaseId, Problem> {
        let _one_at_a_time = self.beginning.lock().await;
        self.must_be_free()?;
        let epoch = {
            let book = self.book();
            let moves = !matches!(plan.purpose, Purpose::Database(_)) || plan.keeps_away();
            if moves && book.told.standing.route.as_ref().is_some_and(|route| *route != plan.route_before) {
                return Err(out_of_date(&plan));
            }
            plan.stood = Some(Box::new(book.told.standing.clone()));
            book.told.epoch
        };
        let (now, id) = (SystemClock.now(), plan.release.clone());
        let number = self.journal.head().borrow().seq.saturating_add(1);
        let plan = Arc::new(plan);
        let planned = Event::Planned(Arc::clone(&plan));
        let recorded = self.journal.append(&self.environment.name, epoch, &id, now, vec![planned]).await;
        recorded.map_err(|error| self.perhaps_begun(&id, error.0))?;
        let kept = Kept::new(now, number, State::begin(plan, epoch, now));
        {
            let told = &mut self.book().told;
            told.releases.insert(id.clone(), kept);
            told.forget();
        }
        self.begun.notify_one();
        info!(environment = %self.environment.name, release = %id, "release begins");
        Ok(id)
    }

    /// The journal did not take a plan, or not in time. Where it may take it yet, nothing else begins before that is known: the
    /// journal is read anew as soon as its disk answers, and a release that it holds then begins, as after a crash.
    fn perhaps_begun(&self, id: &ReleaseId, problem: Problem) -> Problem {
        if problem.code != Code::JournalSilent || problem.aftermath != Aftermath::Unknown {
            return problem;
        }
        {
            let mut book = self.book();
            book.stale = true;
            book.told.trouble = Some(problem.clone().in_environment(&self.environment.name));
            book.note(SystemClock.now());
        }
        self.begun.notify_one();
        let name = &self.environment.name;
        let look = format!("then see whether `{id}` has begun: `pointsman status {name}`");
        let hint = format!("{}; {look}, and `pointsman abort {name}` if it is not to", problem.hint);
        problem.hint(hint)
    }

    /// Records something of a release for its checklist, also of one that is over.
    pub async fn note(&self, id: &ReleaseId, note: Note) -> Result<(), Problem> {
        // The epoch first: a journal that is accepted meanwhile knows it no more, and refuses it.
        let epoch = {
            let book = self.book();
            if let Some(trouble) = &book.told.trouble {
                return Err(trouble.clone());
            }
            book.told.epoch
        };
        self.release(Some(id)).await?;
        let (name, now) = (&self.environment.name, SystemClock.now());
        if let Note::Traffic(met) = &note {
            self.journal.append_met(name, epoch, id, now, met.clone()).await?;
        } else {
            let noted = vec![Event::Noted(note.clone())];
            self.journal.append(name, epoch, id, now, noted).await.map_err(|error| error.0)?;
        }
        let mut book = self.book();
        // Whoever has read the journal anew since, under another epoch, has found the note in it.
        if book.told.epoch == epoch
            && let Some(kept) = book.told.releases.get_mut(id)
        {
            kept.note(&note);
        }
        Ok(())
    }

    /// Asks something of the open release. An abort is done already where none is open; what was asked for before, and
    /// is on its way, is not asked for again.
    pub async fn ask(&self, id: Option<&ReleaseId>, request: Request) -> Result<v1::AskReply, Problem> {
        if id.is_some() {
            self.release(id).await?;
        }
        let _one_at_a_time = self.asking.lock().await;
        if let Some(open) = self.running().filter(|_| !request.without.is_empty()) {
            left_out::must_be_gone(&self.fleet, &open.state, &request.without).await?;
        }
        let patience = tokio::time::Instant::now() + DRIVER_TAKES;
        loop {
            let Some(open) = self.open_release().filter(|open| id.is_none_or(|id| id == open)) else {
                return match request.kind {
                    RequestKind::Abort => Ok(v1::AskReply { release: String::new(), already: true }),
                    kind => Err(self.nothing_to(kind)),
                };
            };
            if let Some(trouble) = self.trouble() {
                return Err(trouble);
            }
            let already = || self.is_asked(&open, request.kind);
            if already() {
                return Ok(v1::AskReply { release: open.to_string(), already: true });
            }
            let driven = self.book().driven.clone().filter(|(driven, _)| *driven == open);
            let (reply, answer) = oneshot::channel();
            if let Some((_, sender)) = driven
                && sender.send((request.clone(), reply)).await.is_ok()
                && let Ok(answer) = answer.await
            {
                return match answer {
                    Err(_) if already() => Ok(v1::AskReply { release: open.to_string(), already: true }),
                    answer => answer.map(|()| v1::AskReply { release: open.to_string(), already: false }),
                };
            }
            // It is just being begun, or just over: a moment later it is clear which.
            if tokio::time::Instant::now() >= patience {
                let message = format!("release `{open}` takes no requests just now");
                let hint = format!("ask again; `pointsman status {}` shows it", self.environment.name);
                return Err(Problem::new(Code::NotPossibleNow, message).retry_useful().hint(hint));
            }
            tokio::time::sleep(DRIVER_AGAIN).await;
        }
    }

    /// Whether an abort, a pause or a promotion of a release was asked for before, and is on its way.
    fn is_asked(&self, id: &ReleaseId, kind: RequestKind) -> bool {
        let book = self.book();
        let Some(Kept { state, .. }) = book.told.releases.get(id) else { return false };
        let asked = state.asked.as_ref().is_some_and(|asked| asked.kind == kind);
        match kind {
            RequestKind::Abort => asked || (state.going_back() && !state.visitors_moved()),
            RequestKind::Pause | RequestKind::Promote => asked,
            RequestKind::Rollback | RequestKind::Resume => false,
        }
    }

    fn nothing_to(&self, kind: RequestKind) -> Problem {
        let (what, environment) = (kind.as_str(), &self.environment.name);
        let message = format!("no release of `{environment}` is running: there is nothing to {what}");
        Problem::new(Code::NotPossibleNow, message).hint(format!("`pointsman status {environment}`"))
    }

    /// The open release, if there is one.
    pub fn running(&self) -> Option<Kept> {
        self.book().told.open().cloned()
    }

    /// The id of the open release, if there is one.
    pub fn open_release(&self) -> Option<ReleaseId> {
        self.book().told.open().map(|kept| kept.state.plan.release.clone())
    }

    /// The facts of a release after a journal entry, each with the state after it.
    pub async fn facts(&self, id: &ReleaseId, after: u64) -> Result<Vec<(Entry, State)>, Problem> {
        let name: &EnvironmentName = &self.environment.name;
        let entries = self.journal.entries_after(name, Some(id), 0).await?;
        let mut state: Option<State> = None;
        let mut facts = Vec::new();
        for entry in entries {
            let next = match (&entry.fact.event, state.take()) {
                (Event::Planned(plan), _) => State::begin(Arc::clone(plan), Epoch(0), entry.fact.at),
                (_, Some(state)) => machine::apply(&state, &entry.fact).map_err(|error| {
                    Problem::new(Code::JournalCorrupt, format!("journal entry {} cannot be", entry.seq))
                        .because(&error)
                })?,
                (_, None) => return Err(self.unknown_release(id)),
            };
            state = Some(next.clone());
            if entry.seq > after {
                facts.push((entry, next));
            }
        }
        Ok(facts)
    }

    /// Changes of the journal's head: whenever any fact is recorded.
    pub fn recorded(&self) -> tokio::sync::watch::Receiver<crate::journal::Head> {
        self.journal.head()
    }
}

/// A release on its slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// The release.
    pub release: ReleaseId,
    /// The backend of its slot.
    pub backend: BackendName,
    /// The first route by which anybody could meet it there.
    pub since: RouteEpoch,
}

/// A deploy that was undone before visitors were moved took its artifact away again: visitors never met it.
fn exposed_by(kept: &Kept) -> Option<Exposed> {
    let (state, plan) = (&kept.state, &kept.state.plan);
    let undone = matches!(state.outcome(), Some(Outcome::Aborted | Outcome::Refused));
    let deploy = matches!(plan.purpose, Purpose::Deploy { .. });
    let since = plan.route(Step::Expose).filter(|_| deploy && !undone)?.epoch;
    Some(Exposed { release: plan.release.clone(), backend: plan.to.backend.clone(), since })
}

/// Who wishes what, for the record.
#[derive(Clone, Debug, Default)]
pub struct WishOf {
    /// What CI calls it.
    pub request_id: Option<RequestId>,
    /// Why.
    pub reason: Option<String>,
    /// By whom.
    pub by: String,
    /// Load balancers that are out of service.
    pub without: Vec<HostName>,
}

/// The world moved between plan and start.
pub fn out_of_date(plan: &Plan) -> Problem {
    Problem::new(Code::PlanOutOfDate, "the world moved since the plan was made")
        .hint(format!("look at a new one: `pointsman plan {} --artifact ...`", plan.environment))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_load_balancers_lead_to_is_known_where_they_agree_on_the_slot() {
        let environment = crate::fixture::environment(&["lb1", "lb2"], "");
        let found = |routes: &[&str]| {
            joined(routes.iter().map(|route| environment.found(&Route::parse(route).unwrap())))
        };
        let told = |found: Found| {
            let share = found.unaccounted.map(|share| (share.slot.to_string(), share.percent));
            (found.slot.map(|slot| slot.to_string()), share)
        };
        let (blue, green) = (Some("blue".to_owned()), |percent| Some(("green".to_owned(), percent)));
        let (all, tenth) = ("be_blue:be_blue:0:7", "be_blue:be_green:10:8");
        for (routes, expected) in [
            (&[][..], (None, None)),
            (&[all, all], (blue.clone(), None)),
            (&[tenth, tenth], (blue.clone(), green(10))),
            // One of them had moved its visitors when the release became void.
            (&[all, tenth], (blue.clone(), green(10))),
            (&[tenth, "be_blue:be_green:50:9", all], (blue, green(50))),
            (&[tenth, "be_green:be_blue:0:9"], (None, None)),
        ] {
            assert_eq!(told(found(routes)), expected, "{routes:?}");
        }
    }
}
