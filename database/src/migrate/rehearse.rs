//! The rehearsal: what is pending runs on a restored copy first, measured. What fails there, would make visitors wait, or
//! breaks the slot that serves, stops the release before the live database is touched.

use std::time::Duration;

use pointsman_core::{Code, Problem};
use pointsman_migration::{Class, Phase, Script, Set, Version};

use super::measure::Measure;
use super::order::{Measured, Ran, Rehearsal, RunOrder, SegmentCost};
use super::relied_on::{self, ReliedOn};
use super::run::Run;
use super::sessions::{leave_our_schema, look_as_files_do};
use super::{elsewhere, gate, replan, restorable, status, unvalidated, written};
use crate::{Authority, Progress, Session, Settings};

/// A table of more than this is not written anew without the header `allow-rewrite`.
const MAX_REWRITTEN_BYTES: u64 = 8 << 20;

/// Runs what is pending on the copy, and judges it. An error means: the live database was not touched, and must not be.
pub async fn rehearse(
    settings: &Settings,
    scratch_database: &str,
    set: &Set,
    order: &RunOrder<'_>,
    authority: &dyn Authority,
    progress: &Progress,
) -> Result<Rehearsal, Problem> {
    if scratch_database == settings.name {
        let message = format!("`{scratch_database}` is the live database; a rehearsal needs a copy");
        return Err(
            Problem::new(Code::UsageWrong, message).hint("restore a copy first: `pointsman db verify ENV`")
        );
    }
    // What the text alone rules out is said before anything is run. The copy is asked what is pending: where the live
    // database has no records yet, the copy has been adopted, and what was there before pointsman is nobody's to judge.
    let copy = Session::open(settings, scratch_database, "look").await?;
    leave_our_schema(&copy).await?;
    let of_copy = Settings { name: scratch_database.to_owned(), ..settings.clone() };
    let standing = status::look(&of_copy, &copy).await?;
    let pending =
        status::left(&standing.records, &standing.leftovers, set, order.phase, &order.out_of_order)?;
    let scripts: Vec<&Script> =
        pending.scripts.iter().filter_map(|migration| migration.script(order.phase)).collect();
    gate::check(&scripts)?;
    let window = replan::Window::open(settings).await?;
    // Rows are written to what the files mean by a name.
    let writing = Session::open(settings, scratch_database, "look").await?;
    look_as_files_do(&writing, settings).await?;
    let relied_on = match order.phase {
        Phase::Expand => Some(ReliedOn::look(&copy).await?),
        _ => None,
    };
    // Nothing is written before that, and what it makes is nothing that anybody relies on.
    elsewhere::close_all(&copy).await?;
    let before = match relied_on {
        Some(relied_on) => {
            Some((relied_on, written::look(&writing, &scripts).await?, unvalidated::look(&copy).await?))
        }
        None => None,
    };
    let on_copy = RunOrder { database: scratch_database, ..order.clone() };
    let rehearsed = on(settings, set, &on_copy, authority, progress).await;
    progress.done();
    let (ran, measured) = rehearsed.map_err(untouched)?;
    judge(&scripts, &ran, &measured, order.max_stall_ms)?;
    restorable::look(&copy).await?;
    // Queries that break tell more than what they miss.
    let (replanned, notes) = replan::look(&copy, &window, order.phase, progress).await?;
    replan::judge(&replanned, order.phase)?;
    if let Some((relied_on, written, unvalidated)) = before {
        let mut taken = relied_on.taken(&ReliedOn::look(&copy).await?);
        look_as_files_do(&writing, settings).await?;
        taken.extend(written.refused_now(&writing).await?);
        taken.extend(unvalidated.broken_now(&copy).await?);
        relied_on::judge(&taken).map_err(untouched)?;
    }
    Ok(Rehearsal { statements: measured, ran, replanned, notes })
}

