//! The life of a release, as two pure functions: [`apply`] folds a fact into the state, [`next`] says what
//! follows from the state and the time. A restarted coordinator therefore chooses as the one that crashed
//! would have: there is no other path.

use crate::judging::{self, Over};
use crate::left_out::{self, LeftOut};
use crate::phase::PARTED_MS;
use crate::step::Kind;
use crate::{
    Aftermath, Blind, CheckVerdict, Code, DatabaseWork, Event, HeldAt, HostName, Note, OrderKey, Outcome,
    Phase, Problem, Progress, Purpose, Reading, Request, RequestKind, Retry, Stamped, State, Step, Timestamp,
};

/// The journal holds a fact that cannot follow the ones before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{event}` cannot follow where the release stands ({phase})")]
pub struct IllegalEvent {
    event: &'static str,
    phase: String,
}

/// The work that follows from where a release stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask these agents to acknowledge the epoch.
    Fence(Vec<HostName>),
    /// Record the intent of these orders, then send them.
    Send(Vec<OrderKey>),
    /// Stop waiting for these orders: record their answers as lost.
    GiveUp(Vec<OrderKey>),
    /// Wait for answers and requests, at most until then.
    Await(Option<Timestamp>),
    /// Read the gates of the watch.
    ReadGates,
    /// Hear the visitors of a split while the release waits for a person, and wait for requests.
    HearVisitors,
    /// Record this fact.
    Record(Event),
    /// Nothing: the release is over.
    Stop,
}

/// Shortest and longest pause before an order is sent again, in milliseconds: the first is invisible to
/// people, the last keeps a dead agent from being asked more often than its restart takes.
const FIRST_PAUSE_MS: u64 = 250;
const LONGEST_PAUSE_MS: u64 = 4_000;

fn pause_ms(tries: u32) -> u64 {
    let doublings = tries.saturating_sub(1).min(16);
    FIRST_PAUSE_MS.saturating_mul(1 << doublings).min(LONGEST_PAUSE_MS)
}

// ---------------------------------------------------------------------------------------------- apply

/// Folds one fact into the state.
pub fn apply(state: &State, fact: &Stamped) -> Result<State, IllegalEvent> {
    let mut next = state.clone();
    fold(&mut next, fact)?;
    Ok(next)
}

/// [`apply`] in place, for whoever has no use for the state before. After an error the state is half of each: nothing may
/// follow from it.
pub fn fold(state: &mut State, fact: &Stamped) -> Result<(), IllegalEvent> {
    let before = state.phase.clone();
    let legal = match &fact.event {
        Event::Planned(_) | Event::Adopted { .. } => false,
        Event::EpochTaken(epoch) => epoch_taken(state, *epoch, fact.at),
        Event::Fenced(host) => fenced(state, host, fact.at),
        Event::OrderIntended { key, attempt } => intended(state, key, *attempt, fact.at),
        Event::OrderDone { key, evidence } => settled(state, key, fact.at, |progress| {
            progress.done = Some(evidence.clone());
            progress.acted = true;
            progress.problem = None;
        }),
        Event::OrderFailed { key, problem } => settled(state, key, fact.at, |progress| {
            // An attempt that changed nothing does not wash off what an earlier one may have done.
            progress.acted |= problem.aftermath != Aftermath::Unchanged;
            progress.problem = Some(problem.clone());
        }),
        Event::GatesRead(reading) => gates_folded(state, reading, fact.at),
        Event::GatesExpired => gates_expired(state, fact.at),
        Event::WatchMoved { until } => watch_moved(state, *until),
        Event::Judged(judged) => judged_folded(state, judged),
        Event::WatchPassed => watch_passed(state, fact.at),
        Event::Requested(request) => requested(state, request, fact.at),
        Event::TurnedBack(problem) => turned_back(state, problem),
        Event::Held(problem) => held(state, problem, fact.at),
        Event::Noted(note) => {
            noted(state, note);
            return Ok(());
        }
    };
    if !legal {
        return Err(IllegalEvent { event: fact.event.kind(), phase: phase_word(&before) });
    }
    advance(state, fact.at);
    if state.phase != before {
        state.entered_at = fact.at;
        state.fencing_since = fact.at;
    }
    Ok(())
}

/// Keeps which checks did not pass, for people. One may have been made at several servers from there: then the worst counts.
fn noted(state: &mut State, note: &Note) {
    let Note::Checks { host, seen, .. } = note else { return };
    for seen in seen {
        state.amiss.remove(&(seen.name.clone(), host.clone()));
    }
    for seen in seen.iter().filter(|seen| seen.verdict != CheckVerdict::Passed) {
        let known = state.amiss.entry((seen.name.clone(), host.clone())).or_insert_with(|| seen.clone());
        if known.verdict.worse(seen.verdict) != known.verdict {
            known.clone_from(seen);
        }
    }
}

