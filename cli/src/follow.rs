//! Following a release: until it is over, a person is needed, time runs out, or whoever follows leaves. Leaving never
//! changes the release.

use std::cell::RefCell;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use pointsman_core::{Code, EnvironmentName, Problem};
use pointsman_proto::v1;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::args::Waiting;
use crate::client::{Caller, Session};
use crate::exit::Exit;
use crate::out::Out;
use crate::render;

/// How long a coordinator that went away is waited for: a restart takes seconds.
const COORDINATOR_BACK: Duration = Duration::from_secs(120);
/// Pause between two tries to reach it.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// A line without news, so that a silent job is not taken for a hung one.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// What is followed.
pub struct Followed<'a> {
    /// Whom to ask.
    pub session: &'a Session,
    /// Where.
    pub environment: &'a EnvironmentName,
    /// Which release.
    pub release: String,
    /// Journal entries up to here are no news.
    pub after: u64,
}

/// How following ended.
pub enum Ended {
    /// With the release, or with it held.
    Release(Box<v1::Release>, Exit),
    /// By leaving, or by time.
    Left(Exit),
}

/// Follows a release.
pub async fn follow(followed: Followed<'_>, waiting: &Waiting, out: &Out) -> Result<Ended, Problem> {
    let cannot =
        |error: std::io::Error| Problem::new(Code::UsageWrong, "cannot listen for signals").because(&error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let (environment, release) = (followed.environment.clone(), followed.release.clone());
    let timeout = async {
        match waiting.timeout {
            Some(span) => tokio::time::sleep(Duration::from_millis(span.ms())).await,
            None => std::future::pending().await,
        }
    };
    let line = Line::new(out);
    let last = RefCell::new(None);
    let left = tokio::select! {
        ended = watch(followed, &line, &last, out) => return ended,
        _ = interrupt.recv() => Exit::Detached,
        _ = terminate.recv() => Exit::Detached,
        () = timeout => Exit::TimedOut,
    };
    line.clear();
    out.say(&render::left(&environment, &release, last.borrow().as_ref(), left));
    Ok(Ended::Left(left))
}

async fn watch(
    mut followed: Followed<'_>,
    line: &Line,
    last: &RefCell<Option<v1::Release>>,
    out: &Out,
) -> Result<Ended, Problem> {
    let mut gone_since: Option<Instant> = None;
    loop {
        match follow_once(&mut followed, line, last, out, &mut gone_since).await {
            Ok(ended) => return Ok(ended),
            Err(problem) if problem.code == Code::CoordinatorUnreachable => {
                let since = *gone_since.get_or_insert_with(|| {
                    line.print(out, "the coordinator does not answer; the release is in its journal, waiting for it to come back");
                    Instant::now()
                });
                if since.elapsed() > COORDINATOR_BACK {
                    line.clear();
                    return Err(problem);
                }
                tokio::time::sleep(TRY_AGAIN).await;
            }
            Err(problem) => {
                line.clear();
                return Err(problem);
            }
        }
    }
}

async fn follow_once(
    followed: &mut Followed<'_>,
    line: &Line,
    last: &RefCell<Option<v1::Release>>,
    out: &Out,
    gone_since: &mut Option<Instant>,
) -> Result<Ended, Problem> {
    let mut caller: Caller = followed.session.caller(followed.environment)?;
    let request = v1::FollowRequest {
        environment: followed.environment.to_string(),
        release: followed.release.clone(),
        after_seq: followed.after,
    };
    let call = caller.client.clone().follow(request).await;
    let mut updates = call.map_err(|status| caller.explain(&status))?.into_inner();
    let ended_early = || Problem::new(Code::CoordinatorUnreachable, "the coordinator ended the stream");
    let mut last_told = Instant::now();
    loop {
        let next = tokio::time::timeout(HEARTBEAT, updates.message()).await;
        let update = match next {
            Err(_) => {
                if let Some(release) = last.borrow().as_ref() {
                    line.print(out, &stamped(&render::heartbeat(release)));
                    last_told = Instant::now();
                }
                // Touches the connection: silence may also be a network that is gone.
                let health = caller.client.health(v1::HealthRequest {}).await;
                health.map_err(|status| caller.explain(&status))?;
                continue;
            }
            Ok(update) => update.map_err(|status| caller.explain(&status))?.ok_or_else(ended_early)?,
        };
        if gone_since.take().is_some() {
            line.print(out, "the coordinator is back");
        }
        let told = line.show(out, &update);
        if told {
            last_told = Instant::now();
        } else if last_told.elapsed() > HEARTBEAT && !out.live() {
            line.print(out, &stamped(&render::moving(&update)));
            last_told = Instant::now();
        }
        if update.seq > 0 {
            followed.after = update.seq;
        }
        let Some(release) = update.release else { continue };
        let ended = match Exit::of_release(&release) {
            Some(Exit::Held) => held_now(&caller, followed).await?.map(|now| (now, Exit::Held)),
            Some(exit) => Some((release.clone(), exit)),
            None => None,
        };
        if let Some((release, exit)) = ended {
            line.clear();
            return Ok(Ended::Release(Box::new(release), exit));
        }
        last.replace(Some(release));
    }
}

/// The facts of a release are told from its beginning: one that was held and went on passes by its past. What is held
/// now may be held for another reason, and somewhere else, than it was then.
async fn held_now(caller: &Caller, followed: &Followed<'_>) -> Result<Option<v1::Release>, Problem> {
    let request = v1::StatusRequest {
        environment: followed.environment.to_string(),
        release: followed.release.clone(),
    };
    let now = caller.answer(caller.client.clone().get_status(request)).await?;
    Ok(now.release.filter(|release| release.held.is_some()))
}

/// A line for a time without news, with the moment it is said.
fn stamped(text: &str) -> String {
    let now = jiff::Timestamp::now().as_millisecond();
    format!("{} {text}", render::time(u64::try_from(now).unwrap_or(0)))
}

/// The moving line of a terminal; nothing elsewhere.
struct Line {
    bar: Option<ProgressBar>,
}

impl Line {
    fn new(out: &Out) -> Self {
        if !out.live() {
            return Self { bar: None };
        }
        let bar = ProgressBar::new_spinner();
        // The template is a constant: one that did not parse would only look plain.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}  {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar: Some(bar) }
    }

    /// Shows an update; whether people were told something that stays.
    fn show(&self, out: &Out, update: &v1::ReleaseUpdate) -> bool {
        if let Some(bar) = &self.bar {
            bar.set_message(render::moving(update));
        }
        if out.json() && update.kind == "progress" {
            out.say(&render::json::progress(update).to_string());
        }
        if let Some(visitors) = render::json::visitors(update).filter(|_| out.json()) {
            out.say(&visitors.to_string());
        }
        let text = render::update(update, out.live());
        if let Some(text) = &text {
            self.print(out, text);
        }
        text.is_some()
    }

    fn print(&self, out: &Out, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| out.say(text)),
            None => out.say(text),
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
