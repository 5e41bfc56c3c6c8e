//! A site of two slots for unit tests: its environment, plans of its releases, agents that answer as they are told to, and a clock
//! that is set by hand.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use pointsman_core::machine::{self, Next};
use pointsman_core::ports::{Clock, Fleet, Journal as _};
use pointsman_core::{
    Action, ArtifactDigest, Check, CheckSeen, CheckVerdict, Code, Epoch, Event, Evidence, HostName, Order,
    OrderKey, Plan, Problem, ReleaseId, Stamped, Standing, State, Timestamp, VerdictMode,
};
use pointsman_proto::v1;

use crate::environment::Environment;
use crate::journal::JournalStore;
use crate::planner::{self, Seen, Wanted, Wish};

/// When plans here are made.
pub const PLANNED_AT: Timestamp = Timestamp(1_000);

/// The environment file of a site with these load balancers; what is told `more` comes after its slots.
pub fn file(balancers: &[&str], more: &str) -> String {
    let agents: String = balancers.iter().map(|host| format!("{host} = \"h:1\", ")).collect();
    format!(
        r#"
            schema = 1
            environment = "production"
            url = "https://www.example.org"
            agents = {{ {agents}blue = "h:3", green = "h:4" }}
            lb = {{ agents = {balancers:?} }}
            maintenance = {{ backend = "be_maint" }}
            [slots]
            blue = {{ backend = "be_blue", hosts = ["blue"] }}
            green = {{ backend = "be_green", hosts = ["green"] }}
            {more}
        "#
    )
}

/// The site's environment.
pub fn environment(balancers: &[&str], more: &str) -> Environment {
    Environment::parse(Path::new("production.toml"), &file(balancers, more)).unwrap()
}

/// What is seen of it: blue serves, everywhere.
pub fn seen(environment: &Environment) -> Seen {
    let facts =
        v1::BalancerFacts { route: "be_blue:be_blue:0:7".to_owned(), highest_epoch: 7, ..Default::default() };
    let balancers = environment.balancers.iter().map(|host| (host.clone(), facts.clone())).collect();
    Seen { balancers, ..Seen::default() }
}

/// Somebody wishes for something.
pub fn wish(wanted: Wanted, release: &str) -> Wish {
    Wish {
        wanted,
        release: ReleaseId::parse(release).unwrap(),
        request_id: None,
        reason: None,
        by: "operator ada".to_owned(),
        without: Vec::new(),
        now: PLANNED_AT,
    }
}

/// A wish for a deploy.
pub fn deploy(release: &str) -> Wish {
    let artifact = ArtifactDigest::from_bytes([1; 32]);
    wish(Wanted::Deploy { artifact, at_once: false, fix_forward: false, migrations: None }, release)
}

/// The plan of a deploy from blue to green.
pub fn plan(environment: &Environment, release: &str) -> Plan {
    planner::plan(environment, &Standing::default(), deploy(release), &seen(environment)).unwrap()
}

/// What is recorded of a release that goes by what the core says, step after step; one that is `refused` turns back at once. It may
/// end as it likes, but ends.
pub fn history(plan: Plan, refused: bool) -> (Vec<Event>, State) {
    let (plan, mut now) = (Arc::new(plan), PLANNED_AT);
    let mut events = vec![Event::Planned(Arc::clone(&plan))];
    let mut state = State::begin(plan, Epoch(0), now);
    if refused {
        let problem = Problem::new(Code::AgentUnreachable, "nobody answers");
        add(&mut events, &mut state, now, Event::TurnedBack(problem));
    }
    for _ in 0..500 {
        let next = match machine::next(&state, now, 0) {
            Next::Stop => return (events, state),
            Next::Fence(hosts) => hosts.into_iter().map(Event::Fenced).collect(),
            Next::Send(keys) => {
                let intended = |key: &OrderKey| Event::OrderIntended { key: key.clone(), attempt: 1 };
                keys.iter().for_each(|key| add(&mut events, &mut state, now, intended(key)));
                let evidence = || Evidence { detail: "it is so".to_owned(), ..Evidence::default() };
                keys.into_iter().map(|key| Event::OrderDone { key, evidence: evidence() }).collect()
            }
            Next::Record(event) => vec![event],
            Next::ReadGates => {
                now = now.plus_ms(state.watch_ms());
                vec![Event::WatchPassed]
            }
            Next::Await(until) => {
                now = until.unwrap_or(now.plus_ms(1));
                Vec::new()
            }
            other => panic!("{other:?} of a release to which nothing happens"),
        };
        next.into_iter().for_each(|event| add(&mut events, &mut state, now, event));
    }
    panic!("it never ends: {:?}", state.phase);
}

