//! One file for each verb, or for verbs that are one thing.

mod ask;
mod audit;
mod cert;
mod check;
mod checklist;
mod database;
mod deploy;
mod explain;
mod limits;
mod look;
mod maintenance;
mod watch;

pub use ask::{abort, pause, promote, resume, rollback};
pub use audit::{accept, verify};
pub use cert::{certificates, deploy_certificate};
pub use check::check;
pub use checklist::checklist;
pub use database::database;
pub use deploy::{deploy, plan};
pub use explain::explain;
pub use limits::{limits, unblock};
pub use look::{config_check, doctor, history, status, traffic};
pub use maintenance::maintenance;
pub use watch::watch_traffic;

use pointsman_core::{EnvironmentName, Problem};
use pointsman_proto::v1;

use crate::args::Waiting;
use crate::client::Session;
use crate::exit::Exit;
use crate::follow::{Ended, Followed, follow};
use crate::out::Out;
use crate::render;

/// What a person wants of the release that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// That it goes well.
    Forward,
    /// That visitors are back where they were.
    Back,
    /// That it stops before it moves visitors.
    Stop,
    /// That it waits where it stands.
    Hold,
}

impl Asked {
    /// How the command ends: what was asked for is a success, whatever it says of the release.
    fn exit(self, release: &v1::Release, exit: Exit) -> Exit {
        let purpose = release.plan.as_ref().map_or("", |plan| plan.purpose.as_str());
        let gathers = release.plan.as_ref().is_some_and(crate::render::gathers);
        match (self, release.outcome.as_str()) {
            // A rollback that is a release of its own is done when it is confirmed, like any other.
            (Self::Back, "rolled-back" | "aborted" | "refused") if purpose != "rollback" => Exit::Done,
            // Its way back leads to where it leads.
            (Self::Back, "rolled-back") if gathers => Exit::Done,
            (Self::Stop, "aborted" | "refused") => Exit::Done,
            (Self::Hold, "") if release.held.is_some() => Exit::Done,
            (Self::Back, "confirmed") if purpose != "rollback" => Exit::Failed,
            (Self::Stop | Self::Hold, "confirmed") => Exit::Failed,
            _ => exit,
        }
    }
}

/// A person said no.
fn declined(out: &Out) -> Exit {
    if out.json() {
        out.document(serde_json::json!({ "kind": "declined", "exit_code": Exit::Refused.code() }));
    }
    out.say("nothing was changed");
    Exit::Refused
}

/// Waits for a release and says how it ended; or with `--detach` only names it.
async fn wait_for(
    session: &Session,
    environment: &EnvironmentName,
    release: String,
    waiting: &Waiting,
    asked: Asked,
    out: &Out,
) -> Result<Exit, Problem> {
    if waiting.detach {
        if out.json() {
            out.document(
                serde_json::json!({ "kind": "accepted", "environment": environment.as_str(), "release": release }),
            );
        } else {
            out.result(&release);
            let follow = format!("`pointsman status {environment} --release {release} -f`");
            out.say(&format!("it goes on by itself; follow it: {follow}"));
        }
        return Ok(Exit::Done);
    }
    let followed = Followed { session, environment, release: release.clone(), after: 0 };
    match follow(followed, waiting, out).await? {
        Ended::Left(exit) => {
            if out.json() {
                out.document(serde_json::json!({
                    "kind": "left", "environment": environment.as_str(), "release": release, "exit_code": exit.code(),
                }));
            }
            Ok(exit)
        }
        Ended::Release(release, exit) => {
            let exit = asked.exit(&release, exit);
            // The cause first: what is true now, and what to type, stand last.
            if let Some(problem) = ending_problem(&release).filter(|_| exit != Exit::Done) {
                out.say(&render::problem(&problem));
            }
            if out.json() {
                out.document(render::json::outcome(&release, exit));
            } else {
                out.result(&render::ending(&release));
            }
            Ok(exit)
        }
    }
}

/// Why a release ended otherwise than it should, or is held.
fn ending_problem(release: &v1::Release) -> Option<Problem> {
    let wire = release.held.clone().or_else(|| release.turned_back.clone())?;
    pointsman_proto::convert::problem_from_wire(wire)
}