fn phase_word(phase: &Phase) -> String {
    match phase {
        Phase::Doing(step) => step.to_string(),
        Phase::Watching { .. } => "watching".to_owned(),
        Phase::Held { .. } => "held".to_owned(),
        Phase::Finished(outcome) => outcome.as_str().to_owned(),
    }
}

fn epoch_taken(state: &mut State, epoch: crate::Epoch, at: Timestamp) -> bool {
    if epoch <= state.epoch || state.outcome().is_some() {
        return false;
    }
    state.epoch = epoch;
    state.unfenced = state.plan.hosts().cloned().collect();
    state.fencing_since = at;
    // Whoever waited for these answers is gone. They are asked for again, under the same key.
    for progress in state.orders.values_mut().filter(|progress| progress.open) {
        progress.open = false;
        progress.acted = true;
        progress.problem = None;
        progress.at = at;
    }
    // Nobody watched meanwhile, and what nobody saw is not well: the watch begins anew.
    watch_anew(state, at);
    true
}

/// Begins the watch anew, where the release is watched.
fn watch_anew(state: &mut State, at: Timestamp) {
    let ends = at.plus_ms(state.watch_ms());
    if let Phase::Watching { until, .. } = &mut state.phase {
        *until = ends;
        state.watch = crate::WatchProgress::default();
        state.verdict.anew();
    }
}

fn fenced(state: &mut State, host: &HostName, at: Timestamp) -> bool {
    if state.outcome().is_some() || !state.unfenced.remove(host) {
        return false;
    }
    // Nobody could watch until now, so the watch begins now.
    if sees_visitors(state, host) && to_fence_for_watch(state).is_empty() {
        watch_anew(state, at);
    }
    true
}

/// Agents that must acknowledge the epoch before visitors are watched. The database's sees none of them: what it is
/// asked for next waits for it, the watch does not.
fn to_fence_for_watch(state: &State) -> Vec<HostName> {
    state.unfenced.iter().filter(|host| sees_visitors(state, host)).cloned().collect()
}

fn sees_visitors(state: &State, host: &HostName) -> bool {
    let plan = &state.plan;
    let database = plan.database.as_ref().is_some_and(|database| database.host == *host);
    !database || plan.balancers.contains(host) || plan.to.hosts.contains(host)
}

/// Agents that must acknowledge the epoch before orders of this step leave: on the way back only those it asks, and
/// before what hosts serve is changed also the load balancers. They know whether visitors are there, whatever this journal
/// has forgotten.
fn to_fence(state: &State, step: Step) -> Vec<HostName> {
    let leads_there = |host: &HostName| step == Step::LinkBack && state.plan.balancers.contains(host);
    let asked = |host: &HostName| state.plan.asks(step, host) || leads_there(host);
    let needed =
        |host: &&HostName| step.kind() == Kind::Forward || (asked(host) && !state.left_out_of(step, host));
    state.unfenced.iter().filter(needed).cloned().collect()
}

fn intended(state: &mut State, key: &OrderKey, attempt: u32, at: Timestamp) -> bool {
    let due = state.phase == Phase::Doing(key.step)
        && to_fence(state, key.step).is_empty()
        && state.plan.asks(key.step, &key.host)
        && !state.left_out_of(key.step, &key.host);
    let progress = state.orders.entry(key.clone()).or_default();
    if !due || progress.open || progress.done.is_some() || attempt != progress.attempts.saturating_add(1) {
        return false;
    }
    progress.attempts = attempt;
    progress.tries = progress.tries.saturating_add(1);
    progress.open = true;
    progress.sent_at = at;
    progress.at = at;
    true
}

fn settled(state: &mut State, key: &OrderKey, at: Timestamp, settle: impl FnOnce(&mut Progress)) -> bool {
    let Some(progress) = state.orders.get_mut(key).filter(|progress| progress.open) else { return false };
    settle(progress);
    progress.open = false;
    progress.at = at;
    true
}

/// Ends a blind stretch. What nobody saw does not count as watched.
fn see_again(state: &mut State, at: Timestamp) {
    let Some(Blind { since, .. }) = state.watch.blind.take() else { return };
    if let Phase::Watching { until, .. } = &mut state.phase {
        *until = until.plus_ms(at.ms_since(since));
    }
}

