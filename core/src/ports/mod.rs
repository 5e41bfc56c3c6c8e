//! What the release engine needs of the world, in domain words. Production has one adapter of each, the
//! simulated world another.

mod clock;
mod fleet;
mod journal;

pub use clock::Clock;
pub use fleet::Fleet;
pub use journal::{Journal, JournalError};
