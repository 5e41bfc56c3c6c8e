//! See `rules/replies.rs`.
#![no_main]

#[path = "../rules/replies.rs"]
mod replies;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| replies::hold(bytes));
