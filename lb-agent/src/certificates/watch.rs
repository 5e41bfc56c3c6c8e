//! Takes renewed certificates from the folders that the configuration names, and finishes what a crash or a reload cut
//! short. Nobody orders this: the folders are the agent's own grant. What does not do is said once, and stands in the
//! facts until it changes.

use std::time::Duration;

use pointsman_chassis::hints::Hints;
use pointsman_chassis::site_certificate::SiteCertificate;
use pointsman_core::{Aftermath, Code, Problem, Retry};
use tokio::time::Instant;
use tracing::{info, warn};

use super::Granted;
use super::deploy::{deploy, resume};
use crate::balancer::Balancer;

/// How often the folders are looked at without a hint from the file system, which loses some and on some mounts has none.
const LOOK: Duration = Duration::from_secs(600);
/// How often HAProxy is looked at: after a reload it may serve what was in place before.
const TICK: Duration = Duration::from_secs(10);
/// How long after a hint the folders are looked at: chain and key are two files, and both must have been written.
const SETTLE: Duration = Duration::from_millis(500);
/// How soon it is tried again after a passing fault: HAProxy did not answer, or the disk was full.
const AGAIN: Duration = Duration::from_secs(30);

/// What was made of a folder's content, so that what visitors were shown in vain is not shown to them again and again.
#[derive(Default)]
struct Tried {
    /// The certificate that was given up, until HAProxy is reloaded.
    given_up: Option<Name>,
    problem: Option<Problem>,
}

/// A certificate among those that come into a folder: its leaf, and how long its chain is.
type Name = (String, usize);

/// Looks after the certificates for ever.
pub async fn watch(balancer: Balancer) {
    let granted = balancer.certificates.granted.clone();
    if granted.is_empty() {
        return;
    }
    let mut hints = Hints::of(granted.iter().filter_map(|granted| granted.watch.as_deref()));
    let mut tried: Vec<Tried> = granted.iter().map(|_| Tried::default()).collect();
    let (mut settled, mut next_look) = (None, Instant::now());
    loop {
        // HAProxy is down or busy: the next look will tell.
        let worker = balancer.workers.info().await.ok().map(|info| info.worker());
        if worker.is_some() && worker != settled {
            let resumed = finish(&balancer, &granted).await;
            settled = worker.filter(|_| resumed);
            // With another configuration it may be shown.
            tried.iter_mut().for_each(|tried| tried.given_up = None);
            next_look = Instant::now();
        }
        if Instant::now() >= next_look {
            let mut again = LOOK;
            for (granted, tried) in granted.iter().zip(&mut tried) {
                again = again.min(take(&balancer, granted, tried).await);
            }
            next_look = Instant::now() + again;
        }
        if hints.within(TICK).await {
            tokio::time::sleep(SETTLE).await;
            next_look = Instant::now();
        }
    }
}

/// Says whether everything that was cut short is finished, or was looked at in vain.
async fn finish(balancer: &Balancer, granted: &[Granted]) -> bool {
    let mut done = true;
    for granted in granted {
        match resume(balancer, granted).await {
            Ok(Some(evidence)) => info!(detail = evidence.detail, "a deploy was cut short: went on with it"),
            Ok(None) => {}
            Err(problem) => {
                done &= problem.code != Code::RuntimeSocketUnreachable;
                warn!(path = granted.path.as_str(), problem = %problem.in_full(), "could not go on with a deploy");
            }
        }
    }
    done
}

/// When it is tried again; `None` where visitors were shown it in vain, and each try would have those of that moment see
/// another certificate. Whatever else refused it was asked before anybody was shown anything: dates come true, and disks
/// are cleared, without a word to the agent.
fn again_after(problem: &Problem) -> Option<Duration> {
    let silent = problem.code == Code::RuntimeSocketUnreachable || problem.aftermath == Aftermath::Unknown;
    match (problem.code, problem.retry) {
        _ if silent => Some(AGAIN),
        (Code::CertificateNotSeen, Retry::Useless) => None,
        // It was served for as long as no handshake came about.
        (Code::CertificateNotSeen, Retry::Useful) | (_, Retry::Useless) => Some(LOOK),
        (_, Retry::Useful) => Some(AGAIN),
    }
}

/// Deploys what is in a certificate's folder if it is another than the one in place. Returns when to look again.
async fn take(balancer: &Balancer, granted: &Granted, tried: &mut Tried) -> Duration {
    let Some(folder) = &granted.watch else { return LOOK };
    let found = SiteCertificate::read_pair(&folder.join("fullchain.pem"), &folder.join("privkey.pem"));
    let name: Option<Name> =
        found.as_ref().ok().map(|found| (found.facts().sha1.clone(), found.chain_length()));
    let given_up = name.is_some() && tried.given_up == name;
    let in_place = |found: &SiteCertificate| {
        granted.place.read().is_ok_and(|here| here.pem() == found.with_parameters_of(&here).pem())
    };
    let taken = match found {
        Ok(found) if in_place(&found) => Ok(()),
        Ok(_) if given_up => return LOOK,
        Ok(found) => deploy(balancer, granted, &found, &[], || Ok(())).await.map(|evidence| {
            info!(detail = evidence.detail, "took a renewed certificate from its folder");
        }),
        Err(problem) => Err(problem),
    };
    let (problem, again) = match taken {
        Ok(()) => (None, LOOK),
        Err(problem) => {
            let again = again_after(&problem);
            tried.given_up = if again.is_none() { name } else { None };
            (Some(problem), again.unwrap_or(LOOK))
        }
    };
    if let Some(problem) = problem.as_ref().filter(|_| problem != tried.problem) {
        warn!(path = granted.path.as_str(), folder = %folder.display(), problem = %problem.in_full(), "what is in the folder is not taken");
    }
    balancer.certificates.found(&granted.path, problem.clone());
    tried.problem = problem;
    again
}
