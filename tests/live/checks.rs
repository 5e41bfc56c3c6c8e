//! Checks made now, and the checklist of a release: through a real HAProxy, on a real nginx, with evidence that outlives the
//! coordinator.

use std::path::Path;
use std::time::Duration;

use kit::{Books, Load, LoadPlan, Site};
use serde_json::Value;

/// The page with its script, which release serves it, and a login with a secret from a file.
const CHECKS: &str = r#"
[[checks]]
name = "frontend"
phase = ["before-switch", "after-switch"]
http = { path = "/index.html", expect = { html = "div#app", release = "html:title" }, assets = true }
every = "100ms"
patience = "1s"
[[checks]]
name = "login"
phase = ["before-switch", "after-switch"]
secrets = { password = "PASSWORD_FILE" }
every = "100ms"
patience = "1s"
[[checks.steps]]
get = "/api/login"
headers = { authorization = "Bearer {{password}}" }
capture = { token = "json:$.token" }
[[checks.steps]]
get = "/api/health"
headers = { x-token = "{{token}}" }
[[checklist.manual]]
name = "phone"
text = "Nobody has called"
"#;

/// A site with those checks.
async fn site() -> Site {
    Site::builder().watch("2s").file(CHECKS).start().await.unwrap()
}

/// A release whose page has a script.
fn artifact(site: &Site, release: &str) -> String {
    let folder = site.artifact(release).unwrap();
    let page = format!(
        "<title>{release}</title><script type=module src=\"assets/app.js\"></script><div id=\"app\"></div>\n"
    );
    std::fs::write(folder.join("index.html"), page).unwrap();
    folder.display().to_string()
}

async fn deploy(site: &Site, release: &str) -> kit::Told {
    let folder = artifact(site, release);
    site.cli(&["deploy", "production", "--artifact", &folder, "--release", release, "--yes"]).await.unwrap()
}

fn json(told: &kit::Told) -> Value {
    serde_json::from_str(&told.stdout).unwrap()
}

/// Every check of a reply: `host name verdict`.
fn verdicts(reply: &Value) -> Vec<String> {
    let text = |check: &Value, field: &str| check[field].as_str().unwrap().to_owned();
    let checks = reply["checks"].as_array().unwrap();
    checks.iter().map(|c| format!("{} {} {}", text(c, "host"), text(c, "name"), text(c, "verdict"))).collect()
}

/// How much the journal holds. What visitors met while a release was watched is noted a moment after it is over, or not at
/// all where the watch saw no whole second: that is left out.
fn entries(site: &Site) -> usize {
    let traffic = |fact: &&kit::Fact| fact.body.pointer("/note/of").is_some_and(|of| of == "traffic");
    let books = Books::read(site).unwrap();
    books.facts.len() - books.facts.iter().filter(traffic).count()
}

