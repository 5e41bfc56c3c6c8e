//! Live tests: real HAProxy, real nginx, the real programs and real certificates, on loopback addresses.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests: a panic is how they fail")]

mod release;
mod reload;
mod unhealthy;
