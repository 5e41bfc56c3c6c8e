//! A whole site of real parts: one HAProxy or two, two nginx, an agent for each of them and a coordinator, with
//! certificates of its own, in one temporary folder and on one loopback address. Dropping it ends everything.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use tokio::process::Child;

use crate::cli::{self, Told};
use crate::client::Client;
use crate::daemon::Daemon;
use crate::database::DatabaseHost;
use crate::haproxy::{self, Haproxy};
use crate::pair::{self, Pair};
use crate::pki::{Authority, Identity, Subject, uri};
use crate::process::{Process, binary};
use crate::web_host::WebHost;
use crate::world::World;
use crate::{net, nginx, tree, wait};

/// The environment of every test site.
pub const ENVIRONMENT: &str = "production";
/// The trust domain of every test site.
pub const TRUST_DOMAIN: &str = "example.org";
/// Longest time for a part to be ready.
const READY: Duration = Duration::from_secs(20);
/// The people of a site: role, kind and name in the certificate.
const PEOPLE: [(&str, &str, &str); 3] =
    [("operator", "user", "admin"), ("ci", "project", "pipeline"), ("viewer", "user", "screen")];

/// What may differ between sites.
#[derive(Clone, Debug)]
pub struct SiteBuilder {
    watch: String,
    blind: String,
    watching: String,
    stage: String,
    check: String,
    by_init: bool,
    balancers: usize,
    strategy: String,
    database: bool,
    file: String,
    granted: String,
    drain_end: String,
    shared_address: bool,
}

impl Default for SiteBuilder {
    fn default() -> Self {
        Self {
            watch: "1s".to_owned(),
            blind: "20s".to_owned(),
            watching: String::new(),
            stage: "60s".to_owned(),
            check: "10s".to_owned(),
            by_init: false,
            balancers: 1,
            strategy: String::new(),
            database: false,
            file: String::new(),
            granted: String::new(),
            drain_end: "leave".to_owned(),
            shared_address: false,
        }
    }
}

/// The folder of secrets that checks may read, and in it what nginx takes for a password.
const SECRETS: &str = "secrets";

fn write_secret(folder: &Path) -> Result<()> {
    let path = folder.join("password");
    std::fs::create_dir_all(folder)?;
    std::fs::write(&path, format!("{}\n", nginx::PASSWORD))?;
    Ok(std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?)
}

/// The names of a site's load balancers, as many as it can have.
const BALANCERS: [&str; 2] = ["lb1", "lb2"];

/// A load balancer beside the first, in front of the same slots.
pub struct Second {
    // Who obeys ends before what serves.
    pub(crate) lb_agent: Option<Process>,
    /// Its HAProxy.
    pub haproxy: Haproxy,
}

/// A running site.
pub struct Site {
    // Declared in the order in which they must end: who orders, who obeys, what serves, and the folder last.
    pub(crate) coordinator: Option<Process>,
    pub(crate) lb_agent: Option<Process>,
    pub(crate) second: Option<Second>,
    /// The database's host, where the site has one.
    pub database: Option<DatabaseHost>,
    /// The load balancer; the first, where there are two.
    pub haproxy: Haproxy,
    /// A web host.
    pub blue: WebHost,
    /// The other.
    pub green: WebHost,
    /// The network of two load balancers that share an address.
    pair: Option<Pair>,
    addresses: Addresses,
    authority: Authority,
    folder: TempDir,
}

/// Where the parts of one load balancer listen.
#[derive(Clone, Copy, Debug)]
struct BalancerAddresses {
    name: &'static str,
    frontend: SocketAddr,
    /// Where its agent asks the frontend, if it is not where visitors do.
    asked: Option<SocketAddr>,
    agent: SocketAddr,
    lines: SocketAddr,
}

#[derive(Clone, Debug)]
struct Addresses {
    coordinator: SocketAddr,
    database: SocketAddr,
    blue: (SocketAddr, SocketAddr),
    green: (SocketAddr, SocketAddr),
    first: BalancerAddresses,
    second: Option<BalancerAddresses>,
}

