//! What orders do on load balancers, and what HAProxy does by itself.

use pointsman_core::route_change::{self, Known, Lease};
use pointsman_core::{Action, Aftermath, BackendName, Code, Problem, Route};

use crate::agent::{Go, done, failed};
use crate::guard::Guard;
use crate::host::{Job, Worker};
use crate::network::Sent;
use crate::truth::Effect;
use crate::world::{Happening, Who, World};

/// How often a change is confirmed anew because HAProxy was reloaded meanwhile: as in the real agent.
const RELOADS_FOLLOWED: u8 = 5;

/// How long a worker that starts is waited for before a change is reported without it, and how often it is looked for, in
/// milliseconds: as in the real agent.
const START_WAITED_MS: u64 = 3_000;
const LOOK_AGAIN_MS: u64 = 20;

impl World {
    /// Waits until nobody is served by a backend, then cuts. One that visitors are led to would never be empty.
    pub fn drain(&mut self, host: usize, job: u64, backend: &BackendName, timeout_ms: u64) -> Go {
        let (now, waits) = (self.now, self.stands(Guard::Drain));
        let begins = self.job(host, job).is_some_and(|job| std::mem::replace(&mut job.stage, 1) == 0);
        let began = self.job(host, job).map_or(now, |job| job.began);
        let Some(balancer) = self.hosts.get_mut(host).and_then(|host| host.balancer_mut()) else {
            return done();
        };
        let led_there = balancer.standing().is_some_and(|route| route.share_of(backend) > 0);
        if begins && waits && led_there {
            return Go::End(Err(Problem::new(Code::DrainIncomplete, "visitors are led there")));
        }
        let busy = balancer.busy_until.get(backend).is_some_and(|until| *until > now);
        // Who is led there by a worker that took over meanwhile is not cut: others would come.
        let comes = led_there || balancer.starting.is_some();
        if waits && (busy || comes) && now.saturating_sub(began) < timeout_ms {
            return Go::Again(50);
        }
        if waits && comes {
            return failed(Code::DrainIncomplete, Aftermath::Unchanged);
        }
        if busy && waits {
            balancer.busy_until.remove(backend);
        }
        done()
    }

    /// Makes the checks through the load balancer, with some patience.
    pub fn probe_balancer(&mut self, host: usize, job: u64, sent: &Sent) -> Go {
        let believes = self.stands(Guard::Gate);
        match self.look(host, &sent.order.action, false) {
            Ok(()) => {
                self.truth.passed_through(host, &sent.order.release, self.now);
                done()
            }
            Err(_) if !believes => done(),
            Err(problem) => self.patience(host, job, problem),
        }
    }

    /// Whether a load balancer could take a route now.
    pub fn route_is_possible(
        &self,
        host: usize,
        expected: &[Route],
        wanted: &Route,
        min_up: u32,
    ) -> Result<(), Problem> {
        let silent =
            || Problem::new(Code::RuntimeSocketUnreachable, "HAProxy does not answer").retry_useful();
        let balancer = self.hosts.get(host).and_then(|host| host.balancer()).ok_or_else(silent)?;
        let standing = balancer.standing().ok_or_else(silent)?;
        let known = Known {
            standing,
            on_disk: Some(&balancer.disk),
            highest: balancer.highest,
            given_away: balancer.given_away.as_ref(),
        };
        route_change::permit(&known, expected, wanted)?;
        match route_change::growing(standing, wanted).find(|backend| self.healthy(backend) < min_up.max(1)) {
            Some(_) => Err(Problem::new(Code::BackendUnhealthy, "too few servers").retry_useful()),
            None => Ok(()),
        }
    }

    /// Sets a route: on disk, in the worker that takes new connections, in the old ones; then reads back.
    pub fn set_route(
        &mut self,
        host: usize,
        job: u64,
        sent: &Sent,
        (expected, wanted, min_up): (&[Route], &Route, u32),
    ) -> Go {
        match self.job(host, job).map_or(0, |job| job.stage) {
            0 => self.check_route(host, job, sent, (expected, wanted, min_up)),
            1 => self.write_worker(host, job, sent, wanted),
            _ => self.confirm_route(host, job, wanted),
        }
    }

