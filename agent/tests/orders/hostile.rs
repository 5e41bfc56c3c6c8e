//! Manifests that no honest build makes: each is refused by name, and nothing of it reaches the disk.

use pointsman_core::Code;
use pointsman_core::manifest::{MAX_COMPONENT_BYTES, MAX_PATH_BYTES};

use crate::rig::{Rig, tree, walk};

/// An entry as it stands in the bytes, whatever the rules say.
struct Raw {
    kind: u8,
    mode: u16,
    size: u64,
    path: Vec<u8>,
    target: Vec<u8>,
}

fn file(path: impl AsRef<[u8]>) -> Raw {
    Raw { kind: b'f', mode: 0o644, size: 1, path: path.as_ref().to_vec(), target: vec![] }
}

fn folder(path: impl AsRef<[u8]>) -> Raw {
    Raw { kind: b'd', mode: 0o755, size: 0, ..file(path) }
}

fn link(path: &str, target: &str) -> Raw {
    Raw { kind: b'l', mode: 0o777, size: 0, target: target.as_bytes().to_vec(), ..file(path) }
}

fn with_mode(mode: u16) -> Raw {
    Raw { mode, ..file("index.html") }
}

/// The canonical form, written out by hand: no rule of the writer may protect the reader.
fn encode(entries: &[Raw]) -> Vec<u8> {
    let mut bytes = b"pointsman-manifest\x01\n".to_vec();
    for entry in entries {
        bytes.push(entry.kind);
        bytes.extend(entry.mode.to_le_bytes());
        bytes.extend(entry.size.to_le_bytes());
        let content = if entry.kind == b'f' { *blake3_of_x() } else { [0; 32] };
        bytes.extend(content);
        for text in [&entry.path, &entry.target] {
            bytes.extend(u16::try_from(text.len()).unwrap().to_le_bytes());
            bytes.extend(text);
        }
    }
    bytes
}

fn blake3_of_x() -> Box<[u8; 32]> {
    Box::new(*pointsman_chassis::artifact::hash_of(b"x").as_bytes())
}

#[tokio::test]
async fn every_hostile_manifest_is_refused() {
    use Code::{ArtifactEmpty, LinkRefused, ManifestInvalid, PathRefused};
    let wide = "w".repeat(MAX_COMPONENT_BYTES + 1);
    let long = format!("{}x", "d/".repeat(MAX_PATH_BYTES / 2));
    let deep = (1..70).map(|depth| folder(vec!["d"; depth].join("/"))).chain([file("z")]);
    let sticky = || folder("a");
    let cases: Vec<(&str, Vec<Raw>, Code)> = vec![
        ("absolute", vec![file("/etc/passwd")], PathRefused),
        ("up", vec![file("../x")], PathRefused),
        ("up and on", vec![file("../../etc/cron.d/x")], PathRefused),
        ("up in the middle", vec![folder("a"), file("a/../../b")], PathRefused),
        ("up at the end", vec![folder("a"), file("a/..")], PathRefused),
        ("only up", vec![file("..")], PathRefused),
        ("here", vec![file(".")], PathRefused),
        ("here in the middle", vec![folder("a"), file("a/./b")], PathRefused),
        ("empty", vec![file("")], PathRefused),
        ("empty component", vec![folder("a"), file("a//b")], PathRefused),
        ("slash at the end", vec![folder("a"), file("a/")], PathRefused),
        ("NUL", vec![file("a\0b")], PathRefused),
        ("NUL cuts an innocent ending", vec![file("shell.php\0.css")], PathRefused),
        ("line feed", vec![file("a\nb")], PathRefused),
        ("escape sequence", vec![file("a\u{1b}[2Jb")], PathRefused),
        ("delete character", vec![file("a\u{7f}")], PathRefused),
        ("backslash", vec![file("a\\b")], PathRefused),
        ("backslash up", vec![file("..\\..\\x")], PathRefused),
        ("256 bytes", vec![file(&wide)], PathRefused),
        ("overlong", vec![file(&long)], PathRefused),
        ("too deep", deep.collect(), PathRefused),
        ("not UTF-8", vec![file(b"\xff\xfe")], ManifestInvalid),
        ("overlong UTF-8 of `/`", vec![file(b"..\xc0\xafx")], ManifestInvalid),
        ("twice", vec![file("a"), file("a")], PathRefused),
        ("file, then directory", vec![folder("a"), file("a")], PathRefused),
        ("directory, then file", vec![file("a"), folder("a")], PathRefused),
        ("below a file", vec![file("a"), file("a/b")], PathRefused),
        ("below a link", vec![folder("b"), link("l", "b"), file("l/x")], PathRefused),
        ("below a link that leads out", vec![file("a"), link("l", "/tmp"), file("l/x")], LinkRefused),
        ("below nothing", vec![file("a/b")], PathRefused),
        ("link and file of one name", vec![file("a"), link("a", "b")], PathRefused),
        ("link to an absolute path", vec![file("a"), link("l", "/etc/passwd")], LinkRefused),
        ("link up", vec![file("a"), link("l", "..")], LinkRefused),
        ("link up and on", vec![file("a"), link("l", "../../../etc/passwd")], LinkRefused),
        ("link down and up", vec![folder("a"), file("a/x"), link("l", "a/../../x")], LinkRefused),
        ("link to nothing", vec![file("a"), link("l", "")], LinkRefused),
        ("link with NUL", vec![file("a"), link("l", "a\0b")], LinkRefused),
        ("not sorted", vec![file("b"), file("a")], ManifestInvalid),
        ("setuid", vec![with_mode(0o4755)], ManifestInvalid),
        ("setgid", vec![with_mode(0o2755)], ManifestInvalid),
        ("sticky", vec![with_mode(0o1755)], ManifestInvalid),
        ("for everybody to write", vec![with_mode(0o666)], ManifestInvalid),
        ("unreadable", vec![with_mode(0o000)], ManifestInvalid),
        ("setgid folder", vec![Raw { mode: 0o2755, ..sticky() }, file("b")], ManifestInvalid),
        ("FIFO", vec![Raw { kind: b'p', ..file("a") }], ManifestInvalid),
        ("device", vec![Raw { kind: b'c', ..file("a") }], ManifestInvalid),
        ("socket", vec![Raw { kind: b's', ..file("a") }], ManifestInvalid),
        (
            "hard link",
            vec![Raw { kind: b'h', target: b"/etc/passwd".to_vec(), ..file("a") }],
            ManifestInvalid,
        ),
        ("a file with a target", vec![Raw { target: b"/etc/passwd".to_vec(), ..file("a") }], ManifestInvalid),
        ("a folder with a size", vec![Raw { size: 9, ..folder("a") }, file("b")], ManifestInvalid),
        ("one content in two sizes", vec![file("a"), Raw { size: 2, ..file("b") }], ManifestInvalid),
        ("nothing", vec![], ArtifactEmpty),
        ("only folders", vec![folder("a")], ArtifactEmpty),
    ];
    assert!(cases.len() >= 40, "{}", cases.len());
    let rig = Rig::new().await;
    let before = walk(rig.folder.path());
    for (name, entries, code) in cases {
        let refused = rig.offer_bytes(&encode(&entries), &[]).await.unwrap_err();
        assert_eq!(refused.code, code, "{name}: {refused:?}");
        assert!(refused.message.chars().all(|c| !c.is_control()), "{name}: {refused:?}");
    }
    assert_eq!(walk(rig.folder.path()), before, "something was written");
}

