//! What visitors meet on the new slot from when they are first led there until nobody is any more, added up for the release's
//! checklist and its last words: who was hurt after the verdict, too. It decides nothing, and no release waits for it.

use std::sync::Arc;
use std::time::Duration;

use pointsman_core::histogram::Histogram;
use pointsman_core::signal::is_judged;
use pointsman_core::{Note, Outcome, Plan, Purpose, ReleaseId, State, Timestamp, TrafficSeen};
use pointsman_proto::{convert, v1};
use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tracing::warn;

use crate::checklist::P99_LIMIT_MS;
use crate::office::Office;
use crate::visitors::traffic::{Ticks, Watchers};

/// How often what was met is noted: so much of it a coordinator that is killed forgets.
const NOTE_EVERY: Duration = Duration::from_secs(60);
/// The same where visitors fared badly: who was hurt is what people ask for.
const NOTE_HURT_EVERY: Duration = Duration::from_secs(2);
/// So many notes of a release may come so fast: one that always fails a little would fill the journal with them.
const MOST_HURT_NOTES: u32 = 60;

/// How often it is looked whether visitors are led to a release, or are not any more, where nothing else tells.
const LOOK: Duration = Duration::from_millis(500);

/// A second in which somebody may have been led to the slot ends so long after the moment from which nobody was: what load
/// balancers call a second is told to the second.
const TOLD_LATER_MS: u64 = 1_000;

/// How long after the end of a release that went back the last seconds of its visitors are waited for: that one ends after a
/// second, and a load balancer that is late is waited for 1.5 s more.
pub const LAST_WORD: Duration = Duration::from_secs(5);

/// Bears witness of every release of an environment that visitors are led to, for ever.
pub async fn witness(office: Arc<Office>) {
    let watchers = Watchers::default();
    // Visitors of a release that a coordinator finds there when it begins were not all counted.
    let mut begins = true;
    loop {
        let begun_before = std::mem::take(&mut begins);
        let Some(plan) = led_to(&office) else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        office.note_counted(Some(plan.release.clone()));
        meet(&office, &watchers, &plan, Met::begin(begun_before)).await;
        office.note_met(None);
        office.note_counted(None);
    }
}

/// Where visitors of a release are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Led {
    /// Some of them, or all, are led to its slot, or may be: also on the way back, and between two splits.
    There,
    /// It went back: nobody is led there since then.
    Away(Timestamp),
    /// It is over in another way, or nobody was ever led there.
    Over,
}

impl Led {
    fn of(state: &State) -> Self {
        let moved = state.visitors_moved() && matches!(state.plan.purpose, Purpose::Deploy { .. });
        match state.outcome() {
            None if moved => Self::There,
            Some(Outcome::RolledBack) if moved => Self::Away(state.entered_at),
            _ => Self::Over,
        }
    }
}

/// The open release, where visitors are led to its slot.
fn led_to(office: &Office) -> Option<Arc<Plan>> {
    let kept = office.running()?;
    (Led::of(&kept.state) == Led::There).then_some(kept.state.plan)
}

/// Notes what has been met, and begins anew. Nothing is noted of nothing, but that it was heard to the end: the checklist says that
/// there is no data. What is not noted goes with what is met next.
async fn note(office: &Office, release: &ReleaseId, met: &mut Met) {
    if met.seen.seconds == 0 && !met.seen.to_the_end {
        return;
    }
    // Nobody is to find it twice: rather not for a moment.
    office.note_met(None);
    match office.note(release, Note::Traffic(met.clone().seen())).await {
        Ok(()) => *met = Met::default(),
        Err(problem) => {
            warn!(%release, problem = %problem.in_full(), "what visitors met is not noted");
        }
    }
}

