//! The whole site at one moment, comparable: what a refused command must not have changed.

use std::collections::BTreeMap;

/// What stands where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// The route in HAProxy.
    pub route: String,
    /// The route in the map file.
    pub route_on_disk: String,
    /// The site root of each web host.
    pub hosts: BTreeMap<String, BTreeMap<String, String>>,
    /// Files of the coordinator's artifact store, with their sizes.
    pub store: BTreeMap<String, u64>,
    /// Releases with their outcomes, newest first.
    pub releases: Vec<(String, String)>,
    /// What a visitor gets: status line and last line of the page.
    pub page: (String, String),
}
