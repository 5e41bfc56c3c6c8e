//! What happens in one history: the site, what is wished for, and everything that goes wrong. All of it follows from the
//! seed, and all of it is data, so that a failing history can be shortened.

use pointsman_core::RequestKind;

use crate::chance::Chance;

/// How good a version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// It works.
    Good,
    /// It fails the checks before the switch.
    FailsChecks,
    /// It works until visitors use it.
    FailsLater,
    /// It passes every check, and fails one visitor in five.
    FailsVisitors,
}

/// How the files of migrations are that a version brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// They work.
    Good,
    /// They fail on a copy.
    Unfit,
    /// They work on a copy, and the live database is never free for them.
    FailsLive,
}

/// What visitors' signals decide at the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdicts {
    /// Nothing.
    Off,
    /// They turn a release back; a watch ends after its time.
    Fixed,
    /// The same, and a proof ends a watch early.
    Early,
    /// A watch ends only with a proof.
    Decided,
}

impl Verdicts {
    /// Whether a watch ends only with a proof.
    pub fn must_decide(self) -> bool {
        self == Self::Decided
    }
}

/// What people wish for, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Release a version.
    Deploy(Quality),
    /// Go back to what was live before.
    Rollback,
    /// Put the maintenance page up.
    PageUp,
    /// Take it down.
    PageDown,
    /// Release a version that brings migrations.
    Migrating(Quality, Files),
    /// Apply the contract files of all migrations so far.
    Contract,
    /// Take a backup.
    Backup,
    /// Check a backup again.
    Verify,
    /// Restore a backup beside the live database.
    Restore,
    /// Put what was restored in the live one's place.
    Swap {
        /// Rows that are given up beyond those that would be lost when it is asked for.
        more: u64,
    },
    /// Put what was live before in its place again.
    SwapBack {
        /// The same.
        more: u64,
    },
    /// Drop the database of the restore that is not live.
    Settle,
}

/// What a person does about a journal whose end is gone for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accepts {
    /// Nothing: it stays as it is.
    #[default]
    Never,
    /// They accept it, and again where that led to nothing.
    Until,
    /// The same, and the coordinator is killed the first time, so many milliseconds after it began.
    Killed {
        /// Milliseconds.
        after_ms: u64,
    },
    /// They accept it, and so many milliseconds after that somebody puts the copy that was accepted in its place once more, as
    /// it was before. A person accepts that, too, after it was started some times.
    Copied {
        /// Milliseconds.
        after_ms: u64,
        /// How often it is started.
        starts: u64,
        /// Whom it meets then.
        met: Met,
    },
}

/// Whom an older copy of the journal meets while it is started again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// Nobody: no agent answers, as on a machine that it is tried on. Each start takes an epoch.
    Nobody,
    /// Agents of an older version, which keep nothing of the journal that they forget for.
    AgentsOfBefore,
}

