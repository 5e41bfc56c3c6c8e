//! Twelve ways in which a backup is lost, each done to a real one. A case returns how it was noticed.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use pointsman_core::Problem;
use pointsman_database::backup::{self, Backup, Manifest};
use pointsman_database::{BackupFormat, VerifyLevel};

use super::{Place, until};

/// The names of all cases, in the order in which they are tried.
pub const ALL: [&str; 12] = [
    "cut",
    "flipped byte",
    "empty",
    "wrong database",
    "missing role",
    "missing extension",
    "unrestorable trigger",
    "large object missing",
    "disk full",
    "dump killed",
    "same day twice",
    "retention would evict the last good one",
];

/// Does one of them. `Ok` tells how it was noticed, `Err` that it was not, `None` that it cannot be tried here.
pub async fn try_out(place: &mut Place, name: &str) -> Option<Result<String, String>> {
    Some(match name {
        "cut" => {
            at_rest(place, VerifyLevel::Digest, |dump| {
                let whole = std::fs::read(dump).unwrap();
                std::fs::write(dump, &whole[..whole.len() / 2]).unwrap();
            })
            .await
        }
        "flipped byte" => {
            at_rest(place, VerifyLevel::Digest, |dump| {
                let mut whole = std::fs::read(dump).unwrap();
                let middle = whole.len() / 2;
                whole[middle] ^= 1;
                std::fs::write(dump, &whole).unwrap();
            })
            .await
        }
        "empty" => at_rest(place, VerifyLevel::Digest, |dump| std::fs::write(dump, "").unwrap()).await,
        "wrong database" => wrong_database(place).await,
        "missing role" => missing_role(place).await,
        "missing extension" => missing_extension(place).await,
        "unrestorable trigger" => unrestorable_trigger(place).await,
        "large object missing" => large_object_missing(place).await,
        "disk full" => return disk_full(place).await,
        "dump killed" => dump_killed(place).await,
        "same day twice" => same_day_twice(place).await,
        "retention would evict the last good one" => retention(place).await,
        other => Err(format!("there is no case `{other}`")),
    })
}

fn noticed<T>(outcome: Result<T, Problem>) -> Result<String, String> {
    match outcome {
        Ok(_) => Err("it passed".to_owned()),
        Err(problem) => {
            let cause = problem.causes.first().map(|cause| format!(": {cause}")).unwrap_or_default();
            Ok(format!("{} {}{cause}", problem.code, problem.message))
        }
    }
}

/// A good backup that is damaged as it lies there. A check that passes first shows that the damage is what is noticed.
async fn at_rest(place: &Place, level: VerifyLevel, damage: impl Fn(&Path)) -> Result<String, String> {
    let taken = place.take("r1").await.unwrap();
    place.verify(&taken.id, VerifyLevel::Read).await.unwrap();
    damage(&place.dump(&taken));
    let outcome = noticed(place.verify(&taken.id, level).await)?;
    let listed = backup::list(&place.settings).await.unwrap();
    match listed.iter().find(|listed| listed.id == taken.id) {
        Some(listed) if listed.verified.is_none() => Ok(outcome),
        _ => Err("it is still listed as verified".to_owned()),
    }
}

