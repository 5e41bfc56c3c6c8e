//! Checks as they are made against a small web application on loopback.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop where they fail")]

mod grave;
mod hostile;
mod site;

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use pointsman_chassis::http_check::Target;
use pointsman_checks::{Grants, Memory, Pin, Place, judged, run};
use pointsman_core::{Check, CheckFrom, CheckSeen, CheckSpec, CheckVerdict, Code, Problem, ReleaseId, Retry};

use crate::site::Site;

/// What nothing may ever say.
const PASSWORD: &str = "p&ss word\"";

/// The place of a site, with a folder of secrets.
struct World {
    site: Site,
    secrets: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let (site, secrets) = (Site::start().await, tempfile::tempdir().unwrap());
        for (name, value) in [("user", "ada"), ("password", PASSWORD), ("wrong", "hunter2-wrong")] {
            let path = secrets.path().join(name);
            std::fs::write(&path, format!("{value}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        Self { site, secrets }
    }

    fn place(&self) -> Place {
        let grants = format!("secrets = {:?}", self.secrets.path().display().to_string());
        Place {
            server: Target {
                address: self.site.address,
                host: "www.example.org".to_owned(),
                tls: None,
                proxy_protocol: false,
            },
            authorities: None,
            pin: None,
            grants: Arc::new(toml::from_str(&grants).unwrap()),
            key: String::new(),
        }
    }

    fn check(&self, name: &str, written: &str) -> Check {
        let folder = self.secrets.path().display().to_string();
        check(name, &written.replace("SECRETS", &folder))
    }

    async fn run(&self, checks: &[Check]) -> Vec<CheckSeen> {
        run(checks, &self.place(), None).await.unwrap().seen
    }

    /// Makes one check, and says what is wrong with it.
    async fn one(&self, written: &str) -> Result<String, String> {
        let seen = self.run(&[self.check("one", written)]).await.remove(0);
        match seen.verdict {
            CheckVerdict::Passed => Ok(seen.what),
            _ => Err(seen.what),
        }
    }
}

/// A check as an environment file has it, for release `r1` on slot `green`.
fn check(name: &str, written: &str) -> Check {
    let written: pointsman_checks::Written = toml::from_str(written).unwrap();
    let json = serde_json::to_string(&written).unwrap();
    let check = Check {
        name: name.parse().unwrap(),
        from: CheckFrom::Balancers,
        before_switch: true,
        after_switch: true,
        spec: CheckSpec::parse(&json).unwrap(),
        timeout_ms: 2_000,
        patience_ms: 0,
        bound_ms: 2_000,
    };
    pointsman_checks::bind(&check, Some(&ReleaseId::parse("r1").unwrap()), &"green".parse().unwrap())
}

const FORM_LOGIN: &str = r#"
    secrets = { user = "SECRETS/user", password = "SECRETS/password" }
    [[steps]]
    get = "/login"
    capture = { csrf = "html:input[name=csrf]@value" }
    [[steps]]
    post = "/login"
    form = { user = "{{user}}", password = "{{password}}", csrf = "{{csrf}}" }
    follow = 1
    expect = { status = 200, body = "welcome {{user}}" }
"#;

const LOGIN: &str = r#"
    secrets = { user = "SECRETS/user", password = "SECRETS/password" }
    [[steps]]
    post = "/api/login"
    json = { user = "{{user}}", password = "{{password}}" }
    expect = { status = 200 }
    capture = { token = "json:$.token" }
    [[steps]]
    get = "/api/me"
    headers = { authorization = "Bearer {{token}}" }
    expect = { status = 200, json = { "$.name" = "{{user}}" } }
"#;

const CREATION: &str = r#"
    after = "login"
    [[steps]]
    post = "/api/features"
    headers = { authorization = "Bearer {{token}}" }
    json = { name = "pointsman-check-{{release}}", geometry = { type = "Point", coordinates = [7.1, 50.7] } }
    expect = { status = 201 }
    capture = { id = "json:$.id" }
    [[steps]]
    get = "/api/features/{{id}}"
    expect = { status = 200, body = "pointsman-check-r1" }
    [[steps]]
    delete = "/api/features/{{id}}"
    headers = { authorization = "Bearer {{token}}" }
    cleanup = true
"#;

#[tokio::test]
async fn a_form_with_a_token_and_cookies_logs_in() {
    let world = World::start().await;
    assert!(world.one(FORM_LOGIN).await.unwrap().starts_with("2 steps in"));
    assert_eq!(world.site.came(), ["GET /login", "POST /login", "GET /home"]);
    let home = world.site.last("/home");
    assert_eq!(home.headers["cookie"], "pre=1; sid=s1");
    assert_eq!(home.headers["host"], "www.example.org");
    assert!(home.body.is_empty() && !home.headers.contains_key("content-type"));
}

#[tokio::test]
async fn a_feature_is_created_read_and_cleared_away() {
    let world = World::start().await;
    let checks = [world.check("login", LOGIN), world.check("creation", CREATION)];
    let seen = world.run(&checks).await;
    assert!(seen.iter().all(|seen| seen.verdict == CheckVerdict::Passed), "{seen:?}");
    assert!(seen[1].what.ends_with("cleared away"), "{seen:?}");
    assert_eq!(world.site.features(), 0);
    // It builds on the login: no second one.
    assert_eq!(world.site.came().iter().filter(|came| *came == "POST /api/login").count(), 1);
}

#[tokio::test]
async fn what_was_made_is_cleared_away_once_also_after_a_failure() {
    let world = World::start().await;
    world.site.fail("/api/features/1", 1);
    let checks = [world.check("login", LOGIN), world.check("creation", CREATION)];
    let seen = world.run(&checks).await;
    assert_eq!(seen[1].verdict, CheckVerdict::Failed);
    assert!(seen[1].what.starts_with("step 2: /api/features/1 expected status 200, got 500"), "{seen:?}");
    assert_eq!(world.site.features(), 0);
    let deletions = || world.site.came().iter().filter(|came| came.starts_with("DELETE")).count();
    assert_eq!(deletions(), 1);
    // What was never made needs no clearing away, and what cannot be is said.
    world.site.fail("/api/features", 1);
    let seen = world.run(&checks).await;
    assert!(seen[1].what.starts_with("step 1: POST /api/features expected status 201"), "{seen:?}");
    assert_eq!(deletions(), 1);
    let stays = CREATION.replace("delete = \"/api/features/{{id}}\"", "delete = \"/api/gone/{{id}}\"");
    let seen = world.run(&[checks[0].clone(), world.check("creation", &stays)]).await;
    assert!(seen[1].what.starts_with("something is left behind: step 3: DELETE /api/gone/2"), "{seen:?}");
}

#[tokio::test]
async fn what_may_have_been_made_by_an_answer_that_was_lost_is_said() {
    let world = World::start().await;
    let creation = |path: &str| {
        format!(
            r#"
            [[steps]]
            post = "{path}"
            json = {{ name = "pointsman-check" }}
            capture = {{ id = "json:$.id" }}
            [[steps]]
            delete = "/api/features/{{{{id}}}}"
            cleanup = true
            "#
        )
    };
    const LEFT: &str = "; and something may be left behind: what would clear it away is not known";
    for (count, path) in ["/api/mute", "/api/breaks", "/api/nameless"].into_iter().enumerate() {
        let said = world.one(&creation(path)).await.unwrap_err();
        assert!(said.starts_with("step 1: POST /api/") && said.ends_with(LEFT), "{said}");
        assert_eq!(world.site.features(), count + 1);
    }
    // It was made, and who it is cannot be looked up.
    let looked_up = r#"
        [[steps]]
        post = "/api/nameless"
        [[steps]]
        get = "/api/gone"
        capture = { id = "json:$.id" }
        [[steps]]
        delete = "/api/features/{{id}}"
        cleanup = true
    "#;
    let said = world.one(looked_up).await.unwrap_err();
    assert!(said.starts_with("step 2: /api/gone") && said.ends_with(LEFT), "{said}");
    // What was refused, or never sent, made nothing; nor did a login before it.
    let said = world.one(&creation("/api/gone")).await.unwrap_err();
    assert!(said.contains("got 404") && !said.contains("left behind"), "{said}");
    let after_login = r#"
        [[steps]]
        post = "/api/login"
        expect = { status = 401 }
        [[steps]]
        get = "/api/gone"
        [[steps]]
        post = "/api/nameless"
        capture = { id = "json:$.id" }
        [[steps]]
        delete = "/api/features/{{id}}"
        cleanup = true
    "#;
    let said = world.one(after_login).await.unwrap_err();
    assert!(said.starts_with("step 2: ") && !said.contains("left behind"), "{said}");
    let mut place = world.place();
    // Nobody listens there: it was taken, and given up again.
    place.server.address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let seen = run(&[check("one", &creation("/api/mute"))], &place, None).await.unwrap().seen.remove(0);
    assert!(seen.what.contains("cannot connect") && !seen.what.contains("left behind"), "{seen:?}");
}

#[tokio::test]
async fn whoever_stops_waiting_does_not_keep_it_from_being_cleared_away() {
    let world = World::start().await;
    let checks = [world.check("login", LOGIN), world.check("creation", CREATION)];
    let (place, site) = (world.place(), &world.site);
    let making = run(&checks, &place, None);
    let created = async {
        while !site.came().iter().any(|came| came == "POST /api/features") {
            tokio::task::yield_now().await;
        }
    };
    // The one who asked goes away in the middle.
    tokio::select! { biased; () = created => {}, _ = making => panic!("it was over too soon") }
    let cleared = async {
        while !site.came().iter().any(|came| came.starts_with("DELETE")) || site.features() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), cleared).await.unwrap();
}

#[tokio::test]
async fn a_check_is_not_made_without_what_it_builds_on() {
    let world = World::start().await;
    world.site.fail("/api/login", 1);
    let checks = [world.check("login", LOGIN), world.check("creation", CREATION)];
    let seen = world.run(&checks).await;
    let verdicts: Vec<CheckVerdict> = seen.iter().map(|seen| seen.verdict).collect();
    assert_eq!(verdicts, [CheckVerdict::Failed, CheckVerdict::NotMade]);
    assert_eq!(seen[1].what, "not made: `login` did not pass");
    let alone = run(&checks[1..], &world.place(), None).await.unwrap_err();
    assert_eq!(alone.code, Code::MessageInvalid);
    assert!(alone.message.contains("`after` names `login`"), "{}", alone.message);
}

#[tokio::test]
async fn secrets_are_said_nowhere() {
    let world = World::start().await;
    let wrong = LOGIN.replace("SECRETS/password", "SECRETS/wrong");
    let echoed = FORM_LOGIN.replace("SECRETS/password", "SECRETS/wrong").replace("follow = 1", "");
    let shown = r#"
        secrets = { password = "SECRETS/password" }
        [[steps]]
        post = "/api/login"
        json = { password = "{{password}}x" }
        expect = { equals = { "json:$.password" = "y" }, status = 401 }
    "#;
    for written in [&wrong, &echoed, shown] {
        let checks = [world.check("login", written)];
        let place = world.place();
        let made = run(&checks, &place, None).await.unwrap();
        let problem = judged(&checks, vec![(&place, made.clone())]).unwrap_err();
        let said = format!("{made:?} {problem:?} {:?}", checks[0]);
        for secret in [PASSWORD, "hunter2-wrong", "p%26ss", "p&ss", "tok-1234"] {
            assert!(!said.contains(secret), "{secret} in {said}");
        }
        assert!(said.contains("not shown") || said.contains("***"), "{said}");
    }
}

/// A server may answer anybody with what one check has sent.
#[tokio::test]
async fn what_one_check_knows_no_other_says() {
    let world = World::start().await;
    let leaky = [
        world.check("gate", "http = { path = \"/gate\", expect = { status = 200 } }"),
        world.check("wfs", "ows = { path = \"/geoserver/leak\", service = \"WFS\", version = \"2.0.0\" }"),
    ];
    // Whether the check that knows it comes before, after, or is not asked for.
    let login = world.check("login", LOGIN);
    let with = |before: &[Check], after: &[Check]| [before, &leaky, after].concat();
    let echo = check("echo", "http = { path = \"/token\" }");
    let logs_in = std::slice::from_ref(&login);
    for checks in [with(logs_in, &[]), with(&[], logs_in), with(&[], &[])] {
        let place = world.place();
        let made = run(&checks, &place, None).await.unwrap();
        let problem = judged(&checks, vec![(&place, made.clone())]).unwrap_err();
        let said = format!("{made:?} {problem:?}");
        for part in [PASSWORD, "p&", "word\\\"", "ada"] {
            assert!(!said.contains(part), "{part} in {said}");
        }
        assert!(said.contains("got 500: `user *** pass ***xxx"), "{said}");
        assert!(said.contains("cannot log in with ***"), "{said}");
    }
    // A token is known from when it was given.
    let seen = world.run(&[login, echo]).await;
    assert_eq!(seen[1].what, "/token expected status 200, got 500: `***`");
}

#[tokio::test]
async fn expectations_of_one_request_are_said_with_both_sides() {
    let world = World::start().await;
    let health = |expect: &str| format!("http = {{ path = \"/api/health\", expect = {{ {expect} }} }}");
    world.one(&health(r#"status = 200, release = "json:$.release""#)).await.unwrap();
    world
        .one(&health(r#"json = { "/status" = "ok" }, headers = { content-type = "json" }, within = "2s""#))
        .await
        .unwrap();
    assert_eq!(
        world.one(&health(r#"equals = { "json:$.release" = "r0" }"#)).await.unwrap_err(),
        "/api/health expected `r0` at `json:$.release`, got `r1`"
    );
    assert_eq!(
        world.one(&health("status = 204")).await.unwrap_err(),
        "/api/health expected status 204, got 200: `{\"status\":\"ok\",\"release\":\"r1\"}`"
    );
    // A release that nobody knows is not expected.
    let check = check("x", &health(r#"equals = { "json:$.release" = "{{release}}" }"#));
    let other = pointsman_checks::bind(&check, None, &"green".parse().unwrap());
    assert_eq!(other, check, "bound once is bound");
}

#[tokio::test]
async fn a_page_is_looked_at_with_its_assets() {
    let world = World::start().await;
    let page = |path: &str| {
        format!(r#"http = {{ path = "{path}", expect = {{ html = "{{SELECTOR}}" }}, assets = true }}"#)
    };
    let said = world.one(&page("/").replace("{SELECTOR}", "div#app")).await.unwrap();
    assert!(said.ends_with("2 assets"), "{said}");
    let said = world.one(&page("/").replace("{SELECTOR}", "div#root")).await.unwrap_err();
    assert!(said.contains("expected a page with an element `div#root`"), "{said}");
    let said = world.one(&page("/lost").replace("{SELECTOR}", "script")).await.unwrap_err();
    assert_eq!(said, "asset /fallback.js is a page, expected a script or a style sheet");
    world.site.fail("/app.css", 1);
    let said = world.one(&page("/").replace("{SELECTOR}", "div#app")).await.unwrap_err();
    assert_eq!(said, "asset /app.css expected status 200, got 500");
}

#[tokio::test]
async fn assets_are_looked_for_beside_the_page_that_a_redirect_leads_to() {
    let world = World::start().await;
    world.one(r#"http = { path = "/to-the-map", follow = 1, assets = true }"#).await.unwrap();
    assert_eq!(world.site.came(), ["GET /to-the-map", "GET /map/", "GET /map/assets/map.js"]);
}

#[tokio::test]
async fn a_check_may_say_what_it_is() {
    let world = World::start().await;
    world.one(r#"http = { path = "/api/health" }"#).await.unwrap();
    assert_eq!(world.site.last("/api/health").headers["user-agent"], "pointsman-check");
    world.one(r#"http = { path = "/api/health", headers = { User-Agent = "QGIS" } }"#).await.unwrap();
    assert_eq!(world.site.last("/api/health").headers["user-agent"], "QGIS");
}

#[tokio::test]
async fn a_style_sheet_may_be_empty_and_a_script_may_not() {
    let world = World::start().await;
    let page = |path: &str| format!(r#"http = {{ path = "{path}", assets = true }}"#);
    let said = world.one(&page("/unstyled")).await.unwrap();
    assert!(said.ends_with("ms, 2 assets, 1 style sheet empty"), "{said}");
    let said = world.one(&page("/undone")).await.unwrap_err();
    assert_eq!(said, "asset /empty.js is nothing, expected a script or a style sheet");
}

#[tokio::test]
async fn map_services_are_asked_for_what_they_offer() {
    let world = World::start().await;
    let wfs = r#"ows = { service = "WFS", version = "2.0.0", path = "/geoserver/ows", layers = ["p2d2:features"], get_feature = true }"#;
    assert_eq!(world.one(wfs).await.unwrap(), "1 layer, 1 feature");
    let wms = r#"ows = { service = "WMS", version = "1.3.0", path = "/geoserver/ows", layers = ["p2d2:basemap"], get_map = true }"#;
    assert_eq!(world.one(wms).await.unwrap(), "1 layer, a map of 8 bytes");
    let said = world.one(&wfs.replace("p2d2:features", "p2d2:gone")).await.unwrap_err();
    assert_eq!(said, "GetCapabilities of /geoserver/ows layer `p2d2:gone` is missing among 1");
}

#[tokio::test]
async fn only_granted_alertmanagers_are_asked() {
    let world = World::start().await;
    let url = format!("http://{}/am", world.site.address);
    let wanted = |ignore: &str| {
        format!(r#"alerts = {{ url = "{url}", matchers = ["service=p2d2"], ignore = [{ignore}] }}"#)
    };
    assert!(world.one(&wanted("")).await.unwrap_err().contains("this agent may not ask"));
    let grants: Grants = toml::from_str(&format!("alertmanagers = [{{ url = \"{url}\" }}]")).unwrap();
    let place = Place { grants: Arc::new(grants), ..world.place() };
    let seen = run(&[check("alerts", &wanted("\"Watchdog\""))], &place, None).await.unwrap().seen;
    assert_eq!(seen[0].what, "no alert fires, 1 ignored");
    assert!(
        world.site.came()[0].ends_with("inhibited=false&filter=service%3Dp2d2"),
        "{:?}",
        world.site.came()
    );
    let seen = run(&[check("alerts", &wanted(""))], &place, None).await.unwrap().seen;
    assert_eq!(seen[0].what, "1 alert fires: `Watchdog`");

    // What must fire may fire.
    let requires = |name: &str| format!(r#"alerts = {{ url = "{url}", require = ["{name}"] }}"#);
    let seen = run(&[check("alerts", &requires("Watchdog"))], &place, None).await.unwrap().seen;
    assert_eq!(seen[0].what, "no alert fires, 1 ignored");
    let seen = run(&[check("alerts", &requires("DeadMansSwitch"))], &place, None).await.unwrap().seen;
    assert_eq!(seen[0].verdict, CheckVerdict::NotMade);
    assert!(seen[0].what.contains("nobody feeds the Alertmanager"), "{}", seen[0].what);
}

#[tokio::test]
async fn hurl_files_run_with_secrets_in_a_file() {
    let world = World::start().await;
    let tools = tempfile::tempdir().unwrap();
    // Stands for the command: says what it was given, and fails like it.
    let (command, log) = (tools.path().join("hurl"), tools.path().join("log"));
    let script = format!(
        "#!/bin/sh\nwhile [ $# -gt 1 ]; do echo \"arg $1\" >> {log}; [ \"$1\" = --secrets-file ] && cat \"$2\" >> {log}; shift; done\n\
         echo \"file $1\" >> {log}\nenv >> {log}\ncase $1 in *bad.hurl) echo \"assert failed: hunter2-wrong\"; exit 4;; esac\n",
        log = log.display()
    );
    std::fs::write(&command, script).unwrap();
    std::fs::set_permissions(&command, std::fs::Permissions::from_mode(0o755)).unwrap();
    let grants = format!(
        "secrets = {:?}\nhurl = {{ command = {:?}, files = \"/etc/pointsman/checks\" }}",
        world.secrets.path().display().to_string(),
        command.display().to_string()
    );
    let place = Place { grants: Arc::new(toml::from_str(&grants).unwrap()), ..world.place() };
    let written = |file: &str| format!("hurl = \"{file}\"\nsecrets = {{ password = \"SECRETS/wrong\" }}");
    let seen = run(&[world.check("ok", &written("ok.hurl"))], &place, None).await.unwrap().seen;
    assert_eq!((seen[0].verdict, seen[0].what.as_str()), (CheckVerdict::Passed, "`ok.hurl` passed"));
    let pin = Some(Pin { side: "canary", epoch: "7".to_owned() });
    let pinned = Place { pin, ..place.clone() };
    let seen = run(&[world.check("pinned", &written("ok.hurl"))], &pinned, None).await.unwrap().seen;
    assert_eq!(seen[0].verdict, CheckVerdict::Passed);
    // With TLS it asks by the name that the certificate has, here, and trusts whom the agent trusts.
    let authorities = tools.path().join("authorities.pem");
    std::fs::write(&authorities, "").unwrap();
    let mut secret = place.clone();
    secret.server.tls = Some(pointsman_chassis::http_check::tls_for(&authorities).unwrap());
    secret.authorities = Some(authorities.clone());
    let seen = run(&[world.check("secret", &written("ok.hurl"))], &secret, None).await.unwrap().seen;
    assert_eq!(seen[0].verdict, CheckVerdict::Passed);
    let log = std::fs::read_to_string(log).unwrap();
    let led = format!(
        "arg url=https://www.example.org\narg --variable\narg host=www.example.org\narg --variable\narg side=\n\
         arg --connect-to\narg www.example.org:443:{}\narg --cacert\narg {}\n",
        world.site.address,
        authorities.display()
    );
    assert_eq!((log.matches(&led).count(), log.matches("--connect-to").count()), (1, 1), "{log}");
    assert_eq!(log.matches("arg X-Pointsman: canary").count(), 1, "{log}");
    assert!(
        log.contains("file /etc/pointsman/checks/ok.hurl") && log.contains("password=hunter2-wrong"),
        "{log}"
    );
    assert!(!log.contains("arg hunter2") && !log.contains("HOME="), "{log}");
    assert!(log.contains(&format!("arg url=http://{}", world.site.address)), "{log}");
    let seen = run(&[world.check("bad", &written("bad.hurl"))], &place, None).await.unwrap().seen;
    assert!(
        seen[0].what.contains("exit status: 4") && seen[0].what.contains("assert failed: ***"),
        "{seen:?}"
    );
    let seen = world.run(&[world.check("none", &written("ok.hurl"))]).await;
    assert!(seen[0].what.contains("this agent may not run hurl"), "{seen:?}");
}

#[tokio::test]
async fn tries_are_counted_and_patience_is_for_those_that_only_read() {
    let world = World::start().await;
    let plain = r#"http = { path = "/api/health" }"#;
    let failing = |times| world.site.fail("/api/health", times);
    let asked = || world.site.came().len();
    failing(2);
    let patient = Check { patience_ms: 5_000, ..check("patient", plain) };
    assert_eq!(world.run(std::slice::from_ref(&patient)).await[0].verdict, CheckVerdict::Passed);
    assert_eq!(asked(), 3);
    failing(1);
    assert_eq!(world.run(&[check("hasty", plain)]).await[0].verdict, CheckVerdict::Failed);
    assert_eq!(asked(), 4);
    failing(2);
    let retry = format!("{plain}\nretry = {{ times = 2, every = \"1ms\" }}");
    let seen = world.run(&[Check { patience_ms: 5_000, ..check("counted", &retry) }]).await;
    assert!(seen[0].what.ends_with("(2 tries)"), "{seen:?}");
    assert_eq!(asked(), 6);
    // What changes something is not repeated out of patience.
    let post = "[[steps]]\npost = \"/api/nothing\"";
    world.run(&[Check { patience_ms: 5_000, ..check("post", post) }]).await;
    assert_eq!(asked(), 7);
    // After a failure nobody is patient any more.
    failing(1_000);
    let seen = world.run(&[check("first", "http = { path = \"/gone\" }"), patient]).await;
    assert_eq!(asked(), 9, "{seen:?}");
}

#[tokio::test]
async fn a_pass_is_good_for_a_while_and_a_failure_for_nothing() {
    let world = World::start().await;
    let (memory, place) = (Memory::default(), world.place());
    let checks = [
        world.check("login", LOGIN),
        world.check("creation", CREATION),
        check("plain", r#"http = { path = "/" }"#),
    ];
    let count = |what: &str| world.site.came().iter().filter(|came| came.as_str() == what).count();
    let made = async || run(&checks, &place, Some(&memory)).await.unwrap().seen;
    world.site.fail("/api/features", 1);
    assert_eq!(made().await[1].verdict, CheckVerdict::Failed);
    let seen = made().await;
    assert!(seen.iter().all(|seen| seen.verdict == CheckVerdict::Passed), "{seen:?}");
    // The one that failed was made again, with the login that it builds on; then all are good.
    assert_eq!((count("POST /api/login"), count("POST /api/features"), count("GET /")), (2, 2, 2));
    assert_eq!(made().await.len(), 3);
    assert_eq!((count("POST /api/login"), count("POST /api/features"), count("GET /")), (2, 2, 3));
    // Another place, and another release, is looked at anew.
    let other = Place { key: "other".to_owned(), ..place.clone() };
    run(&checks, &other, Some(&memory)).await.unwrap();
    assert_eq!(count("POST /api/features"), 3);
    memory.forget();
    made().await;
    assert_eq!(count("POST /api/features"), 4);
}

#[tokio::test]
async fn what_writes_and_fails_is_not_written_anew_at_every_reading() {
    let world = World::start().await;
    let (memory, place) = (Memory::default(), world.place());
    let breaks = |extra: &str| check("breaks", &format!("{extra}\n[[steps]]\npost = \"/api/breaks\""));
    let made = async |check: &Check| {
        let made = run(std::slice::from_ref(check), &place, Some(&memory)).await.unwrap();
        let told = judged(std::slice::from_ref(check), vec![(&place, made)]).unwrap_err();
        (told.code, told.retry)
    };
    // As often at once as a watch counts, which turns back for it; then no more than a pass would be.
    let careful = breaks("");
    for _ in 0..3 {
        assert_eq!(made(&careful).await, (Code::CheckFailed, Retry::Useless));
    }
    for _ in 0..5 {
        assert_eq!(made(&careful).await, (Code::CheckFailed, Retry::Useful));
    }
    assert_eq!(world.site.features(), 3);
    // Who wants it each time says so.
    let eager = breaks("every = \"0s\"");
    for _ in 0..5 {
        assert_eq!(made(&eager).await, (Code::CheckFailed, Retry::Useless));
    }
    assert_eq!(world.site.features(), 8);
    // Another release sees it as it is now.
    memory.forget();
    assert_eq!(made(&careful).await, (Code::CheckFailed, Retry::Useless));
}

#[tokio::test]
async fn what_others_measure_fails_once_for_each_time_it_is_measured() {
    let world = World::start().await;
    let url = format!("http://{}/am", world.site.address);
    let grants: Grants = toml::from_str(&format!("alertmanagers = [{{ url = \"{url}\" }}]")).unwrap();
    let place = Place { grants: Arc::new(grants), ..world.place() };
    let alerts = check("alerts", &format!("alerts = {{ url = \"{url}\" }}"));
    let checks = [
        alerts.clone(),
        check("then", "after = \"alerts\"\nhttp = { path = \"/\" }"),
        check("plain", "http = { path = \"/gone\" }"),
    ];
    let asked = || world.site.came().iter().filter(|came| came.contains("/am/")).count();
    let memory = Memory::default();
    let made = async |checks: &[Check]| {
        let made = run(checks, &place, Some(&memory)).await.unwrap();
        let verdicts: Vec<CheckVerdict> = made.seen.iter().map(|seen| seen.verdict).collect();
        (verdicts, judged(checks, vec![(&place, made)]).unwrap_err())
    };
    let alone = &checks[..2];
    let (first, problem) = made(alone).await;
    // The one that measures was asked, and not the server under test.
    assert_eq!(problem.causes[0], format!("asked `{url}`"));
    assert_eq!(first, [CheckVerdict::Failed, CheckVerdict::NotMade]);
    assert_eq!((problem.code, problem.retry), (Code::CheckFailed, Retry::Useless));
    // The same failure, told again: neither it nor what comes after it was made.
    let (again, told) = made(alone).await;
    assert_eq!((again, asked()), (first.clone(), 1));
    assert_eq!((told.code, told.retry), (Code::CheckFailed, Retry::Useful));
    assert_eq!(told.message, problem.message);
    // Another check that fails is new, and is what is told of first.
    let (_, new) = made(&checks).await;
    assert_eq!((new.retry, asked()), (Retry::Useless, 1));
    assert!(new.message.starts_with("check `plain` failed"), "{new:?}");
    assert_eq!(new.causes[0], format!("asked {} for host `www.example.org`", place.server.address));
    assert!(new.causes[1].starts_with(&format!("check `alerts` failed at {url} too: ")), "{new:?}");
    // A person, and another release, see it as it is now.
    run(&[pointsman_checks::anew(&alerts)], &place, Some(&memory)).await.unwrap();
    assert_eq!(asked(), 2);
    memory.forget();
    assert_eq!(made(alone).await.1.retry, Retry::Useless);
    assert_eq!(asked(), 3);
}

#[tokio::test]
async fn every_answer_comes_from_the_side_that_was_asked_for() {
    let world = World::start().await;
    let pinned =
        |side, epoch: &str| Place { pin: Some(Pin { side, epoch: epoch.to_owned() }), ..world.place() };
    let checks = [check("page", r#"http = { path = "/", assets = true }"#)];
    let seen = run(&checks, &pinned("stable", "7"), None).await.unwrap().seen;
    assert_eq!(seen[0].verdict, CheckVerdict::Passed);
    assert_eq!(world.site.last("/app.css").headers["x-pointsman"], "stable");
    let seen = run(&checks, &pinned("stable", "8"), None).await.unwrap().seen;
    assert_eq!(seen[0].what, "/ was answered on side `stable` of epoch 7, expected `stable` of 8");
}

#[tokio::test]
async fn a_failure_says_how_to_look_by_hand() {
    let world = World::start().await;
    let checks = [check("health", r#"http = { path = "/gone" }"#), world.check("login", LOGIN)];
    world.site.fail("/api/login", 1);
    let place = world.place();
    let made = run(&checks, &place, None).await.unwrap();
    let problem: Problem = judged(&checks, vec![(&place, made)]).unwrap_err();
    let address = world.site.address;
    assert_eq!(problem.code, Code::CheckFailed);
    assert!(
        problem.message.starts_with("check `health` failed: /gone expected status 200, got 404"),
        "{problem:?}"
    );
    assert_eq!(
        problem.hint,
        format!("ask it yourself: `curl -i -H 'Host: www.example.org' http://{address}/gone`")
    );
    assert!(problem.causes[1].starts_with("check `login` failed at "), "{problem:?}");
    assert_eq!(problem.checks.len(), 2);
}
