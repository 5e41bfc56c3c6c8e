//! What every event does to every phase, as one reviewed text: `golden/machine_table.txt`.
//!
//! Each sample of a phase is reached by a story that a journal could hold. Below it stand what comes next and
//! one row for each event: the phase that follows, or `-` where the event cannot follow.
//! `UPDATE_GOLDEN=1 cargo test -p pointsman-core --test machine_table` writes the text anew, for review.

mod judgements;
mod plans;
mod story;
#[expect(dead_code, reason = "no agent is out of reach in these stories")]
mod waited;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use judgements::judged;
use plans::{Site, deploy, host, maintenance, plan, rollback};
use pointsman_core::machine::{Next, apply};
use pointsman_core::verdict::Verdict;
use pointsman_core::{
    Aftermath, Code, Epoch, Event, Evidence, Found, HeldAt, Note, OrderKey, Phase, Plan, Problem, Purpose,
    Reading, Request, RequestKind, Stamped, State, Step, TrafficSeen,
};
use story::{Story, lost, refused};
use waited::next;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/machine_table.txt");

/// A phase by name, and a story that ends in it.
struct Sample {
    name: String,
    story: Story,
}

// ------------------------------------------------------------------------------------------------ samples

/// The samples of one plan, under one title.
struct Samples {
    plan: Plan,
    title: &'static str,
    found: Vec<Sample>,
}

impl Samples {
    fn of(title: &'static str, purpose: Purpose) -> Self {
        Self { plan: plan(purpose, Site::of(2, 1)), title, found: Vec::new() }
    }

    fn add(&mut self, name: &str, story: Story) {
        self.found.push(Sample { name: format!("{}: {name}", self.title), story });
    }

    /// A story that stands in a forward step, or is watched.
    fn at(&self, step: Step) -> Story {
        let mut story = Story::begun(self.plan.clone());
        story.reach(step);
        story
    }

    /// A story that turned back when it had reached `step`.
    fn back_from(&self, step: Step) -> Story {
        let mut story = self.at(step);
        story.tell(Event::TurnedBack(refused()));
        story
    }

    /// A step in every stage of its orders, and held.
    fn add_step(&mut self, before: &Story) {
        let Some(step) = before.state.step() else { return };
        self.add(&format!("{step}, nothing sent"), before.clone());

        let mut story = before.clone();
        while let [key, _, ..] = story.left(step).as_slice() {
            story.confirm_on(key);
        }
        for key in story.left(step) {
            story.send(&key);
        }
        self.add(&format!("{step}, last order open"), story);

        let mut story = before.clone();
        story.fail(step, &refused());
        self.add(&format!("{step}, all refused"), story);

        let mut story = before.clone();
        story.fail(step, &lost());
        self.add(&format!("{step}, all answers lost"), story);

        let mut story = before.clone();
        story.restart();
        self.add(&format!("{step}, after a restart"), story);

        let mut story = before.clone();
        story.tell(Event::Held(refused()));
        self.add(&format!("held at {step}"), story);
    }

    fn add_finished(&mut self, story: Story) {
        if let Phase::Finished(outcome) = story.state.phase {
            self.add(outcome.as_str(), story);
        }
    }
}