    fn check_route(
        &mut self,
        host: usize,
        job: u64,
        sent: &Sent,
        (expected, wanted, min_up): (&[Route], &Route, u32),
    ) -> Go {
        let (looks, cares) = (self.stands(Guard::ExpectedRoute), self.stands(Guard::MinHealthy));
        let (disk_first, spares) = (self.stands(Guard::DiskFirst), self.stands(Guard::Idempotency));
        let rules = self.rules(host, sent);
        if let Err(problem) = self.take_what_is_held(host, sent) {
            return Go::End(Err(problem));
        }
        let Some(balancer) = self.hosts.get(host).and_then(|host| host.balancer()) else { return done() };
        let Some(Worker { pid, route: standing }) = balancer.workers.last().cloned() else {
            return failed(Code::RuntimeSocketUnreachable, Aftermath::Unchanged);
        };
        let known = Known {
            standing: &standing,
            on_disk: Some(&balancer.disk),
            highest: balancer.highest,
            given_away: balancer.given_away.as_ref(),
        };
        let permitted = match looks {
            true => route_change::permit(&known, expected, wanted),
            false => route_change::permit(&known, std::slice::from_ref(&standing), wanted),
        };
        if let Err(problem) = permitted {
            return Go::End(Err(problem));
        }
        let on_disk = balancer.disk == *wanted;
        let growing: Vec<&BackendName> = route_change::growing(&standing, wanted).collect();
        let unfit = growing.iter().any(|backend| self.healthy(backend) < min_up.max(1));
        if unfit && cares {
            return failed(Code::BackendUnhealthy, Aftermath::Unchanged);
        }
        if unfit {
            self.broken("I1", || format!("`{wanted}` leads visitors to servers that are not healthy"));
        }
        if standing != *wanted && !expected.contains(&standing) {
            self.broken("I3", || format!("`{wanted}` follows on `{standing}`, which nobody expected"));
        }
        let untouched = standing == *wanted && on_disk && spares;
        if !untouched {
            if sent.only_prepared {
                self.still_ready(host, &sent.order);
            }
            if let Err(problem) = rules {
                return Go::End(Err(problem));
            }
            if disk_first && !(on_disk && spares) {
                self.write_disk(host, sent, wanted);
                if self.point(Who::Agent(host)) {
                    return done();
                }
            }
        }
        if let Some(job) = self.job(host, job) {
            job.stage = if standing == *wanted && spares { 2 } else { 1 };
            (job.before, job.told) = (Some(standing), pid);
        }
        Go::Again(self.chance.between(1, 4))
    }

    /// Whatever was held ready is over with this order, which may ask for just that.
    fn take_what_is_held(&mut self, host: usize, sent: &Sent) -> Result<(), Problem> {
        let now = self.now;
        let Some(balancer) = self.hosts.get_mut(host).and_then(|host| host.balancer_mut()) else {
            return Ok(());
        };
        let (held, standing) = (balancer.held.take(), balancer.standing().cloned());
        if !sent.only_prepared {
            return Ok(());
        }
        let permitted = match &held {
            Some((lease, since, before)) => {
                lease.permit(&sent.order, now.saturating_sub(*since), before, standing.as_ref())
            }
            None => Err(route_change::lapsed("nothing is held ready")),
        };
        if permitted.is_err() && held.as_ref().is_some_and(|(lease, ..)| *lease != Lease::of(&sent.order)) {
            balancer.held = held;
        }
        permitted
    }

    fn write_disk(&mut self, host: usize, sent: &Sent, wanted: &Route) {
        if let Some(balancer) = self.hosts.get_mut(host).and_then(|host| host.balancer_mut()) {
            balancer.disk = wanted.clone();
            balancer.highest = balancer.highest.max(wanted.epoch);
        }
        self.effect(host, sent, &Effect::OnDisk(wanted));
    }

    fn put_disk_back(&mut self, host: usize, sent: &Sent, before: &Route) {
        self.truth.taken_back(sent);
        if let Some(balancer) = self.hosts.get_mut(host).and_then(|host| host.balancer_mut()) {
            if balancer.disk.epoch == balancer.highest {
                balancer.given_away = Some(balancer.disk.clone());
            }
            balancer.disk = before.clone();
        }
    }

    fn write_worker(&mut self, host: usize, job: u64, sent: &Sent, wanted: &Route) -> Go {
        let before = self.job(host, job).and_then(|job| job.before.clone());
        if let (Err(problem), Some(before)) = (self.rules(host, sent), before) {
            self.put_disk_back(host, sent, &before);
            return Go::End(Err(problem));
        }
        let Some(pid) = self.tell_worker(host, sent, wanted) else {
            return failed(Code::RuntimeSocketUnreachable, Aftermath::Unknown);
        };
        if self.point(Who::Agent(host)) {
            return done();
        }
        if let Some(job) = self.job(host, job) {
            (job.stage, job.told) = (2, pid);
        }
        Go::Again(self.chance.between(1, 4))
    }

