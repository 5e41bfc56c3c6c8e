//! Who is left out of a release's way back: a host or a load balancer that is gone for good, because a person says so.
//!
//! Without this a release that is held on its way back for dead hardware would hold its environment for ever. Forward nobody
//! is left out: there a release turns back instead. What may be said of the record alone is [`possible`]; what only a look
//! at the agents tells is [`gone`].

use std::collections::BTreeMap;

use crate::step::Kind;
use crate::{Code, HeldAt, HostName, Phase, Problem, Purpose, State, Step, Timestamp};

/// Why a host is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The principal who said so.
    pub by: String,
    /// Why, in their words.
    pub reason: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// What an agent said when it was asked just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Something, if only that it will not do what it is asked.
    Answer,
    /// Nothing.
    Silence,
}

impl State {
    /// Whether this host was left out of a step.
    pub fn left_out_of(&self, step: Step, host: &HostName) -> bool {
        step.kind() == Kind::Backward && self.left_out.contains_key(host)
    }

    /// The hosts that a step still asks: all of its own, without those that were left out of it.
    pub fn still_asked(&self, step: Step) -> impl Iterator<Item = &HostName> {
        self.plan.asked(step).filter(move |host| !self.left_out_of(step, host))
    }

    /// Whether a load balancer stands as it stood, because a person said that it is out of service: when the release was
    /// planned, or on its way back.
    pub fn went_without(&self, host: &str) -> bool {
        let named = |out: &HostName| out.as_str() == host;
        self.plan.without.iter().any(named)
            || self.left_out.keys().any(|out| named(out) && self.plan.balancers.contains(out))
    }

    /// Whether nobody knows what the slot holds that was to be filled: a host of it was left out before its link was led
    /// back. No rollback leads there.
    pub fn slot_is_unknown(&self) -> bool {
        let unknown = |host: &HostName| {
            let led_back =
                self.progress(Step::LinkBack, host).is_some_and(|progress| progress.done.is_some());
            self.left_out.contains_key(host) && !led_back
        };
        matches!(self.plan.purpose, Purpose::Deploy { .. })
            && self.touched(Step::Activate)
            && self.plan.to.hosts.iter().any(unknown)
    }

    /// What is left of the way back.
    fn left_to_do(&self) -> impl Iterator<Item = Step> {
        self.way_back().into_iter().filter(|step| !self.complete(*step))
    }

    /// Whether the way back waits for this host: a step of it asks the host, or is not begun before the host has acknowledged
    /// the epoch.
    fn waits_for(&self, host: &HostName) -> bool {
        let asks = |step: Step| {
            let done = self.progress(step, host).is_some_and(|progress| progress.done.is_some());
            self.plan.asks(step, host) && !done
        };
        let fences = |step: Step| {
            step == Step::LinkBack && self.plan.balancers.contains(host) && self.unfenced.contains(host)
        };
        !self.left_out.contains_key(host) && self.left_to_do().any(|step| asks(step) || fences(step))
    }

    /// The load balancers that take part in the way back when these are left out as well.
    fn balancers_but<'a>(&'a self, hosts: &'a [HostName]) -> impl Iterator<Item = &'a HostName> {
        let out = |host: &&HostName| self.left_out.contains_key(*host) || hosts.contains(host);
        self.plan.balancers.iter().filter(move |host| !out(host))
    }
}

fn refused(message: String) -> Problem {
    Problem::new(Code::NotLeftOut, message)
}

/// Whether these hosts may be left out of what is left of the way back, by what is recorded; if not, why. Nobody is named:
/// nothing is refused.
pub fn possible(state: &State, hosts: &[HostName]) -> Result<(), Problem> {
    let (environment, release) = (&state.plan.environment, &state.plan.release);
    if hosts.is_empty() {
        return Ok(());
    }
    let back =
        matches!(state.phase, Phase::Held { at: HeldAt::Step(step), .. } if step.kind() == Kind::Backward);
    if !back {
        return Err(refused(format!("release `{release}` is not held on its way back"))
            .cause("forward no host is left out: a release that cannot go on without one turns back")
            .hint(format!("see what it can do: `pointsman status {environment}`")));
    }
    for host in hosts {
        if !state.waits_for(host) {
            return Err(refused(format!("the way back of `{release}` does not wait for `{host}`"))
                .hint(format!("name the host that holds it: `pointsman status {environment}`")));
        }
        // Which database is live is known, or nothing is: nobody's word replaces a look.
        if state.plan.database.as_ref().is_some_and(|database| database.host == *host)
            && state.left_to_do().any(|step| step == Step::Unswap)
        {
            return Err(refused(format!("only `{host}` can tell which database is live"))
                .hint(format!("bring its agent back, then `pointsman resume {environment}`")));
        }
    }
    let balancer = hosts.iter().find(|host| state.plan.balancers.contains(host));
    match balancer {
        Some(host) if state.balancers_but(hosts).next().is_none() => {
            Err(refused(format!("without `{host}` no load balancer is left to lead visitors back"))
                .hint(format!("bring one back, then `pointsman resume {environment}`")))
        }
        _ => Ok(()),
    }
}

