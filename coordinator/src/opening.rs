//! How a coordinator begins: it asks every agent what it has acted on, takes the lease, fences, and only then goes on with
//! what its journal says. A start, a takeover and a journal that works again are all this.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;
use pointsman_core::ports::{Clock, Fleet, Journal, JournalError, Memory};
use pointsman_core::receipt::Fence;
use pointsman_core::{
    Code, Entry, EnvironmentName, Epoch, Event, Found, HostName, Note, Outcome, Plan, Problem, Purpose,
    ReleaseId, Standing, State, Timestamp, TrafficSeen, invariants, machine,
};

/// How many of the newest releases of an environment are at least in memory, where there are so many that were not over when
/// that was last read. At most twice as many are, and a handful that still matter; the others are read from the journal when
/// somebody asks.
pub const KEPT: usize = 100;

/// A release with the moment it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// When it began.
    pub started_at: Timestamp,
    /// Its place among all releases of the environment.
    pub number: u64,
    /// Where it stands.
    pub state: State,
    /// What visitors met on its slot, as far as that is noted.
    pub met: Option<TrafficSeen>,
}

impl Kept {
    /// A release that was just planned.
    pub fn new(started_at: Timestamp, number: u64, state: State) -> Self {
        Self { started_at, number, state, met: None }
    }

    /// A release as its entries tell it, in order: none where it was never planned.
    pub fn of(entries: Vec<Entry>) -> Result<Option<Self>, Problem> {
        let mut known: Option<Self> = None;
        for entry in entries {
            match (&entry.fact.event, &mut known) {
                (Event::Planned(plan), None) => known = Some(Self::begun(&entry, plan)),
                (Event::Planned(_), Some(_)) => return Err(planned_twice(&entry)),
                (_, Some(kept)) => kept.fold(&entry)?,
                (_, None) => return Err(never_planned(&entry)),
            }
        }
        Ok(known)
    }

    fn begun(entry: &Entry, plan: &Arc<Plan>) -> Self {
        Self::new(entry.fact.at, entry.seq, State::begin(Arc::clone(plan), Epoch(0), entry.fact.at))
    }

    fn fold(&mut self, entry: &Entry) -> Result<(), Problem> {
        machine::fold(&mut self.state, &entry.fact)
            .map_err(|error| impossible(entry.seq, error.to_string()))?;
        if let Event::Noted(note) = &entry.fact.event {
            self.note(note);
        }
        Ok(())
    }

    /// Whether it is a deploy.
    pub fn is_deploy(&self) -> bool {
        matches!(self.state.plan.purpose, Purpose::Deploy { .. })
    }

    /// Whether another release is live when it is confirmed.
    pub fn changes_what_is_live(&self) -> bool {
        let plan = &self.state.plan;
        self.is_deploy() || (matches!(plan.purpose, Purpose::Rollback { .. }) && !plan.gathers())
    }

    /// Whether it moves visitors, or has moved them. What was refused, or undone before it moved anybody, did not; nor does work
    /// on the database that would give way to a rollback.
    pub fn moves_visitors(&self) -> bool {
        let undone = matches!(self.state.outcome(), Some(Outcome::Refused | Outcome::Aborted));
        !undone && !matches!(self.state.plan.purpose, Purpose::Database(_))
    }

    /// Adds to what is known what was noted of it.
    pub fn note(&mut self, note: &Note) {
        if let Note::Traffic(more) = note {
            self.met = Some(self.met.as_ref().map_or_else(|| more.clone(), |met| met.and(more)));
        }
    }
}

/// An environment as its journal tells it, with the lease in hand.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// The fencing token of this coordinator; 0 where it has none, because an agent knew more than its journal.
    pub epoch: Epoch,
    /// Every release of the number `since` and after, and of the older ones those that still matter.
    pub releases: BTreeMap<ReleaseId, Kept>,
    /// From which entry on every release is here; 0 where all there ever were are.
    pub since: u64,
    /// Those releases since then that were open when a person accepted a journal. How they went on is not known, and their
    /// names stay taken: an agent that has not forgotten them yet would answer for another release of that name.
    pub void: BTreeSet<ReleaseId>,
    /// How the environment stands.
    pub standing: Standing,
    /// The entry by which a person accepted a journal that had lost its end; 0 where nobody did. Releases of before it say nothing
    /// of what visitors get now.
    pub accepted: u64,
    /// Why this coordinator must not act, although it can read: an agent knows more than the journal, or that contradicts
    /// itself.
    pub trouble: Option<Problem>,
}

impl Opened {
    /// The release that is not over.
    pub fn open(&self) -> Option<&Kept> {
        self.releases.values().find(|kept| kept.state.outcome().is_none())
    }

