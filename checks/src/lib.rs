//! Named checks: how they are written, what they ask, how answers are judged, and how they are made in one place.
//!
//! What is judged is pure: [`expect`](Expect), pages, map services, lists of alerts. What is asked is bounded in time, size,
//! number and depth, because the server may be the very release that is to be found out. Secrets are read from files where a
//! check is made, and taken out of everything that is said.

mod alerts;
mod answer;
mod bind;
mod certificate;
mod client;
mod cookies;
mod encoding;
mod expect;
mod extract;
mod grants;
mod hurl;
mod json_path;
mod make;
mod memory;
mod metric;
mod miss;
mod monitor;
mod ows;
mod page;
mod parse;
mod place;
mod query;
mod run;
mod secrets;
mod session;
mod spec;
mod template;
pub mod written;
mod xml;

pub use bind::{anew, bind};
pub use expect::Expect;
pub use grants::Grants;
pub use memory::Memory;
pub use metric::lacks_data;
pub use parse::{complete, parse, parsed_alone};
pub use place::{Pin, Place};
pub use query::{counter_as_it_stands, longest_range_ms, loses_buckets, names_slot};
pub use run::{Made, after_of, evidence, judged, parse_all, run};
pub use spec::{Kind, Spec};
pub use written::Written;
