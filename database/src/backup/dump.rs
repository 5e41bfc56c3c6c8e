//! `pg_dump`, through compression and digest into a file, never through a shell.

use std::fs::File;
use std::io;
use std::process::Stdio;

use pointsman_core::{Code, Problem};
use tokio::process::Command;

use super::snapshot::Snapshot;
use super::stream::{self, AboveFloor, Gathering, Written};
use crate::child::Program;
use crate::tools::Tools;
use crate::{BackupFormat, Progress, Settings};

/// How long `pg_dump` waits for a lock that somebody's DDL holds. While it waits it makes nobody else wait.
const LOCK_WAIT: &str = "--lock-wait-timeout=5s";

/// Dumps the database as it was in the snapshot.
pub(crate) async fn database(
    settings: &Settings,
    tools: &Tools,
    snapshot: &Snapshot,
    file: File,
    progress: &Progress,
) -> Result<Written, Problem> {
    let mut program = Program::new(settings, &tools.program("pg_dump"), "dump")?;
    let command = program.command();
    // The name goes by the environment: as an argument it could be read as a list of connection settings.
    command.env("PGDATABASE", &settings.name).args([LOCK_WAIT, "--no-password"]);
    command.arg(format!("--snapshot={}", snapshot.exported));
    if snapshot.by_root {
        command.arg("--load-via-partition-root");
    }
    match settings.backup.format {
        BackupFormat::Custom => command.args(["--format=custom", "--compress=0"]),
        BackupFormat::SqlGz => command.args(["--format=plain", "--compress=6"]),
    };
    let file = AboveFloor::new(file, settings.backup.floor_bytes);
    let progress = progress.clone();
    let tell = move |bytes: u64| progress.say(format!("backup: {} MiB dumped", bytes >> 20));
    match settings.backup.format {
        BackupFormat::Custom => {
            flow(program, "dump the database", move |from| stream::compress(from, file, tell)).await
        }
        BackupFormat::SqlGz => {
            flow(program, "dump the database", move |from| stream::store(from, file, tell)).await
        }
    }
}

/// Dumps roles and tablespaces, without passwords: what a restore elsewhere needs first.
///
/// `pg_dump` lifts the limits of its session itself, this does not: `limits` is what it is to begin with.
pub(crate) async fn roles(
    settings: &Settings,
    tools: &Tools,
    limits: &str,
    file: File,
) -> Result<Written, Problem> {
    let mut program = Program::new(settings, &tools.program("pg_dumpall"), "roles")?;
    program.command().env("PGDATABASE", &settings.maintenance).env("PGOPTIONS", limits).args([
        "--globals-only",
        "--no-role-passwords",
        "--no-password",
    ]);
    let file = AboveFloor::new(file, settings.backup.floor_bytes);
    flow(program, "dump the roles", move |from| stream::store(from, file, |_| {})).await
}

/// Starts a program and moves what it says on a thread that may block. Both must end well. Dropped, it kills the
/// program, which ends the thread.
async fn flow<F>(mut program: Program, doing: &str, moving: F) -> Result<Written, Problem>
where
    F: FnOnce(Gathering<io::PipeReader>) -> io::Result<Written> + Send + 'static,
{
    let reader = Gathering(output_of(program.command(), doing)?);
    let running = program.start()?;
    let moved = tokio::task::spawn_blocking(move || moving(reader)).await;
    let written = match moved {
        Ok(Ok(written)) => written,
        Ok(Err(error)) => return Err(unwritten(doing, &error)),
        Err(_) => return Err(Problem::new(Code::BackupFailed, format!("cannot {doing}: its thread failed"))),
    };
    running.end().await?.well(Code::BackupFailed, doing).map_err(explained)?;
    Ok(written)
}

/// A pipe from the program that is about to be started.
pub(crate) fn output_of(command: &mut Command, doing: &str) -> Result<io::PipeReader, Problem> {
    let failed = |error: io::Error| Problem::new(Code::FileSystem, format!("cannot {doing}")).because(&error);
    let (reader, writer) = io::pipe().map_err(failed)?;
    // A smaller pipe works too.
    _ = rustix::pipe::fcntl_setpipe_size(&reader, stream::CHUNK_BYTES);
    command.stdout(Stdio::from(writer));
    Ok(reader)
}

/// A file that could not be written.
pub(crate) fn unwritten(doing: &str, error: &io::Error) -> Problem {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let problem = Problem::new(
        if full { Code::NoRoom } else { Code::BackupFailed },
        format!("cannot {doing}: the file cannot be written"),
    );
    let problem = problem.because(error);
    if full {
        problem.hint("make room in the folder of backups: `df -h`, `pointsman db list ENV`")
    } else {
        problem
    }
}

fn explained(problem: Problem) -> Problem {
    let says = |words: &str| problem.causes.iter().any(|cause| cause.contains(words));
    let hint = if says("permission denied") || says("must be owner") {
        "give the agent's role its rights: the script `database-role.sql`"
    } else if says("canceling statement due to lock timeout") || says("could not obtain lock") {
        "somebody changes the schema at this moment: `pointsman db backup ENV` a little later"
    } else {
        return problem;
    };
    problem.hint(hint)
}