    /// The releases that say something of what visitors get now.
    pub fn of_now(&self) -> impl Iterator<Item = &Kept> {
        self.releases.values().filter(|kept| kept.number > self.accepted)
    }

    /// Lets go of releases that are over and no longer matter, where there are too many.
    pub fn forget(&mut self) {
        self.since = forget(&mut self.releases, &self.standing, u64::MAX).unwrap_or(self.since);
    }

    /// Releases that the standing names and that are not here.
    pub fn missing(&self) -> BTreeSet<ReleaseId> {
        named(&self.standing).filter(|id| !self.releases.contains_key(id)).cloned().collect()
    }
}

/// The releases that a standing names: what is on the slots, and where a rollback leads.
fn named(standing: &Standing) -> impl Iterator<Item = &ReleaseId> {
    let held = standing.live.iter().chain(&standing.previous).chain(standing.slots.values());
    held.filter_map(|held| held.release.as_ref())
}

/// Lets go of all but the newest releases where there are too many, and says from which one on they are here. Those stay that are
/// not over, or whose end is not `settled` in the standing, that it names, and the last one that was deployed or moved visitors.
fn forget(releases: &mut BTreeMap<ReleaseId, Kept>, standing: &Standing, settled: u64) -> Option<u64> {
    if releases.len() <= 2 * KEPT {
        return None;
    }
    let mut numbers: Vec<u64> = releases.values().map(|kept| kept.number).collect();
    numbers.sort_unstable();
    let since = *numbers.iter().rev().nth(KEPT - 1)?;
    let newest = |is: fn(&Kept) -> bool| {
        releases.values().filter(|kept| is(kept)).map(|kept| kept.number).max().unwrap_or_default()
    };
    let last = [newest(Kept::is_deploy), newest(Kept::moves_visitors)];
    let named: BTreeSet<&ReleaseId> = named(standing).collect();
    releases.retain(|id, kept| {
        let over = kept.state.outcome().is_some() && kept.number <= settled;
        kept.number >= since || !over || last.contains(&kept.number) || named.contains(id)
    });
    Some(since)
}

/// An environment as its journal tells it, for whoever only looks: no lease is taken, nothing is written, and no agent is asked.
pub async fn look<J: Journal>(journal: &J, environment: &EnvironmentName) -> Result<Opened, Problem> {
    Ok(folded(journal, environment).await?.opened(Epoch::default(), None))
}

async fn folded<J: Journal>(journal: &J, environment: &EnvironmentName) -> Result<Folded, Problem> {
    let read = journal.fold(environment, Folded::default(), Folded::take).await;
    let (mut folded, whole) = read.map_err(|error| error.0)?;
    // The plan that it begins with is the first there ever was: nothing older is to be looked for.
    if whole && folded.since == folded.first {
        folded.since = 0;
    }
    Ok(folded)
}

/// Takes the lease of an environment and folds its journal. An open release is told of the new epoch, so that
/// everything that was ordered before is asked for again; unless an agent has acted on more than the journal holds, or
/// more than one release is open: then nothing is written, and the trouble says why.
///
/// Agents that do not answer within `look_ms` are no trouble: nothing is ordered of them before they do. The lease is taken
/// after all were asked: a journal that some agent knows to be an old copy uses up no epoch, however often it is started, so
/// that it never comes to one that is new to them.
pub async fn open<J: Journal, F: Fleet + Memory, C: Clock>(
    (journal, fleet, clock): (&J, &F, &C),
    environment: &EnvironmentName,
    agents: impl IntoIterator<Item = &HostName>,
    holder: &str,
    look_ms: u64,
) -> Result<Opened, Problem> {
    let told = |error: JournalError| error.0;
    let stands = agents.into_iter().map(|host| async move {
        let stands = fleet.remembered(host, look_ms).await;
        stands.ok().map(|fence| (host, fence))
    });
    let answered: Vec<(&HostName, Fence)> = join_all(stands).await.into_iter().flatten().collect();
    let mut refused = Vec::new();
    for (host, fence) in &answered {
        match journal.leads(environment, fence).await.map_err(told) {
            Err(problem) if is_trouble(&problem) => {
                refused.push(problem.on(host).in_environment(environment));
            }
            other => other?,
        }
    }
    if let Some(trouble) = worst(refused) {
        let folded = folded(journal, environment).await?;
        return Ok(folded.opened(Epoch::default(), Some(trouble)));
    }
    let epoch = journal.take_lease(environment, holder).await.map_err(told)?;
    let mut folded = folded(journal, environment).await?;
    let broken = invariants::single_flight(folded.releases.values().map(|kept| &kept.state))
        .err()
        .map(|broken| invariants::problem(broken.to_string()).in_environment(environment));
    let fenced = answered.iter().map(|(host, _)| async move {
        let refused = fleet.fence(host, epoch, look_ms).await.err();
        refused.map(|problem| problem.on(host).in_environment(environment))
    });
    let refused = join_all(fenced).await.into_iter().flatten().filter(is_trouble).collect();
    let trouble = worst(refused).or(broken);
    if trouble.is_none() {
        for (id, kept) in folded.releases.iter_mut().filter(|(_, kept)| kept.state.outcome().is_none()) {
            let taken = vec![Event::EpochTaken(epoch)];
            let facts = journal.append(environment, epoch, id, clock.now(), taken).await;
            for fact in facts.map_err(told)? {
                machine::fold(&mut kept.state, &fact).map_err(|error| {
                    let what = "the open release cannot go on";
                    invariants::problem(what).because(&error).in_environment(environment)
                })?;
            }
        }
    }
    Ok(folded.opened(epoch, trouble))
}

