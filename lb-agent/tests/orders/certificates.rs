//! A certificate is renewed, or cannot be: it ends with the old one or the new one, on disk and in HAProxy, and says
//! which. HAProxy is a fake here that can be made to fail at any command.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pointsman_chassis::site_certificate::SiteCertificate;
use pointsman_core::{Aftermath, Code, Epoch, Evidence, Problem};

use crate::alone::in_own_mounts;
use crate::fake::{Answer, KEY};
use crate::pki::{Authority, Made, NEW, OLD, Wish};
use crate::rig::Rig;

/// How long what happens by itself may take.
const BY_ITSELF: Duration = Duration::from_secs(20);

struct Site {
    rig: Rig,
    path: PathBuf,
    authority: Authority,
    old: String,
    new: String,
}

/// As it is sent and kept: without anything but the blocks.
fn plain(pem: &str) -> String {
    SiteCertificate::parse(pem.as_bytes()).unwrap().pem().to_owned()
}

impl Site {
    async fn new() -> Self {
        Self::with("").await
    }

    /// With more lines in what grants the certificate.
    async fn with(more: &str) -> Self {
        let authority = Authority::new();
        let (old, new) = (authority.make(OLD).pem(), authority.make(NEW).pem());
        let rig = Rig::with(KEY, |folder, fake| {
            std::fs::create_dir(folder.join("certs")).unwrap();
            std::fs::create_dir(folder.join("renewed")).unwrap();
            std::fs::write(folder.join("certs/www.pem"), &old).unwrap();
            fake.with(|world| world.certificate = old.clone());
            format!(
                "rate_limit_tables = [\"st_rl\"]\n[[haproxy.certificates]]\npath = {:?}\naddress = \"{}\"\nwatch = {:?}\n{more}",
                folder.join("certs/www.pem"),
                fake.tls,
                folder.join("renewed")
            )
        });
        let rig = rig.await;
        let path = rig.folder.path().join("certs/www.pem");
        Self { rig, path, authority, old: plain(&old), new: plain(&new) }
    }

    async fn deploy(&self) -> Result<Evidence, Problem> {
        let deployed = self.rig.agent.deploy_certificate(&self.new).await;
        self.told_the_truth(&deployed);
        deployed
    }

    /// What a reload would bring, and what is served.
    fn stands(&self) -> (String, String) {
        let disk = SiteCertificate::read(&self.path).unwrap().pem().to_owned();
        (disk, self.rig.fake.with(|world| plain(&world.certificate)))
    }

    /// The old certificate or the new one, in both places, and what was reported is true.
    fn told_the_truth(&self, result: &Result<Evidence, Problem>) {
        let (disk, served) = self.stands();
        let expected = match result {
            Ok(_) => &self.new,
            Err(problem) if problem.aftermath == Aftermath::Unchanged => &self.old,
            Err(_) => return assert!([&self.old, &self.new].contains(&&disk)),
        };
        assert!(disk == *expected, "on disk is another than reported: {result:?}");
        assert!(served == *expected, "served is another than reported: {result:?}");
        assert!(
            self.rig.fake.with(|world| world.pending.is_none()),
            "a transaction is left open: {result:?}"
        );
    }

    async fn refused(&self, code: Code, aftermath: Aftermath) -> Problem {
        let problem = self.deploy().await.unwrap_err();
        assert_eq!((problem.code, problem.aftermath), (code, aftermath), "{problem:?}");
        problem
    }

