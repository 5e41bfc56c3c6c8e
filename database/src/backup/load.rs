//! Puts what is in a backup into an empty database.

use std::path::PathBuf;

use pointsman_chassis::host_facts;
use pointsman_core::{Code, Problem};

use super::archive::Archive;
use super::dump::unwritten;
use super::manifest::{Format, Manifest};
use super::part;
use super::plain::{Given, WithoutGiven};
use crate::child::Program;
use crate::statement::{field, quoted, refused};
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
    let list = List::write(settings, archive, &wanted(archive.list(tools).await?, &target.given))?;
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

/// The contents without what only the owner of an extension may say about it, and without the schemas that are there. Rights on a
/// schema, and its comment, stay, but where both are there too: in one that is a superuser's.
fn wanted(list: Vec<String>, given: &Given) -> Vec<String> {
    list.into_iter().filter(|line| !is_given(line, given)).collect()
}

/// Whether a line of an archive's list is about what is given: `7; 0 0 ACL - SCHEMA gis site`.
fn is_given(line: &str, given: &Given) -> bool {
    let Some(entry) = line.splitn(4, ' ').nth(3) else { return false };
    // After a name its owner stands, or nobody. What is said of a thing names it as a statement would.
    let is_one = |rest: &str, names: &[String]| {
        let is = |name: &str| rest.strip_prefix(name).is_some_and(|owner| owner.starts_with(' '));
        names.iter().any(|name| is(name) || is(&quoted(name)))
    };
    if let Some(rest) = entry.strip_prefix("COMMENT - EXTENSION ") {
        is_one(rest, &given.extensions)
    } else if let Some(rest) = entry.strip_prefix("SCHEMA - ") {
        is_one(rest, &given.schemas) || is_one(rest, &given.foreign_schemas)
    } else if let Some(rest) =
        ["COMMENT - SCHEMA ", "ACL - SCHEMA "].iter().find_map(|about| entry.strip_prefix(about))
    {
        is_one(rest, &given.foreign_schemas)
    } else if let Some((schema, rest)) = entry.strip_prefix("ACL ").and_then(|rest| rest.split_once(' ')) {
        rest.rsplit_once(' ').is_some_and(|(_, owner)| given.has_rights(schema, owner))
    } else {
        false
    }
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
            let rows = session.client().query(sql, &[]).await;
            let rows = rows.map_err(|error| refused("list what the template brought", &error))?;
            rows.iter().map(|row| field(row, 0)).collect::<Result<Vec<String>, Problem>>()
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
        };
        let referring = "SELECT c.conname::text FROM pg_constraint c
                          WHERE c.contype = 'f' AND c.conrelid <> c.confrelid
                            AND EXISTS (SELECT 1 FROM pg_extension e WHERE c.conrelid = ANY (e.extconfig))
                          LIMIT 1";
        let in_order = !asked(referring).await?.is_empty();
        // Commits need not wait for the disk: what a crash cuts short is loaded anew.
        let options = format!(
            "-c synchronous_commit=off -c default_transaction_read_only=off -c maintenance_work_mem={}kB {}",
            memory_kb(settings, &session).await?,
            session.no_limits().await?
        );
        let room = room::beside_copy(settings, &session, manifest).await?;
        Ok(Self { database, given, in_order, options, room })
    }
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
        let mut text = lines.join("\n");
        text.push('\n');
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

    #[test]
    fn what_the_template_gave_is_left_out_and_nothing_else() {
        let list = [
            "3; 3079 1 EXTENSION - postgis ",
            "4; 0 0 COMMENT - EXTENSION postgis ",
            "5; 0 0 COMMENT - EXTENSION hstore ",
            "6; 2615 16385 SCHEMA - gis site",
            "7; 0 0 ACL - SCHEMA gis site",
            "8; 0 0 COMMENT - SCHEMA gis site",
            "9; 2615 16386 SCHEMA - gist site",
            "10; 2615 16387 SCHEMA - topology postgres",
            "11; 0 0 ACL - SCHEMA topology postgres",
            "12; 0 0 COMMENT - SCHEMA \"the maps\" postgres",
            "13; 0 0 ACL public TABLE spatial_ref_sys postgres",
            "14; 0 0 ACL pg_catalog FUNCTION pg_stat_reset() postgres",
            "15; 0 0 ACL public FUNCTION levenshtein(text, text) postgres",
            "16; 0 0 ACL public TABLE features site",
            "17; 826 16399 DEFAULT ACL - DEFAULT PRIVILEGES FOR TABLES postgres",
        ];
        let given = super::Given {
            extensions: vec!["plpgsql".to_owned(), "postgis".to_owned()],
            schemas: vec!["gis".to_owned(), "topology".to_owned()],
            foreign_schemas: vec!["topology".to_owned(), "the maps".to_owned()],
            foreign_roles: vec!["postgres".to_owned()],
        };
        let kept = super::wanted(list.map(str::to_owned).to_vec(), &given);
        let expected = [0, 2, 4, 5, 6, 11, 13, 14].map(|kept| list[kept]);
        assert_eq!(kept, expected);
    }
}
