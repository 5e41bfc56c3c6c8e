//! A journal that is years old.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use pointsman_coordinator::journal::JournalStore;
use pointsman_coordinator::opening;
use pointsman_core::ports::Journal as _;
use pointsman_core::{EnvironmentName, Epoch, Event, Plan, ReleaseId, Stamped, State, machine};

use crate::site::ENVIRONMENT;

/// Records the last release of a journal again and again, under other names and as a coordinator does, until the journal has so
/// many entries; says how many it has. That release is over, and no coordinator uses the journal.
pub async fn age(journal: &Path, entries: u64) -> Result<u64> {
    let journal = JournalStore::open(journal, "kit")?;
    let environment = EnvironmentName::parse(ENVIRONMENT)?;
    let told = opening::look(&journal, &environment).await?;
    let last = told.releases.values().max_by_key(|kept| kept.number).context("nothing was released yet")?;
    let facts: Vec<Stamped> = {
        let recorded = journal.entries_after(&environment, Some(&last.state.plan.release), 0).await?;
        recorded.into_iter().map(|entry| entry.fact).collect()
    };
    let at = facts.last().context("it has no entries")?.at;
    let mut standing = told.standing;
    let epoch = journal.take_lease(&environment, "kit").await.map_err(|error| error.0)?;
    loop {
        let head = journal.head().borrow().seq;
        if head >= entries {
            return Ok(head);
        }
        let release = ReleaseId::parse(&format!("aged-{head}"))?;
        let stood = Some(Box::new(standing.clone()));
        let plan =
            Plan { release: release.clone(), request_id: None, stood, ..Plan::clone(&last.state.plan) };
        let plan = Arc::new(plan);
        let mut state = State::begin(Arc::clone(&plan), Epoch(0), at);
        let mut events = vec![Event::Planned(plan)];
        for Stamped { event, .. } in facts.iter().skip(1) {
            machine::fold(&mut state, &Stamped { at, event: event.clone() })?;
            events.push(event.clone());
        }
        if state.outcome().is_none() {
            bail!("the last release is not over");
        }
        journal.append(&environment, epoch, &release, at, events).await.map_err(|error| error.0)?;
        standing.fold(&state);
    }
}
