//! Puts what is in a backup into an empty database.

use std::path::PathBuf;

use pointsman_chassis::host_facts;
use pointsman_core::{Code, Problem};

use super::archive::Archive;
use super::dump::unwritten;
use super::extensions;
use super::given::{Given, as_stored};
use super::manifest::{Format, Manifest};
use super::part;
use super::plain::WithoutGiven;
use crate::child::Program;
use crate::statement::{field, refused};
use crate::tools::Tools;
use crate::{Progress, Session, Settings, room};

/// How many jobs load an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Jobs {
    /// Two, which needs room to unpack the archive first.
    Several,
    /// One after the other, as `pg_dump` has put everything. Several jobs go by the dependencies alone that an archive
    /// notes, and may meet on partitions that none of them names.
    One,
}

/// How many tables are loaded at once where the archive is unpacked first.
const JOBS: u32 = 2;
/// Most memory that an index is built with, in kB: with more none was built faster, with this a tenth faster than with the
/// server's usual 64 MB.
const INDEX_MEMORY_KB: u64 = 256 << 10;

/// How an archive is best loaded into this empty database.
pub(crate) async fn best(settings: &Settings, archive: &Archive, database: &str) -> Result<Jobs, Problem> {
    if archive.manifest.format != Format::Custom {
        return Ok(Jobs::One);
    }
    let target = Target::ask(settings, &archive.manifest, database).await?;
    let raw_bytes = archive.manifest.raw_bytes;
    let has_room = target.room >= raw_bytes.saturating_add(raw_bytes / 20);
    Ok(if target.in_order || !has_room { Jobs::One } else { Jobs::Several })
}

/// Loads an archive. The first error ends it, and the database is then good for nothing but to be looked at.
pub(crate) async fn load(
    settings: &Settings,
    tools: &Tools,
    archive: &Archive,
    (database, jobs): (&str, Jobs),
    progress: &Progress,
) -> Result<(), Problem> {
    extensions::create(settings, &archive.manifest, database).await?;
    let target = Target::ask(settings, &archive.manifest, database).await?;
    match archive.manifest.format {
        Format::Custom => load_archive(settings, tools, archive, (&target, jobs), progress).await,
        Format::SqlGz => {
            let mut program = Program::new(settings, &tools.program("psql"), "load")?;
            program.command().env("PGDATABASE", database).env("PGOPTIONS", &target.options).args([
                "--no-psqlrc",
                "--quiet",
                "--no-password",
                "--set=ON_ERROR_STOP=1",
                "--file=-",
            ]);
            let without = |input| WithoutGiven::on(target.given, input);
            let fed = archive.feed_through(program, Code::BackupUnrestorable, progress, "loaded", without);
            fed.await.map(|_| ())
        }
    }
}

async fn load_archive(
    settings: &Settings,
    tools: &Tools,
    archive: &Archive,
    (target, jobs): (&Target<'_>, Jobs),
    progress: &Progress,
) -> Result<(), Problem> {
    let list = List::write(settings, archive, &archive.list_without(&target.given, tools).await?)?;
    let mut program = Program::new(settings, &tools.program("pg_restore"), "load")?;
    program
        .command()
        .env("PGOPTIONS", &target.options)
        .args(["--exit-on-error", "--no-password", "--no-subscriptions", "--dbname", target.database])
        .arg("--use-list")
        .arg(&list.0);
    if jobs == Jobs::One {
        return archive.feed(program, Code::BackupUnrestorable, progress, "loaded").await.map(|_| ());
    }
    // An archive that came through a pipe has no positions in it: several jobs need a file to look for them.
    let spool = settings.backup.dir.join(format!("{}.spool", archive.manifest.id));
    let spool = archive.unpack(&spool, settings.backup.floor_bytes, progress).await?;
    progress.say(format!("restore: {} MiB are loaded by {JOBS} jobs", archive.manifest.raw_bytes >> 20));
    program.command().arg(format!("--jobs={JOBS}")).arg(spool.temporary());
    let ended = program.start()?.end().await?;
    ended.well(Code::BackupUnrestorable, &format!("load backup `{}`", archive.manifest.id)).map(|_| ())
}

/// The empty database that is loaded.
struct Target<'a> {
    database: &'a str,
    /// What it holds already.
    given: Given,
    /// Whether tables of an extension refer to one another: a dump has their rows in order, and notes no reason for it.
    in_order: bool,
    /// What sessions that load it begin with.
    options: String,
    /// Bytes that may be written beside it in the folder of backups.
    room: u64,
}

