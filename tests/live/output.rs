//! What programs rely on: one JSON document with its version, data on standard output only, and exit codes that hold
//! whatever becomes of the output.

use kit::{Site, Told};
use serde_json::Value;

fn document(told: &Told) -> Value {
    let document: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(document["format_version"], "1.0", "{told:?}");
    document
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_has_one_document() {
    let site = Site::builder().watch("300ms").start().await.unwrap();
    let v1 = site.artifact("v1").unwrap().display().to_string();
    let verbs: [(&[&str], &str); 10] = [
        (&["plan", "production", "--artifact", &v1], "plan"),
        (&["deploy", "production", "--artifact", &v1, "--release", "v1", "--yes"], "outcome"),
        (&["status", "production"], "status"),
        (&["history", "production"], "history"),
        (&["traffic", "show", "production"], "traffic"),
        (&["doctor", "production"], "doctor"),
        (&["doctor", "lb", "production"], "doctor"),
        (&["maintenance", "on", "production", "--yes"], "outcome"),
        (&["maintenance", "off", "production"], "outcome"),
        (&["maintenance", "status", "production"], "maintenance"),
    ];
    for (words, kind) in verbs {
        let told = site.cli(&[words, &["-o", "json"]].concat()).await.unwrap();
        assert_eq!(told.code, 0, "{words:?}: {told:?}");
        assert_eq!(document(&told)["kind"], kind, "{words:?}: {told:?}");
    }
    // The one verb whose results are many: each is a document, on a line of its own.
    let watch = ["traffic", "watch", "production", "--for", "1s", "-o", "json"];
    let told = site.cli(&watch).await.unwrap();
    assert!(told.code == 0 && !told.stdout.is_empty(), "{told:?}");
    for line in told.stdout.lines() {
        let tick: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&tick["kind"], &tick["format_version"]),
            (&"traffic-tick".into(), &"1.0".into()),
            "{told:?}"
        );
    }
    let missing = ["deploy", "production", "--artifact", "/nowhere", "--yes", "-o", "json"];
    let told = site.cli(&missing).await.unwrap();
    let document = document(&told);
    assert_eq!(document["code"], "PM0201");
    assert_eq!(document["exit_code"], told.code);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_is_told_from_failure() {
    let site = Site::builder().start().await.unwrap();
    let v1 = site.artifact("v1").unwrap().display().to_string();
    let before = site.world().await.unwrap();
    let wrong: [&[&str]; 6] = [
        &["deploy", "production"],
        &["deploy", "production", "--artifact", &v1],
        &["deploy", "production", "--artifact", &v1, "--release", "../x", "--yes"],
        &["deplyo", "production"],
        &["maintenance", "on", "production"],
        &["explain", "PM9999"],
    ];
    for words in wrong {
        let told = site.cli(words).await.unwrap();
        assert_eq!(told.code, 2, "{words:?}: {told:?}");
    }
    let told = site.cli(&["explain", "PM0104"]).await.unwrap();
    assert!(told.code == 0 && told.stdout.contains("PM0104"), "{told:?}");
    let told = site.cli(&["rollback", "production"]).await.unwrap();
    assert!(told.code != 0 && told.says("PM0706"), "{told:?}");
    assert_eq!(site.world().await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_is_down_is_told_from_a_failure() {
    let mut site = Site::builder().start().await.unwrap();
    site.kill_coordinator().unwrap();
    for words in [["status", "production"], ["rollback", "production"], ["doctor", "production"]] {
        let told = site.cli(&words).await.unwrap();
        assert_eq!(told.code, 7, "{words:?}: {told:?}");
        assert!(told.says("PM0704") && told.says("hint"), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_goes_away_does_not_make_a_failure_a_success() {
    let site = Site::builder().watch("300ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    site.green.fail_deep(true).unwrap();
    let v2 = site.artifact("v2").unwrap().display().to_string();
    for output in ["plain", "json"] {
        let words = ["deploy", "production", "--artifact", &v2, "--release", "v2", "--yes", "-o", output];
        let mut command = site.cli_start(&words).unwrap();
        drop(command.stdout.take());
        let told: Told = command.wait_with_output().await.unwrap().into();
        assert_eq!(told.code, 1, "{output}: {told:?}");
    }
}
