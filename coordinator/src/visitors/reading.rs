//! Reads load balancers: one stream from each, for ever, each tick in the second it belongs to by the coordinator's clock.

use std::time::Duration;

use pointsman_chassis::SystemClock;
use pointsman_core::ports::{Clock as _, Mark};
use pointsman_core::signal::Tick;
use pointsman_core::{Code, HostName, Problem};
use pointsman_proto::{convert, v1};
use tokio::sync::mpsc;
use tonic::Status;

use super::offset::Offset;
use crate::fleet::GrpcFleet;

/// Reports of load balancers on their way to the merger, of which there is one a second from each.
pub(crate) const REPORTS: usize = 32;
/// Without a tick for so long a stream is taken for dead. An agent sends one each second.
const SILENCE: Duration = Duration::from_secs(5);
/// Bound on opening a stream.
const OPEN_MS: u64 = 3_000;
/// Pause before a stream that broke is opened again.
const AGAIN: Duration = Duration::from_secs(1);
/// The same where an agent says that it has no signals: that is so until somebody changes its configuration.
const WITHOUT_AGAIN: Duration = Duration::from_secs(60);
/// Between two ticks that were held up there is less than this: they come as fast as the network has them.
const BURST: Duration = Duration::from_millis(200);
/// The same where a stream begins with what another coordinator has not heard, and its agent is too old to tell how much
/// that is: only after that comes what is new, once a second.
const FIRST_BURST: Duration = Duration::from_millis(500);
/// Ticks of one burst: the 900 that an agent keeps, and what comes while they are read.
pub(super) const MOST_IN_BURST: usize = 1_000;
/// Ticks that are older than this are of no use to anybody: whoever judges has taken their seconds for lost, and a person
/// may have looked meanwhile.
const OF_USE_S: u64 = 60;

/// What came from a load balancer: a tick, or why there is none.
pub(crate) enum Report {
    Ticked(Ticked),
    Silent(Problem),
}

pub(crate) struct Ticked {
    /// The second it belongs to, by the coordinator's clock.
    pub(super) second: u64,
    pub(super) tick: Box<Tick>,
    /// What is wrong with its lines.
    pub(super) problem: Option<Problem>,
    /// It came as soon as it was over, as far as that can be told.
    pub(super) fresh: bool,
    /// How far the load balancer is read with it.
    pub(super) mark: Mark,
}

/// How far a load balancer has been read. It outlives a stream: what was counted while one was broken comes first in the
/// next, as long as the agent keeps it.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// The life and the number of the tick that was read last; without a life a stream begins with what comes now.
    pub(crate) life: String,
    pub(crate) number: u64,
    /// The load balancer's clock may be off. What counts is which of its ticks belong together with those of others.
    offset: Offset,
    /// Another coordinator has read it so far, and nothing has come since: whoever judges waits for all of it.
    goes_on: bool,
}

impl From<&Mark> for Read {
    fn from(mark: &Mark) -> Self {
        let Mark { life, number, ahead_s } = mark;
        Self { life: life.clone(), number: *number, offset: Offset::known((*ahead_s).into()), goes_on: true }
    }
}

/// Reads one load balancer for ever, from where it was read to.
pub(crate) async fn read(
    fleet: GrpcFleet,
    host: HostName,
    mut so_far: Read,
    send: mpsc::Sender<(HostName, Report)>,
) {
    loop {
        let Err(problem) = read_once(&fleet, &host, &mut so_far, &send).await else { return };
        let again = if has_none(&problem) { WITHOUT_AGAIN } else { AGAIN };
        if send.send((host.clone(), Report::Silent(problem))).await.is_err() {
            return;
        }
        tokio::time::sleep(again).await;
    }
}

/// Whether an agent says that it has no signals, or is too old to have any.
pub(super) fn has_none(problem: &Problem) -> bool {
    matches!(problem.code, Code::SignalsMissing | Code::NotAllowed)
}

