//! What must be true when a release is over and everything runs again, whatever happened on the way.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use kit::{Books, Daemon, Haproxy, Site, WebHost, tree};
use pointsman_coordinator::journal::JournalStore;

/// What the outcomes so far say, kept by the tests on their own.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The slot that visitors use, by its agent.
    pub live: Daemon,
    /// Whether the maintenance page is up.
    pub page: bool,
    /// The folder of the artifact that must be current on each host.
    pub current: BTreeMap<&'static str, Option<PathBuf>>,
}

/// Compares everything that a release touches with what its outcome says.
pub async fn at_rest(site: &Site, standing: &Standing, release: &str, outcome: &str) -> Result<()> {
    let told = site.client()?.status().await?;
    ensure!(told.trouble.is_none(), "the coordinator is in trouble: {:?}", told.trouble);
    let recorded = told.release.unwrap_or_default();
    ensure!(
        recorded.outcome == outcome,
        "the coordinator says `{}`, heard was `{outcome}`",
        recorded.outcome
    );
    route(site, standing, &told.wanted_route).await?;
    for daemon in [Daemon::Blue, Daemon::Green] {
        let host = site.host(daemon.host())?;
        let current = standing.current.get(daemon.host()).and_then(Option::as_deref);
        links(host, current)?;
        leftovers(host)?;
        let (name, flag) = (daemon.host(), host.maintenance());
        ensure!(flag == standing.page, "maintenance file on `{name}`: {flag}, expected {}", standing.page);
    }
    books(site, release, outcome)
}

async fn route(site: &Site, standing: &Standing, wanted: &str) -> Result<()> {
    let mut found = 0_usize;
    for (haproxy, frontend) in site.haproxies().zip(site.frontends()) {
        route_of(haproxy, frontend, standing, wanted).await.with_context(|| format!("by {frontend}"))?;
        found = found.saturating_add(1);
    }
    ensure!(found == site.lb_agents().len(), "{found} load balancers were looked at");
    Ok(())
}

async fn route_of(haproxy: &Haproxy, frontend: SocketAddr, standing: &Standing, wanted: &str) -> Result<()> {
    let disk = std::fs::read_to_string(&haproxy.layout().map)?;
    let disk = disk.lines().find_map(|line| line.strip_prefix("route ")).unwrap_or("").trim().to_owned();
    ensure!(disk == wanted, "the map file says `{disk}`, the journal `{wanted}`");
    let backend = if standing.page { "be_maint".to_owned() } else { format!("be_{}", standing.live.host()) };
    ensure!(disk.starts_with(&format!("{backend}:")), "the route is `{disk}`, expected `{backend}`");
    let workers = haproxy.routes().await?;
    ensure!(!workers.is_empty(), "HAProxy has no worker");
    for (worker, found) in workers {
        ensure!(found == disk, "HAProxy's worker {worker} routes by `{found}`, on disk is `{disk}`");
    }
    let page = kit::ask(frontend, "/page.txt").await?;
    let shown = standing.current.get(standing.live.host()).and_then(Option::as_deref);
    let marker = shown.and_then(Path::file_name).map(|name| format!("\n{}\n", name.to_string_lossy()));
    let right = if standing.page {
        page.starts_with("HTTP/1.1 503")
    } else {
        marker.is_some_and(|marker| page.contains(&marker))
    };
    ensure!(right, "a visitor gets {}", page.chars().take(200).collect::<String>());
    Ok(())
}

fn links(host: &WebHost, current: Option<&Path>) -> Result<()> {
    let Some(folder) = current else {
        ensure!(host.current().is_none(), "`current` is {:?}, expected nothing", host.current());
        return Ok(());
    };
    ensure!(tree::compare(folder, &host.live())? > 20, "a tree with too few files");
    // Where a rollback by hand would lead must be whole, too.
    let inventory = host.inventory()?;
    for link in ["current", "previous"] {
        let Some(target) = inventory.get(link) else { continue };
        let mark = target.replace("artifacts/", ".pointsman/complete/");
        ensure!(inventory.contains_key(&mark), "`{link}` is {target}, which is not complete");
    }
    Ok(())
}

/// Nothing half-made stands anywhere: no staged tree, no tree without its mark, no mark without its tree, no
/// temporary link or file.
fn leftovers(host: &WebHost) -> Result<()> {
    let inventory = host.inventory()?;
    let named = |folder: &str| -> Vec<String> {
        inventory.keys().filter_map(|name| name.strip_prefix(folder)).map(str::to_owned).collect()
    };
    let staged = named(".pointsman/staging/");
    ensure!(staged.is_empty(), "staged trees are left: {staged:?}");
    let (trees, marks) = (named("artifacts/"), named(".pointsman/complete/"));
    ensure!(trees == marks, "trees {trees:?} and their marks {marks:?} differ");
    let known = [".maintenance", ".pointsman", "artifacts", "current", "previous"];
    let mut roots = inventory.keys().filter(|name| !name.contains('/'));
    let stray: Vec<_> = roots.by_ref().filter(|name| !known.contains(&name.as_str())).collect();
    ensure!(stray.is_empty(), "left in the site root: {stray:?}");
    Ok(())
}

/// The steps of a confirmed deploy that leave receipts, by their host's part.
const DEPLOY: [(&str, bool); 8] = [
    ("preflight", true),
    ("preflight", false),
    ("stage", false),
    ("drain", true),
    ("activate", false),
    ("expose", true),
    ("check", false),
    ("switch", true),
];

fn books(site: &Site, release: &str, outcome: &str) -> Result<()> {
    JournalStore::open(&site.journal(), "chaos")?;
    let books = Books::read(site)?;
    let contradictions = books.contradictions(release);
    ensure!(contradictions.is_empty(), "{contradictions:?}");
    let deploys = books.of(release).any(|fact| fact.text("step") == "stage");
    if outcome == "confirmed" && deploys {
        let balancers: Vec<&str> = site.lb_agents().iter().map(|(host, _)| *host).collect();
        for (step, balancer) in DEPLOY {
            let hosts =
                books.of(release).filter(|fact| fact.event() == "order-done" && fact.text("step") == step);
            let hosts: Vec<&str> = hosts.map(|fact| fact.text("host")).collect();
            let done = match balancer {
                true => balancers.iter().all(|host| hosts.contains(host)),
                false => hosts.iter().any(|host| !balancers.contains(host)),
            };
            ensure!(done, "confirmed, but `{step}` is recorded as done on {hosts:?} only");
        }
    }
    Ok(())
}
