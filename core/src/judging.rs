//! What follows from the visitors' signals while a release is watched. The gates are read beside it, and each of the two
//! can turn a release back; only both together let it go on.

use crate::machine::{is_remembered, turns};
use crate::verdict::{Judgement, Metric, Reason, Verdict};
use crate::{
    Blind, Code, EnvironmentName, Event, Judged, Phase, Problem, Reading, RequestKind, Ruling, State,
    Timestamp, VerdictMode, WatchProgress,
};

/// Requests of its own that a watch needs after another one, however much is known from before: silence proves nothing.
const OWN_REQUESTS: u64 = 100;

/// How many requests of its own this watch still lacks for a proof.
fn lacking(state: &State, judgement: &Judgement) -> u64 {
    let seen = judgement.errors.limit.0.requests;
    match (state.verdict.before, seen.checked_sub(state.verdict.before)) {
        // The first needs as many as the proof does; so does a judge that had to begin anew, and knows of none before.
        (0, _) | (_, None) => 0,
        (_, Some(own)) => state.plan.verdict.min_requests.max(OWN_REQUESTS).saturating_sub(own),
    }
}

fn ruled(state: &State, judgement: &Judgement) -> Ruling {
    let mut ruling = Ruling::of(&state.plan, judgement);
    if ruling.verdict == Verdict::Promote && lacking(state, judgement) > 0 {
        ruling.verdict = Verdict::Undecided;
    }
    ruling
}

fn judged(state: &State, judgement: &Judgement) -> Judged {
    let judged = Judged::of(&state.plan, judgement);
    match (judged.verdict, lacking(state, judgement)) {
        (Verdict::Promote, lacking @ 1..) => Judged {
            verdict: Verdict::Undecided,
            told: format!("{}; with this share it must serve {lacking} requests more", judged.told),
            needed: Some(judged.needed.unwrap_or(0).max(lacking)),
            ..judged
        },
        _ => judged,
    }
}

/// What follows from what was made of one more second, as facts to record in order. What changes nothing is not recorded.
pub fn heard(state: &State, now: Timestamp, judgement: &Judgement) -> Vec<Event> {
    let (plan, known) = (&state.plan, state.verdict.known);
    let on_its_way = state.asked.as_ref().is_some_and(|asked| asked.kind != RequestKind::Promote);
    if state.judged_after().is_none() || on_its_way || plan.verdict.mode == VerdictMode::Off {
        return Vec::new();
    }
    let ruling = ruled(state, judgement);
    let (acts, watching) = (plan.verdict.acts(), matches!(state.phase, Phase::Watching { .. }));
    let follows = acts
        && match ruling.verdict {
            Verdict::Rollback => plan.automatic_rollback || watching,
            Verdict::Hold => watching,
            Verdict::Promote | Verdict::Inconclusive | Verdict::Undecided => false,
        };
    let is_news = match ruling.verdict {
        // A proof is of use only where the watch may end by it, and is taken back where it is none any more.
        Verdict::Promote if acts => {
            known != Some(Verdict::Promote)
                && until(state).is_some_and(|until| long_enough(state, until, now))
        }
        Verdict::Undecided => acts && known == Some(Verdict::Promote),
        verdict => known != Some(verdict),
    };
    let warning = (ruling.warns && !state.verdict.warned) || (ruling.slowed && !state.verdict.slowed);
    if !follows && !is_news && !warning {
        return Vec::new();
    }
    let judged = judged(state, judgement);
    let event = match judged.verdict {
        _ if !follows => None,
        Verdict::Rollback => turns(state, against(&judged)),
        _ => Some(Event::Held(shared(state, &judged))),
    };
    [Event::Judged(Box::new(judged))].into_iter().chain(event).collect()
}

/// Whether the watch may end by a proof now. What nobody watched does not count as watched.
fn long_enough(state: &State, until: Timestamp, now: Timestamp) -> bool {
    let least_ms = state.plan.verdict.min_watch_ms;
    least_ms.is_some_and(|least_ms| until.ms_since(now).saturating_add(least_ms) <= state.watch_ms())
}

fn until(state: &State) -> Option<Timestamp> {
    match state.phase {
        Phase::Watching { until, .. } => Some(until),
        _ => None,
    }
}

/// Whether a watch whose gates are green is over, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// It goes on.
    No,
    /// The release goes on.
    Passed,
    /// It took as long as it may, and nothing is proven.
    Undecided,
}

/// Whether the watch is over at `now`, where it is to end at `until`.
pub(crate) fn over(state: &State, until: Timestamp, now: Timestamp) -> Over {
    let plan = &state.plan.verdict;
    let proven = plan.acts() && state.verdict.known == Some(Verdict::Promote);
    if proven && long_enough(state, until, now) {
        return Over::Passed;
    }
    match now >= until {
        false => Over::No,
        true if plan.must_decide() && !proven => Over::Undecided,
        true => Over::Passed,
    }
}

