//! A site on which releases are disturbed, one after the other, while visitors use it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use kit::{Books, Client, Daemon, Load, LoadPlan, Site, SiteBuilder, Visit, tree};
use pointsman_core::Code;
use pointsman_proto::v1;
use rustix::process::Signal;

use crate::bout::{Blow, Bout, Goal, Moment, Part, Story, Which};
use crate::ear::{self, Ear};
use crate::rest::{self, Standing};

/// Longest time for a release to end by itself, whatever is done to it.
const LONGEST: Duration = Duration::from_secs(90);
/// Lines of the coordinator's log that are shown when something is not as it must be.
const SAID_LAST: usize = 30;
/// Longest time for a hang to be recorded: several times the five seconds that channels allow for it, and a third of
/// the bounds of the orders that are hung here.
const NOTICED: Duration = Duration::from_secs(20);
/// Longest time for a coordinator to accept a release: it is down for a part of that.
const ACCEPTED: Duration = Duration::from_secs(30);
/// Longest time for what goes on after a release's end: old artifacts are dropped, a guard looks again.
const SETTLED: Duration = Duration::from_secs(10);
/// How often it is looked whether a moment has come.
const LOOK_EVERY: Duration = Duration::from_millis(3);

/// The site, with what must stand on it.
pub struct Arena {
    /// The site.
    pub site: Site,
    standing: Standing,
    number: u32,
}

/// What is asked of the coordinator.
#[derive(Clone)]
enum Wish {
    Deploy(Box<v1::PlanRequest>),
    Page(bool),
}

/// A blow that has yet to fall, or to end.
enum Pending {
    Armed(Daemon),
    Due(Moment),
    Away(Vec<Daemon>, Instant),
    Stopped(Daemon, Moment, Instant, u64),
    Over,
}

/// A release under way.
struct Fight<'a> {
    bout: &'a Bout,
    live: Daemon,
    pending: Vec<Pending>,
    began: Instant,
    load: &'a Load,
    ear: Ear,
    starts_ms: Vec<i64>,
    fell: Vec<String>,
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

impl Arena {
    /// A site with a first version live.
    pub async fn open(site: SiteBuilder) -> Result<Self> {
        let site = site.start().await?;
        let first = site.released("v0").await?;
        let live = site.client()?.status().await?.live.context("nothing is live")?;
        let live = Daemon::of_slot(&live.slot)?;
        let standing = Standing { live, page: false, current: BTreeMap::from([(live.host(), Some(first))]) };
        Ok(Self { site, standing, number: 0 })
    }

    /// Has a release go through what the bout says, and looks at everything when it is over. An error names the
    /// release and shows its journal.
    pub async fn run(&mut self, bout: &Bout) -> Result<Story> {
        self.number = self.number.saturating_add(1);
        let fought = self.fight(bout).await;
        match fought {
            Ok(story) => Ok(story),
            Err(error) => {
                let mut client = self.site.client()?;
                let newest = tokio::time::timeout(LONGEST, ear::newest(&mut client)).await.ok().flatten();
                let newest = newest.unwrap_or_default();
                let journal = Books::read(&self.site).map(|books| books.lines(&newest));
                let journal = journal.unwrap_or_else(|error| format!("unreadable: {error:#}"));
                let said = self.coordinator_said();
                Err(error.context(format!(
                    "{bout}\njournal of `{newest}`:\n{journal}\nthe coordinator said last:\n{said}"
                )))
            }
        }
    }