fn deploys() -> Vec<Sample> {
    let mut samples = Samples::of("deploy", deploy());
    samples.add("planned, nobody fenced", Story::planned(samples.plan.clone()));
    for step in samples.plan.steps().iter().copied().filter(|step| *step != Step::Watch) {
        samples.add_step(&samples.at(step));
    }

    let mut transfer = samples.at(Step::Stage);
    for key in transfer.left(Step::Stage) {
        transfer.send(&key);
    }
    transfer.tell(Event::Requested(request(RequestKind::Abort)));
    samples.add("stage, open, abort asked for", transfer);

    let watching = samples.at(Step::Watch);
    let mut failing = watching.clone();
    failing.tell(Event::GatesRead(Reading::Fail(refused())));
    let mut asked = watching.clone();
    asked.tell(Event::Requested(request(RequestKind::Rollback)));
    let mut restarted = watching.clone();
    restarted.restart();
    let mut held = watching.clone();
    held.tell(Event::Held(refused()));
    let mut confirmed = watching.clone();
    confirmed.tell(Event::WatchPassed);
    samples.add("watching", watching);
    samples.add("watching, one failed reading", failing);
    samples.add("watching, rollback asked for", asked);
    samples.add("watching, after a restart", restarted);
    samples.add("held at watch", held);

    samples.add_step(&samples.back_from(Step::Watch));
    samples.add_step(&samples.back_from(Step::Check));
    samples.add_step(&samples.back_from(Step::Expose));
    samples.add_step(&samples.back_from(Step::Drain));

    samples.add_finished(confirmed);
    let mut rolled_back = samples.back_from(Step::Watch);
    rolled_back.confirm(Step::RouteBack);
    samples.add_finished(rolled_back);
    let mut aborted = samples.back_from(Step::Drain);
    aborted.confirm(Step::Discard);
    samples.add_finished(aborted);
    let mut refused_at_once = Story::planned(samples.plan.clone());
    refused_at_once.tell(Event::TurnedBack(refused()));
    samples.add_finished(refused_at_once);
    samples.found
}

fn canaries() -> Vec<Sample> {
    let mut samples = Samples::of("canary", deploy());
    samples.plan = plan(deploy(), Site { splits: &[10, 50], ..Site::of(2, 1) });
    samples.add_step(&samples.at(Step::Canary(1)));
    let mut watching = samples.at(Step::Canary(1));
    watching.confirm(Step::Canary(1));
    let mut promoted = watching.clone();
    promoted.tell(Event::Requested(request(RequestKind::Promote)));
    let mut held = watching.clone();
    held.tell(Event::Held(refused()));
    let mut back = watching.clone();
    back.tell(Event::TurnedBack(refused()));
    samples.add("watching canary-1", watching);
    samples.add("watching canary-1, promotion asked for", promoted);
    samples.add("held at the watch of canary-1", held);
    samples.add_step(&samples.at(Step::Canary(2)));
    samples.add_step(&samples.at(Step::Switch));
    samples.add_step(&back);
    samples.found
}

fn rollbacks() -> Vec<Sample> {
    let mut samples = Samples::of("rollback", rollback());
    samples.add_step(&samples.at(Step::Preflight));
    samples.add_step(&samples.at(Step::Switch));

    let mut confirmed = samples.at(Step::Switch);
    confirmed.confirm(Step::Switch);
    let mut back = samples.at(Step::Switch);
    back.fail(Step::Switch, &lost());
    back.tell(Event::TurnedBack(lost()));
    samples.add_step(&back);
    let mut rolled_back = back;
    rolled_back.confirm(Step::RouteBack);
    samples.add_finished(confirmed);
    samples.add_finished(rolled_back);
    samples.add_finished(samples.back_from(Step::Preflight));
    samples.found
}

fn maintenances(title: &'static str, on: bool) -> Vec<Sample> {
    let mut samples = Samples::of(title, maintenance(on));
    samples.add_step(&samples.at(Step::Maintain));

    let mut confirmed = samples.at(Step::Maintain);
    confirmed.confirm(Step::Maintain);
    let mut back = samples.at(Step::Maintain);
    back.fail(Step::Maintain, &lost());
    back.tell(Event::TurnedBack(lost()));
    samples.add_step(&back);
    let mut aborted = back;
    aborted.confirm(Step::Unmaintain);
    samples.add_finished(confirmed);
    samples.add_finished(aborted);
    samples.add_finished(samples.back_from(Step::Maintain));
    samples.found
}

// ------------------------------------------------------------------------------------------------- events

fn request(kind: RequestKind) -> Request {
    Request { kind, by: "ada".to_owned(), reason: None, without: Vec::new() }
}

