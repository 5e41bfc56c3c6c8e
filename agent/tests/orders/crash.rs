//! What a killed agent leaves behind, made by hand: the next try ends at the same whole tree.

use std::fs;

use pointsman_core::Step;

use crate::rig::{Rig, site};

#[tokio::test]
async fn killed_between_move_and_mark() {
    let rig = Rig::new().await;
    let made = site("x");
    rig.bring(&made).await.unwrap();
    fs::remove_file(rig.mark(&made)).unwrap();
    // The same order again, as a coordinator that got no answer sends it.
    assert!(!rig.stage(&made).await.unwrap().already);
    rig.must_be_whole(&made);
    // Or all of it again: nothing is sent twice, and nothing is left over.
    fs::remove_file(rig.mark(&made)).unwrap();
    let missing = rig.offer(&made).await.unwrap();
    if !missing.is_empty() {
        rig.contents(&made, made.pieces(&missing)).await.unwrap();
    }
    rig.stage(&made).await.unwrap();
    rig.must_be_whole(&made);
    let left: Vec<_> = fs::read_dir(rig.at(".pointsman/staging")).unwrap().collect();
    assert!(left.is_empty(), "a second copy stays behind for good: {left:?}");
    assert!(missing.is_empty(), "all of a tree that is there was asked for again: {missing:?}");
}

/// The mark goes first, then the tree, file by file. Killed in between, half a tree stays at its final place.
#[tokio::test]
async fn killed_while_an_old_artifact_was_dropped() {
    let rig = Rig::new().await;
    let made = site("x");
    rig.bring(&made).await.unwrap();
    fs::remove_file(rig.mark(&made)).unwrap();
    fs::remove_file(rig.sealed(&made).join("index.html")).unwrap();
    fs::remove_dir_all(rig.sealed(&made).join("assets/deep")).unwrap();
    // The artifact is released again: for a rollback, say.
    let brought = rig.bring(&made).await;
    if brought.is_err() {
        // Not even after an abort, which drops what is staged.
        rig.discard(&made).await.unwrap();
        let again = rig.bring(&made).await;
        panic!("this artifact can never be staged on this host again: {brought:?}, then {again:?}");
    }
    rig.must_be_whole(&made);
}

#[tokio::test]
async fn killed_between_the_last_byte_and_the_time() {
    let rig = Rig::new().await;
    let made = site("x");
    rig.offer(&made).await.unwrap();
    rig.contents(&made, made.pieces(&made.all())).await.unwrap();
    // As `write` leaves it: the time is now's.
    let path = rig.staging(&made).join(made.first_path(0));
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(std::time::SystemTime::now()).unwrap();
    rig.bring(&made).await.unwrap();
    rig.must_be_whole(&made);
}

#[tokio::test]
async fn killed_at_any_file_of_a_transfer() {
    let made = site("x");
    for done in 0..made.contents.len() {
        let rig = Rig::new().await;
        rig.offer(&made).await.unwrap();
        rig.contents(&made, made.pieces(&made.all()[..done])).await.unwrap();
        let torn = rig.staging(&made).join(made.first_path(done as u32));
        fs::create_dir_all(torn.parent().unwrap()).unwrap();
        fs::write(&torn, "ha").unwrap();
        let missing = rig.offer(&made).await.unwrap();
        assert_eq!(missing, made.all()[done..], "only what is missing is sent again");
        rig.contents(&made, made.pieces(&missing)).await.unwrap();
        rig.stage(&made).await.unwrap();
        rig.must_be_whole(&made);
    }
}

#[tokio::test]
async fn killed_between_the_temporary_link_and_the_rename() {
    let rig = Rig::new().await;
    let (old, new) = (site("old"), site("new"));
    for tree in [&old, &new] {
        rig.bring(tree).await.unwrap();
    }
    rig.activate(Some(&old)).await.unwrap();
    let order = rig.order(
        Step::Activate,
        pointsman_core::Action::Activate {
            artifact: Some(new.digest),
            activation: pointsman_core::Activation::default(),
        },
    );
    for name in ["current", "previous"] {
        let left = rig.at(format!(".{name}.{}", order.order.release));
        std::os::unix::fs::symlink("artifacts/half", left).unwrap();
    }
    rig.send(&order).await.unwrap();
    assert_eq!(rig.link("current"), Some(format!("artifacts/{}", new.digest)));
    assert_eq!(rig.link("previous"), Some(format!("artifacts/{}", old.digest)));
    assert!(rig.link(&format!(".current.{}", order.order.release)).is_none());
}

#[tokio::test]
async fn a_damaged_record_is_not_used() {
    let rig = Rig::new().await;
    let made = site("x");
    rig.offer(&made).await.unwrap();
    rig.contents(&made, made.pieces(&made.all())).await.unwrap();
    let record = rig.at(format!(".pointsman/manifests/{}", made.digest));
    let whole = fs::read(&record).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for damaged in [&whole[..0], &whole[..7], &whole[..whole.len() - 1], &flipped, &[0xff; 40]] {
        fs::write(&record, damaged).unwrap();
        rig.stage(&made).await.unwrap_err();
        rig.must_not_be_complete(&made);
    }
    rig.bring(&made).await.unwrap();
    rig.must_be_whole(&made);
}
