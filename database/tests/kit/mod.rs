//! A cluster with a database as it stands in production: PostGIS, an owner, an application, large objects, a trigger, a
//! table without key; and the agent's role by the very script that is shipped.

// Each test is a program of its own and uses a part of this.
#![allow(
    dead_code,
    missing_docs,
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "part of tests, of which each uses a part"
)]

pub mod damage;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use pointsman_core::{Code, Epoch, Problem};
use pointsman_database::{Authority, BackupFormat, BackupSettings, Progress, Settings, backup};
use pointsman_database_testkit::Cluster;

static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The cluster that the tests of a program share as long as one of them runs.
pub fn cluster() -> Arc<Cluster> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cluster) = shared.upgrade() {
        return cluster;
    }
    let cluster = Arc::new(Cluster::start().unwrap());
    *shared = Arc::downgrade(&cluster);
    cluster
}

/// A database of its own and what the agent would be configured with.
pub struct Place {
    pub cluster: Arc<Cluster>,
    pub settings: Settings,
    pub folder: tempfile::TempDir,
}

/// A coordinator that rules, or ruled.
pub struct Rule {
    pub epoch: u64,
    pub over: std::sync::atomic::AtomicBool,
}

pub fn rule() -> Rule {
    Rule { epoch: 7, over: false.into() }
}

impl Authority for Rule {
    fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }

    fn check(&self) -> Result<(), Problem> {
        if self.over.load(Ordering::SeqCst) {
            return Err(Problem::new(Code::Fenced, "a newer coordinator has taken over"));
        }
        Ok(())
    }
}

const SCHEMA: &str = "
    CREATE TABLE features (id bigserial PRIMARY KEY, name text NOT NULL, geom geometry(Point, 4326), data jsonb);
    INSERT INTO features (name, geom, data)
      SELECT 'feature ' || i, st_setsrid(st_makepoint(i % 180, i % 90), 4326), jsonb_build_object('n', i)
        FROM generate_series(1, 3000) i;
    CREATE INDEX features_geom ON features USING gist (geom);
    CREATE TABLE visits (at timestamptz, path text);
    INSERT INTO visits SELECT now(), '/map/' || i FROM generate_series(1, 500) i;
    CREATE TABLE changes (feature bigint, at timestamptz DEFAULT now());
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SET search_path = public
      AS $$ BEGIN INSERT INTO changes (feature) VALUES (new.id); RETURN new; END $$;
    CREATE TRIGGER noted AFTER UPDATE ON features FOR EACH ROW EXECUTE FUNCTION note();
    CREATE TABLE schema_version (version text PRIMARY KEY);
    INSERT INTO schema_version VALUES ('1.9.0'), ('1.10.0');
    INSERT INTO spatial_ref_sys (srid, auth_name, auth_srid) VALUES (990001, 'own', 1);
    SELECT lo_from_bytea(0, decode(repeat('ab', 1000), 'hex'));
    SELECT lo_from_bytea(0, 'second');
    COMMENT ON TABLE features IS 'what is on the map';
    GRANT SELECT ON features TO %app;
    CREATE SCHEMA pointsman;
    CREATE TABLE pointsman.fence (one boolean PRIMARY KEY DEFAULT true CHECK (one), epoch bigint NOT NULL);
    INSERT INTO pointsman.fence (epoch) VALUES (3);";

/// A table partitioned by the hash of an enum, with enough values for some to be elsewhere in every copy.
pub const SCATTERED: &str = "
    DO $$ BEGIN EXECUTE 'CREATE TYPE shade AS ENUM (' || (SELECT string_agg(quote_literal('s' || n), ', ') FROM generate_series(1, 60) n) || ')'; END $$;
    CREATE TABLE shades (of_it shade, id int, note text, PRIMARY KEY (of_it, id)) PARTITION BY HASH (of_it);
    CREATE TABLE shades_0 PARTITION OF shades FOR VALUES WITH (MODULUS 3, REMAINDER 0);
    CREATE TABLE shades_1 PARTITION OF shades FOR VALUES WITH (MODULUS 3, REMAINDER 1);
    CREATE TABLE shades_2 PARTITION OF shades FOR VALUES WITH (MODULUS 3, REMAINDER 2) PARTITION BY RANGE (id);
    CREATE TABLE shades_2_low PARTITION OF shades_2 FOR VALUES FROM (0) TO (150);
    CREATE TABLE shades_2_high PARTITION OF shades_2 FOR VALUES FROM (150) TO (1000);
    INSERT INTO shades SELECT ('s' || (n % 60 + 1))::shade, n, 'n' FROM generate_series(1, 300) n";

/// Where the shipped role script is.
pub fn role_script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/examples/database-role.sql")
}