/// Reads a stream until it breaks. Ends well only when nobody listens any more.
async fn read_once(
    fleet: &GrpcFleet,
    host: &HostName,
    so_far: &mut Read,
    send: &mpsc::Sender<(HostName, Report)>,
) -> Result<(), Problem> {
    let mut ticks = fleet.signals(host, so_far, OPEN_MS).await?;
    loop {
        let next = tokio::time::timeout(SILENCE, ticks.message()).await;
        let next = next.map_err(|_| nothing_for(host, SILENCE))?;
        let mut burst = vec![received(host, next)?];
        let mut end = None;
        // What was held up comes in a burst, the newest last: only that one shows how far the clocks are apart.
        while let Some(more) = burst.last().and_then(|tick| so_far.more_after(tick, now_s())) {
            let next = match (tokio::time::timeout(more.within(), ticks.message()).await, more) {
                (Ok(next), _) => received(host, next),
                (Err(_), More::Surely) => Err(nothing_for(host, SILENCE)),
                (Err(_), More::Perhaps(_)) => break,
            };
            match next {
                Ok(tick) if burst.len() < MOST_IN_BURST => burst.push(tick),
                Ok(tick) => burst = vec![tick],
                Err(problem) => {
                    end = Some(problem);
                    break;
                }
            }
        }
        if so_far.goes_on && end.is_some() {
            // Only the newest would show how far the clocks are apart. All of it comes again.
            return end.map_or(Ok(()), Err);
        }
        let (reports, unreadable) = so_far.take(host, burst, now_s());
        for report in reports {
            if send.send((host.clone(), Report::Ticked(report))).await.is_err() {
                return Ok(());
            }
        }
        if let Some(problem) = unreadable.or(end) {
            return Err(problem);
        }
    }
}

fn received(
    host: &HostName,
    came: Result<Option<v1::SignalTick>, Status>,
) -> Result<v1::SignalTick, Problem> {
    came.map_err(|status| broken(host).because(&status))?
        .ok_or_else(|| broken(host).cause("the agent ended it"))
}

fn now_s() -> u64 {
    SystemClock.now().0 / 1000
}

/// How far the load balancer's clock is ahead, as this tick shows it if it has just come.
fn apart_s(tick: &v1::SignalTick, now_s: u64) -> i128 {
    i128::from(tick.at_ms / 1000).saturating_sub(i128::from(now_s))
}

impl Read {
    /// What comes at once after this tick, if anything does.
    fn more_after(&self, tick: &v1::SignalTick, now_s: u64) -> Option<More> {
        match tick.newest {
            Some(newest) if newest > tick.number => Some(More::Surely),
            None if self.goes_on => Some(More::Perhaps(FIRST_BURST)),
            // It was the newest when it was sent, and may have been held up on its way.
            _ => self.offset.is_late(apart_s(tick, now_s)).then_some(More::Perhaps(BURST)),
        }
    }

    /// Takes in ticks that came at once, the newest last; with what is wrong with one that cannot be read. What is so old that
    /// whoever judges has gone on is left out; a judge that was taken up has not gone on.
    fn take(
        &mut self,
        host: &HostName,
        burst: Vec<v1::SignalTick>,
        now_s: u64,
    ) -> (Vec<Ticked>, Option<Problem>) {
        let Some(newest) = burst.last() else { return (Vec::new(), None) };
        let (ahead_s, last) = (self.offset.take(apart_s(newest, now_s)), newest.number);
        let all = std::mem::take(&mut self.goes_on);
        let (mut reports, mut unreadable) = (Vec::new(), None);
        for wire in burst {
            // One that cannot be read is not asked for again.
            (self.life, self.number) = (wire.life.clone(), wire.number);
            let tick = match convert::tick_from_wire(&wire) {
                Ok(tick) => tick,
                Err(problem) => {
                    unreadable = Some(problem.on(host));
                    continue;
                }
            };
            let second = i128::from(tick.at.0 / 1000).saturating_sub(ahead_s);
            let second = u64::try_from(second).unwrap_or(0);
            let problem = wire.problem.and_then(convert::problem_from_wire).map(|problem| problem.on(host));
            if all || second.saturating_add(OF_USE_S) >= now_s {
                let fresh = tick.number == last;
                let ahead_s = i64::try_from(ahead_s).unwrap_or(0);
                let mark = Mark { life: wire.life, number: tick.number, ahead_s };
                reports.push(Ticked { second, tick: Box::new(tick), problem, fresh, mark });
            }
        }
        (reports, unreadable)
    }
}

/// Whether more comes at once after a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum More {
    /// The agent has it already.
    Surely,
    /// It would come within so long.
    Perhaps(Duration),
}

