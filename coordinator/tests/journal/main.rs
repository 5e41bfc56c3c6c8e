//! The journal against damage: torn files, flipped bits, mixed copies, later versions, and hands that changed it.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests: a panic is how they fail")]

mod chance;
mod changed;
mod flipped;
mod history;
mod mixed;
mod place;
mod salvaged;
mod torn;
mod versions;
