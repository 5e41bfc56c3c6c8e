//! An artifact on its way: whole, cut and resumed, out of order, with lies in it.

use pointsman_chassis::artifact::hash_of;
use pointsman_core::manifest::{Entry, Kind, Manifest};
use pointsman_core::{Code, Epoch};
use pointsman_proto::v1;
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream;

use crate::rig::{Rig, Tree, piece, problem, site, tree};

#[tokio::test]
async fn from_the_offer_to_the_link_back() {
    let rig = Rig::new().await;
    let (old, new) = (site("old"), site("new"));
    assert_eq!(rig.offer(&old).await.unwrap(), old.all());
    let receipt = rig.contents(&old, old.pieces(&old.all())).await.unwrap();
    assert_eq!(receipt.received_contents as usize, old.contents.len());
    rig.must_not_be_complete(&old);
    assert!(!rig.sealed(&old).exists(), "nothing is visible before the order");
    assert!(!rig.stage(&old).await.unwrap().already);
    rig.must_be_whole(&old);
    assert!(rig.stage(&old).await.unwrap().already);
    rig.activate(Some(&old)).await.unwrap();
    rig.bring(&new).await.unwrap();
    rig.must_be_whole(&new);
    rig.activate(Some(&new)).await.unwrap();
    assert_eq!(rig.link("current"), Some(format!("artifacts/{}", new.digest)));
    assert_eq!(rig.link("previous"), Some(format!("artifacts/{}", old.digest)));
    rig.activate(Some(&old)).await.unwrap();
    assert_eq!(rig.link("current"), Some(format!("artifacts/{}", old.digest)));
    rig.must_be_whole(&old);
    rig.must_be_whole(&new);
    // Nothing new is one question.
    let need = rig.offer_bytes(&new.bytes, &new.mtimes()).await.unwrap();
    assert!(need.complete && need.missing.is_empty());
    assert_eq!(std::fs::read_dir(rig.at(".pointsman/staging")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_is_in_the_wrong_order_or_length_or_not_asked_for() {
    let made = site("x");
    let whole = |number: u32| made.contents[number as usize].clone();
    let page = made.all().into_iter().find(|number| whole(*number).starts_with(b"<title>")).unwrap();
    let other = made.all().into_iter().find(|number| *number != page && !whole(*number).is_empty()).unwrap();
    let longer = [whole(page), b"!".to_vec()].concat();
    let mut wrong = whole(page);
    wrong[0] ^= 1;
    let cases: Vec<(&str, Vec<v1::ContentPiece>, Code)> = vec![
        ("a number that is not in the manifest", vec![piece(99, 0, b"x")], Code::TransferBroken),
        ("the largest number", vec![piece(u32::MAX, 0, b"x")], Code::TransferBroken),
        ("not from its beginning", vec![piece(page, 3, &whole(page)[3..])], Code::TransferBroken),
        ("from far behind its end", vec![piece(page, u64::MAX, &whole(page))], Code::TransferBroken),
        (
            "a gap",
            vec![piece(page, 0, &whole(page)[..2]), piece(page, 4, &whole(page)[4..])],
            Code::TransferBroken,
        ),
        (
            "a part twice",
            vec![piece(page, 0, &whole(page)[..4]), piece(page, 0, &whole(page)[..4])],
            Code::TransferBroken,
        ),
        (
            "another in between",
            vec![piece(page, 0, &whole(page)[..4]), piece(other, 0, &whole(other))],
            Code::TransferBroken,
        ),
        ("too long", vec![piece(page, 0, &longer)], Code::TransferBroken),
        ("too short", vec![piece(page, 0, &whole(page)[..4])], Code::TransferBroken),
        ("nothing where something should be", vec![piece(page, 0, b"")], Code::TransferBroken),
        ("other bytes", vec![piece(page, 0, &wrong)], Code::ContentMismatch),
        (
            "another content's bytes",
            vec![piece(other, 0, &[b'?'].repeat(whole(other).len()))],
            Code::ContentMismatch,
        ),
        ("over the limit of a piece", vec![piece(page, 0, &vec![0; 300 << 10])], Code::TransferBroken),
    ];
    for (name, pieces, code) in cases {
        let rig = Rig::new().await;
        rig.offer(&made).await.unwrap();
        let refused = rig.contents(&made, pieces).await.unwrap_err();
        assert_eq!(refused.code, code, "{name}: {refused:?}");
        rig.stage(&made).await.unwrap_err();
        rig.must_not_be_complete(&made);
        assert!(!rig.sealed(&made).exists(), "{name}");
        // What is honest afterwards goes through.
        rig.bring(&made).await.unwrap();
        rig.must_be_whole(&made);
    }
}

#[tokio::test]
async fn contents_in_another_order_or_twice_do_no_harm() {
    let rig = Rig::new().await;
    let made = site("x");
    rig.offer(&made).await.unwrap();
    let mut numbers = made.all();
    numbers.reverse();
    numbers.extend(made.all());
    rig.contents(&made, made.pieces(&numbers)).await.unwrap();
    rig.stage(&made).await.unwrap();
    rig.must_be_whole(&made);
}

#[tokio::test]
async fn a_manifest_that_lies_about_a_size() {
    let lie = |size: u64| {
        let file = Kind::File { size, content: hash_of(b"hello"), executable: false };
        Manifest::new(vec![Entry { path: "index.html".to_owned(), kind: file }]).unwrap().encode()
    };
    for (size, sent, code) in [
        (4, "hell", Code::ContentMismatch),
        (4, "hello", Code::TransferBroken),
        (6, "hello", Code::TransferBroken),
        (0, "", Code::ContentMismatch),
    ] {
        let rig = Rig::new().await;
        let bytes = lie(size);
        let honest = tree(&[("index.html", "hello")]);
        let lying = Tree { digest: pointsman_chassis::artifact::digest_of(&bytes), bytes, ..honest };
        rig.offer(&lying).await.unwrap();
        let refused = rig.contents(&lying, vec![piece(0, 0, sent.as_bytes())]).await.unwrap_err();
        assert_eq!(refused.code, code, "{size}");
        rig.stage(&lying).await.unwrap_err();
        rig.must_not_be_complete(&lying);
    }
    // More than any disk holds is refused before a byte is sent.
    for size in [1 << 60, u64::MAX] {
        let rig = Rig::new().await;
        assert_eq!(rig.offer_bytes(&lie(size), &[]).await.unwrap_err().code, Code::NoRoom);
    }
}

#[tokio::test]
async fn times_that_do_not_fit_the_manifest_and_times_that_do_not_fit_the_disk() {
    let rig = Rig::new().await;
    let made = site("x");
    let refused = rig.offer_bytes(&made.bytes, &[1]).await.unwrap_err();
    assert_eq!(refused.code, Code::ManifestInvalid);
    // The year 2106, and the last there is: the disk's own limit is kept, and nothing breaks.
    for (number, seconds) in [4_294_967_296, u64::MAX].into_iter().enumerate() {
        let far = site(&format!("far {number}"));
        rig.offer_bytes(&far.bytes, &vec![seconds; far.contents.len()]).await.unwrap();
        rig.contents(&far, far.pieces(&far.all())).await.unwrap();
        rig.stage(&far).await.unwrap();
    }
}

#[tokio::test]
async fn a_cut_transfer_goes_on_with_what_is_missing() {
    let rig = Rig::new().await;
    let made = tree(&[("a", "first"), ("b", "second"), ("c", "third"), ("d", "fourth")]);
    rig.offer(&made).await.unwrap();
    let mut pieces = made.pieces(&made.all()[..2]);
    pieces.push(piece(2, 0, &made.contents[2][..1]));
    assert_eq!(rig.contents(&made, pieces).await.unwrap_err().code, Code::TransferBroken);
    let missing = rig.offer(&made).await.unwrap();
    assert_eq!(missing, made.all()[2..]);
    rig.contents(&made, made.pieces(&missing)).await.unwrap();
    rig.stage(&made).await.unwrap();
    rig.must_be_whole(&made);
}

#[tokio::test]
async fn what_was_staged_is_hashed_again_and_not_trusted() {
    let rig = Rig::new().await;
    let made = site("x");
    rig.offer(&made).await.unwrap();
    rig.contents(&made, made.pieces(&made.all())).await.unwrap();
    let path = made.first_path(1);
    let staged = rig.staging(&made).join(&path);
    let mut bytes = std::fs::read(&staged).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&staged, &bytes).unwrap();
    assert_eq!(rig.stage(&made).await.unwrap_err().code, Code::ContentMismatch);
    rig.must_not_be_complete(&made);
    assert_eq!(rig.offer(&made).await.unwrap(), [1]);
    rig.bring(&made).await.unwrap();
    rig.must_be_whole(&made);
}

#[tokio::test]
async fn what_was_never_offered_or_is_for_somebody_else() {
    let rig = Rig::new().await;
    let made = site("x");
    assert_eq!(rig.contents(&made, made.pieces(&made.all())).await.unwrap_err().code, Code::ArtifactMissing);
    assert_eq!(rig.stage(&made).await.unwrap_err().code, Code::ArtifactMissing);
    assert_eq!(rig.activate(Some(&made)).await.unwrap_err().code, Code::ArtifactMissing);
    rig.offer(&made).await.unwrap();
    let foreign = v1::ContentPiece { environment: "staging".to_owned(), ..Rig::header(&made) };
    let refused = rig.client.clone().send_contents(tokio_stream::iter([foreign])).await.map_err(problem);
    assert_eq!(refused.unwrap_err().code, Code::WrongAddressee);
    for artifact in ["", "../../etc/passwd", "artifacts", &"A".repeat(64)] {
        let hostile = v1::ContentPiece { artifact: artifact.to_owned(), ..Rig::header(&made) };
        let refused = rig.client.clone().send_contents(tokio_stream::iter([hostile])).await.map_err(problem);
        assert_eq!(refused.unwrap_err().code, Code::MessageInvalid, "{artifact}");
    }
    let mut order =
        rig.order(pointsman_core::Step::Stage, pointsman_core::Action::Stage { artifact: made.digest });
    order.order.key.host = "web2".parse().unwrap();
    assert_eq!(rig.send(&order).await.unwrap_err().code, Code::WrongAddressee);
    order.environment = "staging".parse().unwrap();
    assert_eq!(rig.send(&order).await.unwrap_err().code, Code::WrongAddressee);
}

#[tokio::test]
async fn a_replaced_coordinator_brings_nothing_to_an_end() {
    let rig = Rig::new().await;
    let made = site("x");
    rig.offer(&made).await.unwrap();
    rig.contents(&made, made.pieces(&made.all())).await.unwrap();
    rig.ledger.fence(Epoch(2), b"").unwrap();
    assert_eq!(rig.stage(&made).await.unwrap_err().code, Code::Fenced);
    assert_eq!(rig.offer(&made).await.unwrap_err().code, Code::Fenced);
    assert_eq!(rig.contents(&made, vec![]).await.unwrap_err().code, Code::Fenced);
    assert_eq!(rig.activate(Some(&made)).await.unwrap_err().code, Code::Fenced);
    rig.must_not_be_complete(&made);
    assert!(!rig.sealed(&made).exists());
}

/// The fence falls while the tree is being finished: the last look before the move must see it. Should the machine
/// have finished before the fence was there, the same is tried with another tree.
#[tokio::test(flavor = "multi_thread")]
async fn a_fence_that_falls_while_the_tree_is_finished() {
    for attempt in 0..5u32 {
        let rig = Rig::new().await;
        let text = format!("{attempt}").repeat(100_000);
        let names: Vec<String> = (0..300).map(|number| format!("copy-{number:03}")).collect();
        let paths: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), text.as_str())).collect();
        let made = tree(&paths);
        rig.offer(&made).await.unwrap();
        rig.contents(&made, made.pieces(&[0])).await.unwrap();
        let second = rig.staging(&made).join("copy-001");
        let ledger = rig.ledger.clone();
        let fencing = tokio::task::spawn_blocking(move || {
            while !second.exists() {
                std::thread::yield_now();
            }
            ledger.fence(Epoch(2), b"").unwrap();
            std::time::Instant::now()
        });
        let staged = rig.stage(&made).await;
        let answered = std::time::Instant::now();
        if staged.is_ok() {
            // It may have been sealed before the fence stood; then the mark is there, and the next try decides.
            rig.must_be_whole(&made);
            println!("finished {:?} after the fence", answered.duration_since(fencing.await.unwrap()));
            continue;
        }
        fencing.await.unwrap();
        assert_eq!(staged.unwrap_err().code, Code::Fenced);
        rig.must_not_be_complete(&made);
        assert!(!rig.sealed(&made).exists());
        return;
    }
    panic!("the fence never came in time");
}