/// Puts another dump in place of a backup's and makes digest and manifest agree with it, as an honest mistake would.
fn replace_dump(place: &Place, taken: &Backup, dump: &[u8]) {
    let compressed = zstd::encode_all(dump, 3).unwrap();
    let path = place.dump(taken);
    std::fs::write(&path, &compressed).unwrap();
    let sum = Command::new("sha256sum").arg(&path).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap().split_whitespace().next().unwrap().to_owned();
    let beside = |ending: &str| place.settings.backup.dir.join(format!("{}{ending}", taken.id));
    std::fs::write(beside(".sha256"), format!("{sum}  {}\n", taken.file)).unwrap();
    let text = std::fs::read(beside(".manifest.json")).unwrap();
    let mut manifest: Manifest = serde_json::from_slice(&text).unwrap();
    (manifest.sha256, manifest.bytes, manifest.raw_bytes) = (sum, compressed.len() as u64, dump.len() as u64);
    std::fs::write(beside(".manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
}

fn dumped(place: &Place, database: &str, more: &[&str]) -> Vec<u8> {
    let mut command = place.cluster.client("pg_dump", "postgres", database);
    let output = command.args(["-Fc", "-Z0"]).args(more).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

async fn wrong_database(place: &Place) -> Result<String, String> {
    let taken = place.take("r1").await.unwrap();
    replace_dump(place, &taken, &dumped(place, "postgres", &[]));
    let outcome = noticed(place.verify(&taken.id, VerifyLevel::Digest).await)?;
    // And the seed's own case: a database that does not exist.
    let mut settings = place.settings.clone();
    settings.name = "nobody_made_this".to_owned();
    let order = place.order("r2");
    let absent =
        backup::take(&settings, &order, &super::rule(), &pointsman_database::Progress::default()).await;
    noticed(absent)?;
    Ok(outcome)
}

async fn missing_role(place: &Place) -> Result<String, String> {
    let (role, agent) = (format!("{}_passing", place.settings.name), &place.settings.user);
    place.sql(&format!(
        "CREATE ROLE {role}; GRANT {role} TO {agent}; CREATE TABLE owned (n int); ALTER TABLE owned OWNER TO {role};"
    ));
    let taken = place.take("r1").await.unwrap();
    place.verify(&taken.id, VerifyLevel::Read).await.unwrap();
    place.sql(&format!("DROP TABLE owned; DROP ROLE {role};"));
    let before = place.databases();
    let outcome = noticed(place.verify(&taken.id, VerifyLevel::RestoreTest).await)?;
    assert_eq!(place.databases(), before);
    if outcome.contains(&role) { Ok(outcome) } else { Err(format!("the role is not named: {outcome}")) }
}

async fn missing_extension(place: &Place) -> Result<String, String> {
    let taken = place.take("r1").await.unwrap();
    place.verify(&taken.id, VerifyLevel::RestoreTest).await.unwrap();
    let template = format!("pointsman_template_{}", place.settings.name);
    place.sql_in("postgres", &format!("DROP DATABASE {template}"));
    let outcome = noticed(place.verify(&taken.id, VerifyLevel::RestoreTest).await)?;
    place.run_role_script();
    // One that is not installed at all is named before anything is created.
    let path = place.settings.backup.dir.join(format!("{}.manifest.json", taken.id));
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text.replace("\"postgis\":", "\"nobody_wrote_this\":");
    std::fs::write(&path, text).unwrap();
    let named = noticed(place.verify(&taken.id, VerifyLevel::RestoreTest).await)?;
    if outcome.contains("postgis") && named.contains("nobody_wrote_this") {
        Ok(outcome)
    } else {
        Err(format!("the extension is not named: {outcome}; {named}"))
    }
}

async fn unrestorable_trigger(place: &Place) -> Result<String, String> {
    // The trigger's check reads a table that it does not name in full: in a restore, whose search path is empty, the
    // constraint that says the same lets no row in.
    let owner = format!("{}_owner", place.settings.name);
    place.sql(&format!(
        "SET ROLE {owner};
         CREATE FUNCTION kind(text) RETURNS int IMMUTABLE LANGUAGE plpgsql
           AS $$ BEGIN RETURN (SELECT count(*) FROM visits WHERE path = $1); END $$;
         ALTER TABLE features ADD CONSTRAINT features_kind CHECK (kind(name) >= 0);
         CREATE FUNCTION counted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM kind(new.name); RETURN new; END $$;
         CREATE TRIGGER counted BEFORE INSERT ON features FOR EACH ROW EXECUTE FUNCTION counted();"
    ));
    let taken = place.take("r1").await.unwrap();
    place.verify(&taken.id, VerifyLevel::Read).await.unwrap();
    let outcome = noticed(place.verify(&taken.id, VerifyLevel::RestoreTest).await);
    place.sql("ALTER TABLE features DROP CONSTRAINT features_kind; DROP TRIGGER counted ON features;");
    if place.databases().contains("pointsman_verify") {
        return Err("a copy is left over".to_owned());
    }
    outcome
}

async fn large_object_missing(place: &Place) -> Result<String, String> {
    let taken = place.take("r1").await.unwrap();
    replace_dump(place, &taken, &dumped(place, &place.settings.name, &["--no-blobs"]));
    place.verify(&taken.id, VerifyLevel::Read).await.unwrap();
    let outcome = noticed(place.verify(&taken.id, VerifyLevel::RestoreTest).await)?;
    if outcome.contains("large objects") { Ok(outcome) } else { Err(outcome) }
}

/// A file system of its own that is unmounted with this.
struct Small(PathBuf);

impl Small {
    fn mount(folder: &Path, bytes: u64) -> Option<Self> {
        let path = folder.join("small");
        std::fs::create_dir(&path).unwrap();
        let size = format!("size={bytes}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
            Self(path)
        })
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        _ = Command::new("umount").arg(&self.0).status();
    }
}

async fn disk_full(place: &mut Place) -> Option<Result<String, String>> {
    let grow = "CREATE TABLE noise AS SELECT i, md5(random()::text) || md5(random()::text) AS m
                  FROM generate_series(1, 100000) i;";
    let roomy = place.settings.backup.dir.clone();
    let first = place.take("r1").await.unwrap();
    place.sql(&format!("SET ROLE {}_owner; {grow}", place.settings.name));
    let large = place.take("r2").await.unwrap();
    let disk = Small::mount(&roomy, large.bytes * 9 / 10)?;
    // The backup before was small, so nothing foretells that this one will not fit.
    for file in place.files().iter().filter(|file| file.starts_with(&format!("{}.", first.id))) {
        std::fs::copy(roomy.join(file), disk.0.join(file)).unwrap();
    }
    place.settings.backup.dir = disk.0.clone();
    let before = place.files();
    let outcome = noticed(place.take("r3").await);
    let after = place.files();
    let earlier = place.verify(&first.id, VerifyLevel::Read).await;
    place.settings.backup.dir = roomy;
    drop(disk);
    Some(outcome.and_then(|outcome| match (before == after, earlier) {
        (false, _) => Err(format!("something is left behind: {after:?}")),
        (_, Err(problem)) => Err(format!("an earlier backup is gone: {problem}")),
        _ if !outcome.starts_with("PM0207") => Err(outcome),
        _ => Ok(outcome),
    }))
}

async fn dump_killed(place: &Place) -> Result<String, String> {
    let mut blocker = place.cluster.client("psql", "postgres", &place.settings.name);
    let mut blocker =
        blocker.args(["-X", "-q", "-c", "BEGIN; LOCK TABLE features; SELECT pg_sleep(60)"]).spawn().unwrap();
    until("the lock", || {
        let held = "SELECT count(*) FROM pg_locks WHERE relation = 'features'::regclass AND granted";
        (place.sql(held) != "0").then_some(())
    })
    .await;
    let killing = until("pg_dump", || {
        let pid = dump_of(&place.settings.name)?;
        // It must have begun.
        let waits = "SELECT count(*) FROM pg_locks WHERE relation = 'features'::regclass AND NOT granted";
        (place.sql(waits) != "0").then(|| Command::new("kill").args(["-9", &pid]).status().unwrap())
    });
    let (outcome, killed) = tokio::join!(place.take("r1"), killing);
    assert!(killed.success());
    blocker.kill().unwrap();
    blocker.wait().unwrap();
    place.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%' AND pid <> pg_backend_pid()");
    let outcome = noticed(outcome)?;
    match place.files() {
        files if files.is_empty() => Ok(outcome),
        files => Err(format!("something is left behind: {files:?}")),
    }
}

/// The process id of the `pg_dump` that dumps this database.
pub fn dump_of(database: &str) -> Option<String> {
    let wanted = format!("PGDATABASE={database}");
    std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let name = std::fs::read_to_string(entry.path().join("comm")).ok()?;
        let environment = std::fs::read(entry.path().join("environ")).ok()?;
        let its = environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes());
        (name == "pg_dump\n" && its).then(|| entry.file_name().into_string().unwrap())
    })
}

