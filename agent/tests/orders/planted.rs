//! What somebody has planted on the host: links that lead out, pipes, other people's files, folders where files should
//! be. Nothing outside the site root is written, and nothing planted becomes part of an artifact.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use pointsman_core::Code;

use crate::rig::{Rig, Tree, mode, site, walk};

/// A file outside, which must never change.
fn victim(rig: &Rig) -> std::path::PathBuf {
    let path = rig.outside().join("victim");
    fs::write(&path, "precious").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    path
}

fn must_be_unharmed(rig: &Rig, name: &str) {
    let victim = rig.outside().join("victim");
    assert_eq!(
        fs::read_to_string(&victim).unwrap_or_default(),
        "precious",
        "{name}: the file outside was written"
    );
    assert_eq!(mode(&victim), 0o640, "{name}: the file outside has another mode");
    let found = walk(&rig.outside());
    assert!(found.iter().eq([&victim]), "{name}: files outside: {found:?}");
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// A link takes the place of whatever stands there.
fn link_over(place: &Path, target: impl AsRef<Path>) {
    let _ = fs::remove_dir_all(place);
    let _ = fs::remove_file(place);
    symlink(target, place).unwrap();
}

/// What is planted is told by its kind here and not by its mode.
fn as_the_agent_makes_folders(tree: &Path) {
    if tree.is_symlink() || !tree.is_dir() {
        return;
    }
    let folders = walk(tree).into_iter().filter(|path| !path.is_symlink() && path.is_dir());
    for folder in folders.chain([tree.to_owned()]) {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn parent(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
}

type Plant = fn(&Rig, &Tree);

/// Planted before the offer, before the contents and before the order: it ends whole, or it is refused.
#[tokio::test]
async fn links_pipes_and_folders_in_the_way() {
    let cases: Vec<(&str, Plant)> = vec![
        ("staging is a link out", |rig, _| {
            link_over(&rig.at(".pointsman/staging"), rig.outside());
        }),
        ("the staged tree is a link out", |rig, tree| symlink(rig.outside(), rig.staging(tree)).unwrap()),
        ("the staged tree is a link up", |rig, tree| symlink("../../..", rig.staging(tree)).unwrap()),
        ("the staged tree is a file", |rig, tree| fs::write(rig.staging(tree), "x").unwrap()),
        ("a folder is a link out", |rig, tree| {
            fs::create_dir(rig.staging(tree)).unwrap();
            symlink(rig.outside(), rig.staging(tree).join("assets")).unwrap();
        }),
        ("a folder in a folder is a link out", |rig, tree| {
            parent(&rig.staging(tree).join("assets/x"));
            symlink(rig.outside(), rig.staging(tree).join("assets/deep")).unwrap();
        }),
        ("a folder is a file", |rig, tree| {
            fs::create_dir(rig.staging(tree)).unwrap();
            fs::write(rig.staging(tree).join("assets"), "x").unwrap();
        }),
        ("a folder is a pipe", |rig, tree| {
            fs::create_dir(rig.staging(tree)).unwrap();
            fifo(&rig.staging(tree).join("assets"));
        }),
        ("a file is a link to the victim", |rig, tree| {
            fs::create_dir(rig.staging(tree)).unwrap();
            symlink(rig.outside().join("victim"), rig.staging(tree).join("index.html")).unwrap();
        }),
        ("a file is a link to nothing outside", |rig, tree| {
            fs::create_dir(rig.staging(tree)).unwrap();
            symlink(rig.outside().join("new"), rig.staging(tree).join("index.html")).unwrap();
        }),
        ("a copy is a link to the victim", |rig, tree| {
            parent(&rig.staging(tree).join("assets/x"));
            symlink(rig.outside().join("victim"), rig.staging(tree).join("assets/copy.js")).unwrap();
        }),
        ("a file is a hard link to the victim", |rig, tree| {
            fs::create_dir(rig.staging(tree)).unwrap();
            fs::hard_link(rig.outside().join("victim"), rig.staging(tree).join("index.html")).unwrap();
        }),
        ("a copy is a hard link to the victim", |rig, tree| {
            parent(&rig.staging(tree).join("assets/x"));
            fs::hard_link(rig.outside().join("victim"), rig.staging(tree).join("assets/copy.js")).unwrap();
        }),
        ("a file is a pipe", |rig, tree| {
            fs::create_dir(rig.staging(tree)).unwrap();
            fifo(&rig.staging(tree).join("index.html"));
        }),
        ("a copy is a pipe", |rig, tree| {
            parent(&rig.staging(tree).join("assets/x"));
            fifo(&rig.staging(tree).join("assets/copy.js"));
        }),
        ("a link is a pipe", |rig, tree| {
            fs::create_dir(rig.staging(tree)).unwrap();
            fifo(&rig.staging(tree).join("latest.js"));
        }),
        ("a link leads out", |rig, tree| {
            fs::create_dir(rig.staging(tree)).unwrap();
            symlink(rig.outside().join("victim"), rig.staging(tree).join("latest.js")).unwrap();
        }),
        ("a file is a folder", |rig, tree| parent(&rig.staging(tree).join("index.html/x"))),
        ("a link is a folder", |rig, tree| parent(&rig.staging(tree).join("latest.js/x"))),
        ("a surplus file", |rig, tree| {
            fs::create_dir(rig.staging(tree)).unwrap();
            fs::write(rig.staging(tree).join("shell.php"), "x").unwrap();
        }),
        ("a surplus file, deep", |rig, tree| {
            parent(&rig.staging(tree).join("assets/deep/x"));
            fs::write(rig.staging(tree).join("assets/deep/.htaccess"), "x").unwrap();
        }),
        ("a surplus file in a folder that should be empty", |rig, tree| {
            parent(&rig.staging(tree).join("void/x"));
            fs::write(rig.staging(tree).join("void/x"), "x").unwrap();
        }),
        ("a surplus link out", |rig, tree| {
            fs::create_dir(rig.staging(tree)).unwrap();
            symlink(rig.outside(), rig.staging(tree).join("out")).unwrap();
        }),
        ("a surplus name that is not UTF-8", |rig, tree| {
            fs::create_dir(rig.staging(tree)).unwrap();
            fs::write(rig.staging(tree).join(OsStr::from_bytes(b"\xff")), "x").unwrap();
        }),
        ("the sealed place is a link out", |rig, tree| symlink(rig.outside(), rig.sealed(tree)).unwrap()),
        ("the sealed place is a file", |rig, tree| fs::write(rig.sealed(tree), "x").unwrap()),
        ("artifacts is a link out", |rig, _| {
            link_over(&rig.at("artifacts"), rig.outside());
        }),
        ("the manifest's temporary name is a link to the victim", |rig, tree| {
            let name = format!(".pointsman/manifests/{}.tmp", tree.digest);
            link_over(&rig.at(name), rig.outside().join("victim"));
        }),
        ("the manifest's name is a link to the victim", |rig, tree| {
            let name = format!(".pointsman/manifests/{}", tree.digest);
            link_over(&rig.at(name), rig.outside().join("victim"));
        }),
        ("the mark's temporary name is a link to the victim", |rig, tree| {
            let name = format!(".pointsman/complete/{}.tmp", tree.digest);
            link_over(&rig.at(name), rig.outside().join("victim"));
        }),
        ("the folder of manifests is a link out", |rig, _| {
            link_over(&rig.at(".pointsman/manifests"), rig.outside());
        }),
        ("the folder of marks is a link out", |rig, _| {
            link_over(&rig.at(".pointsman/complete"), rig.outside());
        }),
    ];
    let mut wrong = Vec::new();
    for (name, plant) in cases {
        for moment in ["before the offer", "before the contents", "before the order"] {
            let rig = Rig::new().await;
            let made = site("x");
            victim(&rig);
            let story = async {
                let plant_now = |now: &str| {
                    if now == moment {
                        // What the agent has staged by then makes room for what is planted.
                        let _ = fs::remove_dir_all(rig.staging(&made));
                        plant(&rig, &made);
                        as_the_agent_makes_folders(&rig.staging(&made));
                    }
                };
                plant_now("before the offer");
                let missing = rig.offer(&made).await?;
                plant_now("before the contents");
                rig.contents(&made, made.pieces(&missing)).await?;
                plant_now("before the order");
                rig.stage(&made).await
            };
            let ended = tokio::time::timeout(std::time::Duration::from_secs(20), story).await;
            let ended = ended.unwrap_or_else(|_| panic!("{name}, {moment}: it hangs"));
            let check = std::panic::AssertUnwindSafe(|| {
                must_be_unharmed(&rig, name);
                match &ended {
                    Ok(_) => rig.must_be_whole(&made),
                    Err(_) => rig.must_not_be_complete(&made),
                }
            });
            if let Err(panic) = std::panic::catch_unwind(check) {
                let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                wrong.push(format!("{name}, planted {moment}: {text}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_staged_tree_that_was_altered_is_not_sealed() {
    type Change = fn(&Path);
    let changes: Vec<(&str, Change)> = vec![
        ("setuid", |tree| {
            fs::set_permissions(tree.join("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap()
        }),
        ("writable for all", |tree| {
            fs::set_permissions(tree.join("index.html"), fs::Permissions::from_mode(0o666)).unwrap()
        }),
        ("a byte", |tree| fs::write(tree.join("index.html"), "<title>y</title>").unwrap()),
        ("one byte more", |tree| fs::write(tree.join("index.html"), "<title>x</title>!").unwrap()),
        ("replaced by a link to the same bytes", |tree| {
            fs::copy(tree.join("index.html"), tree.join("../same")).unwrap();
            fs::remove_file(tree.join("index.html")).unwrap();
            symlink("../same", tree.join("index.html")).unwrap();
        }),
        ("replaced by a pipe", |tree| {
            fs::remove_file(tree.join("index.html")).unwrap();
            fifo(&tree.join("index.html"));
        }),
        ("gone", |tree| fs::remove_file(tree.join("index.html")).unwrap()),
    ];
    for (name, change) in changes {
        let rig = Rig::new().await;
        let made = site("x");
        rig.offer(&made).await.unwrap();
        rig.contents(&made, made.pieces(&made.all())).await.unwrap();
        change(&rig.staging(&made));
        let refused = rig.stage(&made).await.unwrap_err();
        assert!([Code::ContentMismatch, Code::TransferBroken].contains(&refused.code), "{name}: {refused:?}");
        rig.must_not_be_complete(&made);
        assert!(!rig.sealed(&made).exists(), "{name}");
        // The way out that the hint names.
        rig.discard(&made).await.unwrap();
        rig.bring(&made).await.unwrap();
        rig.must_be_whole(&made);
    }
}

#[tokio::test]
async fn folders_with_other_modes_are_set_right() {
    for wrong in [0o700, 0o777, 0o2755, 0o1777] {
        let rig = Rig::new().await;
        let made = site("x");
        fs::create_dir_all(rig.staging(&made).join("assets")).unwrap();
        // As a crash leaves them between `mkdir` under umask 077 and `chmod`, or as somebody made them.
        fs::set_permissions(rig.staging(&made), fs::Permissions::from_mode(wrong)).unwrap();
        fs::set_permissions(rig.staging(&made).join("assets"), fs::Permissions::from_mode(wrong)).unwrap();
        rig.bring(&made).await.unwrap();
        rig.must_be_whole(&made);
    }
}

#[tokio::test]
async fn discard_drops_whatever_is_there_and_nothing_else() {
    let plants: Vec<(&str, Plant)> = vec![
        ("a link out", |rig, tree| symlink(rig.outside(), rig.staging(tree)).unwrap()),
        ("a link out, inside", |rig, tree| {
            fs::create_dir(rig.staging(tree)).unwrap();
            symlink(rig.outside(), rig.staging(tree).join("assets")).unwrap();
        }),
        ("a pipe", |rig, tree| fifo(&rig.staging(tree))),
        ("folders in folders", |rig, tree| parent(&rig.staging(tree).join("a/b/c/d/e/f/x"))),
        ("a name that is not UTF-8", |rig, tree| {
            fs::create_dir(rig.staging(tree)).unwrap();
            fs::write(rig.staging(tree).join(OsStr::from_bytes(b"\xff")), "x").unwrap();
        }),
    ];
    for (name, plant) in plants {
        let rig = Rig::new().await;
        let made = site("x");
        victim(&rig);
        plant(&rig, &made);
        let dropped = rig.discard(&made).await;
        assert!(dropped.is_ok(), "{name}: {dropped:?}");
        assert!(!rig.staging(&made).exists() && !rig.staging(&made).is_symlink(), "{name}");
        must_be_unharmed(&rig, name);
        assert!(rig.discard(&made).await.unwrap().already);
    }
}
