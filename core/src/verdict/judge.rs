//! The judge of one watch: takes a tick, says what it means, and can be put away and taken up again between any two.

use super::bytes::{Reader, Writer};
use super::judgement::{Finding, Judgement, Metric, Proven, Reason};
use super::ledger::{Ledger, Stretch};
use super::params::Params;
use super::tick::{Latency, Refused, Sample, Tick};

/// E-value from which something may be wrong: nothing is promoted meanwhile.
const SUSPICIOUS: f64 = 20.0;

/// Refused ticks in a row after which a person is needed: somebody counts wrongly, or has started to count over.
pub const BLIND_TICKS: u64 = 30;

/// Version of the bytes that a judge is put away in. The order of numbers must not change without it.
const VERSION: u64 = 3;

/// The version before: it did not know how requests come, which is learned again within a few ticks.
const WITHOUT_COMPANY: u64 = 2;

/// The state of a judge: numbers only.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct State {
    /// The newest tick that was counted or found bad.
    last: Option<u64>,
    /// Ticks from the first to the newest.
    elapsed: u64,
    watched: u64,
    refused: u64,
    refused_in_a_row: u64,
    errors: Ledger,
    slowness: Ledger,
}

/// Bytes that no judge can be taken up from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRestored {
    /// Another version wrote them, or they are no judge at all.
    #[error("state of the verdict has another version")]
    Version,
    /// The judge had other parameters: its evidence means something else.
    #[error("state of the verdict was made with other parameters")]
    OtherParams,
    /// Too short, too long, or not numbers that a judge can have.
    #[error("state of the verdict is damaged")]
    Damaged,
}

/// The judge of one watch. When a person lets a held watch go on, a new one begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judge {
    params: Params,
    state: State,
}

impl Judge {
    /// A judge who has seen nothing yet.
    pub fn new(params: Params) -> Self {
        Self { params, state: State::default() }
    }

    /// The newest tick that needs not be offered again.
    pub fn last_tick(&self) -> Option<u64> {
        self.state.last
    }

    /// Takes in a tick and says what is to happen. Numbers that are left out are ticks without data; a tick that cannot be
    /// right is one too.
    pub fn step(&mut self, tick: &Tick) -> Judgement {
        let admitted = tick.admit(self.state.last);
        match admitted {
            Ok(()) => {
                self.advance(tick.number, &tick.errors(), &tick.slowness());
                self.state.watched = self.state.watched.saturating_add(1);
                self.state.refused_in_a_row = 0;
                self.judgement(Some(tick.latency), None)
            }
            Err(refused) => {
                if refused == Refused::DoesNotAddUp {
                    self.advance(tick.number, &Sample::default(), &Sample::default());
                }
                self.state.refused = self.state.refused.saturating_add(1);
                self.state.refused_in_a_row = self.state.refused_in_a_row.saturating_add(1);
                self.judgement(None, Some(refused))
            }
        }
    }

    /// What is known, without a new tick: never a promotion.
    pub fn look(&self) -> Judgement {
        self.judgement(None, None)
    }

    fn advance(&mut self, number: u64, errors: &Sample, slowness: &Sample) {
        let Self { params, state } = self;
        let ticks = state.last.map_or(1, |last| number.saturating_sub(last));
        let to = state.elapsed.saturating_add(ticks);
        let stretch = Stretch { from: state.elapsed, to, blip: params.choices().blip };
        state.errors.step(&stretch, errors, &params.errors, &params.weights);
        state.slowness.step(&stretch, slowness, &params.slowness, &params.weights);
        state.elapsed = to;
        state.last = Some(number);
    }

    /// Judges what is known; `latency` is that of a tick that was just counted.
    fn judgement(&self, latency: Option<Latency>, refused: Option<Refused>) -> Judgement {
        let Self { params, state } = self;
        let at = state.elapsed.checked_div(params.choices().blip).unwrap_or(state.elapsed);
        let finding = |ledger: &Ledger, rule| {
            Finding::of(ledger, &ledger.values(at, rule, &params.weights), rule, params)
        };
        let errors = finding(&state.errors, &params.errors);
        let slowness = finding(&state.slowness, &params.slowness);
        let findings = Findings { params, errors: &errors, slowness: &slowness };
        let timely = latency.is_some()
            && state.watched >= params.choices().min_watch
            && state.elapsed <= params.choices().max_watch;
        Judgement {
            reason: self.reason(&findings, latency),
            proven: Proven {
                errors: timely && findings.proves(&errors),
                slowness: timely && latency == Some(Latency::Known) && findings.proves(&slowness),
            },
            tick: state.last,
            refused,
            refused_ticks: state.refused,
            elapsed: state.elapsed,
            watched: state.watched,
            min_watch: params.choices().min_watch,
            rollback_at: params.rollback_at(),
            promote_at: params.promote_at(),
            errors,
            slowness,
        }
    }

