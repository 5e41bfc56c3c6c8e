//! Takes a backup: one moment of the database in a file of its own, with a manifest beside it, complete or not there.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pointsman_chassis::failpoint;
use pointsman_core::{Code, Problem};

use super::archive::Archive;
use super::catalog::{self, Backup};
use super::dump;
use super::manifest::{self, Level, Manifest, Mark};
use super::name::{self, BackupId};
use super::part::{self, Part};
use super::snapshot::Snapshot;
use super::stream::Written;
use crate::guard::Guard;
use crate::server::Server;
use crate::shape::Shape;
use crate::tools::Tools;
use crate::{Authority, BackupFormat, Progress, Settings, contents, held, moment, room};

/// How long another dump, migration or restore is waited for.
const GUARD_WAIT: Duration = Duration::from_secs(60);
/// The longest backup: beyond it something hangs.
const LONGEST: Duration = Duration::from_secs(12 * 3600);
/// Most backups of one name: of one day, with the format of the day.
const MAX_OF_A_NAME: u32 = 1000;
/// The endings of what stands beside a dump.
const SUM_ENDING: &str = ".sha256";
pub(crate) const ROLES_ENDING: &str = ".roles.sql";

/// What a backup is taken for.
#[derive(Clone, Debug)]
pub struct BackupOrder {
    /// The release: for each there is one backup, however often it is asked for.
    pub release: String,
    /// The version that is about to be released.
    pub label: String,
}

/// Takes a backup, or finds the one that was taken for this release. The digest of what was written is known, so it
/// has passed the first check. Dropped half-way it leaves nothing behind.
pub async fn take(
    settings: &Settings,
    order: &BackupOrder,
    authority: &dyn Authority,
    progress: &Progress,
) -> Result<Backup, Problem> {
    let taking = async {
        match take_bounded(settings, order, authority, progress).await {
            Err(problem) => Err(Box::pin(held::in_backup(settings, problem)).await),
            taken => taken,
        }
    };
    let taken = tokio::time::timeout(LONGEST, taking).await;
    progress.done();
    taken.unwrap_or_else(|_| Err(Problem::new(Code::BackupFailed, "the backup did not end within 12 hours")))
}

async fn take_bounded(
    settings: &Settings,
    order: &BackupOrder,
    authority: &dyn Authority,
    progress: &Progress,
) -> Result<Backup, Problem> {
    authority.check()?;
    progress.say("backup: waiting for other work on the database");
    let guard = Guard::take(settings, GUARD_WAIT).await?;
    let server = Server::ask(guard.session()).await?;
    let shape = Shape::of(guard.session().client(), &settings.name).await?;
    if let Some(found) = of_release(settings, &order.release, (&server, &shape)).await? {
        return Ok(found);
    }
    let tools = Tools::find(settings, server.major()).await?;
    room::for_dump(settings, guard.session()).await?;
    remove_left_over(&settings.backup.dir);
    let snapshot = Snapshot::take(settings).await?;

    let id = free_id(settings, order, snapshot.taken_at_ms)?;
    let folder = settings.backup.dir.as_path();
    let path = id.file(folder, name::ending(settings.backup.format));
    let (part, file) = Part::begin(&path).map_err(|error| unwritten(&error))?;
    let (roles, roles_file) =
        Part::begin(&id.file(folder, ROLES_ENDING)).map_err(|error| unwritten(&error))?;
    let dumping = dump::database(settings, &tools, &snapshot, file, progress);
    let limits = guard.session().no_limits().await?;
    let roles_dumping = dump::roles(settings, &tools, &limits, roles_file);
    let (written, contents, _) = tokio::try_join!(dumping, snapshot.contents(progress), roles_dumping)?;
    let mut contents = contents;
    contents.sequences = snapshot.sequences().await?;
    let schema_version =
        contents::schema_version(snapshot.session().client(), settings.named_version_table()).await?;
    let manifest = Manifest {
        schema: Manifest::schema(),
        id: id.as_str().to_owned(),
        file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        format: settings.backup.format.into(),
        release: order.release.clone(),
        label: order.label.clone(),
        taken_at_ms: snapshot.taken_at_ms,
        sequence: catalog::next_number(folder)?,
        bytes: written.bytes,
        raw_bytes: written.raw_bytes,
        database_bytes: room::database_bytes(guard.session(), &settings.name).await?,
        sha256: written.sha256.clone(),
        database: settings.name.clone(),
        system: server.system.clone(),
        server_version: server.version.clone(),
        tool_version: tools.version.clone(),
        snapshot: snapshot.current.clone(),
        lsn: snapshot.lsn.clone(),
        schema_version,
        shape,
        contents,
    };
    let manifest = judged(manifest, &part, &tools, progress).await?;
    authority.check()?;
    guard.check()?;
    publish(folder, &id, part, roles, &manifest, &written)?;
    Ok(Backup::described(folder, &id, &manifest))
}

/// What `pg_dump` wrote must be an archive of this database, or plain SQL up to its end.
async fn judged(
    mut manifest: Manifest,
    part: &Part,
    tools: &Tools,
    progress: &Progress,
) -> Result<Manifest, Problem> {
    let archive = Archive::at(part.temporary().to_owned(), manifest.clone());
    if BackupFormat::from(manifest.format) == BackupFormat::SqlGz {
        progress.say("backup: reading it back");
        manifest.raw_bytes = archive.read_all(tools, progress).await?;
    } else {
        archive.list(tools).await?;
    }
    Ok(manifest)
}

