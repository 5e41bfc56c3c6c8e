//! The guards that make releases safe, each of which can be switched off to see that its absence is noticed.

/// A guard of the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guard {
    /// Agents refuse an epoch that is older than one they acknowledged.
    FenceCheck,
    /// An acknowledged epoch survives a crash of the agent.
    EpochPersistence,
    /// An agent looks at the epoch again right before a visible change.
    EpochRecheck,
    /// A coordinator fences an agent before it orders anything of it.
    FenceFirst,
    /// Every lease has an epoch of its own.
    LeaseGrows,
    /// Only the holder of the lease can record.
    LeaseOnWrite,
    /// The intent is durable before its order leaves.
    IntentBeforeOrder,
    /// An order is answered after its effect, not before.
    EffectBeforeAnswer,
    /// Receipts survive a crash of the agent.
    ReceiptsDurable,
    /// What is so already is not done again.
    Idempotency,
    /// An order that was overtaken on its way is refused.
    Overtaken,
    /// A route is read back, and followed through reloads, before it is reported.
    ReadBack,
    /// Old workers are told of a route as well.
    OldWorkers,
    /// A route is on disk before a worker has it.
    DiskFirst,
    /// A route that a reload brought back is set again.
    ReloadGuard,
    /// Visitors are moved only to healthy servers.
    MinHealthy,
    /// A route follows only on one that may stand.
    ExpectedRoute,
    /// No load balancer moves visitors before all are ready to.
    PrepareAll,
    /// Visitors are moved only after checks that passed.
    Gate,
    /// Checks that are too old are made again.
    GateAge,
    /// An artifact is named complete after its contents are there.
    MarkLast,
    /// `current` moves in one instant.
    AtomicLink,
    /// Nothing is changed under running requests.
    Drain,
    /// The release ends rolled back only when every load balancer has confirmed.
    WayBackConfirmed,
    /// A failing watch is believed.
    WatchFails,
    /// What cannot be seen does not count as well.
    BlindIsNotWell,
    /// Time that nobody watched does not count as watched.
    WatchGap,
    /// One release at a time.
    SingleFlight,
    /// A journal that is older than what agents have heard of is not acted on.
    JournalTail,
    /// A maintenance file is there when the agent says so.
    FlagReadBack,
    /// A failed step turns the release back.
    TurnBack,
    /// A key that was used is refused with another content.
    KeyReused,
    /// The slot that visitors would go back to is not touched before the end.
    OldSlotUntouched,
    /// Only a release of the maintenance page touches the maintenance file.
    FlagOnlyInMaintenance,
    /// Every order has an intent of its own: none goes ahead on another's.
    OwnIntent,
    /// What is known of visitors survives the coordinator.
    EvidenceKept,
    /// What visitors met while nobody heard them is heard afterwards.
    MissedIsHeard,
    /// Visitors who fail are counted.
    VisitorsCount,
    /// Visitors who are not seen do not count as well.
    OutOfSight,
    /// A watch that must be decided does not end undecided.
    UndecidedWaits,
    /// A backup of the database is taken for the release.
    BackupFirst,
    /// A backup that cannot be restored does not count.
    BackupChecked,
    /// Migrations are tried on a copy before they are applied.
    RehearsalFirst,
    /// A version runs only after the migrations that it brings.
    ExpandFirst,
    /// What the version before would not survive waits for a release of its own.
    ContractLast,
    /// No contract of what the version that serves does not know.
    ContractKnown,
    /// After a contract nothing leads back to the version before.
    ContractEndsWayBack,
    /// A migration that is recorded is not applied again.
    MigratedOnce,
    /// A migration is recorded in the transaction that applies it.
    RecordedWithin,
    /// Rows that a swap loses are counted again before it.
    LossCounted,
    /// A swap is noted before the database is shut.
    SwapNoted,
    /// Both databases of a swap are renamed in one transaction.
    OneRename,
    /// What is dropped at the end of a restore is what is not live.
    SettleLooks,
    /// A rollback asks nothing of the database.
    DatabaseLeftAlone,
    /// What is open is void before the first agent forgets.
    VoidFirst,
    /// What an agent has heard of once it has forgotten is the entry by which a person accepted the journal.
    AcceptedKept,
    /// A coordinator looks at agents before it takes an epoch: an old copy of the journal uses up none.
    LookFirst,
    /// A host is asked whether it still holds what was brought, not only whether it answers.
    HostHolds,
    /// What was waited is counted by a time that does not jump.
    SteadyTime,
    /// An order that leads back does not come too late, whatever an agent's clock says.
    BackNeverLate,
    /// A record that was not answered in time is looked for before anything else is recorded.
    LateCounts,
    /// A share of the visitors that no release accounts for is led back before anything else moves them.
    ShareGathered,
}

impl Guard {
    /// Every guard.
    pub const ALL: [Self; 62] = [
        Self::FenceCheck,
        Self::EpochPersistence,
        Self::EpochRecheck,
        Self::FenceFirst,
        Self::LeaseGrows,
        Self::LeaseOnWrite,
        Self::IntentBeforeOrder,
        Self::EffectBeforeAnswer,
        Self::ReceiptsDurable,
        Self::Idempotency,
        Self::Overtaken,
        Self::ReadBack,
        Self::OldWorkers,
        Self::DiskFirst,
        Self::ReloadGuard,
        Self::MinHealthy,
        Self::ExpectedRoute,
        Self::PrepareAll,
        Self::Gate,
        Self::GateAge,
        Self::MarkLast,
        Self::AtomicLink,
        Self::Drain,
        Self::WayBackConfirmed,
        Self::WatchFails,
        Self::BlindIsNotWell,
        Self::WatchGap,
        Self::SingleFlight,
        Self::JournalTail,
        Self::FlagReadBack,
        Self::TurnBack,
        Self::KeyReused,
        Self::OldSlotUntouched,
        Self::FlagOnlyInMaintenance,
        Self::OwnIntent,
        Self::EvidenceKept,
        Self::MissedIsHeard,
        Self::VisitorsCount,
        Self::OutOfSight,
        Self::UndecidedWaits,
        Self::BackupFirst,
        Self::BackupChecked,
        Self::RehearsalFirst,
        Self::ExpandFirst,
        Self::ContractLast,
        Self::ContractKnown,
        Self::ContractEndsWayBack,
        Self::MigratedOnce,
        Self::RecordedWithin,
        Self::LossCounted,
        Self::SwapNoted,
        Self::OneRename,
        Self::SettleLooks,
        Self::DatabaseLeftAlone,
        Self::VoidFirst,
        Self::AcceptedKept,
        Self::LookFirst,
        Self::HostHolds,
        Self::SteadyTime,
        Self::BackNeverLate,
        Self::LateCounts,
        Self::ShareGathered,
    ];

    /// The guard of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|guard| guard.name() == name)
    }

    /// The guard's name in reports.
    pub fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }
}