/// Whether nothing may be ordered because of what an agent said, or because what it said cannot be compared.
fn is_trouble(problem: &Problem) -> bool {
    knows_more(problem) || problem.code == Code::JournalCorrupt
}

/// Which of what agents refused to tell: one that has acted on more tells what is wrong, one that knows a newer epoch only that
/// something is.
fn worst(mut refused: Vec<Problem>) -> Option<Problem> {
    refused.sort_by_key(|problem| problem.code != Code::JournalBehind);
    refused.into_iter().next()
}

/// Goes on with a journal that is older than what agents have heard of, because a person says that the newest is gone for
/// good; or, when a rule of the engine is broken, without the release that broke it. Every agent must answer: each forgets
/// what the journal does not know, under an epoch that none of them has acknowledged, so that nothing still on its way can
/// act. Returns their names. The journal must be opened anew afterwards, whatever came of this.
///
/// What was open is void before the first agent forgets. Whatever ends this in between leaves agents that still know more
/// than the journal, so nothing is ordered and it is accepted once more; the other way round nobody would be left to say
/// that the open release is an old one.
pub async fn accept<J: Journal, F: Memory, C: Clock>(
    (journal, fleet, clock): (&J, &F, &C),
    environment: &EnvironmentName,
    agents: impl IntoIterator<Item = &HostName>,
    (holder, by, found): (&str, &str, Found),
    look_ms: u64,
) -> Result<Vec<HostName>, Problem> {
    let told = |error: JournalError| error.0;
    let asked = agents.into_iter().map(|host| async move { (host, fleet.remembered(host, look_ms).await) });
    let mut highest = Epoch::default();
    let mut hosts = Vec::new();
    for (host, fence) in join_all(asked).await {
        highest = highest.max(fence.map_err(|problem| silent(host, &problem))?.epoch);
        hosts.push(host.clone());
    }
    journal.raise_lease(environment, highest).await.map_err(told)?;
    let epoch = journal.take_lease(environment, holder).await.map_err(told)?;
    let record =
        ReleaseId::parse("journal").map_err(|error| Problem::new(Code::UsageWrong, error.to_string()))?;
    let adopted = vec![Event::Adopted { by: by.to_owned(), found }];
    journal.append(environment, epoch, &record, clock.now(), adopted).await.map_err(told)?;
    let forgetting = hosts.iter().map(|host| async move {
        let forgotten = fleet.forget(host, epoch, look_ms).await;
        forgotten.map_err(|problem| problem.on(host).in_environment(environment))
    });
    join_all(forgetting).await.into_iter().collect::<Result<(), Problem>>()?;
    Ok(hosts)
}

fn silent(host: &HostName, problem: &Problem) -> Problem {
    let message = format!("agent `{host}` does not answer: every agent must forget, or none");
    Problem::new(Code::AgentUnreachable, message)
        .retry_useful()
        .because(problem)
        .on(host)
        .hint(format!("on `{host}`: `systemctl status 'pointsman-*agent'`"))
}

/// Whether an agent refused because it has heard of more than this journal holds.
pub fn knows_more(problem: &Problem) -> bool {
    matches!(problem.code, Code::JournalBehind | Code::Fenced)
}

/// Whether a person may go on without what this trouble is about: with a journal whose newest entries are gone, or without
/// a release of which the record contradicts itself. Nothing else ends either. A file that is damaged is none of that: what
/// it still holds is not what was written, and nobody's word makes it so.
pub fn may_be_accepted(problem: &Problem) -> bool {
    knows_more(problem) || problem.code == Code::InvariantBroken
}