/// One thing that goes wrong. Hosts are numbers, counted round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The coordinator is killed, and started again.
    KillCoordinator {
        /// Milliseconds until it is back.
        back_ms: u64,
    },
    /// The coordinator stands still, and goes on as if nothing had been.
    StallCoordinator {
        /// Milliseconds it lasts.
        for_ms: u64,
    },
    /// A second coordinator takes over while the first one lives.
    TakeOver,
    /// An agent is killed, and started again.
    KillAgent {
        /// Which host.
        host: u64,
        /// Milliseconds until it is back.
        back_ms: u64,
    },
    /// An agent stands still, and goes on.
    FreezeAgent {
        /// Which host.
        host: u64,
        /// Milliseconds it lasts.
        for_ms: u64,
    },
    /// Nothing gets through, to a host, from it, or both.
    Partition {
        /// Which host.
        host: u64,
        /// Nothing gets to it.
        to: bool,
        /// Nothing gets away from it.
        from: bool,
        /// Milliseconds it lasts.
        for_ms: u64,
    },
    /// HAProxy is reloaded.
    Reload {
        /// Which load balancer.
        balancer: u64,
        /// Milliseconds that its new worker takes longer to start than most do.
        slow_ms: u64,
    },
    /// HAProxy is killed, and started again.
    KillHaproxy {
        /// Which load balancer.
        balancer: u64,
        /// Milliseconds until it is back.
        back_ms: u64,
    },
    /// A server does not answer.
    ServerDown {
        /// Which host.
        host: u64,
        /// Milliseconds it lasts.
        for_ms: u64,
    },
    /// The coordinator's clock is set.
    SetClock {
        /// Milliseconds forward, or back.
        by_ms: i64,
    },
    /// The clock of a host with an agent is set.
    SetAgentClock {
        /// Which host.
        host: u64,
        /// Milliseconds forward, or back.
        by_ms: i64,
    },
    /// The journal cannot be written.
    JournalFull {
        /// Milliseconds it lasts.
        for_ms: u64,
    },
    /// The journal's disk says nothing.
    JournalHangs {
        /// Milliseconds it lasts.
        for_ms: u64,
    },
    /// The coordinator is killed and comes back with a journal that lost its last entries.
    TailLost {
        /// How many entries.
        entries: u64,
    },
    /// The coordinator is killed and comes back with the journal as it was before a person accepted it: see
    /// [`Accepts::Copied`].
    CopyOfBefore,
    /// Somebody changes a route by hand, and puts it back.
    ChangedByHand {
        /// Which load balancer.
        balancer: u64,
        /// Milliseconds it lasts.
        for_ms: u64,
    },
    /// An agent is killed, and comes back without its disk: its fence, its receipts and what it heard of the journal are
    /// gone. What its host serves stays.
    LoseDisk {
        /// Which host.
        host: u64,
        /// Milliseconds until it is back.
        back_ms: u64,
    },
    /// An agent is killed, and its receipts are damaged: it puts them aside when it comes back, and keeps what it acknowledged.
    DamageReceipts {
        /// Which host.
        host: u64,
        /// Milliseconds until it is back.
        back_ms: u64,
    },
    /// A web host that serves nobody is put back to the disk that it had at the beginning: its agent's memory and what the
    /// host serves.
    PutBackHost {
        /// Which host.
        host: u64,
        /// Milliseconds until it is back.
        back_ms: u64,
    },
    /// The load balancers tell nothing of visitors.
    LoseSignals {
        /// Milliseconds it lasts.
        for_ms: u64,
    },
    /// What both slots use is away: checks of the watch fail on either.
    SharedAway {
        /// Milliseconds it lasts.
        for_ms: u64,
    },
    /// The order that an agent took in last comes once more and says something else, as of a coordinator with a fault.
    Contradict {
        /// Which host.
        host: u64,
    },
    /// A person asks for something.
    Ask(RequestKind),
}

/// Something that goes wrong some time after the journal has so many entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Entries of the journal.
    pub after_entries: u64,
    /// Milliseconds after that.
    pub delay_ms: u64,
    /// What.
    pub what: What,
}

/// How bad the network is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Net {
    /// Messages that get lost, in percent.
    pub loss: u64,
    /// Messages that arrive twice, in percent.
    pub twice: u64,
    /// Messages that arrive seconds late, in percent.
    pub late: u64,
}

/// One history before it happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// What chance begins with.
    pub seed: u64,
    /// Load balancers.
    pub balancers: u64,
    /// Hosts of each slot.
    pub hosts: u64,
    /// Something is live before the first wish.
    pub live: bool,
    /// What people wish for.
    pub wishes: Vec<Wish>,
    /// Shares of the visitors that a new version gets before it gets all of them.
    pub splits: u64,
    /// A failing watch rolls back by itself.
    pub automatic: bool,
    /// What visitors' signals decide.
    pub verdict: Verdicts,
    /// The network.
    pub net: Net,
    /// Orders that fail on the host and change nothing, in percent.
    pub clumsy: u64,
    /// The site has a database.
    pub database: bool,
    /// Pieces of work on the database that go wrong half-way, and backups that are damaged, in percent.
    pub brittle: u64,
    /// Whether a person accepts a journal that lost its end, and what becomes of that.
    pub accepts: Accepts,
    /// A person has a release go back without whoever is silent when it is held, and does not wait for them.
    pub leaves_out: bool,
    /// What goes wrong.
    pub faults: Vec<Fault>,
}

