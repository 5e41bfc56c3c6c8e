//! Backup, restore and swap of a real database beside the shell commands of a usual deployment document, and whether
//! damaged backups are noticed.

mod backups;
mod cost;
mod damages;
// A database as it stands in production: the one that the tests of the database role work on.
#[path = "../../database/tests/kit/mod.rs"]
mod place;
mod restores;
mod swaps;

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use pointsman_database_testkit::Cluster;
use serde_json::{Map, Value, json};
use tokio::process::Command;

use crate::host;
use place::Place;

/// Rounds of everything that is compared: each of both ways, one right after the other. Told is the middle one.
pub const ROUNDS: usize = 3;

const METHOD: &str = "PostgreSQL in a cluster of its own on this machine, fsync on, reached by its socket; the agent's \
role is the one of database-role.sql, no superuser. Database: pgbench at BENCH_SCALE (default 20) and a table of map \
features (text, jsonb, bytea; two btree indexes and a GIN), PostGIS, large objects. Ratios: middle of three rounds, the \
shell's commands and ours one right after the other. \
backup_cpu_ratio = CPU seconds of this process and its children for a backup with manifest, roles and digest / those of \
`pg_dump | gzip > f`; the server's share is in neither. backup_size_ratio = bytes of the files. \
backup_tps_ratio = transactions a second that pgbench reached at an offered rate of 150 while backups were taken one after \
the other / without. \
restore_wall_ratio = a backup unpacked and loaded by two jobs into a new database / `gunzip < f | psql` into one. \
restore_checked_wall_ratio = the same with everything around it: digest, list, comparison with the manifest, statistics, \
settings, fence. prepared_restore_ratio = the same as the latter from a prepared copy. \
swap_gap_ms = longest time in which none of 8 clients that connect again at once was answered, around a swap, the middle \
of its rounds; swap_errors_per_session = most sessions of one client that broke. \
damages = ways to lose a backup that were tried, damages_noticed = those that were noticed.";

/// What a whole run tells: a run without one of them has not measured it, and is none.
const FIGURES: [&str; 15] = [
    "backup_cpu_ratio",
    "backup_size_ratio",
    "backup_tps_ratio",
    "restore_wall_ratio",
    "prepared_restore_ratio",
    "swap_gap_ms",
    "swap_errors_per_session",
    "ddl_stalled",
    "ddl_stalled_plain",
    "damages",
    "damages_noticed",
    "crash_points",
    "crash_points_exact",
    "bad_migrations",
    "bad_migrations_stopped",
];

/// Measures everything. What needs failpoints, which this profile does not have, is measured by a program of its own;
/// without one it is left out.
pub async fn measure(scale: usize, migrations: Option<&Path>) -> Result<Value> {
    let mut found = json!({ "method": METHOD, "machine": host::machine()?, "scale": scale });
    let object = found.as_object_mut().context("not an object")?;
    add(object, of_backups(scale).await?)?;
    let Some(program) = migrations else { return Ok(found) };
    eprintln!("== so far: {}", Value::Object(object.clone()));
    add(object, of_migrations(program).await?)?;
    let missing: Vec<&str> = FIGURES.into_iter().filter(|name| !object.contains_key(*name)).collect();
    ensure!(missing.is_empty(), "not measured: {}", missing.join(", "));
    Ok(found)
}

/// Adds figures to those before; what is said of how they were measured is joined.
fn add(object: &mut Map<String, Value>, more: Value) -> Result<()> {
    let Value::Object(more) = more else { anyhow::bail!("not an object: {more}") };
    for (name, value) in more {
        match object.get_mut(&name) {
            None => _ = object.insert(name, value),
            Some(Value::String(method)) if name == "method" => {
                method.push(' ');
                method.push_str(value.as_str().context("a method that is no text")?);
            }
            Some(_) => anyhow::bail!("`{name}` was measured twice"),
        }
    }
    Ok(())
}

/// Has the program measure what needs failpoints.
async fn of_migrations(program: &Path) -> Result<Value> {
    let mut command = Command::new(program);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true).output().await;
    let output = output.with_context(|| format!("cannot run `{}`", program.display()))?;
    ensure!(output.status.success(), "`{}` ended with {}", program.display(), output.status);
    serde_json::from_slice(&output.stdout).context("what it printed is no JSON")
}

async fn of_backups(scale: usize) -> Result<Value> {
    let cluster = Arc::new(Cluster::start_with("max_wal_size = '4GB'\nshared_buffers = '256MB'\n")?);
    let damages = damages::measure(&cluster).await?;
    let place = filled(&cluster, scale)?;
    let parts = [
        damages,
        backups::measure(&place).await?,
        restores::measure(&place).await?,
        swaps::measure(&place).await?,
    ];
    let mut object = Map::new();
    for part in parts {
        add(&mut object, part)?;
    }
    Ok(Value::Object(object))
}

const FEATURES: &str = "
    CREATE TABLE parcels (id bigserial PRIMARY KEY, name text, data jsonb, shape bytea);
    INSERT INTO parcels (name, data, shape)
      SELECT 'parcel ' || i, jsonb_build_object('layer', i % 40, 'owner', md5(i::text), 'area', random() * 1000),
             decode(repeat(md5(random()::text), 8), 'hex')
        FROM generate_series(1, 250000) i;
    CREATE INDEX ON parcels (name);
    CREATE INDEX ON parcels USING gin (data);";

/// A database of the size that is measured.
fn filled(cluster: &Arc<Cluster>, scale: usize) -> Result<Place> {
    eprintln!("== filling a database");
    let place = Place::of(Arc::clone(cluster), "bench");
    let app = format!("{}_app", place.settings.name);
    let scale = format!("--scale={scale}");
    let mut pgbench = cluster.client("pgbench", "postgres", &place.settings.name);
    let made = pgbench.args(["--initialize", "--quiet", &scale]).output()?;
    ensure!(made.status.success(), "pgbench: {}", String::from_utf8_lossy(&made.stderr));
    let owner = format!("{}_owner", place.settings.name);
    let rights = format!(
        "ALTER TABLE pgbench_accounts OWNER TO {owner}; ALTER TABLE pgbench_branches OWNER TO {owner};
         ALTER TABLE pgbench_tellers OWNER TO {owner}; ALTER TABLE pgbench_history OWNER TO {owner};
         GRANT ALL ON ALL TABLES IN SCHEMA public TO {app};"
    );
    cluster.psql(&place.settings.name, &rights)?;
    cluster.psql(&place.settings.name, &format!("SET ROLE {owner}; {FEATURES}"))?;
    cluster.psql(&place.settings.name, "VACUUM ANALYZE")?;
    cluster.psql("postgres", "CHECKPOINT")?;
    Ok(place)
}