fn add(events: &mut Vec<Event>, state: &mut State, at: Timestamp, event: Event) {
    machine::fold(state, &Stamped { at, event: event.clone() }).unwrap();
    events.push(event);
}

/// Records releases of the site as a coordinator does: deploys by requests of CI, of which each fifth is refused, and after each
/// third a rollback. With `stood` each says how the environment stood before it, as all do since that is said. Returns how the
/// environment stands after the last.
pub async fn grow(
    journal: &JournalStore,
    environment: &Environment,
    (first, count): (usize, usize),
    stood: bool,
    mut standing: Standing,
) -> Standing {
    let epoch = journal.take_lease(&environment.name, "test").await.unwrap();
    for number in first..first + count {
        let route = standing.route.clone().unwrap_or_else(|| "be_blue:be_blue:0:7".parse().unwrap());
        let facts = v1::BalancerFacts {
            route: route.to_string(),
            highest_epoch: route.epoch.0,
            ..Default::default()
        };
        let balancers = environment.balancers.iter().map(|host| (host.clone(), facts.clone())).collect();
        let seen = Seen { balancers, ..Seen::default() };
        let rolls_back = number % 3 == 2 && standing.previous.is_some();
        let artifact = ArtifactDigest::from_bytes([u8::try_from(number % 250).unwrap(); 32]);
        let deploy = Wanted::Deploy { artifact, at_once: true, fix_forward: false, migrations: None };
        let wanted = if rolls_back { Wanted::Rollback } else { deploy };
        let request_id = (!rolls_back).then(|| format!("job-{}", number / 2).parse().unwrap());
        let wish = Wish { request_id, ..wish(wanted, &format!("r{number}")) };
        let mut plan = planner::plan(environment, &standing, wish, &seen).unwrap();
        plan.verdict.mode = VerdictMode::Off;
        plan.stood = stood.then(|| Box::new(standing.clone()));
        let (events, state) = history(plan, number % 5 == 4);
        let release = &state.plan.release;
        journal.append(&environment.name, epoch, release, PLANNED_AT, events).await.unwrap();
        standing.fold(&state);
    }
    standing
}

/// An empty disk of this size, in a test that is run again with mounts of its own, which end with it. None where this is not that
/// run: it was made, and went well, or this machine lets nobody mount.
pub fn small_disk(test: &str, size: &str) -> Option<tempfile::TempDir> {
    if std::env::var_os("POINTSMAN_OWN_MOUNTS").is_some() {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).status();
        assert!(mount.unwrap().success());
        return Some(folder);
    }
    let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
    let allowed = root
        && Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success());
    if !allowed {
        println!("skipped {test}: only root with a mount namespace can fill a small file system");
        return None;
    }
    let again = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("POINTSMAN_OWN_MOUNTS", "1")
        .status();
    assert!(again.unwrap().success(), "{test} failed in its own mounts");
    None
}

/// A clock that is set by hand, and whose pauses have no end.
#[derive(Debug, Default)]
pub struct Hand(Mutex<u64>);

impl Hand {
    /// It stands there.
    pub fn at(ms: u64) -> Self {
        Self(Mutex::new(ms))
    }

