//! A renewed certificate: on disk first, then in the worker that takes new connections, then read back and seen by a
//! handshake. It ends with the old certificate or the new one, in both places, and says which.
//!
//! Old workers are left alone: they accept no connections, so they make no handshakes.

use std::collections::BTreeSet;

use pointsman_chassis::site_certificate::{CertifiedName, InPlace, SiteCertificate};
use pointsman_core::ports::Clock as _;
use pointsman_core::{Aftermath, Code, Evidence, Problem};

use super::Granted;
use super::check::{self, Changes};
use super::handshake::{see, shows_now};
use super::runtime::is;
use crate::balancer::Balancer;
use crate::reply::ShownCertificate;

/// How often a certificate is brought to the worker: again when HAProxy was reloaded meanwhile, or did not answer.
const TRIES: u32 = 3;

/// What stood before anything was changed.
struct Before {
    on_disk: InPlace,
    /// What the worker served, if we have it: only then it can be served again.
    served: Option<InPlace>,
    shown: ShownCertificate,
    changes: Changes,
}

/// Deploys a certificate, which may lack the names in `drop` and those that the configuration lets go. `rules` is asked right before every change whether whoever wants it still may.
pub async fn deploy(
    balancer: &Balancer,
    granted: &Granted,
    new: &SiteCertificate,
    drop: &[CertifiedName],
    rules: impl Fn() -> Result<(), Problem>,
) -> Result<Evidence, Problem> {
    let _one_at_a_time = balancer.certificates.changing.lock().await;
    let on_disk = granted.place.read_in_place()?;
    let new = &new.with_parameters_of(&on_disk);
    let drop = drop.iter().chain(&granted.drop).map(CertifiedName::as_str).collect();
    let before = precheck(balancer, granted, new, on_disk, &drop).await?;
    let on_disk = before.on_disk.pem() == new.pem();
    // HAProxy names the leaf only: with another chain on disk, or after a crash, it may serve it with the chain of before.
    let served =
        on_disk && is(&before.shown, new.facts()) && shows_now(&granted.shows, new).await.unwrap_or(true);
    if !(on_disk && served) {
        rules()?;
    }
    if !on_disk {
        write_disk(granted, &before, new)?;
    }
    let brought = match rules() {
        Ok(()) => bring(balancer, granted, new, served).await,
        Err(problem) => Err(problem),
    };
    match brought {
        Ok(()) => Ok(Evidence {
            already: on_disk && served,
            detail: said(granted, new, &before.changes),
            ..Evidence::default()
        }),
        // Nothing was changed here, and nothing is: what is wrong was wrong before.
        Err(problem) if on_disk && served => Err(problem),
        Err(problem) => Err(take_back(balancer, granted, &before, new, problem).await),
    }
}

fn said(granted: &Granted, new: &SiteCertificate, changes: &Changes) -> String {
    let facts = new.facts();
    let dropped = match changes.dropped.as_slice() {
        [] => String::new(),
        dropped => format!("; without {}", dropped.join(", ")),
    };
    let keys = changes.keys.map_or_else(String::new, |(before, now)| {
        format!("; its key is {now} now, no more {before}: who takes no {now} gets no certificate from it")
    });
    let response = granted.place.foreign_response(facts).map_or_else(String::new, |path| {
        format!(
            "; `{}` is of another certificate, so no OCSP response is shown until one of this certificate is there and loaded",
            path.display()
        )
    });
    format!(
        "`{}` with serial {} read back, seen by a new handshake for `{}`{dropped}{keys}{response}",
        granted.path.as_str(),
        facts.serial,
        granted.shows.host
    )
}

async fn precheck(
    balancer: &Balancer,
    granted: &Granted,
    new: &SiteCertificate,
    on_disk: InPlace,
    drop: &BTreeSet<&str>,
) -> Result<Before, Problem> {
    let unchanged = |problem: Problem| problem.aftermath(Aftermath::Unchanged);
    granted.runtime(balancer).fits_socket(new.pem()).await.map_err(unchanged)?;
    let now = i64::try_from(pointsman_chassis::SystemClock.now().0 / 1000).unwrap_or(i64::MAX);
    let changes = check::may_follow(&granted.path, new, &on_disk, drop, now)?;
    let shown = granted.runtime(balancer).shown().await.map_err(unchanged)?;
    // After a crash in the middle, the worker may serve what is on disk no more.
    let served = [granted.place.read().ok(), granted.place.read_previous()]
        .into_iter()
        .flatten()
        .find(|known| is(&shown, known.facts()));
    Ok(Before { on_disk, served, shown, changes })
}

fn write_disk(granted: &Granted, before: &Before, new: &SiteCertificate) -> Result<(), Problem> {
    granted.place.replace(&before.on_disk, new).map_err(|problem| {
        let stands = || granted.place.read().is_ok_and(|found| found.pem() == before.on_disk.pem());
        // As a rule the old file was never touched; else it is written again.
        if stands() || (granted.place.put(before.on_disk.pem()).is_ok() && stands()) {
            return problem.aftermath(Aftermath::Unchanged);
        }
        problem
            .aftermath(Aftermath::Unknown)
            .cause("what is on disk is not certain: a reload may bring either")
    })
}