/// Whether a watch may end well: where it must be decided, by a proof or by a person.
pub(crate) fn may_pass(state: &State) -> bool {
    let promoted = state.asked.as_ref().is_some_and(|asked| asked.kind == RequestKind::Promote);
    promoted || !state.plan.verdict.must_decide() || state.verdict.known == Some(Verdict::Promote)
}

/// What follows where nothing is proven in the longest time.
pub(crate) fn undecided(state: &State) -> Event {
    let (plan, environment) = (&state.plan, &state.plan.environment);
    let message = format!("not decided within {} s", state.watch_ms() / 1_000);
    let problem = Problem::new(Code::VerdictUndecided, message);
    if plan.verdict.undecided_turns_back && plan.automatic_rollback {
        return Event::TurnedBack(problem.hint("start again when there is more traffic, or watch longer"));
    }
    Event::Held(problem.hint(format!(
        "`pointsman resume {environment}` watches on; then `pointsman promote {environment}` goes on without a verdict"
    )))
}

fn ends(event: &Event) -> bool {
    matches!(event, Event::WatchPassed | Event::TurnedBack(_) | Event::Held(_))
}

/// What follows from a reading of the gates, with what the visitors' judge has said by then: a second may have been judged
/// that nothing was recorded of yet, because the gates were read in the same moment. It must not end well then. `seen_now`
/// says that visitors are in sight: what was judged longer ago says nothing of what fails now.
pub fn gates_and_visitors(
    state: &State,
    now: Timestamp,
    mut gates: Vec<Event>,
    judgement: Option<&Judgement>,
    seen_now: bool,
) -> Vec<Event> {
    let said = judgement.map(|judgement| heard(state, now, judgement)).unwrap_or_default();
    let turning = gates.iter().find_map(|event| match event {
        Event::TurnedBack(problem) => Some(problem.code),
        _ => None,
    });
    let excused = turning.is_some_and(|code| excused(state, code, judgement.filter(|_| seen_now)));
    let goes_ahead = match said.last() {
        Some(Event::TurnedBack(_)) => true,
        // Everything else is outweighed by gates that fail.
        Some(Event::Held(_)) => turning.is_none() || excused,
        _ => false,
    };
    if excused && !goes_ahead {
        // It is held for that already: one row of failures is recorded, and no more.
        gates.retain(|event| !ends(event));
        if state.watch.failures >= state.plan.watch.fail_after {
            gates.clear();
        }
        return gates;
    }
    if !goes_ahead {
        return with_last_word(state, gates, judgement);
    }
    gates.retain(|event| !ends(event));
    gates.into_iter().chain(said).collect()
}

/// Whether gates that fail with this are excused by what was judged of visitors who are in sight. What strikes the visitors of both
/// slots strikes checks too, and going back would not help. A host that does not hold the release, or a slot without servers, is
/// the new slot's own.
fn excused(state: &State, code: Code, seen_now: Option<&Judgement>) -> bool {
    code == Code::CheckFailed && seen_now.is_some_and(|judgement| strikes_both(state, judgement))
}

/// Whether the visitors' judge says that both slots are struck. That the site was no better before the release says nothing of
/// this moment, nor of checks.
fn strikes_both(state: &State, judgement: &Judgement) -> bool {
    let ruling = ruled(state, judgement);
    let struck = |metric: Metric| {
        matches!(judgement.against(metric), Some(Reason::BothSick(_))) && !judgement.finding(metric).as_before
    };
    let struck = struck(Metric::Errors) || struck(Metric::Slowness);
    state.plan.verdict.acts() && ruling.verdict == Verdict::Hold && ruling.shared && struck
}

/// Puts what is known of the visitors before the end of a watch, so that every end carries its numbers.
fn with_last_word(state: &State, mut events: Vec<Event>, judgement: Option<&Judgement>) -> Vec<Event> {
    let at = events.iter().position(ends);
    let judgement = judgement.filter(|_| state.plan.verdict.mode != VerdictMode::Off);
    let (Some(at), Some(judgement)) = (at, judgement) else { return events };
    let judged = judged(state, judgement);
    if let Some(Event::Held(problem) | Event::TurnedBack(problem)) = events.get_mut(at)
        && problem.code == Code::VerdictUndecided
    {
        *problem = problem.clone().cause(&judged.told);
    }
    // The proof that a watch ends by is recorded: nothing that came since may take it back in the same breath.
    let by_proof = state.verdict.known == Some(Verdict::Promote);
    if !by_proof || judged.verdict == Verdict::Promote {
        events.insert(at, Event::Judged(Box::new(judged)));
    }
    events
}

