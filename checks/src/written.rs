//! A check as it is written: TOML in the environment file, the same in JSON on the wire and in the journal.

use std::collections::BTreeMap;

use pointsman_chassis::config::Span;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a check does. Exactly one of the first seven.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Written {
    /// One request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    /// Requests one after the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<Step>>,
    /// A map service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ows: Option<Ows>,
    /// No alert fires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alerts: Option<Alerts>,
    /// A number of a Prometheus is within its limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
    /// The certificate that visitors get does not end soon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// A file for the `hurl` command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hurl: Option<String>,
    /// Names, each with the file that holds its value where the check is made.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// The check whose captures and cookies are at hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How often it is tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How long a pass is good for while the release is watched; of what others measure, and what writes, a failure, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<Span>,
    /// The point of the checklist that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub point: Option<String>,
    /// What follows where it fails; without it, the release turns back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_fail: Option<OnFail>,
}

/// One request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// What is asked for.
    pub path: String,
    /// Header fields of the request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// What the answer must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Expect>,
    /// Every script and style sheet of the page too.
    #[serde(default, skip_serializing_if = "is_false")]
    pub assets: bool,
    /// Redirects that are followed, on the same host.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub follow: u8,
}

/// One request of several.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Step {
    /// The path, under the method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub get: Option<String>,
    /// See `get`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post: Option<String>,
    /// See `get`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub put: Option<String>,
    /// See `get`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<String>,
    /// See `get`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delete: Option<String>,
    /// Header fields of the request.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// A JSON body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
    /// A body as forms send it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub form: Option<BTreeMap<String, String>>,
    /// A body as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// What the answer must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<Expect>,
    /// Names, each with what it takes out of the answer.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub capture: BTreeMap<String, String>,
    /// Redirects that are followed, on the same host.
    #[serde(skip_serializing_if = "is_zero")]
    pub follow: u8,
    /// Runs whatever became of the steps before, and once.
    #[serde(skip_serializing_if = "is_false")]
    pub cleanup: bool,
}

/// What an answer must be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// The status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Statuses>,
    /// Header fields, each with a text that it must contain.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// A text that the body must contain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// A pattern that it must match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// Places in JSON with their values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub json: BTreeMap<String, Value>,
    /// Parts of the answer with their texts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub equals: BTreeMap<String, String>,
    /// An element of the page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
    /// Where the answer says which release gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// How long the answer may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<Span>,
}

/// One status, or several of which one will do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a status such as 200, or a list such as [200, 204]")]
pub enum Statuses {
    /// This.
    One(u16),
    /// One of these.
    Any(Vec<u16>),
}

/// A map service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ows {
    /// `WFS` or `WMS`.
    pub service: String,
    /// Its version.
    pub version: String,
    /// Its path.
    pub path: String,
    /// What its capabilities must name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
    /// Ask for a feature of the first layer.
    #[serde(default, skip_serializing_if = "is_false")]
    pub get_feature: bool,
    /// That layer may have no feature at all.
    #[serde(default, skip_serializing_if = "is_false")]
    pub may_be_empty: bool,
    /// Ask for a map of the first layer.
    #[serde(default, skip_serializing_if = "is_false")]
    pub get_map: bool,
}

/// No alert fires.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alerts {
    /// The Alertmanager.
    pub url: String,
    /// Which alerts, as Alertmanager filters them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matchers: Vec<String>,
    /// Alerts that may fire, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
    /// Alerts that must fire, by name, whatever `matchers` says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub require: Vec<String>,
}

/// A number of a Prometheus is within its limits. At least one of `max` and `min`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// The Prometheus.
    pub url: String,
    /// An instant query with one value.
    pub query: String,
    /// The largest value that is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// The smallest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
}

/// What follows where a check fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFail {
    /// It is noted.
    Warn,
    /// The release waits, and is held if that takes too long.
    Hold,
    /// The release does not begin, or turns back.
    Rollback,
}

/// The certificate that visitors get.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// How much longer it must be good.
    pub min_left: Span,
}

/// Repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Tries in all.
    pub times: u32,
    /// The pause between two.
    pub every: Span,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u8) -> bool {
    *value == 0
}