    /// Sets the route in the worker that takes new connections. Requests of backends that lose all run on a while.
    fn tell_worker(&mut self, host: usize, sent: &Sent, wanted: &Route) -> Option<u32> {
        let (now, runs_on) = (self.now, self.chance.below(3_000));
        let balancer = self.hosts.get_mut(host)?.balancer_mut()?;
        let worker = balancer.workers.last_mut()?;
        let before = std::mem::replace(&mut worker.route, wanted.clone());
        let pid = worker.pid;
        for backend in [&before.stable, &before.canary] {
            if before.share_of(backend) > 0 && wanted.share_of(backend) == 0 {
                balancer.busy_until.insert(backend.clone(), now + runs_on);
            }
        }
        self.effect(host, sent, &Effect::InWorker { before: &before, wanted });
        Some(pid)
    }

    fn confirm_route(&mut self, host: usize, job: u64, wanted: &Route) -> Go {
        let (tells_old, reads_back) = (self.stands(Guard::OldWorkers), self.stands(Guard::ReadBack));
        let now = self.now;
        let Some(confirmed) = self.job(host, job) else { return done() };
        let (told, since) = (confirmed.told, *confirmed.confirms.get_or_insert(now));
        let Some(balancer) = self.hosts.get_mut(host).and_then(|host| host.balancer_mut()) else {
            return done();
        };
        let Some((last, old)) = balancer.workers.split_last_mut() else {
            return failed(Code::RuntimeSocketUnreachable, Aftermath::Unknown);
        };
        if tells_old {
            old.iter_mut().for_each(|worker| worker.route = wanted.clone());
        }
        if last.pid != told && reads_back {
            // A worker that has just taken over has read the map as it was when it began.
            last.route = wanted.clone();
            let pid = last.pid;
            if let Some(job) = self.job(host, job) {
                (job.told, job.stage) = (pid, job.stage.saturating_add(1));
                if job.stage > RELOADS_FOLLOWED {
                    return failed(Code::RouteNotApplied, Aftermath::Unknown);
                }
            }
            return Go::Again(1);
        }
        if last.route != *wanted && reads_back {
            let problem = Problem::new(Code::RouteNotApplied, "another route was read back");
            return Go::End(Err(problem.aftermath(Aftermath::Unknown).retry_useful()));
        }
        // It has read the map as it was when it began. One that takes longer is told by the guard, once it has taken over.
        if balancer.starting.is_some() && reads_back && now.saturating_sub(since) < START_WAITED_MS {
            return Go::Again(LOOK_AGAIN_MS);
        }
        (balancer.settled, balancer.confirmed) = (Some(told), wanted.clone());
        self.guard_soon(host);
        done()
    }

    /// HAProxy begins a reload: the new worker reads the map now and takes over in a moment, or later. The master starts one
    /// worker at a time.
    pub fn reload(&mut self, host: usize, slow_ms: u64) {
        let ms = self.chance.between(30, 250).saturating_add(slow_ms);
        let Some(balancer) = self.hosts.get_mut(host).and_then(|host| host.balancer_mut()) else { return };
        if balancer.workers.is_empty() || balancer.starting.is_some() {
            return;
        }
        balancer.last_pid += 1;
        let pid = balancer.last_pid;
        balancer.starting = Some(Worker { pid, route: balancer.disk.clone() });
        self.troubles += 1;
        self.later(ms, Happening::Reloaded { host, pid });
    }

    /// A worker takes over. One old one is still there with its connections.
    pub fn reloaded(&mut self, host: usize, pid: u32) {
        self.troubles -= 1;
        let Some(balancer) = self.hosts.get_mut(host).and_then(|host| host.balancer_mut()) else { return };
        // Where HAProxy was killed its new worker was killed as well.
        let Some(worker) = balancer.starting.take_if(|worker| worker.pid == pid) else { return };
        balancer.workers.push(worker);
        if balancer.workers.len() > 2 {
            balancer.workers.remove(0);
        }
        self.guard_soon(host);
    }

    /// HAProxy is killed with all its workers, and started again later.
    pub fn kill_haproxy(&mut self, host: usize, back_ms: u64) {
        let known = self.hosts.get_mut(host).and_then(|host| host.balancer_mut());
        if let Some(balancer) = known.filter(|balancer| !balancer.workers.is_empty()) {
            balancer.workers.clear();
            balancer.starting = None;
            self.troubles += 1;
            self.later(back_ms, Happening::StartHaproxy(host));
        }
    }

