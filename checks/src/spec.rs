//! What a check does, parsed: what exists here is valid.

use std::collections::{BTreeMap, BTreeSet};

use pointsman_core::{CheckName, OnFail};

use crate::expect::Expect;
use crate::extract::Extract;
use crate::ows::Ows;
use crate::template::{JsonTemplate, Template};

/// Longest time that a failure of what others measure is the same one, in milliseconds: whoever measures less often than once a
/// minute has nothing to say in a watch, and a number that is well again must not keep it waiting.
const LONGEST_FAILED_MS: u64 = 60_000;

/// Failures in a row of a check that writes after which it is not made anew at once: with as many readings a watch turns a
/// release back, where the file says nothing else. Whoever waits for a person does not go on writing meanwhile.
const FAILED_AT_ONCE: u32 = 3;

/// What a check does, and how.
#[derive(Clone, Debug)]
pub struct Spec {
    /// What.
    pub kind: Kind,
    /// Names, each with the file that holds its value where the check is made.
    pub secrets: BTreeMap<String, String>,
    /// The check whose captures and cookies are at hand.
    pub after: Option<CheckName>,
    /// How often it is tried; without it patience decides.
    pub retry: Option<Retry>,
    /// How long a pass is good for while the release is watched, in milliseconds; of what others measure a failure, too, and of what
    /// writes one that is not the first.
    pub every_ms: u64,
    /// The point of the checklist that it belongs to.
    pub point: Option<CheckName>,
    /// What follows where it fails.
    pub on_fail: OnFail,
}

/// What a check asks.
#[derive(Clone, Debug)]
pub enum Kind {
    /// One request, and perhaps every script and style sheet of the page that it brings.
    Http {
        /// The request.
        exchange: Box<Exchange>,
        /// Whether assets are asked for too.
        assets: bool,
    },
    /// Requests one after the other, with captures and cookies.
    Steps(Vec<Exchange>),
    /// A map service.
    Ows(Ows),
    /// No alert fires.
    Alerts(Alerts),
    /// A number of a Prometheus is within its limits.
    Metric(Metric),
    /// The certificate that visitors get is good for so much longer, in milliseconds.
    TlsExpiry(u64),
    /// A file for the `hurl` command.
    Hurl(String),
}

/// One request and what its answer must be.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The method.
    pub method: http::Method,
    /// Path and query.
    pub path: Template,
    /// Header fields.
    pub headers: Vec<(http::HeaderName, Template)>,
    /// The body.
    pub body: Body,
    /// What the answer must be.
    pub expect: Expect,
    /// What is taken out of it, by name.
    pub capture: Vec<(String, Extract)>,
    /// Redirects that are followed, on the same host.
    pub follow: u8,
    /// Runs whatever became of the steps before.
    pub cleanup: bool,
}

/// The body of a request.
#[derive(Clone, Debug)]
pub enum Body {
    /// None.
    Empty,
    /// JSON.
    Json(JsonTemplate),
    /// As forms send it.
    Form(Vec<(String, Template)>),
    /// As it is.
    Text(Template),
}

/// No alert fires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alerts {
    /// The Alertmanager.
    pub url: String,
    /// Which alerts, as Alertmanager filters them.
    pub matchers: Vec<String>,
    /// Alerts that may fire, by name.
    pub ignore: Vec<String>,
    /// Alerts that must fire, by name: where one does not, nobody feeds the Alertmanager.
    pub require: Vec<String>,
}

/// A number of a Prometheus is within its limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// The Prometheus.
    pub url: String,
    /// An instant query with one value.
    pub query: String,
    /// The largest value that is well.
    pub max: Option<f64>,
    /// The smallest.
    pub min: Option<f64>,
}

/// Repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries in all.
    pub times: u32,
    /// The pause between two, in milliseconds.
    pub every_ms: u64,
}

impl Exchange {
    /// Whether it asks for a change.
    pub fn writes(&self) -> bool {
        self.method != http::Method::GET
    }

    /// The names that must be known before it can be sent.
    pub fn names(&self) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = self.path.names().map(str::to_owned).collect();
        let texts = self.headers.iter().map(|(_, value)| value);
        names.extend(texts.flat_map(Template::names).map(str::to_owned));
        match &self.body {
            Body::Empty => {}
            Body::Json(json) => names.extend(json.names()),
            Body::Form(fields) => {
                names.extend(fields.iter().flat_map(|(_, value)| value.names()).map(str::to_owned));
            }
            Body::Text(text) => names.extend(text.names().map(str::to_owned)),
        }
        names
    }
}

impl Spec {
    /// Whether making the check changes nothing: it may be repeated as often as patience allows.
    pub fn only_reads(&self) -> bool {
        match &self.kind {
            Kind::Http { .. } | Kind::Ows(_) | Kind::Alerts(_) | Kind::Metric(_) | Kind::TlsExpiry(_) => true,
            Kind::Steps(steps) => !steps.iter().any(Exchange::writes),
            Kind::Hurl(_) => false,
        }
    }

    /// Whether it asks for what others measured a while ago: asked again at once, it is the same.
    pub fn is_measured(&self) -> bool {
        matches!(self.kind, Kind::Alerts(_) | Kind::Metric(_))
    }

    /// How long a failure of it is the same failure, in milliseconds: until others have measured anew. Nothing where it is looked at
    /// anew each time.
    pub fn same_failure_ms(&self) -> u64 {
        if self.is_measured() { self.every_ms.min(LONGEST_FAILED_MS) } else { 0 }
    }

    /// How long a failure of it, the last of so many in a row, is good for where it was seen, in milliseconds: as long as it is the
    /// same; and of what may leave something behind each time, until it may be made again.
    pub fn failure_good_for_ms(&self, in_a_row: u32) -> u64 {
        let writes_again = !self.only_reads() && in_a_row >= FAILED_AT_ONCE;
        if writes_again { self.every_ms } else { self.same_failure_ms() }
    }

    /// Bound on one try, in milliseconds, where the environment file names none.
    pub fn default_timeout_ms(&self) -> u64 {
        match &self.kind {
            Kind::Http { assets: false, .. } | Kind::Alerts(_) | Kind::Metric(_) | Kind::TlsExpiry(_) => {
                5_000
            }
            Kind::Http { .. } | Kind::Steps(_) | Kind::Ows(_) => 15_000,
            Kind::Hurl(_) => 30_000,
        }
    }

    /// How long making it may take without patience, in milliseconds, where one try is bounded so.
    pub fn bound_ms(&self, timeout_ms: u64) -> u64 {
        let clears = matches!(&self.kind, Kind::Steps(steps) if steps.iter().any(|step| step.cleanup));
        let once = if clears { timeout_ms.saturating_mul(2) } else { timeout_ms };
        let (times, pause_ms) = self.retry.map_or((1, 0), |retry| (retry.times, retry.every_ms));
        once.saturating_add(pause_ms).saturating_mul(u64::from(times))
    }
}
