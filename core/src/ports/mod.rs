//! What the release engine needs of the world, in domain words. Production has one adapter of each, the
//! simulated world another.

mod clock;
mod fleet;
mod journal;
mod memory;
mod signals;

pub use clock::Clock;
pub use fleet::Fleet;
pub use journal::{Journal, JournalError};
pub use memory::Memory;
pub use signals::{Ear, Heard, Mark, Position, Second, Signals};
