//! What must be true of the database: which schema a version meets, what was there before anything was applied, and which
//! database is live.

use pointsman_core::{
    Action, BackupId, DatabaseWork, MigrationPhase, Migrations, Order, Outcome, Purpose, ReleaseId, State,
    Step,
};

use crate::database::backed_up;
use crate::server::{Stage, Versions};
use crate::site;
use crate::truth::Truth;
use crate::world::World;

impl Truth {
    /// Migrations were tried on what was restored from a release's backup, and nothing was wrong with them.
    pub fn rehearsed(&mut self, release: &ReleaseId, tried: &Migrations) {
        let all = self.rehearsed.entry(release.clone()).or_default();
        tried
            .versions
            .iter()
            .filter_map(|version| site::number(version))
            .for_each(|version| all.add(version));
    }
}

/// How far a restore is told to be by the releases that ended, and what is live by them.
#[derive(Default)]
struct Told {
    live: Option<BackupId>,
    before: Option<BackupId>,
}

impl World {
    /// I7, I5: a migration takes effect once, after a checked backup of this release and a rehearsal on it.
    pub fn applied(&mut self, host: usize, order: &Order, version: u8, phase: MigrationPhase) {
        let release = &order.release;
        let Some(server) = self.hosts.get(host).and_then(|host| host.server()) else { return };
        let Some((number, live)) = server.live() else { return };
        let again = live.schema.effective(phase).has(version);
        let of_this = |backup: &&crate::server::Backup| {
            backup.release == *release && backup.checked && !backup.damaged && backup.of == number
        };
        let before = server.backups.iter().rfind(of_this).map(|backup| backup.schema);
        let rehearsed = self.truth.rehearsed.get(release).is_some_and(|tried| tried.has(version));
        if again {
            self.broken("I5", || format!("{release} applies {phase:?} of version {version} again"));
        }
        match before {
            None => self.broken("I7", || {
                format!("{release} applies {phase:?} of version {version}, and has no checked backup")
            }),
            Some(schema) if schema.effective(phase).has(version) => self.broken("I7", || {
                format!("{release} applies {phase:?} of version {version}, and its backup was taken later")
            }),
            Some(_) if !rehearsed => self.broken("I7", || {
                format!("{release} applies {phase:?} of version {version}, which was not rehearsed")
            }),
            Some(_) => {}
        }
    }

    /// I7: what an agent says of backups and rehearsals is so.
    pub fn backup_is_there(&mut self, host: usize, order: &Order) {
        let release = &order.release;
        let Some(server) = self.hosts.get(host).and_then(|host| host.server()) else { return };
        if matches!(order.action, Action::BackUp { .. }) && !backed_up(server, release) {
            self.broken("I7", || format!("{release} is said to have a checked backup, and has none"));
        }
    }

    /// I7b: a version is made current only where the live database has what it needs.
    pub fn schema_is_there(&mut self, host: usize, order: &Order) {
        let Action::Activate { artifact: Some(artifact), .. } = &order.action else { return };
        if order.key.step != Step::Activate || self.truth.swapped || self.store.losses > 0 {
            return;
        }
        let (needs, _) = site::schema_of(&self.scenario, *artifact);
        let server = self.hosts.iter().find_map(|host| host.server());
        let Some((_, live)) = server.and_then(|server| server.live()) else { return };
        if !needs.within(live.schema.expanded) {
            self.broken("I7b", || {
                format!("host {host} gets a version before the database is expanded for it")
            });
        }
    }

    /// I7b: no visitor is served by a version that the live schema is nothing for. A swap changes it under everybody, as a
    /// person has decided.
    pub fn fits_whoever_is_served(&mut self, why: &'static str) {
        if !self.scenario.database || self.truth.swapped || self.store.losses > 0 {
            return;
        }
        let server = self.hosts.iter().find_map(|host| host.server());
        let Some((_, live)) = server.and_then(|server| server.live()) else { return };
        let schema = live.schema;
        let served = self.hosts.iter().filter_map(|host| host.web()).filter(|web| {
            let mut routes = self.hosts.iter().filter_map(|host| host.balancer()?.standing());
            routes.any(|route| route.share_of(&web.backend) > 0)
        });
        let unfit = served.filter_map(|web| web.current).find(|artifact| {
            let (needs, knows) = site::schema_of(&self.scenario, *artifact);
            !schema.contracted.within(knows) || !needs.within(schema.expanded)
        });
        if let Some(artifact) = unfit {
            self.broken("I7b", || format!("{artifact:?} serves visitors on {schema:?} after {why}"));
        }
    }

