//! The agent on a web host: brings artifacts to the site root, makes one of them current, checks it, and keeps the
//! maintenance file. It decides nothing about releases.

mod config;
mod hands;
mod host;
mod sys;

pub use config::Config;
pub use hands::WebHands;
