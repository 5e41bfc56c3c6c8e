//! The section `[checklist]`: points that no check can judge.

use pointsman_chassis::config::Parsed;
use pointsman_core::{CheckName, clean};
use serde::Deserialize;

use crate::checklist::SEED;

/// A point that a person ticks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManualPoint {
    /// What it is called.
    pub name: CheckName,
    /// What is vouched for, for people.
    pub text: String,
}

/// The section.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Written {
    manual: Vec<WrittenPoint>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPoint {
    name: Parsed<CheckName>,
    text: String,
}

/// Most points that people tick.
const MOST: usize = 32;

/// Completes the points.
pub fn complete(written: Written) -> Result<Vec<ManualPoint>, String> {
    if written.manual.len() > MOST {
        return Err(format!("`[[checklist.manual]]` has {} entries: at most {MOST}", written.manual.len()));
    }
    let mut points: Vec<ManualPoint> = Vec::new();
    for point in written.manual {
        let (name, text) = (point.name.0, clean(&point.text));
        if SEED.iter().any(|(taken, _)| *taken == name.as_str()) || points.iter().any(|p| p.name == name) {
            return Err(format!("`[[checklist.manual]]` names `{name}`, which is another point's name"));
        }
        if text.is_empty() {
            return Err(format!("point `{name}` of the checklist has no `text`"));
        }
        points.push(ManualPoint { name, text });
    }
    Ok(points)
}