/// Has the worker serve it, reads back, and looks with a new connection; all of it again if HAProxy was reloaded
/// meanwhile, because a reload that began before the file was written brings the old one.
async fn bring(
    balancer: &Balancer,
    granted: &Granted,
    new: &SiteCertificate,
    served: bool,
) -> Result<(), Problem> {
    let runtime = granted.runtime(balancer);
    for last in (0..TRIES).map(|number| number.saturating_add(1) == TRIES) {
        let told = balancer.workers.info().await?.worker();
        let stands = served && is(&runtime.shown().await?, new.facts());
        let asked = if stands { Ok(()) } else { runtime.serve(new.pem()).await };
        // Whatever came for an answer, or none: only reading back says what the commands did.
        let shown = runtime.shown().await?;
        if balancer.workers.info().await?.worker() != told {
            continue;
        }
        match asked {
            _ if is(&shown, new.facts()) => {}
            Err(problem) if !last && problem.code == Code::RuntimeSocketUnreachable => continue,
            Err(problem) => return Err(problem),
            Ok(()) => {
                let message =
                    format!("HAProxy says that it took `{}`, but shows another", granted.path.as_str());
                return Err(Problem::new(Code::CertificateNotTaken, message));
            }
        }
        let seen = see(&granted.shows, new).await;
        if balancer.workers.info().await?.worker() == told {
            return seen;
        }
    }
    let message =
        format!("HAProxy was reloaded {TRIES} times while `{}` was deployed", granted.path.as_str());
    Err(Problem::new(Code::CertificateNotTaken, message).retry_useful())
}

/// Puts the certificate before back everywhere, and says whether that worked.
async fn take_back(
    balancer: &Balancer,
    granted: &Granted,
    before: &Before,
    new: &SiteCertificate,
    problem: Problem,
) -> Problem {
    let runtime = granted.runtime(balancer);
    runtime.abort().await;
    // What the worker served is what a reload must bring: after a crash that is not what was on disk.
    let old = before.served.as_ref().unwrap_or(&before.on_disk);
    let disk = if old.pem() == new.pem() { Ok(()) } else { granted.place.put(old.pem()) };
    let served = serve_before(balancer, granted, before, new).await;
    match (disk, served) {
        (Ok(()), Ok(())) => problem.aftermath(Aftermath::Unchanged).cause("the certificate before is back"),
        (disk, served) => {
            let places = [("on disk", disk), ("in HAProxy", served)];
            let failed = places.into_iter().filter_map(|(place, back)| Some((place, back.err()?)));
            failed.fold(problem.aftermath(Aftermath::Unknown), |problem, (place, error)| {
                problem.cause(format!("the certificate before could not be put back {place}: {error}"))
            })
        }
    }
}

async fn serve_before(
    balancer: &Balancer,
    granted: &Granted,
    before: &Before,
    new: &SiteCertificate,
) -> Result<(), Problem> {
    let runtime = granted.runtime(balancer);
    let stands = |shown: &ShownCertificate| *shown.sha1 == before.shown.sha1;
    // Of one leaf with two chains HAProxy does not say which it serves.
    if stands(&runtime.shown().await?) && !is(&before.shown, new.facts()) {
        return Ok(());
    }
    let old = before.served.as_ref().ok_or_else(|| {
        Problem::new(Code::CertificateNotTaken, "what HAProxy served before is not on disk")
    })?;
    let asked = runtime.serve(old.pem()).await;
    match runtime.shown().await {
        Ok(shown) if stands(&shown) => Ok(()),
        Ok(_) => Err(asked
            .err()
            .unwrap_or_else(|| Problem::new(Code::CertificateNotTaken, "HAProxy shows another"))),
        Err(silence) => Err(silence),
    }
}

/// Goes on with a deploy that a crash or a reload cut short: HAProxy serves the certificate that was in place before the
/// one on disk. Whatever else differs was done by a person, and is left for people to see.
pub async fn resume(balancer: &Balancer, granted: &Granted) -> Result<Option<Evidence>, Problem> {
    let (Ok(found), Some(previous)) = (granted.place.read(), granted.place.read_previous()) else {
        return Ok(None);
    };
    let shown = granted.runtime(balancer).shown().await?;
    if !is(&shown, previous.facts()) || (is(&shown, found.facts()) && found.pem() == previous.pem()) {
        return Ok(None);
    }
    let on_disk = granted.place.read_whole()?;
    // The same leaf with two chains: only a handshake tells them apart.
    if is(&shown, on_disk.facts()) && shows_now(&granted.shows, &on_disk).await != Some(false) {
        return Ok(None);
    }
    deploy(balancer, granted, &on_disk, &[], || Ok(())).await.map(Some)
}
