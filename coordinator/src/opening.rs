//! How a coordinator begins: it takes the lease, asks every agent what it has acted on, and only then goes on with
//! what its journal says. A start, a takeover and a journal that works again are all this.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use pointsman_core::ports::{Clock, Fleet, Journal};
use pointsman_core::{
    Code, Entry, EnvironmentName, Epoch, Event, HostName, Problem, ReleaseId, Standing, State, Timestamp,
    invariants, machine,
};

/// A release with the moment it began.
#[derive(Clone, Debug)]
pub struct Kept {
    /// When it began.
    pub started_at: Timestamp,
    /// Its place among all releases of the environment.
    pub number: u64,
    /// Where it stands.
    pub state: State,
}

/// An environment as its journal tells it, with the lease in hand.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// The fencing token of this coordinator.
    pub epoch: Epoch,
    /// Every release there was.
    pub releases: BTreeMap<ReleaseId, Kept>,
    /// How the environment stands.
    pub standing: Standing,
    /// Why this coordinator must not act, although it can read: an agent knows more than the journal, or that contradicts
    /// itself.
    pub trouble: Option<Problem>,
}

impl Opened {
    /// The release that is not over.
    pub fn open(&self) -> Option<&Kept> {
        self.releases.values().find(|kept| kept.state.outcome().is_none())
    }
}

/// Takes the lease of an environment and folds its journal. An open release is told of the new epoch, so that
/// everything that was ordered before is asked for again; unless an agent has acted on more than the journal holds, or
/// more than one release is open: then nothing is written, and the trouble says why.
///
/// Agents that do not answer within `look_ms` are no trouble: nothing is ordered of them before they do.
pub async fn open<J: Journal, F: Fleet, C: Clock>(
    (journal, fleet, clock): (&J, &F, &C),
    environment: &EnvironmentName,
    agents: impl IntoIterator<Item = &HostName>,
    holder: &str,
    look_ms: u64,
) -> Result<Opened, Problem> {
    let epoch = journal.take_lease(environment, holder).await.map_err(|error| error.0)?;
    let entries = journal.entries(environment).await.map_err(|error| error.0)?;
    let (mut releases, adopted) = fold(&entries)?;
    let broken = invariants::single_flight(releases.values().map(|kept| &kept.state))
        .err()
        .map(|broken| invariants::problem(broken.to_string()).in_environment(environment));
    let asked = agents.into_iter().map(|host| async move {
        let refused = fleet.fence(host, epoch, look_ms).await.err();
        refused.map(|problem| problem.on(host).in_environment(environment))
    });
    let told = join_all(asked).await;
    let trouble = told.into_iter().flatten().find(knows_more).or(broken);
    if trouble.is_none() {
        for (id, kept) in releases.iter_mut().filter(|(_, kept)| kept.state.outcome().is_none()) {
            let taken = vec![Event::EpochTaken(epoch)];
            let facts = journal.append(environment, epoch, id, clock.now(), taken).await;
            for fact in facts.map_err(|error| error.0)? {
                machine::fold(&mut kept.state, &fact).map_err(|error| {
                    let what = "the open release cannot go on";
                    invariants::problem(what).because(&error).in_environment(environment)
                })?;
            }
        }
    }
    let mut standing = Standing::default();
    let mut in_order: Vec<&Kept> = releases.values().filter(|kept| kept.number > adopted).collect();
    in_order.sort_by_key(|kept| kept.number);
    in_order.into_iter().for_each(|kept| standing.fold(&kept.state));
    Ok(Opened { epoch, releases, standing, trouble })
}

/// Whether an agent refused because it has heard of more than this journal holds.
pub fn knows_more(problem: &Problem) -> bool {
    matches!(problem.code, Code::JournalCorrupt | Code::Fenced)
}

/// Whether a person may go on without what this trouble is about: with a journal whose newest entries are gone, or without
/// a release of which the record contradicts itself. Nothing else ends either.
pub fn may_be_accepted(problem: &Problem) -> bool {
    knows_more(problem) || problem.code == Code::InvariantBroken
}

/// Folds the entries of an environment into its releases, and finds the entry by which a person last accepted a journal
/// that had lost its end: 0 if nobody ever did. What was open then is void: how it went on is not to be found here.
fn fold(entries: &[Entry]) -> Result<(BTreeMap<ReleaseId, Kept>, u64), Problem> {
    let mut releases: BTreeMap<ReleaseId, Kept> = BTreeMap::new();
    let mut adopted = 0;
    for entry in entries {
        if let Event::Adopted { .. } = entry.fact.event {
            releases.retain(|_, kept| kept.state.outcome().is_some());
            adopted = entry.seq;
            continue;
        }
        let impossible = |what: String| {
            Problem::new(Code::JournalCorrupt, format!("journal entry {} {what}", entry.seq))
                .hint("do not release; this version of the coordinator cannot have written it")
        };
        if let Event::Planned(plan) = &entry.fact.event {
            let state = State::begin(Arc::clone(plan), Epoch(0), entry.fact.at);
            let kept = Kept { started_at: entry.fact.at, number: entry.seq, state };
            if releases.insert(entry.release.clone(), kept).is_some() {
                return Err(impossible("plans a release that was planned before".to_owned()));
            }
            continue;
        }
        let kept = releases
            .get_mut(&entry.release)
            .ok_or_else(|| impossible("is of a release that was never planned".to_owned()))?;
        machine::fold(&mut kept.state, &entry.fact).map_err(|error| impossible(error.to_string()))?;
    }
    Ok((releases, adopted))
}
