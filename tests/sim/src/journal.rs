//! The journal of the simulated world: a disk that keeps what was committed, loses nothing else, and is sometimes full,
//! replaced by an older copy, or silent for a while.

use std::sync::Arc;

use pointsman_core::ports::JournalError;
use pointsman_core::receipt::Fence;
use pointsman_core::{
    Aftermath, Code, DatabasePlan, Entry, Epoch, Event, Plan, Problem, Purpose, ReleaseId, Stamped, Step,
    Timestamp,
};
use tokio::sync::oneshot;

use crate::guard::Guard;
use crate::scenario::Fault;
use crate::world::{Happening, Life, Who, World};

/// Entries that most histories have room in.
const USUAL: usize = 96;

/// How long a record is waited for, in milliseconds.
const ANSWERS_MS: u64 = 5_000;

/// Who waits for a record.
type Reply = oneshot::Sender<Result<Vec<Stamped>, JournalError>>;

/// What was sent to a disk that hangs: it counts when that answers.
struct Out {
    number: u64,
    writing: Writing,
    /// None where nobody waits for it any more.
    reply: Option<Reply>,
}

/// What is on the journal's disk.
pub struct Store {
    /// The entries.
    pub entries: Vec<Entry>,
    hashes: Vec<u64>,
    /// The epoch of the lease.
    pub lease: Epoch,
    /// The disk is full.
    pub full: bool,
    /// The disk hangs.
    pub hangs: bool,
    out: Option<Out>,
    /// How many records were sent to it while it hung.
    sent: u64,
    /// How often it lost its tail.
    pub losses: u32,
    /// How many of these losses a person has accepted.
    pub accepted: u32,
    /// What goes wrong, by the number of entries.
    faults: Vec<Fault>,
}

fn mixed(before: u64, seq: u64, at: Timestamp, kind: &str) -> u64 {
    let mut hash = before ^ seq.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ at.0;
    for byte in kind.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    }
    hash ^ (hash >> 29)
}

fn spread(hash: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (to, from) in bytes.iter_mut().zip(hash.to_be_bytes()) {
        *to = from;
    }
    bytes
}

impl Store {
    /// An empty journal, and what goes wrong while it fills.
    pub fn new(mut faults: Vec<Fault>) -> Self {
        faults.reverse();
        Self {
            entries: Vec::with_capacity(USUAL),
            hashes: Vec::with_capacity(USUAL),
            lease: Epoch::default(),
            full: false,
            hangs: false,
            out: None,
            sent: 0,
            losses: 0,
            accepted: 0,
            faults,
        }
    }