fn gates_folded(state: &mut State, reading: &Reading, at: Timestamp) -> bool {
    let armed = state.watched_after().is_some();
    match reading {
        Reading::Pass => {
            see_again(state, at);
            if let Phase::Watching { until, .. } = &mut state.phase
                && state.watch.failures > 0
            {
                // A failure is followed by a clear stretch as long as the row that would have turned the release back.
                let watch = &state.plan.watch;
                *until =
                    (*until).max(at.plus_ms(watch.interval_ms.saturating_mul(u64::from(watch.fail_after))));
            }
            state.watch = crate::WatchProgress::default();
        }
        Reading::Fail(problem) => {
            see_again(state, at);
            // Told again it is the failure that was counted.
            if !is_remembered(problem) || state.watch.failures == 0 {
                state.watch.fails(false);
            }
        }
        Reading::Shared(_) => {
            see_again(state, at);
            state.watch.fails(true);
        }
        Reading::Unknown(problem) => {
            let _ = state.watch.blind.get_or_insert_with(|| Blind { since: at, why: problem.clone() });
        }
    }
    armed
}

fn judged_folded(state: &mut State, judged: &crate::Judged) -> bool {
    state.verdict.known = Some(judged.verdict);
    state.verdict.warned |= judged.warns;
    state.verdict.slowed |= judged.slowed.is_some();
    state.verdict.last = Some(Box::new(judged.clone()));
    state.judged_after().is_some()
}

/// The watch ended well: more visitors follow or, where all of them are watched, the release is over.
fn watch_passed(state: &mut State, at: Timestamp) -> bool {
    let Phase::Watching { after, .. } = state.phase else { return false };
    if !judging::may_pass(state) {
        return false;
    }
    let wanted = state.asked.take().is_none_or(|asked| asked.kind == RequestKind::Promote);
    state.phase = match state.plan.step_after(after) {
        Some(Step::Watch) | None => Phase::Finished(Outcome::Confirmed),
        Some(step) => Phase::Doing(step),
    };
    state.watch = crate::WatchProgress::default();
    state.verdict.next_watch();
    state.split_passed_at = Some(at);
    wanted
}

/// Back to what the next move of visitors rests on, as long as none was moved on the strength of it: to the checks or,
/// behind a split, to its watch.
fn gates_expired(state: &mut State, at: Timestamp) -> bool {
    let Phase::Doing(step) = state.phase else { return false };
    if !step.moves_visitors() || state.touched(step) {
        return false;
    }
    match state.plan.step_before(step) {
        Some(Step::Check) => {
            for (_, progress) in state.orders.iter_mut().filter(|(key, _)| key.step == Step::Check) {
                progress.done = None;
                progress.tries = 0;
            }
            state.phase = Phase::Doing(Step::Check);
            true
        }
        Some(split @ Step::Canary(_)) => {
            let hold_ms = state.plan.watch_ms(split).unwrap_or_default();
            state.phase = Phase::Watching { after: split, until: at.plus_ms(hold_ms) };
            true
        }
        _ => false,
    }
}

/// The watch and a blind stretch in it move together: what is left of the one, and how long the other lasts, stays.
fn watch_moved(state: &mut State, moved: Timestamp) -> bool {
    let Phase::Watching { until, .. } = &mut state.phase else { return false };
    let before = std::mem::replace(until, moved);
    if let Some(blind) = &mut state.watch.blind {
        blind.since = moved_along(blind.since, before, moved);
    }
    true
}

/// A moment of the watch, where its end was moved.
fn moved_along(moment: Timestamp, before: Timestamp, moved: Timestamp) -> Timestamp {
    Timestamp(moment.plus_ms(moved.ms_since(before)).0.saturating_sub(before.ms_since(moved)))
}

fn requested(state: &mut State, request: &Request, at: Timestamp) -> bool {
    if may_ask(state, request).is_err() {
        return false;
    }
    if request.kind != RequestKind::Resume {
        state.asked = Some(request.clone());
        return true;
    }
    let Phase::Held { at: held_at, why, .. } = &state.phase else { return false };
    state.phase = match *held_at {
        // What a person lets go on is the swap itself: it happened, and rows were written since.
        HeldAt::Step(Step::Unswap) if why.code == Code::LossGrown => {
            state.turned_back = None;
            Phase::Doing(Step::Swap)
        }
        HeldAt::Step(step) => Phase::Doing(step),
        HeldAt::Watch(after) => {
            // Who lets it go on has looked at what was found: evidence of a fault that is over would stay for long.
            state.verdict.next_judge();
            Phase::Watching { after, until: at.plus_ms(state.watch_ms()) }
        }
    };
    let left_out = || LeftOut { by: request.by.clone(), reason: request.reason.clone(), at };
    state.left_out.extend(request.without.iter().map(|host| (host.clone(), left_out())));
    state.verdict.anew();
    state.fencing_since = at;
    state.watch = crate::WatchProgress::default();
    for progress in state.orders.values_mut().filter(|progress| progress.done.is_none()) {
        progress.tries = 0;
    }
    true
}

