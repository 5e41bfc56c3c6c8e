//! What the database role of the agent does with PostgreSQL, one action a file. Nothing here knows of releases beyond their
//! names, or of load balancers and web hosts.

mod authority;
pub mod migrate;
mod progress;
mod session;
mod settings;

pub use authority::Authority;
pub use progress::Progress;
pub use session::Session;
pub use settings::{BackupFormat, BackupSettings, Settings, TlsSettings, VerifyLevel};