    /// The number of its newest entry.
    pub fn newest(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The hash of an entry, if it is there.
    pub fn hash(&self, seq: u64) -> Option<[u8; 32]> {
        let index = usize::try_from(seq.checked_sub(1)?).ok()?;
        self.hashes.get(index).copied().map(spread)
    }

    /// What a coordinator that begins has to read: everything since the last plan that says how the environment stood. A real one
    /// may read more; what it makes of that must be the same. Also whether it is everything.
    pub fn newest_entries(&self) -> (Vec<Entry>, bool) {
        let says = |entry: &Entry| matches!(&entry.fact.event, Event::Planned(plan) if plan.stood.is_some());
        let from = self.entries.iter().rposition(says).unwrap_or_default();
        (self.entries.get(from..).unwrap_or_default().to_vec(), from == 0)
    }

    /// How many releases were ever planned.
    pub fn planned(&self) -> usize {
        self.entries.iter().filter(|entry| matches!(entry.fact.event, Event::Planned(_))).count()
    }

    fn push(&mut self, release: &ReleaseId, fact: Stamped) {
        let seq = self.newest() + 1;
        let before = self.hashes.last().copied().unwrap_or(0);
        self.hashes.push(mixed(before, seq, fact.at, fact.event.kind()));
        self.entries.push(Entry { seq, release: release.clone(), fact });
    }

    /// Replaces the journal by what it was some entries ago, lease included.
    pub fn lose(&mut self, entries: u64) {
        let left = usize::try_from(self.newest().saturating_sub(entries)).unwrap_or(0);
        self.entries.truncate(left);
        self.hashes.truncate(left);
        // A copy holds the lease of its own time, under which its newest entries were written.
        self.lease = self.newest_taken().max(Epoch(self.lease.0.saturating_sub(1)));
        self.losses += 1;
    }

    /// Replaces the journal by the copy that a person accepted, as it was before, lease included; none if nobody ever did. It
    /// was started so many times meanwhile where no agent answered.
    pub fn put_back(&mut self, starts: u64) -> bool {
        let accepted = |entry: &Entry| matches!(entry.fact.event, Event::Adopted { .. });
        let Some(left) = self.entries.iter().position(accepted) else { return false };
        self.entries.truncate(left);
        self.hashes.truncate(left);
        self.lease = Epoch(self.newest_taken().max(Epoch(1)).0 + starts);
        self.losses += 1;
        true
    }

    /// The newest epoch that an open release was told of.
    fn newest_taken(&self) -> Epoch {
        let taken = |entry: &Entry| match entry.fact.event {
            Event::EpochTaken(epoch) => Some(epoch),
            _ => None,
        };
        self.entries.iter().rev().find_map(taken).unwrap_or_default()
    }

    /// What agents have heard of once they forget under this epoch.
    pub fn accepted_by(&self, epoch: Epoch) -> Fence {
        let head_seq = self.newest();
        Fence { epoch, head_seq, head_hash: self.hash(head_seq).unwrap_or_default() }
    }

    /// Whether this may fail for want of room: for everything else some is set aside. Whoever stopped for want of it takes no
    /// lease anew before there is some.
    fn waits_for_room(&self, writing: &Writing) -> bool {
        if matches!(writing.events.as_slice(), [Event::EpochTaken(_)]) {
            return true;
        }
        let planned = self.entries.iter().filter(|entry| entry.release == writing.release).find_map(
            |entry| match &entry.fact.event {
                Event::Planned(plan) => Some(plan),
                _ => None,
            },
        );
        writing.events.iter().all(|event| event.leads_on(planned.map(|plan| plan.as_ref())))
    }

    fn due_fault(&mut self) -> Option<Fault> {
        let due = self.faults.last().is_some_and(|fault| fault.after_entries <= self.newest());
        if due { self.faults.pop() } else { None }
    }
}

/// What waits to be written.
pub struct Writing {
    /// Who writes.
    pub life: Life,
    /// Under which lease.
    pub lease: Epoch,
    /// Of which release.
    pub release: ReleaseId,
    /// When, by the coordinator's clock.
    pub at: Timestamp,
    /// When it was sent to the disk, by the time of the world.
    pub sent_ms: u64,
    /// What.
    pub events: Vec<Event>,
}

/// The disk says nothing.
pub fn silent() -> Problem {
    Problem::new(Code::JournalSilent, "the disk does not answer").retry_useful()
}

impl World {
    /// A record meets a disk that hangs: it is sent there if none is out, and never otherwise.
    fn send_to_hanging(&mut self, writing: Writing, reply: Reply) {
        if self.store.out.is_some() {
            let _ = reply.send(Err(JournalError(silent())));
            return;
        }
        self.store.sent += 1;
        let number = self.store.sent;
        self.tell(|| format!("nothing comes back of a record of {}", writing.release));
        self.store.out = Some(Out { number, writing, reply: Some(reply) });
        self.later(ANSWERS_MS, Happening::JournalSilent(number));
    }

    /// Whoever waits for a record that was sent does so no longer.
    pub fn journal_silent(&mut self, number: u64) {
        let out = self.store.out.as_mut().filter(|out| out.number == number);
        if let Some(reply) = out.and_then(|out| out.reply.take()) {
            let _ = reply.send(Err(JournalError(silent().aftermath(Aftermath::Unknown))));
        }
    }

    /// The disk answers again, and what was sent to it is there.
    pub fn journal_answers(&mut self) {
        self.store.hangs = false;
        if let Some(Out { writing, reply, .. }) = self.store.out.take() {
            self.commit(writing, reply.unwrap_or_else(|| oneshot::channel().0));
        }
    }

    /// Facts reach the disk, or do not.
    pub fn commit(&mut self, writing: Writing, reply: Reply) {
        // Who died before this took the transaction along.
        if !self.lives(writing.life) || self.point(Who::Coordinator) {
            return;
        }
        if self.store.hangs {
            return self.send_to_hanging(writing, reply);
        }
        let refused = if self.store.full && self.store.waits_for_room(&writing) {
            Some(Problem::new(Code::JournalFull, "the disk is full").retry_useful())
        } else if writing.lease != self.store.lease && self.stands(Guard::LeaseOnWrite) {
            Some(Problem::new(Code::Fenced, "another coordinator has taken over"))
        } else {
            None
        };
        if let Some(problem) = refused {
            let _ = reply.send(Err(JournalError(problem)));
            return;
        }
        let at = writing.at;
        let mut facts = Vec::with_capacity(writing.events.len());
        for event in writing.events {
            let Some(event) = self.altered(event) else { continue };
            let fact = Stamped { at, event };
            if self.off != Some(Guard::IntentBeforeOrder)
                || !matches!(fact.event, Event::OrderIntended { .. })
            {
                self.seen(&fact.event);
                self.truth.late_ms = self.now - writing.sent_ms;
                self.recorded(writing.life, writing.lease, &writing.release, &fact.event);
                let number = self.store.newest() + 1;
                self.tell(|| format!("entry {number} of {}: {:?}", writing.release, Brief(&fact.event)));
                self.store.push(&writing.release, fact.clone());
            }
            facts.push(fact);
        }
        while let Some(fault) = self.store.due_fault() {
            self.troubles += 1;
            self.later(fault.delay_ms, Happening::Fault(fault.what));
        }
        if !self.point(Who::Coordinator) {
            let _ = reply.send(Ok(facts));
        }
    }