fn turned_back(state: &mut State, problem: &Problem) -> bool {
    let forward = match state.phase {
        Phase::Doing(step) | Phase::Held { at: HeldAt::Step(step), .. } => step.kind() == Kind::Forward,
        Phase::Watching { .. } | Phase::Held { at: HeldAt::Watch(_), .. } => true,
        Phase::Finished(_) => false,
    };
    if !forward || state.open().next().is_some() {
        return false;
    }
    state.turned_back = Some(problem.clone());
    state.asked = None;
    state.phase = step_back(state);
    true
}

fn held(state: &mut State, problem: &Problem, at: Timestamp) -> bool {
    let held_at = match state.phase {
        Phase::Doing(step) => HeldAt::Step(step),
        Phase::Watching { after, .. } => HeldAt::Watch(after),
        Phase::Held { .. } | Phase::Finished(_) => return false,
    };
    if state.open().next().is_some() {
        return false;
    }
    state.phase = Phase::Held { at: held_at, since: at, why: problem.clone() };
    state.asked = None;
    true
}

/// The next step on the way back, or the end of it.
fn step_back(state: &State) -> Phase {
    let undone = state.way_back().into_iter().find(|step| !state.complete(*step));
    undone.map_or_else(|| Phase::Finished(state.outcome_back()), Phase::Doing)
}

/// Leaves every step that all its hosts have confirmed.
fn advance(state: &mut State, at: Timestamp) {
    while let Phase::Doing(step) = state.phase {
        if !state.complete(step) || state.open().next().is_some() {
            return;
        }
        state.phase = if step.kind() == Kind::Backward {
            step_back(state)
        } else if let Some(watch_ms) = state.plan.watch_ms(step) {
            Phase::Watching { after: step, until: at.plus_ms(watch_ms) }
        } else {
            match state.plan.step_after(step) {
                Some(step) => Phase::Doing(step),
                None if state.asked.is_some() => return,
                None => Phase::Finished(Outcome::Confirmed),
            }
        };
    }
}

// ----------------------------------------------------------------------------------------------- next

/// Says what follows from the state and the time, and from nothing else. `waited_ms` is how long this coordinator has been at
/// what it waits for now, since [`State::fencing_since`], by a time that does not jump: what may be tried for only so long is
/// not given up, nor tried on, because a clock was set.
pub fn next(state: &State, now: Timestamp, waited_ms: u64) -> Next {
    if let Phase::Finished(_) = state.phase {
        return Next::Stop;
    }
    // A promotion waits for the next reading of the gates; everything else is on its way at once.
    if let Some(request) = state.asked.as_ref().filter(|request| request.kind != RequestKind::Promote) {
        return toward_request(state, request);
    }
    let to_fence = match state.phase {
        Phase::Doing(step) => to_fence(state, step),
        Phase::Watching { .. } => to_fence_for_watch(state),
        Phase::Held { .. } | Phase::Finished(_) => Vec::new(),
    };
    if !to_fence.is_empty() && state.open().next().is_none() {
        return Next::Fence(to_fence);
    }
    match &state.phase {
        Phase::Doing(step) => within_step(state, *step, now, waited_ms),
        Phase::Watching { .. } | Phase::Held { at: HeldAt::Watch(_), .. } => Next::ReadGates,
        Phase::Held { .. } if state.judged_after().is_some() && state.plan.verdict.acts() => {
            Next::HearVisitors
        }
        Phase::Held { .. } => Next::Await(None),
        Phase::Finished(_) => Next::Stop,
    }
}

fn toward_request(state: &State, request: &Request) -> Next {
    // What may take minutes and changes nothing visitors see need not be waited for.
    let settles = matches!(state.plan.purpose, Purpose::Database(DatabaseWork::Settle { .. }));
    let idle = |key: &&OrderKey| match key.step {
        Step::Stage | Step::Backup | Step::Rehearse => true,
        // Beside the live database.
        Step::Restore => !settles,
        _ => false,
    };
    let transfers: Vec<OrderKey> = state.open().filter(idle).cloned().collect();
    if !transfers.is_empty() {
        return Next::GiveUp(transfers);
    }
    if state.open().next().is_some() {
        return Next::Await(None);
    }
    let reason = request.reason.as_deref().unwrap_or("no reason given");
    let problem = Problem::new(
        Code::OperatorStopped,
        format!("{} asked for {}: {reason}", request.by, request.kind.as_str()),
    );
    if request.kind == RequestKind::Pause {
        let hint = format!("`pointsman resume {}` goes on", state.plan.environment);
        return Next::Record(Event::Held(problem.hint(hint)));
    }
    Next::Record(Event::TurnedBack(problem.hint("start again with a new release when it is time")))
}

/// How one order of a step stands at a moment.
enum Standing {
    Open,
    Done,
    Due,
    Later(Timestamp),
    Failed(Problem),
}