    /// The end of the coordinator's log.
    fn coordinator_said(&self) -> String {
        let path = self.site.folder().join("logs/coordinator-coordinator.log");
        let log =
            std::fs::read_to_string(&path).unwrap_or_else(|error| format!("{}: {error}", path.display()));
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(SAID_LAST)..).unwrap_or_default().join("\n")
    }

    async fn fight(&mut self, bout: &Bout) -> Result<Story> {
        let (live, idle) = (self.standing.live, self.idle()?);
        let (wish, folder) = self.prepare(bout).await?;
        self.arm(bout)?;
        self.site.ready().await?;
        if bout.goal == Goal::Abort {
            self.site.host(idle.host())?.fail_deep(true)?;
        }
        let mut client = self.site.client()?;
        let before = ear::newest(&mut client).await.context("the coordinator does not answer")?;
        let loads = self.site.frontends().into_iter();
        let loads: Vec<Load> =
            loads.map(|frontend| Load::start(frontend, LoadPlan::default())).collect::<Result<_>>()?;
        let load = loads.first().context("the site has no load balancer")?;
        busy(&loads).await?;
        let ear = Ear::listen(self.site.client()?, before);
        let accepted = tokio::spawn(accepted(client, wish));
        let mut fight = Fight {
            bout,
            live,
            pending: bout.blows.iter().map(|blow| first(blow, live)).collect::<Result<_>>()?,
            began: Instant::now(),
            load,
            ear,
            starts_ms: Vec::new(),
            fell: Vec::new(),
        };
        let outcome = fight.until_over(&mut self.site).await?;
        accepted.await??;
        let missed = fight.mend(&mut self.site)?;
        let mut story = Story { release: fight.ear.release(), outcome, missed, ..Story::default() };
        ensure!(
            bout.ends.contains(&story.outcome.as_str()),
            "`{}` ended as `{}`: {}",
            story.release,
            story.outcome,
            fight.ear.turned_back()
        );
        self.site.host(idle.host())?.fail_deep(false)?;
        self.site.ready().await?;
        self.note(bout.goal, &story.outcome, idle, folder);
        if bout.goal == Goal::PageDown && story.outcome == "confirmed" {
            self.lift_what_was_left(&story.release).await?;
        }
        let (starts_ms, fell) = (fight.starts_ms, fight.fell);
        story.fell = fell;
        self.settle(&story).await?;
        busy(&loads).await?;
        for load in loads {
            let report = load.stop()?;
            story.requests = story.requests.saturating_add(report.visits.len());
            let failures: Vec<String> =
                report.visits.iter().filter_map(|visit| wrong(visit, bout, &story)).collect();
            story.failures.extend(failures);
        }
        let books = Books::read(&self.site)?;
        story.back_ms =
            starts_ms.iter().filter_map(|start| back_ms(&books, &story.release, *start)).collect();
        Ok(story)
    }

    fn idle(&self) -> Result<Daemon> {
        Daemon::of_slot(if self.standing.live == Daemon::Blue { "green" } else { "blue" })
    }

    /// Makes and publishes what is to be released.
    async fn prepare(&self, bout: &Bout) -> Result<(Wish, Option<PathBuf>)> {
        if bout.moves_page() {
            return Ok((Wish::Page(bout.goal == Goal::PageUp), None));
        }
        let release = format!("v{}", self.number);
        let folder = self.site.artifact(&release)?;
        if bout.mebibytes > 0 {
            tree::grow(&folder, bout.mebibytes, 1 << 20)?;
        }
        let digest = kit::publish(&mut self.site.client()?, &folder).await?;
        let request =
            v1::PlanRequest { request_id: release.clone(), ..kit::deploy_request(&digest, &release) };
        Ok((Wish::Deploy(Box::new(request)), Some(folder)))
    }

    /// Starts the daemons anew that are to kill themselves.
    fn arm(&mut self, bout: &Bout) -> Result<()> {
        for blow in &bout.blows {
            if let Blow::Itself(who, at) = blow {
                let daemon = who.daemon(self.standing.live)?;
                self.site.kill(daemon)?;
                self.site.start(daemon, Some(*at))?;
            }
        }
        Ok(())
    }

    /// What the outcome says must stand now.
    fn note(&mut self, goal: Goal, outcome: &str, idle: Daemon, folder: Option<PathBuf>) {
        match (goal, outcome) {
            (Goal::PageUp | Goal::PageDown, "confirmed") => self.standing.page = goal == Goal::PageUp,
            (Goal::PageUp | Goal::PageDown, _) => {}
            (_, "confirmed") => {
                self.standing.live = idle;
                self.standing.current.insert(idle.host(), folder);
            }
            // The new version stays on its slot for people to look at.
            (_, "rolled-back") => drop(self.standing.current.insert(idle.host(), folder)),
            _ => {}
        }
    }

    /// A host that could not be asked when the page was lifted has its file still: the same command again removes it.
    async fn lift_what_was_left(&self, release: &str) -> Result<()> {
        let left = |daemon: &Daemon| self.site.host(daemon.host()).is_ok_and(|host| host.maintenance());
        let books = Books::read(&self.site)?;
        for daemon in [Daemon::Blue, Daemon::Green].into_iter().filter(left) {
            let asked = books.of(release).any(|fact| fact.text("host") == daemon.host());
            ensure!(!asked, "`{release}` was to take the file away from {}", daemon.host());
            ensure!(daemon != self.standing.live, "visitors get the page from {}", daemon.host());
            let mut client = self.site.client()?;
            let again =
                client.maintenance(false).await.map_err(|status| kit::problem_of(&status).to_string());
            client.confirmed(&again.map_err(anyhow::Error::msg)?).await?;
        }
        Ok(())
    }

    async fn settle(&self, story: &Story) -> Result<()> {
        let give_up = Instant::now() + SETTLED;
        loop {
            let rest = rest::at_rest(&self.site, &self.standing, &story.release, &story.outcome).await;
            match rest {
                Err(_) if Instant::now() < give_up => tokio::time::sleep(LOOK_EVERY * 10).await,
                rest => return rest.context("at rest"),
            }
        }
    }
}