/// Whom to ask before these hosts are left out: themselves and, where a load balancer is among them, the other ones.
pub fn to_ask(state: &State, hosts: &[HostName]) -> Vec<HostName> {
    let balancer = hosts.iter().any(|host| state.plan.balancers.contains(host));
    hosts.iter().chain(state.balancers_but(hosts).filter(|_| balancer)).cloned().collect()
}

/// Whether these hosts are really gone, by what was heard of them just now; if not, why. Whoever was not asked is silent.
pub fn gone(state: &State, hosts: &[HostName], heard: &BTreeMap<HostName, Heard>) -> Result<(), Problem> {
    let environment = &state.plan.environment;
    let answers = |host: &HostName| heard.get(host) == Some(&Heard::Answer);
    for host in hosts.iter().filter(|host| answers(host)) {
        if state.plan.balancers.contains(host) {
            return Err(refused(format!("load balancer `{host}` answers"))
                .cause("its visitors would stay where they are")
                .hint(format!(
                    "go on with it: `pointsman resume {environment}`; or stop its agent and HAProxy first"
                )));
        }
        if !has_lost_it(state, host) {
            return Err(refused(format!("`{host}` answers, and may do what it is asked"))
                .hint(format!("go on with it: `pointsman resume {environment}`")));
        }
    }
    let mut others = state.balancers_but(hosts);
    match hosts.iter().find(|host| state.plan.balancers.contains(host)) {
        Some(host) if !others.any(answers) => {
            Err(refused(format!("no other load balancer than `{host}` answers"))
                .retry_useful()
                .hint(format!("bring one back, then `pointsman resume {environment} --without {host}`")))
        }
        _ => Ok(()),
    }
}

/// Whether a host said itself that it cannot be led back, and never will: what it held is gone.
fn has_lost_it(state: &State, host: &HostName) -> bool {
    let lost = |code| matches!(code, Code::ArtifactMissing | Code::SiteRootUnfit);
    let mut left = state.left_to_do();
    left.any(|step| {
        let problem = state.progress(step, host).and_then(|progress| progress.problem.as_ref());
        problem.is_some_and(|problem| lost(problem.code))
    })
}

/// Whom a person may leave out of the way back where it is held, as far as the record tells: who was silent or has lost what it
/// held and, of load balancers, only while another one was heard. For whoever shows what can be done; a look decides.
pub fn candidates(state: &State) -> Vec<HostName> {
    let (Phase::Held { why, .. }, Some(step)) = (&state.phase, state.step()) else { return Vec::new() };
    let silent = |host: &HostName| {
        let of_order = state.progress(step, host).and_then(|progress| progress.problem.as_ref());
        let of_fence = Some(why).filter(|why| why.host.as_ref() == Some(host));
        let mut said = of_order.into_iter().chain(of_fence);
        // One that was taken out of the environment's file cannot be asked at all.
        let silent = |code| matches!(code, Code::AgentUnreachable | Code::AnswerLost | Code::ConfigInvalid);
        said.any(|problem| silent(problem.code))
    };
    let fits = |host: &&HostName| {
        let alone = std::slice::from_ref(*host);
        let balancer = state.plan.balancers.contains(host);
        let fits = match balancer {
            true => silent(host) && state.balancers_but(alone).any(|other| !silent(other)),
            false => silent(host) || has_lost_it(state, host),
        };
        fits && possible(state, alone).is_ok()
    };
    state.plan.hosts().filter(fits).cloned().collect()
}
