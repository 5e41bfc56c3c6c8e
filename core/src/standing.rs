//! How an environment stands: what is live where, folded from the releases that ended there.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    ArtifactDigest, DatabaseWork, Found, Outcome, Purpose, ReleaseId, Route, SlotName, State, Step,
    Timestamp, Unaccounted,
};

/// What is live, or was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveRelease {
    /// The slot.
    pub slot: SlotName,
    /// The release that brought it there; unknown for what was there before pointsman.
    pub release: Option<ReleaseId>,
    /// The artifact; unknown for what was there before pointsman.
    pub artifact: Option<ArtifactDigest>,
}

/// What was turned back: it stands on its slot still, and leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnedBack {
    /// What visitors were led back from.
    pub what: LiveRelease,
    /// When they had been led back.
    pub at: Timestamp,
    /// Why.
    pub why: String,
}

/// The maintenance page, while it is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaintenanceStanding {
    /// Since when.
    pub since: Timestamp,
    /// Who put it up.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
    /// When it should be down again.
    pub until: Option<Timestamp>,
}

/// How an environment stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// What visitors get.
    pub live: Option<LiveRelease>,
    /// What they got before, and was well: where a rollback leads.
    pub previous: Option<LiveRelease>,
    /// What was turned back last, while that is still on its slot: no rollback leads there.
    pub turned_back: Option<TurnedBack>,
    /// The route that was set last on every load balancer.
    pub route: Option<Route>,
    /// A share of the visitors that was found on another slot. Only where no route is known: what was set since says it itself.
    pub unaccounted: Option<Unaccounted>,
    /// The maintenance page.
    pub maintenance: Option<MaintenanceStanding>,
    /// Which release each slot was last filled by.
    pub slots: BTreeMap<SlotName, LiveRelease>,
    /// Versions of migrations that may have been expanded since what visitors get was released: it knows nothing of them,
    /// and would not survive their contract.
    pub ahead_of_live: BTreeSet<String>,
    /// The same of what they got before.
    pub ahead_of_previous: BTreeSet<String>,
}

impl Standing {
    /// The standing where a person accepted a journal: what was known before is not so any more, and what visitors get was
    /// found. What was there is nobody's release.
    pub fn found(found: &Found, by: &str, at: Timestamp) -> Self {
        let live = found.slot.clone().map(|slot| LiveRelease { slot, release: None, artifact: None });
        let reason = || Some("the page was up when the journal was accepted".to_owned());
        let page = || MaintenanceStanding { since: at, by: by.to_owned(), reason: reason(), until: None };
        let (maintenance, unaccounted) = (found.page.then(page), found.unaccounted.clone());
        Self { live, maintenance, unaccounted, ..Self::default() }
    }

