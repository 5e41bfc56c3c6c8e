//! `db status|list|backup|verify|contract|down|restore`.

use std::io::{BufRead as _, Write as _};

use pointsman_core::{BackupId, Code, EnvironmentName, Problem};
use pointsman_proto::v1;
use pointsman_proto::v1::database_purpose::Work;

use super::{Asked, wait_for};
use crate::args::{DbVerb, DbWork};
use crate::client::Session;
use crate::exit::Exit;
use crate::out::Out;
use crate::publish::publish;
use crate::render;

/// Does what a verb of the database says.
pub async fn database(session: &Session, verb: &DbVerb, out: &Out) -> Result<Exit, Problem> {
    match verb {
        DbVerb::Status { environment } => {
            let (facts, seen) = look(session, environment).await?;
            if out.json() {
                out.document(render::json::database(environment, &facts));
            } else {
                out.result(&render::database(&facts, seen.now_ms));
            }
            Ok(if facts.problem.is_some() { Exit::Refused } else { Exit::Done })
        }
        DbVerb::List { environment } => {
            let (facts, seen) = look(session, environment).await?;
            if out.json() {
                out.document(render::json::backups(environment, &facts));
            } else {
                out.result(&render::backups(&facts, seen.now_ms));
            }
            Ok(Exit::Done)
        }
        DbVerb::Backup(work) => begin(session, work, Work::Backup(v1::BackupWork {}), out).await,
        DbVerb::Verify { work, backup } => {
            begin(session, work, Work::Verify(v1::VerifyWork { backup: backup.to_string() }), out).await
        }
        DbVerb::Contract { work, migrations, out_of_order, yes } => {
            let question = format!(
                "apply contract migrations to {}? The version before does not work with it any more",
                work.environment
            );
            if !out.confirm(&question, *yes)? {
                return Ok(super::declined(out));
            }
            let mut caller = session.caller(&work.environment)?;
            let migrations = publish(&mut caller, &work.environment, migrations, out).await?.to_string();
            let contract = v1::ContractWork { migrations, out_of_order: out_of_order.clone() };
            begin(session, work, Work::Contract(contract), out).await
        }
        DbVerb::Down { work, version, migrations, confirm } => {
            if !typed(out, &work.environment, confirm.as_ref())? {
                return Ok(super::declined(out));
            }
            let mut caller = session.caller(&work.environment)?;
            let migrations = publish(&mut caller, &work.environment, migrations, out).await?.to_string();
            begin(session, work, Work::Down(v1::DownWork { migrations, version: version.clone() }), out).await
        }
        DbVerb::Restore { work, backup, undo: true, confirm, accept_loss, .. } => {
            if !typed(out, &work.environment, confirm.as_ref())? {
                return Ok(super::declined(out));
            }
            let accept_loss = accept_loss.unwrap_or(0);
            let back = v1::SwapBackWork { backup: backup.to_string(), accept_loss };
            begin(session, work, Work::SwapBack(back), out).await
        }
        DbVerb::Restore { work, backup, settle: true, confirm, .. } => {
            if !typed(out, &work.environment, confirm.as_ref())? {
                return Ok(super::declined(out));
            }
            begin(session, work, Work::Settle(v1::SettleWork { backup: backup.to_string() }), out).await
        }
        DbVerb::Restore { work, backup, confirm, accept_loss, .. } => {
            restore(session, (work, backup), (confirm.as_ref(), *accept_loss), out).await
        }
    }
}

/// The database as its agent sees it.
async fn look(
    session: &Session,
    environment: &EnvironmentName,
) -> Result<(v1::DatabaseFacts, v1::StatusReply), Problem> {
    let caller = session.caller(environment)?;
    let request = v1::StatusRequest { environment: environment.to_string(), ..Default::default() };
    let mut seen = caller.answer(caller.client.clone().get_status(request)).await?;
    let agent = seen.agents.iter_mut().find(|agent| agent.role == "database-agent");
    let none = || {
        Problem::new(Code::ConfigInvalid, format!("`{environment}` has no database")).hint(format!(
            "name the database's agent in `[database]` of {environment}.toml on the coordinator"
        ))
    };
    let agent = agent.ok_or_else(none)?;
    if let Some(problem) = agent.problem.take().and_then(pointsman_proto::convert::problem_from_wire) {
        return Err(problem);
    }
    let facts = agent.database.take().ok_or_else(none)?;
    Ok((facts, seen))
}

