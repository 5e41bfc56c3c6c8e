//! For which part of a site's visitors a rule of HAProxy's holds, as far as its words say.

use super::comparison::{Comparison, Fits};
use super::trusted::{Condition, Term, named};
use crate::haproxy_cfg::{Line, Section};

/// A part of the site's visitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Nobody,
    /// Those who ask for some paths, or come from some addresses.
    Few,
    /// What it is about cannot be seen: it may be all of them.
    Unknown,
    /// All but some.
    Most,
    Everybody,
}

impl Part {
    /// Whether the site's visitors as such are left alone.
    pub(super) fn is_apart(self) -> bool {
        self <= Self::Few
    }

    /// Everybody else.
    pub(super) fn others(self) -> Self {
        match self {
            Self::Nobody => Self::Everybody,
            Self::Few => Self::Most,
            Self::Unknown => Self::Unknown,
            Self::Most => Self::Few,
            Self::Everybody => Self::Nobody,
        }
    }

    fn turned(self, negated: bool) -> Self {
        if negated { self.others() } else { self }
    }
}

/// Where a condition stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    /// The section whose `acl` lines it names.
    pub(super) home: &'a Section,
    /// The frontend that takes the requests in.
    pub(super) front: &'a Section,
    /// The site's host name.
    pub(super) host: &'a str,
}

impl<'a> At<'a> {
    /// In the frontend itself.
    pub(super) fn of(front: &'a Section, host: &'a str) -> Self {
        Self { home: front, front, host }
    }
}

/// What is asked of a request, or of where it comes from: a term that asks none of this holds for all requests or for none.
const OF_REQUESTS: [&str; 14] = [
    "path",
    "url",
    "base",
    "hdr",
    "req.",
    "src",
    "dst",
    "method",
    "ssl_",
    "cook",
    "query",
    "http_auth",
    "fc_",
    "capture.",
];

/// Fetches of the host that a visitor asks for, but for those that read it from a header.
const OF_HOST: [&str; 3] = ["ssl_fc_sni", "req.ssl_sni", "req_ssl_sni"];

/// Fetches of the path, with what stands before or behind it.
const OF_PATH: [&str; 5] = ["path", "pathq", "url", "capture.req.uri", "base"];

/// Paths that nothing but "every path" has in common.
const ANY_PATHS: [&str; 2] = ["/", "/q7zt/x9wk"];

/// The conditions that HAProxy has names for already, by what they say of a site's visitors: that each of them fits, or none.
/// Methods and addresses are looked at by what they stand for.
const OF_ALL: [&str; 9] = [
    "HTTP",
    "HTTP_1.0",
    "HTTP_1.1",
    "HTTP_2.0",
    "HTTP_3.0",
    "HTTP_CONTENT",
    "HTTP_URL_SLASH",
    "REQ_CONTENT",
    "WAIT_END",
];
const OF_NONE: [&str; 5] = ["FALSE", "LOCALHOST", "HTTP_URL_ABS", "HTTP_URL_STAR", "RDP_COOKIE"];

/// Methods by which visitors of a site ask.
const OF_VISITORS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"];

/// For whom a name holds that HAProxy knows without an `acl`; `None` for any other.
fn predefined(name: &str) -> Option<Part> {
    if let Some(method) = name.strip_prefix("METH_") {
        return Some(if OF_VISITORS.contains(&method) { Part::Unknown } else { Part::Few });
    }
    match name {
        "TRUE" => Some(Part::Everybody),
        _ if OF_ALL.contains(&name) => Some(Part::Unknown),
        _ if OF_NONE.contains(&name) => Some(Part::Nobody),
        _ => None,
    }
}

/// For whom a line counts: all that its condition holds for, or everybody without one.
pub(super) fn of_line(line: &Line, at: At<'_>) -> Part {
    let Some(condition) = Condition::of(line) else { return Part::Everybody };
    let alternatives = condition.alternatives.iter().map(|terms| of_terms(terms, at));
    alternatives.max().unwrap_or(Part::Everybody).turned(condition.negated)
}

/// For whom several terms hold together.
pub(super) fn of_terms(terms: &[Term<'_>], at: At<'_>) -> Part {
    terms.iter().map(|term| of_term(term, at)).min().unwrap_or(Part::Everybody)
}

fn of_term(term: &Term<'_>, at: At<'_>) -> Part {
    // Lines of one name are alternatives, and go before what HAProxy knows by that name.
    let lines = named(at.home, term.name()).map(|line| line.words().get(2..).unwrap_or_default());
    let part = lines.map(|words| of_words(words, at)).max();
    let part = part.or_else(|| predefined(term.name()));
    part.unwrap_or_else(|| of_words(term.words, at)).turned(term.negated)
}

/// For whom one comparison holds: what is looked at, flags, values.
fn of_words(words: &[String], at: At<'_>) -> Part {
    let Some(comparison) = Comparison::of(words) else { return Part::Unknown };
    let fetch = comparison.fetch.to_ascii_lowercase();
    let of_header = fetch.contains("hdr") && comparison.argument.eq_ignore_ascii_case("host");
    if of_header || OF_HOST.contains(&fetch.as_str()) {
        let is_name = match of_header {
            true => ["hdr", "req.hdr", "req.fhdr"].contains(&fetch.as_str()),
            // Whoever comes without TLS names no host there.
            false => !comparison.is_presence(),
        };
        return match comparison.fits_host(at.host) {
            _ if !is_name || !comparison.is_plain => Part::Unknown,
            Fits::Never => Part::Nobody,
            Fits::Perhaps => Part::Unknown,
            Fits::Always => Part::Everybody,
        };
    }
    if !OF_REQUESTS.iter().any(|begin| fetch.starts_with(begin)) {
        return Part::Unknown;
    }
    match fetch.as_str() {
        // Of all visitors or of none: nobody speaks TLS where no `bind` does.
        "ssl_fc" if at.front.own(&["bind"]).any(|line| line.has("ssl")) => Part::Unknown,
        "ssl_fc" => Part::Nobody,
        "method" => {
            let of_visitors = |value: &&str| OF_VISITORS.contains(&value.to_ascii_uppercase().as_str());
            if comparison.values.iter().any(of_visitors) { Part::Unknown } else { Part::Few }
        }
        path if OF_PATH.contains(&path) => of_paths(&comparison, at.host),
        _ => Part::Few,
    }
}

/// Lists of paths, and what is made of a path, are for some of them.
fn of_paths(comparison: &Comparison<'_>, host: &str) -> Part {
    if !comparison.is_plain || comparison.from_file {
        return Part::Few;
    }
    let before = if comparison.fetch == "base" { host } else { "" };
    let fits = ANY_PATHS.iter().map(|path| comparison.fits(&format!("{before}{path}"))).min();
    match fits.unwrap_or(Fits::Never) {
        Fits::Never => Part::Few,
        Fits::Perhaps => Part::Unknown,
        Fits::Always => Part::Everybody,
    }
}