    /// Sets it.
    pub fn set(&self, ms: u64) {
        *self.0.lock().unwrap() = ms;
    }

    /// Lets time pass; the moment that it is then.
    pub fn later(&self, ms: u64) -> Timestamp {
        *self.0.lock().unwrap() += ms;
        self.now()
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp(*self.0.lock().unwrap())
    }

    fn steady_ms(&self) -> u64 {
        *self.0.lock().unwrap()
    }

    async fn pause(&self, _: u64) {
        std::future::pending().await
    }
}

/// Agents that make checks as they are told to. Nothing is ordered of them.
#[derive(Debug, Default)]
pub struct Agents {
    /// Checks that fail, wherever they are made.
    pub fails: Mutex<BTreeSet<&'static str>>,
    /// Hosts that do not answer.
    pub silent: Mutex<BTreeSet<&'static str>>,
    /// Hosts that only remember what fails: they have told of it before.
    pub remembers: Mutex<BTreeSet<&'static str>>,
    /// What was asked of whom.
    pub asked: Mutex<Vec<(String, Action)>>,
    /// How many are asked at this moment, and how many were at most.
    pub at_once: Mutex<(u32, u32)>,
}

impl Agents {
    /// These checks fail from now on, and no others.
    pub fn fail(&self, checks: &[&'static str]) {
        *self.fails.lock().unwrap() = checks.iter().copied().collect();
    }

    /// These hosts are silent from now on, and no others.
    pub fn silence(&self, hosts: &[&'static str]) {
        *self.silent.lock().unwrap() = hosts.iter().copied().collect();
    }

    fn make(&self, check: &Check) -> CheckSeen {
        let fails = self.fails.lock().unwrap().contains(check.name.as_str());
        let verdict = if fails { CheckVerdict::Failed } else { CheckVerdict::Passed };
        CheckSeen::new(check.name.clone(), verdict, 1, "seen")
    }
}

impl Fleet for Agents {
    async fn fence(&self, _: &HostName, _: Epoch, _: u64) -> Result<(), Problem> {
        unreachable!("nothing is ordered")
    }

    async fn prepare(&self, _: &Order, _: u64) -> Result<Evidence, Problem> {
        unreachable!("nothing is ordered")
    }

    async fn perform(&self, _: &Order) -> Result<Evidence, Problem> {
        unreachable!("nothing is ordered")
    }

    async fn commit(&self, _: &Order) -> Result<Evidence, Problem> {
        unreachable!("nothing is ordered")
    }

    async fn observe(&self, host: &HostName, action: &Action, _: u64) -> Result<Evidence, Problem> {
        self.asked.lock().unwrap().push((host.to_string(), action.clone()));
        {
            let mut at_once = self.at_once.lock().unwrap();
            *at_once = (at_once.0 + 1, at_once.1.max(at_once.0 + 1));
        }
        tokio::task::yield_now().await;
        self.at_once.lock().unwrap().0 -= 1;
        if self.silent.lock().unwrap().contains(host.as_str()) {
            return Err(Problem::new(Code::AgentUnreachable, "silence"));
        }
        let (Action::ProbeHost { checks, .. } | Action::ProbeBalancer { checks, .. }) = action else {
            unreachable!("only checks are asked for")
        };
        let checks: Vec<CheckSeen> = checks.iter().map(|check| self.make(check)).collect();
        let fails = checks.iter().find(|seen| seen.verdict == CheckVerdict::Failed);
        match fails.map(|seen| Problem::new(Code::CheckFailed, format!("check `{}` failed", seen.name))) {
            Some(problem) => {
                let remembered = self.remembers.lock().unwrap().contains(host.as_str());
                let problem = if remembered { problem.retry_useful() } else { problem };
                Err(Problem { checks, ..problem })
            }
            None => Ok(Evidence { checks, ..Evidence::default() }),
        }
    }
}