/// Waits until visitors have come by every load balancer.
async fn busy(loads: &[Load]) -> Result<()> {
    for load in loads {
        load.more(30).await?;
    }
    Ok(())
}

fn first(blow: &Blow, live: Daemon) -> Result<Pending> {
    Ok(match blow {
        Blow::Itself(who, _) => Pending::Armed(who.daemon(live)?),
        Blow::Outside(_, when) | Blow::Stop(_, when, _) | Blow::Haproxy(_, _, when) => Pending::Due(*when),
    })
}

/// What is wrong with a visit: it failed and should not have, or it showed a version that never was to be live.
fn wrong(visit: &Visit, bout: &Bout, story: &Story) -> Option<String> {
    let never = ["aborted", "refused"].contains(&story.outcome.as_str());
    if never && visit.marker == story.release {
        return Some(format!("a visitor got `{}`, which was {}", story.release, story.outcome));
    }
    let excused = bout.hurts_haproxy() || (bout.moves_page() && visit.status == Some(503));
    visit.failure.clone().filter(|_| !excused)
}

/// Asks until the coordinator has taken the release, as a CI job does.
async fn accepted(mut client: Client, wish: Wish) -> Result<()> {
    let give_up = Instant::now() + ACCEPTED;
    loop {
        let asked = match &wish {
            Wish::Deploy(plan) => client.create(plan.as_ref().clone()).await,
            Wish::Page(on) => client.maintenance(*on).await,
        };
        let Err(status) = asked else { return Ok(()) };
        let problem = kit::problem_of(&status);
        // It is ours that holds the environment: it began, and only its answer was lost.
        if problem.code == Code::EnvironmentBusy {
            return Ok(());
        }
        if Instant::now() >= give_up {
            bail!("the release was not accepted: {problem:?}");
        }
        tokio::time::sleep(LOOK_EVERY * 10).await;
    }
}