    /// Folds a release that is over.
    pub fn fold(&mut self, state: &State) {
        let Some(outcome) = state.outcome() else { return };
        if outcome == Outcome::Refused {
            return;
        }
        if let Purpose::Database(work) = &state.plan.purpose {
            match work {
                // The version before does not work with the schema any more.
                DatabaseWork::Contract if state.ordered(Step::Contract) => self.leads_nowhere_back(),
                DatabaseWork::Down { version } if state.ordered(Step::Contract) => {
                    // One that was released with it needs what is taken back.
                    if !self.ahead_of_previous.contains(version) {
                        self.leads_nowhere_back();
                    }
                    if outcome == Outcome::Confirmed {
                        self.ahead_of_live.remove(version);
                        self.ahead_of_previous.remove(version);
                    }
                }
                _ => {}
            }
            if state.plan.keeps_away() {
                self.routed(state);
            }
            return;
        }
        self.routed(state);
        let plan = &state.plan;
        let confirmed = outcome == Outcome::Confirmed;
        self.expanded(state);
        match &plan.purpose {
            Purpose::Deploy { artifact } if confirmed => {
                let adopted = plan.from.as_ref().map(|slot| LiveRelease {
                    slot: slot.name.clone(),
                    release: None,
                    artifact: None,
                });
                let live = LiveRelease {
                    slot: plan.to.name.clone(),
                    release: Some(plan.release.clone()),
                    artifact: Some(*artifact),
                };
                self.previous = self.live.take().or(adopted);
                self.ahead_of_previous = std::mem::take(&mut self.ahead_of_live);
                self.slots.insert(live.slot.clone(), live.clone());
                (self.live, self.turned_back) = (Some(live), None);
            }
            // Rolled back: the new version stays on its slot for people to look at, but leads nowhere.
            Purpose::Deploy { artifact } if outcome == Outcome::RolledBack => {
                let (slot, release) = (plan.to.name.clone(), Some(plan.release.clone()));
                self.previous = self.previous.take().filter(|previous| previous.slot != slot);
                let what = LiveRelease { slot, release, artifact: Some(*artifact) };
                let why = state.turned_back.as_ref().map(|problem| problem.message.clone());
                self.leads_not_to(what, state.entered_at, why.unwrap_or_default());
            }
            // Everybody is on the slot that served most of them before: what is live is what was.
            Purpose::Rollback { .. } if plan.gathers() => {}
            Purpose::Rollback { artifact, to } if confirmed => {
                (self.previous, self.turned_back) = (self.live.take(), None);
                std::mem::swap(&mut self.ahead_of_live, &mut self.ahead_of_previous);
                self.mind_what_was_ill(state);
                self.live = Some(LiveRelease {
                    slot: plan.to.name.clone(),
                    release: to.clone(),
                    artifact: *artifact,
                });
            }
            // Aborted, and a host of the slot was left out: what is on it nobody knows, and nobody is led there.
            Purpose::Deploy { .. } if state.slot_is_unknown() => {
                self.slots.remove(&plan.to.name);
                if self.previous.as_ref().is_some_and(|previous| previous.slot == plan.to.name) {
                    self.leads_nowhere_back();
                }
                self.turned_back = self.turned_back.take().filter(|turned| turned.what.slot != plan.to.name);
            }
            // Aborted: what was on the slot before is on it again.
            Purpose::Deploy { .. } | Purpose::Rollback { .. } => {}
            Purpose::Database(_) => {}
            Purpose::Maintenance { .. } if !confirmed => {}
            Purpose::Maintenance { on, until } => {
                self.maintenance = on.then(|| MaintenanceStanding {
                    since: state.entered_at,
                    by: plan.created_by.clone(),
                    reason: plan.reason.clone(),
                    until: *until,
                });
            }
        }
    }

    fn routed(&mut self, state: &State) {
        (self.route, self.unaccounted) = (Some(state.route()), None);
    }

    /// Closes the way to what a rollback has led visitors away from, where something was found against that. A standing of versions of
    /// before leaves it open, though they had folded the same rollback.
    pub fn mind_what_was_ill(&mut self, rollback: &State) {
        let confirmed = rollback.outcome() == Some(Outcome::Confirmed);
        let (Some(why), Some(from)) = (rollback.plan.ill().filter(|_| confirmed), &rollback.plan.from) else {
            return;
        };
        if let Some(what) = self.previous.clone().filter(|previous| previous.slot == from.name) {
            self.leads_nowhere_back();
            self.leads_not_to(what, rollback.entered_at, why.to_owned());
        }
    }

    fn leads_not_to(&mut self, what: LiveRelease, at: Timestamp, why: String) {
        self.slots.remove(&what.slot);
        self.turned_back = Some(TurnedBack { what, at, why });
    }

    fn leads_nowhere_back(&mut self) {
        self.previous = None;
        self.ahead_of_previous.clear();
    }

    /// What a release has expanded stays, however the release ended.
    fn expanded(&mut self, state: &State) {
        let migrations = state.plan.database.as_ref().and_then(|database| database.migrations.as_ref());
        let Some(migrations) = migrations.filter(|_| state.ordered(Step::Expand)) else { return };
        self.ahead_of_live.extend(migrations.versions.iter().cloned());
        self.ahead_of_previous.extend(migrations.versions.iter().cloned());
    }
}
