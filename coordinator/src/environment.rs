//! Environment files: what a site is made of and how its releases run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pointsman_chassis::config::{self, Parsed, Span};
use pointsman_core::{
    Activation, BackendName, Check, Code, DrainEnd, EnvironmentName, Found, HookName, HostName, Limits,
    MAX_SPLITS, Problem, Role, Route, SlotName, SlotPlan, Split, Unaccounted, UnitName, VerdictPlan,
    VerifyLevel, WatchPlan,
};
use serde::Deserialize;

use crate::afterwatch;
use crate::watch_file::Watch;

mod checklist;
mod checks;

pub use checklist::ManualPoint;

/// The file's newest shape.
const SCHEMA: u32 = 1;

/// One environment, parsed and complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Its file.
    pub file: PathBuf,
    /// Its name: also the name of its file and the environment in its certificates.
    pub name: EnvironmentName,
    /// The site's address, for people.
    pub url: String,
    /// Where each agent listens, as `host:port`.
    pub agents: BTreeMap<HostName, String>,
    /// The load balancers.
    pub balancers: Vec<HostName>,
    /// The slots.
    pub slots: BTreeMap<SlotName, SlotPlan>,
    /// The backend of the maintenance page.
    pub maintenance_backend: BackendName,
    /// Hosts that keep a maintenance file of their own.
    pub flag_hosts: Vec<HostName>,
    /// What hosts do after `current` has moved.
    pub activation: Activation,
    /// The database, if releases have to do with one.
    pub database: Option<Database>,
    /// The shares of the visitors that a new version gets before it gets all of them.
    pub splits: Vec<Split>,
    /// The checks.
    pub checks: Vec<Check>,
    /// The points of the checklist that a person ticks.
    pub manual: Vec<ManualPoint>,
    /// The watch.
    pub watch: WatchPlan,
    /// What the visitors' signals decide.
    pub verdict: VerdictPlan,
    /// They decide only where the load balancers have signals: nobody has said that they must.
    pub verdict_where_heard: bool,
    /// Whether a failing watch moves visitors back by itself.
    pub automatic_rollback: bool,
    /// What happens to connections that outlive the drain.
    pub drain_end: DrainEnd,
    /// The bounds of every wait.
    pub limits: Limits,
}