fn standing(state: &State, step: Step, host: &HostName, (now, waited_ms): (Timestamp, u64)) -> Standing {
    let Some(progress) = state.progress(step, host) else { return Standing::Due };
    if progress.done.is_some() {
        return Standing::Done;
    }
    if progress.open {
        return Standing::Open;
    }
    let Some(problem) = &progress.problem else { return Standing::Due };
    if progress.tries == 0 {
        return Standing::Due;
    }
    let certain = problem.retry == Retry::Useless && problem.aftermath != Aftermath::Unknown;
    let spent = match step.kind() {
        // With the database swapped nothing else is left to do: giving up early would keep visitors away.
        Kind::Forward if step == Step::Lift => persisted(state, waited_ms),
        Kind::Forward => {
            progress.tries >= state.plan.limits.attempts || parted_for_long(state, step, progress)
        }
        // On the way back only time ends the attempts: giving up early would leave visitors on a bad slot.
        Kind::Backward => persisted(state, waited_ms),
    };
    if certain || spent {
        return Standing::Failed(problem.clone());
    }
    let due_at = progress.at.plus_ms(pause_ms(progress.tries));
    if now >= due_at || now < progress.at { Standing::Due } else { Standing::Later(due_at) }
}

/// Whether this one was asked again, in vain, while visitors met two versions for as long as they may: all go back then.
fn parted_for_long(state: &State, step: Step, progress: &Progress) -> bool {
    let since = state.parted_since(step).filter(|_| progress.tries > 1);
    since.is_some_and(|since| progress.at >= since.plus_ms(PARTED_MS))
}

/// Whether a step was tried as long as one may be that nothing but time ends.
fn persisted(state: &State, waited_ms: u64) -> bool {
    waited_ms >= state.plan.limits.persist_ms
}

fn within_step(state: &State, step: Step, now: Timestamp, waited_ms: u64) -> Next {
    let mut due = Vec::new();
    let mut open = false;
    let mut wake: Option<Timestamp> = None;
    let mut failed: Option<Problem> = None;
    for host in state.still_asked(step) {
        match standing(state, step, host, (now, waited_ms)) {
            Standing::Open => open = true,
            Standing::Done => {}
            Standing::Due => due.push(OrderKey { step, host: host.clone() }),
            Standing::Later(at) => wake = Some(wake.map_or(at, |wake| wake.min(at))),
            Standing::Failed(problem) => failed = failed.or(Some(problem)),
        }
    }
    match failed {
        Some(_) if open => Next::Await(None),
        Some(problem) => Next::Record(after_failure(state, step, problem)),
        // What is done together is not begun by one alone.
        None if step.together() && !due.is_empty() && (open || wake.is_some()) => {
            Next::Await(wake.filter(|_| !open))
        }
        None if !due.is_empty() => match expired(state, step, now) {
            // Answers that are out may be the switch itself.
            Some(_) if open => Next::Await(None),
            Some(event) => Next::Record(event),
            None => Next::Send(due),
        },
        None => Next::Await(wake),
    }
}

/// What follows when the gates have become too old to move visitors on: they are read again or, if some visitors were
/// moved by this step already, the others do not follow. A gate from the future tells of a clock that was set, and is no
/// better.
fn expired(state: &State, step: Step, now: Timestamp) -> Option<Event> {
    let (oldest, newest) = gate_times(state, step)?;
    if newest <= now && now.ms_since(oldest) <= state.plan.limits.gate_ttl_ms {
        return None;
    }
    if !state.touched(step) {
        return Some(Event::GatesExpired);
    }
    let message =
        format!("the last checks are {} s old: visitors are not moved on them", now.ms_since(oldest) / 1000);
    let problem = Problem::new(Code::GatesExpired, message)
        .hint("find out what held the release up, then start a new one");
    Some(Event::TurnedBack(problem))
}

/// When the oldest and the newest of the gates were read that a move of visitors rests on: the checks or, behind a
/// split, its watch.
fn gate_times(state: &State, step: Step) -> Option<(Timestamp, Timestamp)> {
    if !step.moves_visitors() {
        return None;
    }
    match state.plan.step_before(step) {
        Some(Step::Canary(_)) => state.split_passed_at.map(|at| (at, at)),
        _ => state.checked_at(),
    }
}

/// A failed step turns the release back where a way back is the safe way, and holds it elsewhere.
fn after_failure(state: &State, step: Step, problem: Problem) -> Event {
    let lifts_page = matches!(state.plan.purpose, Purpose::Maintenance { on: false, .. });
    // Which database is live is not left to chance, and nobody wants to be led from the one that was before.
    let swaps_back = matches!(state.plan.purpose, Purpose::Database(DatabaseWork::SwapBack { .. }));
    let must_go_on = (lifts_page || (swaps_back && step == Step::Swap)) && state.touched(step);
    if let (Step::Unswap, Code::LossGrown, Purpose::Database(DatabaseWork::Swap { backup, .. })) =
        (step, problem.code, &state.plan.purpose)
    {
        let environment = &state.plan.environment;
        return Event::Held(problem.hint(format!(
            "`pointsman resume {environment}` leaves the restored database live; then, to give those rows up, \
             `pointsman db restore {environment} --backup {backup} --undo --accept-loss N`"
        )));
    }
    // The database is swapped; that the load balancers do not answer is no reason to swap it back.
    if step.kind() == Kind::Backward || step == Step::Lift || must_go_on {
        return Event::Held(problem);
    }
    Event::TurnedBack(problem)
}