/// What the gates say of a release that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AfterEnd {
    /// Nothing that anybody has to know yet.
    Well,
    /// The new slot alone fails: its visitors are to be led back.
    Back(Problem),
    /// Nothing follows by itself, and a person should know.
    Told(Problem),
}

/// What visitors and gates of a release that is over come to together: the graver of the two. What strikes the visitors of both slots
/// strikes checks too, as while it was watched: then it is told, and nobody is led back. `seen_now` is what was judged of
/// visitors, where they are in sight.
pub fn both_after_end(
    state: &State,
    by_visitors: &AfterEnd,
    by_gates: AfterEnd,
    seen_now: Option<&Judgement>,
) -> AfterEnd {
    match (by_visitors, by_gates) {
        (AfterEnd::Back(_), _) | (_, AfterEnd::Well) => by_visitors.clone(),
        (by_visitors, AfterEnd::Back(problem)) if excused(state, problem.code, seen_now) => match by_visitors
        {
            AfterEnd::Well => AfterEnd::Told(shared_gates(state, &problem)),
            told => told.clone(),
        },
        (_, by_gates @ AfterEnd::Back(_)) | (AfterEnd::Well, by_gates) => by_gates,
        (AfterEnd::Told(_), AfterEnd::Told(_)) => by_visitors.clone(),
    }
}

/// Adds a reading of the gates to the row of failures of a release that is over, and says what that comes to: after as many as
/// would have turned it back. A route that is not its own any more is somebody's hand, and none of its faults.
pub fn gates_after_end(
    state: &State,
    row: &mut WatchProgress,
    reading: &Reading,
    now: Timestamp,
) -> AfterEnd {
    let watch = &state.plan.watch;
    match reading {
        Reading::Pass => *row = WatchProgress::default(),
        // It was counted when it was seen.
        Reading::Fail(problem) if is_remembered(problem) && row.failures > 0 => row.blind = None,
        Reading::Fail(problem) if !matches!(problem.code, Code::CheckFailed | Code::BackendUnhealthy) => {
            row.blind = None;
            return AfterEnd::Told(problem.clone());
        }
        Reading::Fail(_) | Reading::Shared(_) => {
            row.fails(matches!(reading, Reading::Shared(_)));
            row.blind = None;
        }
        Reading::Unknown(problem) => {
            let _ = row.blind.get_or_insert_with(|| Blind { since: now, why: problem.clone() });
        }
    }
    let blind = row.blind.as_ref().is_some_and(|blind| now.ms_since(blind.since) >= watch.blind_ms);
    match reading {
        Reading::Fail(problem) if row.alone >= watch.fail_after => AfterEnd::Back(problem.clone()),
        Reading::Fail(problem) | Reading::Shared(problem)
            if row.failures >= watch.fail_after && row.is_shared() =>
        {
            AfterEnd::Told(shared_gates(state, problem))
        }
        Reading::Unknown(problem) if blind => AfterEnd::Told(problem.clone()),
        // What had failed often enough has not passed since, only because somebody cannot be asked.
        Reading::Unknown(problem) if row.alone >= watch.fail_after => AfterEnd::Told(problem.clone()),
        _ => AfterEnd::Well,
    }
}

/// What a person should know of a release that is over and fares too badly, but cannot go back.
pub fn kept_after_end(problem: &Problem, kept_by: &Problem, environment: &EnvironmentName) -> Problem {
    let kept = problem.clone().cause("it does not go back by itself").because(kept_by);
    kept.hint(format!("{}; then `pointsman rollback {environment}`", kept_by.hint))
}

/// What a person should know of a release that is over while its visitors fare badly.
pub fn after_end(state: &State, judged: &Judged) -> Problem {
    let environment = &state.plan.environment;
    Problem::new(Code::VerdictAgainst, &judged.told)
        .hint(format!("look at the new version, and perhaps `pointsman rollback {environment}`"))
}

fn against(judged: &Judged) -> Problem {
    Problem::new(Code::VerdictAgainst, &judged.told)
        .hint("compare the two versions: `pointsman explain PM0411`")
}

/// What a person should know where the same checks fail on both slots.
pub(crate) fn shared_gates(state: &State, problem: &Problem) -> Problem {
    let environment = &state.plan.environment;
    let mut shared = Problem::new(Code::SharedFault, format!("both slots fail: {problem}"));
    shared.causes.clone_from(&problem.causes);
    shared.hint(format!(
        "look at what both slots use; then `pointsman resume {environment}` or `pointsman rollback {environment}`"
    ))
}

fn shared(state: &State, judged: &Judged) -> Problem {
    let environment = &state.plan.environment;
    let (code, look) = match judged.shared {
        true => (Code::SharedFault, "look at what both slots use"),
        false => (Code::VerdictAgainst, "look at the new version"),
    };
    Problem::new(code, &judged.told)
        .hint(format!("{look}; then `pointsman resume {environment}` or `pointsman rollback {environment}`"))
}