/// A stream that stalls keeps its place in the staged tree. When another has brought the artifact meanwhile and it
/// was sealed, that place is a tree that visitors see: what comes on the old stream must not be written any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_stream_never_writes_into_a_sealed_tree() {
    let rig = Rig::new().await;
    let made = site("x");
    rig.offer(&made).await.unwrap();
    let (send, receive) = mpsc::channel(8);
    send.send(Rig::header(&made)).await.unwrap();
    send.send(made.pieces(&[0]).remove(0)).await.unwrap();
    let mut client = rig.client.clone();
    let stalled = tokio::spawn(async move {
        client.send_contents(tokio_stream::wrappers::ReceiverStream::new(receive)).await
    });
    let first = rig.staging(&made).join(made.first_path(0));
    until("the first content is written", || first.is_file()).await;
    // The connection looks lost to the coordinator: it begins anew, and finishes.
    rig.bring(&made).await.unwrap();
    rig.activate(Some(&made)).await.unwrap();
    // A newer coordinator rules by now.
    rig.ledger.fence(Epoch(2), b"").unwrap();
    let page = made
        .all()
        .into_iter()
        .find(|number| made.contents[*number as usize].starts_with(b"<title>"))
        .unwrap();
    send.send(piece(page, 0, &made.contents[page as usize][..3])).await.unwrap();
    drop(send);
    let ended = stalled.await.unwrap().map_err(problem);
    println!("the old stream ended with {ended:?}");
    rig.must_be_whole(&made);
}

pub async fn until(what: &str, look: impl Fn() -> bool) {
    let give_up = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !look() {
        assert!(std::time::Instant::now() < give_up, "waited in vain: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
