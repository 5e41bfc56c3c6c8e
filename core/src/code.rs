//! The error index: every code an operator can meet, in one table. Codes are stable and never reused;
//! each has a page under `docs/errors/`, which `pointsman explain CODE` prints.

use std::fmt;

macro_rules! codes {
    ($($variant:ident = $text:literal, $title:literal;)*) => {
        /// A stable error code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $title] $variant,)*
        }

        impl Code {
            /// Every code, in order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The code as operators see it: `PM0101`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// What the code stands for, in a few words.
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

codes! {
    // PM01xx: load balancer and traffic.
    RuntimeSocketUnreachable = "PM0101", "HAProxy's runtime socket does not answer";
    RouteNotApplied = "PM0102", "HAProxy did not take the route";
    BackendUnknown = "PM0103", "HAProxy has no such backend";
    BackendUnhealthy = "PM0104", "a backend has too few healthy servers for traffic";
    RouteDrift = "PM0105", "the route is not what it was set to";
    RouteEpochOld = "PM0106", "the route's epoch is not newer than one already set";
    MapFileUnwritable = "PM0107", "the map file cannot be written";
    OldWorkerStale = "PM0108", "an old HAProxy worker still serves the old route";
    BalancersDisagree = "PM0109", "the load balancers serve different routes";
    RouteNotSeen = "PM0110", "requests through the load balancer do not show the route";
    DrainIncomplete = "PM0111", "requests are still running on a slot";
    HaproxyReplyUnexpected = "PM0112", "HAProxy answered something that cannot be read";
    HaproxyConfigBroken = "PM0114", "HAProxy's configuration on disk does not load";
    SignalsMissing = "PM0115", "there are no signals of this load balancer";
    SignalsUnheard = "PM0116", "the port for access lines cannot be opened";
    LeaseLapsed = "PM0117", "what a load balancer made ready does not hold any more";
    OldSlotServes = "PM0118", "visitors still reach a slot that the route leads nobody to";
    OldWorkersUnseen = "PM0119", "the old HAProxy workers cannot be seen";
    SiteCertificateUnfit = "PM0120", "a certificate of the site cannot be used";
    CertificateNotTaken = "PM0121", "HAProxy did not take the certificate";
    CertificateNotSeen = "PM0122", "a new handshake does not show the certificate";
    CertificateUnknown = "PM0123", "the load balancer may not renew such a certificate";
    RateTableUnknown = "PM0125", "there is no such table of rate limits";
    OpnsenseRefused = "PM0126", "OPNsense did not take the map";
    DriverCannot = "PM0127", "the load balancer's driver cannot do this";
    OpnsenseSilent = "PM0128", "OPNsense gave no clear answer";
    RouteNotKept = "PM0129", "the route is not kept for HAProxy's next start yet";
    // PM02xx: artifact and files.
    ArtifactMissing = "PM0201", "the artifact is not there";
    PathRefused = "PM0202", "a path cannot stand in an artifact";
    FileKindRefused = "PM0203", "a file is neither regular file, directory nor symbolic link";
    LinkRefused = "PM0204", "a symbolic link leaves the artifact";
    ContentMismatch = "PM0205", "content does not match its digest";
    TransferBroken = "PM0206", "a transfer ended early or out of order";
    NoRoom = "PM0207", "not enough disk space or inodes";
    SiteRootUnfit = "PM0208", "the site root is not laid out for releases";
    ArtifactEmpty = "PM0209", "the artifact holds no files";
    ArtifactTooLarge = "PM0210", "the artifact is over a limit";
    SourceChanged = "PM0211", "a file changed while it was published";
    FileSystem = "PM0212", "the file system refused an operation";
    ManifestInvalid = "PM0213", "a manifest cannot be read";
    // PM03xx: database.
    DatabaseUnreachable = "PM0301", "the database cannot be reached";
    DatabaseUnfit = "PM0302", "the database server is not fit for this";
    DatabaseToolUnfit = "PM0303", "a program of PostgreSQL is missing or unfit";
    DatabaseBusy = "PM0304", "another dump, migration or restore holds the database";
    StatementRefused = "PM0305", "the database refused a statement";
    BackupFailed = "PM0306", "a backup could not be taken";
    BackupUnknown = "PM0307", "there is no such backup";
    BackupDamaged = "PM0308", "a backup is damaged";
    BackupForeign = "PM0309", "a backup is of another database";
    BackupUnrestorable = "PM0310", "a backup cannot be restored here";
    CopyDiffers = "PM0311", "a restored copy differs from its backup";
    CopyMissing = "PM0312", "there is no restored copy to swap";
    RestorePending = "PM0313", "an earlier restore is not settled yet";
    LossGrown = "PM0314", "more would be lost than was accepted";
    SwapRefused = "PM0315", "the databases cannot be swapped now";
    SwapCutShort = "PM0316", "a swap was cut short";
    MigrationsUnfit = "PM0330", "the migrations cannot be run as they are";
    RecordsUnfit = "PM0331", "the database's records of migrations cannot be used";
    AdoptionRefused = "PM0332", "the database cannot be adopted";
    NotAdopted = "PM0333", "the database has versions that pointsman did not apply";
    LockNotHad = "PM0334", "a lock could not be had in time";
    StatementFailed = "PM0335", "a statement of a migration failed";
    StallStopped = "PM0336", "a migration was stopped because others waited for it";
    SessionLost = "PM0337", "the session with the database ended";
    StandsUnclear = "PM0338", "what a statement did cannot be told";
    VerifyFailed = "PM0339", "the database is not as a verify file wants it";
    MigrationBreaking = "PM0340", "a migration would break the slot that serves";
    MigrationDangerous = "PM0341", "a migration would make visitors wait, or fail at the next restore";
    QueriesBroken = "PM0342", "queries of the slot that serves do not work on the new schema";
    NoWayDown = "PM0343", "a migration cannot be taken back";
    NothingToMigrate = "PM0361", "no migration is pending";
    MigrationsRefused = "PM0362", "files of migrations cannot be released";
    // PM04xx: checks, watch, gates.
    CheckFailed = "PM0401", "a check failed";
    WatchFailed = "PM0402", "the watch found the new slot failing";
    WatchBlind = "PM0403", "the watch cannot see the new slot";
    PlanOutOfDate = "PM0404", "the world moved since the plan was made";
    GatesExpired = "PM0405", "the checks are too old to move visitors on";
    CheckHolds = "PM0406", "a check that holds the release failed";
    CheckBlind = "PM0407", "a check could not see what it asks for";
    SlotOffRoute = "PM0408", "no check is led to a slot";
    VerdictAgainst = "PM0411", "visitors fare too badly on the new slot";
    SharedFault = "PM0412", "both slots are in trouble";
    VerdictUndecided = "PM0413", "the watch was not decided in time";
    // PM05xx: agents, certificates, network.
    AgentUnreachable = "PM0501", "an agent cannot be reached";
    CertificateRefused = "PM0502", "a certificate was refused";
    NotAllowed = "PM0503", "the role may not do this";
    Fenced = "PM0504", "a newer coordinator has taken over";
    KeyReused = "PM0505", "an order was repeated with another content";
    DeadlinePassed = "PM0506", "a deadline passed";
    NotGranted = "PM0507", "the agent's own configuration does not allow this";
    HookFailed = "PM0508", "a hook or unit restart failed";
    WrongAddressee = "PM0509", "an order reached the wrong host, role or environment";
    Superseded = "PM0510", "an order arrived after a later one";
    ReceiptsUnavailable = "PM0511", "an agent cannot keep its receipts";
    AnswerLost = "PM0512", "the answer to an order was lost";
    MessageInvalid = "PM0513", "a message is malformed";
    CertificateUnusable = "PM0514", "certificate files cannot be used";
    ActivationUnfit = "PM0515", "a host cannot do what follows a change of version";
    // PM06xx: configuration and usage.
    ConfigInvalid = "PM0601", "a configuration file is wrong";
    EnvironmentUnknown = "PM0602", "there is no such environment";
    UsageWrong = "PM0603", "the command cannot be used like this";
    FileExists = "PM0605", "a file is in the way";
    // PM07xx: journal, lock, coordinator.
    EnvironmentBusy = "PM0701", "another release holds the environment";
    JournalUnwritable = "PM0702", "the journal cannot be written";
    JournalCorrupt = "PM0703", "the journal cannot be trusted";
    CoordinatorUnreachable = "PM0704", "the coordinator cannot be reached";
    ReleaseUnknown = "PM0705", "there is no such release";
    NothingToRollBack = "PM0706", "there is nothing to go back to";
    NotPossibleNow = "PM0707", "the release cannot do this where it stands";
    ReleaseIdTaken = "PM0708", "the release id is taken";
    InvariantBroken = "PM0709", "an invariant of the release engine does not hold";
    StoreUnwritable = "PM0710", "the artifact store cannot be written";
    OperatorStopped = "PM0711", "a person stopped the release";
    StateTooNew = "PM0712", "a state file is of a newer version";
    StateInUse = "PM0713", "another coordinator uses this state directory";
    RequestIdTaken = "PM0714", "the request id stands for something else";
    OverLimitsAlready = "PM0715", "what serves is over a limit already";
    JournalFull = "PM0716", "the disk of the journal is full";
    JournalSilent = "PM0717", "the disk of the journal does not answer";
    JournalBehind = "PM0718", "the journal lacks what agents have acted on";
    NotHeld = "PM0719", "a host does not hold what was released to it";
    NotLeftOut = "PM0720", "a host cannot be left out of the way back";
    CertificateEnds = "PM0722", "a certificate ends before the release could be over";
    WasTurnedBack = "PM0723", "what was live before was turned back";
}

impl Code {
    /// Finds the code that a text names.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_code_is_used_twice() {
        let texts: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), Code::ALL.len());
        assert!(Code::ALL.iter().all(|code| Code::parse(code.as_str()) == Some(*code)));
    }
}
