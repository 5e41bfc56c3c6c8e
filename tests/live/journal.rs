//! The coordinator's journal when it, or the disk it lies on, is not as it should be: the coordinator says so, orders
//! nothing, and visitors notice nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kit::{Daemon, Load, LoadPlan, Site};
use pointsman_coordinator::journal::verify_file;
use pointsman_core::{Aftermath, Code};
use pointsman_proto::v1;
use rusqlite::{Connection, OpenFlags};

/// Longest time for a coordinator that cannot start to say so, and for one that stands still to notice or go on.
const LONGEST: Duration = Duration::from_secs(30);

fn run(program: &str, words: &[&str]) -> bool {
    Command::new(program).args(words).status().is_ok_and(|status| status.success())
}

/// Copies a folder with everything in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    assert!(run("cp", &["-a", &format!("{}/.", from.display()), &to.display().to_string()]));
}

/// A small disk of its own under a folder, with what lay in the folder.
struct Disk(PathBuf);

impl Disk {
    /// `None`, and a word about it, where this machine does not let us mount.
    fn under(folder: &Path) -> Option<Self> {
        let (kept, place) = (folder.with_extension("kept"), folder.display().to_string());
        copy(folder, &kept);
        if !run("mount", &["-t", "tmpfs", "-o", "size=16m", "tmpfs", &place]) {
            eprintln!("skipped: this machine does not let us mount a disk");
            return None;
        }
        copy(&kept, folder);
        Some(Self(folder.to_owned()))
    }

    /// The same, of a kind that can be made to hang.
    fn that_hangs(folder: &Path) -> Option<Self> {
        let (kept, image) = (folder.with_extension("kept"), folder.with_extension("image"));
        copy(folder, &kept);
        File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let (image, place) = (image.display().to_string(), folder.display().to_string());
        if !run("mkfs.ext4", &["-q", &image]) || !run("mount", &["-o", "loop", &image, &place]) {
            eprintln!("skipped: this machine does not let us mount a disk of blocks");
            return None;
        }
        copy(&kept, folder);
        Some(Self(folder.to_owned()))
    }

    /// Has whoever writes to it wait, until this is dropped.
    fn hang(&self) -> Hanging<'_> {
        assert!(run("fsfreeze", &["--freeze", &self.0.display().to_string()]));
        Hanging(self)
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Leaves no room, not for a single byte.
    fn fill(&self) {
        let mut file = File::create(self.filler()).unwrap();
        let zeros = vec![0; 1 << 20];
        for piece in [1 << 20, 4096, 1] {
            while file.write(&zeros[..piece]).is_ok() {}
        }
    }

    /// Leaves room for so many pages of a journal, on a disk that is full.
    fn leave(&self, pages: u64) {
        let file = File::options().write(true).open(self.filler()).unwrap();
        file.set_len(file.metadata().unwrap().len() - pages * 4096).unwrap();
    }

    fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn remount(&self, mode: &str) {
        assert!(run("mount", &["-o", &format!("remount,{mode}"), &self.0.display().to_string()]));
    }
}

/// A disk that does not answer.
struct Hanging<'a>(&'a Disk);

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        run("fsfreeze", &["--unfreeze", &self.0.0.display().to_string()]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &["--lazy", &self.0.display().to_string()]);
    }
}

fn state(site: &Site) -> PathBuf {
    site.folder().join("coordinator/state")
}

fn journal(site: &Site) -> PathBuf {
    state(site).join("journal.db")
}

/// Each agent: its host, and its state's folder.
const AGENTS: [(&str, &str); 3] =
    [("lb1", "lb1/state"), ("blue", "blue/agent-state"), ("green", "green/agent-state")];

fn read(path: &Path) -> Connection {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    connection.busy_timeout(LONGEST).unwrap();
    connection
}

fn receipts(site: &Site, state: &str) -> Connection {
    read(&site.folder().join(state).join("receipts.db"))
}