/// Adds up until nobody is led there any more, and that was heard.
async fn meet(office: &Arc<Office>, watchers: &Watchers, plan: &Plan, mut met: Met) {
    let mut heard_to = None;
    let mut pace = Pace { noted_at: Instant::now(), hurt_notes: 0 };
    let mut last_word_by = None;
    let mut ticks = None;
    // The end is seen at once: whoever asks for the checklist right after it is to find this in it.
    let mut moves = office.moves();
    loop {
        let kept = office.recent(&plan.release);
        match kept.map_or(Led::Over, |kept| Led::of(&kept.state)) {
            Led::There => {}
            // The last of them end their requests now, and are told of a moment later.
            Led::Away(since) => {
                if last_word_by.is_none() {
                    note(office, &plan.release, &mut met).await;
                    last_word_by = Some(Instant::now() + LAST_WORD);
                }
                met.seen.to_the_end = heard_to.is_some_and(|to| to >= since.plus_ms(TOLD_LATER_MS));
                let nothing_comes = heard_to.is_none() || last_word_by.is_some_and(|by| by <= Instant::now());
                if met.seen.to_the_end || nothing_comes {
                    break;
                }
            }
            Led::Over => break,
        }
        tokio::select! {
            tick = next(&mut ticks, watchers, office) => {
                met.add(&tick, plan);
                office.note_met(Some((plan.release.clone(), met.clone().seen())));
                // A second of which no load balancer told was not heard.
                if !tick.balancers.is_empty() {
                    heard_to = Some(Timestamp(tick.at_ms));
                }
            }
            Ok(()) = moves.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
        // The last word says that it is the last.
        if last_word_by.is_none() && pace.is_due(met.is_hurt(), Instant::now()) {
            note(office, &plan.release, &mut met).await;
        }
    }
    note(office, &plan.release, &mut met).await;
}

/// When what was met is noted.
struct Pace {
    noted_at: Instant,
    hurt_notes: u32,
}

impl Pace {
    /// Whether it is to be noted now, because the time is over or somebody fared badly. It is taken to be.
    fn is_due(&mut self, is_hurt: bool, now: Instant) -> bool {
        let is_fast = is_hurt && self.hurt_notes < MOST_HURT_NOTES;
        let every = if is_fast { NOTE_HURT_EVERY } else { NOTE_EVERY };
        let is_due = now.duration_since(self.noted_at) >= every;
        if is_due {
            self.noted_at = now;
            self.hurt_notes = self.hurt_notes.saturating_add(u32::from(is_fast));
        }
        is_due
    }
}

/// The next second. Where there are no signals it is looked for them again and again.
async fn next(ticks: &mut Option<Ticks>, watchers: &Watchers, office: &Arc<Office>) -> v1::TrafficTick {
    loop {
        if let Some(open) = ticks {
            if let Some(Ok(tick)) = open.next().await {
                return tick;
            }
            *ticks = None;
            tokio::time::sleep(LOOK).await;
        }
        match watchers.watch(Arc::clone(office)) {
            Ok(open) => *ticks = Some(open),
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// What has been met so far.
#[derive(Clone, Default)]
struct Met {
    seen: TrafficSeen,
    latency: Histogram,
    too_slow: u64,
    /// Seconds in which HAProxy's counters say nothing either.
    blind: u64,
    /// Requests to the slot, whoever made them, by HAProxy's counters and by access lines.
    counted: Ended,
    told: Ended,
}

impl Met {
    /// Begins. Where visitors were led there before, what they met until now is not whole.
    fn begin(begun_before: bool) -> Self {
        let seen = TrafficSeen { incomplete: u64::from(begun_before), ..TrafficSeen::default() };
        Self { seen, blind: u64::from(begun_before), ..Self::default() }
    }

    /// Whether somebody fared badly.
    fn is_hurt(&self) -> bool {
        self.seen.failures > 0 || self.too_slow > 0
    }

    fn add(&mut self, tick: &v1::TrafficTick, plan: &Plan) {
        if tick.balancers.is_empty() {
            return;
        }
        self.seen.seconds = self.seen.seconds.saturating_add(1);
        self.seen.incomplete = self.seen.incomplete.saturating_add(u64::from(!tick.latency_usable));
        self.blind = self.blind.saturating_add(u64::from(is_blind(tick)));
        let slots = tick.slots.iter().filter(|found| found.slot == plan.to.name.as_str());
        for slot in slots.clone() {
            self.counted.add(Ended::by_counters(slot));
            self.told.add(Ended::by_lines(slot));
        }
        let cells = slots.flat_map(|slot| &slot.cells).filter(|cell| cell.release == plan.release.as_str());
        let limit_ms = plan.verdict.p99_ms;
        for cell in cells.filter_map(|cell| cell.cell.as_ref()) {
            let Ok((key, cell)) = convert::cell_from_wire(cell) else { continue };
            // Agents of before probes were counted apart have them here.
            if !is_judged(&key.class) {
                continue;
            }
            // A request that its visitor broke off says nothing of the release.
            self.seen.requests = self.seen.requests.saturating_add(cell.judged());
            self.seen.failures = self.seen.failures.saturating_add(cell.failed_by_servers());
            let late = cell.latency.above(limit_ms).saturating_add(cell.given_up(limit_ms));
            self.too_slow = self.too_slow.saturating_add(late);
            self.latency.merge(&cell.latency);
        }
    }

    fn seen(mut self) -> TrafficSeen {
        // Rounded up: a limit that is just missed is missed.
        self.seen.p99_ms = self.latency.quantile_ms(990).map(|ms| ms.ceil() as u64);
        self.seen.timed = Some(self.latency.total());
        self.seen.slow = Some(self.latency.above(P99_LIMIT_MS - 1));
        self.seen.too_slow = Some(self.too_slow);
        self.seen.blind = Some(self.blind);
        let lost = self.counted.requests.saturating_sub(self.told.requests);
        self.seen.lost = Some(lost);
        self.seen.lost_failures = Some(self.counted.failures.saturating_sub(self.told.failures).min(lost));
        self.seen
    }
}

/// Whether a second hides requests from access lines and from HAProxy's counters alike. Where it is not known how complete the lines are
/// the counters of several load balancers may be those of some of them.
fn is_blind(tick: &v1::TrafficTick) -> bool {
    let grew = tick.slots.iter().filter_map(|slot| slot.counters.as_ref()).any(|grown| grown.requests > 0);
    let read = tick.coverage.is_some() || (tick.balancers.len() == 1 && grew);
    !(tick.missing.is_empty() && read)
}

/// Requests to a slot that ended.
#[derive(Clone, Copy, Default)]
struct Ended {
    requests: u64,
    failures: u64,
}

impl Ended {
    /// By HAProxy's counters. A failure is in one of two of them at least: an answer that the server broke off is no 5xx.
    fn by_counters(slot: &v1::SlotTraffic) -> Self {
        let grown = slot.counters.clone().unwrap_or_default();
        Self { requests: grown.requests, failures: grown.responses_5xx.saturating_add(grown.response_errors) }
    }

    /// By access lines, those of checks too.
    fn by_lines(slot: &v1::SlotTraffic) -> Self {
        let probes = slot.probes.clone().unwrap_or_default();
        let mut told = Self { requests: probes.requests, failures: probes.failures };
        for cell in slot.cells.iter().filter_map(|cell| cell.cell.as_ref()) {
            told.add(Self {
                requests: cell.requests.saturating_add(cell.not_forwarded),
                failures: cell.failures,
            });
        }
        told
    }

    fn add(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.failures = self.failures.saturating_add(other.failures);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_core::signal::{Cell, CellKey, FAILED_BEFORE, OWN_CHECKS};
    use pointsman_core::{Epoch, OrderKey, Phase, Progress, RouteEpoch, Step};

    use crate::fixture;

    fn plan() -> Plan {
        fixture::plan(&fixture::environment(&["lb1"], ""), "r1")
    }

    #[test]
    fn visitors_count_from_the_first_who_is_led_there_until_nobody_is() {
        let mut state = State::begin(plan(), Epoch(1), Timestamp(1_000));
        assert_eq!(Led::of(&state), Led::Over);
        let key = OrderKey { step: Step::Canary(1), host: "lb1".parse().unwrap() };
        state.orders.insert(key, Progress { open: true, ..Progress::default() });
        // Watched or not, held, and on the way back.
        for phase in [
            Phase::Doing(Step::Canary(1)),
            Phase::Watching { after: Step::Canary(1), until: Timestamp(9_000) },
            Phase::Doing(Step::Switch),
            Phase::Doing(Step::RouteBack),
        ] {
            state.phase = phase;
            assert_eq!(Led::of(&state), Led::There, "{:?}", state.phase);
        }
        state.entered_at = Timestamp(7_000);
        state.phase = Phase::Finished(Outcome::RolledBack);
        assert_eq!(Led::of(&state), Led::Away(Timestamp(7_000)));
        state.phase = Phase::Finished(Outcome::Confirmed);
        assert_eq!(Led::of(&state), Led::Over);
    }

    #[test]
    fn who_was_hurt_is_noted_at_once_and_not_for_ever() {
        let begun = Instant::now();
        let mut pace = Pace { noted_at: begun, hurt_notes: 0 };
        let notes = |pace: &mut Pace, hurt: bool, seconds: std::ops::Range<u64>| {
            seconds.filter(|second| pace.is_due(hurt, begun + Duration::from_secs(*second))).count()
        };
        assert_eq!(notes(&mut pace, false, 0..121), 2);
        assert_eq!(notes(&mut pace, true, 121..131), 5);
        assert_eq!(notes(&mut pace, true, 131..3_731), 55 + 58);
        // What a coordinator found under way when it began says "at least".
        assert_eq!((Met::begin(true).seen().incomplete, Met::begin(false).seen().incomplete), (1, 0));
    }

    #[test]
    fn what_the_counters_know_and_no_line_told_of_is_lost() {
        let tick = |counted, told, coverage, balancers: &[&str]| {
            // One failure that is in two counters, and one that is in one of them, of which a line told.
            let counters = Some(v1::SignalGrowth {
                requests: counted,
                responses_5xx: 1,
                response_errors: 2,
                ..Default::default()
            });
            let cell = v1::SignalCell { requests: told, failures: 1, ..Default::default() };
            let cells = vec![v1::TrafficCell { cell: Some(cell), ..Default::default() }];
            v1::TrafficTick {
                slots: vec![v1::SlotTraffic {
                    slot: "green".to_owned(),
                    counters,
                    cells,
                    ..Default::default()
                }],
                balancers: balancers.iter().map(|host| (*host).to_owned()).collect(),
                coverage,
                ..Default::default()
            }
        };
        let met = |ticks: &[v1::TrafficTick]| {
            let mut met = Met::default();
            ticks.iter().for_each(|tick| met.add(tick, &plan()));
            let TrafficSeen { seconds, incomplete, blind, lost, lost_failures, .. } = met.seen();
            (seconds, incomplete, blind, lost.zip(lost_failures))
        };
        let known = || Some(v1::SignalCoverage { seen: 9, expected: 10 });
        // A line that comes in the next second is none that is lost.
        assert_eq!(
            met(&[tick(90, 80, known(), &["lb1"]), tick(100, 107, known(), &["lb1"])]),
            (2, 2, Some(0), Some((3, 3)))
        );
        assert_eq!(met(&[tick(90, 70, known(), &["lb1"])]), (1, 1, Some(0), Some((20, 2))));
        // After a reload nobody says how complete the lines are, and the counters of the only one go on.
        assert_eq!(met(&[tick(100, 98, None, &["lb1"])]), (1, 1, Some(0), Some((2, 2))));
        assert_eq!(met(&[tick(0, 98, None, &["lb1"])]), (1, 1, Some(1), Some((0, 0))));
        assert_eq!(met(&[tick(100, 98, None, &["lb1", "lb2"])]), (1, 1, Some(1), Some((2, 2))));
        let one_missing =
            v1::TrafficTick { missing: vec![v1::Problem::default()], ..tick(9, 9, known(), &["lb1"]) };
        assert_eq!(met(&[one_missing]), (1, 1, Some(1), Some((0, 0))));
    }

    #[test]
    fn only_visitors_of_the_release_are_met() {
        let mut cell = Cell { requests: 11, failures: 1, client_aborts: 1, ..Cell::default() };
        [80, 80, 2_500].into_iter().for_each(|ms| cell.latency.record(ms));
        cell.abandoned.record(5_000);
        let told = |release: &str, class: &str| {
            let class = class.parse().unwrap();
            let key = CellKey { backend: "be_green".parse().unwrap(), epoch: RouteEpoch(9), class };
            v1::TrafficCell { release: release.to_owned(), cell: Some(convert::cell_to_wire(&key, &cell)) }
        };
        let slot = |slot: &str, cells| v1::SlotTraffic { slot: slot.to_owned(), cells, ..Default::default() };
        let tick = v1::TrafficTick {
            at_ms: 5_000,
            balancers: vec!["lb1".to_owned()],
            slots: vec![
                slot(
                    "green",
                    vec![
                        told("r1", "other"),
                        told("r1", OWN_CHECKS),
                        told("r1", FAILED_BEFORE),
                        told("r0", "other"),
                    ],
                ),
                slot("blue", vec![told("r1", "other")]),
            ],
            latency_usable: true,
            ..Default::default()
        };
        let mut met = Met::default();
        met.add(&tick, &plan());
        // A second of which no load balancer tells is none.
        met.add(&v1::TrafficTick::default(), &plan());
        let TrafficSeen {
            seconds, incomplete, requests, failures, timed, slow, too_slow, blind, lost, ..
        } = met.seen();
        assert_eq!((blind, lost), (Some(1), Some(0)));
        assert_eq!((seconds, incomplete, requests, failures), (1, 0, 10, 1));
        assert_eq!((timed, slow, too_slow), (Some(3), Some(1), Some(2)));
    }
}
