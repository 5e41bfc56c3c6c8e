//! Where crashes happen: a server of its own, a run in a process of its own, and somebody who hits one of them at a place
//! that the run passes. Stories are files whose every effect shows, and shows twice if it happened twice.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may stop at the first thing that is not as it should be"
)]

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pointsman_chassis::failpoint;
use pointsman_database::Progress;
use pointsman_database::migrate::{self, RunOrder};
use pointsman_database_testkit::Cluster;
use pointsman_migration::Phase;
use rustix::process::{Pid, Signal, kill_process};

use super::kit::{self, Crew, soon};

/// A database before a run, the file that is run, and how many of its statements show their effect.
pub struct Story {
    pub name: &'static str,
    before: &'static str,
    file: &'static str,
    /// Returns how many of the statements, from the first, have taken effect; -1 if one did twice, or out of order.
    effects: &'static str,
}

const BEFORE: &str = "CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t SELECT n, n FROM generate_series(1, 250) n;
CREATE INDEX t_old ON t (a); CREATE TABLE counter (n int); INSERT INTO counter VALUES (0); CREATE TABLE log (text text)";

/// One transaction.
pub const PLAIN: Story = Story {
    name: "one transaction",
    before: BEFORE,
    file: "-- pointsman: allow-rewrite\nALTER TABLE t ADD COLUMN c int; UPDATE counter SET n = n + 1; INSERT INTO log VALUES ('a');",
    effects: "SELECT CASE concat_ws(' ', (SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'c'),
                  (SELECT n FROM counter), (SELECT count(*) FROM log))
              WHEN '0 0 0' THEN 0 WHEN '1 1 1' THEN 3 ELSE -1 END",
};

/// Transactions, and statements outside of them.
pub const MIXED: Story = Story {
    name: "split file",
    before: BEFORE,
    file: "-- pointsman: allow-rewrite\nALTER TABLE t ADD COLUMN c int; UPDATE counter SET n = n + 1;
           CREATE INDEX CONCURRENTLY t_new ON t (a);
           INSERT INTO log VALUES ('a');
           DROP INDEX CONCURRENTLY t_old;
           UPDATE counter SET n = n + 10;",
    effects: "SELECT CASE concat_ws(' ', (SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'c'),
                  (SELECT n FROM counter),
                  (SELECT count(*) FROM pg_index WHERE indexrelid = to_regclass('t_new') AND indisvalid),
                  (SELECT count(*) FROM log),
                  (SELECT count(*) FROM pg_index WHERE indexrelid = to_regclass('t_old') AND indisvalid))
              WHEN '0 0 0 0 1' THEN 0 WHEN '1 1 0 0 1' THEN 2 WHEN '1 1 1 0 1' THEN 3 WHEN '1 1 1 1 1' THEN 4
              WHEN '1 1 1 1 0' THEN 5 WHEN '1 11 1 1 0' THEN 6 ELSE -1 END",
};

/// Batches.
pub const CUT: Story = Story {
    name: "backfill",
    before: BEFORE,
    file: "-- pointsman: batch=id:100\nUPDATE t SET a = a + 1000",
    // Half a backfill is no statement; a row that was changed twice is a fault.
    effects: "SELECT CASE WHEN max(a) > 2000 OR min(a - id) < 0 OR max(a - id) > 1000 THEN -1
                          WHEN min(a) > 1000 THEN 1 ELSE 0 END FROM t",
};

const STORIES: [&Story; 3] = [&PLAIN, &MIXED, &CUT];

/// Whom a bout hits.
#[derive(Clone, Copy, Debug)]
pub enum Blow {
    /// The process of the agent.
    Agent,
    /// The server's process of the session that works.
    Backend,
    /// All connections between them.
    Connections,
    /// The whole server, as by `kill -9`.
    Server,
    /// One of them, by `kill -9` or a cut, so long after the commit was sent.
    InCommit { whom: Victim, micros: u64 },
}

/// Whom a bout hits within the commit.
#[derive(Clone, Copy, Debug)]
pub enum Victim {
    Agent,
    Backend,
    Connections,
    Server,
}

/// A server, and how the story ends undisturbed.
pub struct Arena<'s> {
    story: &'s Story,
    /// What makes this program call `child`.
    child: &'s [&'s str],
    cluster: Cluster,
    next: u32,
    undisturbed: String,
}

const SOCKET: &str = "ARENA_SOCKET";
const DATABASE: &str = "ARENA_DATABASE";
const STORY: &str = "ARENA_STORY";
/// What a child exits with when the run failed.
const FAILED: i32 = 7;

