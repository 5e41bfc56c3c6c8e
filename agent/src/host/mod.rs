//! The local actions of a web host, one a file.

mod activate;
mod flag;
mod grants;
mod inspect;
mod site;
mod stage;
mod work;

pub use activate::{activate, holds};
pub use flag::set_flag;
pub use grants::{findings, fit, granted};
pub use inspect::{describe, inspect};
pub use site::Site;
pub use stage::{accept_offer, discard, receive, seal};
pub use work::on_disk;