impl<'a> Target<'a> {
    async fn ask(settings: &Settings, manifest: &Manifest, database: &'a str) -> Result<Self, Problem> {
        let session = Session::open(settings, database, "restore").await?;
        let asked = async |sql: &str| {
            let sql =
                format!("SELECT convert_to(name, getdatabaseencoding()::text) FROM ({sql}) AS names (name)");
            let rows = session.client().query(&sql, &[]).await;
            let rows = rows.map_err(|error| refused("list what the template brought", &error))?;
            let name = |row| field::<Vec<u8>>(row, 0).map(|name| as_stored(&name));
            rows.iter().map(name).collect::<Result<Vec<String>, Problem>>()
        };
        let extensions = asked("SELECT extname::text FROM pg_extension").await?;
        let schemas = "SELECT nspname::text FROM pg_namespace
                        WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public')";
        // The owner of the database is who loads it; the server may not know yet that this makes a member.
        let foreign_schemas = "SELECT nspname::text FROM pg_namespace
                                WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
                                  AND nspowner IN (SELECT oid FROM pg_roles
                                                    WHERE NOT pg_has_role(oid, 'USAGE') AND rolname <> 'pg_database_owner')";
        let foreign_roles = "SELECT rolname::text FROM pg_roles
                              WHERE NOT pg_has_role(oid, 'USAGE') AND rolname <> 'pg_database_owner'";
        let given = Given {
            extensions,
            schemas: asked(schemas).await?,
            foreign_schemas: asked(foreign_schemas).await?,
            foreign_roles: asked(foreign_roles).await?,
            empty: to_stay_empty(manifest, &session).await?,
        };
        let referring = "SELECT c.conname::text FROM pg_constraint c
                          WHERE c.contype = 'f' AND c.conrelid <> c.confrelid
                            AND EXISTS (SELECT 1 FROM pg_extension e WHERE c.conrelid = ANY (e.extconfig))
                          LIMIT 1";
        let in_order = !asked(referring).await?.is_empty();
        // Commits need not wait for the disk: what a crash cuts short is loaded anew. NULL in an array is what a dump writes
        // for none, whatever the database takes it for.
        let options = format!(
            "-c synchronous_commit=off -c default_transaction_read_only=off -c array_nulls=on -c maintenance_work_mem={}kB {}",
            memory_kb(settings, &session).await?,
            session.no_limits().await?
        );
        let room = room::beside_copy(settings, &session, manifest).await?;
        Ok(Self { database, given, in_order, options, room })
    }
}

/// What was filled from other databases, as the dump names it.
async fn to_stay_empty(manifest: &Manifest, session: &Session) -> Result<Vec<(String, String)>, Problem> {
    let views = &manifest.contents.filled_from_elsewhere;
    let schemas: Vec<&str> = views.iter().map(|view| view.schema.as_str()).collect();
    let names: Vec<&str> = views.iter().map(|view| view.name.as_str()).collect();
    let sql = "SELECT convert_to(schema, getdatabaseencoding()::text), convert_to(name, getdatabaseencoding()::text)
                 FROM unnest($1::text[], $2::text[]) AS v (schema, name)";
    let rows = session.client().query(sql, &[&schemas, &names]).await;
    let rows = rows.map_err(|error| refused("list what is not to be filled", &error))?;
    let stored = |row, index| field::<Vec<u8>>(row, index).map(|name| as_stored(&name));
    rows.iter().map(|row| Ok((stored(row, 0)?, stored(row, 1)?))).collect()
}

/// What one index may be built with, in kB: what the server gives anyway, or more where the machine has it to spare. A
/// quarter of what is free goes to all jobs together.
async fn memory_kb(settings: &Settings, session: &Session) -> Result<u64, Problem> {
    let sql = "SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'maintenance_work_mem'";
    let row = session.client().query_one(sql, &[]).await;
    let row = row.map_err(|error| refused("ask how much memory the server gives", &error))?;
    let given = field::<i64>(&row, 0)?.unsigned_abs();
    let free_kb = match settings.is_here() {
        true => host_facts(&settings.backup.dir).memory_available_bytes >> 10,
        false => 0,
    };
    Ok(given.max(spare_kb(free_kb)))
}

fn spare_kb(free_kb: u64) -> u64 {
    (free_kb / 4 / u64::from(JOBS)).min(INDEX_MEMORY_KB)
}

/// A list of contents in a file that is gone when it was used.
struct List(PathBuf);

impl List {
    fn write(settings: &Settings, archive: &Archive, lines: &[String]) -> Result<Self, Problem> {
        let path = settings.backup.dir.join(format!("{}.list{}", archive.manifest.id, part::ENDING));
        // The number that a line begins with says which entry it is.
        let entries = lines.iter().filter_map(|line| line.split(' ').next());
        let text: String = entries.flat_map(|number| [number, "\n"]).collect();
        // A crash may have left one.
        _ = std::fs::remove_file(&path);
        std::fs::write(&path, text).map_err(|error| unwritten("list the contents of a backup", &error))?;
        Ok(Self(path))
    }
}

impl Drop for List {
    fn drop(&mut self) {
        _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn indexes_are_built_with_what_is_to_spare() {
        assert_eq!(super::spare_kb(0), 0);
        assert_eq!(super::spare_kb(800 << 10), 100 << 10);
        assert_eq!(super::spare_kb(64 << 20), 256 << 10);
    }
}