/// The part in a process of its own.
pub fn child() {
    let told = |name| std::env::var(name).unwrap();
    let story = STORIES.into_iter().find(|story| story.name == told(STORY)).unwrap();
    let settings = kit::settings_at(Path::new(&told(SOCKET)), &told(DATABASE));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let ran = runtime.block_on(run(&settings, story));
    if let Err(problem) = ran {
        _ = writeln!(std::io::stderr(), "{problem:?}");
        std::process::exit(FAILED);
    }
}

async fn run(
    settings: &pointsman_database::Settings,
    story: &Story,
) -> Result<migrate::Ran, pointsman_core::Problem> {
    let order = RunOrder {
        phase: Phase::Expand,
        release: "r1".to_owned(),
        out_of_order: Vec::new(),
        max_stall_ms: 60_000,
        lock_budget_ms: 60_000,
        database: &settings.name,
    };
    migrate::run(settings, &kit::set(&[("v1.0.0.sql", story.file)]), &order, &Crew(1), &Progress::default())
        .await
}

impl<'s> Arena<'s> {
    pub async fn new(story: &'s Story, child: &'s [&'s str]) -> Self {
        let cluster = Cluster::start_with(kit::SERVER).unwrap();
        kit::prepare(&cluster);
        cluster.psql("postgres", "CREATE DATABASE before OWNER pointsman").unwrap();
        cluster.psql_as("pointsman", "before", story.before).unwrap();
        let mut arena = Self { story, child, cluster, next: 0, undisturbed: String::new() };
        let database = arena.database();
        run(&kit::settings(&arena.cluster, &database), story).await.unwrap();
        arena.undisturbed = kit::contents(&arena.cluster, &database);
        arena.drop_database(&database);
        arena
    }

    fn database(&mut self) -> String {
        self.next += 1;
        let name = format!("arena_{}", self.next);
        soon(|| {
            self.cluster
                .psql("postgres", &format!("CREATE DATABASE {name} OWNER pointsman TEMPLATE before"))
                .ok()
        });
        name
    }

    fn drop_database(&self, name: &str) {
        self.cluster.psql("postgres", &format!("DROP DATABASE {name} WITH (FORCE)")).unwrap();
    }

    /// Hits every place that the story passes, each time that it passes it; tells how often, and what was wrong.
    pub async fn every_place(&mut self, blow: Blow) -> (usize, Vec<String>) {
        let (mut hits, mut wrong) = (0, Vec::new());
        for place in failpoint::MIGRATE_PLACES {
            for nth in 1.. {
                let Some(found) = self.bout(place, nth, blow).await else { break };
                hits += 1;
                if !found.is_empty() {
                    wrong.push(format!("{place}:{nth}, {blow:?}, {}: {}", self.story.name, found.join("; ")));
                }
            }
        }
        (hits, wrong)
    }

    /// Hits when the place is passed for the nth time, and tells what was not as it must be; nothing if the run is over
    /// before that.
    pub async fn bout(&mut self, place: &str, nth: u32, blow: Blow) -> Option<Vec<String>> {
        let database = self.database();
        let wire = Wire::lay(&self.cluster);
        let how = if matches!(blow, Blow::Agent) { "" } else { failpoint::STOP };
        let mut child = self.spawn(&database, wire.folder(), &format!("{place}:{nth}{how}"));
        let hit = self.hit(&mut child, blow, &wire, &database);
        if hit.is_none() {
            self.drop_database(&database);
            return None;
        }
        let found = self.judge(&database).await;
        self.drop_database(&database);
        Some(found)
    }

    fn spawn(&self, database: &str, socket: &Path, kill_at: &str) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(self.child)
            .env(SOCKET, socket)
            .env(DATABASE, database)
            .env(STORY, self.story.name)
            .env(failpoint::VARIABLE, kill_at)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn hit(&mut self, child: &mut Child, blow: Blow, wire: &Wire, database: &str) -> Option<()> {
        if matches!(blow, Blow::Agent) {
            let ended = ended_in_time(child);
            return (ended.signal() == Some(Signal::KILL.as_raw())).then_some(());
        }
        let pid = Pid::from_child(child);
        soon(|| (is_stopped(child) || child.try_wait().unwrap().is_some()).then_some(()));
        if let Some(ended) = child.try_wait().unwrap() {
            assert!(ended.success(), "the run failed before it was hit");
            return None;
        }
        match blow {
            Blow::Agent => {}
            Blow::Backend => {
                let sql = format!(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pointsman-migrate' AND datname = '{database}'"
                );
                self.cluster.psql("postgres", &sql).unwrap();
            }
            Blow::Connections => wire.cut(),
            Blow::Server => self.kill_server(),
            Blow::InCommit { whom, micros } => self.hit_in_commit(pid, wire, database, (whom, micros)),
        }
        kill_process(pid, Signal::CONT).unwrap();
        ended_in_time(child);
        // The server may be recovering from the death of one of its processes.
        soon(|| self.cluster.psql(database, "SELECT 1").ok());
        Some(())
    }

    fn hit_in_commit(&mut self, child: Pid, wire: &Wire, database: &str, (whom, micros): (Victim, u64)) {
        let pids = |application: &str| -> Vec<i32> {
            let sql = format!(
                "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'pointsman-{application}' AND datname = '{database}'"
            );
            let told = self.cluster.psql("postgres", &sql).unwrap();
            told.lines().map(|pid| pid.parse().unwrap()).collect()
        };
        let backend = soon(|| pids("migrate").first().copied());
        let all = pids("%");
        kill_process(child, Signal::CONT).unwrap();
        std::thread::sleep(Duration::from_micros(micros));
        match whom {
            Victim::Agent => kill_process(child, Signal::KILL).unwrap(),
            Victim::Backend => _ = kill_process(Pid::from_raw(backend).unwrap(), Signal::KILL),
            Victim::Connections => wire.cut(),
            Victim::Server => self.kill_server(),
        }
        // What the server does with the commit is over when its processes are; it ends the others too, before it recovers.
        soon(|| all.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
    }

    /// `kill -9` of the first process; the others end when they notice, and only then may the next server start.
    fn kill_server(&mut self) {
        let first = self.cluster.pid().unwrap();
        let children = children_of(first);
        kill_process(Pid::from_raw(first.cast_signed()).unwrap(), Signal::KILL).unwrap();
        self.cluster.crash();
        soon(|| children.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
        self.cluster.start_again().unwrap();
    }

    async fn judge(&self, database: &str) -> Vec<String> {
        let mut found = Vec::new();
        let settings = kit::settings(&self.cluster, database);
        let status = migrate::status(&settings).await.unwrap();
        let effects: i64 = self.cluster.psql(database, self.story.effects).unwrap().parse().unwrap();
        let leftover = status.leftovers.first();
        let told = match leftover {
            Some(leftover) => leftover.done as i64,
            None if status.records.is_empty() => 0,
            None => kit::set(&[("v1.0.0.sql", self.story.file)]).migrations()[0]
                .expand
                .as_ref()
                .unwrap()
                .statements()
                .count() as i64,
        };
        // What runs outside of transactions may have taken effect and not be recorded yet: then it is told as tried.
        let tried = leftover.and_then(|leftover| leftover.trying).map(|trying| trying as i64);
        if effects != told && !(effects == told + 1 && tried == Some(effects)) {
            found.push(format!("told {told} (tried {tried:?}), and {effects} took effect"));
        }
        match run(&settings, self.story).await {
            Err(problem) => found.push(format!("the next run failed: {problem:?}")),
            Ok(_) => {
                if kit::contents(&self.cluster, database) != self.undisturbed {
                    found.push("the end is not that of an undisturbed run".to_owned());
                }
                let again = run(&settings, self.story).await;
                if !again.as_ref().is_ok_and(|ran| ran.already) {
                    found.push(format!("not already: {again:?}"));
                }
            }
        }
        found
    }
}

fn children_of(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap();
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)) == Some(parent.to_string().as_str())
    })
    .collect()
}

