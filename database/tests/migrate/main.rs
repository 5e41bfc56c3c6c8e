//! Migrations on a real server: what is applied, what is refused, whom it stalls, and what stands after every crash.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests: a panic is how they fail")]

mod adoption;
mod arena;
mod backfill;
mod corpus;
mod crash;
mod kit;
mod ladder;
mod pooled;
mod records;
mod rehearsal;
mod run;
mod watch;