impl Fight<'_> {
    async fn until_over(&mut self, site: &mut Site) -> Result<String> {
        loop {
            for number in 0..self.pending.len() {
                self.look(number, site).await?;
            }
            if let Some(why) = self.ear.held() {
                bail!("`{}` waits for a person: {why}", self.ear.release());
            }
            let quiet = self
                .pending
                .iter()
                .all(|pending| matches!(pending, Pending::Armed(_) | Pending::Due(_) | Pending::Over));
            if let (Some(outcome), true) = (self.ear.outcome(), quiet) {
                return Ok(outcome);
            }
            self.nobody_else_fell(site)?;
            ensure!(self.began.elapsed() < LONGEST, "`{}` does not end", self.ear.release());
            if self.bout.goal == Goal::RollBack && self.ear.recorded("order-intended", "switch") {
                let idle = if self.live == Daemon::Blue { &site.green } else { &site.blue };
                idle.fail_deep(true)?;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// A daemon that ended otherwise than by a blow is told at once: nothing goes on without it.
    fn nobody_else_fell(&self, site: &mut Site) -> Result<()> {
        let second = (site.lb_agents().len() > 1).then_some(Daemon::SecondLbAgent);
        for daemon in Daemon::ALL.into_iter().chain(second) {
            let meant = self.pending.iter().any(|pending| match pending {
                Pending::Armed(armed) => *armed == daemon,
                Pending::Away(away, _) => away.contains(&daemon),
                _ => false,
            });
            ensure!(meant || !site.fell(daemon)?, "{daemon:?} was killed by somebody else");
        }
        Ok(())
    }

    fn come(&self, moment: Moment, since: Instant, visits: u64) -> bool {
        match moment {
            Moment::Recorded(kind, step) => self.ear.recorded(kind, step),
            Moment::After(pause) => since.elapsed() >= pause,
            Moment::Visits(count) => self.load.so_far() >= visits.saturating_add(count),
        }
    }

    /// Looks whether the next thing of a blow is due, and does it.
    async fn look(&mut self, number: usize, site: &mut Site) -> Result<()> {
        let (Some(blow), Some(pending)) = (self.bout.blows.get(number), self.pending.get(number)) else {
            return Ok(());
        };
        let next = match pending {
            Pending::Armed(daemon) if site.fell(*daemon)? => {
                Pending::Away(vec![*daemon], Instant::now() + self.bout.away)
            }
            Pending::Due(when) if self.come(*when, self.began, 0) => match blow {
                Blow::Itself(..) => return Ok(()),
                Blow::Outside(who, _) => {
                    let daemons: Vec<Daemon> =
                        who.iter().map(|who| who.daemon(self.live)).collect::<Result<_>>()?;
                    daemons.iter().try_for_each(|daemon| site.kill(*daemon))?;
                    Pending::Away(daemons, Instant::now() + self.bout.away)
                }
                Blow::Stop(who, _, until) => {
                    let daemon = who.daemon(self.live)?;
                    site.signal(daemon, Signal::STOP)?;
                    Pending::Stopped(daemon, *until, Instant::now(), self.load.so_far())
                }
                Blow::Haproxy(which, part, _) => {
                    let haproxy = match which {
                        Which::First => &mut site.haproxy,
                        Which::Second => site.second_haproxy()?,
                    };
                    match part {
                        Part::Master => haproxy.kill_master().await?,
                        Part::Worker => haproxy.kill_worker().await?,
                    }
                    match which {
                        Which::First => site.restart_haproxy()?,
                        Which::Second => site.restart_second_haproxy()?,
                    }
                    Pending::Over
                }
            },
            Pending::Away(daemons, back) if Instant::now() >= *back => {
                for daemon in daemons {
                    if *daemon == Daemon::Coordinator {
                        self.starts_ms.push(now_ms());
                    }
                    site.start(*daemon, None)?;
                }
                Pending::Over
            }
            Pending::Stopped(daemon, until, since, visits) if self.come(*until, *since, *visits) => {
                site.signal(*daemon, Signal::CONT)?;
                Pending::Over
            }
            Pending::Stopped(daemon, until @ Moment::Recorded(..), since, _) if since.elapsed() > NOTICED => {
                bail!("{daemon:?} hangs for {} s, and {until:?} has not come", NOTICED.as_secs())
            }
            _ => return Ok(()),
        };
        if matches!(pending, Pending::Armed(_) | Pending::Due(_)) {
            self.fell.push(blow.name());
        }
        if let Some(pending) = self.pending.get_mut(number) {
            *pending = next;
        }
        Ok(())
    }

    /// Takes back what did not come to pass. Returns its names.
    fn mend(&mut self, site: &mut Site) -> Result<Vec<String>> {
        let mut missed = Vec::new();
        for (blow, pending) in self.bout.blows.iter().zip(&self.pending) {
            if let Pending::Armed(daemon) = pending {
                site.kill(*daemon)?;
                site.start(*daemon, None)?;
            }
            if matches!(pending, Pending::Armed(_) | Pending::Due(_)) {
                missed.push(format!("{blow:?}"));
            }
        }
        Ok(missed)
    }
}

/// From a start of the coordinator to the first thing that it recorded of the release: the intent or the outcome of
/// an order; in the watch, which orders nothing, that the last agent acknowledged its epoch. None if the release was
/// over or not begun, or the coordinator fell again before.
fn back_ms(books: &Books, release: &str, start_ms: i64) -> Option<i64> {
    // One that was asked for again, because its first request was lost with the coordinator, began after the start.
    books.of(release).next().filter(|planned| planned.at_ms < start_ms)?;
    let after: Vec<_> = books.of(release).filter(|fact| fact.at_ms >= start_ms).collect();
    let epoch = after.first()?.epoch;
    let own = after.iter().take_while(|fact| fact.epoch == epoch);
    let moves =
        ["order-intended", "order-done", "order-failed", "turned-back", "gates-failed", "gates-passed"];
    let first = own.clone().find(|fact| moves.contains(&fact.event()));
    let fenced = || own.clone().filter(|fact| fact.event() == "fenced").last();
    Some(first.or_else(fenced)?.at_ms.saturating_sub(start_ms))
}