/// The calm scenarios: what every crash point is tried in.
pub fn calm() -> Vec<(&'static str, Scenario)> {
    use Quality::{FailsChecks, FailsLater, FailsVisitors, Good};
    let of = |balancers, hosts, live, wishes: &[Wish]| Scenario {
        seed: 1,
        balancers,
        hosts,
        live,
        wishes: wishes.to_vec(),
        splits: 0,
        automatic: true,
        verdict: Verdicts::Off,
        net: Net::default(),
        clumsy: 0,
        database: false,
        brittle: 0,
        accepts: Accepts::Never,
        leaves_out: false,
        faults: Vec::new(),
    };
    // Its agent dies in the middle of the release, and is not back before a person has seen to that.
    let gone = |after_entries, host| {
        let what = What::KillAgent { host, back_ms: 3_600_000 };
        vec![Fault { after_entries, delay_ms: 20, what }]
    };
    // The copy that is put back has the first release open before its switch, and visitors are behind that already.
    let lost = |after_entries, entries| {
        vec![Fault { after_entries, delay_ms: 20, what: What::TailLost { entries } }]
    };
    let with_database = |wishes: &[Wish]| Scenario { database: true, ..of(1, 1, true, wishes) };
    vec![
        ("blue/green", of(1, 1, true, &[Wish::Deploy(Good)])),
        ("two hosts a slot", of(1, 2, true, &[Wish::Deploy(Good)])),
        ("two balancers", of(2, 1, true, &[Wish::Deploy(Good)])),
        ("first release", of(1, 1, false, &[Wish::Deploy(Good)])),
        ("checks fail", of(1, 1, true, &[Wish::Deploy(FailsChecks)])),
        ("watch fails", of(2, 1, true, &[Wish::Deploy(FailsLater)])),
        ("rollback", of(2, 1, true, &[Wish::Deploy(Good), Wish::Rollback])),
        ("maintenance", of(1, 1, true, &[Wish::PageUp, Wish::PageDown])),
        ("release under maintenance", of(1, 1, true, &[Wish::PageUp, Wish::Deploy(Good), Wish::PageDown])),
        ("back and forth", of(1, 1, true, &[Wish::Deploy(Good), Wish::Deploy(Good)])),
        ("canary", Scenario { splits: 2, ..of(1, 1, true, &[Wish::Deploy(Good)]) }),
        (
            "visitors fail",
            Scenario { verdict: Verdicts::Fixed, ..of(2, 1, true, &[Wish::Deploy(FailsVisitors)]) },
        ),
        (
            "proven",
            Scenario { verdict: Verdicts::Decided, splits: 1, ..of(1, 1, true, &[Wish::Deploy(Good)]) },
        ),
        (
            "journal lost",
            Scenario {
                accepts: Accepts::Until,
                faults: lost(26, 8),
                ..of(1, 1, true, &[Wish::Deploy(Good), Wish::Deploy(Good)])
            },
        ),
        (
            "share left behind",
            Scenario {
                splits: 1,
                accepts: Accepts::Until,
                faults: lost(SHARE_MOVED, 14),
                ..of(2, 1, true, &[Wish::Deploy(Good), Wish::Rollback, Wish::Deploy(Good)])
            },
        ),
        ("canary fails", Scenario { splits: 1, ..of(2, 1, true, &[Wish::Deploy(FailsLater)]) }),
        ("migration", with_database(&[Wish::Migrating(Good, Files::Good)])),
        ("migration fails on the copy", with_database(&[Wish::Migrating(Good, Files::Unfit)])),
        ("migration fails", with_database(&[Wish::Migrating(Good, Files::FailsLive)])),
        ("migrated version fails", with_database(&[Wish::Migrating(FailsLater, Files::Good)])),
        ("contract", with_database(&[Wish::Migrating(Good, Files::Good), Wish::Contract])),
        ("backup", with_database(&[Wish::Backup, Wish::Verify])),
        ("restore", with_database(&[Wish::Backup, Wish::Restore, Wish::Swap { more: 9 }, Wish::Settle])),
        (
            "restore and back",
            with_database(&[
                Wish::Backup,
                Wish::Restore,
                Wish::Swap { more: 9 },
                Wish::SwapBack { more: 9 },
                Wish::Settle,
            ]),
        ),
        (
            "back without a balancer",
            Scenario {
                leaves_out: true,
                faults: gone(BALANCER_GONE, 2),
                ..of(2, 1, true, &[Wish::Deploy(FailsLater)])
            },
        ),
        (
            "back without a host",
            Scenario {
                leaves_out: true,
                faults: gone(HOST_GONE, 2),
                ..of(1, 2, true, &[Wish::Deploy(FailsChecks)])
            },
        ),
    ]
}

