//! What an agent remembers of orders, and what that memory says of the next one. Pure: the agent's ledger keeps it on
//! disk, the simulated one in the simulated world.

use crate::{Code, Epoch, Evidence, Order, OrderDigest, Problem, Timestamp};

/// How far the clocks of coordinator and agent may be apart, in milliseconds. A deadline is refused only when it is
/// past by more, so that a small difference does not stop a release.
const CLOCK_SKEW_MS: u64 = 30_000;

/// Where an agent's fence stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fence {
    /// The highest epoch acknowledged.
    pub epoch: Epoch,
    /// The newest journal entry heard of.
    pub head_seq: u64,
    /// That entry's hash.
    pub head_hash: [u8; 32],
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It never arrived, or left the world unchanged.
    NeverSeen,
    /// It was begun, and its end is not recorded.
    Started,
    /// The agent's records begin later than the order: it cannot know.
    Unknown,
    /// It was done.
    Done(Evidence),
}

/// An order as far as its admission goes.
#[derive(Clone, Copy, Debug)]
pub struct Incoming {
    /// The fencing token it carries.
    pub epoch: Epoch,
    /// The journal entry it follows from, or a later one.
    pub journal_seq: u64,
    /// What it says.
    pub digest: OrderDigest,
}

/// What is to be done with an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is new, or an earlier try of it did not end: act.
    Act,
    /// It was done: this is its answer.
    Done(Evidence),
}

/// Refuses an order that comes too late to begin, by the clock of the agent it comes to: it was delayed on its way, or the
/// clocks are apart. One that leads back is not refused for either.
pub fn in_time(order: &Order, now: Timestamp) -> Result<(), Problem> {
    let late_ms = now.ms_since(order.deadline);
    if order.leads_back || late_ms <= CLOCK_SKEW_MS {
        return Ok(());
    }
    let message = format!("the order's deadline passed {late_ms} ms ago by this host's clock");
    Err(Problem::new(Code::DeadlinePassed, message)
        .hint("compare the clocks of this host and the coordinator: `timedatectl`"))
}

/// Refuses an epoch that is older than one acknowledged.
pub fn still_rules(have: Epoch, got: Epoch) -> Result<(), Problem> {
    if have <= got {
        return Ok(());
    }
    Err(Problem::new(Code::Fenced, format!("order of epoch {got} refused: epoch {have} rules here"))
        .hint("another coordinator has taken over: stop this one; or its journal is an old copy: `pointsman audit verify ENV`"))
}

/// Refuses an epoch that was acknowledged to another coordinator: two of them run on copies of one journal, and each took the
/// same number. Who does not say who they are, as older coordinators do not, is not told apart.
pub fn same_holder(epoch: Epoch, have: &[u8], got: &[u8]) -> Result<(), Problem> {
    if have.is_empty() || got.is_empty() || have == got {
        return Ok(());
    }
    Err(Problem::new(Code::Fenced, format!("epoch {epoch} is another coordinator's here"))
        .hint("two coordinators run on copies of one journal: stop the wrong one, restart the right one; or its journal is an old copy: `pointsman audit verify ENV`"))
}

/// Refuses to act on a journal that does not hold the entry an agent has acted on: its tail was lost, or it is a copy.
/// `known` is the hash of that entry in the journal, if it has one of that number.
pub fn journal_holds(fence: &Fence, known: Option<[u8; 32]>) -> Result<(), Problem> {
    if fence.head_seq == 0 || known == Some(fence.head_hash) {
        return Ok(());
    }
    let what = if known.is_some() { "differs in" } else { "does not have" };
    let message =
        format!("the agent has acted on journal entry {}, which this journal {what}", fence.head_seq);
    Err(Problem::new(Code::JournalBehind, message)
        .hint("this journal is a copy of an older one: look, and bring the newest back: `pointsman explain PM0718`; if that is gone for good: `pointsman audit accept ENV --confirm ENV`"))
}

/// Refuses to take an epoch in the name of a journal that an agent knows more than: an entry that it lacks, or, where the
/// agent remembers no entry, an epoch that was never taken in its name. `lease` is the newest epoch that was; `known` is as in
/// [`journal_holds`].
///
/// An agent whose newest entry is in the journal has acted on none beyond it, whoever took epochs on a copy meanwhile: the
/// next epoch is then a matter of turns. One that remembers none vouches for no journal. Every start of an old copy would
/// come one epoch closer to the one that such an agent knows, and pass it in the end.
pub fn journal_leads(fence: &Fence, lease: Epoch, known: Option<[u8; 32]>) -> Result<(), Problem> {
    journal_holds(fence, known)?;
    if fence.head_seq > 0 || fence.epoch <= lease {
        return Ok(());
    }
    let message = format!("epoch {} rules here, and this journal knows none beyond {lease}", fence.epoch);
    Err(Problem::new(Code::Fenced, message)
        .hint("another coordinator has taken over: stop this one; or its journal is an old copy: bring the newest back; if that is gone for good: `pointsman audit accept ENV --confirm ENV`"))
}

/// Decides on an order from the fence and from the receipt under its key, if there is one.
pub fn admit(
    fence: &Fence,
    receipt: Option<(OrderDigest, Fate)>,
    order: &Incoming,
) -> Result<Admission, Problem> {
    still_rules(fence.epoch, order.epoch)?;
    match receipt {
        Some((known, _)) if known != order.digest => {
            Err(Problem::new(Code::KeyReused, "the step was ordered before with another content"))
        }
        Some((_, Fate::Done(evidence))) => Ok(Admission::Done(evidence)),
        Some((_, Fate::Started)) if order.journal_seq >= fence.head_seq => Ok(Admission::Act),
        // Every order follows from an intent of its own. One whose entry is not newer than the newest heard of was
        // delayed on its way, or is a second copy of one that failed: what it says may be over.
        _ if order.journal_seq <= fence.head_seq => {
            let (got, have) = (order.journal_seq, fence.head_seq);
            let message = format!("order of journal entry {got} refused: entry {have} was heard of");
            Err(Problem::new(Code::Superseded, message))
        }
        _ => Ok(Admission::Act),
    }
}