    /// I7c: the site's name leads to one database, and it is open but for the moment of a swap.
    pub fn one_is_live(&mut self, host: usize) {
        let Some(server) = self.hosts.get(host).and_then(|host| host.server()) else { return };
        let Some((number, live)) = server.live() else {
            return self
                .broken("I7c", || "no database, or more than one, has the live one's name".to_owned());
        };
        let stage = server.restore.as_ref().map(|restore| restore.stage);
        if !live.open && !matches!(stage, Some(Stage::Swapping | Stage::SwappingBack)) {
            self.broken("I7c", || format!("database {number} is shut, and nothing tells who is to open it"));
        }
    }

    /// I7c: no more rows are lost by a swap than a person accepted.
    pub fn loses_no_more(&mut self, order: &Order, loss: u64, accepted: u64) {
        self.truth.swapped = true;
        if loss > accepted {
            let release = &order.release;
            self.broken("I7c", || format!("{release} loses {loss} rows, and {accepted} were accepted"));
        }
    }

    /// I8: the way back asks nothing of the database.
    pub fn leaves_the_database_alone(&mut self, host: usize, order: &Order) {
        if self.hosts.get(host).is_none_or(|host| host.server().is_none()) {
            return;
        }
        let purpose = self.plans.get(&order.release).map(|plan| &plan.purpose);
        let alone = matches!(purpose, Some(Purpose::Rollback { .. } | Purpose::Maintenance { .. }));
        let back = matches!(order.key.step, Step::RouteBack | Step::Conceal | Step::LinkBack);
        if alone || back {
            let (release, step) = (&order.release, order.key.step);
            self.broken("I8", || format!("{release} asks {step} of the database"));
        }
    }

    /// I3 at rest: the database is as the journal says.
    pub fn database_at_rest(&mut self, states: &[State]) {
        let Some(server) = self.hosts.iter().find_map(|host| host.server()) else { return };
        let Some((_, live)) = server.live() else { return };
        let (mut told, mut done, mut begun) = (Told::default(), Versions::default(), Versions::default());
        let mut swaps = false;
        for state in states {
            let migrations = state.plan.database.as_ref().and_then(|database| database.migrations.as_ref());
            let versions = migrations
                .into_iter()
                .flat_map(|migrations| &migrations.versions)
                .filter_map(|v| site::number(v));
            for version in versions.filter(|_| state.ordered(Step::Expand)) {
                begun.add(version);
                if state.complete(Step::Expand) {
                    done.add(version);
                }
            }
            let Purpose::Database(work) = &state.plan.purpose else { continue };
            let confirmed = state.outcome() == Some(Outcome::Confirmed);
            match work {
                // Asked for once more it is the live one already.
                DatabaseWork::Swap { backup, .. } if confirmed && told.live.as_ref() != Some(backup) => {
                    told.before = told.live.replace(backup.clone());
                }
                DatabaseWork::SwapBack { .. } if confirmed => told.live = told.before.clone(),
                _ => {}
            }
            swaps |= state.touched(Step::Swap);
        }
        let (schema, origin, open) = (live.schema, live.origin.clone(), live.open);
        let as_told = done.within(schema.expanded) && schema.expanded.within(begun);
        if !swaps && !as_told {
            self.broken("I3", || {
                format!("at rest the schema is {schema:?}, by the journal {done:?} to {begun:?}")
            });
        }
        if schema.expanded != schema.expand_recorded || schema.contracted != schema.contract_recorded {
            self.broken("I3", || {
                format!("at rest the schema is {schema:?}, and its records tell something else")
            });
        }
        if origin != told.live && states.iter().all(|state| state.outcome().is_some()) {
            let wanted = told.live;
            self.broken("I3", || {
                format!("at rest the live database is of {origin:?}, by the journal of {wanted:?}")
            });
        }
        if !open {
            self.broken("I3", || "at rest the database is shut".to_owned());
        }
    }
}