impl Scenario {
    /// The scenario of a seed, with everything that can go wrong going wrong now and then.
    pub fn of(seed: u64) -> Self {
        use Quality::{FailsChecks, FailsLater, Good};
        let mut chance = Chance::from_seed(seed);
        let quality = chance.pick(&[Good, Good, Good, Good, FailsChecks, FailsLater], Good);
        let deploy = Wish::Deploy(quality);
        let wishes = match chance.below(20) {
            0 => vec![Wish::PageUp],
            1 => vec![Wish::PageUp, Wish::PageDown],
            2 => vec![Wish::PageUp, deploy],
            3 | 4 => vec![Wish::Deploy(Good), Wish::Rollback],
            5 | 6 => vec![Wish::Deploy(Good), deploy],
            _ => vec![deploy],
        };
        let many = chance.pick(&[0, 1, 1, 2, 2, 3, 5], 1);
        let mut faults: Vec<Fault> = (0..many).map(|_| fault(&mut chance)).collect();
        let usurped = chance.percent(25);
        if usurped {
            faults.extend(usurpation(&mut chance));
        }
        let (verdict, wishes) = judged(seed, wishes, &mut faults);
        faults.extend(shared_away(seed));
        faults.extend(receipts_damaged(seed));
        faults.extend(journal_hangs(seed));
        let scenario = Self {
            seed,
            balancers: chance.pick(&[1, 1, 2], 1),
            hosts: chance.pick(&[1, 1, 2], 1),
            live: chance.percent(90),
            wishes,
            splits: chance.pick(&[0, 0, 1, 2], 0),
            automatic: chance.percent(85),
            verdict,
            net: Net {
                loss: chance.pick(&[0, 0, 0, 0, 0, 1, 5, 25], 0),
                twice: chance.pick(&[0, 0, 5, 30], 0),
                late: if usurped { 30 } else { chance.pick(&[0, 0, 3, 15], 0) },
            },
            clumsy: chance.pick(&[0, 0, 0, 0, 3, 20, 60], 0),
            database: false,
            brittle: 0,
            accepts: Accepts::Never,
            leaves_out: false,
            faults,
        };
        let scenario = scenario.with_database().with_acceptance().with_older_disks();
        scenario.with_clocks_set().with_losses().with_share_left()
    }

    /// Sometimes people ask for a rollback where a journal was accepted: it may have been in the middle of a canary.
    fn with_share_left(mut self) -> Self {
        let mut chance = Chance::from_seed(self.seed ^ 0x7368_7265);
        if self.accepts != Accepts::Never && !self.database && chance.percent(ASKED_BACK) {
            self.splits = self.splits.max(1);
            self.wishes.splice(1.., [Wish::Rollback, Wish::Deploy(Quality::Good)]);
            // Lost where the share has just been moved.
            let lost = |fault: &&mut Fault| matches!(fault.what, What::TailLost { .. });
            if let Some(fault) = self.faults.iter_mut().find(lost).filter(|_| chance.percent(60)) {
                fault.after_entries = chance.between(28, 48);
                fault.what = What::TailLost { entries: chance.between(2, 24) };
            }
        }
        self
    }

    /// Sometimes an agent is gone for so long that people do not wait for it. A site with a database has enough to bear.
    fn with_losses(mut self) -> Self {
        let mut chance = Chance::from_seed(self.seed ^ 0x676f_6e65);
        if !self.database && chance.percent(GONE_FOR_GOOD) {
            self.leaves_out = true;
            let what = What::KillAgent { host: chance.below(12), back_ms: chance.between(60_000, 1_200_000) };
            let (after_entries, delay_ms) = (chance.between(12, 50), chance.below(300));
            self.faults.push(Fault { after_entries, delay_ms, what });
        }
        self
    }

    /// Sometimes a host is put back to an older disk in the middle of a release.
    fn with_older_disks(mut self) -> Self {
        let mut chance = Chance::from_seed(self.seed ^ 0x6f6c_6465);
        // In a second release the older disk holds a version that works as well.
        if chance.percent(if self.wishes.len() > 1 { OLDER_DISKS } else { 8 }) {
            let what = What::PutBackHost { host: chance.below(12), back_ms: chance.between(50, 3_000) };
            let (after_entries, delay_ms) = (chance.between(20, 75), chance.below(60));
            self.faults.push(Fault { after_entries, delay_ms, what });
        }
        self
    }

