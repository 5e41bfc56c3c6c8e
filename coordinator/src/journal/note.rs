//! Notes on disk: what was seen or said of a release for its checklist.

use pointsman_core as domain;
use serde::{Deserialize, Serialize};

/// [`domain::Note`].
#[derive(Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "kebab-case")]
pub enum Note {
    Checks {
        step: String,
        host: String,
        seen: Vec<Seen>,
    },
    Traffic {
        seconds: u64,
        #[serde(default)]
        incomplete: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        blind: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lost: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lost_failures: Option<u64>,
        requests: u64,
        failures: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timed: Option<u64>,
        #[serde(default)]
        slow: Option<u64>,
        p99_ms: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        too_slow: Option<u64>,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        to_the_end: bool,
    },
    Tick {
        point: String,
        by: String,
        text: Option<String>,
    },
}

/// [`domain::CheckSeen`].
#[derive(Serialize, Deserialize)]
pub struct Seen {
    name: String,
    verdict: String,
    took_ms: u64,
    what: String,
}

/// A note for the disk.
pub fn note_of(note: &domain::Note) -> Note {
    let seen_of = |seen: &domain::CheckSeen| Seen {
        name: seen.name.to_string(),
        verdict: seen.verdict.as_str().to_owned(),
        took_ms: seen.took_ms,
        what: seen.what.clone(),
    };
    match note {
        domain::Note::Checks { step, host, seen } => Note::Checks {
            step: step.to_string(),
            host: host.to_string(),
            seen: seen.iter().map(seen_of).collect(),
        },
        domain::Note::Traffic(traffic) => Note::Traffic {
            seconds: traffic.seconds,
            incomplete: traffic.incomplete,
            blind: traffic.blind,
            lost: traffic.lost,
            lost_failures: traffic.lost_failures,
            requests: traffic.requests,
            failures: traffic.failures,
            timed: traffic.timed,
            slow: traffic.slow,
            p99_ms: traffic.p99_ms,
            too_slow: traffic.too_slow,
            to_the_end: traffic.to_the_end,
        },
        domain::Note::Tick { point, by, text } => {
            Note::Tick { point: point.to_string(), by: by.clone(), text: text.clone() }
        }
    }
}

/// A note from the disk.
pub fn note_from(note: Note) -> Option<domain::Note> {
    let seen_from = |seen: &Seen| {
        let verdict = domain::CheckVerdict::parse(&seen.verdict)?;
        Some(domain::CheckSeen::new(seen.name.parse().ok()?, verdict, seen.took_ms, &seen.what))
    };
    Some(match note {
        Note::Checks { step, host, seen } => domain::Note::Checks {
            step: domain::Step::parse(&step)?,
            host: host.parse().ok()?,
            seen: seen.iter().map(seen_from).collect::<Option<_>>()?,
        },
        Note::Traffic {
            seconds,
            incomplete,
            blind,
            lost,
            lost_failures,
            requests,
            failures,
            timed,
            slow,
            p99_ms,
            too_slow,
            to_the_end,
        } => domain::Note::Traffic(domain::TrafficSeen {
            seconds,
            incomplete,
            blind,
            lost,
            lost_failures,
            requests,
            failures,
            timed,
            slow,
            p99_ms,
            too_slow,
            to_the_end,
        }),
        Note::Tick { point, by, text } => domain::Note::Tick { point: point.parse().ok()?, by, text },
    })
}