fn is_stopped(child: &Child) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
}

fn ended_in_time(child: &mut Child) -> ExitStatus {
    soon(|| child.try_wait().unwrap())
}

/// A socket beside the server's that passes everything on, until it is cut.
struct Wire {
    folder: tempfile::TempDir,
    ends: Arc<Mutex<Vec<UnixStream>>>,
}

impl Wire {
    fn lay(cluster: &Cluster) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = format!(".s.PGSQL.{}", cluster.port());
        let listener = UnixListener::bind(folder.path().join(&name)).unwrap();
        let (server, ends) = (cluster.socket().join(&name), Arc::new(Mutex::new(Vec::new())));
        let laid = Arc::clone(&ends);
        // Ends with the program: it waits for connections that do not come once the folder is gone.
        std::thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let Ok(far) = UnixStream::connect(&server) else { continue };
                let mut ends = laid.lock().unwrap_or_else(PoisonError::into_inner);
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || pass(from, to));
                }
                ends.extend([near, far]);
            }
        });
        Self { folder, ends }
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn cut(&self) {
        for end in self.ends.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            _ = end.shutdown(Shutdown::Both);
        }
    }
}

fn pass(mut from: UnixStream, mut to: UnixStream) {
    let mut buffer = [0; 8192];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 || to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    _ = from.shutdown(Shutdown::Both);
    _ = to.shutdown(Shutdown::Both);
}
