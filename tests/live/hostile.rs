//! Artifacts that must not be released: each is refused with its code and a hint, and nothing changes anywhere.

use std::os::unix::fs::symlink;
use std::path::Path;

use kit::{Site, refused, tree};
use pointsman_chassis::artifact::{digest_of, hash_of, offer_messages};
use pointsman_core::manifest::{Entry, Kind, Manifest};
use pointsman_core::{Code, Epoch};
use pointsman_proto::v1;

async fn live() -> Site {
    let site = Site::builder().watch("300ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    site
}

/// A folder with one good file, spoiled.
fn spoiled(site: &Site, name: &str, spoil: impl FnOnce(&Path)) -> String {
    let folder = site.folder().join("hostile").join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("index.html"), "good").unwrap();
    spoil(&folder);
    folder.display().to_string()
}

/// Folders in folders, whose path is longer than the system lets anybody name at once.
fn endless(root: &Path) {
    use rustix::fs::{Mode, OFlags, mkdirat, openat};
    let part = "d".repeat(200);
    let mut here = rustix::fs::open(root, OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..25 {
        mkdirat(&here, &part, Mode::from_raw_mode(0o755)).unwrap();
        here = openat(&here, &part, OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
}

fn pipe(folder: &Path) {
    let kind = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(rustix::fs::CWD, folder.join("pipe"), kind, mode, 0).unwrap();
}

fn odd_bytes(folder: &Path) {
    use std::os::unix::ffi::OsStrExt as _;
    std::fs::write(folder.join(std::ffi::OsStr::from_bytes(b"\xff\xfe")), "x").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_refuses_what_cannot_be_released() {
    let site = live().await;
    let absolute = spoiled(&site, "absolute", |folder| symlink("/etc/passwd", folder.join("l")).unwrap());
    let leaving = spoiled(&site, "leaving", |folder| symlink("../x", folder.join("l")).unwrap());
    let empty = site.folder().join("hostile/empty");
    std::fs::create_dir_all(empty.join("only/folders")).unwrap();
    let newline = |folder: &Path| std::fs::write(folder.join("a\nb"), "x").unwrap();
    let cases = [
        (site.folder().join("nowhere").display().to_string(), "PM0201"),
        ("0".repeat(64), "PM0201"),
        (spoiled(&site, "pipe", pipe), "PM0203"),
        (absolute, "PM0204"),
        (leaving, "PM0204"),
        (empty.display().to_string(), "PM0209"),
        (spoiled(&site, "endless", endless), "PM0202"),
        (spoiled(&site, "newline", newline), "PM0202"),
        (spoiled(&site, "odd", odd_bytes), "PM0202"),
    ];
    let before = site.world().await.unwrap();
    for (artifact, code) in &cases {
        let asked = ["production", "--artifact", artifact, "--release", "bad"];
        for words in
            [[&["plan"], asked.as_slice()].concat(), [&["deploy", "--yes"], asked.as_slice()].concat()]
        {
            let told = site.cli(&words).await.unwrap();
            assert!(told.code == 1 || told.code == 2, "{artifact}: {told:?}");
            assert!(told.stderr.contains(&format!("error[{code}]")), "expected {code}: {told:?}");
            assert!(told.stderr.contains("hint:"), "{told:?}");
        }
    }
    assert_eq!(site.world().await.unwrap(), before);
}

/// The canonical form of one entry, whatever is in it.
fn raw(kind: u8, path: &str, content: [u8; 32], target: &str) -> Vec<u8> {
    let (mode, size) = match kind {
        b'f' => (0o644u16, 1u64),
        b'd' => (0o755, 0),
        _ => (0o777, 0),
    };
    let mut bytes = vec![kind];
    bytes.extend(mode.to_le_bytes());
    bytes.extend(size.to_le_bytes());
    bytes.extend(content);
    for text in [path, target] {
        bytes.extend(u16::try_from(text.len()).unwrap().to_le_bytes());
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// The canonical beginning, then these entries.
fn manifest(entries: &[Vec<u8>]) -> Vec<u8> {
    [b"pointsman-manifest\x01\n".to_vec(), entries.concat()].concat()
}

fn file(path: &str) -> Vec<u8> {
    raw(b'f', path, *hash_of(b"x").as_bytes(), "")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_coordinator_refuses_hand_made_manifests() {
    let site = live().await;
    let link = |target: &str| manifest(&[file("a"), raw(b'l', "l", [0; 32], target)]);
    let directory = || raw(b'd', "d", [0; 32], "");
    let cases: Vec<(&str, Vec<u8>, Code)> = vec![
        ("above the root", manifest(&[file("../x")]), Code::PathRefused),
        ("above the root, later", manifest(&[directory(), file("d/../../x")]), Code::PathRefused),
        ("absolute", manifest(&[file("/etc/cron.d/x")]), Code::PathRefused),
        ("twice", manifest(&[file("a"), file("a")]), Code::PathRefused),
        ("below a file", manifest(&[file("a"), file("a/b")]), Code::PathRefused),
        ("below a link", manifest(&[raw(b'l', "a", [0; 32], "b"), file("a/x")]), Code::PathRefused),
        ("below nothing", manifest(&[file("b/x")]), Code::PathRefused),
        ("an empty path", manifest(&[file("")]), Code::PathRefused),
        ("a control character", manifest(&[file("a\0b")]), Code::PathRefused),
        ("a long path", manifest(&[file(&"x/".repeat(3000))]), Code::PathRefused),
        ("a link out", link("../x"), Code::LinkRefused),
        ("an absolute link", link("/etc/passwd"), Code::LinkRefused),
        ("no files", manifest(&[directory()]), Code::ArtifactEmpty),
        ("nothing", manifest(&[]), Code::ArtifactEmpty),
        ("another kind", manifest(&[raw(b'p', "pipe", [0; 32], "")]), Code::ManifestInvalid),
        ("not sorted", manifest(&[file("b"), file("a")]), Code::ManifestInvalid),
        ("cut short", file("a").split_at(20).0.to_vec(), Code::ManifestInvalid),
        ("no bytes", Vec::new(), Code::ManifestInvalid),
        ("noise", tree::noise(1, 10_000), Code::ManifestInvalid),
    ];
    let before = site.world().await.unwrap();
    let mut client = site.client().unwrap();
    for (what, bytes, code) in cases {
        let offer = offer_messages(&"production".parse().unwrap(), Epoch(0), &bytes, &[]);
        let problem = refused(client.api.offer_artifact(offer).await).unwrap();
        assert_eq!(problem.code, code, "{what}: {problem:?}");
        assert!(!problem.hint.is_empty(), "{what}");
    }
    assert_eq!(site.world().await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_coordinator_refuses_wrong_contents() {
    let site = live().await;
    let kind = Kind::File { size: 5, content: hash_of(b"hello"), executable: false };
    let bytes = Manifest::new(vec![Entry { path: "a".to_owned(), kind }]).unwrap().encode();
    let digest = digest_of(&bytes).to_string();
    let piece = |content: u32, offset: u64, data: &[u8]| v1::ContentPiece {
        content,
        offset,
        data: data.to_vec(),
        ..Default::default()
    };
    let header = |artifact: &str| v1::ContentPiece {
        artifact: artifact.to_owned(),
        environment: "production".to_owned(),
        ..Default::default()
    };
    let before = site.world().await.unwrap();
    let mut client = site.client().unwrap();
    let unknown = [header(&digest), piece(0, 0, b"hello")];
    let problem = refused(client.api.send_contents(tokio_stream::iter(unknown)).await).unwrap();
    assert_eq!(problem.code, Code::ArtifactMissing);
    assert_eq!(site.world().await.unwrap(), before);

    let offer = offer_messages(&"production".parse().unwrap(), Epoch(0), &bytes, &[]);
    assert_eq!(client.api.offer_artifact(offer).await.unwrap().into_inner().missing, [0]);
    let cases = [
        ("another content", vec![piece(0, 0, b"jello")], Code::ContentMismatch),
        ("too long", vec![piece(0, 0, b"hello!")], Code::TransferBroken),
        ("too short", vec![piece(0, 0, b"hell")], Code::TransferBroken),
        ("out of order", vec![piece(0, 3, b"lo")], Code::TransferBroken),
        ("not offered", vec![piece(7, 0, b"hello")], Code::TransferBroken),
        ("nothing", vec![], Code::TransferBroken),
    ];
    for (what, pieces, code) in cases {
        let pieces: Vec<_> = [header(&digest)].into_iter().chain(pieces).collect();
        let problem = refused(client.api.send_contents(tokio_stream::iter(pieces)).await).unwrap();
        assert_eq!(problem.code, code, "{what}: {problem:?}");
    }
    let problem = refused(client.deploy(&digest, "torn").await).unwrap();
    assert_eq!(problem.code, Code::ArtifactMissing, "{problem:?}");
    for (artifact, release, code) in [
        ("../../etc/passwd", "x", Code::MessageInvalid),
        (digest.as_str(), "../x", Code::MessageInvalid),
        (digest.as_str(), "-rf", Code::MessageInvalid),
    ] {
        let problem = refused(client.deploy(artifact, release).await).unwrap();
        assert_eq!(problem.code, code, "{artifact} {release}: {problem:?}");
    }
    let after = site.world().await.unwrap();
    assert_eq!((after.hosts, after.releases, after.route), (before.hosts, before.releases, before.route));
}