impl Addresses {
    fn reserve(balancers: usize) -> Result<Self> {
        let names = BALANCERS.get(..balancers).context("a site has one load balancer or two")?;
        let ports = net::reserve(6 + 3 * balancers)?;
        let [coordinator, database, blue_web, blue_agent, green_web, green_agent, rest @ ..] =
            ports.as_slice()
        else {
            bail!("asked for ports, got {}", ports.len());
        };
        let mut found = names.iter().zip(rest.chunks(3)).filter_map(|(name, ports)| match *ports {
            [frontend, agent, lines] => Some(BalancerAddresses { name, frontend, asked: None, agent, lines }),
            _ => None,
        });
        Ok(Self {
            coordinator: *coordinator,
            database: *database,
            blue: (*blue_web, *blue_agent),
            green: (*green_web, *green_agent),
            first: found.next().context("no load balancer")?,
            second: found.next(),
        })
    }

    /// Those of two load balancers that share an address. Nobody else is in their network.
    fn shared() -> Self {
        let outside = |port| SocketAddr::new(pair::OUTSIDE, port);
        let balancer = |name, own| BalancerAddresses {
            name,
            frontend: SocketAddr::new(pair::SHARED, 80),
            asked: Some(SocketAddr::from(([127, 0, 0, 1], 80))),
            agent: SocketAddr::new(own, 7461),
            lines: SocketAddr::from(([127, 0, 0, 1], 7462)),
        };
        let ([first, second], [own, others]) = (BALANCERS, pair::OWN);
        Self {
            coordinator: outside(7443),
            database: outside(7444),
            blue: (outside(8001), outside(7451)),
            green: (outside(8002), outside(7452)),
            first: balancer(first, own),
            second: Some(balancer(second, others)),
        }
    }

    fn balancers(&self) -> impl Iterator<Item = BalancerAddresses> {
        [Some(self.first), self.second].into_iter().flatten()
    }
}

impl SiteBuilder {
    /// How long releases are watched, as `2s`.
    #[must_use]
    pub fn watch(mut self, duration: &str) -> Self {
        duration.clone_into(&mut self.watch);
        self
    }

    /// How long the watch may be without sight.
    #[must_use]
    pub fn blind(mut self, span: &str) -> Self {
        span.clone_into(&mut self.blind);
        self
    }