/// Takes a version back on the copy, and looks what the version that serves makes of it.
pub async fn rehearse_down(
    settings: &Settings,
    scratch_database: &str,
    set: &Set,
    version: &Version,
    order: &RunOrder<'_>,
    authority: &dyn Authority,
    progress: &Progress,
) -> Result<Rehearsal, Problem> {
    let on_copy = RunOrder { database: scratch_database, ..order.clone() };
    let copy = Session::open(settings, scratch_database, "look").await?;
    leave_our_schema(&copy).await?;
    let down: Vec<&Script> =
        set.get(version).and_then(|migration| migration.down.as_ref()).into_iter().collect();
    gate::check(&down)?;
    elsewhere::close_all(&copy).await?;
    let window = replan::Window::open(settings).await?;
    let rehearsed = super::down::measured(settings, set, version, &on_copy, authority, progress).await;
    let (ran, measured) = rehearsed.map_err(untouched)?;
    judge(&down, &ran, &measured, order.max_stall_ms)?;
    restorable::look(&copy).await?;
    let (replanned, notes) = replan::look(&copy, &window, order.phase, progress).await?;
    replan::judge(&replanned, order.phase)?;
    Ok(Rehearsal { statements: measured, ran, replanned, notes })
}

async fn on(
    settings: &Settings,
    set: &Set,
    order: &RunOrder<'_>,
    authority: &dyn Authority,
    progress: &Progress,
) -> Result<(Ran, Vec<Measured>), Problem> {
    let mut run = Run::open(settings, order, authority, progress).await?;
    run.measure = Some(Measure::default());
    let ran = run.everything(set).await?;
    Ok((ran, run.measure.take().map(|measure| measure.statements).unwrap_or_default()))
}

/// Whatever changed, changed on the copy.
fn untouched(problem: Problem) -> Problem {
    problem
        .aftermath(pointsman_core::Aftermath::Unchanged)
        .cause("this was the rehearsal on a copy; the live database was not touched")
}

/// A file that may rewrite tables may hold locks for as long as its statements of that class take, and for nothing else.
fn judge(scripts: &[&Script], ran: &Ran, measured: &[Measured], max_stall_ms: u64) -> Result<(), Problem> {
    for script in scripts {
        let allowed = script.headers.allow_rewrite;
        let of_it = |measured: &&Measured| measured.path == script.path;
        let too_much = |m: &&Measured| m.rewritten_bytes > MAX_REWRITTEN_BYTES && !allowed;
        if let Some(rewrite) = measured.iter().filter(of_it).find(too_much) {
            let message = format!(
                "{}: this wrote {} bytes of tables and indexes anew on the copy, under {}",
                rewrite.place,
                rewrite.rewritten_bytes,
                locks(rewrite)
            );
            return Err(refused(&message, STEPS_OR_ALLOW));
        }
        let rewrites = |segment: &SegmentCost| {
            let within = |m: &&Measured| (segment.first..=segment.last).contains(&m.ordinal);
            measured
                .iter()
                .filter(of_it)
                .filter(within)
                .any(|m| m.class == Class::Rewrite || m.rewritten_bytes > 0)
        };
        let mut segments =
            ran.applied.iter().filter(|file| script.path == file.path).flat_map(|file| &file.segments);
        let stalls = segments.find(|segment| {
            segment.lock_held > Duration::from_millis(max_stall_ms) && !(allowed && rewrites(segment))
        });
        if let Some(segment) = stalls {
            let message = format!(
                "{}: statements {} to {} held locks that make visitors wait for {} ms on the copy; {max_stall_ms} ms are allowed",
                script.path,
                segment.first,
                segment.last,
                segment.lock_held.as_millis()
            );
            return Err(refused(&message, if allowed { STEPS } else { STEPS_OR_ALLOW }));
        }
    }
    Ok(())
}

const STEPS: &str = "move what takes long into a file of its own, away from what changes tables: rows with `batch=`, then \
                     `pointsman deploy ENV`";
const STEPS_OR_ALLOW: &str = "write it in steps that do not (`CONCURRENTLY`, `NOT VALID` and `VALIDATE`, `batch=`), or allow \
                              it: `-- pointsman: allow-rewrite`";

fn refused(message: &str, hint: &str) -> Problem {
    Problem::new(Code::MigrationDangerous, message)
        .cause("this was the rehearsal on a copy; the live database was not touched")
        .hint(hint)
}

fn locks(measured: &Measured) -> String {
    let held: Vec<String> =
        measured.locks.iter().map(|(relation, mode)| format!("{mode} on {relation}")).collect();
    if held.is_empty() { format!("locks that stood already ({:?})", Class::Rewrite) } else { held.join(", ") }
}