/// Whether any file below a folder holds a text; the file of the secret itself aside.
fn holds(folder: &Path, text: &str, but: &[&Path]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() || but.contains(&path.as_path()) {
            continue;
        }
        if path.is_dir() {
            found.extend(holds(&path, text, but));
        } else if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_are_made_now_and_leave_no_trace() {
    let site = site().await;
    let told = deploy(&site, "v1").await;
    assert_eq!(told.code, 0, "{told:?}");
    let before = entries(&site);

    let told = site.cli(&["check", "production", "-o", "json"]).await.unwrap();
    assert_eq!(told.code, 0, "{told:?}");
    let reply = json(&told);
    assert_eq!((reply["slot"].as_str(), reply["release"].as_str()), (Some("blue"), Some("v1")));
    assert_eq!(
        verdicts(&reply),
        ["lb1 deep passed", "lb1 frontend passed", "lb1 login passed", "blue health passed"]
    );

    // One that fails is not good; one alone is made alone, on the slot that is named.
    site.blue.fail_deep(true).unwrap();
    let told = site.cli(&["check", "production"]).await.unwrap();
    assert_eq!(told.code, 3, "{told:?}");
    assert!(
        told.stdout.contains("✖ failed  lb1   deep") && told.stdout.contains("expected status 200, got 500"),
        "{told:?}"
    );
    let told = site.cli(&["check", "production", "--name", "health", "-o", "json"]).await.unwrap();
    assert_eq!((told.code, verdicts(&json(&told))), (0, vec!["blue health passed".to_owned()]));
    // Nobody is led to the other slot yet: what cannot be looked at is not known.
    let other = ["check", "production", "--slot", "green", "--name", "frontend"];
    let told = site.cli(&other).await.unwrap();
    assert!(
        told.code == 4 && told.says("PM0408") && told.says("no check is led to `be_green` now"),
        "{told:?}"
    );
    let told = site.cli(&["check", "production", "--name", "nothing"]).await.unwrap();
    assert!(told.code == 2 && told.says("there is no check `nothing`; there are: health, deep"), "{told:?}");
    let told = site.cli_as("screen", &["check", "production"]).await.unwrap();
    assert!(told.code == 2 && told.says("PM0503"), "{told:?}");

    assert_eq!(entries(&site), before, "looking is recorded nowhere");

    // Each slot is asked for the release that is on it.
    site.blue.fail_deep(false).unwrap();
    assert_eq!(deploy(&site, "v2").await.code, 0);
    for (slot, release) in [("blue", "v1"), ("green", "v2")] {
        let words = ["check", "production", "--slot", slot, "--name", "frontend", "-o", "json"];
        let told = site.cli(&words).await.unwrap();
        assert_eq!((told.code, json(&told)["release"].as_str()), (0, Some(release)), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_has_a_checklist_that_outlives_the_coordinator() {
    let mut site = site().await;
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    assert_eq!(deploy(&site, "v1").await.code, 0);
    let told = deploy(&site, "v2").await;
    assert_eq!(told.code, 0, "{told:?}");
    load.stop().unwrap();
    // What visitors met is noted a moment after the watch is over.
    kit::until("what visitors met is noted", Duration::from_secs(20), || {
        let noted = Books::read(&site).unwrap().lines("v2").contains("noted");
        let site = &site;
        async move {
            let list = site.cli(&["checklist", "production", "--release", "v2", "-o", "json"]).await.ok()?;
            let points = json(&list)["points"].as_array()?.clone();
            (noted
                && points.iter().any(|point| point["name"] == "error-rate" && point["verdict"] == "passed"))
            .then_some(())
        }
    })
    .await
    .unwrap();

    site.kill_coordinator().unwrap();
    site.start_coordinator().unwrap();
    site.ready().await.unwrap();
    let told = site.cli(&["checklist", "production", "--release", "v2", "-o", "json"]).await.unwrap();
    // Nobody looks at map services, and nobody has ticked anything: that is not known to be well.
    assert_eq!(told.code, 4, "{told:?}");
    let list = json(&told);
    let verdict = |name: &str| {
        let point = list["points"].as_array().unwrap().iter().find(|point| point["name"] == name);
        point.unwrap_or_else(|| panic!("no point {name}: {list}"))["verdict"].as_str().unwrap().to_owned()
    };
    for (name, expected) in [
        ("health", "passed"),
        ("error-rate", "passed"),
        ("frontend", "passed"),
        ("login", "passed"),
        ("deep", "passed"),
        ("services", "no-data"),
        ("feature-creation", "no-data"),
        ("alerts", "no-data"),
        ("phone", "open"),
    ] {
        assert_eq!(verdict(name), expected, "{name}: {list}");
    }

    let tick = ["checklist", "production", "--release", "v2", "--tick", "phone", "--note", "quiet <b>"];
    let told = site.cli_as("pipeline", &tick).await.unwrap();
    assert!(told.code == 2 && told.says("PM0503"), "only a person vouches: {told:?}");
    let told = site.cli(&tick).await.unwrap();
    assert_eq!(told.code, 0, "{told:?}");
    assert!(told.stdout.contains("ticked by operator admin: quiet <b>"), "{told:?}");
    let told = site.cli(&["checklist", "production", "--release", "v2", "--tick", "login"]).await.unwrap();
    assert!(
        told.code == 2 && told.says("`login` is no point that a person ticks; these are: phone"),
        "{told:?}"
    );

    let told = site.cli(&["checklist", "production", "--release", "v2", "-o", "md"]).await.unwrap();
    assert!(told.stdout.contains("- [x] Health checks successful"), "{told:?}");
    assert!(told.stdout.contains("- [ ] no data: WFS/WMS services accessible"), "{told:?}");
    assert!(told.stdout.contains("quiet &lt;b>"), "{told:?}");
    let told = site.cli(&["checklist", "production", "--release", "v2", "-o", "junit"]).await.unwrap();
    assert!(told.stdout.contains("failures=\"0\""), "{told:?}");
    assert_eq!(site.cli(&["audit", "verify", "production"]).await.unwrap().code, 0);
    let told = site.cli(&["status", "production", "-o", "md"]).await.unwrap();
    assert!(told.code == 2 && told.says("forms of the checklist alone"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_stays_where_it_is() {
    let site = site().await;
    assert_eq!(deploy(&site, "v1").await.code, 0);
    // From now on the file holds what nginx does not take, and says back.
    let wrong = "wrong-canary-4711";
    std::fs::write(site.password_file(), wrong).unwrap();
    let told = deploy(&site, "v2").await;
    assert_eq!(told.code, 1, "{told:?}");
    assert!(told.says("check `login` failed: step 1: /api/login expected status 2xx, got 403"), "{told:?}");
    let checked = site.cli(&["check", "production", "--name", "login"]).await.unwrap();
    assert_eq!(checked.code, 3, "{checked:?}");
    let list = site.cli(&["checklist", "production", "--release", "v2"]).await.unwrap();
    assert!(list.code == 3 && list.stdout.contains("✖ failed  login"), "{list:?}");
    let file = site.password_file();
    for secret in [wrong, kit::PASSWORD] {
        assert!(!format!("{told:?}{checked:?}{list:?}").contains(secret));
        // nginx has its password in its configuration.
        let found = holds(site.folder(), secret, &[file.as_path()]);
        let found: Vec<_> = found.iter().filter(|path| !path.ends_with("nginx.conf")).collect();
        assert!(found.is_empty(), "{secret} in {found:?}");
    }
    // A file that strangers could read is not read: what the check would say is not known.
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let told = site.cli(&["check", "production", "--name", "login"]).await.unwrap();
    assert!(told.code == 4 && told.stdout.contains("has mode 0644"), "{told:?}");
}
