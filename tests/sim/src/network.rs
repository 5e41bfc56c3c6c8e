//! The network between coordinators and hosts: calls, answers, and everything that can become of them on the way.

use std::collections::BTreeMap;
use std::sync::Arc;

use pointsman_core::receipt::Fence;
use pointsman_core::{Action, Aftermath, Code, Epoch, Evidence, HostName, Order, OrderDigest, Problem};
use tokio::sync::oneshot;

use crate::world::{Happening, Life, World};

/// The number of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call(pub u64);

/// An order on its way, with the journal entry it follows from.
#[derive(Debug)]
pub struct Sent {
    /// The order.
    pub order: Order,
    /// The newest entry of the journal when it was sent.
    pub journal_seq: u64,
    /// That entry's hash.
    pub journal_hash: [u8; 32],
    /// What it says.
    pub digest: OrderDigest,
    /// It is to be done only by what was made ready for it.
    pub only_prepared: bool,
    /// Who sent it.
    pub from: Life,
    /// How often the journal had lost its tail by then.
    pub losses: u32,
}

/// What a coordinator says to an agent.
#[derive(Clone, Debug)]
pub enum Word {
    /// Acknowledge this epoch.
    Fence(Epoch),
    /// Say where your fence stands.
    Describe,
    /// Forget what you have heard of, under this epoch, and for this entry of the journal.
    Forget(Fence),
    /// Make ready for this.
    Prepare(Arc<Sent>),
    /// Do this.
    Order(Arc<Sent>),
    /// Look at this.
    Observe(Action),
}

/// A message on its way. A copy that the network made has nobody who waits for its answer.
#[derive(Clone, Debug)]
pub struct Message {
    /// The call to answer.
    pub call: Option<Call>,
    /// Who says it.
    pub from: Life,
    /// How many disks the host had lost by then.
    pub disks_lost: u32,
    /// What.
    pub word: Word,
}

/// What an agent answers.
#[derive(Clone, Debug)]
pub enum Told {
    /// Where its fence stands.
    Fenced(Fence),
    /// What it did or saw.
    Done(Evidence),
    /// Why not.
    Failed(Problem),
}

/// Calls that wait for an answer, each with the host it went to.
#[derive(Default)]
pub struct Calls {
    waiting: BTreeMap<Call, (usize, oneshot::Sender<Told>)>,
}

fn silence(host: &HostName) -> Told {
    let problem = Problem::new(Code::AgentUnreachable, "no answer");
    Told::Failed(problem.aftermath(Aftermath::Unknown).retry_useful().on(host))
}

impl World {
    /// How many disks a host has lost.
    pub fn disks_lost(&self, host: usize) -> u32 {
        self.hosts.get(host).map_or(0, |host| host.disks_lost)
    }

    /// How often the agent of a host lost its receipts.
    pub fn receipts_lost(&self, host: usize) -> u32 {
        self.hosts.get(host).map_or(0, |host| host.receipts_lost)
    }

    fn cut_off(&self, host: usize, to: bool) -> bool {
        self.partitions
            .values()
            .any(|(cut, cut_to, cut_from)| *cut == host && if to { *cut_to } else { *cut_from })
    }

    /// How long a message takes; `None` when it gets lost.
    fn journey_ms(&mut self, host: usize, to: bool) -> Option<u64> {
        let net = self.scenario.net;
        if self.cut_off(host, to) || self.chance.percent(net.loss) {
            return None;
        }
        let late = self.chance.percent(net.late);
        Some(if late { self.chance.between(200, 12_000) } else { self.chance.between(1, 12) })
    }

    /// Says something to a host. The answer, or after `timeout_ms` the lack of one, comes through the receiver.
    pub fn say(&mut self, from: Life, host: usize, word: Word, timeout_ms: u64) -> oneshot::Receiver<Told> {
        let (sender, receiver) = oneshot::channel();
        let call = Call(self.number());
        let disks_lost = self.disks_lost(host);
        self.calls.waiting.insert(call, (host, sender));
        self.later(timeout_ms, Happening::Answer { call, told: None });
        if let Some(ms) = self.journey_ms(host, true) {
            let message = Message { call: Some(call), from, disks_lost, word: word.clone() };
            self.later(ms, Happening::Arrive { host, message });
        }
        // A copy may arrive long after everybody has forgotten it.
        if self.chance.percent(self.scenario.net.twice) {
            let ms = self.chance.between(1, 40) * self.chance.between(1, 400);
            let message = Message { call: None, from, disks_lost, word };
            self.later(ms, Happening::Arrive { host, message });
        }
        receiver
    }

    /// Sends an answer back.
    pub fn answer(&mut self, host: usize, call: Option<Call>, told: Told) {
        self.reply(host, call, Some(told));
    }

    fn reply(&mut self, host: usize, call: Option<Call>, told: Option<Told>) {
        let Some(call) = call else { return };
        if let Some(ms) = self.journey_ms(host, false) {
            self.later(ms, Happening::Answer { call, told });
        }
    }

    /// An agent has died: whoever waits for its answer sees the connection end, unless nothing gets through.
    pub fn hang_up(&mut self, host: usize) {
        if self.cut_off(host, false) {
            return;
        }
        let waiting = self.calls.waiting.iter().filter(|(_, (to, _))| *to == host);
        let calls: Vec<Call> = waiting.map(|(call, _)| *call).collect();
        for call in calls {
            self.later(2, Happening::Answer { call, told: None });
        }
    }

    /// An answer, or the end of waiting, has come. Whichever is first counts. Most answers come in time, so silence is put
    /// into words only where it is heard.
    pub fn answered(&mut self, call: Call, told: Option<Told>) {
        if let Some((host, sender)) = self.calls.waiting.remove(&call) {
            let said = told.or_else(|| self.hosts.get(host).map(|named| silence(&named.name)));
            let Some(told) = said else { return };
            self.tell(|| {
                let what = match &told {
                    Told::Fenced(fence) => format!("fenced at {}", fence.epoch),
                    Told::Done(evidence) => format!("done{}", if evidence.already { " already" } else { "" }),
                    Told::Failed(problem) => format!("{} {problem}", problem.code),
                };
                format!("answer {} of host {host}: {what}", call.0)
            });
            // Whoever asked may be gone.
            let _ = sender.send(told);
        }
    }

    /// Refuses a message as a machine does that nothing listens on.
    pub fn refuse(&mut self, host: usize, call: Option<Call>) {
        self.reply(host, call, None);
    }
}