    /// Further lines of `[watch]`.
    #[must_use]
    pub fn watching(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.watching);
        self
    }

    /// How long one attempt to bring an artifact to a host may take.
    #[must_use]
    pub fn stage(mut self, duration: &str) -> Self {
        duration.clone_into(&mut self.stage);
        self
    }

    /// How long all checks from one place may take together.
    #[must_use]
    pub fn check(mut self, duration: &str) -> Self {
        duration.clone_into(&mut self.check);
        self
    }

    /// Takes the certificates that `pointsman init` makes, instead of the kit's own.
    #[must_use]
    pub fn certificates_by_init(mut self) -> Self {
        self.by_init = true;
        self
    }

    /// How many load balancers stand in front of the slots: one or two.
    #[must_use]
    pub fn balancers(mut self, count: usize) -> Self {
        self.balancers = count;
        self
    }

    /// Two load balancers that share the address which visitors ask, and have it one at a time: inside a call of
    /// [`crate::in_own_network`]. Their agents ask at loopback.
    #[must_use]
    pub fn shared_address(mut self) -> Self {
        self.shared_address = true;
        self
    }

    /// Moves these shares of the visitors first, and watches each so long.
    #[must_use]
    pub fn canary(mut self, splits: &[u8], hold: &str) -> Self {
        self.strategy =
            format!("[strategy]\nkind = \"canary\"\ncanary = {{ splits = {splits:?}, hold = \"{hold}\" }}\n");
        self
    }

    /// Has a PostgreSQL server with a database, and an agent for it.
    #[must_use]
    pub fn database(mut self) -> Self {
        self.database = true;
        self
    }

    /// What becomes of requests that a drain has waited for long enough: `leave`, `cut`.
    #[must_use]
    pub fn drain_end(mut self, end: &str) -> Self {
        end.clone_into(&mut self.drain_end);
        self
    }

    /// Adds this to what checks may use on the load balancers.
    #[must_use]
    pub fn granted(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.granted);
        self
    }

    /// Adds this to the end of the environment file: more checks, points of the checklist. `PASSWORD_FILE` in it is the path
    /// of [`Site::password_file`].
    #[must_use]
    pub fn file(mut self, text: &str) -> Self {
        self.file.push_str(text);
        self
    }

    /// Starts everything and waits until it is ready.
    pub async fn start(self) -> Result<Site> {
        let folder = tempfile::Builder::new().prefix("pm-").tempdir()?;
        let addresses = match self.shared_address {
            true => Addresses::shared(),
            false => Addresses::reserve(self.balancers)?,
        };
        let pair = self.shared_address.then(|| Pair::lay(folder.path())).transpose()?;
        let authority = Authority::new("pointsman test authority")?;
        let at = |path: &str| folder.path().join(path);
        for path in ["logs", "pki", "coordinator/state", "coordinator/environments", "people", "artifacts"] {
            std::fs::create_dir_all(at(path))?;
        }
        for balancer in addresses.balancers() {
            std::fs::create_dir_all(at(balancer.name).join("state"))?;
        }
        authority.write(&at("pki/ca.pem"))?;
        write_secret(&at(SECRETS))?;
        self.write_files(folder.path(), &authority, &addresses)?;
        let host = |name: &str, addresses| -> Result<WebHost> {
            let pki = host_identity(folder.path(), &authority, "web-agent", name)?.table();
            WebHost::new(name, addresses, &at(name), &at("logs"), &pki)
        };
        let (mut blue, mut green) = (host("blue", addresses.blue)?, host("green", addresses.green)?);
        if self.by_init {
            take_certificates_of_init(folder.path(), &addresses)?;
        }
        for host in [&mut blue, &mut green] {
            host.start_nginx()?;
            host.start_agent()?;
        }
        let start = |balancer: BalancerAddresses| -> Result<Haproxy> {
            check_map(folder.path(), balancer.name)?;
            let log = at(&format!("logs/haproxy-{}.log", balancer.name));
            let layout = self.haproxy_layout(folder.path(), &addresses, balancer);
            Haproxy::start(haproxy::Layout { inside: inside(pair.as_ref(), balancer.name)?, ..layout }, &log)
        };
        let haproxy = start(addresses.first)?;
        let second = addresses.second.map(start).transpose()?;
        let second = second.map(|haproxy| Second { lb_agent: None, haproxy });
        let mut database = None;
        if self.database {
            let pki = host_identity(folder.path(), &authority, "database-agent", "db")?.table();
            let host = DatabaseHost::new(addresses.database, &at("db"), &at("logs"), &pki)?;
            database.insert(host).start_agent()?;
        }
        let mut site = Site {
            database,
            coordinator: None,
            lb_agent: None,
            second,
            haproxy,
            blue,
            green,
            pair,
            addresses,
            authority,
            folder,
        };
        site.start_lb_agent()?;
        if site.second.is_some() {
            site.start(Daemon::SecondLbAgent, None)?;
        }
        site.start_coordinator()?;
        site.ready().await?;
        Ok(site)
    }

    fn haproxy_layout(
        &self,
        folder: &Path,
        addresses: &Addresses,
        balancer: BalancerAddresses,
    ) -> haproxy::Layout {
        let own = folder.join(balancer.name);
        haproxy::Layout {
            folder: own.join("haproxy"),
            map: own.join("state/route.map"),
            frontend: balancer.frontend,
            also: balancer.asked,
            inside: Vec::new(),
            blue: addresses.blue.0,
            green: addresses.green.0,
            lines: balancer.lines,
            holds: self.database,
        }
    }

    fn write_files(&self, folder: &Path, authority: &Authority, addresses: &Addresses) -> Result<()> {
        for balancer in addresses.balancers() {
            let identity = host_identity(folder, authority, "lb-agent", balancer.name)?;
            let layout = self.haproxy_layout(folder, addresses, balancer);
            std::fs::write(
                folder.join(balancer.name).join("lb-agent.toml"),
                lb_agent_config(folder, balancer, &layout, &identity, &self.granted),
            )?;
        }
        let coordinator = host_identity(folder, authority, "coordinator", "coordinator")?;
        std::fs::write(
            folder.join("coordinator/coordinator.toml"),
            format!(
                "listen = \"{}\"\nstate = {:?}\nenvironments = {:?}\n{}",
                addresses.coordinator,
                folder.join("coordinator/state"),
                folder.join("coordinator/environments"),
                coordinator.table()
            ),
        )?;
        std::fs::write(
            folder.join(format!("coordinator/environments/{ENVIRONMENT}.toml")),
            self.environment(addresses)
                .replace("PASSWORD_FILE", &folder.join(SECRETS).join("password").display().to_string()),
        )?;
        for (role, kind, name) in PEOPLE {
            let subject = Subject::named(&[uri(ENVIRONMENT, role, kind, name)]);
            let place = folder.join("people").join(name);
            let identity = authority.issue(&subject, &place, &folder.join("pki/ca.pem"))?;
            write_cli_config(&place.join("config.toml"), &identity, addresses.coordinator)?;
        }
        Ok(())
    }

    fn environment(&self, addresses: &Addresses) -> String {
        let Addresses { first, blue, green, .. } = addresses;
        let Self { watch, blind, watching, stage, check, strategy, file, drain_end, .. } = self;
        let (database_agent, hold, database) = match self.database {
            true => (
                format!("db = \"{}\"\n", addresses.database),
                "hold = \"be_hold\"\n",
                "[database]\nagent = \"db\"\nmax_stall = \"2s\"\nlock_budget = \"20s\"\n",
            ),
            false => (String::new(), "", ""),
        };
        let frontend = first.frontend;
        let agents: String =
            addresses.balancers().map(|lb| format!("{} = \"{}\"\n", lb.name, lb.agent)).collect();
        let names: Vec<&str> = addresses.balancers().map(|balancer| balancer.name).collect();
        format!(
            r#"schema = 1
environment = "{ENVIRONMENT}"
url = "http://{frontend}"
[agents]
{agents}{database_agent}blue = "{blue}"
green = "{green}"
[lb]
agents = {names:?}
drain = "5s"
drain_end = "{drain_end}"
[slots.blue]
backend = "be_blue"
hosts = ["blue"]
[slots.green]
backend = "be_green"
hosts = ["green"]
[maintenance]
backend = "be_maint"
{hold}agents = ["blue", "green"]
[[checks]]
name = "health"
from = "hosts"
phase = ["before-switch"]
http = {{ path = "/api/health" }}
timeout = "2s"
patience = "2s"
[[checks]]
name = "deep"
phase = ["before-switch", "after-switch"]
http = {{ path = "/api/deep", expect = {{ status = 200, body = "deep" }} }}
timeout = "2s"
patience = "2s"
{strategy}{database}[watch]
duration = "{watch}"
interval = "100ms"
fail_after = 3
blind = "{blind}"
{watching}
[limits]
inspect = "4s"
stage = "{stage}"
activate = "20s"
route = "5s"
check = "{check}"
healthy = "4s"
attempts = 4
persist = "20s"
{file}"#,
            blue = blue.1,
            green = green.1,
        )
    }
}

