//! The certificates that `pointsman init` makes carry a whole release.

use kit::{Site, tree};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_init_makes_works() {
    let site = Site::builder().watch("300ms").certificates_by_init().start().await.unwrap();
    let v1 = site.artifact("v1").unwrap();
    let folder = v1.display().to_string();
    let words = ["deploy", "production", "--artifact", &folder, "--release", "v1", "--yes"];
    let told = site.cli_as("pipeline", &words).await.unwrap();
    assert_eq!(told.code, 0, "{told:?}");
    assert!(tree::compare(&v1, &site.blue.live()).unwrap() > 20);
    for words in [["status", "production"], ["doctor", "production"], ["history", "production"]] {
        let told = site.cli_as("screen", &words).await.unwrap();
        assert_eq!(told.code, 0, "{words:?}: {told:?}");
    }
}