/// What follows when there is no room to record what leads on: nobody is left on what is not watched, or before a page, until
/// somebody has made room. A release that has moved nobody yet waits for it where it stands, as does one that waits for
/// answers.
pub fn no_room(state: &State, problem: Problem) -> Option<Event> {
    let Phase::Doing(step) = state.phase else { return None };
    let away = state.visitors_moved() || state.touched(Step::Maintain);
    let may = away && step.kind() == Kind::Forward && state.open().next().is_none();
    may.then(|| after_failure(state, step, problem))
}

// ------------------------------------------------------------------------------------------ judgements

/// What follows when agents did not acknowledge the epoch: patience, then the end of the release if it has
/// touched nothing, or a person. `waited_ms` is as in [`next`].
pub fn fence_failed(state: &State, waited_ms: u64, problem: Problem) -> Option<Event> {
    // The agent knows more than this journal: what to do next is not to be found in it.
    if matches!(problem.code, Code::JournalBehind | Code::JournalCorrupt | Code::Fenced) {
        return (!matches!(state.phase, Phase::Held { .. })).then_some(Event::Held(problem));
    }
    let untouched = state
        .orders
        .iter()
        .all(|(key, progress)| key.step == Step::Preflight || (!progress.acted && !progress.open));
    if untouched && !state.going_back() {
        return (waited_ms >= state.plan.limits.inspect_ms).then_some(Event::TurnedBack(problem));
    }
    (waited_ms >= state.plan.limits.persist_ms).then_some(Event::Held(problem))
}

/// How much longer than planned the time between two readings may be before it counts as unwatched, in milliseconds.
const READING_SLACK_MS: u64 = 1_000;

/// The end of the watch, after a stretch from the last reading to this one. What nobody watched, because the
/// coordinator stood still or its clock was set, does not count: what was left of the watch is left still.
fn watch_end(state: &State, until: Timestamp, last: Option<Timestamp>, now: Timestamp) -> Timestamp {
    let last = last.unwrap_or(Timestamp(until.0.saturating_sub(state.watch_ms())));
    let usual_ms = state.plan.watch.interval_ms.saturating_add(state.plan.reading_ms());
    let watched = now >= last && now.ms_since(last) <= usual_ms.saturating_add(READING_SLACK_MS);
    if watched { until } else { now.plus_ms(until.ms_since(last)) }
}

/// What a reading that was begun at `began` says at `now`. One that took longer than it may, because the coordinator
/// stood still or its clock was set meanwhile, says nothing of now: nobody is moved, or moved back, on the strength of it.
pub fn timely(state: &State, began: Timestamp, now: Timestamp, reading: Reading) -> Reading {
    in_time(state.plan.reading_ms(), began, now, reading)
}

/// The same where the old slot was asked after the gates had been read: it may have been busy with one look at it, and then
/// takes its own time.
pub fn timely_compared(state: &State, began: Timestamp, now: Timestamp, reading: Reading) -> Reading {
    in_time(state.plan.reading_ms().saturating_mul(2), began, now, reading)
}

/// When a reading that was begun at `began` and has ended at `ended` was made, as far as the watch goes: one that says nothing
/// of now because a clock was set in the middle of it is of the clock as it is now. What is recorded of it is of that, too.
pub fn read_at(began: Timestamp, ended: Timestamp, reading: &Reading) -> Timestamp {
    let untimely = matches!(reading, Reading::Unknown(problem) if problem.code == Code::GatesExpired);
    if untimely { ended } else { began }
}

fn in_time(longest_ms: u64, began: Timestamp, now: Timestamp, reading: Reading) -> Reading {
    let longest_ms = longest_ms.saturating_add(READING_SLACK_MS);
    if now >= began && now.ms_since(began) <= longest_ms {
        return reading;
    }
    let moved_ms = now.ms_since(began).max(began.ms_since(now));
    let message = format!(
        "while the gates were asked the clock moved by {} s: what they said is not of now",
        moved_ms / 1000
    );
    Reading::Unknown(
        Problem::new(Code::GatesExpired, message)
            .retry_useful()
            .hint("on the coordinator: `timedatectl`, and find out what held it up"),
    )
}

