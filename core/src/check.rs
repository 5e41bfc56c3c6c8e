//! Named checks: yes-or-no observations that let a release go on.

use std::fmt;
use std::sync::Arc;

use crate::{CheckName, HttpPath, clean};

/// Where a check is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckFrom {
    /// On each host of the slot, by its agent.
    Hosts,
    /// Through each load balancer, pinned to the slot, by the agent there.
    Balancers,
}

/// When a check is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckMoment {
    /// Before the switch: a failure aborts the release.
    BeforeSwitch,
    /// Again and again while the release is watched: failures roll it back.
    AfterSwitch,
}

/// What a check does, in its written form: JSON, as the environment file has it in TOML. The release engine carries it
/// from the plan to whoever makes the check and does not look inside, so the form is the checks' own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CheckSpec(Arc<str>);

/// A text that cannot say what a check does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a check's description is {0} bytes of JSON without control characters: expected 2 to {MAX_SPEC_BYTES}"
)]
pub struct InvalidCheckSpec(usize);

/// Longest description of one check, in bytes: a sequence of 32 requests with bodies fits.
const MAX_SPEC_BYTES: usize = 32 * 1024;

impl CheckSpec {
    /// Takes a description. Whether it means anything is for the checks to say.
    pub fn parse(text: &str) -> Result<Self, InvalidCheckSpec> {
        let sound = text.starts_with('{') && text.ends_with('}') && !text.contains(char::is_control);
        if sound && text.len() <= MAX_SPEC_BYTES {
            return Ok(Self(text.into()));
        }
        Err(InvalidCheckSpec(text.len()))
    }

    /// One request, its status and a text that the body must have: all that checks could say before they had a
    /// description, and still what most of them say.
    pub fn get(path: &HttpPath, status: u16, body: Option<&str>) -> Self {
        let body = body.map(|text| format!(",\"body\":{}", quoted(text))).unwrap_or_default();
        let path = quoted(path.as_str());
        Self(format!("{{\"http\":{{\"path\":{path},\"expect\":{{\"status\":{status}{body}}}}}}}").into())
    }

    /// The description.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CheckSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for CheckSpec {
    type Err = InvalidCheckSpec;
    fn from_str(text: &str) -> Result<Self, InvalidCheckSpec> {
        Self::parse(text)
    }
}

/// A text as JSON writes it.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len().saturating_add(2));
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A named check: what is asked for, where from, when, and how long.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Check {
    /// The name in the environment file.
    pub name: CheckName,
    /// Where it is made from.
    pub from: CheckFrom,
    /// Whether it gates the switch.
    pub before_switch: bool,
    /// Whether it is read during the watch.
    pub after_switch: bool,
    /// What it does.
    pub spec: CheckSpec,
    /// Bound on one try, in milliseconds.
    pub timeout_ms: u64,
    /// How long an unanswered or failing check is repeated before it counts as failed, in milliseconds.
    pub patience_ms: u64,
    /// How long it may take without patience, in milliseconds: its own repetitions and what it clears away included.
    pub bound_ms: u64,
}

impl Check {
    /// Whether the check is made at this moment.
    pub fn applies(&self, moment: CheckMoment) -> bool {
        match moment {
            CheckMoment::BeforeSwitch => self.before_switch,
            CheckMoment::AfterSwitch => self.after_switch,
        }
    }
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckVerdict {
    /// It passed.
    Passed,
    /// It did not.
    Failed,
    /// It was not made, because one that it builds on failed.
    NotMade,
}

impl CheckVerdict {
    /// In a word: `passed`, `failed`, `not-made`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::NotMade => "not-made",
        }
    }

    /// The worse of two: one load balancer makes a check at each of several servers. A failure is worse than silence, and
    /// silence worse than a pass.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        match (self, other) {
            (Self::Failed, _) | (_, Self::Failed) => Self::Failed,
            (Self::NotMade, _) | (_, Self::NotMade) => Self::NotMade,
            (Self::Passed, Self::Passed) => Self::Passed,
        }
    }

    /// Finds the verdict that a word names.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Passed, Self::Failed, Self::NotMade].into_iter().find(|verdict| verdict.as_str() == word)
    }
}

/// One check as it was made in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckSeen {
    /// Which.
    pub name: CheckName,
    /// What came of it.
    pub verdict: CheckVerdict,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What was seen, in words for people, without any secret.
    pub what: String,
}

/// Longest evidence of one check, in characters: a line on a screen.
const MAX_SEEN_CHARS: usize = 160;

/// Most checks of which a place tells in one answer: all that an environment may have, at eight servers.
pub const MAX_SEEN: usize = 512;

impl CheckSeen {
    /// What was seen, cut to what may travel.
    pub fn new(name: CheckName, verdict: CheckVerdict, took_ms: u64, what: &str) -> Self {
        let what = clean(what).chars().take(MAX_SEEN_CHARS).collect();
        Self { name, verdict, took_ms, what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_check_is_json_whatever_its_text_is() {
        let path = HttpPath::parse("/a?\"=\\").unwrap();
        let spec = CheckSpec::get(&path, 204, Some("say \"hi\"\n\\"));
        let value: serde_json::Value = serde_json::from_str(spec.as_str()).unwrap();
        assert_eq!(value["http"]["path"], "/a?\"=\\");
        assert_eq!(value["http"]["expect"]["status"], 204);
        assert_eq!(value["http"]["expect"]["body"], "say \"hi\"\n\\");
        assert_eq!(CheckSpec::parse(spec.as_str()), Ok(spec));
    }

    #[test]
    fn what_is_no_description_is_refused() {
        for text in ["", "[]", "{\n}", &format!("{{{}}}", " ".repeat(MAX_SPEC_BYTES))] {
            assert!(CheckSpec::parse(text).is_err(), "{text}");
        }
    }
}