/// The order that the events of a sample speak of: the last of the step it stands in, and one of a step it
/// does not stand in.
fn orders(state: &State) -> (OrderKey, OrderKey) {
    let first = state.plan.steps().first().copied().unwrap_or(Step::Preflight);
    let step = state.step().filter(|step| *step != Step::Watch).unwrap_or(first);
    let other = if step.moves_visitors() || step == Step::Maintain { Step::RouteBack } else { Step::Switch };
    let last = |step| state.plan.targets(step).pop().unwrap_or_else(|| host("lb1"));
    (OrderKey { step, host: last(step) }, OrderKey { step: other, host: last(other) })
}

fn events(state: &State) -> Vec<(&'static str, Event)> {
    let (key, other) = orders(state);
    let attempts =
        |key: &OrderKey| state.progress(key.step, &key.host).map_or(0, |progress| progress.attempts);
    let (next, of_other) = (attempts(&key) + 1, attempts(&other) + 1);
    let agent = state.unfenced.first().cloned().unwrap_or_else(|| host("lb1"));
    let unknown = Problem::new(Code::ReceiptsUnavailable, "who knows").aftermath(Aftermath::Unknown);
    let failed = |problem: &Problem| Event::OrderFailed { key: key.clone(), problem: problem.clone() };
    vec![
        ("planned", Event::Planned(std::sync::Arc::clone(&state.plan))),
        ("epoch-taken newer", Event::EpochTaken(Epoch(state.epoch.0 + 1))),
        ("epoch-taken same", Event::EpochTaken(state.epoch)),
        ("fenced", Event::Fenced(agent)),
        ("order-intended", Event::OrderIntended { key: key.clone(), attempt: next }),
        ("order-intended again", Event::OrderIntended { key: key.clone(), attempt: next - 1 }),
        ("order-intended elsewhere", Event::OrderIntended { key: other, attempt: of_other }),
        ("order-done", Event::OrderDone { key: key.clone(), evidence: Evidence::default() }),
        ("order-failed unchanged", failed(&refused())),
        ("order-failed unknown", failed(&unknown)),
        ("gates-read pass", Event::GatesRead(Reading::Pass)),
        ("gates-read fail", Event::GatesRead(Reading::Fail(refused()))),
        ("gates-read shared", Event::GatesRead(Reading::Shared(refused()))),
        ("gates-read unknown", Event::GatesRead(Reading::Unknown(unknown))),
        ("gates-expired", Event::GatesExpired),
        (
            "watch-moved",
            Event::WatchMoved { until: pointsman_core::Timestamp(plans::CREATED_AT.0 + 999_000) },
        ),
        ("judged rollback", Event::Judged(Box::new(judged(Verdict::Rollback)))),
        ("watch-passed", Event::WatchPassed),
        ("requested abort", Event::Requested(request(RequestKind::Abort))),
        ("requested rollback", Event::Requested(request(RequestKind::Rollback))),
        ("requested pause", Event::Requested(request(RequestKind::Pause))),
        ("requested resume", Event::Requested(request(RequestKind::Resume))),
        ("requested promote", Event::Requested(request(RequestKind::Promote))),
        ("turned-back", Event::TurnedBack(refused())),
        ("held", Event::Held(refused())),
        ("adopted", Event::Adopted { by: "ada".to_owned(), found: Found::default() }),
        ("noted", Event::Noted(Note::Traffic(TrafficSeen::default()))),
    ]
}

// -------------------------------------------------------------------------------------------------- table

fn phase_word(phase: &Phase) -> String {
    match phase {
        Phase::Doing(step) => step.to_string(),
        Phase::Watching { .. } => "watching".to_owned(),
        Phase::Held { at: HeldAt::Step(step), .. } => format!("held at {step}"),
        Phase::Held { at: HeldAt::Watch(_), .. } => "held at watch".to_owned(),
        Phase::Finished(outcome) => outcome.as_str().to_owned(),
    }
}

