//! One file for each verb, or for verbs that are one thing.

mod ask;
mod deploy;
mod explain;
mod look;
mod maintenance;

pub use ask::{abort, resume, rollback};
pub use deploy::{deploy, plan};
pub use explain::explain;
pub use look::{doctor, history, status, traffic};
pub use maintenance::maintenance;

use pointsman_core::{EnvironmentName, Problem};
use pointsman_proto::v1;

use crate::args::Waiting;
use crate::client::Session;
use crate::exit::Exit;
use crate::follow::{Ended, Followed, follow};
use crate::out::Out;
use crate::render;

/// Waits for a release and says how it ended; or with `--detach` only names it.
async fn wait_for(
    session: &Session,
    environment: &EnvironmentName,
    release: String,
    waiting: &Waiting,
    out: &Out,
) -> Result<Exit, Problem> {
    if waiting.detach {
        if out.json() {
            out.document(serde_json::json!({ "kind": "accepted", "environment": environment.as_str(), "release": release }));
        } else {
            out.result(&release);
            out.say(&format!(
                "it goes on by itself; follow it: `pointsman status {environment} --release {release} -f`"
            ));
        }
        return Ok(Exit::Done);
    }
    let followed = Followed { session, environment, release, after: 0 };
    match follow(followed, waiting, out).await? {
        Ended::Left(exit) => Ok(exit),
        Ended::Release(release, exit) => {
            if out.json() {
                out.document(render::json::outcome(&release, exit));
            } else {
                out.result(&render::ending(&release));
            }
            if let Some(problem) = ending_problem(&release) {
                out.say(&render::problem(&problem));
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