/// What follows from one reading of the gates, as facts to record in order. A reading that changes nothing is
/// not recorded. `last` is when this coordinator began to read them before, if it did since the watch began, and `now`
/// when it began this time: what was seen was so then or later.
pub fn gates_read(state: &State, last: Option<Timestamp>, now: Timestamp, reading: Reading) -> Vec<Event> {
    let Phase::Watching { until, .. } = state.phase else { return judged(state, now, reading, None) };
    let moved = watch_end(state, until, last, now);
    let moves = moved != until && state.asked.as_ref().is_none_or(|asked| asked.kind == RequestKind::Promote);
    let event = moves.then_some(Event::WatchMoved { until: moved });
    event.into_iter().chain(judged(state, now, reading, Some(moved))).collect()
}

fn judged(state: &State, now: Timestamp, reading: Reading, until: Option<Timestamp>) -> Vec<Event> {
    let promoted = match &state.asked {
        Some(asked) if asked.kind == RequestKind::Promote => true,
        Some(_) => return Vec::new(),
        None => false,
    };
    if state.watched_after().is_none() {
        return Vec::new();
    }
    let quiet = state.watch == crate::WatchProgress::default();
    match reading {
        Reading::Pass => {
            // The first good reading after others may put the end off; one after it may be the end.
            let over = until.filter(|_| quiet).map(|until| judging::over(state, until, now));
            let end = match over {
                Some(_) if promoted => Some(Event::WatchPassed),
                Some(Over::Passed) => Some(Event::WatchPassed),
                Some(Over::Undecided) => Some(judging::undecided(state)),
                Some(Over::No) | None => None,
            };
            let cleared = (!quiet).then_some(Event::GatesRead(Reading::Pass));
            cleared.into_iter().chain(end).collect()
        }
        // It is held already, and nobody wants it moved by itself: one record of the failure is enough.
        Reading::Fail(_) if until.is_none() && !state.plan.automatic_rollback && state.watch.failures > 0 => {
            Vec::new()
        }
        // It was counted when it was seen, and it is not well yet; that the gates could be read again ends a blind stretch.
        Reading::Fail(problem) if is_remembered(&problem) && state.watch.failures > 0 => {
            let sees_again = state.watch.blind.is_some();
            sees_again.then_some(Event::GatesRead(Reading::Fail(problem))).into_iter().collect()
        }
        // It is held already, and that this goes on is no news.
        Reading::Shared(_) if until.is_none() && state.watch.failures > 0 && state.watch.alone == 0 => {
            Vec::new()
        }
        Reading::Fail(problem) => {
            let row = state.watch.failures.saturating_add(1) >= state.plan.watch.fail_after;
            let alone = state.watch.alone.saturating_add(1) >= state.plan.watch.fail_after;
            let turn = match (alone, state.plan.automatic_rollback, until) {
                (true, true, _) => Some(Event::TurnedBack(problem.clone())),
                (true, false, Some(_)) => Some(Event::Held(problem.clone())),
                // A row that both slots began: whose fault it is will be seen by what follows.
                (false, _, Some(_)) if row => Some(Event::Held(judging::shared_gates(state, &problem))),
                _ => None,
            };
            [Event::GatesRead(Reading::Fail(problem))].into_iter().chain(turn).collect()
        }
        Reading::Shared(problem) => {
            let row = state.watch.failures.saturating_add(1) >= state.plan.watch.fail_after;
            let held = until.filter(|_| row).map(|_| Event::Held(judging::shared_gates(state, &problem)));
            [Event::GatesRead(Reading::Shared(problem))].into_iter().chain(held).collect()
        }
        Reading::Unknown(problem) => {
            let Some(since) = state.watch.blind.as_ref().map(|blind| blind.since) else {
                return vec![Event::GatesRead(Reading::Unknown(problem))];
            };
            let Phase::Watching { until: planned, .. } = state.phase else { return Vec::new() };
            // A stretch that nobody tried to see in, or that no time passed in, is no part of it.
            let since = until.map_or(since, |until| moved_along(since, planned, until));
            let too_long = now.ms_since(since) >= state.plan.watch.blind_ms;
            too_long.then_some(Event::Held(problem)).into_iter().collect()
        }
    }
}

/// What follows where visitors fare too badly: back, or to a person where nothing is to turn back by itself.
pub(crate) fn turns(state: &State, problem: Problem) -> Option<Event> {
    match (state.plan.automatic_rollback, &state.phase) {
        (true, _) => Some(Event::TurnedBack(problem)),
        (false, Phase::Watching { .. }) => Some(Event::Held(problem)),
        (false, _) => None,
    }
}

