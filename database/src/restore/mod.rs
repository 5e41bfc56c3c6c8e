//! Puts a database back: beside the live one, compared, then swapped with it. Nothing is ever restored into the live
//! database.

mod beside;
mod gate;
mod hashes;
mod loss;
mod prepared;
mod record;
mod recover;
mod rename;
mod settle;
mod swap;

pub use beside::{Beside, beside};
pub use loss::{Loss, TableLoss, loss, must_be_accepted};
pub use prepared::{branch, prepare};
pub use record::Stage;
pub use recover::{Recovered, recover};
pub use settle::{ComparedLoss, Pending, confirm, discard, pending};
pub use swap::{Swapped, must_look_alike, swap, swap_back, written_since_swap};
