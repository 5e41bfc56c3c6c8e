//! A network of its own, in which two load balancers share an address as keepalived has them: a network namespace for each
//! of them, a bridge that visitors, web hosts and the coordinator are on, and an address that is moved from one to the other.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::getuid;

use crate::process::Process;

/// Set in a process that is in a network of its own.
const INSIDE: &str = "POINTSMAN_TEST_NETWORK";

/// Who asks, and what serves: all that is no load balancer.
pub(crate) const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 64, 0, 1));
/// The address that both load balancers have, one at a time.
pub(crate) const SHARED: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 64, 0, 100));
/// The addresses that they have all the time.
pub(crate) const OWN: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 64, 0, 11)), IpAddr::V4(Ipv4Addr::new(10, 64, 0, 12))];

/// Has a test run in a network of its own, where addresses may be moved and nobody else's are touched: calls the same test
/// again in one, and fails if it fails there. Returns whether this is the call inside, which does the work. Without root it
/// needs user namespaces; where there are none it says so and skips.
pub fn in_own_network(test: &str) -> Result<bool> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(true);
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.arg(if getuid().is_root() { "--net" } else { "-rn" }).stdin(Stdio::null());
        command
    };
    if !unshare().arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("skipped {test}: no network namespaces here");
        return Ok(false);
    }
    let mut command = unshare();
    command.arg(std::env::current_exe()?).args([test, "--exact", "--nocapture", "--test-threads=1"]);
    let output = command.env(INSIDE, "1").output().context("cannot start `unshare`")?;
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    // A name that is no test's would pass, with none run.
    if !output.status.success() || !said.contains("1 passed") {
        bail!("in a network of its own `{test}` ended with {}:\n{said}", output.status);
    }
    Ok(false)
}

/// Two load balancers' networks. Dropping it ends them.
#[derive(Debug)]
pub struct Pair {
    /// What keeps each namespace.
    hosts: [Process; 2],
    /// Which of them has the shared address.
    holder: usize,
}

impl Pair {
    /// Lays the network, inside a call of [`in_own_network`]. The first load balancer has the shared address.
    pub fn lay(folder: &Path) -> Result<Self> {
        run("ip", "link set lo up")?;
        run("ip", "link add br0 type bridge")?;
        run("ip", &format!("addr add {OUTSIDE}/24 dev br0"))?;
        run("ip", "link set br0 up")?;
        let host = |index: usize| {
            let mut command = Command::new("unshare");
            command.args(["--net", "sleep", "infinity"]);
            Process::start("a network", &mut command, &folder.join(format!("network-{index}.log")))
        };
        let pair = Self { hosts: [host(0)?, host(1)?], holder: 0 };
        for (index, own) in OWN.iter().enumerate() {
            pair.is_apart(index)?;
            run("ip", &format!("link add lb{index} type veth peer name eth0 netns {}", pair.pid(index)?))?;
            run("ip", &format!("link set lb{index} master br0 up"))?;
            for words in ["link set lo up", &format!("addr add {own}/24 dev eth0"), "link set eth0 up"] {
                pair.run_in(index, "ip", words)?;
            }
            // HAProxy has to be able to start where the address is not.
            pair.run_in(index, "sysctl", "-qw net.ipv4.ip_nonlocal_bind=1")?;
        }
        pair.run_in(0, "ip", &format!("addr add {SHARED}/32 dev eth0"))?;
        Ok(pair)
    }

    fn pid(&self, index: usize) -> Result<u32> {
        Ok(self.hosts.get(index).context("there are two load balancers")?.pid())
    }

    /// Waits until a host has left the network that it was started in.
    fn is_apart(&self, index: usize) -> Result<()> {
        let network = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/net"));
        let (own, give_up) = (network("self")?, Instant::now() + Duration::from_secs(10));
        while network(&self.pid(index)?.to_string())? == own {
            if Instant::now() > give_up {
                bail!("load balancer {index} got no network of its own");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// The words before a command that is to run on a load balancer.
    pub(crate) fn inside(&self, index: usize) -> Result<Vec<String>> {
        Ok(["nsenter", "--net", "--target", &self.pid(index)?.to_string()].map(str::to_owned).to_vec())
    }

    fn run_in(&self, index: usize, program: &str, words: &str) -> Result<()> {
        let prefix = self.inside(index)?.join(" ");
        let (nsenter, rest) = prefix.split_once(' ').context("no words")?;
        run(nsenter, &format!("{rest} {program} {words}"))
    }

    /// Moves the shared address to the other load balancer, and returns when that began and ended. Whoever had a connection to the
    /// one before finds nobody at its end: that is what such a move is.
    pub fn fail_over(&mut self) -> Result<(Instant, Instant)> {
        let (from, began) = (self.holder, Instant::now());
        let to = 1usize.saturating_sub(from);
        self.run_in(from, "ip", &format!("addr del {SHARED}/32 dev eth0"))?;
        self.run_in(to, "ip", &format!("addr add {SHARED}/32 dev eth0"))?;
        self.holder = to;
        // As whoever takes it over makes known to all.
        run("ip", &format!("neigh flush to {SHARED} dev br0"))?;
        Ok((began, Instant::now()))
    }
}

fn run(program: &str, words: &str) -> Result<()> {
    let output = Command::new(program).args(words.split(' ')).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot start `{program}`"))?;
    if !output.status.success() {
        bail!("`{program} {words}` failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
