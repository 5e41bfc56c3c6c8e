//! Certificates of the site: renewed without a reload, and seen in a handshake before anybody is told so.

mod check;
mod deploy;
mod handshake;
mod place;
pub(crate) mod runtime;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use pointsman_chassis::site_certificate::CertifiedName;
use pointsman_core::{Code, Problem};
use pointsman_proto::{convert, v1};

pub use deploy::deploy;
pub use watch::watch;

use self::handshake::Shows;
use self::place::Place;
use self::runtime::{Runtime, is};
use crate::balancer::Balancer;
use crate::config::{CertificatePath, Config, GrantedCertificate};

/// One certificate that may be renewed, with everything that is needed for it.
#[derive(Clone, Debug)]
pub struct Granted {
    pub(crate) path: CertificatePath,
    place: Place,
    shows: Shows,
    watch: Option<PathBuf>,
    /// Names that every renewal may lack.
    drop: Vec<CertifiedName>,
}

impl Granted {
    fn runtime<'a>(&'a self, balancer: &'a Balancer) -> Runtime<'a> {
        Runtime { socket: balancer.workers.current(), path: &self.path }
    }
}

/// The certificates that may be renewed. Cheap to clone.
#[derive(Clone)]
pub struct Certificates {
    granted: Arc<[Granted]>,
    /// One change at a time: HAProxy knows one transaction.
    changing: Arc<tokio::sync::Mutex<()>>,
    /// Why what is in a folder was not taken, by path.
    problems: Arc<Mutex<BTreeMap<String, Problem>>>,
}

fn granted(config: &Config, written: &GrantedCertificate) -> Result<Granted, Problem> {
    let path = written.path.0.clone();
    let own = config.frontend.tls_ca.as_ref().map(|_| config.frontend.address);
    let address = written.address.or(own).ok_or_else(|| {
        let message =
            format!("certificate `{}` needs an `address`: `[frontend]` has no `tls_ca`", path.as_str());
        Problem::new(Code::ConfigInvalid, message)
            .hint("add where a TLS handshake shows it: `address = \"127.0.0.1:443\"`")
    })?;
    let host = written.host.clone().unwrap_or_else(|| config.frontend.host.clone());
    let proxy_protocol = config.frontend.proxy_protocol && address == config.frontend.address;
    let place = Place::new(path.as_path());
    let drop = written.drop_names.iter().map(|name| name.0.clone()).collect();
    Ok(Granted {
        path,
        place,
        shows: Shows { address, host, proxy_protocol },
        watch: written.watch.clone(),
        drop,
    })
}

impl Certificates {
    /// Those of this configuration.
    pub fn new(config: &Config) -> Result<Self, Problem> {
        let all = config.haproxy.certificates.iter().map(|written| granted(config, written));
        let granted: Arc<[Granted]> = all.collect::<Result<_, _>>()?;
        Ok(Self { granted, changing: Arc::default(), problems: Arc::default() })
    }

    /// The one that an order means; without a path the only one.
    pub fn named(&self, path: &str) -> Result<&Granted, Problem> {
        let known: Vec<&str> = self.granted.iter().map(|granted| granted.path.as_str()).collect();
        let unknown = |message: String| {
            Err(Problem::new(Code::CertificateUnknown, message)
                .hint("see what may be renewed: `pointsman cert show ENV`; grants stand in lb-agent.toml"))
        };
        match (path, &*self.granted) {
            ("", [only]) => Ok(only),
            (_, []) => unknown("this agent may renew no certificate".to_owned()),
            ("", _) => unknown(format!("this agent may renew several certificates: {}", known.join(", "))),
            _ => match self.granted.iter().find(|granted| granted.path.as_str() == path) {
                Some(granted) => Ok(granted),
                None => unknown(format!("`{path}` is not among the certificates that this agent may renew")),
            },
        }
    }

    /// The OCSP responses beside certificates that are of other ones than stand there.
    pub fn foreign_responses(&self) -> Vec<String> {
        let of_place = |granted: &Granted| {
            granted
                .place
                .foreign_response(granted.place.read().ok()?.facts())
                .map(|path| path.display().to_string())
        };
        self.granted.iter().filter_map(of_place).collect()
    }

    /// Notes what came of a look at a folder.
    fn found(&self, path: &CertificatePath, problem: Option<Problem>) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => drop(problems.insert(path.as_str().to_owned(), problem)),
            None => drop(problems.remove(path.as_str())),
        }
    }

    fn problem_of(&self, path: &CertificatePath) -> Option<Problem> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).get(path.as_str()).cloned()
    }
}

/// How the certificates stand. What cannot be said of one does not hide the others.
pub async fn facts(balancer: &Balancer) -> Vec<v1::CertificateFacts> {
    let mut all = Vec::new();
    for granted in balancer.certificates.granted.iter() {
        let mut facts = v1::CertificateFacts {
            path: granted.path.as_str().to_owned(),
            watched: granted.watch.as_ref().map(|folder| folder.display().to_string()).unwrap_or_default(),
            ..Default::default()
        };
        let (on_disk, shown) = (granted.place.read(), granted.runtime(balancer).shown().await);
        if let Ok(on_disk) = &on_disk {
            let leaf = on_disk.facts();
            facts.names = leaf.names.iter().cloned().collect();
            facts.serial.clone_from(&leaf.serial);
            (facts.not_before, facts.not_after) = (leaf.not_before, leaf.not_after);
            facts.served = shown.as_ref().is_ok_and(|shown| is(shown, leaf));
        }
        let problem =
            on_disk.err().or(shown.err()).or_else(|| balancer.certificates.problem_of(&granted.path));
        facts.problem = problem.as_ref().map(convert::problem_to_wire);
        all.push(facts);
    }
    all
}
