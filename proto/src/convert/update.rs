//! Facts of a release, for whoever follows it.

use std::collections::BTreeSet;

use pointsman_core::{CheckVerdict, Event, HostName, Note, Reading, several};

use super::problem_to_wire;
use crate::v1;

/// A recorded fact for whoever follows a release. `release` is where it stands after the fact.
pub fn update_to_wire(seq: u64, at_ms: u64, event: &Event, release: v1::Release) -> v1::ReleaseUpdate {
    let mut update = v1::ReleaseUpdate {
        seq,
        at_ms,
        kind: event.kind().to_owned(),
        release: Some(release),
        ..Default::default()
    };
    match event {
        Event::OrderIntended { key, attempt } => {
            (update.step, update.host) = (key.step.to_string(), key.host.to_string());
            update.detail = if *attempt == 1 {
                "ordered".to_owned()
            } else {
                format!("ordered again, attempt {attempt}")
            };
        }
        Event::OrderDone { key, evidence } => {
            (update.step, update.host) = (key.step.to_string(), key.host.to_string());
            update.detail.clone_from(&evidence.detail);
        }
        Event::OrderFailed { key, problem } => {
            (update.step, update.host) = (key.step.to_string(), key.host.to_string());
            update.problem = Some(problem_to_wire(problem));
        }
        Event::Fenced(host) => {
            (update.host, update.detail) = (host.to_string(), "obeys this coordinator".to_owned())
        }
        Event::EpochTaken(epoch) => update.detail = format!("the coordinator goes on, epoch {epoch}"),
        Event::GatesRead(Reading::Pass) => update.detail = green(update.release.as_ref(), " again"),
        Event::GatesRead(Reading::Unknown(problem)) => {
            update.kind = "gates-unknown".to_owned();
            update.problem = Some(problem_to_wire(problem));
        }
        Event::GatesRead(Reading::Fail(problem) | Reading::Shared(problem))
        | Event::TurnedBack(problem)
        | Event::Held(problem) => update.problem = Some(problem_to_wire(problem)),
        Event::Requested(request) => {
            let reason = request.reason.as_deref().unwrap_or("no reason given");
            let without: Vec<&str> = request.without.iter().map(HostName::as_str).collect();
            let without =
                if without.is_empty() { String::new() } else { format!(" without {}", without.join(", ")) };
            update.detail = format!("{} asks for {}{without}: {reason}", request.by, request.kind.as_str());
        }
        Event::Planned(plan) => update.detail = format!("planned by {}", plan.created_by),
        Event::Adopted { by, .. } => update.detail = format!("{by} accepted a journal whose end is gone"),
        Event::Noted(Note::Checks { step, host, seen }) => {
            (update.step, update.host) = (step.to_string(), host.to_string());
            let of = |verdict| seen.iter().filter(|seen| seen.verdict == verdict).count();
            let (passed, all) = (of(CheckVerdict::Passed), seen.len());
            update.detail = format!("{passed} of {all} checks pass");
        }
        Event::Noted(Note::Traffic(traffic)) => {
            update.detail = format!("visitors: {} requests, {} failed", traffic.requests, traffic.failures);
        }
        Event::Noted(Note::Tick { point, by, text }) => {
            let text = text.as_deref().unwrap_or("no note");
            update.detail = format!("{by} ticks `{point}`: {text}");
        }
        Event::GatesExpired => update.detail = "the checks are too old and are made again".to_owned(),
        Event::WatchMoved { .. } => {
            update.detail =
                "time passed unwatched, or the clock was set: the watch ends at another moment".to_owned();
        }
        Event::Judged(judged) => {
            update.step = update.release.as_ref().map(|release| release.step.clone()).unwrap_or_default();
            let slowed = if judged.slowed.is_some() { "; slower than before the release" } else { "" };
            update.detail = format!("{}: {}{slowed}", judged.verdict, judged.told);
        }
        Event::WatchPassed => {
            update.step = watched(update.release.as_ref()).to_owned();
            update.detail = format!("watched, and {}", green(update.release.as_ref(), ""));
        }
    }
    update
}

/// What is true of the gates where none objects.
fn green(release: Option<&v1::Release>, again: &str) -> String {
    match release.map_or(&[][..], |release| &release.warnings) {
        [] => format!("the gates are green{again}"),
        warnings => format!("no gate objects{again}; {}", warning(warnings)),
    }
}

/// Which checks warn, each once, whoever made it.
pub fn warning(warnings: &[v1::CheckMade]) -> String {
    let names: BTreeSet<&str> =
        warnings.iter().filter_map(|made| made.seen.as_ref()).map(|seen| seen.name.as_str()).collect();
    let listed = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    format!("{}: {listed}", several(names.len(), "check warns", "checks warn"))
}

/// The step whose watch has just passed: the one before the step in which the release stands now, or the last.
fn watched(release: Option<&v1::Release>) -> &str {
    let steps = release.and_then(|release| release.plan.as_ref()).map_or(&[][..], |plan| &plan.steps);
    let now = release.map_or("", |release| release.step.as_str());
    let before = steps.iter().take_while(|step| step.step != now).last();
    before.map_or("watch", |step| step.step.as_str())
}