/// The sound backup that was taken for a release of the database that is live now, if there is one. Another one may have had
/// its name since: what a release is to come back to is not what was replaced.
async fn of_release(
    settings: &Settings,
    release: &str,
    (server, live): (&Server, &Shape),
) -> Result<Option<Backup>, Problem> {
    let sound = |backup: &Backup| {
        backup.release == release && backup.database == settings.name && backup.fault.is_none()
    };
    let (folder, system, oid) = (settings.backup.dir.clone(), server.system.clone(), live.oid);
    let of_live = move |backup: &Backup| {
        let manifest = BackupId::parse(&backup.id).and_then(|id| Manifest::read(&folder, &id));
        manifest.is_ok_and(|manifest| (manifest.system, manifest.shape.oid) == (system.clone(), oid))
    };
    let sound: Vec<Backup> = catalog::list(settings).await?.into_iter().filter(sound).collect();
    let looking = tokio::task::spawn_blocking(move || sound.into_iter().rfind(of_live)).await;
    let found = looking.map_err(|_| Problem::new(Code::FileSystem, "cannot look at backups"))?;
    Ok(found.map(|backup| Backup { already: true, ..backup }))
}

/// Removes what a crash left of files that never became complete, and of backups that were coming or going. The guard is held:
/// nobody writes them now. A dump that no manifest of ours tells of may be anybody's.
fn remove_left_over(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(part::ENDING)) else { continue };
        if BackupId::parse(stem).is_err() {
            continue;
        }
        tracing::warn!(file = %entry.path().display(), "removing what an earlier backup left unfinished");
        let id = stem.strip_suffix(manifest::ENDING).and_then(|id| BackupId::parse(id).ok());
        // It takes room and nothing else.
        _ = match id.filter(|id| !id.file(folder, manifest::ENDING).exists()) {
            Some(id) => withdraw(folder, &id),
            None => std::fs::remove_file(entry.path()),
        };
    }
}

/// Removes all files of a backup whose manifest is withheld, and that last: as long as there are others, it tells of them.
pub(crate) fn withdraw(folder: &Path, id: &BackupId) -> io::Result<()> {
    let dumps = [BackupFormat::Custom, BackupFormat::SqlGz].map(name::ending);
    for ending in dumps.into_iter().chain([SUM_ENDING, ROLES_ENDING, manifest::MARK_ENDING]) {
        match std::fs::remove_file(id.file(folder, ending)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    pointsman_chassis::durable::sync_directory(folder)?;
    part::Part::clear(&id.file(folder, manifest::ENDING));
    pointsman_chassis::durable::sync_directory(folder)
}

/// A name that no file has.
fn free_id(settings: &Settings, order: &BackupOrder, taken_at_ms: u64) -> Result<BackupId, Problem> {
    let (folder, format) = (&settings.backup.dir, settings.backup.format);
    let endings = [name::ending(format), SUM_ENDING, ROLES_ENDING, manifest::ENDING];
    (1..=MAX_OF_A_NAME)
        .map(|attempt| BackupId::new(format, taken_at_ms, &order.label, attempt))
        .find(|id| endings.iter().all(|ending| !id.file(folder, ending).exists()))
        .ok_or_else(|| {
            Problem::new(
                Code::BackupFailed,
                format!("there are {MAX_OF_A_NAME} backups of this name already"),
            )
        })
}

/// Gives the files their names, the manifest last. If one of them cannot have it, those before are taken away again:
/// without a manifest they are no backup.
fn publish(
    folder: &Path,
    id: &BackupId,
    dump: Part,
    roles: Part,
    manifest: &Manifest,
    written: &Written,
) -> Result<(), Problem> {
    let withheld = manifest.withheld(folder, id).map_err(|error| unwritten(&error))?;
    let mut published = Published::default();
    let sum = id.file(folder, SUM_ENDING);
    let content = format!("{}  {}\n", written.sha256, manifest.file);
    published.add(folder.join(&manifest.file), |_| dump.publish())?;
    published.add(id.file(folder, ROLES_ENDING), |_| roles.publish())?;
    published.add(sum, |path| part::write(path, content.as_bytes()))?;
    failpoint::pass("backup-published");
    withheld.publish().map_err(|error| unwritten(&error))?;
    published.0.clear();
    // The digest is that of what was written; without the mark the backup is complete all the same.
    if let Err(error) = Mark::write(folder, id, &manifest.sha256, Level::Digest, moment::now_ms()) {
        tracing::warn!(backup = id.as_str(), %error, "cannot note that the backup was checked");
    }
    Ok(())
}

/// Files that have their names but no manifest yet.
#[derive(Default)]
struct Published(Vec<PathBuf>);

impl Published {
    fn add(&mut self, path: PathBuf, publish: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), Problem> {
        publish(&path).map_err(|error| unwritten(&error))?;
        self.0.push(path);
        Ok(())
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        for path in &self.0 {
            _ = std::fs::remove_file(path);
        }
    }
}

fn unwritten(error: &io::Error) -> Problem {
    dump::unwritten("take a backup", error)
}

/// The file with the digest of a dump, for `sha256sum -c`.
pub(crate) fn sum_of(folder: &Path, id: &BackupId) -> io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    File::open(id.file(folder, SUM_ENDING))?.take(1024).read_to_string(&mut text)?;
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}