/// The highest epoch that an agent has acknowledged.
fn epoch(ledger: &Connection) -> i64 {
    ledger.query_row("SELECT epoch FROM fence", [], |row| row.get(0)).unwrap()
}

/// The newest journal entry that an agent has heard of, with its hash.
fn head(ledger: &Connection) -> (i64, Vec<u8>) {
    let sql = "SELECT head_seq, head_hash FROM fence";
    ledger.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
}

/// What agents know or have been ordered, and the journal does not hold.
fn unrecorded(site: &Site) -> Vec<String> {
    let journal = read(&journal(site));
    let holds =
        |sql: &str, values: &[&dyn rusqlite::ToSql]| journal.prepare(sql).unwrap().exists(values).unwrap();
    let mut found = Vec::new();
    for (host, state) in AGENTS {
        let ledger = receipts(site, state);
        let (seq, hash) = head(&ledger);
        if seq > 0 && !holds("SELECT 1 FROM entry WHERE seq = ?1 AND hash = ?2", &[&seq, &hash]) {
            found.push(format!("`{host}` has heard of entry {seq}"));
        }
        let mut orders = ledger.prepare("SELECT release, step FROM receipt").unwrap();
        let orders = orders.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        for (release, step) in orders.map(Result::<(String, String), _>::unwrap) {
            let intent = "SELECT 1 FROM entry WHERE release = ?1 AND kind = 'intent'
                          AND json_extract(body, '$.step') = ?2 AND json_extract(body, '$.host') = ?3";
            if !holds(intent, &[&release, &step, &host]) {
                found.push(format!("`{host}` was ordered `{release}` {step}"));
            }
        }
    }
    found
}

/// Everything that an order changes.
#[derive(Debug, PartialEq)]
struct Ordered {
    /// The newest journal entry that each agent has acted on, with its hash.
    heads: Vec<(i64, Vec<u8>)>,
    /// What each agent has acknowledged: whoever acts no more must not be one that holds an older journal.
    epochs: Vec<i64>,
    sites: Vec<BTreeMap<String, String>>,
    map: String,
    route: String,
    page: Option<String>,
}

async fn ordered(site: &Site) -> Ordered {
    Ordered {
        heads: AGENTS.map(|(_, state)| head(&receipts(site, state))).to_vec(),
        epochs: AGENTS.map(|(_, state)| epoch(&receipts(site, state))).to_vec(),
        sites: [&site.blue, &site.green].map(|host| host.inventory().unwrap()).to_vec(),
        map: std::fs::read_to_string(&site.haproxy.layout().map).unwrap(),
        route: site.haproxy.route().await.unwrap(),
        page: site.visit().await.unwrap().lines().last().map(str::to_owned),
    }
}

/// Starts a daemon, which must end, name its state directory, say all of this, and what to type about it.
async fn refuses(site: &Site, what: &str, (daemon, config, state): (&str, &str, &Path), words: &[&str]) {
    let mut command = tokio::process::Command::new(kit::binary(daemon).unwrap());
    command.arg("--config").arg(site.folder().join(config));
    command.env_remove("NOTIFY_SOCKET").env_remove("JOURNAL_STREAM").kill_on_drop(true);
    let ended = tokio::time::timeout(LONGEST, command.output()).await;
    assert!(ended.is_ok(), "{what}: it starts");
    let ended = ended.unwrap().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{what}: {told}");
    assert!(told.contains(&state.display().to_string()), "{what} does not name the place: {told}");
    let hint = told.lines().find(|line| line.contains("hint: ")).unwrap_or("");
    assert!(hint.contains('`'), "{what} does not say what to type: {told}");
    for word in words {
        assert!(told.contains(word), "{what} does not say `{word}`: {told}");
    }
}

/// Starts the coordinator, which must say this, and what to type, and end.
async fn ends_with(site: &Site, what: &str, words: &[&str]) {
    let state = state(site);
    let coordinator = ("pointsman-coordinator", "coordinator/coordinator.toml", state.as_path());
    refuses(site, what, coordinator, words).await;
}

