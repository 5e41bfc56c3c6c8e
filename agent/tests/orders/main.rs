//! The web agent as its coordinator meets it: offers, contents and orders over gRPC, on a site root of its own, with
//! whatever a hostile build, a crash or another program on the host may have left there.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests: a panic is how they fail"
)]

mod activation;
mod crash;
mod full_disk;
mod hostile;
mod late;
mod planted;
mod query;
mod race;
mod rig;
mod transfer;
