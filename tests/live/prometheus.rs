//! A real Prometheus as a second witness: what it knows is judged, and what it does not know is neither good nor bad.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use kit::{ENVIRONMENT, Process, Site};
use pointsman_chassis::http_check::Target;
use pointsman_checks::{Grants, Place, judged, run};
use pointsman_core::{Check, CheckFrom, CheckSpec, CheckVerdict, Code};
use pointsman_proto::v1::{self, AskRequest};

const LONGEST: Duration = Duration::from_secs(60);

/// A Prometheus that knows nothing but constants.
struct Prometheus {
    address: std::net::SocketAddr,
    folder: tempfile::TempDir,
    process: Option<Process>,
}

impl Prometheus {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = kit::reserve(1).unwrap()[0];
        let mut prometheus = Self { address, folder, process: None };
        prometheus.run().await;
        prometheus
    }

    async fn run(&mut self) {
        let path = |name: &str| self.folder.path().join(name);
        std::fs::write(path("prometheus.yml"), "global: {}\n").unwrap();
        let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let mut command = Command::new("prometheus");
        command
            .arg(flag("config.file", &path("prometheus.yml")))
            .arg(flag("storage.tsdb.path", &path("data")))
            .arg(format!("--web.listen-address={}", self.address));
        self.process = Some(Process::start("prometheus", &mut command, &path("log")).unwrap());
        kit::until("Prometheus is ready", LONGEST, || async {
            kit::ask(self.address, "/-/ready").await.ok().filter(|answer| answer.starts_with("HTTP/1.1 200"))
        })
        .await
        .unwrap();
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn granted(&self) -> String {
        format!("prometheus = [{{ url = \"{}\" }}]", self.url())
    }
}

fn check(name: &str, url: &str, query: &str, more: &str) -> Check {
    let query = serde_json::to_string(query).unwrap();
    let spec = format!("{{\"metric\":{{\"url\":\"{url}\",\"query\":{query},\"max\":1.0}}{more}}}");
    Check {
        name: name.parse().unwrap(),
        from: CheckFrom::Balancers,
        before_switch: false,
        after_switch: true,
        spec: CheckSpec::parse(&spec).unwrap(),
        timeout_ms: 5_000,
        patience_ms: 0,
        bound_ms: 5_000,
    }
}