impl Place {
    /// A database of a name of its own in the shared cluster.
    pub fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        Self::of(cluster(), &format!("p2d2_{number}"))
    }

    pub fn of(cluster: Arc<Cluster>, name: &str) -> Self {
        Self::created(cluster, name, "")
    }

    /// The same with more that `CREATE DATABASE` says of it.
    pub fn created(cluster: Arc<Cluster>, name: &str, how: &str) -> Self {
        let (owner, app, agent) = (format!("{name}_owner"), format!("{name}_app"), format!("{name}_agent"));
        let roles = format!("CREATE ROLE {owner} NOLOGIN; CREATE ROLE {app} LOGIN; GRANT {owner} TO {app};");
        cluster.psql("postgres", &roles).unwrap();
        cluster
            .psql("postgres", &format!("CREATE DATABASE {name} OWNER {owner} TEMPLATE template0 {how}"))
            .unwrap();
        // PostGIS belongs to the superuser, everything else to the owner.
        let sql = format!("CREATE EXTENSION postgis; GRANT INSERT ON spatial_ref_sys TO {owner};");
        cluster.psql(name, &sql).unwrap();
        let schema = SCHEMA.replace("%app", &app);
        cluster.psql(name, &format!("SET ROLE {owner}; {schema}")).unwrap();
        let more = format!(
            "ALTER DATABASE {name} SET search_path = \"$user\", public; COMMENT ON DATABASE {name} IS 'the map';
             ALTER DATABASE {name} CONNECTION LIMIT 50; REVOKE CONNECT ON DATABASE {name} FROM PUBLIC;
             GRANT CONNECT ON DATABASE {name} TO {app};"
        );
        cluster.psql("postgres", &more).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            name: name.to_owned(),
            host: cluster.socket().display().to_string(),
            port: cluster.port(),
            user: agent,
            password_file: None,
            tls: None,
            maintenance: "postgres".to_owned(),
            tools: None,
            may_cancel: Vec::new(),
            version_table: Some("schema_version".to_owned()),
            allow_superuser: false,
            backup: BackupSettings {
                dir: folder.path().to_owned(),
                keep: 2,
                floor_bytes: 0,
                format: BackupFormat::Custom,
                keep_copy: false,
            },
        };
        let place = Self { cluster, settings, folder };
        place.run_role_script();
        place
    }

    /// Its backup's manifest tells what a new database needs in the place of one that is gone.
    pub fn run_role_script_with(&self, manifest: &Path) {
        let name = self.settings.name.as_str();
        let (owner, manifest) = (format!("{name}_owner"), manifest.display().to_string());
        let variables =
            [("database", name), ("owner", &owner), ("role", &self.settings.user), ("manifest", &manifest)];
        self.cluster.psql_file("postgres", &role_script(), &variables).unwrap();
    }

    pub fn run_role_script(&self) {
        let (name, user) = (self.settings.name.as_str(), self.settings.user.as_str());
        let owner = format!("{name}_owner");
        let variables = [("database", name), ("owner", owner.as_str()), ("role", user)];
        self.cluster.psql_file("postgres", &role_script(), &variables).unwrap();
    }

    /// SQL in the live database, as the superuser.
    pub fn sql(&self, sql: &str) -> String {
        self.cluster.psql(&self.settings.name, sql).unwrap()
    }

    pub fn sql_in(&self, database: &str, sql: &str) -> String {
        self.cluster.psql(database, sql).unwrap()
    }

    /// Whether every role may connect to a database.
    pub fn is_open_to_everybody(&self, database: &str) -> bool {
        let sql = format!("SELECT has_database_privilege('public', '{database}', 'CONNECT')");
        self.sql_in("postgres", &sql) == "t"
    }

    /// The databases that are this place's, by name or by comment.
    pub fn databases(&self) -> String {
        let sql = format!(
            "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database
              WHERE datname = '{0}' OR datname LIKE '{0}\\_%'
                 OR shobj_description(oid, 'pg_database') LIKE '% of {0}'",
            self.settings.name
        );
        self.cluster.psql("postgres", &sql).unwrap()
    }

    pub fn order(&self, release: &str) -> backup::BackupOrder {
        backup::BackupOrder { release: release.to_owned(), label: "1.2.0".to_owned() }
    }

    pub async fn take(&self, release: &str) -> Result<backup::Backup, Problem> {
        backup::take(&self.settings, &self.order(release), &rule(), &Progress::default()).await
    }

    pub async fn verify(
        &self,
        id: &str,
        level: pointsman_database::VerifyLevel,
    ) -> Result<backup::Verified, Problem> {
        backup::verify(&self.settings, id, level, &rule(), &Progress::default()).await
    }

    /// Names of the files in the folder of backups.
    pub fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(&self.settings.backup.dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The path of a backup's dump.
    pub fn dump(&self, backup: &backup::Backup) -> PathBuf {
        self.settings.backup.dir.join(&backup.file)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The cluster is shared: what is not needed any more takes room.
        let sql = format!(
            "SELECT format('DROP DATABASE IF EXISTS %I WITH (FORCE)', datname) FROM pg_database
              WHERE datname = '{0}' OR datname = 'pointsman_template_{0}' OR datname LIKE '{0}\\_%'",
            self.settings.name
        );
        let Ok(statements) = self.cluster.psql("postgres", &sql) else { return };
        for statement in statements.lines() {
            _ = self.cluster.psql("postgres", statement);
        }
    }
}

/// Somebody who holds a table against everybody, until this is dropped.
pub struct Holder {
    cluster: Arc<Cluster>,
    psql: std::process::Child,
    pub pid: String,
}

impl Place {
    /// Has somebody hold a table of the live database. Of the server's own it may be one without which nobody gets into it.
    pub async fn hold(&self, table: &str) -> Holder {
        let name = &self.settings.name;
        let sql = format!("BEGIN; LOCK TABLE {table}; SELECT pg_sleep(600)");
        let mut psql = self.cluster.client("psql", "postgres", name);
        let psql =
            psql.args(["-X", "-q", "-c", &sql]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let there = format!(
            "SELECT pid FROM pg_stat_activity WHERE datname = '{name}' AND wait_event = 'PgSleep' AND query LIKE 'BEGIN; LOCK TABLE {table};%'"
        );
        let look = || Some(self.sql_in("postgres", &there)).filter(|pid| !pid.is_empty());
        let pid = until("the lock", look).await;
        Holder { cluster: self.cluster.clone(), psql, pid }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        _ = self.cluster.psql("postgres", &format!("SELECT pg_terminate_backend({})", self.pid));
        _ = self.psql.wait();
    }
}

/// Looks until there is something to see.
pub async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < give_up, "waited 30 s in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
