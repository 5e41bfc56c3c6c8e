//! What `traffic watch` tells of visitors is what the visitors met.

use std::time::Instant;

use kit::{Load, LoadPlan, Site};
use serde_json::Value;

fn sum(ticks: &[Value], slot: &str, key: &str) -> u64 {
    let slots = ticks.iter().flat_map(|tick| tick["slots"].as_array().unwrap());
    slots.filter(|found| found["slot"] == slot).map(|found| found[key].as_u64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_watch_tells_the_load() {
    let site = Site::builder().watch("300ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    load.more(700).await.unwrap();
    let (before, began) = (load.so_far(), Instant::now());
    let told = site.cli(&["traffic", "watch", "production", "--for", "3s", "-o", "json"]).await.unwrap();
    let made = (load.so_far() - before) as f64 / began.elapsed().as_secs_f64();
    let report = load.stop().unwrap();

    assert_eq!(told.code, 0, "{told:?}");
    let ticks: Vec<Value> = told.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(ticks.len() >= 3, "{told:?}");
    for tick in &ticks {
        assert_eq!(tick["kind"], "traffic-tick");
        assert!(tick["coverage"].as_f64().unwrap() >= 0.99, "{tick}");
        assert_eq!(
            (&tick["latency_usable"], &tick["missing"]),
            (&true.into(), &Value::Array(Vec::new())),
            "{tick}"
        );
        let blue = &tick["slots"][0];
        assert_eq!(
            (&blue["slot"], &blue["releases"]),
            (&"blue".into(), &vec![Value::from("v1")].into()),
            "{tick}"
        );
        assert!(blue["p99_ms"].is_number(), "{tick}");
    }
    let span_ms: u64 = ticks.iter().map(|tick| tick["span_ms"].as_u64().unwrap()).sum();
    let shown = sum(&ticks, "blue", "requests") as f64 * 1000.0 / span_ms as f64;
    assert!((shown - made).abs() < 0.25 * made, "{shown} shown, {made} made");
    assert_eq!((sum(&ticks, "blue", "errors"), sum(&ticks, "green", "requests")), (0, 0));
    assert_eq!(report.failures(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_balancer_that_goes_away_is_named_and_latencies_are_not_made_up() {
    let mut site = Site::builder().watch("300ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    site.kill_lb_agent().unwrap();
    let told = site
        .cli_as("screen", &["traffic", "watch", "production", "--for", "1s", "-o", "json"])
        .await
        .unwrap();
    assert_eq!(told.code, 0, "{told:?}");
    let tick: Value = serde_json::from_str(told.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(tick["missing"][0]["host"], "lb1", "{tick}");
    assert_eq!(
        (&tick["latency_usable"], &tick["slots"][0]["p99_ms"]),
        (&false.into(), &Value::Null),
        "{tick}"
    );
}