/// The work in words, without anything that only a reader of the code would miss.
fn next_words(work: &Next) -> String {
    let orders = |keys: &[OrderKey]| {
        let words: Vec<String> = keys.iter().map(|key| format!("{} {}", key.step, key.host)).collect();
        words.join(", ")
    };
    match work {
        Next::Fence(hosts) => {
            let names: Vec<&str> = hosts.iter().map(|host| host.as_str()).collect();
            format!("fence {}", names.join(", "))
        }
        Next::Send(keys) => format!("send {}", orders(keys)),
        Next::GiveUp(keys) => format!("give up {}", orders(keys)),
        Next::Await(None) => "wait".to_owned(),
        Next::Await(Some(_)) => "wait for a while".to_owned(),
        Next::ReadGates => "read the gates".to_owned(),
        Next::HearVisitors => "hear visitors".to_owned(),
        Next::Record(event) => format!("record {}", event.kind()),
        Next::Stop => "stop".to_owned(),
    }
}

fn table() -> String {
    let samples = [
        deploys(),
        canaries(),
        rollbacks(),
        maintenances("maintenance on", true),
        maintenances("maintenance off", false),
    ];
    let mut text = String::new();
    for Sample { name, story } in samples.into_iter().flatten() {
        let _ = writeln!(text, "[{name}] next: {}", next_words(&next(&story.state, story.now)));
        for (event_name, event) in events(&story.state) {
            let after = apply(&story.state, &Stamped { at: story.now.plus_ms(1_000), event });
            let cell = after.map_or_else(|_| "-".to_owned(), |state| phase_word(&state.phase));
            let _ = writeln!(text, "  {event_name:<26}{cell}");
        }
        text.push('\n');
    }
    text
}

/// The first line in which two texts differ, with the heading it stands under.
fn first_difference(golden: &str, found: &str) -> String {
    let mut heading = "";
    let (mut golden_lines, mut found_lines) = (golden.lines(), found.lines());
    for number in 1.. {
        let (was, is) = (golden_lines.next(), found_lines.next());
        heading = is.filter(|line| line.starts_with('[')).unwrap_or(heading);
        if was != is {
            let (was, is) = (was.unwrap_or("(end)"), is.unwrap_or("(end)"));
            return format!("line {number}, under {heading}\n  golden: {was}\n  found:  {is}");
        }
        if was.is_none() {
            break;
        }
    }
    "only in line ends".to_owned()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a golden file is compared with the disk, or written to it")]
fn every_event_in_every_phase_does_what_was_reviewed() -> std::io::Result<()> {
    let found = table();
    if std::env::var("UPDATE_GOLDEN").is_ok_and(|value| value == "1") {
        return std::fs::write(GOLDEN, &found);
    }
    let golden = std::fs::read_to_string(GOLDEN).unwrap_or_default();
    assert!(
        golden == found,
        "`tests/golden/machine_table.txt` differs in {}\n  if this is meant: `UPDATE_GOLDEN=1 cargo test`, and review it",
        first_difference(&golden, &found)
    );
    Ok(())
}

#[test]
fn the_table_has_every_kind_of_event() {
    let story = Story::begun(plan(deploy(), Site::of(1, 1)));
    let kinds: BTreeSet<&str> = events(&story.state).iter().map(|(_, event)| event.kind()).collect();
    // A kind that is added to the machine stops this from compiling until the table has it too.
    let known = match Event::WatchPassed {
        Event::Planned(_)
        | Event::EpochTaken(_)
        | Event::Fenced(_)
        | Event::OrderIntended { .. }
        | Event::OrderDone { .. }
        | Event::OrderFailed { .. }
        | Event::GatesRead(_)
        | Event::GatesExpired
        | Event::WatchMoved { .. }
        | Event::Judged(_)
        | Event::WatchPassed
        | Event::Requested(_)
        | Event::TurnedBack(_)
        | Event::Held(_)
        | Event::Noted(_)
        | Event::Adopted { .. } => 16,
    };
    assert_eq!(kinds.len(), known, "{kinds:?}");
}