/// Joins what every asked agent said into one reading. One failure outweighs everything; one that could not
/// be asked outweighs every pass. Only an agent's own word that a check failed is a failure: not reaching the
/// agent says nothing about the visitors. A failure that is only remembered outweighs a pass and nothing else: it was counted when
/// it was seen, and while somebody else cannot be asked what is new is that nobody knows.
pub fn join_readings(results: impl IntoIterator<Item = Result<(), Problem>>) -> Reading {
    let (mut unknown, mut remembered) = (None, None);
    for problem in results.into_iter().filter_map(Result::err) {
        match is_failure(problem.code) {
            true if is_remembered(&problem) => remembered = Some(problem),
            true => return Reading::Fail(problem),
            false => unknown = Some(problem),
        }
    }
    match (unknown, remembered) {
        (Some(unknown), _) => Reading::Unknown(unknown),
        (None, Some(remembered)) => Reading::Fail(remembered),
        (None, None) => Reading::Pass,
    }
}

/// Whether an agent says by this that visitors are failed.
fn is_failure(code: Code) -> bool {
    matches!(
        code,
        Code::CheckFailed
            | Code::NotHeld
            | Code::BackendUnhealthy
            | Code::RouteDrift
            | Code::SlotOffRoute
            | Code::RouteNotSeen
            | Code::BackendUnknown
    )
}

/// Whether nothing but checks fails in what every asked agent said, and fails now: the old slot can be asked the same.
pub fn checks_alone_fail(results: &[Result<(), Problem>]) -> bool {
    let mut failures =
        results.iter().filter_map(|result| result.as_ref().err()).filter(|problem| is_failure(problem.code));
    let all_checks = failures.clone().all(|problem| problem.code == Code::CheckFailed);
    all_checks && failures.any(|problem| !is_remembered(problem))
}

/// Whether a failure is one that an agent has seen, and told of, before: what others measure is the same until they measure
/// it again, and what is the same does not count again.
pub fn is_remembered(problem: &Problem) -> bool {
    problem.code == Code::CheckFailed && problem.retry == Retry::Useful
}

/// Whether a request makes sense where the release stands, with all that it says; if not, why and what to type instead.
pub fn may_ask(state: &State, request: &Request) -> Result<(), Problem> {
    possible(state, request.kind)?;
    if request.kind != RequestKind::Resume && !request.without.is_empty() {
        let message = format!("{} leaves no host out", request.kind.as_str());
        return Err(Problem::new(Code::UsageWrong, message));
    }
    left_out::possible(state, &request.without)
}

/// Whether a request of this kind makes sense where the release stands; if not, why and what to type instead.
pub fn possible(state: &State, kind: RequestKind) -> Result<(), Problem> {
    let environment = &state.plan.environment;
    let refuse = |message: String, hint: String| Err(Problem::new(Code::NotPossibleNow, message).hint(hint));
    let release = &state.plan.release;
    if let Phase::Finished(outcome) = state.phase {
        return refuse(
            format!("release `{release}` is over: {}", outcome.as_str()),
            format!("`pointsman status {environment}`"),
        );
    }
    let held = matches!(state.phase, Phase::Held { .. });
    let look = format!("`pointsman status {environment} -f`");
    match kind {
        RequestKind::Resume if held => Ok(()),
        RequestKind::Resume => refuse(format!("release `{release}` is not held"), look),
        RequestKind::Pause if held => refuse(
            format!("release `{release}` is held already"),
            format!("`pointsman resume {environment}` goes on"),
        ),
        RequestKind::Pause => match &state.asked {
            Some(asked) if asked.kind != RequestKind::Promote => {
                refuse(format!("{} was asked for already, of release `{release}`", asked.kind.as_str()), look)
            }
            _ => Ok(()),
        },
        RequestKind::Promote => match (&state.phase, &state.asked) {
            (Phase::Watching { .. }, None) => Ok(()),
            (Phase::Watching { .. }, Some(asked)) => {
                refuse(format!("{} was asked for already, of release `{release}`", asked.kind.as_str()), look)
            }
            (Phase::Held { at: HeldAt::Watch(_), .. }, _) => refuse(
                format!("release `{release}` is held: it is not promoted before it goes on"),
                format!("`pointsman resume {environment}`, then promote"),
            ),
            _ => refuse(format!("release `{release}` is not watched: there is nothing to promote"), look),
        },
        _ if state.going_back() => refuse(
            format!("release `{release}` is on its way back already"),
            match state.phase {
                Phase::Held { .. } => format!("`pointsman resume {environment}` tries again"),
                _ => format!("`pointsman status {environment} -f`"),
            },
        ),
        RequestKind::Abort | RequestKind::Rollback if state.swap_back_in_doubt() => refuse(
            format!("release `{release}` may have put another database in the live one's place"),
            match state.phase {
                Phase::Held { .. } => format!("`pointsman resume {environment}` finds out, and goes on"),
                _ => look,
            },
        ),
        RequestKind::Abort if state.visitors_moved() => refuse(
            format!("release `{release}` has moved visitors already"),
            format!("`pointsman rollback {environment}` moves them back"),
        ),
        _ => Ok(()),
    }
}
