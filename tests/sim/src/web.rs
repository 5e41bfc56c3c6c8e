//! What orders do on web hosts, one visible change after the other.

use pointsman_core::{Aftermath, ArtifactDigest, Code, Evidence, Step};

use crate::agent::{Go, already, done, failed};
use crate::guard::Guard;
use crate::host::Tree;
use crate::network::Sent;
use crate::truth::Effect;
use crate::world::{Who, World};

/// How long a server may take to be well before the checks fail, in milliseconds.
const PATIENCE_MS: u64 = 1_000;

impl World {
    fn stage_of(&mut self, host: usize, job: u64) -> u8 {
        self.job(host, job).map_or(0, |job| job.stage)
    }

    fn next_stage(&mut self, host: usize, job: u64) {
        if let Some(job) = self.job(host, job) {
            job.stage += 1;
        }
    }

    /// Brings an artifact: its files, and then the mark that says so.
    pub fn stage(&mut self, host: usize, job: u64, sent: &Sent, artifact: ArtifactDigest) -> Go {
        if let Err(problem) = self.rules(host, sent) {
            return Go::End(Err(problem.aftermath(Aftermath::Changed)));
        }
        let (mark_last, spares) = (self.stands(Guard::MarkLast), self.stands(Guard::Idempotency));
        let stage = self.stage_of(host, job);
        let Some(trees) = self.hosts.get_mut(host).and_then(|host| host.trees_mut()) else { return done() };
        let known = trees.get(&artifact).copied();
        match stage {
            0 if known.is_some_and(|tree| tree.marked) && spares => already(),
            0 => {
                let whole = known.is_some_and(|tree| tree.whole && spares);
                trees.insert(artifact, Tree { whole, marked: !mark_last });
                self.next_stage(host, job);
                let ms = self.chance.between(10, 400);
                Go::Again(if self.chance.percent(5) { ms * 20 } else { ms })
            }
            1 => {
                trees.insert(artifact, Tree { whole: true, marked: !mark_last });
                if self.point(Who::Agent(host)) {
                    return done();
                }
                self.next_stage(host, job);
                Go::Again(1)
            }
            _ => {
                trees.insert(artifact, Tree { whole: true, marked: true });
                self.effect(host, sent, &Effect::Staged);
                self.point(Who::Agent(host));
                done()
            }
        }
    }

    /// Drops what an unfinished transfer left.
    pub fn discard(&mut self, host: usize, sent: &Sent, artifact: ArtifactDigest) -> Go {
        if let Err(problem) = self.rules(host, sent) {
            return Go::End(Err(problem));
        }
        let Some(trees) = self.hosts.get_mut(host).and_then(|host| host.trees_mut()) else { return done() };
        if trees.get(&artifact).is_some_and(|tree| !tree.marked) {
            trees.remove(&artifact);
            self.effect(host, sent, &Effect::Discarded(artifact));
            self.point(Who::Agent(host));
        }
        done()
    }

    /// Moves `current`, then has the server start with it.
    pub fn activate(&mut self, host: usize, job: u64, sent: &Sent, artifact: Option<ArtifactDigest>) -> Go {
        let (at_once, spares) = (self.stands(Guard::AtomicLink), self.stands(Guard::Idempotency));
        let (stage, now) = (self.stage_of(host, job), self.now);
        let rules = self.rules(host, sent);
        let ms = self.chance.between(1, 5);
        let Some(web) = self.hosts.get_mut(host).and_then(|host| host.web_mut()) else { return done() };
        match stage {
            0 if web.current == artifact && spares => {
                self.next_stage(host, job);
                self.next_stage(host, job);
                Go::Again(ms)
            }
            0 => {
                let marked = |artifact| web.trees.get(&artifact).is_some_and(|tree| tree.marked);
                let lacks = artifact.is_some_and(|artifact| !marked(artifact));
                // The host is new: nothing to lead back to, nor from.
                if lacks && web.current.is_none() && sent.order.key.step == Step::LinkBack {
                    return already();
                }
                if lacks {
                    return failed(Code::ArtifactMissing, Aftermath::Unchanged);
                }
                if let Err(problem) = rules {
                    return Go::End(Err(problem));
                }
                if self.point(Who::Agent(host)) {
                    return done();
                }
                let link = if at_once { artifact } else { None };
                self.move_link(host, job, sent, link);
                if !self.stands(Guard::FlagOnlyInMaintenance) {
                    self.show_flag(host, sent);
                }
                self.point(Who::Agent(host));
                self.next_stage(host, job);
                Go::Again(ms)
            }
            1 => {
                if !at_once {
                    self.move_link(host, job, sent, artifact);
                }
                self.next_stage(host, job);
                Go::Again(ms)
            }
            2 => {
                if let Err(problem) = rules {
                    return Go::End(Err(problem.aftermath(Aftermath::Changed)));
                }
                web.boots_until = now + 50 * ms;
                self.effect(host, sent, &Effect::Restarted);
                if self.point(Who::Agent(host)) {
                    return done();
                }
                self.next_stage(host, job);
                Go::Again(ms)
            }
            _ => {
                let changed = self.job(host, job).is_some_and(|job| job.changed);
                Go::End(Ok(Evidence { already: !changed, ..Evidence::default() }))
            }
        }
    }

    fn move_link(&mut self, host: usize, job: u64, sent: &Sent, artifact: Option<ArtifactDigest>) {
        if let Some(web) = self.hosts.get_mut(host).and_then(|host| host.web_mut()) {
            web.current = artifact;
        }
        if let Some(job) = self.job(host, job) {
            job.changed = true;
        }
        self.effect(host, sent, &Effect::Link(artifact));
    }

    /// Has the maintenance file there while something else is done, as one might think it careful.
    fn show_flag(&mut self, host: usize, sent: &Sent) {
        if let Some(web) = self.hosts.get_mut(host).and_then(|host| host.web_mut()) {
            web.flag = true;
        }
        self.effect(host, sent, &Effect::Flag(true));
    }

    /// Has the maintenance file there, or not.
    pub fn set_flag(&mut self, host: usize, sent: &Sent, on: bool) -> Go {
        if let Err(problem) = self.rules(host, sent) {
            return Go::End(Err(problem));
        }
        if !self.stands(Guard::FlagReadBack) && self.chance.percent(30) {
            return done();
        }
        let spares = self.stands(Guard::Idempotency);
        let Some(web) = self.hosts.get_mut(host).and_then(|host| host.web_mut()) else { return done() };
        if web.flag == on && spares {
            return already();
        }
        web.flag = on;
        self.effect(host, sent, &Effect::Flag(on));
        self.point(Who::Agent(host));
        done()
    }

    /// Makes the checks against the local server, with some patience.
    pub fn probe_host(&mut self, host: usize, job: u64, sent: &Sent) -> Go {
        let believes = self.stands(Guard::Gate);
        match self.look(host, &sent.order.action, false) {
            Ok(()) => {
                let current = self.hosts.get(host).and_then(|host| host.web()?.current);
                self.truth.passed_locally(host, current, self.now);
                done()
            }
            Err(_) if !believes => done(),
            Err(problem) => self.patience(host, job, problem),
        }
    }

    /// Tries a look again for a while.
    pub fn patience(&mut self, host: usize, job: u64, problem: pointsman_core::Problem) -> Go {
        let now = self.now;
        let waited = self.job(host, job).map_or(PATIENCE_MS, |job| now.saturating_sub(job.began));
        if waited < PATIENCE_MS { Go::Again(250) } else { Go::End(Err(problem)) }
    }
}