    /// Sometimes clocks are set by as much as a person, a battery or a time zone is wrong by.
    fn with_clocks_set(mut self) -> Self {
        let mut chance = Chance::from_seed(self.seed ^ 0x636c_6f63);
        if !chance.percent(CLOCKS_SET) {
            return self;
        }
        for _ in 0..chance.between(1, 2) {
            let by_ms = chance.pick(&CLOCKS_OFF, 0);
            let what = match chance.percent(60) {
                true => What::SetClock { by_ms },
                false => What::SetAgentClock { host: chance.below(12), by_ms },
            };
            let (after_entries, delay_ms) = (chance.below(60), chance.below(9_000));
            self.faults.push(Fault { after_entries, delay_ms, what });
        }
        self
    }

    /// Sometimes the journal's end is gone for good, and a person accepts that.
    fn with_acceptance(mut self) -> Self {
        let mut chance = Chance::from_seed(self.seed ^ 0x6163_6370);
        if chance.percent(LOST_FOR_GOOD) {
            // Back to where the first release has changed its slot and moved nobody: what it did since is the most there is to lose.
            let (after_entries, left, delay_ms) =
                (chance.between(20, 45), chance.between(8, 20), chance.below(500));
            let what = What::TailLost { entries: after_entries.saturating_sub(left) };
            self.faults.push(Fault { after_entries, delay_ms, what });
        } else if !self.faults.iter().any(|fault| matches!(fault.what, What::TailLost { .. })) {
            return self;
        }
        self.accepts = match chance.below(7) {
            0 => Accepts::Never,
            1 => Accepts::Until,
            2 | 3 => Accepts::Killed { after_ms: chance.below(60) },
            4 | 5 => copied(&mut chance, Met::Nobody),
            _ => {
                // Only while one of them answers can they keep such a copy from coming to an epoch that is new to them.
                self.net = Net::default();
                self.faults.retain(|fault| matches!(fault.what, What::TailLost { .. }));
                copied(&mut chance, Met::AgentsOfBefore)
            }
        };
        self
    }

    /// Sometimes the site has a database, and what people wish for has to do with it.
    fn with_database(mut self) -> Self {
        // Chance of its own: what else happens is as it was before there were databases.
        let mut chance = Chance::from_seed(self.seed ^ 0x6461_7461);
        if !chance.percent(DATABASES) {
            return self;
        }
        self.database = true;
        self.brittle = chance.pick(&[0, 0, 0, 5, 20, 50], 0);
        self.wishes = database_wishes(&mut chance);
        // Hosts are in the order of their names, and the database's comes after the blue ones.
        let host = self.hosts;
        let length = self.wishes.iter().map(usual_entries).sum();
        for _ in 0..chance.pick(&[0, 1, 1, 2], 1) {
            self.faults.push(database_fault(&mut chance, host, length));
        }
        self
    }
}

/// After a journal was accepted its copy of before comes back, with an epoch that may be older than the agents' or newer; mostly
/// before the next release has told them of more.
fn copied(chance: &mut Chance, met: Met) -> Accepts {
    let after_ms = if chance.percent(70) { chance.below(40) } else { chance.below(6_000) };
    Accepts::Copied { after_ms, starts: chance.between(1, 12), met }
}

/// How many entries a wish writes into the journal, about.
fn usual_entries(wish: &Wish) -> u64 {
    match wish {
        Wish::Deploy(_) | Wish::Migrating(..) => 45,
        Wish::Contract => 15,
        _ => 6,
    }
}

/// Something that goes wrong on the database's host, or at the coordinator, before the last wish is over.
fn database_fault(chance: &mut Chance, host: u64, length: u64) -> Fault {
    let (short, long) = (chance.between(50, 3_000), chance.between(500, 30_000));
    let what = match chance.below(14) {
        0..=4 => What::KillAgent { host, back_ms: short },
        5 => What::FreezeAgent { host, for_ms: long },
        6 => What::Partition { host, to: chance.percent(70), from: true, for_ms: long },
        7 => What::LoseDisk { host, back_ms: short },
        8 => What::Contradict { host },
        9 => What::Ask(chance.pick(&RequestKind::ALL, RequestKind::Abort)),
        10 => What::TakeOver,
        _ => What::KillCoordinator { back_ms: short },
    };
    let delay_ms = if chance.percent(60) { chance.below(60) } else { chance.below(1_500) };
    Fault { after_entries: chance.below(length), delay_ms, what }
}