/// Ends the coordinator's journal as an orderly end does: everything is in the one file.
fn tidy(site: &Site) -> Vec<u8> {
    let connection = Connection::open(journal(site)).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(connection);
    std::fs::read(journal(site)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_cannot_be_trusted_is_not_acted_on() {
    let mut site = Site::builder().watch("200ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    site.kill_coordinator().unwrap();
    let good = tidy(&site);
    let before = ordered(&site).await;
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();

    let mut garbage = good.clone();
    garbage[..100].fill(0xA5);
    // Every copy of it: pages keep some of what has moved to others.
    let text = b"order-intended";
    let mut edited = good.clone();
    for place in (0..edited.len() - text.len()).filter(|place| good[*place..].starts_with(text)) {
        edited[place] = b'0';
    }
    let cases = [
        ("an empty file", Vec::new(), "[PM0703]"),
        ("half a file", good[..good.len() / 8192 * 4096].to_vec(), "[PM0703]"),
        ("a garbled head", garbage, "[PM0703]"),
        ("an edited entry", edited, "[PM0703]"),
    ];
    for (what, content, code) in cases {
        std::fs::write(journal(&site), content).unwrap();
        ends_with(&site, what, &[code, "journal.db"]).await;
    }
    std::fs::write(journal(&site), &good).unwrap();
    let version = |version: i64| {
        Connection::open(journal(&site)).unwrap().pragma_update(None, "user_version", version).unwrap();
    };
    version(2);
    ends_with(&site, "a later version", &["[PM0712]", "journal.db", "version 2"]).await;
    version(1);

    assert_eq!(ordered(&site).await, before);
    site.start_coordinator().unwrap();
    site.ready().await.unwrap();
    site.released("v2").await.unwrap();
    load.more(50).await.unwrap();
    assert_eq!(load.stop().unwrap().failures(), Vec::<String>::new());
}

/// Writes another principal into an entry, as somebody does who knows of the journal's guards; says which one it was.
fn change(journal: &Path, seq: u64, principal: &str) -> String {
    let connection = Connection::open(journal).unwrap();
    let one = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    let guard = one("SELECT sql FROM sqlite_schema WHERE name = 'entry_stays'");
    let before = one(&format!("SELECT principal FROM entry WHERE seq = {seq}"));
    connection.execute_batch("DROP TRIGGER entry_stays").unwrap();
    connection.execute(&format!("UPDATE entry SET principal = ?1 WHERE seq = {seq}"), [principal]).unwrap();
    connection.execute_batch(&guard).unwrap();
    before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_journal_is_gone_on_with_at_once_and_damage_far_back_in_it_stops_what_runs() {
    let mut site = Site::builder().watch("600s").start().await.unwrap();
    site.released_unwatched("v1").await.unwrap();
    site.kill_coordinator().unwrap();
    kit::age(&journal(&site), 25_000).await.unwrap();
    site.start_coordinator().unwrap();
    site.ready().await.unwrap();
    // The oldest of all: it is in no coordinator's memory any more.
    let old = site.cli(&["status", "production", "--release", "v1"]).await.unwrap();
    assert!(old.says("v1") && !old.says("PM07"), "{old:?}");
    let listed = site.cli(&["history", "production", "--limit", "300"]).await.unwrap();
    assert_eq!(listed.stdout.matches("aged-").count(), 300, "{listed:?}");
    let mut client = site.client().unwrap();
    let again = kit::publish(&mut client, &site.artifact("v1").unwrap()).await.unwrap();
    let taken = kit::refused(client.deploy(&again, "v1").await).unwrap();
    assert_eq!(taken.code, Code::ReleaseIdTaken);

    let digest = kit::publish(&mut client, &site.artifact("v2").unwrap()).await.unwrap();
    client.deploy(&digest, "v2").await.unwrap();
    client.follow("v2", |seen| seen.done("switch")).await.unwrap();
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    site.kill_coordinator().unwrap();
    let before = change(&journal(&site), 5, "mallory");
    site.start_coordinator().unwrap();
    site.coordinator_answers().await.unwrap();
    let shown = trouble(&site, true).await.trouble.unwrap();
    assert_eq!(shown.code, Code::JournalCorrupt.as_str());
    assert!(shown.message.starts_with("journal entry 5 "), "{shown:?}");
    let told = site.cli(&["rollback", "production"]).await.unwrap();
    assert!(told.code != 0 && told.says("PM0703"), "{told:?}");

    site.kill_coordinator().unwrap();
    assert_eq!(change(&journal(&site), 5, &before), "mallory");
    site.start_coordinator().unwrap();
    site.coordinator_answers().await.unwrap();
    trouble(&site, false).await;
    kit::until("it is led back", LONGEST, || async {
        site.cli(&["rollback", "production"]).await.ok().filter(|told| told.code == 0)
    })
    .await
    .unwrap();
    assert_eq!(client.outcome("v2").await.unwrap(), "rolled-back");
    load.more(50).await.unwrap();
    assert_eq!(load.stop().unwrap().failures(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_is_started_on_a_full_disk_says_so_and_goes_on_when_there_is_room() {
    let mut site = Site::builder().watch("200ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    site.kill_coordinator().unwrap();
    let Some(disk) = Disk::under(&state(&site)) else { return };
    site.start_coordinator().unwrap();
    site.ready().await.unwrap();
    site.kill_coordinator().unwrap();
    tidy(&site);
    disk.fill();
    // With what was set aside it starts as on any day.
    site.start_coordinator().unwrap();
    site.ready().await.unwrap();
    trouble(&site, false).await;
    let doctor = site.cli(&["doctor", "production"]).await.unwrap();
    assert!(doctor.says("no room is set aside for the way back") && doctor.says("df -h"), "{doctor:?}");
    site.kill_coordinator().unwrap();
    // SQLite would find room in its own log.
    tidy(&site);
    disk.fill();
    let before = ordered(&site).await;
    site.start_coordinator().unwrap();
    site.coordinator_answers().await.unwrap();
    let shown = trouble(&site, true).await.trouble.unwrap();
    assert_eq!(shown.code, Code::JournalFull.as_str());
    let told = site.cli(&["status", "production"]).await.unwrap();
    assert!(told.code != 0 && told.says("PM0716") && told.says("df -h"), "{told:?}");
    assert_eq!(ordered(&site).await, before);
    disk.free();
    trouble(&site, false).await;
    site.released("v2").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_cannot_be_written_keeps_the_coordinator_from_starting() {
    let mut site = Site::builder().watch("200ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    site.kill_coordinator().unwrap();
    tidy(&site);
    let Some(disk) = Disk::under(&state(&site)) else { return };
    let before = ordered(&site).await;
    disk.remount("ro");
    let folder = state(&site).display().to_string();
    let typed = [format!("`findmnt -T {folder}`"), format!("`df -h {folder}`"), format!("`ls -la {folder}`")];
    let mut words = vec!["[PM0702]", "Read-only file system"];
    words.extend(typed.iter().map(String::as_str));
    ends_with(&site, "a read-only disk", &words).await;
    disk.remount("rw");
    assert_eq!(ordered(&site).await, before);
    site.start_coordinator().unwrap();
    site.ready().await.unwrap();
    site.released("v2").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_coordinator_on_one_state_does_not_start() {
    let mut site = Site::builder().watch("200ms").start().await.unwrap();
    ends_with(&site, "a second coordinator", &["[PM0713]", "another coordinator uses", "`fuser -v "]).await;
    site.released("v1").await.unwrap();
    site.kill_coordinator().unwrap();
    site.start_coordinator().unwrap();
    site.ready().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_cannot_keep_receipts_does_not_start() {
    let mut site = Site::builder().watch("200ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    for (daemon, program, config, state) in [
        (Daemon::LbAgent, "pointsman-lb-agent", "lb1/lb-agent.toml", "lb1/state"),
        (Daemon::Blue, "pointsman-agent", "blue/agent.toml", "blue/agent-state"),
    ] {
        site.kill(daemon).unwrap();
        let state = site.folder().join(state);
        let Some(disk) = Disk::under(&state) else { return };
        disk.remount("ro");
        let folder = state.display().to_string();
        let typed =
            [format!("`findmnt -T {folder}`"), format!("`df -h {folder}`"), format!("`ls -la {folder}`")];
        let mut words = vec!["[PM0511]", "receipts.db"];
        words.extend(typed.iter().map(String::as_str));
        refuses(&site, "a read-only disk", (program, config, &state), &words).await;
        drop(disk);
        site.start(daemon, None).unwrap();
    }
    site.ready().await.unwrap();
    site.released("v2").await.unwrap();
}

/// The trouble that the coordinator shows, or that it shows none any more.
async fn trouble(site: &Site, there: bool) -> v1::StatusReply {
    let shown = kit::until("the coordinator notices", LONGEST, || async {
        let status = site.client().unwrap().status().await.ok()?;
        (status.trouble.is_some() == there).then_some(status)
    });
    shown.await.unwrap()
}

/// Fails unless the release stands still for want of room with nothing ordered that is not recorded, and goes on by
/// itself when there is room again.
async fn waits_for_room(site: &Site, disk: &Disk, load: &Load, (release, digest): (&str, &str)) {
    let mut client = site.client().unwrap();
    let noticed = kit::until("the coordinator notices, or there was room enough", LONGEST, || async {
        let status = site.client().unwrap().status().await.ok()?;
        let last = status.release.as_ref();
        let over = last.is_some_and(|last| {
            let named = last.plan.as_ref().is_some_and(|plan| plan.release == release);
            named && last.outcome == "confirmed"
        });
        (status.trouble.is_some() || over).then_some(status)
    });
    let status = noticed.await.unwrap();
    if status.trouble.is_none() {
        // SQLite found room in its own file.
        assert_eq!(unrecorded(site), Vec::<String>::new(), "{release}");
        return disk.free();
    }
    assert!((1..=status.now_ms).contains(&status.trouble_since_ms), "{status:?}");
    assert_eq!(status.trouble.unwrap().code, Code::JournalFull.as_str(), "{release}");
    let told = site.cli(&["status", "production"]).await.unwrap();
    assert!(told.code != 0 && told.says("PM0716") && told.says("df -h"), "{release}: {told:?}");
    let refused = kit::refused(client.deploy(digest, "another").await).unwrap();
    assert_eq!(refused.code, Code::JournalFull, "{release}");
    load.more(100).await.unwrap();
    assert_eq!(unrecorded(site), Vec::<String>::new(), "{release}");
    disk.free();
    client.confirmed(release).await.unwrap();
    trouble(site, false).await;
    assert_eq!(verify_file(&journal(site)).unwrap().first_problem, None, "{release}");
    assert!(site.visit().await.unwrap().contains(&format!("\n{release}\n")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_in_a_release_stops_it_until_there_is_room() {
    let mut site = Site::builder().watch("1s").start().await.unwrap();
    site.released("v0").await.unwrap();
    site.kill_coordinator().unwrap();
    let Some(disk) = Disk::under(&state(&site)) else { return };
    site.start_coordinator().unwrap();
    site.ready().await.unwrap();
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    // While an order is on its way: it is its outcome that finds no room.
    for step in ["preflight", "stage", "activate", "check", "switch"] {
        let mut client = site.client().unwrap();
        let digest = kit::publish(&mut client, &site.artifact(step).unwrap()).await.unwrap();
        client.deploy(&digest, step).await.unwrap();
        client.follow(step, |seen| seen.done(step)).await.unwrap();
        disk.fill();
        waits_for_room(&site, &disk, &load, (step, &digest)).await;
    }
    // With room for so many pages when the release begins: any record may be the first that finds none, intents too.
    for pages in [12, 16, 20, 24, 28, 32, 48] {
        site.kill_coordinator().unwrap();
        tidy(&site);
        site.start_coordinator().unwrap();
        site.ready().await.unwrap();
        let (mut client, release) = (site.client().unwrap(), format!("pages-{pages}"));
        let digest = kit::publish(&mut client, &site.artifact(&release).unwrap()).await.unwrap();
        disk.fill();
        disk.leave(pages);
        client.deploy(&digest, &release).await.unwrap();
        waits_for_room(&site, &disk, &load, (&release, &digest)).await;
    }
    load.more(50).await.unwrap();
    assert_eq!(load.stop().unwrap().failures(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_version_is_left_by_itself_although_the_journals_disk_is_full() {
    let mut site = Site::builder().watch("60s").start().await.unwrap();
    site.released_unwatched("v1").await.unwrap();
    site.kill_coordinator().unwrap();
    let Some(disk) = Disk::under(&state(&site)) else { return };
    site.start_coordinator().unwrap();
    site.ready().await.unwrap();
    let mut client = site.client().unwrap();
    let digest = kit::publish(&mut client, &site.artifact("v2").unwrap()).await.unwrap();
    client.deploy(&digest, "v2").await.unwrap();
    client.follow("v2", |seen| seen.done("switch")).await.unwrap();
    disk.fill();
    site.green.fail_deep(true).unwrap();
    assert_eq!(client.outcome("v2").await.unwrap(), "rolled-back");
    assert!(site.visit().await.unwrap().contains("\nv1\n"));
    assert_eq!(verify_file(&journal(&site)).unwrap().first_problem, None);
    assert_eq!(unrecorded(&site), Vec::<String>::new());
    // Nothing begins before there is room, and everything goes on with it.
    site.green.fail_deep(false).unwrap();
    let refused = kit::refused(client.deploy(&digest, "v3").await).unwrap();
    assert_eq!(refused.code, Code::JournalFull);
    disk.free();
    trouble(&site, false).await;
    assert!(client.deploy(&digest, "v3").await.is_ok());
}

/// Fails unless the coordinator says everywhere that its journal's disk hangs.
async fn says_that_it_hangs(site: &Site) {
    let shown = trouble(site, true).await;
    assert!((1..=shown.now_ms).contains(&shown.trouble_since_ms), "{shown:?}");
    assert_eq!(shown.trouble.unwrap().code, Code::JournalSilent.as_str());
    for words in [&["status", "production"][..], &["doctor", "production"], &["rollback", "production"]] {
        let told = site.cli(words).await.unwrap();
        assert!(told.code != 0 && told.says("PM0717") && told.says("findmnt -T"), "{words:?}: {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_is_told_of_and_the_release_goes_on_when_it_answers() {
    let mut site = Site::builder().watch("60s").start().await.unwrap();
    site.released_unwatched("v1").await.unwrap();
    site.kill_coordinator().unwrap();
    let Some(disk) = Disk::that_hangs(&state(&site)) else { return };
    site.start_coordinator().unwrap();
    site.ready().await.unwrap();
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    let mut client = site.client().unwrap();
    let mut digests = Vec::new();
    for release in ["v2", "v3", "v4"] {
        let artifact = site.artifact(release).unwrap();
        digests.push(kit::publish(&mut client, &artifact).await.unwrap());
    }
    client.deploy(&digests[0], "v2").await.unwrap();
    client.follow("v2", |seen| seen.done("switch")).await.unwrap();
    {
        let _hanging = disk.hang();
        says_that_it_hangs(&site).await;
        load.more(50).await.unwrap();
    }
    // It is watched again, and led back by nobody but the coordinator.
    trouble(&site, false).await;
    site.green.fail_deep(true).unwrap();
    assert_eq!(client.outcome("v2").await.unwrap(), "rolled-back");
    site.green.fail_deep(false).unwrap();
    assert!(site.visit().await.unwrap().contains("\nv1\n"));

    // Nobody writes, so nobody knows: the first who asks does, and what was sent begins when the disk answers. What came after
    // it was never sent.
    {
        let _hanging = disk.hang();
        let refused = kit::refused(client.deploy(&digests[1], "v3").await).unwrap();
        assert_eq!((refused.code, refused.aftermath), (Code::JournalSilent, Aftermath::Unknown));
        assert!(refused.hint.contains("pointsman status production"), "{refused:?}");
        let refused = kit::refused(client.deploy(&digests[2], "v4").await).unwrap();
        assert_eq!((refused.code, refused.aftermath), (Code::JournalSilent, Aftermath::Unchanged));
        says_that_it_hangs(&site).await;
    }
    trouble(&site, false).await;
    client.follow("v3", |seen| seen.done("switch")).await.unwrap();
    assert!(client.follow("v4", |_| true).await.is_err(), "it was never to begin");
    assert_eq!(verify_file(&journal(&site)).unwrap().first_problem, None);
    assert_eq!(unrecorded(&site), Vec::<String>::new());

    // It is held, and nobody has anything to record.
    let paused = site.cli(&["pause", "production", "--reason", "lunch"]).await.unwrap();
    assert_eq!(paused.code, 0, "{paused:?}");
    {
        let _hanging = disk.hang();
        says_that_it_hangs(&site).await;
    }
    trouble(&site, false).await;
    load.more(50).await.unwrap();
    assert_eq!(load.stop().unwrap().failures(), Vec::<String>::new());
}

/// The coordinator's state, put aside while it does not run.
async fn put_aside(site: &mut Site, name: &str) -> PathBuf {
    site.kill_coordinator().unwrap();
    let aside = site.folder().join(name);
    copy(&state(site), &aside);
    site.start_coordinator().unwrap();
    site.coordinator_answers().await.unwrap();
    aside
}

/// Starts the coordinator on a copy of its state.
async fn bring_back(site: &mut Site, copied: &Path) {
    site.kill_coordinator().unwrap();
    std::fs::remove_dir_all(state(site)).unwrap();
    copy(copied, &state(site));
    site.start_coordinator().unwrap();
    site.coordinator_answers().await.unwrap();
}

/// Fails unless the coordinator says why it does not act, refuses everything that would change something, and has
/// changed nothing. Returns the code of why.
async fn stands_still(site: &Site, before: &Ordered) -> String {
    let shown = trouble(site, true).await;
    assert!((1..=shown.now_ms).contains(&shown.trouble_since_ms), "{shown:?}");
    let why = shown.trouble.unwrap().code;
    let codes = |told: &kit::Told| told.says("PM0718") || told.says("PM0504");
    let told = site.cli(&["status", "production"]).await.unwrap();
    assert!(told.code != 0 && codes(&told), "{told:?}");
    assert!(told.says("pointsman audit verify production"), "{told:?}");
    if why == Code::JournalBehind.as_str() {
        assert!(told.says("pointsman audit accept production --confirm production"), "{told:?}");
    }
    let v3 = site.artifact("v3").unwrap().display().to_string();
    for words in [
        &["deploy", "production", "--artifact", &v3, "--release", "v3", "--yes"][..],
        &["rollback", "production"],
        &["maintenance", "on", "production", "--reason", "test", "--yes"],
    ] {
        let told = site.cli(words).await.unwrap();
        assert!(told.code != 0 && codes(&told), "{words:?}: {told:?}");
    }
    assert_eq!(ordered(site).await, *before);
    why
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_from_an_older_copy_is_not_acted_on() {
    let mut site = Site::builder().watch("1s").start().await.unwrap();
    site.released("v1").await.unwrap();
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    let before_release = put_aside(&mut site, "before-release").await;
    let mut client = site.client().unwrap();
    let digest = kit::publish(&mut client, &site.artifact("v2").unwrap()).await.unwrap();
    client.deploy(&digest, "v2").await.unwrap();
    client.follow("v2", |seen| seen.done("activate")).await.unwrap();
    let in_release = put_aside(&mut site, "in-release").await;
    site.client().unwrap().confirmed("v2").await.unwrap();
    let newest = put_aside(&mut site, "newest").await;

    let before = ordered(&site).await;
    // At first agents refuse its epoch. When that has caught up with theirs, only what they remember of the journal
    // tells.
    for (older, starts) in [(before_release, 3), (in_release, 2)] {
        bring_back(&mut site, &older).await;
        let mut why = stands_still(&site, &before).await;
        for _ in 1..starts {
            site.kill_coordinator().unwrap();
            site.start_coordinator().unwrap();
            site.coordinator_answers().await.unwrap();
            why = stands_still(&site, &before).await;
        }
        assert_eq!(why, Code::JournalBehind.as_str());
    }

    bring_back(&mut site, &newest).await;
    // Its epoch was acknowledged to the coordinator that ran on it before; the next is its own.
    let told = site.cli(&["status", "production"]).await.unwrap();
    if told.says("PM0504") {
        assert!(told.says("restart the right one"), "{told:?}");
        site.kill_coordinator().unwrap();
        site.start_coordinator().unwrap();
        site.coordinator_answers().await.unwrap();
    }
    site.ready().await.unwrap();
    trouble(&site, false).await;
    site.released("v3").await.unwrap();
    load.more(50).await.unwrap();
    assert_eq!(load.stop().unwrap().failures(), Vec::<String>::new());
}

fn log_of_coordinator(site: &Site) -> String {
    std::fs::read_to_string(site.folder().join("logs/coordinator-coordinator.log")).unwrap()
}

/// Whether a thread of this process waits for a disk.
fn waits_for_a_disk(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    // The state comes after the name, which is in brackets.
    let waits = |stat: String| stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('D'));
    let mut stats = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
    stats.any(waits)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_is_driven_although_the_connection_of_whoever_began_it_broke() {
    let mut site = Site::builder().watch("300ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    site.kill_coordinator().unwrap();
    let Some(disk) = Disk::that_hangs(&state(&site)) else { return };
    site.start_coordinator().unwrap();
    site.ready().await.unwrap();
    let mut client = site.client().unwrap();
    let digest = kit::publish(&mut client, &site.artifact("v2").unwrap()).await.unwrap();
    let coordinator = site.pid(Daemon::Coordinator).unwrap();
    {
        let _hanging = disk.hang();
        let mut other = site.client().unwrap();
        let begins = tokio::spawn(async move { other.deploy(&digest, "v2").await });
        let sent = kit::until("its plan is on its way to the disk", LONGEST, || async {
            waits_for_a_disk(coordinator).then_some(())
        });
        sent.await.unwrap();
        begins.abort();
        assert!(begins.await.is_err_and(|error| error.is_cancelled()), "it was not answered before");
        // Meanwhile the coordinator hears that the connection is gone.
        assert!(site.client().unwrap().status().await.is_ok());
    }
    let mut client = site.client().unwrap();
    let driven = kit::until("the release is driven", LONGEST, || {
        let mut client = client.clone();
        async move {
            let release = client.status().await.ok()?.release?;
            (release.plan?.release == "v2").then_some(())
        }
    });
    driven.await.unwrap();
    client.confirmed("v2").await.unwrap();
    assert!(site.visit().await.unwrap().contains("\nv2\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_starts_on_a_disk_that_hangs_says_what_it_waits_for() {
    let mut site = Site::builder().watch("300ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    site.kill_coordinator().unwrap();
    let Some(disk) = Disk::that_hangs(&state(&site)) else { return };
    {
        let _hanging = disk.hang();
        site.start_coordinator().unwrap();
        let said = kit::until("it says so", LONGEST, || async {
            let log = log_of_coordinator(&site);
            (log.contains("PM0717") && log.contains("findmnt -T")).then_some(())
        });
        said.await.unwrap();
    }
    site.ready().await.unwrap();
    assert!(log_of_coordinator(&site).contains("has answered"));
    site.released("v2").await.unwrap();
}