    /// HAProxy starts with the map on disk.
    pub fn start_haproxy(&mut self, host: usize) {
        self.troubles -= 1;
        let Some(balancer) = self.hosts.get_mut(host).and_then(|host| host.balancer_mut()) else { return };
        balancer.last_pid += 1;
        let worker = Worker { pid: balancer.last_pid, route: balancer.disk.clone() };
        balancer.workers = vec![worker];
        self.guard_soon(host);
    }

    /// The agent's guard looks within a second.
    pub fn guard_soon(&mut self, host: usize) {
        let ms = self.chance.between(20, 1_000);
        if let Some(number) = self.hosts.get(host).filter(|host| host.up).map(|host| host.number) {
            self.later(ms, Happening::Guard { host, number });
        }
    }

    /// The guard of an agent: after a reload the route on disk stands again.
    pub fn guard(&mut self, host: usize, number: u32) {
        let now = self.now;
        let Some(agent) = self.hosts.get_mut(host).filter(|host| host.up && host.number == number) else {
            return;
        };
        let changing = |job: &Job| matches!(job.sent.order.action, Action::SetRoute { .. });
        let held = agent.balancer().is_some_and(|balancer| balancer.is_held(now));
        if held || agent.jobs.iter().any(changing) || agent.frozen.is_some() {
            return self.guard_soon(host);
        }
        let Some(balancer) = agent.balancer_mut() else { return };
        let (disk, settled) = (balancer.disk.clone(), balancer.settled);
        let stands = self.off != Some(Guard::ReloadGuard);
        let Some((worker, old)) = balancer.workers.split_last_mut() else { return };
        // A worker that took over with the old map may be an old one already.
        if settled.is_some_and(|pid| pid != worker.pid) && stands {
            old.iter_mut()
                .filter(|old| old.route.epoch < disk.epoch)
                .for_each(|old| old.route = disk.clone());
        }
        if worker.route == disk {
            balancer.settled = Some(worker.pid);
            return;
        }
        let reloaded = settled.is_some_and(|pid| pid != worker.pid);
        if reloaded && worker.route.epoch < disk.epoch && stands {
            worker.route = disk;
            balancer.settled = Some(worker.pid);
            self.tell(|| format!("host {host}: a reload brought an older route back, it is set again"));
        }
    }

    /// Before an agent hears any order: what its earlier life left half-done is finished or taken back.
    pub fn settle_at_start(&mut self, host: usize) {
        let Some(agent) = self.hosts.get_mut(host) else { return };
        let name = agent.name.clone();
        let Some(balancer) = agent.balancer_mut() else { return };
        let Some(standing) = balancer.standing().cloned() else { return };
        let wanted = route_change::at_start(&standing, &balancer.disk, Some(&balancer.confirmed)).cloned();
        let Some(wanted) = wanted else { return };
        if let Some(worker) = balancer.workers.last_mut() {
            worker.route = wanted.clone();
        }
        if wanted == balancer.disk {
            return;
        }
        if balancer.disk.epoch == balancer.highest {
            balancer.given_away = Some(balancer.disk.clone());
        }
        balancer.disk = wanted;
        self.truth.disk_taken_back(&name);
    }

    /// Somebody changes the route of the worker by hand.
    pub fn change_by_hand(&mut self, host: usize, for_ms: u64) {
        let Some(balancer) = self.hosts.get_mut(host).and_then(|host| host.balancer_mut()) else { return };
        let Some(worker) = balancer.workers.last_mut().filter(|_| balancer.before_hand.is_none()) else {
            return;
        };
        balancer.before_hand = Some(worker.route.clone());
        worker.route.epoch = worker.route.epoch.after(500);
        self.troubles += 1;
        self.later(for_ms, Happening::PutBack(host));
    }

    /// And puts back what stood there.
    pub fn put_back(&mut self, host: usize) {
        self.troubles -= 1;
        let Some(balancer) = self.hosts.get_mut(host).and_then(|host| host.balancer_mut()) else { return };
        let Some(before) = balancer.before_hand.take() else { return };
        // A person looks up what should stand there.
        let (by_hand, wanted) = (before.epoch.after(500), balancer.disk.clone());
        balancer
            .workers
            .iter_mut()
            .filter(|worker| worker.route.epoch == by_hand)
            .for_each(|worker| worker.route = wanted.clone());
        self.guard_soon(host);
    }
}
