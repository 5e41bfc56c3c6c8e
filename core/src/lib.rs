//! The domain of pointsman, pure: what a release is, what may happen to it, and what comes next.
//!
//! Nothing in this crate reads a clock, opens a file or a socket, starts a process or draws a random
//! number. Time comes in as an argument, work goes out as data. The port traits in [`ports`] are the
//! only place that names a future.

mod before;
mod check;
mod code;
mod database;
mod digest;
mod epoch;
mod event;
pub mod histogram;
mod http_path;
pub mod invariants;
mod judged;
pub mod judging;
pub mod lasting;
pub mod left_out;
pub mod machine;
pub mod manifest;
mod name;
mod note;
mod order;
mod peer;
mod phase;
mod plan;
pub mod ports;
mod problem;
mod reading;
pub mod receipt;
mod request;
mod route;
pub mod route_change;
pub mod signal;
mod standing;
mod step;
mod time;
pub mod verdict;
mod verdict_plan;
mod words;

pub use before::{Before, Part, Slower, Usual, slower_than_ms};
pub use check::{
    Check, CheckFrom, CheckMoment, CheckSeen, CheckSpec, CheckVerdict, InvalidCheckSpec, MAX_SEEN,
};
pub use code::Code;
pub use database::{DatabasePlan, DatabaseWork, MigrationPhase, Migrations, SwapTo, VerifyLevel};
pub use digest::{ArtifactDigest, ContentHash, InvalidDigest, OrderDigest};
pub use epoch::{EPOCHS_OF_A_RELEASE, Epoch, RouteEpoch};
pub use event::{Entry, Event, Found, Stamped, Unaccounted};
pub use http_path::{HttpPath, InvalidHttpPath};
pub use judged::{Counted, Judged, MetricJudged, Ruling};
pub use left_out::LeftOut;
pub use name::{
    BackendName, BackupId, CheckName, EnvironmentName, HookName, HostName, InvalidName, ReleaseId, RequestId,
    RouteClass, SlotName, UnitName,
};
pub use note::{Note, TrafficSeen};
pub use order::{Action, DrainEnd, Evidence, Order, OrderKey};
pub use peer::{InvalidPeerName, PeerName, Role};
pub use phase::{Blind, HeldAt, Outcome, Phase, Progress, State, VerdictProgress, WatchProgress};
pub use plan::{AFTER_ITS_END, Activation, BY_ITSELF, Limits, Plan, Purpose, SlotPlan, Split, WatchPlan};
pub use problem::{Aftermath, Problem, Retry, clean};
pub use reading::Reading;
pub use request::{Request, RequestKind};
pub use route::{InvalidRoute, Route};
pub use standing::{LiveRelease, MaintenanceStanding, Standing, TurnedBack};
pub use step::{MAX_SPLITS, Step};
pub use time::Timestamp;
pub use verdict_plan::{OnFail, OverAlready, VerdictMode, VerdictPlan};
pub use words::{bytes, several};