/// What the entries of an environment tell. It holds no more of them than matters, however many there are.
#[derive(Default)]
struct Folded {
    /// The first entry that was taken, which alone may say how the environment stood; 0 before it.
    first: u64,
    releases: BTreeMap<ReleaseId, Kept>,
    /// From which one on all of them are here; 0 where all there ever were are.
    since: u64,
    void: BTreeSet<ReleaseId>,
    /// The entry by which a person last accepted a journal that had lost its end: 0 if nobody ever did. What was open then
    /// is void: how it went on is not to be found here.
    adopted: u64,
    /// How the environment stood after the releases up to `settled`.
    standing: Standing,
    settled: u64,
}

impl Folded {
    /// Takes the next entry.
    fn take(&mut self, entry: Entry) -> Result<(), Problem> {
        let first = self.first == 0;
        if first {
            self.first = entry.seq;
        }
        match &entry.fact.event {
            Event::Adopted { by, found } => {
                self.standing = Standing::found(found, by, entry.fact.at);
                let open = self.releases.iter().filter(|(_, kept)| kept.state.outcome().is_none());
                self.void.extend(open.map(|(id, _)| id.clone()));
                self.releases.retain(|_, kept| kept.state.outcome().is_some());
                (self.adopted, self.settled) = (entry.seq, entry.seq);
            }
            Event::Planned(plan) => {
                if let Some(stood) = plan.stood.as_deref().filter(|_| first) {
                    (self.standing, self.since) = (stood.clone(), entry.seq);
                }
                let kept = Kept::begun(&entry, plan);
                if self.releases.insert(entry.release.clone(), kept).is_some() {
                    return Err(planned_twice(&entry));
                }
                if self.releases.len() > 2 * KEPT {
                    self.settle();
                    self.since =
                        forget(&mut self.releases, &self.standing, self.settled).unwrap_or(self.since);
                }
            }
            event => match self.releases.get_mut(&entry.release) {
                Some(kept) => kept.fold(&entry)?,
                // Also of one that is long over something may be noted.
                None if self.since > 0 && matches!(event, Event::Noted(_)) => {}
                None => return Err(never_planned(&entry)),
            },
        }
        Ok(())
    }

    /// Folds into the standing what is over, in order, up to the first that is not.
    fn settle(&mut self) {
        let mut later: Vec<&Kept> =
            self.releases.values().filter(|kept| kept.number > self.settled).collect();
        later.sort_by_key(|kept| kept.number);
        for kept in later.into_iter().take_while(|kept| kept.state.outcome().is_some()) {
            self.standing.fold(&kept.state);
            self.settled = kept.number;
        }
    }

    /// The environment with this lease in hand, and what keeps it from acting.
    fn opened(mut self, epoch: Epoch, trouble: Option<Problem>) -> Opened {
        self.settle();
        let Self { releases, since, void, adopted, mut standing, settled, .. } = self;
        // More than one that is open is trouble, and what is over beyond the first is told all the same.
        let mut later: Vec<&Kept> = releases.values().filter(|kept| kept.number > settled).collect();
        later.sort_by_key(|kept| kept.number);
        later.into_iter().for_each(|kept| standing.fold(&kept.state));
        Opened { epoch, releases, since, void, standing, accepted: adopted, trouble }
    }
}

fn impossible(seq: u64, what: impl std::fmt::Display) -> Problem {
    Problem::new(Code::JournalCorrupt, format!("journal entry {seq} {what}"))
        .hint("do not release; this version of the coordinator cannot have written it")
}

fn planned_twice(entry: &Entry) -> Problem {
    impossible(entry.seq, "plans a release that was planned before")
}

fn never_planned(entry: &Entry) -> Problem {
    impossible(entry.seq, "is of a release that was never planned")
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_core::Stamped;

    use crate::fixture;

    #[test]
    fn what_was_released_before_a_journal_was_accepted_is_not_of_now() {
        let planned = |release: &str| {
            Event::Planned(Arc::new(fixture::plan(&fixture::environment(&["lb1"], ""), release)))
        };
        let over = Event::TurnedBack(Problem::new(Code::AgentUnreachable, "nobody answers"));
        let accepted = Event::Adopted { by: "ada".to_owned(), found: Found::default() };
        let facts = [("r1", planned("r1")), ("r1", over), ("journal", accepted), ("r2", planned("r2"))];
        let entries: Vec<Entry> = (1..)
            .zip(facts)
            .map(|(seq, (release, event))| Entry {
                seq,
                release: ReleaseId::parse(release).unwrap(),
                fact: Stamped { at: Timestamp(seq * 1_000), event },
            })
            .collect();
        let mut folded = Folded::default();
        entries.into_iter().try_for_each(|entry| folded.take(entry)).unwrap();
        let told = folded.opened(Epoch(1), None);
        let of_now: Vec<&str> = told.of_now().map(|kept| kept.state.plan.release.as_str()).collect();
        assert_eq!((told.releases.len(), told.accepted, of_now), (2, 3, vec!["r2"]));
    }
}
