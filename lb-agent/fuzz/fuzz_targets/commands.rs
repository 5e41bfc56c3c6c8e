//! See `rules/commands.rs`.
#![no_main]

#[path = "../rules/commands.rs"]
mod commands;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<String>, Option<String>, u32)| {
    let (words, payload, pid) = input;
    commands::hold(&words, payload.as_deref(), pid);
});
