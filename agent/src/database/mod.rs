//! The database role: what its agent does with each order, and how the database stands.

mod describe;
mod files;
mod hands;
mod words;

pub use hands::DatabaseHands;