fn request(work: &DbWork, purpose: Work) -> v1::CreateReleaseRequest {
    let plan = v1::PlanRequest {
        environment: work.environment.to_string(),
        release: String::new(),
        request_id: work.request_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        reason: work.reason.clone().unwrap_or_default(),
        purpose: Some(v1::plan_request::Purpose::Database(v1::DatabasePurpose { work: Some(purpose) })),
    };
    v1::CreateReleaseRequest { plan: Some(plan), fingerprint: String::new() }
}

/// Begins the work and waits for it.
async fn begin(session: &Session, work: &DbWork, purpose: Work, out: &Out) -> Result<Exit, Problem> {
    let caller = session.caller(&work.environment)?;
    let created = caller.answer(caller.client.clone().create_release(request(work, purpose))).await?;
    let verb = if created.attached { "attached to" } else { "started" };
    out.say(&format!("{verb} {} in {}", created.release, work.environment));
    wait_for(session, &work.environment, created.release, &work.waiting, Asked::Forward, out).await
}

/// Restores beside, says the loss, and swaps if a person accepts it.
async fn restore(
    session: &Session,
    (work, backup): (&DbWork, &BackupId),
    (confirm, accepted): (Option<&EnvironmentName>, Option<u64>),
    out: &Out,
) -> Result<Exit, Problem> {
    if let Some(accept_loss) = accepted {
        let (facts, seen) = look(session, &work.environment).await?;
        if let Some(loss) = render::loss(&facts, &backup.to_string(), seen.now_ms) {
            out.say(&loss);
        }
        say_other_schema(&facts, backup, out);
        if !typed(out, &work.environment, confirm)? {
            return Ok(super::declined(out));
        }
        let swap = v1::SwapWork { backup: backup.to_string(), accept_loss };
        return begin(session, work, Work::Swap(swap), out).await;
    }
    let beside = Work::Restore(v1::RestoreWork { backup: backup.to_string() });
    let restored = begin(session, work, beside, out).await?;
    if restored == Exit::Done {
        let (facts, _) = look(session, &work.environment).await?;
        say_other_schema(&facts, backup, out);
        out.say(&format!(
            "the live database is untouched; to make the restored one live: \
             `pointsman db restore {} --backup {backup} --accept-loss ROWS`, with the number of rows above",
            work.environment
        ));
    }
    Ok(restored)
}

/// Says where the backup is of another schema version than the database that it would replace.
fn say_other_schema(facts: &v1::DatabaseFacts, backup: &BackupId, out: &Out) {
    let id = backup.to_string();
    let Some(known) = facts.backups.iter().find(|known| known.id == id) else { return };
    let (there, here) =
        (render::schema_version(&known.schema_version), render::schema_version(&facts.schema_version));
    if there != here {
        out.say(&format!(
            "attention: migrations reach {there} in the backup and {here} in the live database: the version that serves may \
             need what lies between; a deploy with `--migrations` applies it again"
        ));
    }
}

/// Whether a person has typed the environment's name, beforehand or now.
fn typed(
    out: &Out,
    environment: &EnvironmentName,
    confirm: Option<&EnvironmentName>,
) -> Result<bool, Problem> {
    if let Some(confirm) = confirm {
        let wrong = || {
            Problem::new(Code::UsageWrong, format!("`--confirm {confirm}` is not `{environment}`"))
                .hint(format!("`--confirm {environment}`"))
        };
        return if confirm == environment { Ok(true) } else { Err(wrong()) };
    }
    if !out.can_ask() {
        return Err(Problem::new(
            Code::UsageWrong,
            "this needs the environment's name typed, and there is no terminal to type on",
        )
        .hint(format!("say it beforehand: `--confirm {environment}`")));
    }
    let mut stderr = anstream::stderr().lock();
    let _ = write!(stderr, "this is about the live database of {environment}; type the environment's name: ")
        .and_then(|()| stderr.flush());
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer).unwrap_or(0);
    Ok(read > 0 && answer.trim() == environment.as_str())
}