fn host_identity(folder: &Path, authority: &Authority, role: &str, name: &str) -> Result<Identity> {
    let subject = Subject::host(uri(ENVIRONMENT, role, "host", name), name);
    authority.issue(&subject, &folder.join("pki").join(name), &folder.join("pki/ca.pem"))
}

fn lb_agent_config(
    folder: &Path,
    balancer: BalancerAddresses,
    layout: &haproxy::Layout,
    identity: &Identity,
    granted: &str,
) -> String {
    format!(
        r#"listen = "{}"
state = {:?}
{}
[haproxy]
socket = {:?}
master = {:?}
map = {:?}
backends = ["be_blue", "be_green"]
maintenance_backend = "be_maint"
{}[frontend]
address = "{}"
host = "www.example.org"
[signals]
listen = "{}"
[checks]
secrets = {:?}
{granted}
"#,
        balancer.agent,
        folder.join(balancer.name).join("state"),
        identity.table(),
        layout.socket(),
        layout.master(),
        layout.map,
        if layout.holds { "hold_backend = \"be_hold\"\n" } else { "" },
        balancer.asked.unwrap_or(balancer.frontend),
        layout.lines,
        folder.join(SECRETS),
    )
}

fn write_cli_config(path: &Path, identity: &Identity, coordinator: SocketAddr) -> Result<()> {
    let Identity { cert, key, ca } = identity;
    let text = format!(
        "[environments.{ENVIRONMENT}]\ncoordinator = \"{coordinator}\"\nname = \"coordinator\"\n\
         cert = {cert:?}\nkey = {key:?}\nca = {ca:?}\n"
    );
    Ok(std::fs::write(path, text)?)
}