async fn same_day_twice(place: &mut Place) -> Result<String, String> {
    place.settings.backup.format = BackupFormat::SqlGz;
    let first = place.take("r1").await.unwrap();
    let before = std::fs::read(place.dump(&first)).unwrap();
    place.sql("DELETE FROM visits");
    let second = place.take("r2").await.unwrap();
    place.settings.backup.format = BackupFormat::Custom;
    let unharmed = std::fs::read(place.dump(&first)).unwrap() == before;
    match (unharmed, place.dump(&second).exists(), first.file != second.file) {
        (true, true, true) => Ok(format!("the second is called `{}`", second.file)),
        found => Err(format!("{found:?}")),
    }
}

async fn retention(place: &Place) -> Result<String, String> {
    let good = place.take("r1").await.unwrap();
    place.verify(&good.id, VerifyLevel::Read).await.unwrap();
    // Later ones were written, but nobody knows whether they can be read.
    for release in ["r2", "r3", "r4", "r5"] {
        let taken = place.take(release).await.unwrap();
        if release == "r5" {
            std::fs::write(place.dump(&taken), "").unwrap();
        }
    }
    let retained = backup::retain(&place.settings, &[]).await.unwrap();
    match place.verify(&good.id, VerifyLevel::Read).await {
        Ok(_) if retained.kept.contains(&good.id) => Ok(format!("{} are kept", retained.kept.len())),
        Ok(_) => Err("it is not told as kept".to_owned()),
        Err(problem) => Err(problem.message),
    }
}
