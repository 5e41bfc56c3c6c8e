//! Making an artifact current, what comes after it, what is kept, and the maintenance file.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use pointsman_core::{Action, Activation, Aftermath, Code, Step};

use crate::rig::{Options, Rig, mode, site, walk};
use crate::transfer::until;

#[tokio::test]
async fn again_and_again_and_away() {
    let rig = Rig::new().await;
    let made = site("x");
    rig.bring(&made).await.unwrap();
    let activate = Action::Activate { artifact: Some(made.digest), activation: Activation::default() };
    let order = rig.order(Step::Activate, activate);
    let first = rig.send(&order).await.unwrap();
    assert!(!first.already);
    assert_eq!(rig.send(&order).await.unwrap(), first, "from the receipt");
    assert!(rig.activate(Some(&made)).await.unwrap().already);
    assert_eq!(rig.link("previous"), None);
    assert!(!rig.activate(None).await.unwrap().already);
    assert!(!rig.at("current").is_symlink());
    assert!(rig.activate(None).await.unwrap().already);
    rig.must_be_whole(&made);
}

#[tokio::test]
async fn a_current_that_is_not_ours_is_refused() {
    let made = site("x");
    let nowhere = format!("artifacts/{}", "0".repeat(64));
    type Plant = Box<dyn Fn(&Rig)>;
    let plants: Vec<(&str, Plant)> = vec![
        ("a directory", Box::new(|rig| fs::create_dir(rig.at("current")).unwrap())),
        ("a file", Box::new(|rig| fs::write(rig.at("current"), "x").unwrap())),
        ("a link elsewhere", Box::new(|rig| symlink(rig.outside(), rig.at("current")).unwrap())),
        ("a link up", Box::new(|rig| symlink("..", rig.at("current")).unwrap())),
        (
            "a link that leaves artifacts",
            Box::new(|rig| symlink("artifacts/../../outside", rig.at("current")).unwrap()),
        ),
        ("a link to all artifacts", Box::new(|rig| symlink("artifacts", rig.at("current")).unwrap())),
        ("a link to nothing", Box::new(move |rig| symlink(&nowhere, rig.at("current")).unwrap())),
        (
            "a socket",
            Box::new(|rig| drop(std::os::unix::net::UnixListener::bind(rig.at("current")).unwrap())),
        ),
    ];
    let mut wrong = Vec::new();
    for (name, plant) in plants {
        let rig = Rig::new().await;
        rig.bring(&made).await.unwrap();
        plant(&rig);
        let before = fs::symlink_metadata(rig.at("current")).unwrap();
        for (to, artifact) in [("to an artifact", Some(&made)), ("away", None)] {
            // A link that leads nowhere may be taken away: nobody misses it.
            if name == "a link to nothing" && artifact.is_none() {
                continue;
            }
            let answer = rig.activate(artifact).await;
            let code = answer.as_ref().map_err(|problem| (problem.code, problem.aftermath));
            let kept = fs::symlink_metadata(rig.at("current"))
                .is_ok_and(|now| now.modified().ok() == before.modified().ok());
            if code.err() != Some((Code::SiteRootUnfit, Aftermath::Unchanged)) || !kept {
                wrong.push(format!("{name}, {to}: {answer:?}, still there: {kept}"));
            }
        }
        assert!(walk(&rig.outside()).is_empty(), "{name}");
    }
    assert!(wrong.is_empty(), "not refused with PM0208:\n{}", wrong.join("\n"));
}

/// `current` names the artifact, but it is not there, or not whole: that is not "already done".
#[tokio::test]
async fn what_is_not_here_is_not_current_already() {
    let rig = Rig::new().await;
    let made = site("x");
    symlink(format!("artifacts/{}", made.digest), rig.at("current")).unwrap();
    let absent = rig.activate(Some(&made)).await;
    assert!(absent.is_err(), "visitors get 404, and this was said: {absent:?}");
    fs::create_dir(rig.sealed(&made)).unwrap();
    let empty = rig.activate(Some(&made)).await;
    assert!(empty.is_err(), "visitors get 403, and this was said: {empty:?}");
}

#[tokio::test]
async fn links_at_the_temporary_names_lead_nowhere() {
    let rig = Rig::new().await;
    let made = site("x");
    rig.bring(&made).await.unwrap();
    let activate = Action::Activate { artifact: Some(made.digest), activation: Activation::default() };
    let order = rig.order(Step::Activate, activate);
    symlink(rig.outside(), rig.at(format!(".current.{}", order.order.release))).unwrap();
    rig.send(&order).await.unwrap();
    assert_eq!(rig.link("current"), Some(format!("artifacts/{}", made.digest)));
    assert!(walk(&rig.outside()).is_empty());
}