/// Runs `pointsman init`, and puts its certificates where the kit's own were.
fn take_certificates_of_init(folder: &Path, addresses: &Addresses) -> Result<()> {
    let made = folder.join("init");
    let mut command = Command::new(binary("pointsman")?);
    command.args(["init", "--environment", ENVIRONMENT, "--trust-domain", TRUST_DOMAIN, "--dir"]).arg(&made);
    command.args(["--coordinator", "coordinator=127.0.0.1:7443"]);
    for balancer in addresses.balancers() {
        command.arg("--balancer").arg(format!("{}={}", balancer.name, balancer.agent));
    }
    command.args(["--web", "blue=127.0.0.1:7451", "--web", "green=127.0.0.1:7452"]);
    command.args(["--operator", "admin", "--ci", "pipeline", "--viewer", "screen"]);
    let output = command.output()?;
    if !output.status.success() {
        bail!("init failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let hosts = [("coordinator", "coordinator"), ("blue", "agent"), ("green", "agent")];
    let balancers = addresses.balancers().map(|balancer| (balancer.name, "lb-agent"));
    let hosts = hosts
        .into_iter()
        .chain(balancers)
        .map(|(host, daemon)| (format!("hosts/{host}/etc/pointsman/pki/{daemon}"), format!("pki/{host}")));
    let people = PEOPLE.map(|(role, _, name)| (format!("people/{role}-{name}"), format!("people/{name}")));
    for (from, to) in hosts.chain(people) {
        for file in ["cert.pem", "key.pem"] {
            let (from, to) = (made.join(&from).join(file), folder.join(&to).join(file));
            std::fs::copy(&from, to).with_context(|| format!("init did not write {from:?}"))?;
        }
    }
    std::fs::copy(made.join("ca/ca.pem"), folder.join("pki/ca.pem"))?;
    Ok(())
}

/// The words before a command that is to run on a host.
fn inside(pair: Option<&Pair>, host: &str) -> Result<Vec<String>> {
    match (pair, BALANCERS.iter().position(|name| *name == host)) {
        (Some(pair), Some(index)) => pair.inside(index),
        _ => Ok(Vec::new()),
    }
}

/// Has an lb-agent write a first route, as its unit does before HAProxy starts.
fn check_map(folder: &Path, balancer: &str) -> Result<()> {
    let mut command = Command::new(binary("pointsman-lb-agent")?);
    command.arg("--config").arg(folder.join(balancer).join("lb-agent.toml")).arg("check-map");
    let output = command.output()?;
    if !output.status.success() {
        bail!("check-map failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

impl Site {
    /// A site with short waits.
    pub fn builder() -> SiteBuilder {
        SiteBuilder::default()
    }

    /// The file that holds the password which nginx takes; checks may read it.
    pub fn password_file(&self) -> PathBuf {
        self.folder().join(SECRETS).join("password")
    }

    /// The site's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where visitors come in; by the first load balancer, where there are two.
    pub fn frontend(&self) -> SocketAddr {
        self.addresses.first.frontend
    }

    /// Where visitors come in by each load balancer.
    pub fn frontends(&self) -> Vec<SocketAddr> {
        self.addresses.balancers().map(|balancer| balancer.frontend).collect()
    }

    /// Where the agent of each load balancer listens, by the name of its host.
    pub fn lb_agents(&self) -> Vec<(&'static str, SocketAddr)> {
        self.addresses.balancers().map(|balancer| (balancer.name, balancer.agent)).collect()
    }

    /// Every HAProxy, the first one first.
    pub fn haproxies(&self) -> impl Iterator<Item = &Haproxy> {
        std::iter::once(&self.haproxy).chain(self.second.as_ref().map(|second| &second.haproxy))
    }

    /// The second HAProxy.
    pub fn second_haproxy(&mut self) -> Result<&mut Haproxy> {
        Ok(&mut self.second.as_mut().context("the site has one load balancer")?.haproxy)
    }

    /// The route on every load balancer, the first one first.
    pub async fn routes(&self) -> Result<Vec<String>> {
        let mut routes = Vec::new();
        for haproxy in self.haproxies() {
            routes.push(haproxy.route().await?);
        }
        Ok(routes)
    }

    /// The words before a command that is to run on a host.
    pub(crate) fn inside(&self, host: &str) -> Result<Vec<String>> {
        inside(self.pair.as_ref(), host)
    }

    /// Moves the address that two load balancers share to the other one. Returns when that began and ended.
    pub fn fail_over(&mut self) -> Result<(Instant, Instant)> {
        self.pair.as_mut().context("no address is shared")?.fail_over()
    }

    /// Where the coordinator listens.
    pub fn coordinator(&self) -> SocketAddr {
        self.addresses.coordinator
    }

    /// The authority that signed the site's certificates.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The coordinator's journal.
    pub fn journal(&self) -> PathBuf {
        self.folder().join("coordinator/state/journal.db")
    }

    /// The file with the authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder().join("pki/ca.pem")
    }

    /// Makes a small artifact whose page says `marker`.
    pub fn artifact(&self, marker: &str) -> Result<PathBuf> {
        tree::make(&self.folder().join("artifacts").join(marker), marker)
    }

    /// A web host by its name.
    pub fn host(&self, name: &str) -> Result<&WebHost> {
        match name {
            "blue" => Ok(&self.blue),
            "green" => Ok(&self.green),
            other => bail!("there is no host `{other}`"),
        }
    }

    /// Starts the coordinator.
    pub fn start_coordinator(&mut self) -> Result<()> {
        self.start(Daemon::Coordinator, None)
    }

    /// Kills the coordinator, as a power cut would.
    pub fn kill_coordinator(&mut self) -> Result<()> {
        self.kill(Daemon::Coordinator)
    }

    /// Starts the lb-agent anew without the signals of visitors. Everything else it does as before.
    pub fn lose_signals(&mut self) -> Result<()> {
        let file = self.folder().join("lb1/lb-agent.toml");
        let text = std::fs::read_to_string(&file)?;
        let without = text.split_once("[signals]").context("it had no signals")?.0;
        std::fs::write(&file, without)?;
        self.kill_lb_agent()?;
        self.start_lb_agent()
    }

    /// Starts the lb-agent.
    pub fn start_lb_agent(&mut self) -> Result<()> {
        self.start(Daemon::LbAgent, None)
    }

    /// Kills the lb-agent, as a power cut would.
    pub fn kill_lb_agent(&mut self) -> Result<()> {
        self.kill(Daemon::LbAgent)
    }

    /// Starts HAProxy again after it was killed, as its unit does: the map file is checked first.
    pub fn restart_haproxy(&mut self) -> Result<()> {
        check_map(self.folder(), "lb1")?;
        self.haproxy.restart()
    }

    /// Starts the second HAProxy again after it was killed.
    pub fn restart_second_haproxy(&mut self) -> Result<()> {
        check_map(self.folder(), "lb2")?;
        self.second_haproxy()?.restart()
    }

    fn must_run(&mut self) -> Result<()> {
        self.haproxy.must_run()?;
        if let Some(second) = &mut self.second {
            second.haproxy.must_run()?;
            second.lb_agent.as_mut().map_or(Ok(()), Process::must_run)?;
        }
        let processes = [
            &mut self.coordinator,
            &mut self.lb_agent,
            &mut self.blue.nginx,
            &mut self.blue.agent_process,
            &mut self.green.nginx,
            &mut self.green.agent_process,
        ];
        processes.into_iter().flatten().try_for_each(Process::must_run)
    }

    /// Waits until every agent answers the coordinator and both slots are healthy for HAProxy.
    pub async fn ready(&mut self) -> Result<()> {
        let mut client = self.client()?;
        let waited = wait::until("every part answers", READY, || {
            let mut client = client.clone();
            let haproxies: Vec<&Haproxy> = self.haproxies().collect();
            async move {
                let status = client.status().await.ok()?;
                let mut well = status.agents.iter().all(|agent| agent.problem.is_none());
                for haproxy in haproxies {
                    for backend in ["be_blue", "be_green"] {
                        well &= haproxy.server(backend).await? == "UP";
                    }
                }
                well.then_some(())
            }
        })
        .await;
        self.must_run()?;
        if waited.is_err() {
            let status = client.status().await;
            return waited.with_context(|| format!("the coordinator says {status:?}"));
        }
        waited
    }

    /// Waits until the coordinator answers.
    pub async fn coordinator_answers(&mut self) -> Result<Client> {
        let client = self.client()?;
        wait::until("the coordinator answers", READY, || {
            let mut client = client.clone();
            async move { client.releases().await.ok() }
        })
        .await?;
        Ok(client)
    }

    /// The name in the coordinator's certificate.
    pub fn coordinator_name() -> String {
        uri(ENVIRONMENT, "coordinator", "host", "coordinator")
    }

    /// The files of a person's certificate: `admin`, `pipeline` or `screen`.
    pub fn person(&self, name: &str) -> Identity {
        let place = self.folder().join("people").join(name);
        Identity { cert: place.join("cert.pem"), key: place.join("key.pem"), ca: self.ca() }
    }

    /// The files of a daemon's certificate, by the name of its host.
    pub fn identity_of(&self, host: &str) -> Identity {
        let place = self.folder().join("pki").join(host);
        Identity { cert: place.join("cert.pem"), key: place.join("key.pem"), ca: self.ca() }
    }

    /// A caller of the coordinator: the operator.
    pub fn client(&self) -> Result<Client> {
        self.client_as(&self.person("admin"))
    }

    /// A caller of the coordinator with any identity.
    pub fn client_as(&self, identity: &Identity) -> Result<Client> {
        Client::new(identity, self.coordinator(), &Self::coordinator_name())
    }

    fn cli_config(&self, person: &str) -> PathBuf {
        self.folder().join("people").join(person).join("config.toml")
    }

    /// Runs `pointsman` as the operator.
    pub async fn cli(&self, words: &[&str]) -> Result<Told> {
        self.cli_as("admin", words).await
    }

    /// Runs `pointsman` as a person of the site.
    pub async fn cli_as(&self, person: &str, words: &[&str]) -> Result<Told> {
        cli::run(&self.cli_config(person), words).await
    }

    /// Runs `pointsman` with any identity.
    pub async fn cli_with(&self, identity: &Identity, words: &[&str]) -> Result<Told> {
        let config = self.folder().join("people/other.toml");
        write_cli_config(&config, identity, self.coordinator())?;
        cli::run(&config, words).await
    }

    /// Starts `pointsman` as the operator and leaves it running.
    pub fn cli_start(&self, words: &[&str]) -> Result<Child> {
        cli::spawn(&self.cli_config("admin"), words)
    }

    /// Releases a folder over gRPC and waits for the end. Returns the outcome.
    pub async fn release(&self, folder: &Path, release: &str) -> Result<String> {
        let mut client = self.client()?;
        let digest = crate::publish(&mut client, folder).await?;
        let release = client.deploy(&digest, release).await?;
        client.outcome(&release).await
    }

    /// Releases a small artifact that says `marker`, and fails unless it is confirmed. Returns its folder.
    pub async fn released(&self, marker: &str) -> Result<PathBuf> {
        let folder = self.artifact(marker)?;
        match self.release(&folder, marker).await?.as_str() {
            "confirmed" => Ok(folder),
            other => bail!("release `{marker}` ended as {other}"),
        }
    }

    /// The same, and the watch ends as soon as its gates are green: for sites with long watches.
    pub async fn released_unwatched(&self, marker: &str) -> Result<()> {
        let mut client = self.client()?;
        let digest = crate::publish(&mut client, &self.artifact(marker)?).await?;
        let release = client.deploy(&digest, marker).await?;
        client.follow(&release, |seen| seen.done("switch")).await?;
        let ask =
            pointsman_proto::v1::AskRequest { environment: ENVIRONMENT.to_owned(), ..Default::default() };
        client.api.promote(ask).await?;
        client.confirmed(&release).await
    }

    /// What a visitor gets who comes now: status line, headers, page.
    pub async fn visit(&self) -> Result<String> {
        net::ask(self.frontend(), "/page.txt").await
    }

    /// The whole site as it stands.
    pub async fn world(&self) -> Result<World> {
        let page = self.visit().await?;
        let line = |line: Option<&str>| line.unwrap_or("").to_owned();
        let releases = self.client()?.releases().await?;
        let hosts = [&self.blue, &self.green].map(|host| Ok((host.name.clone(), host.inventory()?)));
        Ok(World {
            route: self.haproxy.route().await?,
            route_on_disk: std::fs::read_to_string(&self.haproxy.layout().map)?,
            hosts: hosts.into_iter().collect::<Result<_>>()?,
            store: self.store()?,
            releases: releases
                .into_iter()
                .map(|release| (release.plan.unwrap_or_default().release, release.outcome))
                .collect(),
            page: (line(page.lines().next()), line(page.lines().last())),
        })
    }

    fn store(&self) -> Result<BTreeMap<String, u64>> {
        let root = self.folder().join("coordinator/state/artifacts");
        let mut files = BTreeMap::new();
        for (path, place) in tree::paths(&root)? {
            let metadata = std::fs::symlink_metadata(place)?;
            if metadata.is_file() {
                files.insert(path.display().to_string(), metadata.len());
            }
        }
        Ok(files)
    }
}
