//! A database of its own for each test, on a server that the tests of this program share.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first thing that is not as it should be")]

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use pointsman_core::{Epoch, Problem};
use pointsman_database::migrate::{self, Ran, RunOrder};
use pointsman_database::{Authority, BackupFormat, BackupSettings, Progress, Settings};
use pointsman_database_testkit::Cluster;
use pointsman_migration::{Phase, Set, Version};
use tokio_postgres::NoTls;

/// How long a test waits for what must come.
pub const SOON: Duration = Duration::from_secs(60);

/// The role of the agent: no superuser.
const ROLE: &str = "pointsman";

static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
static NEXT: AtomicU32 = AtomicU32::new(1);

/// Lines of `postgresql.conf` that these tests need. The server forgets the statements that were called least where it has too
/// many, and those of all tests are in one cluster.
pub const SERVER: &str = "shared_preload_libraries = 'pg_stat_statements'\nfsync = off\nautovacuum = off\n\
    pg_stat_statements.max = 50000\n";

/// Makes the roles that tests use.
pub fn prepare(cluster: &Cluster) {
    let sql = "CREATE ROLE pointsman LOGIN; GRANT pg_read_all_stats, pg_signal_backend TO pointsman; CREATE ROLE app LOGIN";
    cluster.psql("postgres", sql).unwrap();
}

fn shared() -> Arc<Cluster> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cluster) = shared.upgrade() {
        return cluster;
    }
    let cluster = Arc::new(Cluster::start_with(SERVER).unwrap());
    prepare(&cluster);
    *shared = Arc::downgrade(&cluster);
    cluster
}

/// In whose name a test works.
pub struct Crew(pub u64);

impl Authority for Crew {
    fn epoch(&self) -> Epoch {
        Epoch(self.0)
    }

    fn check(&self) -> Result<(), Problem> {
        Ok(())
    }
}

/// Settings of an agent for a database of this cluster.
pub fn settings(cluster: &Cluster, name: &str) -> Settings {
    settings_at(&cluster.socket(), name)
}

/// The same by the folder of its socket.
pub fn settings_at(socket: &Path, name: &str) -> Settings {
    Settings {
        name: name.to_owned(),
        host: socket.display().to_string(),
        port: 5432,
        user: ROLE.to_owned(),
        password_file: None,
        tls: None,
        maintenance: "postgres".to_owned(),
        tools: None,
        may_cancel: Vec::new(),
        version_table: None,
        allow_superuser: false,
        backup: BackupSettings {
            dir: socket.join("backups"),
            keep: 1,
            floor_bytes: 0,
            format: BackupFormat::Custom,
            keep_copy: false,
        },
    }
}

/// A database of its own.
pub struct Ground {
    pub cluster: Arc<Cluster>,
    pub settings: Settings,
    pub progress: Progress,
    pub epoch: u64,
}

impl Ground {
    /// A new database, with these statements run in it by its owner.
    pub fn new(sql: &str) -> Self {
        Self::in_cluster(shared(), sql)
    }

    /// The same on a server of its own, with these lines of `postgresql.conf`.
    pub fn on(server: &str, sql: &str) -> Self {
        let cluster = Cluster::start_with(&format!("{SERVER}{server}")).unwrap();
        prepare(&cluster);
        Self::in_cluster(Arc::new(cluster), sql)
    }

    fn in_cluster(cluster: Arc<Cluster>, sql: &str) -> Self {
        let name = format!("ground_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst));
        cluster.psql("postgres", &format!("CREATE DATABASE {name} OWNER pointsman")).unwrap();
        let settings = settings(&cluster, &name);
        let ground = Self { cluster, settings, progress: Progress::default(), epoch: 1 };
        ground
            .sql("GRANT USAGE ON SCHEMA public TO app; ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO app");
        ground.sql(sql);
        ground
    }

    /// Runs SQL as the owner and returns what it printed.
    pub fn sql(&self, sql: &str) -> String {
        self.cluster.psql_as(ROLE, &self.settings.name, sql).unwrap()
    }

    /// A copy of the database as it is now.
    pub async fn copy(&self) -> String {
        let name = format!("{}_copy_{}", self.settings.name, NEXT.fetch_add(1, Ordering::SeqCst));
        let sql = format!("CREATE DATABASE {name} OWNER pointsman TEMPLATE {}", self.settings.name);
        // Sessions of this program end only while its runtime goes on.
        soon_async(async || self.cluster.psql("postgres", &sql).is_ok()).await;
        name
    }

    pub fn order<'a>(&'a self, phase: Phase) -> RunOrder<'a> {
        RunOrder {
            phase,
            release: "r1".to_owned(),
            out_of_order: Vec::new(),
            max_stall_ms: 2_000,
            lock_budget_ms: 30_000,
            database: &self.settings.name,
        }
    }

    /// Runs the expand files.
    pub async fn expand(&self, files: &[(&str, &str)]) -> Result<Ran, Problem> {
        self.run(files, &self.order(Phase::Expand)).await
    }

    pub async fn run(&self, files: &[(&str, &str)], order: &RunOrder<'_>) -> Result<Ran, Problem> {
        migrate::run(&self.settings, &set(files), order, &Crew(self.epoch), &self.progress).await
    }

    pub async fn down(&self, files: &[(&str, &str)], version: &str) -> Result<Ran, Problem> {
        let (order, version) = (self.order(Phase::Down), Version::parse(version).unwrap());
        migrate::down(&self.settings, &set(files), &version, &order, &Crew(self.epoch), &self.progress).await
    }

    pub async fn status(&self) -> migrate::Status {
        migrate::status(&self.settings).await.unwrap()
    }

    /// A session of somebody else.
    pub async fn client(&self, application: &str, user: &str) -> tokio_postgres::Client {
        let mut config = tokio_postgres::Config::new();
        config.host(&self.settings.host).port(self.settings.port).user(user).dbname(&self.settings.name);
        let (client, connection) = config.application_name(application).connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// The schema as `pg_dump` writes it, and all rows, but our own records.
    pub fn contents(&self) -> String {
        contents(&self.cluster, &self.settings.name)
    }
}

pub fn contents(cluster: &Cluster, database: &str) -> String {
    let mut dump = cluster.client("pg_dump", "postgres", database);
    let output = dump.args(["--exclude-schema=pointsman", "--inserts"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    // A token of its own in each dump; and rows come in the order in which they happen to lie.
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.contains("restrict")).collect();
    lines.sort_unstable();
    lines.join("\n")
}

impl Drop for Ground {
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.settings.name);
        _ = self.cluster.psql("postgres", &sql);
    }
}

/// Migrations from path and text.
pub fn set(files: &[(&str, &str)]) -> Set {
    Set::read(files.iter().map(|(path, text)| (*path, text.as_bytes()))).unwrap()
}

/// Waits for what must come soon.
pub fn soon<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + SOON;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < give_up, "did not come within {SOON:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The same where a runtime must go on meanwhile.
pub async fn soon_async(mut look: impl AsyncFnMut() -> bool) {
    let give_up = Instant::now() + SOON;
    while !look().await {
        assert!(Instant::now() < give_up, "did not come within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