    async fn until(&self, what: &str, look: impl AsyncFn() -> bool) {
        let give_up = Instant::now() + BY_ITSELF;
        while !look().await {
            assert!(Instant::now() < give_up, "waited in vain: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn put_renewed(&self, chain: &str, key: &str) {
        // As `certbot` does: new files, and links that are replaced.
        let folder = self.rig.folder.path();
        let number = std::fs::read_dir(folder).unwrap().count();
        for (name, text) in [("fullchain", chain), ("privkey", key)] {
            let (file, link) =
                (folder.join(format!("{name}{number}.pem")), folder.join("renewed").join(name));
            std::fs::write(&file, text).unwrap();
            let next = link.with_extension("next");
            std::os::unix::fs::symlink(&file, &next).unwrap();
            std::fs::rename(&next, link.with_extension("pem")).unwrap();
        }
    }

    /// Why what is in the folder is not taken.
    async fn reason(&self) -> String {
        let facts = self.rig.agent.describe().await.balancer.unwrap().certificates;
        facts[0].problem.clone().map(|problem| problem.message).unwrap_or_default()
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_served_and_the_same_again_is_already() {
    let site = Site::new().await;
    std::fs::set_permissions(&site.path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(!site.deploy().await.unwrap().already);
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&site.path), 0o640, "never for all");
    let previous = site.path.with_file_name(".www.pem.previous");
    assert_eq!((std::fs::read_to_string(&previous).unwrap(), mode(&previous)), (site.old.clone(), 0o600));
    let sets = site.rig.commands("set ssl cert");
    assert!(site.deploy().await.unwrap().already);
    assert_eq!(site.rig.commands("set ssl cert"), sets, "nothing is done twice");
    let facts = site.rig.agent.describe().await.balancer.unwrap().certificates;
    assert!(facts[0].served && facts[0].problem.is_none(), "{facts:?}");
    assert_eq!(facts[0].names, ["example.org", "www.example.org"]);
}

#[tokio::test]
async fn haproxy_refuses() {
    for (step, answer) in [
        ("set ssl cert", "Can't replace a certificate which is not referenced by the configuration!\n\n"),
        ("commit", "inconsistencies between private key and certificate loaded 'x'.\nCan't commit x!\n\n"),
        ("commit", "Committing x.\nSuccess!\n\n"),
        ("set ssl cert", "\n"),
        ("commit", ""),
    ] {
        let site = Site::new().await;
        site.rig.fake.with(|world| world.instead(step, 9, move |_| Some(Answer::text(answer))));
        site.refused(Code::CertificateNotTaken, Aftermath::Unchanged).await;
        // And when the trouble is over, the same succeeds.
        site.rig.fake.with(|world| world.forget_rules());
        assert!(!site.deploy().await.unwrap().already);
    }
}

#[tokio::test]
async fn an_answer_that_is_lost_leads_to_a_look() {
    let site = Site::new().await;
    site.rig.fake.with(|world| world.after("commit", 1, |_| Some(Answer::text("Committing x"))));
    site.deploy().await.unwrap();
    let site = Site::new().await;
    site.rig.fake.with(|world| world.instead("commit", 1, |_| Some(Answer::silence())));
    site.deploy().await.unwrap();
    let site = Site::new().await;
    site.rig.fake.with(|world| world.instead("set ssl cert", 99, |_| Some(Answer::silence())));
    site.refused(Code::RuntimeSocketUnreachable, Aftermath::Unchanged).await;
}

#[tokio::test]
async fn haproxy_falls_silent_after_the_commit() {
    let site = Site::new().await;
    site.rig.fake.with(|world| {
        world.after("commit", 1, |world| {
            world.instead("", 99, |_| Some(Answer::silence()));
            None
        });
    });
    site.refused(Code::RuntimeSocketUnreachable, Aftermath::Unknown).await;
}

#[tokio::test]
async fn a_handshake_shows_the_old_one() {
    let site = Site::new().await;
    site.rig.fake.with(|world| world.shown_certificate = Some(site.old.clone()));
    let problem = site.refused(Code::CertificateNotSeen, Aftermath::Unchanged).await;
    assert!(problem.causes.contains(&"the certificate before is back".to_owned()), "{problem:?}");
    // And cannot be taken back: then nothing is certain.
    site.rig.fake.with(|world| {
        world.after("commit", 1, |world| {
            world.instead("set ssl cert", 9, |_| Some(Answer::text("Permission denied\n\n")));
            None
        });
    });
    site.refused(Code::CertificateNotSeen, Aftermath::Unknown).await;
}

#[tokio::test]
async fn a_reload_between_the_commands() {
    let site = Site::new().await;
    site.rig.fake.with(|world| {
        world.after("set ssl cert", 1, |world| {
            (world.pid, world.pending) = (world.pid + 1, None);
            None
        });
    });
    site.deploy().await.unwrap();
    // One that began before the file was written, and brings the old certificate after the commit.
    let site = Site::new().await;
    let old = site.old.clone();
    site.rig.fake.with(|world| {
        world.after("commit", 1, move |world| {
            (world.pid, world.certificate) = (world.pid + 1, old.clone());
            None
        });
    });
    site.deploy().await.unwrap();
}

#[tokio::test]
async fn the_folder_cannot_be_written() {
    for name in [".www.pem.next", ".www.pem.previous"] {
        let site = Site::new().await;
        std::fs::create_dir(site.path.with_file_name(name)).unwrap();
        site.refused(Code::FileSystem, Aftermath::Unchanged).await;
        assert_eq!(site.rig.commands("set ssl cert"), 0);
        std::fs::remove_dir(site.path.with_file_name(name)).unwrap();
        site.deploy().await.unwrap();
    }
}

#[tokio::test]
async fn the_disk_is_full() {
    if !in_own_mounts("certificates::the_disk_is_full") {
        return;
    }
    let site = Site::new().await;
    let folder = site.path.parent().unwrap();
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
        .arg(folder)
        .status();
    assert!(mount.unwrap().success());
    std::fs::write(&site.path, &site.old).unwrap();
    drop(std::fs::write(folder.join("filler"), vec![0; 1 << 20]));
    site.refused(Code::FileSystem, Aftermath::Unchanged).await;
    assert_eq!(site.rig.commands("set ssl cert"), 0);
}

#[tokio::test]
async fn what_would_be_worse_than_the_one_in_place_is_refused_before_anything_is_done() {
    let site = Site::new().await;
    let make = |wish: Wish<'_>| site.authority.make(wish);
    let other = make(NEW);
    let long: Vec<String> = (0..600).map(|number| format!("host-{number}.a-long-name.example.org")).collect();
    let long: Vec<&str> = OLD.names.iter().copied().chain(long.iter().map(String::as_str)).collect();
    for (pem, reason) in [
        (make(Wish { from: -50, until: -1, ..OLD }).pem(), "it ended"),
        (make(Wish { from: 1, until: 90, ..OLD }).pem(), "not valid yet"),
        (make(Wish { from: -61, until: 90, ..OLD }).pem(), "issued before the one in place"),
        (
            make(Wish { names: &["www.example.org"], ..NEW }).pem(),
            "lacks 1 of the names of the one in place: example.org",
        ),
        (Made { chain: String::new(), ..make(NEW) }.pem(), "its chain is missing"),
        (Made { key: other.key.clone(), ..make(NEW) }.pem(), "belongs to another certificate"),
        (make(Wish { names: &long, ..NEW }).pem(), "command socket takes"),
        ("garbage".to_owned(), "0 private keys"),
        (" ".repeat(70_000), "more than 65536"),
    ] {
        let refused = site.rig.agent.deploy_certificate(&pem).await;
        site.told_the_truth(&refused);
        let problem = refused.unwrap_err();
        assert_eq!((problem.code, problem.aftermath), (Code::SiteCertificateUnfit, Aftermath::Unchanged));
        assert!(problem.message.contains(reason), "expected {reason:?}: {problem:?}");
    }
    assert_eq!(site.rig.commands("set ssl cert") + site.rig.commands("abort"), 0);
    std::fs::write(&site.path, "garbage").unwrap();
    let problem = site.rig.agent.deploy_certificate(&site.new).await.unwrap_err();
    assert!(problem.message.contains("no way back"), "{problem:?}");
}

#[tokio::test]
async fn only_what_is_granted_and_only_for_the_coordinator_that_rules() {
    let site = Site::new().await;
    for path in ["/etc/passwd", "www.pem", "/certs/www.pem <<", "*"] {
        let refused = site.rig.agent.deploy_certificate_as(Epoch(1), path, &site.new).await.unwrap_err();
        assert_eq!(refused.code, Code::CertificateUnknown, "{path}");
    }
    let path = site.path.display().to_string();
    site.rig.agent.ledger.fence(Epoch(5), b"").unwrap();
    let fenced = site.rig.agent.deploy_certificate_as(Epoch(4), &path, &site.new).await;
    site.told_the_truth(&fenced);
    assert_eq!(fenced.unwrap_err().code, Code::Fenced);
    let none = Rig::new().await;
    let refused = none.agent.deploy_certificate(&site.new).await.unwrap_err();
    assert_eq!(refused.code, Code::CertificateUnknown);
    site.rig.agent.deploy_certificate_as(Epoch(5), &path, &site.new).await.unwrap();
}

/// A newer coordinator takes over between disk and HAProxy: nothing is done for the older one any more.
#[tokio::test]
async fn fenced_in_the_middle() {
    let site = Site::new().await;
    let ledger = site.rig.agent.ledger.clone();
    site.rig.fake.with(|world| {
        world.after("show ssl cert", 1, move |_| {
            ledger.fence(Epoch(9), b"").unwrap();
            None
        });
    });
    site.refused(Code::Fenced, Aftermath::Unchanged).await;
    assert_eq!(site.rig.commands("set ssl cert"), 0);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The key is in no log, no answer, no command and no fact, whether it goes well or badly.
#[tokio::test]
async fn nothing_shows_the_key() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let site = Site::new().await;
    let mut said = vec![format!("{:?}", site.deploy().await)];
    let newer = site.authority.make(Wish { from: 0, ..NEW });
    site.rig.fake.with(|world| world.instead("commit", 9, |_| Some(Answer::text("Can't commit x!\n\n"))));
    said.push(format!("{:?}", site.rig.agent.deploy_certificate(&newer.pem()).await.unwrap_err()));
    let mixed = Made { key: newer.key.clone(), ..site.authority.make(NEW) };
    said.push(format!("{:?}", site.rig.agent.deploy_certificate(&mixed.pem()).await.unwrap_err()));
    said.push(format!("{:?}", site.rig.agent.describe().await));
    said.push(site.rig.fake.with(|world| world.commands.join("\n")));
    said.push(String::from_utf8(log.0.lock().unwrap().clone()).unwrap());
    assert!(said.last().unwrap().contains("certificate deployed"), "the log is looked at");
    let keys = format!("{}{}", site.new, newer.key);
    let secrets = keys.split("PRIVATE KEY-----\n").skip(1).step_by(2);
    let secrets: Vec<&str> = secrets.flat_map(str::lines).filter(|line| line.len() > 30).collect();
    assert!(secrets.len() >= 4, "{}", secrets.len());
    for text in said {
        assert!(secrets.iter().all(|secret| !text.contains(&secret[..16])), "{text}");
    }
}

#[tokio::test]
async fn what_a_crash_cut_short_is_finished_and_what_a_person_did_is_left() {
    let site = Site::new().await;
    // A person copied the new one there and has not reloaded.
    std::fs::write(&site.path, &site.new).unwrap();
    let hands = site.rig.agent.hands.clone();
    let watching = tokio::spawn(async move { hands.watch_certificates().await });
    site.until("it is looked at", async || site.rig.commands("show info") > 0).await;
    site.until("the folder is looked at", async || !site.reason().await.is_empty()).await;
    assert_eq!(site.stands(), (site.new.clone(), site.old.clone()));
    assert_eq!(site.rig.commands("set ssl cert"), 0);
    watching.abort();
    // An agent that ended between disk and HAProxy left the one before beside it.
    std::fs::write(site.path.with_file_name(".www.pem.previous"), &site.old).unwrap();
    let hands = site.rig.agent.hands.clone();
    let watching = tokio::spawn(async move { hands.watch_certificates().await });
    site.until("it is served", async || site.stands().1 == site.new).await;
    watching.abort();
    // The same, but HAProxy will not have it: then the next reload must bring what is served.
    let site = Site::new().await;
    std::fs::write(&site.path, &site.new).unwrap();
    std::fs::write(site.path.with_file_name(".www.pem.previous"), &site.old).unwrap();
    site.rig.fake.with(|world| world.instead("commit", 9, |_| Some(Answer::text("Can't commit x!\n\n"))));
    let hands = site.rig.agent.hands.clone();
    let watching = tokio::spawn(async move { hands.watch_certificates().await });
    site.until("the old one is back", async || site.stands() == (site.old.clone(), site.old.clone())).await;
    watching.abort();
}

#[tokio::test]
async fn a_folder_is_watched() {
    let site = Site::new().await;
    let hands = site.rig.agent.hands.clone();
    let watching = tokio::spawn(async move { hands.watch_certificates().await });
    site.until("an empty folder is named", async || site.reason().await.starts_with("cannot read")).await;
    let Made { leaf, chain, key } = site.authority.make(NEW);
    site.put_renewed(&format!("{leaf}{chain}"), &site.authority.make(NEW).key);
    site.until("a wrong key is named", async || site.reason().await.contains("another certificate")).await;
    site.put_renewed(&format!("{leaf}{chain}"), &key);
    let renewed = plain(&format!("{leaf}{chain}{key}"));
    site.until("it is served", async || site.stands() == (renewed.clone(), renewed.clone())).await;
    site.until("no problem is left", async || site.reason().await.is_empty()).await;
    // An old file comes back: it is never served.
    let older = site.authority.make(Wish { from: -2, until: 90, ..OLD });
    site.put_renewed(&format!("{}{}", older.leaf, older.chain), &older.key);
    site.until("an older one is named", async || site.reason().await.contains("issued before")).await;
    assert_eq!(site.stands(), (renewed.clone(), renewed));
    watching.abort();
}

/// A name that is missing is a mistake, unless a person says that it is meant: then it is gone, and that is said.
#[tokio::test]
async fn a_name_is_let_go_when_a_person_says_so() {
    let mut site = Site::new().await;
    let fewer = site.authority.make(Wish { names: &["www.example.org"], ..NEW });
    site.new = plain(&fewer.pem());
    let without = async |names: &[&str]| {
        let deployed = site.rig.agent.deploy_certificate_without(names, Epoch(1), "", &site.new).await;
        site.told_the_truth(&deployed);
        deployed
    };
    for names in [&[][..], &["www.example.org", "*.example.org", "org"], &["example.org.", "192.0.2.1"]] {
        let refused = without(names).await.unwrap_err();
        assert!(
            refused.message.contains("lacks 1 of the names") && refused.hint.contains("--drop-name"),
            "{refused:?}"
        );
    }
    assert_eq!(without(&["a\nb"]).await.unwrap_err().code, Code::MessageInvalid);
    let done = without(&["other.org", "Example.ORG"]).await.unwrap();
    assert!(done.detail.ends_with("; without example.org"), "{done:?}");
    assert!(without(&[]).await.unwrap().already);
    // What the agent's own file lets go is let go for renewals from a folder too.
    let site = Site::with("drop_names = [\"example.org\"]\n").await;
    let hands = site.rig.agent.hands.clone();
    let watching = tokio::spawn(async move { hands.watch_certificates().await });
    let fewer = site.authority.make(Wish { names: &["www.example.org"], ..NEW });
    site.put_renewed(&format!("{}{}", fewer.leaf, fewer.chain), &fewer.key);
    let renewed = plain(&fewer.pem());
    site.until("it is served", async || site.stands() == (renewed.clone(), renewed.clone())).await;
    watching.abort();
}

/// HAProxy names the leaf and not the chain: what it serves with the leaf is seen by a handshake only.
#[tokio::test]
async fn the_same_leaf_with_another_chain_is_another_certificate() {
    let short = async || {
        let mut site = Site::new().await;
        let made = site.authority.below().make(NEW);
        site.new = plain(&made.pem());
        site.old = plain(&Made { chain: String::new(), ..made }.pem());
        std::fs::write(&site.path, &site.old).unwrap();
        site.rig.fake.with(|world| world.certificate = site.old.clone());
        site
    };
    let site = short().await;
    assert!(!site.deploy().await.unwrap().already);
    assert!(site.deploy().await.unwrap().already);
    assert_eq!(site.rig.commands("set ssl cert"), 1);
    // A handshake that goes on showing the chain of before.
    let site = short().await;
    site.rig.fake.with(|world| world.shown_certificate = Some(site.old.clone()));
    let problem = site.refused(Code::CertificateNotSeen, Aftermath::Unchanged).await;
    assert!(problem.message.contains("another chain"), "{problem:?}");
    // A crash between disk and HAProxy: sent again it is served, and so it is without being sent again.
    for sent in [true, false] {
        let site = short().await;
        std::fs::write(&site.path, &site.new).unwrap();
        std::fs::write(site.path.with_file_name(".www.pem.previous"), &site.old).unwrap();
        if sent {
            assert!(!site.deploy().await.unwrap().already);
            continue;
        }
        let hands = site.rig.agent.hands.clone();
        let watching = tokio::spawn(async move { hands.watch_certificates().await });
        site.until("it is served", async || site.stands().1 == site.new).await;
        watching.abort();
    }
}

/// What keeps a renewed certificate out for a while does not keep it out for good.
#[tokio::test]
async fn a_passing_fault_gives_no_renewal_up() {
    let renewed = |site: &Site| {
        let Made { leaf, chain, key } = site.authority.make(NEW);
        site.put_renewed(&format!("{leaf}{chain}"), &key);
        plain(&format!("{leaf}{chain}{key}"))
    };
    let watch = |site: &Site| {
        let hands = site.rig.agent.hands.clone();
        tokio::spawn(async move { hands.watch_certificates().await })
    };
    // The disk was full when it came; the next look, brought about by anything in the folder, takes it.
    let site = Site::new().await;
    std::fs::create_dir(site.path.with_file_name(".www.pem.next")).unwrap();
    let new = renewed(&site);
    let watching = watch(&site);
    site.until("it is said", async || site.reason().await.starts_with("cannot write")).await;
    std::fs::remove_dir(site.path.with_file_name(".www.pem.next")).unwrap();
    std::fs::write(site.rig.folder.path().join("renewed/touched"), "").unwrap();
    site.until("it is served", async || site.stands() == (new.clone(), new.clone())).await;
    watching.abort();
    // The frontend showed another one until it was reloaded.
    let site = Site::new().await;
    site.rig.fake.with(|world| world.shown_certificate = Some(site.old.clone()));
    let new = renewed(&site);
    let watching = watch(&site);
    site.until("it is said", async || site.reason().await.contains("another certificate")).await;
    let sets = site.rig.commands("set ssl cert");
    std::fs::write(site.rig.folder.path().join("renewed/touched"), "").unwrap();
    // Nothing comes that could be waited for: it is that which is looked for.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        site.rig.commands("set ssl cert"),
        sets,
        "visitors are shown it once, and not again and again"
    );
    site.rig.fake.with(|world| (world.shown_certificate, world.pid) = (None, 101));
    site.until("it is served", async || site.stands() == (new.clone(), new.clone())).await;
    watching.abort();
}

#[tokio::test]
async fn limits_are_shown_and_lifted() {
    let site = Site::new().await;
    let agent = &site.rig.agent;
    let table = [("192.0.2.4", 1200), ("192.0.2.5", 3), ("2001:db8::1", 40)];
    site.rig.fake.with(|world| world.table = table.map(|(key, rate)| (key.to_owned(), rate)).into());
    let keys = |reply: pointsman_proto::v1::RateLimitsReply| -> Vec<String> {
        reply.entries.into_iter().map(|entry| format!("{} {}", entry.key, entry.rate)).collect()
    };
    assert_eq!(
        keys(agent.rate_limits("", "", 0).await.unwrap()),
        ["192.0.2.4 1200", "2001:db8::1 40", "192.0.2.5 3"]
    );
    assert_eq!(keys(agent.rate_limits("st_rl", "", 100).await.unwrap()), ["192.0.2.4 1200"]);
    assert!(agent.rate_limits("", "192.0.2.4", 0).await.unwrap().entries.is_empty());
    assert_eq!(site.rig.fake.with(|world| world.table.len()), 2);
    for bad in ["192.0.2.4;show info", "192.0.2.4\nshow info", "visitor", "192.0.2.0/24"] {
        assert_eq!(agent.rate_limits("", bad, 0).await.unwrap_err().code, Code::MessageInvalid, "{bad:?}");
    }
    let unknown = agent.rate_limits("st_other", "", 0).await.unwrap_err();
    assert_eq!(unknown.code, Code::RateTableUnknown);
    agent.ledger.fence(Epoch(5), b"").unwrap();
    assert_eq!(agent.rate_limits("", "192.0.2.5", 0).await.unwrap_err().code, Code::Fenced);
}
