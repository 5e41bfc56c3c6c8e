//! What the database role of the agent does with PostgreSQL, one action a file. Nothing here knows of releases beyond their
//! names, or of load balancers and web hosts.

mod authority;
pub mod backup;
mod child;
mod collation;
pub mod contents;
mod copy;
mod foreign;
pub mod guard;
mod held;
pub mod migrate;
mod moment;
mod obstacle;
pub mod preflight;
mod progress;
pub mod restore;
mod room;
pub mod scratch;
mod server;
mod session;
mod settings;
mod shape;
mod statement;
mod template;
mod tools;

pub use authority::Authority;
pub use pointsman_core::VerifyLevel;
pub use progress::Progress;
pub use session::Session;
pub use settings::{BackupFormat, BackupSettings, Settings, TlsSettings};
pub use shape::{Grant, Setting, Shape};
