//! The agent on a web host: brings artifacts to the site root, makes one of them current, checks it, and keeps the
//! maintenance file; or on a database's: backs up, rehearses, migrates, restores. It decides nothing about releases.

mod config;
mod database;
mod hands;
mod host;
mod sys;

pub use config::Config;
pub use database::DatabaseHands;
pub use hands::WebHands;