/// Histories in which clocks are set by much, in percent, and by how much: an hour or a day, back and forward, in
/// milliseconds.
const CLOCKS_SET: u64 = 12;
const CLOCKS_OFF: [i64; 4] = [-86_400_000, -3_600_000, 3_600_000, 86_400_000];

/// Histories of several wishes in which a host is put back to an older disk, in percent.
const OLDER_DISKS: u64 = 30;

/// Histories in which an agent is gone for as long as a person would wait, and longer, in percent.
const GONE_FOR_GOOD: u64 = 6;

/// After how many entries a share of the visitors is on the new slot in a calm world.
const SHARE_MOVED: u64 = 33;

/// Accepted journals after which people ask for a rollback, and then for another deploy, in percent.
const ASKED_BACK: u64 = 50;

/// After how many entries one is gone for good in a calm world: when visitors have the new version, and when its hosts do.
const BALANCER_GONE: u64 = 38;
const HOST_GONE: u64 = 20;

/// Journals whose end is gone for good, in percent.
const LOST_FOR_GOOD: u64 = 4;

/// Sites with a database, in percent.
const DATABASES: u64 = 15;

/// What people wish for where there is a database.
fn database_wishes(chance: &mut Chance) -> Vec<Wish> {
    use Quality::{FailsChecks, FailsLater, FailsVisitors, Good};
    let mut migrating = || {
        let quality = chance.pick(&[Good, Good, Good, Good, FailsChecks, FailsLater, FailsVisitors], Good);
        let files = chance.pick(
            &[
                Files::Good,
                Files::Good,
                Files::Good,
                Files::Good,
                Files::Good,
                Files::Unfit,
                Files::FailsLive,
            ],
            Files::Good,
        );
        Wish::Migrating(quality, files)
    };
    let (one, two, good) = (migrating(), migrating(), Wish::Migrating(Good, Files::Good));
    let (swap, back) = (Wish::Swap { more: chance.below(3) }, Wish::SwapBack { more: chance.below(3) });
    match chance.below(16) {
        0..=2 => vec![one],
        3 => vec![one, two],
        4 => vec![good, Wish::Contract],
        5 => vec![one, Wish::Contract, Wish::Rollback],
        6 => vec![good, Wish::Rollback, Wish::Contract],
        7 => vec![one, two, Wish::Contract],
        8 => vec![good, Wish::Contract, two, Wish::Contract],
        9 => vec![Wish::Backup, Wish::Verify],
        10 => vec![Wish::Backup, Wish::Restore, swap, Wish::Settle],
        11 => vec![Wish::Backup, Wish::Restore, swap, back, Wish::Settle],
        12 => vec![one, Wish::Restore, swap, back],
        13 => vec![Wish::Backup, Wish::Restore, Wish::Settle, Wish::Restore, swap],
        14 => vec![Wish::PageUp, Wish::Backup, Wish::Restore, swap, Wish::PageDown],
        _ => vec![good, Wish::Rollback, Wish::Rollback],
    }
}

/// Sometimes visitors are heard. Then a version may fail them alone, and what tells of them may be lost.
fn judged(seed: u64, mut wishes: Vec<Wish>, faults: &mut Vec<Fault>) -> (Verdicts, Vec<Wish>) {
    use Verdicts::{Decided, Early, Fixed, Off};
    // Chance of its own: what else happens is as it was before visitors were heard.
    let mut chance = Chance::from_seed(seed ^ 0x7645_7264);
    let verdict = chance.pick(&[Off, Off, Off, Fixed, Early, Decided], Off);
    if verdict == Off {
        return (verdict, wishes);
    }
    if let Some(Wish::Deploy(quality)) = wishes.last_mut()
        && chance.percent(40)
    {
        *quality = Quality::FailsVisitors;
    }
    if chance.percent(20) {
        let what = What::LoseSignals { for_ms: chance.between(500, 30_000) };
        faults.push(Fault { after_entries: 10 + chance.below(38), delay_ms: chance.below(8_000), what });
    }
    (verdict, wishes)
}