    fn seen(&mut self, event: &Event) {
        let phase = self.shown.as_ref().map_or("nothing", |phase| match phase {
            pointsman_core::Phase::Doing(step) => step.as_str(),
            pointsman_core::Phase::Watching { .. } => "watching",
            pointsman_core::Phase::Held { .. } => "held",
            pointsman_core::Phase::Finished(outcome) => outcome.as_str(),
        });
        let kind = event.kind();
        // Words are told apart by where they stand: there are few, and each stands in one place.
        let known =
            |((p, k), _): &&mut ((&str, &str), u64)| std::ptr::eq(*p, phase) && std::ptr::eq(*k, kind);
        match self.coverage.iter_mut().find(known) {
            Some((_, times)) => *times += 1,
            None => self.coverage.push(((phase, kind), 1)),
        }
    }

    /// What a coordinator without one of its guards would have recorded.
    fn altered(&self, event: Event) -> Option<Event> {
        match (self.off, event) {
            (Some(Guard::WatchGap), Event::WatchMoved { .. })
            | (Some(Guard::TurnBack), Event::TurnedBack(_)) => None,
            (Some(Guard::WayBackConfirmed), Event::OrderFailed { key, .. })
                if key.step == Step::RouteBack =>
            {
                Some(Event::OrderDone { key, evidence: pointsman_core::Evidence::default() })
            }
            (Some(Guard::UndecidedWaits), Event::Planned(plan)) => {
                let mut plan = Plan::clone(&plan);
                plan.verdict.max_watch_ms = None;
                Some(Event::Planned(Arc::new(plan)))
            }
            (Some(Guard::ExpandFirst), Event::Planned(plan))
                if matches!(plan.purpose, Purpose::Deploy { .. }) =>
            {
                let mut plan = Plan::clone(&plan);
                plan.database = None;
                Some(Event::Planned(Arc::new(plan)))
            }
            (Some(Guard::DatabaseLeftAlone), Event::Planned(plan))
                if matches!(plan.purpose, Purpose::Rollback { .. }) =>
            {
                let mut plan = Plan::clone(&plan);
                plan.database = self.environment.database.as_ref().map(|database| DatabasePlan {
                    host: database.host.clone(),
                    migrations: None,
                    verify: database.verify,
                    backup_ms: database.backup_ms,
                    migrate_ms: database.migrate_ms,
                    keeps_away: false,
                });
                Some(Event::Planned(Arc::new(plan)))
            }
            (Some(Guard::GateAge), Event::Planned(plan)) => {
                let mut plan = Plan::clone(&plan);
                plan.limits.gate_ttl_ms = u64::MAX;
                Some(Event::Planned(Arc::new(plan)))
            }
            (Some(Guard::OldSlotUntouched), Event::Planned(plan)) => {
                let mut plan = Plan::clone(&plan);
                let old = plan.from.iter().flat_map(|slot| slot.hosts.clone());
                if let Purpose::Deploy { .. } = plan.purpose {
                    plan.to.hosts.extend(old);
                }
                Some(Event::Planned(Arc::new(plan)))
            }
            (_, event) => Some(event),
        }
    }
}

/// An event without the plan in it.
struct Brief<'a>(&'a Event);

impl std::fmt::Debug for Brief<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Event::Planned(plan) => write!(f, "planned {:?} on {}", plan.purpose, plan.to.name),
            Event::OrderIntended { key, attempt } => {
                write!(f, "intended {} on {}, attempt {attempt}", key.step, key.host)
            }
            Event::OrderDone { key, .. } => write!(f, "done {} on {}", key.step, key.host),
            Event::OrderFailed { key, problem } => {
                write!(
                    f,
                    "failed {} on {}: {} {problem} {:?}",
                    key.step, key.host, problem.code, problem.aftermath
                )
            }
            Event::Fenced(host) => write!(f, "fenced {host}"),
            Event::TurnedBack(problem) => write!(f, "turned back: {} {problem}", problem.code),
            Event::Judged(judged) => write!(f, "judged {}: {}", judged.verdict, judged.told),
            Event::Held(problem) => write!(f, "held: {} {problem}", problem.code),
            other => write!(f, "{other:?}"),
        }
    }
}
