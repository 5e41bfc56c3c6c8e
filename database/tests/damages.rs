//! Every way in which a backup is lost is noticed.
#![allow(clippy::allow_attributes, clippy::unwrap_used, clippy::panic, reason = "all of it is test")]

mod kit;

use kit::{Place, damage};

/// Each case on a database of its own.
async fn check(name: &str) {
    let mut place = Place::new();
    match damage::try_out(&mut place, name).await {
        Some(Ok(how)) => eprintln!("{name}: {how}"),
        Some(Err(why)) => panic!("`{name}` was not noticed: {why}"),
        None => eprintln!("SKIPPED `{name}`: it needs root to mount a small file system"),
    }
}

macro_rules! cases {
    ($($test:ident = $index:literal;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                check(damage::ALL[$index]).await;
            }
        )*
    };
}

cases! {
    cut = 0;
    flipped_byte = 1;
    empty = 2;
    wrong_database = 3;
    missing_role = 4;
    missing_extension = 5;
    unrestorable_trigger = 6;
    large_object_missing = 7;
    disk_full = 8;
    dump_killed = 9;
    same_day_twice = 10;
    retention = 11;
}