/// Sometimes what both slots use is away for a while.
fn shared_away(seed: u64) -> Option<Fault> {
    // Chance of its own: what else happens is as it was before the slots shared anything.
    let mut chance = Chance::from_seed(seed ^ 0x7368_6172);
    let what = What::SharedAway { for_ms: chance.between(500, 15_000) };
    let fault = Fault { after_entries: 10 + chance.below(38), delay_ms: chance.below(8_000), what };
    chance.percent(10).then_some(fault)
}

/// Sometimes an agent's receipts are damaged.
fn receipts_damaged(seed: u64) -> Option<Fault> {
    // Chance of its own: what else happens is as it was before that could be.
    let mut chance = Chance::from_seed(seed ^ 0x6461_6d61);
    let what = What::DamageReceipts { host: chance.below(12), back_ms: chance.between(50, 3_000) };
    let fault = Fault { after_entries: 5 + chance.below(48), delay_ms: chance.below(300), what };
    chance.percent(10).then_some(fault)
}

/// Sometimes the journal's disk says nothing for a while, shorter or longer than a record is waited for.
fn journal_hangs(seed: u64) -> Option<Fault> {
    // Chance of its own: what else happens is as it was before disks hung.
    let mut chance = Chance::from_seed(seed ^ 0x6861_6e67);
    let what = What::JournalHangs { for_ms: chance.pick(&[500, 6_000, 6_000, 30_000, 120_000], 6_000) };
    let delay_ms = if chance.percent(70) { chance.below(40) } else { chance.below(9_000) };
    let fault = Fault { after_entries: chance.below(60), delay_ms, what };
    chance.percent(10).then_some(fault)
}

/// A coordinator is followed by another while its orders are on their way, and then an agent forgets what it can: what
/// fencing is for.
fn usurpation(chance: &mut Chance) -> [Fault; 2] {
    let (after_entries, delay_ms) = (chance.below(40), chance.below(40));
    let first = if chance.percent(60) { What::TakeOver } else { What::KillCoordinator { back_ms: 50 } };
    let second = What::KillAgent { host: chance.below(12), back_ms: chance.between(10, 200) };
    // Whoever takes over asks all agents what they have heard of before it fences them, and waits a second for one that is late.
    let later_ms = delay_ms + chance.between(10, 1_600);
    [
        Fault { after_entries, delay_ms, what: first },
        Fault { after_entries, delay_ms: later_ms, what: second },
    ]
}

fn fault(chance: &mut Chance) -> Fault {
    let host = chance.below(12);
    let short = chance.between(50, 3_000);
    let long = chance.between(500, 30_000);
    let what = match chance.below(29) {
        0..=4 => What::KillCoordinator { back_ms: short },
        5 => What::StallCoordinator { for_ms: chance.pick(&[500, 4_000, 30_000, 400_000], 500) },
        6 | 7 => What::TakeOver,
        8..=11 => What::KillAgent { host, back_ms: short },
        12 => What::FreezeAgent { host, for_ms: long },
        13 | 14 => What::Partition { host, to: chance.percent(70), from: chance.percent(70), for_ms: long },
        15 | 16 => What::Reload { balancer: host, slow_ms: if chance.percent(50) { 0 } else { long } },
        17 => What::KillHaproxy { balancer: host, back_ms: short },
        18 | 19 => What::ServerDown { host, for_ms: chance.pick(&[500, 5_000, 60_000], 500) },
        20 => What::SetClock { by_ms: chance.pick(&[-120_000, -20_000, -2_000, 2_000, 20_000, 400_000], 0) },
        21 => What::JournalFull { for_ms: short },
        22 => What::TailLost { entries: chance.between(1, 12) },
        23 => What::ChangedByHand { balancer: host, for_ms: long },
        24 => What::LoseDisk { host, back_ms: short },
        25 => What::Contradict { host },
        _ => What::Ask(chance.pick(&RequestKind::ALL, RequestKind::Abort)),
    };
    let delay_ms = if chance.percent(70) { chance.below(40) } else { chance.below(2_000) };
    Fault { after_entries: chance.below(48), delay_ms, what }
}