impl More {
    /// How long it is waited for.
    fn within(self) -> Duration {
        match self {
            Self::Surely => SILENCE,
            Self::Perhaps(pause) => pause,
        }
    }
}

fn nothing_for(host: &HostName, time: Duration) -> Problem {
    broken(host).cause(format!("nothing for {} s", time.as_secs()))
}

fn broken(host: &HostName) -> Problem {
    Problem::new(Code::AgentUnreachable, format!("the stream of signals from `{host}` broke"))
        .retry_useful()
        .on(host)
        .hint(format!("on `{host}`: `systemctl status pointsman-lb-agent`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostName {
        name.parse().unwrap()
    }

    fn wire(number: u64, at_s: u64) -> v1::SignalTick {
        let life = "a".to_owned();
        v1::SignalTick { life, number, at_ms: at_s * 1000, span_ms: 1000, ..Default::default() }
    }

    #[test]
    fn what_was_counted_while_a_stream_was_broken_belongs_to_its_own_seconds() {
        let (lb1, mut read) = (host("lb1"), Read::default());
        let mut take = |burst: Vec<v1::SignalTick>, now_s| -> Vec<(u64, bool)> {
            let (reports, unreadable) = read.take(&lb1, burst, now_s);
            assert_eq!(unreadable, None);
            reports.iter().map(|report| (report.second, report.fresh)).collect()
        };
        // Its clock is 40 seconds ahead.
        assert_eq!(take(vec![wire(7, 1_040)], 1_000), [(1_000, true)]);
        let missed = (8..=11).map(|number| wire(number, 1_033 + number)).collect();
        assert_eq!(take(missed, 1_004), [(1_001, false), (1_002, false), (1_003, false), (1_004, true)]);
        // After a long time only the last minute is of use.
        let missed: Vec<_> = (12..=411).map(|number| wire(number, 1_033 + number)).collect();
        assert_eq!(take(missed, 1_404).first(), Some(&(1_344, false)));
        assert_eq!((read.life.as_str(), read.number), ("a", 411));
        let spoilt = v1::SignalTick { span_ms: 0, ..wire(413, 1_446) };
        let (reports, unreadable) = read.take(&lb1, vec![wire(412, 1_445), spoilt], 1_406);
        assert_eq!((reports.len(), unreadable.is_some()), (1, true));
        assert_eq!(read.number, 413, "it is not asked for again");
    }

    #[test]
    fn what_an_agent_has_is_waited_for_and_what_it_has_not_is_not() {
        let mark = Mark { life: "a".to_owned(), number: 7, ahead_s: 0 };
        let of = |number, newest| v1::SignalTick { newest, ..wire(number, number) };
        let (fresh, read) = (Read::default(), Read::from(&mark));
        assert_eq!(read.more_after(&of(8, Some(900)), 900), Some(More::Surely));
        assert_eq!(fresh.more_after(&of(8, Some(900)), 900), Some(More::Surely));
        assert_eq!(read.more_after(&of(900, Some(900)), 900), None);
        // It was held up on its way, or its clock was set.
        assert_eq!(read.more_after(&of(880, Some(880)), 900), Some(More::Perhaps(BURST)));
        assert_eq!(read.more_after(&of(900, None), 900), Some(More::Perhaps(FIRST_BURST)), "an old agent");
        assert_eq!(fresh.more_after(&of(900, None), 900), None);
    }

    #[test]
    fn what_another_coordinator_has_not_heard_is_all_of_use() {
        let mark = Mark { life: "a".to_owned(), number: 7, ahead_s: 40 };
        let mut read = Read::from(&mark);
        assert_eq!((read.life.as_str(), read.number), ("a", 7));
        let missed: Vec<_> = (8..=907).map(|number| wire(number, 1_033 + number)).collect();
        let (reports, _) = read.take(&host("lb1"), missed, 1_900);
        let seconds: Vec<u64> = reports.iter().map(|report| report.second).collect();
        assert_eq!(seconds, (1_001..=1_900).collect::<Vec<u64>>());
        assert_eq!(reports.last().unwrap().mark, Mark { number: 907, ..mark });
        // From then on it is a stream like any other.
        let (reports, _) = read.take(&host("lb1"), vec![wire(908, 1_941), wire(1_100, 2_133)], 2_093);
        assert_eq!(reports.len(), 1);
    }
}