#[tokio::test]
async fn the_maintenance_file_outlives_everything() {
    let rig = Rig::new().await;
    assert!(!rig.flag(true).await.unwrap().already);
    assert_eq!(mode(&rig.at(".maintenance")), 0o644);
    assert!(rig.flag(true).await.unwrap().already);
    for marker in ["one", "two"] {
        let made = site(marker);
        rig.bring(&made).await.unwrap();
        rig.activate(Some(&made)).await.unwrap();
        assert!(rig.at(".maintenance").is_file());
    }
    rig.activate(None).await.unwrap();
    assert!(rig.at(".maintenance").is_file());
    assert!(!rig.flag(false).await.unwrap().already);
    assert!(!rig.at(".maintenance").exists());
    assert!(rig.flag(false).await.unwrap().already);
}

/// Web servers ask for a file (`-f`): a folder or a link to nothing shows no page.
#[tokio::test]
async fn a_maintenance_file_that_is_none() {
    type Plant = fn(&Rig);
    let plants: [(&str, Plant); 3] = [
        ("a link to nothing outside", |rig| {
            symlink(rig.outside().join("new"), rig.at(".maintenance")).unwrap()
        }),
        ("a link to a file outside", |rig| {
            fs::write(rig.folder.path().join("file"), "precious").unwrap();
            symlink(rig.folder.path().join("file"), rig.at(".maintenance")).unwrap();
        }),
        ("a folder", |rig| fs::create_dir(rig.at(".maintenance")).unwrap()),
    ];
    let mut wrong = Vec::new();
    for (name, plant) in plants {
        let rig = Rig::new().await;
        plant(&rig);
        let on = rig.flag(true).await;
        if on.is_ok() && !rig.at(".maintenance").is_file() {
            wrong.push(format!("{name}: no visitor sees the page, and this was said: {on:?}"));
        }
        assert!(walk(&rig.outside()).is_empty(), "{name}: written through");
        let off = rig.flag(false).await;
        assert!(off.is_err() || fs::symlink_metadata(rig.at(".maintenance")).is_err(), "{name}: {off:?}");
        let file = rig.folder.path().join("file");
        assert!(!file.exists() || fs::read(file).unwrap() == b"precious", "{name}: written through");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const HOOKS: &str = r#"
units = ["nginx.service"]
[hooks]
fine = { argv = ["/bin/sh", "-c", "echo done"], timeout = "10s" }
failing = { argv = ["/bin/sh", "-c", "echo to-stdout; echo to-stderr >&2; exit 3"], timeout = "10s" }
talkative = { argv = ["/bin/sh", "-c", "i=0; while [ $i -lt 400 ]; do echo line-$i-of-many; i=$((i+1)); done; echo the-reason >&2; exit 1"], timeout = "10s" }
relative = { argv = ["sh", "-c", "true"], timeout = "10s" }
missing = { argv = ["/no/such/program"], timeout = "10s" }
hanging = { argv = ["/bin/sh", "-c", "sleep 4242 & sleep 4242 & echo $! > PIDS; wait"], timeout = "300ms" }
bare = { argv = ["/bin/sh", "-c", "env > ENV; pwd >> ENV; cat >> ENV"], timeout = "10s" }
"#;

async fn with_hooks() -> (Rig, tempfile::TempDir) {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let extra = HOOKS.replace("PIDS", &path("pids")).replace("ENV", &path("env"));
    // Hooks and units stand before the tables that follow.
    let (units, hooks) = extra.split_once("[hooks]").unwrap();
    let hooks: String =
        hooks.lines().filter(|line| !line.is_empty()).map(|line| format!("hooks.{line}\n")).collect();
    let rig = Rig::with(Options { extra: format!("{units}{hooks}"), ..Options::default() }).await;
    (rig, scratch)
}

#[tokio::test]
async fn what_is_not_granted_is_found_out_before_anything_moves() {
    let (rig, _scratch) = with_hooks().await;
    let made = site("x");
    rig.bring(&made).await.unwrap();
    let cases: [(&[&str], &[&str]); 5] = [
        (&["sshd.service"], &[]),
        (&["nginx"], &[]),
        (&[], &["unknown"]),
        (&[], &["fine", "unknown"]),
        (&[], &["relative"]),
    ];
    for (units, hooks) in cases {
        let refused = rig.activate_with(Some(&made), units, hooks).await.unwrap_err();
        assert_eq!(
            (refused.code, refused.aftermath),
            (Code::NotGranted, Aftermath::Unchanged),
            "{units:?} {hooks:?}"
        );
        assert_eq!(rig.link("current"), None);
    }
}

/// A release to a host that could not restart or run what it must is over before it begins.
#[tokio::test]
async fn what_a_host_cannot_do_is_found_out_in_the_preflight() {
    let (rig, _scratch) = with_hooks().await;
    let made = site("x");
    let cases: [(&[&str], &[&str], Option<Code>); 6] = [
        (&[], &["fine"], None),
        (&[], &["fine", "missing"], Some(Code::ActivationUnfit)),
        (&[], &["relative"], Some(Code::NotGranted)),
        (&[], &["unknown"], Some(Code::NotGranted)),
        (&["sshd.service"], &[], Some(Code::NotGranted)),
        (&["sshd.service"], &["missing"], Some(Code::NotGranted)),
    ];
    for (units, hooks, expected) in cases {
        let activation = Activation {
            restart: units.iter().map(|unit| unit.parse().unwrap()).collect(),
            hooks: hooks.iter().map(|hook| hook.parse().unwrap()).collect(),
        };
        let inspect = Action::InspectHost { artifact: made.digest, activation };
        let seen = rig.perform(Step::Preflight, inspect).await;
        assert_eq!(
            seen.as_ref().err().map(|problem| problem.code),
            expected,
            "{units:?} {hooks:?}: {seen:?}"
        );
        if let Err(problem) = seen {
            assert_eq!(problem.aftermath, Aftermath::Unchanged);
            assert!(!problem.hint.is_empty(), "{problem:?}");
        }
        let findings = rig.diagnose(units, hooks).await;
        assert_eq!(findings.len(), units.len() + hooks.len(), "{findings:?}");
        let failed = findings.iter().any(|finding| finding.verdict == "fail");
        assert_eq!(failed, expected.is_some(), "{findings:?}");
    }
}

#[tokio::test]
async fn hooks_that_end_well_and_badly() {
    let (rig, scratch) = with_hooks().await;
    let made = site("x");
    rig.bring(&made).await.unwrap();
    rig.activate_with(Some(&made), &[], &["fine", "bare"]).await.unwrap();
    let seen = fs::read_to_string(scratch.path().join("env")).unwrap();
    for line in seen.lines().filter(|line| line.contains('=')) {
        let name = line.split('=').next().unwrap();
        assert!(["PATH", "LC_ALL", "PWD", "SHLVL", "_", "OLDPWD"].contains(&name), "inherited {line}");
    }
    assert_eq!(seen.lines().last(), Some("/"), "nothing comes in, and the working directory is the root");
    for hook in ["failing", "missing"] {
        let problem = rig.activate_with(Some(&made), &[], &[hook]).await.unwrap_err();
        assert_eq!((problem.code, problem.aftermath), (Code::HookFailed, Aftermath::Changed), "{problem:?}");
        assert!(problem.message.contains(hook));
    }
    let problem = rig.activate_with(Some(&made), &[], &["failing"]).await.unwrap_err();
    let cause = problem.causes.join(" ");
    assert!(cause.contains("to-stdout") && cause.contains("to-stderr") && cause.contains('3'), "{cause}");
    assert_eq!(rig.link("current"), Some(format!("artifacts/{}", made.digest)));
}

/// What went wrong stands at the end of what a program says.
#[tokio::test]
async fn the_end_of_a_long_output_is_shown() {
    let (rig, _scratch) = with_hooks().await;
    let made = site("x");
    rig.bring(&made).await.unwrap();
    let problem = rig.activate_with(Some(&made), &[], &["talkative"]).await.unwrap_err();
    let cause = problem.causes.join(" ");
    assert!(cause.contains("the-reason"), "the reason is cut off: {cause}");
}

#[tokio::test]
async fn a_hook_that_hangs_is_killed_with_its_children() {
    let (rig, scratch) = with_hooks().await;
    let made = site("x");
    rig.bring(&made).await.unwrap();
    let problem = rig.activate_with(Some(&made), &[], &["hanging"]).await.unwrap_err();
    assert_eq!((problem.code, problem.aftermath), (Code::HookFailed, Aftermath::Changed));
    assert!(problem.causes.join(" ").contains("killed"), "{problem:?}");
    let child = fs::read_to_string(scratch.path().join("pids")).unwrap().trim().to_owned();
    until("the grandchild is gone", || {
        // A zombie that nobody has reaped yet is gone too.
        fs::read_to_string(format!("/proc/{child}/stat")).map_or(true, |stat| stat.contains(") Z "))
    })
    .await;
}

#[tokio::test]
async fn old_artifacts_go_but_never_what_is_current_or_was() {
    let rig = Rig::with(Options { keep: 2, ..Options::default() }).await;
    let made: Vec<_> = (0..7).map(|number| site(&format!("v{number}"))).collect();
    let begin = SystemTime::now() - Duration::from_secs(1000);
    for (number, tree) in (0u64..).zip(&made) {
        rig.bring(tree).await.unwrap();
        let mark = fs::File::options().write(true).open(rig.mark(tree)).unwrap();
        mark.set_modified(begin + Duration::from_secs(number)).unwrap();
    }
    // The two oldest of all are the ones in use.
    rig.activate(Some(&made[0])).await.unwrap();
    until("old ones are gone", || fs::read_dir(rig.at("artifacts")).unwrap().count() == 3).await;
    let here = |number: usize| rig.sealed(&made[number]).is_dir();
    assert_eq!((0..7).filter(|number| here(*number)).collect::<Vec<_>>(), [0, 5, 6]);
    rig.activate(Some(&made[5])).await.unwrap();
    assert_eq!(rig.link("previous"), Some(format!("artifacts/{}", made[0].digest)));
    for marker in ["a", "b", "c"] {
        rig.bring(&site(marker)).await.unwrap();
    }
    rig.activate(Some(&made[6])).await.unwrap();
    rig.activate(Some(&made[5])).await.unwrap();
    until("old ones are gone again", || fs::read_dir(rig.at("artifacts")).unwrap().count() == 4).await;
    rig.must_be_whole(&made[5]);
    rig.must_be_whole(&made[6]);
    assert!(!here(0), "it is neither current nor previous nor young");
    // What went is gone whole, and can be brought again.
    assert!(
        !rig.mark(&made[1]).exists() && !rig.at(format!(".pointsman/manifests/{}", made[1].digest)).exists()
    );
    rig.bring(&made[1]).await.unwrap();
    rig.must_be_whole(&made[1]);
}

/// The host was replaced, or its disk put back, and its server answers all the same.
#[tokio::test]
async fn a_host_that_lost_what_was_brought_passes_no_checks() {
    let rig = Rig::new().await;
    let (made, other) = (site("x"), site("y"));
    let probe = |artifact| Action::ProbeHost { checks: Vec::new(), artifact };
    let probed = async |artifact| {
        let answer = rig.perform(Step::Check, probe(artifact)).await;
        answer.map(drop).map_err(|problem| problem.code)
    };
    assert_eq!(probed(Some(made.digest)).await, Err(Code::NotHeld), "nothing is there");
    rig.bring(&made).await.unwrap();
    assert_eq!(probed(Some(made.digest)).await, Err(Code::NotHeld), "it is not current");
    rig.activate(Some(&made)).await.unwrap();
    assert_eq!(probed(Some(made.digest)).await, Ok(()));
    assert_eq!(probed(Some(other.digest)).await, Err(Code::NotHeld), "another one is current");
    assert_eq!(probed(None).await, Ok(()), "nobody says what must be there");
    fs::remove_file(rig.mark(&made)).unwrap();
    assert_eq!(probed(Some(made.digest)).await, Err(Code::NotHeld), "it is not whole");
}

#[tokio::test]
async fn a_new_host_has_nothing_to_lead_back_to() {
    let rig = Rig::new().await;
    let made = site("x");
    let back = Action::Activate { artifact: Some(made.digest), activation: Activation::default() };
    // Forward that is an artifact which is missing; back there is nothing to undo.
    let forward = rig.perform(Step::Activate, back.clone()).await.unwrap_err();
    assert_eq!(forward.code, Code::ArtifactMissing);
    let evidence = rig.perform(Step::LinkBack, back.clone()).await.unwrap();
    assert!(evidence.already && evidence.detail.contains("the host is new"), "{evidence:?}");
    assert!(!rig.at("current").is_symlink());
    // Where something stands it is led back, or refused.
    let other = site("y");
    rig.bring(&other).await.unwrap();
    rig.activate(Some(&other)).await.unwrap();
    let refused = rig.perform(Step::LinkBack, back).await.unwrap_err();
    assert_eq!(refused.code, Code::ArtifactMissing);
}
