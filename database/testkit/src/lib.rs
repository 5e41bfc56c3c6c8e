//! For tests only: a PostgreSQL server with a cluster of its own in a temporary folder, reached by a socket there and
//! gone with its guard. It knows nothing of pointsman.

mod cluster;
mod postmaster;
mod programs;

pub use cluster::Cluster;
pub use programs::{Server, server_user};