    /// The first of these that holds.
    fn reason(&self, findings: &Findings<'_>, latency: Option<Latency>) -> Reason {
        let rollback_at = self.params.rollback_at();
        if let Some(metric) = findings.first(|finding| finding.worse_than_old >= rollback_at) {
            return Reason::WorseThanOld(metric);
        }
        let over = |finding: &Finding| findings.over(finding, rollback_at);
        if let Some(metric) = findings.first(|finding| over(finding) && !finding.both_sick) {
            return Reason::OverLimit(metric);
        }
        if let Some(metric) = findings.first(over) {
            return Reason::BothSick(metric);
        }
        if self.state.refused_in_a_row >= BLIND_TICKS {
            return Reason::Blind;
        }
        let max_watch = self.params.choices().max_watch;
        match self.open(findings, latency) {
            None if self.state.elapsed <= max_watch => Reason::Proven,
            Some(reason) if self.state.elapsed < max_watch => reason,
            _ => Reason::OutOfTime,
        }
    }

    /// What stands against a promotion.
    fn open(&self, findings: &Findings<'_>, latency: Option<Latency>) -> Option<Reason> {
        let Some(latency) = latency else { return Some(Reason::NoFreshData) };
        if self.state.watched < self.params.choices().min_watch {
            return Some(Reason::TooEarly);
        }
        if let Some(metric) = findings.first(|finding| findings.suspects(finding)) {
            return Some(Reason::Suspicious(metric));
        }
        if latency == Latency::Unknown {
            return Some(Reason::LatencyUnknown);
        }
        findings.first(|finding| !findings.proves(finding)).map(Reason::Unproven)
    }

    /// Everything the judge knows, to be stored with each tick, so that whoever takes it up goes on bit for bit.
    pub fn to_bytes(&self) -> Vec<u8> {
        let State { last, elapsed, watched, refused, refused_in_a_row, errors, slowness } = &self.state;
        let mut writer = Writer::default();
        writer.integer(VERSION);
        writer.reals(self.params.fingerprint());
        writer.integer(u64::from(last.is_some()));
        for number in [last.unwrap_or_default(), *elapsed, *watched, *refused, *refused_in_a_row] {
            writer.integer(number);
        }
        errors.write(&mut writer);
        slowness.write(&mut writer);
        writer.into_bytes()
    }

    /// Takes up a judge with the parameters it had.
    pub fn from_bytes(params: Params, bytes: &[u8]) -> Result<Self, NotRestored> {
        let mut reader = Reader::of(bytes);
        let version = reader.integer().ok_or(NotRestored::Damaged)?;
        if ![VERSION, WITHOUT_COMPANY].contains(&version) {
            return Err(NotRestored::Version);
        }
        let fingerprint = reader.reals().ok_or(NotRestored::Damaged)?;
        if fingerprint.map(f64::to_bits) != params.fingerprint().map(f64::to_bits) {
            return Err(NotRestored::OtherParams);
        }
        let state = State::read(&mut reader, version == VERSION)
            .filter(|_| reader.done())
            .ok_or(NotRestored::Damaged)?;
        Ok(Self { params, state })
    }
}

/// Both metrics, errors first.
struct Findings<'a> {
    params: &'a Params,
    errors: &'a Finding,
    slowness: &'a Finding,
}

impl Findings<'_> {
    fn first(&self, holds: impl Fn(&Finding) -> bool) -> Option<Metric> {
        let slowness = || holds(self.slowness).then_some(Metric::Slowness);
        if holds(self.errors) { Some(Metric::Errors) } else { slowness() }
    }

    fn suspects(&self, finding: &Finding) -> bool {
        self.over(finding, SUSPICIOUS) || finding.worse_than_old >= SUSPICIOUS
    }

    /// Whether all that is known of a metric proves it good, and nothing speaks against it.
    fn proves(&self, finding: &Finding) -> bool {
        let enough = self.params.promote_at();
        let within = !self.params.limits_count() || finding.within_limit >= enough;
        within && finding.not_worse >= enough && !self.suspects(finding)
    }

    /// Whether evidence against the limit has reached a bar, where limits count.
    fn over(&self, finding: &Finding, bar: f64) -> bool {
        self.params.limits_count() && finding.over_limit >= bar
    }
}

impl State {
    fn read(reader: &mut Reader<'_>, with_company: bool) -> Option<Self> {
        let known = match reader.integer()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let last = Some(reader.integer()?).filter(|_| known);
        let (elapsed, watched) = (reader.integer()?, reader.integer()?);
        let (refused, refused_in_a_row) = (reader.integer()?, reader.integer()?);
        let (errors, slowness) = (Ledger::read(reader, with_company)?, Ledger::read(reader, with_company)?);
        Some(Self { last, elapsed, watched, refused, refused_in_a_row, errors, slowness })
    }
}