#[tokio::test]
async fn only_one_finite_number_says_anything() {
    let prometheus = Prometheus::start().await;
    let url = prometheus.url();
    let grants: Grants = toml::from_str(&prometheus.granted()).unwrap();
    let server = Target {
        address: prometheus.address,
        host: "www.example.org".to_owned(),
        tls: None,
        proxy_protocol: false,
    };
    let place = Place { server, authorities: None, pin: None, grants: Arc::new(grants), key: String::new() };
    let two = r#"label_replace(vector(1), "code", "500", "", "") or label_replace(vector(1), "code", "502", "", "")"#;
    let cases = [
        ("vector(0.25)", CheckVerdict::Passed, "0.25, at most 1"),
        ("1 + 1", CheckVerdict::Failed, "is 2, more than 1"),
        ("sum(nothing_like_it)", CheckVerdict::NotMade, "no data: nothing matches"),
        ("sum(nothing_like_it) or vector(0)", CheckVerdict::Passed, "0, at most 1"),
        ("sum(vector(0)) / sum(vector(0))", CheckVerdict::NotMade, "no data: the value is NaN"),
        ("sum(vector(1)) / sum(vector(0))", CheckVerdict::NotMade, "no data: the value is +Inf"),
        (two, CheckVerdict::NotMade, "2 series instead of one"),
        ("up[5m]", CheckVerdict::NotMade, "a range of values"),
        ("sum(rate(up))", CheckVerdict::NotMade, "Prometheus refuses the query"),
    ];
    for (query, verdict, said) in cases {
        let checks = [check("metric", &url, query, "")];
        let made = run(&checks, &place, None).await.unwrap();
        assert_eq!(made.seen[0].verdict, verdict, "{query}: {made:?}");
        assert!(made.seen[0].what.starts_with(said), "{query}: {made:?}");
        let code = judged(&checks, vec![(&place, made)]).err().map(|problem| problem.code);
        let expected = match verdict {
            CheckVerdict::Passed => None,
            CheckVerdict::Failed => Some(Code::CheckFailed),
            CheckVerdict::NotMade => Some(Code::CheckBlind),
        };
        assert_eq!(code, expected, "{query}");
    }
    // What only warns objects to nothing, and what only holds never turns a release back.
    for (action, expected) in [("warn", None), ("hold", Some(Code::CheckHolds))] {
        let checks = [check("metric", &url, "vector(2)", &format!(",\"on_fail\":\"{action}\""))];
        let made = run(&checks, &place, None).await.unwrap();
        assert_eq!(judged(&checks, vec![(&place, made)]).err().map(|problem| problem.code), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_whose_witness_is_lost_is_held_and_goes_on_with_it() {
    let mut prometheus = Prometheus::start().await;
    let url = prometheus.url();
    let file = format!(
        r#"
[[checks]]
name = "errors"
phase = ["after-switch"]
every = "0s"
timeout = "1s"
metric = {{ url = "{url}", query = "sum(vector(0.001))", max = 0.01 }}
[[checks]]
name = "queue"
phase = ["after-switch"]
on_fail = "warn"
metric = {{ url = "{url}", query = "vector(7)", max = 5 }}
"#
    );
    let site = Site::builder().blind("2s").granted(&prometheus.granted()).file(&file).start().await.unwrap();
    site.released("v1").await.unwrap();
    let told = site.cli(&["check", ENVIRONMENT, "--name", "errors"]).await.unwrap();
    assert!(told.code == 0 && told.stdout.contains("0.001, at most 0.01"), "{told:?}");
    let told = site.cli(&["check", ENVIRONMENT, "--name", "queue"]).await.unwrap();
    assert!(told.code == 3 && told.stdout.contains("is 7, more than 5"), "{told:?}");

    the_file_says_what_is_in_effect(&site).await;
    prometheus.process.take().unwrap().kill().unwrap();
    let told = site.cli(&["config", "check", ENVIRONMENT]).await.unwrap();
    assert!(told.code == 3 && told.stdout.contains("check `errors` does not know"), "{told:?}");
    let mut client = site.client().unwrap();
    let digest = kit::publish(&mut client, &site.artifact("v2").unwrap()).await.unwrap();
    client.deploy(&digest, "v2").await.unwrap();
    let stands = |what: &'static str, enough: fn(&v1::Release) -> bool| {
        let client = client.clone();
        async move {
            kit::until(what, LONGEST, || {
                let mut client = client.clone();
                async move { client.status().await.ok()?.release.filter(enough) }
            })
            .await
            .unwrap()
        }
    };
    let held = stands("it is held", |release| release.held.is_some()).await.held.unwrap();
    assert_eq!(held.code, Code::CheckBlind.as_str(), "{held:?}");
    assert!(site.visit().await.unwrap().contains("v2"));

    prometheus.run().await;
    let asked = AskRequest { environment: ENVIRONMENT.to_owned(), ..Default::default() };
    client.api.clone().resume(asked).await.unwrap();
    client.confirmed("v2").await.unwrap();
}

/// Whoever writes checks first has no release yet: each query is asked all the same, and only what is wrong with it is a fault.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_are_asked_before_the_first_release() {
    let prometheus = Prometheus::start().await;
    let check = |name: &str, query: &str| {
        let url = prometheus.url();
        format!(
            "\n[[checks]]\nname = \"{name}\"\nphase = [\"after-switch\"]\nmetric = {{ url = \"{url}\", query = '{query}', max = 1 }}\n"
        )
    };
    let file = check("constant", "vector(0.5)") + &check("slot", r#"sum(up{slot="{{slot}}"})"#);
    let site = Site::builder().granted(&prometheus.granted()).file(&file).start().await.unwrap();
    let told = site.cli(&["config", "check", ENVIRONMENT]).await.unwrap();
    let says = |words: &str| told.stdout.matches(words).count();
    let of_slot = |slot: &str| says(&format!("check `slot` can be asked, and knows nothing of `{slot}` yet"));
    assert_eq!(told.code, 0, "{told:?}");
    assert_eq!(
        (says("check `constant` would pass now: 0.5"), of_slot("blue"), of_slot("green")),
        (1, 1, 1),
        "{told:?}"
    );

    let path = site.folder().join(format!("coordinator/environments/{ENVIRONMENT}.toml"));
    let file = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, file.replace(r#"up{slot="{{slot}}"}"#, r#"rate(up{slot="{{slot}}"})"#)).unwrap();
    let told = site.cli(&["config", "check", ENVIRONMENT]).await.unwrap();
    let refused = told.stdout.matches("check `slot` does not know: Prometheus refuses the query").count();
    assert_eq!((told.code, refused), (3, 2), "{told:?}");
}

/// `config check` asks each query once, also of a file that is not in effect yet.
async fn the_file_says_what_is_in_effect(site: &Site) {
    let check = async || site.cli(&["config", "check", ENVIRONMENT]).await.unwrap();
    let says = |told: &kit::Told, words: &[&str]| words.iter().all(|words| told.stdout.contains(words));
    let told = check().await;
    let expected = ["valid, and in effect", "`errors` would pass now: 0.001", "`queue` would fail now: is 7"];
    assert!(told.code == 0 && says(&told, &expected), "{told:?}");

    let path = site.folder().join(format!("coordinator/environments/{ENVIRONMENT}.toml"));
    let file = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, file.replace("sum(vector(0.001))", "sum(nothing_like_it)")).unwrap();
    let told = check().await;
    let expected = ["valid, and not in effect yet", "`errors` does not know: no data"];
    assert!(told.code == 3 && says(&told, &expected), "{told:?}");
    std::fs::write(&path, file.replace("vector(7)", "vector(7) > 5")).unwrap();
    let told = check().await;
    assert!(told.code == 3 && says(&told, &["check `queue`", "compares with `>`"]), "{told:?}");
    std::fs::write(&path, file).unwrap();
}