/// The site's database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Its host.
    pub host: HostName,
    /// How far backups are checked.
    pub verify: VerifyLevel,
    /// The backend that visitors are led to while databases are swapped; none if they stay where they are.
    pub away: Option<BackendName>,
    /// How long a request may wait for a lock of a migration, in milliseconds.
    pub max_stall_ms: u64,
    /// How long a migration tries to get its locks, in milliseconds.
    pub lock_budget_ms: u64,
    /// Bound on one attempt to take, check or restore a backup, in milliseconds.
    pub backup_ms: u64,
    /// Bound on one attempt to rehearse or apply migrations, in milliseconds.
    pub migrate_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    schema: u32,
    environment: Parsed<EnvironmentName>,
    url: String,
    agents: BTreeMap<String, String>,
    lb: Lb,
    slots: BTreeMap<String, Slot>,
    #[serde(default)]
    strategy: Strategy,
    #[serde(default)]
    activate: Activate,
    #[serde(default)]
    checks: Vec<checks::Written>,
    #[serde(default)]
    checklist: checklist::Written,
    #[serde(default)]
    watch: Watch,
    #[serde(default)]
    rollback: Rollback,
    maintenance: Maintenance,
    database: Option<WrittenDatabase>,
    #[serde(default)]
    limits: WrittenLimits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lb {
    agents: Vec<Parsed<HostName>>,
    #[serde(default = "thirty_seconds")]
    drain: Span,
    #[serde(default)]
    drain_end: WrittenDrainEnd,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenDrainEnd {
    Cut,
    #[default]
    Leave,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Slot {
    backend: Parsed<BackendName>,
    hosts: Vec<Parsed<HostName>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Strategy {
    kind: StrategyKind,
    canary: Option<Canary>,
    holdback: Option<Holdback>,
}

/// A share that stays on the old slot for a while after everybody else was moved: whom to compare with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Holdback {
    percent: u8,
    hold: Span,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum StrategyKind {
    #[default]
    BlueGreen,
    Canary,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Canary {
    splits: Vec<u8>,
    hold: Span,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Activate {
    restart: Vec<Parsed<UnitName>>,
    hooks: Vec<Parsed<HookName>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rollback {
    automatic: bool,
}

impl Default for Rollback {
    fn default() -> Self {
        Self { automatic: true }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Maintenance {
    backend: Parsed<BackendName>,
    hold: Option<Parsed<BackendName>>,
    #[serde(default)]
    agents: Vec<Parsed<HostName>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenDatabase {
    agent: Parsed<HostName>,
    #[serde(default)]
    verify: Verify,
    during_swap: Option<DuringSwap>,
    #[serde(default = "default_stall")]
    max_stall: Span,
    #[serde(default = "ten_minutes")]
    lock_budget: Span,
    #[serde(default = "one_hour")]
    backup: Span,
    #[serde(default = "one_hour")]
    migrate: Span,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Verify {
    Digest,
    Read,
    #[default]
    RestoreTest,
}

/// What visitors meet while databases are swapped.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum DuringSwap {
    Hold,
    Page,
    Nothing,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenLimits {
    inspect: Span,
    stage: Span,
    activate: Span,
    route: Span,
    check: Span,
    healthy: Span,
    gate_ttl: Span,
    attempts: u32,
    persist: Span,
}

impl Default for WrittenLimits {
    fn default() -> Self {
        Self {
            inspect: Span::from_ms(5_000),
            stage: Span::from_ms(600_000),
            activate: Span::from_ms(120_000),
            route: Span::from_ms(10_000),
            check: Span::from_ms(120_000),
            healthy: Span::from_ms(20_000),
            gate_ttl: Span::from_ms(300_000),
            attempts: 6,
            persist: Span::from_ms(30_000),
        }
    }
}

/// Short enough that nobody notices: half of what people feel as a delay.
fn default_stall() -> Span {
    Span::from_ms(200)
}

fn ten_minutes() -> Span {
    Span::from_ms(600_000)
}

fn one_hour() -> Span {
    Span::from_ms(3_600_000)
}

fn thirty_seconds() -> Span {
    Span::from_ms(30_000)
}

impl Environment {
    /// Reads an environment file.
    pub fn read(path: &Path) -> Result<Self, Problem> {
        Self::complete(path, config::read(path)?)
    }

    /// Parses the text of an environment file.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Problem> {
        Self::complete(path, config::parse(path, text)?)
    }

    fn complete(path: &Path, written: Written) -> Result<Self, Problem> {
        let wrong = |what: String| {
            Problem::new(Code::ConfigInvalid, format!("{}: {what}", path.display()))
                .hint(format!("edit `{}`", path.display()))
        };
        if written.schema != SCHEMA {
            return Err(wrong(format!("`schema` is {}, expected {SCHEMA}", written.schema)));
        }
        let name = written.environment.0;
        if path.file_stem().and_then(|stem| stem.to_str()) != Some(name.as_str()) {
            return Err(wrong(format!("`environment` is `{name}`: the file must be named `{name}.toml`")));
        }
        let agents: BTreeMap<HostName, String> = written
            .agents
            .into_iter()
            .map(|(host, address)| {
                Ok((HostName::parse(&host).map_err(|error| wrong(error.to_string()))?, address))
            })
            .collect::<Result<_, Problem>>()?;
        let known = |host: &HostName, place: &str| match agents.contains_key(host) {
            true => Ok(()),
            false => Err(wrong(format!("{place} names `{host}`, which has no address in `[agents]`"))),
        };
        let mut slots = BTreeMap::new();
        for (slot, written) in written.slots {
            let slot = SlotName::parse(&slot).map_err(|error| wrong(error.to_string()))?;
            let hosts: Vec<HostName> = written.hosts.into_iter().map(|host| host.0).collect();
            if hosts.is_empty() {
                return Err(wrong(format!("slot `{slot}` has no hosts")));
            }
            for host in &hosts {
                known(host, &format!("slot `{slot}`"))?;
            }
            slots.insert(slot.clone(), SlotPlan { name: slot, backend: written.backend.0, hosts });
        }
        let balancers: Vec<HostName> = written.lb.agents.into_iter().map(|host| host.0).collect();
        let flag_hosts: Vec<HostName> = written.maintenance.agents.into_iter().map(|host| host.0).collect();
        for (host, place) in balancers
            .iter()
            .map(|h| (h, "`lb.agents`"))
            .chain(flag_hosts.iter().map(|h| (h, "`maintenance.agents`")))
        {
            known(host, place)?;
        }
        if let Some(database) = &written.database {
            let host = &database.agent.0;
            known(host, "`database.agent`")?;
            // An agent has one role, which its certificate names.
            if balancers.contains(host) || slots.values().any(|slot| slot.hosts.contains(host)) {
                return Err(wrong(format!(
                    "`database.agent` is `{host}`, which has another role: the database's agent has a name and an address of its own"
                )));
            }
            if database.migrate.ms() <= database.lock_budget.ms() {
                return Err(wrong(
                    "`database.migrate` must be longer than `database.lock_budget`: locks may take that long"
                        .to_owned(),
                ));
            }
        }
        let hold = written.maintenance.hold.map(|hold| hold.0);
        let during_swap = written.database.as_ref().and_then(|database| database.during_swap);
        let away = match during_swap {
            Some(DuringSwap::Hold) if hold.is_none() => {
                return Err(wrong(
                    "`database.during_swap` is `hold`: say by which backend in `maintenance.hold`".to_owned(),
                ));
            }
            Some(DuringSwap::Nothing) => None,
            Some(DuringSwap::Page) => Some(written.maintenance.backend.0.clone()),
            Some(DuringSwap::Hold) | None => {
                Some(hold.unwrap_or_else(|| written.maintenance.backend.0.clone()))
            }
        };
        if slots.len() < 2 || balancers.is_empty() {
            return Err(wrong("a release needs two slots and a load balancer".to_owned()));
        }
        let checks = checks::complete(written.checks).map_err(&wrong)?;
        let manual = checklist::complete(written.checklist).map_err(&wrong)?;
        let splits = complete_strategy(written.strategy).map_err(&wrong)?;
        let watch = written.watch.gates().map_err(&wrong)?;
        let verdict = written.watch.verdict().map_err(&wrong)?;
        if verdict.after_ms > 0 && !written.rollback.automatic {
            return Err(wrong(
                "`watch.after` needs `rollback.automatic = true`: nobody would be led back".to_owned(),
            ));
        }
        if verdict.after_ms > 0
            && !afterwatch::judges(&verdict)
            && !checks.iter().any(|check| check.after_switch)
        {
            return Err(wrong(
                "`watch.after` needs a check with `phase = [\"after-switch\"]`, or `watch.verdict = \"act\"` and a limit that \
                 does not only warn: else nothing follows"
                    .to_owned(),
            ));
        }
        let verdict_where_heard = written.watch.where_heard();
        let (limits, drain) = (written.limits, written.lb.drain);
        if limits.attempts == 0 {
            return Err(wrong("`limits.attempts` must be at least 1".to_owned()));
        }
        if limits.gate_ttl.ms() <= limits.check.ms() {
            return Err(wrong(
                "`limits.gate_ttl` must be longer than `limits.check`: checks may take that long".to_owned(),
            ));
        }
        Ok(Self {
            file: path.to_owned(),
            name,
            url: written.url,
            agents,
            balancers,
            slots,
            maintenance_backend: written.maintenance.backend.0,
            flag_hosts,
            activation: Activation {
                restart: written.activate.restart.into_iter().map(|unit| unit.0).collect(),
                hooks: written.activate.hooks.into_iter().map(|hook| hook.0).collect(),
            },
            database: written.database.map(|database| complete_database(database, away)),
            splits,
            checks,
            manual,
            watch,
            verdict,
            verdict_where_heard,
            automatic_rollback: written.rollback.automatic,
            drain_end: match written.lb.drain_end {
                WrittenDrainEnd::Cut => DrainEnd::Cut,
                WrittenDrainEnd::Leave => DrainEnd::Leave,
            },
            limits: Limits {
                inspect_ms: limits.inspect.ms(),
                stage_ms: limits.stage.ms(),
                activate_ms: limits.activate.ms(),
                route_ms: limits.route.ms(),
                check_ms: limits.check.ms(),
                healthy_ms: limits.healthy.ms(),
                drain_ms: drain.ms(),
                gate_ttl_ms: limits.gate_ttl.ms(),
                attempts: limits.attempts,
                persist_ms: limits.persist.ms(),
            },
        })
    }

    /// The slot that an agent's host belongs to.
    pub fn slot_of(&self, host: &HostName) -> Option<&SlotPlan> {
        self.slots.values().find(|slot| slot.hosts.contains(host))
    }

    /// Which role the agent of a host has.
    pub fn role_of(&self, host: &HostName) -> Role {
        if self.balancers.contains(host) {
            Role::LbAgent
        } else if self.database.as_ref().is_some_and(|database| database.host == *host) {
            Role::DatabaseAgent
        } else {
            Role::WebAgent
        }
    }

    /// The slot behind a backend.
    pub fn slot_behind(&self, backend: &BackendName) -> Option<&SlotPlan> {
        self.slots.values().find(|slot| slot.backend == *backend)
    }

    /// The share of the visitors that a route leads to another slot than the one that serves. Only while a release moves visitors
    /// does somebody account for it.
    pub fn unaccounted(&self, route: &Route) -> Option<Unaccounted> {
        let (serves, beside) = (self.slot_behind(&route.stable)?, self.slot_behind(&route.canary)?);
        let share = || Unaccounted { slot: beside.name.clone(), percent: route.percent };
        (serves.name != beside.name && route.percent > 0).then(share)
    }

    /// What visitors get by a route: one that leads to no slot keeps them away from the one it names beside.
    pub fn found(&self, route: &Route) -> Found {
        let slot = |backend| self.slot_behind(backend).map(|slot| slot.name.clone());
        if let Some(serves) = slot(&route.stable) {
            return Found { slot: Some(serves), page: false, unaccounted: self.unaccounted(route) };
        }
        // Before the first release there is nothing behind the page, and nobody put it up.
        let behind = slot(&route.canary);
        Found { page: behind.is_some(), slot: behind, unaccounted: None }
    }
}

fn complete_database(written: WrittenDatabase, away: Option<BackendName>) -> Database {
    Database {
        host: written.agent.0,
        verify: match written.verify {
            Verify::Digest => VerifyLevel::Digest,
            Verify::Read => VerifyLevel::Read,
            Verify::RestoreTest => VerifyLevel::RestoreTest,
        },
        away,
        max_stall_ms: written.max_stall.ms(),
        lock_budget_ms: written.lock_budget.ms(),
        backup_ms: written.backup.ms(),
        migrate_ms: written.migrate.ms(),
    }
}

fn complete_strategy(written: Strategy) -> Result<Vec<Split>, String> {
    let mut splits = match (written.kind, written.canary) {
        // What is written and not in force may stay for the day it is wanted again.
        (StrategyKind::BlueGreen, _) => Vec::new(),
        (StrategyKind::Canary, Some(canary)) => complete_canary(&canary)?,
        (StrategyKind::Canary, None) => {
            return Err(
                "`strategy.kind` is `canary`: say `canary = { splits = [10, 50], hold = \"2m\" }`".to_owned()
            );
        }
    };
    if let Some(holdback) = written.holdback {
        let percent = holdback.percent;
        if !(1..=50).contains(&percent) || holdback.hold.ms() == 0 {
            return Err(
                "`strategy.holdback` is a share of 1 to 50 %, and a time longer than nothing".to_owned()
            );
        }
        // What is held back is what a last split leaves.
        let last = Split { percent: 100 - percent, hold_ms: holdback.hold.ms() };
        if splits.iter().any(|split| split.percent >= last.percent) || splits.len() == MAX_SPLITS {
            return Err(format!(
                "`strategy.holdback` of {percent} % is a split of {}: those of `canary` must be smaller, and fewer than \
                 {MAX_SPLITS}",
                last.percent
            ));
        }
        splits.push(last);
    }
    Ok(splits)
}

fn complete_canary(canary: &Canary) -> Result<Vec<Split>, String> {
    let splits = &canary.splits;
    let rising = splits.windows(2).all(|pair| pair.first() < pair.last());
    if splits.is_empty() || splits.len() > MAX_SPLITS || !rising {
        return Err(format!("`strategy.canary.splits` must be 1 to {MAX_SPLITS} rising shares"));
    }
    if let Some(split) = splits.iter().find(|percent| !(1..=99).contains(*percent)) {
        return Err(format!("`strategy.canary.splits` has {split}: a split is 1 to 99 %"));
    }
    if canary.hold.ms() == 0 {
        return Err("`strategy.canary.hold` must be longer than nothing".to_owned());
    }
    Ok(splits.iter().map(|percent| Split { percent: *percent, hold_ms: canary.hold.ms() }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        schema = 1
        environment = "production"
        url = "https://www.example.org"
        agents = { lb1 = "10.0.0.5:7444", blue = "10.0.0.11:7444", green = "10.0.0.12:7444" }
        lb = { agents = ["lb1"] }
        maintenance = { backend = "be_maint" }
        [slots]
        blue = { backend = "be_blue", hosts = ["blue"] }
        green = { backend = "be_green", hosts = ["green"] }
        [[checks]]
        name = "health"
        phase = ["before-switch", "after-switch"]
        http = { path = "/api/health" }
    "#;

    fn parse(text: &str) -> Result<Environment, Problem> {
        Environment::parse(Path::new("production.toml"), text)
    }

    #[test]
    fn a_small_file_is_complete() {
        let environment = parse(GOOD).unwrap();
        assert_eq!(environment.watch.duration_ms, 300_000);
        assert!(environment.checks[0].spec.as_str().contains("/api/health"));
        assert_eq!(environment.slots.len(), 2);
    }

    #[test]
    fn the_shipped_example_is_complete() {
        let text = include_str!("../../systemd/examples/production.toml");
        let environment = parse(text).unwrap();
        assert_eq!(
            environment.limits,
            parse(GOOD).unwrap().limits,
            "the example says that it shows the defaults"
        );
    }

    #[test]
    fn where_visitors_are_during_a_swap() {
        let away = |maintenance: &str, database: &str| {
            let text = GOOD
                .replace("green = \"10.0.0.12:7444\"", "green = \"10.0.0.12:7444\", db = \"10.0.0.21:7444\"")
                .replace("backend = \"be_maint\"", &format!("backend = \"be_maint\"{maintenance}"));
            let text = format!("{text}\n[database]\nagent = \"db\"\n{database}");
            parse(&text).map(|environment| environment.database.unwrap().away.map(|away| away.to_string()))
        };
        let (hold, page) = (Some("be_hold".to_owned()), Some("be_maint".to_owned()));
        assert_eq!(away("", "").unwrap(), page);
        assert_eq!(away(", hold = \"be_hold\"", "").unwrap(), hold);
        assert_eq!(away(", hold = \"be_hold\"", "during_swap = \"page\"").unwrap(), page);
        assert_eq!(away("", "during_swap = \"nothing\"").unwrap(), None);
        assert!(away("", "during_swap = \"hold\"").unwrap_err().message.contains("maintenance.hold"));
    }

    #[test]
    fn what_is_held_back_is_what_a_last_split_leaves() {
        let splits = |strategy: &str| {
            let parsed = parse(&format!("{GOOD}\n[strategy]\n{strategy}"));
            parsed.map(|parsed| {
                parsed.splits.iter().map(|split| (split.percent, split.hold_ms)).collect::<Vec<_>>()
            })
        };
        let (holdback, canary) = (
            "holdback = { percent = 5, hold = \"10m\" }",
            "kind = \"canary\"\ncanary = { splits = [10, 50], hold = \"2m\" }",
        );
        assert_eq!(splits(holdback).unwrap(), [(95, 600_000)]);
        let both = splits(&format!("{canary}\n{holdback}")).unwrap();
        assert_eq!(both, [(10, 120_000), (50, 120_000), (95, 600_000)]);
        assert_eq!(splits(canary).unwrap().len(), 2);
        for (wrong, expected) in [
            (holdback.replace('5', "60"), "1 to 50 %"),
            (format!("{canary}\n{}", holdback.replace("percent = 5", "percent = 50")), "must be smaller"),
            ("kind = \"canary\"".to_owned(), "say `canary"),
        ] {
            let problem = splits(&wrong).unwrap_err();
            assert!(problem.message.contains(expected), "{wrong}: {}", problem.message);
        }
    }

    #[test]
    fn a_release_is_watched_on_only_where_something_follows() {
        let parse = |phases: &str, watch: &str| {
            let text = GOOD.replace(r#"["before-switch", "after-switch"]"#, phases);
            parse(&format!("{text}\n[watch]\nafter = \"1h\"\n{watch}\n[rollback]\nautomatic = true\n"))
        };
        let (before, both) = (r#"["before-switch"]"#, r#"["before-switch", "after-switch"]"#);
        for watch in ["verdict = \"off\"", "verdict = \"shadow\"", "verdict = \"act\""] {
            assert_eq!(parse(both, watch).unwrap().verdict.after_ms, 3_600_000, "{watch}");
        }
        assert!(parse(before, "verdict = \"act\"").is_ok());
        for watch in ["verdict = \"off\"", "verdict = \"shadow\""] {
            let problem = parse(before, watch).unwrap_err();
            assert!(problem.message.contains("`watch.after` needs a check"), "{}", problem.message);
        }
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("schema = 1", "schema = 2", "`schema` is 2"),
            ("environment = \"production\"", "environment = \"staging\"", "must be named `staging.toml`"),
            ("hosts = [\"green\"]", "hosts = [\"grren\"]", "`grren`, which has no address"),
            ("hosts = [\"green\"]", "hosts = []", "slot `green` has no hosts"),
            ("agents = [\"lb1\"]", "agents = []", "two slots and a load balancer"),
            ("be_green", "green", "`green` is not a valid backend name"),
            ("/api/health", "api/health", "`api/health` is not a path"),
            ("url =", "urll =", "unknown field `urll`"),
            ("[\"before-switch\", \"after-switch\"]", "[]", "empty `phase`"),
            ("[\"before-switch\", \"after-switch\"]", "[\"later\"]", "unknown variant `later`"),
        ];
        for (from, to, expected) in cases {
            let problem = parse(&GOOD.replace(from, to)).unwrap_err();
            assert_eq!(problem.code, Code::ConfigInvalid);
            assert!(problem.message.contains(expected), "{to}: {}", problem.message);
        }
    }
}
