//! Migrations of a database as data: read, split into statements, hashed and judged, before anybody runs them.
//!
//! Pure: no clock, file, socket or runtime. The coordinator refuses bad files with it when a release is planned, the
//! database agent learns from it what to send in which transaction under which locks, the CLI shows its findings.
//! It does not know the live schema: what only a database can say (a missing extension, rows that break a
//! constraint) is found by rehearsing on a restored copy.

mod alter_table;
mod backfill;
mod body;
mod breaking;
mod class;
mod dangerous;
mod default_value;
mod depth;
mod digest;
mod file_name;
mod finding;
mod footprint;
mod gate;
mod headers;
mod lint;
mod lock;
mod object;
mod parse;
mod pending;
mod phase;
mod place;
mod probe;
mod recording;
mod refusal;
mod relation;
mod routine;
mod scene;
mod script;
mod set;
mod severed;
mod split;
mod statement;
mod token;
mod version;

pub use backfill::Backfill;
pub use breaking::{breaking, breaking_after};
pub use class::Class;
pub use dangerous::{dangerous, dangerous_after};
pub use finding::Finding;
pub use gate::Gate;
pub use headers::{Batch, Headers};
pub use lock::{Lock, LockMode};
pub use pending::{Begun, Pending, Recorded, pending};
pub use phase::Phase;
pub use probe::Probe;
pub use recording::records_itself;
pub use relation::Relation;
pub use script::{Script, Segment};
pub use set::{Migration, Set};
pub use severed::{Part, Severed};
pub use statement::Statement;
pub use version::{Version, VersionError};