#[tokio::test]
async fn a_manifest_that_is_cut_changed_or_no_manifest() {
    let rig = Rig::new().await;
    let good = encode(&[folder("a"), file("a/x"), file("b")]);
    for cut in 0..good.len() {
        // A cut between entries is another artifact; the rest is none.
        if let Err(problem) = rig.offer_bytes(&good[..cut], &[]).await {
            assert!(
                [Code::ManifestInvalid, Code::ArtifactEmpty].contains(&problem.code),
                "{cut}: {problem:?}"
            );
        }
    }
    for bytes in [vec![], vec![0; 100], b"pointsman-manifest\x02\n".to_vec(), [&good[..], b"x"].concat()] {
        assert_eq!(rig.offer_bytes(&bytes, &[]).await.unwrap_err().code, Code::ManifestInvalid);
    }
}

#[tokio::test]
async fn names_that_look_hostile_and_are_not() {
    let rig = Rig::new().await;
    let widest = "w".repeat(MAX_COMPONENT_BYTES);
    let made = tree(&[
        ("trailing.", "1"),
        ("...", "2"),
        ("-rf", "3"),
        (" ", "4"),
        ("$(id)", "5"),
        ("A", "6"),
        ("a", "7"),
        ("\u{e9}", "8"),
        ("e\u{301}", "9"),
        (&widest, "10"),
        (".maintenance", "11"),
        ("current", "12"),
        ("\u{202e}gpj.exe", "13"),
        ("con", "14"),
    ]);
    rig.bring(&made).await.unwrap();
    // Twins in case or in normal form are files of their own here, each with its own bytes.
    rig.must_be_whole(&made);
}

/// What the manifest's own rules let through must also be a path that the host can make.
#[tokio::test]
async fn the_longest_path_that_a_manifest_may_have() {
    let rig = Rig::new().await;
    let mut path = vec!["d".repeat(MAX_COMPONENT_BYTES); 15].join("/");
    path += "/";
    path += &"e".repeat(MAX_PATH_BYTES - path.len() - 2);
    let folders: Vec<String> = path.match_indices('/').map(|(at, _)| path[..=at].to_owned()).collect();
    let last = format!("{path}/");
    path += "/x";
    assert_eq!(path.len(), MAX_PATH_BYTES);
    let mut entries: Vec<(&str, &str)> = folders.iter().map(|folder| (folder.as_str(), "")).collect();
    entries.extend([(last.as_str(), ""), (path.as_str(), "far down")]);
    let made = tree(&entries);
    let brought = rig.bring(&made).await;
    assert!(brought.is_ok(), "a path of {} bytes was accepted and cannot be made: {brought:?}", path.len());
}
