//! The gRPC service for the command line and CI. Parses what comes, asks the right office, and answers; it decides
//! nothing about releases.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use pointsman_chassis::SystemClock;
use pointsman_chassis::access::{peer_of, same_environment};
use pointsman_chassis::artifact::join_offer;
use pointsman_chassis::service::Shutdown;
use pointsman_chassis::site_certificate::{CertifiedName, SiteCertificate};
use pointsman_chassis::tls::{Credentials, Peer};
use pointsman_core::ports::Clock as _;
use pointsman_core::{
    Aftermath, ArtifactDigest, BackupId, Code, DatabaseWork, EnvironmentName, HostName, Plan, Problem,
    ReleaseId, Request as Asking, RequestId, RequestKind, Role, Step, clean,
};
use pointsman_proto::v1::coordinator_server::Coordinator;
use pointsman_proto::{convert, status_of_problem, v1};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::info;
use zeroize::{Zeroize as _, Zeroizing};

use crate::artifact_store::ArtifactStore;
use crate::audit::audit;
use crate::certificates;
use crate::diagnose::{Part, diagnose};
use crate::fileless::FilelessEnvironments;
use crate::fingerprint::fingerprint;
use crate::journal::JournalStore;
use crate::office::{Office, WishOf, out_of_date};
use crate::opening::Kept;
use crate::planner::{Files, Wanted};
use crate::rate_limits;
use crate::visitors::traffic::{self, Watchers};
use crate::warnings::{self, Told};
use crate::way_back::{self, leads_back, with_checks};
use crate::{check_now, checklist};

/// Longest time for an offer to arrive.
const OFFER: Duration = Duration::from_secs(120);
/// How often a follower hears of a transfer's progress.
const PROGRESS: Duration = Duration::from_millis(500);
/// How often a follower hears how far a long job on the database is: asking costs its host a few sessions.
const DATABASE_PROGRESS: Duration = Duration::from_secs(2);
/// Updates on their way to a follower; a slow one waits for its own network, nobody else does.
const UPDATES: usize = 64;
/// Longest reason kept, in characters.
const MAX_REASON_CHARS: usize = 500;
/// Versions of migrations that may be named as out of order.
const MAX_OUT_OF_ORDER: usize = 64;

/// Most load balancers that are named as out of service: more than a site has.
const MAX_WITHOUT: usize = 64;
/// Releases listed when no number is asked for, and at most.
const LISTED: (u32, u32) = (20, 500);

/// The service.
pub struct Api {
    offices: BTreeMap<EnvironmentName, Arc<Office>>,
    fileless: FilelessEnvironments,
    journal: JournalStore,
    /// The journal is verified for one caller at a time: it reads all of it.
    verifying: tokio::sync::Mutex<()>,
    watchers: Watchers,
    store: ArtifactStore,
    credentials: Arc<Credentials>,
    shutdown: Shutdown,
}

type Updates = Pin<Box<dyn Stream<Item = Result<v1::ReleaseUpdate, Status>> + Send>>;

fn reply<T>(result: Result<T, Problem>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|problem| status_of_problem(&problem))
}

fn reason_of(text: &str) -> Option<String> {
    let reason: String = clean(text).chars().take(MAX_REASON_CHARS).collect();
    Some(reason).filter(|reason| !reason.is_empty())
}

impl Api {
    /// The service over these environments, and over those that have no file. What it streams ends when the daemon is to end.
    pub fn new(
        (offices, fileless): (Vec<Arc<Office>>, FilelessEnvironments),
        journal: JournalStore,
        store: ArtifactStore,
        credentials: Arc<Credentials>,
        shutdown: Shutdown,
    ) -> Self {
        let offices = offices.into_iter().map(|office| (office.environment().name.clone(), office)).collect();
        let (verifying, watchers) = (tokio::sync::Mutex::default(), Watchers::default());
        Self { offices, fileless, journal, verifying, watchers, store, credentials, shutdown }
    }

    /// The office that a request is for, if its peer may do anything there.
    fn office<T>(&self, request: &Request<T>, environment: &str) -> Result<(Arc<Office>, Peer), Problem> {
        let peer = peer_of(request)
            .map_err(|_| Problem::new(Code::CertificateRefused, "certificate refused: none presented"))?;
        let environment: EnvironmentName = convert::field("environment", environment)?;
        // Known or not is told only to those who belong there.
        same_environment(&peer, &environment)?;
        let unknown = || {
            if let Some(fileless) = self.fileless.why_not(&environment) {
                return fileless;
            }
            let known: Vec<&str> = self.offices.keys().map(EnvironmentName::as_str).collect();
            Problem::new(
                Code::EnvironmentUnknown,
                format!("there is no environment `{environment}`; there are: {}", known.join(", ")),
            )
            .hint("environments are files in /etc/pointsman/environments on the coordinator")
        };
        self.offices.get(&environment).cloned().map(|office| (office, peer)).ok_or_else(unknown)
    }

    async fn make_plan_of(
        &self,
        office: &Office,
        peer: &Peer,
        wish: &v1::PlanRequest,
    ) -> Result<pointsman_core::Plan, Problem> {
        let wanted = wanted(peer, wish)?;
        let release = convert::optional_field::<ReleaseId>("release", &wish.release)?;
        let request_id = convert::optional_field::<RequestId>("request_id", &wish.request_id)?;
        let (reason, by) = (reason_of(&wish.reason), who(peer));
        let wish = WishOf { request_id, reason, by, without: Vec::new() };
        office.plan(wanted, release, wish).await
    }

    async fn ask(
        &self,
        request: Request<v1::AskRequest>,
        kind: RequestKind,
    ) -> Result<v1::AskReply, Problem> {
        let (office, peer) = self.office(&request, &request.get_ref().environment)?;
        let asked = request.get_ref();
        let release = convert::optional_field::<ReleaseId>("release", &asked.release)?;
        let (reason, without) = (reason_of(&asked.reason), without(&asked.without)?);
        if reason.is_none() && !without.is_empty() {
            let name = &office.environment().name;
            return Err(Problem::new(
                Code::UsageWrong,
                "who is left out of a way back is left out for a reason",
            )
            .hint(format!("`pointsman resume {name} --without HOST --reason TEXT`")));
        }
        let asking = Asking { kind, by: who(&peer), reason, without };
        office.ask(release.as_ref(), asking).await
    }
}

/// What a request asks for, if whoever asks may.
fn wanted(peer: &Peer, wish: &v1::PlanRequest) -> Result<Wanted, Problem> {
    use v1::plan_request::Purpose;
    Ok(match wish.purpose.as_ref() {
        Some(Purpose::Deploy(deploy)) => {
            let artifact = convert::field::<ArtifactDigest>("deploy.artifact", &deploy.artifact)?;
            let migrations = files(&deploy.migrations, &deploy.out_of_order)?;
            Wanted::Deploy { artifact, at_once: deploy.at_once, fix_forward: deploy.fix_forward, migrations }
        }
        Some(Purpose::Database(database)) => {
            only_operators(peer, database)?;
            database_work(database)?
        }
        Some(Purpose::Rollback(_)) => Wanted::Rollback,
        Some(Purpose::Maintenance(page)) if page.on => {
            Wanted::MaintenanceOn(Some(page.for_ms).filter(|ms| *ms > 0))
        }
        Some(Purpose::Maintenance(_)) => Wanted::MaintenanceOff,
        None => return Err(Problem::new(Code::MessageInvalid, "field `purpose` of the message is missing")),
    })
}

/// The load balancers that are out of service.
fn without(named: &[String]) -> Result<Vec<HostName>, Problem> {
    named.iter().take(MAX_WITHOUT).map(|host| convert::field("without", host)).collect()
}

/// Which load balancers a release moves was chosen when it began.
fn planned_already(office: &Office) -> Problem {
    let name = &office.environment().name;
    Problem::new(Code::NotPossibleNow, "a release is not over, and goes back on the load balancers it began on")
        .hint(format!(
            "`pointsman rollback {name}` leads it back, and is held for what does not answer; then, without what is gone for \
             good: `pointsman resume {name} --without HOST --reason TEXT`"
        ))
}

/// Files of migrations, where some are named.
fn files(artifact: &str, out_of_order: &[String]) -> Result<Option<Files>, Problem> {
    let artifact = convert::optional_field::<ArtifactDigest>("migrations", artifact)?;
    let named = || -> Vec<String> {
        let versions = out_of_order.iter().take(MAX_OUT_OF_ORDER);
        versions.map(|version| clean(version.trim_start_matches('v'))).collect()
    };
    Ok(artifact.map(|artifact| Files { artifact, out_of_order: named() }))
}

fn database_work(database: &v1::DatabasePurpose) -> Result<Wanted, Problem> {
    use v1::database_purpose::Work;
    let missing = || Problem::new(Code::MessageInvalid, "field `database.work` of the message is missing");
    let (work, files) = match database.work.as_ref().ok_or_else(missing)? {
        Work::Backup(_) => (DatabaseWork::Backup, None),
        Work::Contract(work) => {
            let files = files(&work.migrations, &work.out_of_order)?;
            let missing = || {
                Problem::new(
                    Code::MessageInvalid,
                    "field `database.contract.migrations` of the message is missing",
                )
            };
            (DatabaseWork::Contract, Some(files.ok_or_else(missing)?))
        }
        Work::Down(work) => {
            let files = files(&work.migrations, &[])?;
            let missing = || {
                let message = "field `database.down.migrations` of the message is missing";
                Problem::new(Code::MessageInvalid, message)
            };
            let version = clean(work.version.trim_start_matches('v'));
            (DatabaseWork::Down { version }, Some(files.ok_or_else(missing)?))
        }
        Work::Verify(work) => (DatabaseWork::Verify { backup: backup(&work.backup)? }, None),
        Work::Restore(work) => (DatabaseWork::Restore { backup: backup(&work.backup)? }, None),
        Work::Swap(work) => {
            (DatabaseWork::Swap { backup: backup(&work.backup)?, accept_loss: work.accept_loss }, None)
        }
        Work::SwapBack(work) => {
            (DatabaseWork::SwapBack { backup: backup(&work.backup)?, accept_loss: work.accept_loss }, None)
        }
        Work::Settle(work) => (DatabaseWork::Settle { backup: backup(&work.backup)? }, None),
    };
    Ok(Wanted::Database(work, files))
}

fn backup(id: &str) -> Result<BackupId, Problem> {
    convert::field("database.backup", id)
}

/// CI takes backups; what loses rows, or a way back, is a person's to ask for.
fn only_operators(peer: &Peer, database: &v1::DatabasePurpose) -> Result<(), Problem> {
    use v1::database_purpose::Work;
    let harmless = matches!(database.work, Some(Work::Backup(_) | Work::Verify(_)));
    if harmless || peer.name.role == Role::Operator {
        return Ok(());
    }
    Err(Problem::new(Code::NotAllowed, format!("a certificate of role `{}` may not do this", peer.name.role))
        .hint("an operator does it, with a certificate of their own"))
}

/// A peer for the record, short: `operator anna`.
fn who(peer: &Peer) -> String {
    format!("{} {}", peer.name.role, peer.name.name)
}

/// Begins a release. Whoever asks may leave: a plan that is recorded is driven, and nothing else begins beside it.
async fn begun(office: Arc<Office>, plan: Plan) -> Result<ReleaseId, Problem> {
    to_the_end(async move { office.begin(plan).await }).await
}

/// Has something done to its end, also where nobody waits for it any more.
async fn to_the_end<T: Send + 'static>(
    doing: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    let abrupt = |error| {
        let problem = Problem::new(Code::NotPossibleNow, "the beginning of the release ended abruptly");
        problem.aftermath(Aftermath::Unknown).because(&error)
    };
    tokio::spawn(doing).await.map_err(abrupt)?
}

#[tonic::async_trait]
impl Coordinator for Api {
    type FollowStream = Updates;
    type WatchTrafficStream = traffic::Ticks;

    async fn watch_traffic(
        &self,
        request: Request<v1::WatchTrafficRequest>,
    ) -> Result<Response<traffic::Ticks>, Status> {
        let watched = || {
            let (office, _) = self.office(&request, &request.get_ref().environment)?;
            self.watchers.watch(office)
        };
        let ticks = watched();
        reply(ticks.map(|ticks| Box::pin(self.shutdown.clone().bounds(ticks)) as traffic::Ticks))
    }

    async fn health(&self, _: Request<v1::HealthRequest>) -> Result<Response<v1::HealthReply>, Status> {
        Ok(Response::new(v1::HealthReply { version: env!("CARGO_PKG_VERSION").to_owned() }))
    }

    async fn offer_artifact(
        &self,
        request: Request<Streaming<v1::ArtifactOffer>>,
    ) -> Result<Response<v1::ArtifactNeed>, Status> {
        let peer = peer_of(&request)?;
        let offered = async {
            let late = || {
                Problem::new(Code::TransferBroken, "the offer of an artifact took too long").retry_useful()
            };
            let admit = |environment: &EnvironmentName, _| same_environment(&peer, environment);
            let joined = join_offer(request.into_inner(), admit);
            let offer = tokio::time::timeout(OFFER, joined).await.map_err(|_| late())??;
            let store = self.store.clone();
            tokio::task::spawn_blocking(move || store.offer(&offer))
                .await
                .map_err(|error| late().because(&error))?
        };
        reply(offered.await)
    }

    async fn send_contents(
        &self,
        request: Request<Streaming<v1::ContentPiece>>,
    ) -> Result<Response<v1::ContentReceipt>, Status> {
        let peer = peer_of(&request)?;
        let received = async {
            let broken =
                || Problem::new(Code::TransferBroken, "a transfer began with nothing").retry_useful();
            let mut messages = request.into_inner();
            let first = tokio::time::timeout(OFFER, messages.message()).await.map_err(|_| broken())?;
            let first = first.map_err(|status| broken().because(&status))?.ok_or_else(broken)?;
            same_environment(&peer, &convert::field("environment", &first.environment)?)?;
            self.store.receive(convert::field("artifact", &first.artifact)?, messages).await
        };
        reply(received.await)
    }

    async fn make_plan(&self, request: Request<v1::PlanRequest>) -> Result<Response<v1::PlanReply>, Status> {
        let made = async {
            let (office, peer) = self.office(&request, &request.get_ref().environment)?;
            let plan = self.make_plan_of(&office, &peer, request.get_ref()).await?;
            let wire = convert::plan_to_wire(&plan, office.size_of(&plan));
            Ok(v1::PlanReply { plan: Some(wire), fingerprint: fingerprint(&plan) })
        };
        reply(made.await)
    }

    async fn create_release(
        &self,
        request: Request<v1::CreateReleaseRequest>,
    ) -> Result<Response<v1::CreateReleaseReply>, Status> {
        let created = async {
            let wish = request.get_ref().plan.clone().unwrap_or_default();
            let (office, peer) = self.office(&request, &wish.environment)?;
            if let Some(id) = convert::optional_field::<RequestId>("request_id", &wish.request_id)? {
                let release = convert::optional_field::<ReleaseId>("release", &wish.release)?;
                if let Some(release) = office.attached(&id, &wanted(&peer, &wish)?, release.as_ref()).await? {
                    return Ok(v1::CreateReleaseReply { release: release.to_string(), attached: true });
                }
            }
            let plan = self.make_plan_of(&office, &peer, &wish).await?;
            let looked_at = &request.get_ref().fingerprint;
            if !looked_at.is_empty() && *looked_at != fingerprint(&plan) {
                return Err(out_of_date(&plan));
            }
            let release = begun(office, plan).await?;
            Ok(v1::CreateReleaseReply { release: release.to_string(), attached: false })
        };
        reply(created.await)
    }

    async fn follow(&self, request: Request<v1::FollowRequest>) -> Result<Response<Updates>, Status> {
        let found = async {
            let (office, _) = self.office(&request, &request.get_ref().environment)?;
            let id = convert::optional_field::<ReleaseId>("release", &request.get_ref().release)?;
            let kept = office.release(id.as_ref()).await?.ok_or_else(|| nothing_released(&office))?;
            Ok::<_, Problem>((office, kept))
        };
        let (office, kept) = found.await.map_err(|problem| status_of_problem(&problem))?;
        let (send, updates) = mpsc::channel(UPDATES);
        tokio::spawn(tell(office, kept, request.get_ref().after_seq, send));
        Ok(Response::new(Box::pin(self.shutdown.clone().bounds(ReceiverStream::new(updates)))))
    }

    async fn get_status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        let seen = async {
            let (office, _) = self.office(&request, &request.get_ref().environment)?;
            let id = convert::optional_field::<ReleaseId>("release", &request.get_ref().release)?;
            let shown = office.release(id.as_ref()).await?;
            let watched_on = office.watched_on().map(|(state, _)| state.plan.release.clone());
            let beside =
                watched_on.filter(|on| shown.as_ref().is_none_or(|kept| kept.state.plan.release != *on));
            let beside = beside.and_then(|on| office.recent(&on));
            let release = shown.map(|kept| office.to_wire(&kept));
            let watched_on = beside.map(|kept| office.to_wire(&kept));
            let (agents, standing) = (office.look().await, office.standing());
            let unaccounted = office.unaccounted(&standing, &agents);
            let maintenance = standing.maintenance.as_ref().map(|page| v1::Maintenance {
                on: true,
                since_ms: page.since.0,
                by: page.by.clone(),
                reason: page.reason.clone().unwrap_or_default(),
                until_ms: page.until.map_or(0, |until| until.0),
            });
            let running = office.running();
            let turned_back = way_back::turned_back(&standing, running.as_ref()).cloned();
            let way_back = leads_back(&standing, running.as_ref()).and_then(|back| {
                let slot = office.environment().slots.get(&back.slot)?;
                Some(with_checks(&office, way_back::way_back(&back, slot, &agents)))
            });
            let way_back = way_back.or_else(|| turned_back.as_ref().map(way_back::closed_by));
            Ok(v1::StatusReply {
                way_back,
                watched_on,
                environment: office.environment().name.to_string(),
                url: office.environment().url.clone(),
                live: standing.live.as_ref().map(live_to_wire),
                previous: standing.previous.as_ref().map(live_to_wire),
                turned_back: turned_back.map(|turned| v1::TurnedBack {
                    what: Some(live_to_wire(&turned.what)),
                    at_ms: turned.at.0,
                    why: turned.why,
                }),
                wanted_route: standing.route.map(|route| route.to_string()).unwrap_or_default(),
                maintenance,
                unaccounted: unaccounted.map(|share| v1::Unaccounted {
                    slot: share.slot.to_string(),
                    percent: u32::from(share.percent),
                }),
                release,
                agents,
                now_ms: SystemClock.now().0,
                coordinator_version: env!("CARGO_PKG_VERSION").to_owned(),
                trouble: office.trouble().as_ref().map(convert::problem_to_wire),
                trouble_since_ms: office.trouble_since().map_or(0, |since| since.0),
                certificate_ends_s: self.credentials.end_to_tell(),
                coordinator: self.credentials.name().name,
            })
        };
        reply(seen.await)
    }

    async fn list_releases(
        &self,
        request: Request<v1::ListReleasesRequest>,
    ) -> Result<Response<v1::ListReleasesReply>, Status> {
        let listed = async {
            let (office, _) = self.office(&request, &request.get_ref().environment)?;
            let limit = match request.get_ref().limit {
                0 => LISTED.0,
                limit => limit.min(LISTED.1),
            };
            let releases = office.releases(usize::try_from(limit).unwrap_or(0)).await?;
            Ok(v1::ListReleasesReply { releases: releases.iter().map(|kept| office.to_wire(kept)).collect() })
        };
        reply(listed.await)
    }

    async fn rollback(&self, request: Request<v1::AskRequest>) -> Result<Response<v1::AskReply>, Status> {
        let rolled = async {
            let (office, peer) = self.office(&request, &request.get_ref().environment)?;
            let asked = request.get_ref();
            let named = convert::optional_field::<ReleaseId>("release", &asked.release)?;
            let request_id = convert::optional_field::<RequestId>("request_id", &asked.request_id)?;
            // Asked for once more: what serves now would be led back again.
            if let Some(id) = &request_id
                && let Some(release) = office.attached(id, &Wanted::Rollback, None).await?
            {
                return Ok(v1::AskReply { release: release.to_string(), already: true });
            }
            // It goes on already, by itself: turning that back would lead everybody to what it leads away from.
            if let Some(open) = office.running().filter(|open| open.state.leads_from_ill())
                && named.as_ref() != Some(&open.state.plan.release)
                && asked.without.is_empty()
            {
                return Ok(v1::AskReply { release: open.state.plan.release.to_string(), already: true });
            }
            // What gives way is meant only where it is named.
            let meant =
                |open: &Kept| !open.state.gives_way() || named.as_ref() == Some(&open.state.plan.release);
            if office.running().is_some_and(|open| meant(&open)) {
                if !asked.without.is_empty() {
                    return Err(planned_already(&office));
                }
                return self.ask(request, RequestKind::Rollback).await;
            }
            if let Some(named) = &named {
                office.release(Some(named)).await?;
            }
            let without = without(&asked.without)?;
            let wish = WishOf { request_id, reason: reason_of(&asked.reason), by: who(&peer), without };
            // Whoever asks may leave: what was stopped for it is not left alone.
            let release =
                to_the_end(async move { office.roll_back(wish, named.as_ref(), None).await }).await?;
            Ok(v1::AskReply { release: release.to_string(), already: false })
        };
        reply(rolled.await)
    }

    async fn abort(&self, request: Request<v1::AskRequest>) -> Result<Response<v1::AskReply>, Status> {
        reply(self.ask(request, RequestKind::Abort).await)
    }

    async fn pause(&self, request: Request<v1::AskRequest>) -> Result<Response<v1::AskReply>, Status> {
        reply(self.ask(request, RequestKind::Pause).await)
    }

    async fn resume(&self, request: Request<v1::AskRequest>) -> Result<Response<v1::AskReply>, Status> {
        reply(self.ask(request, RequestKind::Resume).await)
    }

    async fn promote(&self, request: Request<v1::AskRequest>) -> Result<Response<v1::AskReply>, Status> {
        reply(self.ask(request, RequestKind::Promote).await)
    }

    async fn set_maintenance(
        &self,
        request: Request<v1::SetMaintenanceRequest>,
    ) -> Result<Response<v1::AskReply>, Status> {
        let set = async {
            let (office, peer) = self.office(&request, &request.get_ref().environment)?;
            let asked = request.get_ref();
            let stands = office.standing().maintenance.is_some() == asked.on;
            // A host that could not be asked when the page was lifted may show it still.
            if stands && (asked.on || !office.shows_a_page().await) {
                return Ok(v1::AskReply { release: String::new(), already: true });
            }
            let wanted = if asked.on {
                Wanted::MaintenanceOn(Some(asked.for_ms).filter(|ms| *ms > 0))
            } else {
                Wanted::MaintenanceOff
            };
            let without = without(&asked.without)?;
            let wish = WishOf { request_id: None, reason: reason_of(&asked.reason), by: who(&peer), without };
            let plan = office.plan(wanted, None, wish).await?;
            Ok(v1::AskReply { release: begun(office, plan).await?.to_string(), already: false })
        };
        reply(set.await)
    }

    async fn diagnose(
        &self,
        request: Request<v1::DiagnoseRequest>,
    ) -> Result<Response<v1::DiagnoseReply>, Status> {
        let found = async {
            let (office, _) = self.office(&request, &request.get_ref().environment)?;
            let part = Part::parse(&request.get_ref().part)?;
            let mut findings = diagnose(&office, &self.credentials, part).await;
            if part == Part::Whole {
                findings.extend(self.fileless.findings());
            }
            Ok(v1::DiagnoseReply { findings })
        };
        reply(found.await)
    }

    async fn deploy_certificate(
        &self,
        mut request: Request<v1::DeployCertificateRequest>,
    ) -> Result<Response<v1::DeployCertificateReply>, Status> {
        let deployed = async {
            let (office, peer) = self.office(&request, &request.get_ref().environment)?;
            // Refused here, it travels no further; what may follow what is each load balancer's to say.
            let certificate =
                SiteCertificate::parse(&Zeroizing::new(std::mem::take(&mut request.get_mut().pem)))?;
            for name in &request.get_ref().drop_names {
                let _: CertifiedName = convert::field("drop_names", name)?;
            }
            request.get_mut().pem = certificate.pem().as_bytes().to_vec();
            let deployed = certificates::deploy(&office, request.get_ref(), &who(&peer)).await;
            request.get_mut().pem.zeroize();
            deployed
        };
        reply(deployed.await)
    }

    async fn show_rate_limits(
        &self,
        request: Request<v1::ShowRateLimitsRequest>,
    ) -> Result<Response<v1::RateLimitsReply>, Status> {
        let shown = async {
            let (office, _) = self.office(&request, &request.get_ref().environment)?;
            rate_limits::rate_limits(&office, "", request.get_ref().min_rate).await
        };
        reply(shown.await)
    }

    async fn unblock(
        &self,
        request: Request<v1::UnblockRequest>,
    ) -> Result<Response<v1::RateLimitsReply>, Status> {
        let unblocked = async {
            let (office, peer) = self.office(&request, &request.get_ref().environment)?;
            let address = rate_limits::address(&request.get_ref().address)?;
            info!(environment = %office.environment().name, address, by = who(&peer), "unblocking");
            rate_limits::rate_limits(&office, &address, 0).await
        };
        reply(unblocked.await)
    }

    async fn make_checks(
        &self,
        request: Request<v1::MakeChecksRequest>,
    ) -> Result<Response<v1::MakeChecksReply>, Status> {
        let made = async {
            let (office, peer) = self.office(&request, &request.get_ref().environment)?;
            let asked = request.get_ref();
            let slot = convert::optional_field("slot", &asked.slot)?;
            let name = convert::optional_field("name", &asked.name)?;
            info!(environment = %office.environment().name, by = who(&peer), "making checks");
            check_now::make(&office, slot.as_ref(), name.as_ref()).await
        };
        reply(made.await)
    }

    async fn get_checklist(
        &self,
        request: Request<v1::ChecklistRequest>,
    ) -> Result<Response<v1::ChecklistReply>, Status> {
        let listed = async {
            let (office, _) = self.office(&request, &request.get_ref().environment)?;
            let id = convert::optional_field::<ReleaseId>("release", &request.get_ref().release)?;
            checklist::of(&office, id.as_ref()).await
        };
        reply(listed.await)
    }

    async fn tick_point(
        &self,
        request: Request<v1::TickPointRequest>,
    ) -> Result<Response<v1::ChecklistReply>, Status> {
        let ticked = async {
            let (office, peer) = self.office(&request, &request.get_ref().environment)?;
            let asked = request.get_ref();
            let id = convert::field::<ReleaseId>("release", &asked.release)?;
            let point = convert::field("point", &asked.point)?;
            checklist::tick(&office, &id, point, who(&peer), reason_of(&asked.note)).await
        };
        reply(ticked.await)
    }

    async fn accept_journal(
        &self,
        request: Request<v1::AcceptJournalRequest>,
    ) -> Result<Response<v1::AcceptJournalReply>, Status> {
        let accepted = async {
            let (office, by) = self.office(&request, &request.get_ref().environment)?;
            if request.get_ref().confirm != request.get_ref().environment {
                let message = "the environment's name must be typed once more to accept its journal";
                return Err(Problem::new(Code::UsageWrong, message)
                    .hint(format!("`pointsman audit accept {0} --confirm {0}`", office.environment().name)));
            }
            let hosts = office.accept_journal(&by.name.to_string()).await?;
            Ok(v1::AcceptJournalReply { hosts })
        };
        reply(accepted.await)
    }

    async fn verify_journal(
        &self,
        request: Request<v1::VerifyJournalRequest>,
    ) -> Result<Response<v1::VerifyJournalReply>, Status> {
        let verified = async {
            let (office, _) = self.office(&request, &request.get_ref().environment)?;
            let _one_at_a_time = self.verifying.lock().await;
            audit(&office, &self.journal).await
        };
        reply(verified.await)
    }
}

fn nothing_released(office: &Office) -> Problem {
    let environment = &office.environment().name;
    Problem::new(Code::ReleaseUnknown, format!("nothing was ever released to `{environment}`"))
        .hint(format!("`pointsman deploy {environment} --artifact DIR --release ID`"))
}

fn live_to_wire(live: &pointsman_core::LiveRelease) -> v1::Live {
    v1::Live {
        slot: live.slot.to_string(),
        release: live.release.as_ref().map(ToString::to_string).unwrap_or_default(),
        artifact: live.artifact.map(|artifact| artifact.to_string()).unwrap_or_default(),
    }
}

/// What is known of a release's visitors, while they are watched.
fn of_visitors(office: &Office, id: &ReleaseId, size: Option<(u64, u64)>) -> Option<v1::ReleaseUpdate> {
    let kept = office.recent(id)?;
    kept.state.judged_after()?;
    let mut release = convert::release_to_wire(&kept.state, kept.started_at, size);
    release.warnings = warnings::to_wire(&kept.state);
    release.verdict = Some(office.visitors().now(id)?);
    Some(v1::ReleaseUpdate {
        at_ms: SystemClock.now().0,
        kind: "visitors".to_owned(),
        release: Some(release),
        ..Default::default()
    })
}

/// Tells a follower everything that is recorded of a release, then what comes, until it is over or nobody listens.
/// Tells a follower how far the job is that the database's host is at. A swap is over before it could be told, and is not
/// to be disturbed by sessions.
async fn tell_of_database(
    office: Arc<Office>,
    id: ReleaseId,
    send: mpsc::Sender<Result<v1::ReleaseUpdate, Status>>,
) {
    let mut told = String::new();
    loop {
        tokio::time::sleep(DATABASE_PROGRESS).await;
        let Some(kept) = office.recent(&id) else { return };
        let Some(database) = &kept.state.plan.database else { return };
        let Some(step) = kept.state.step() else { return };
        let long =
            matches!(step, Step::Backup | Step::Rehearse | Step::Expand | Step::Contract | Step::Restore);
        let words = match long {
            true => office.database_progress(&database.host).await,
            false => String::new(),
        };
        // Said again it is no news.
        if words.is_empty() || words == told {
            continue;
        }
        let update = v1::ReleaseUpdate {
            at_ms: SystemClock.now().0,
            kind: "progress".to_owned(),
            step: step.to_string(),
            host: database.host.to_string(),
            detail: words.clone(),
            ..Default::default()
        };
        told = words;
        if send.send(Ok(update)).await.is_err() {
            return;
        }
    }
}

async fn tell(
    office: Arc<Office>,
    kept: Kept,
    after: u64,
    send: mpsc::Sender<Result<v1::ReleaseUpdate, Status>>,
) {
    let (id, started_at) = (kept.state.plan.release.clone(), kept.started_at);
    let (mut from, mut told) = (0, Told::default());
    let size = office.size_of(&kept.state.plan);
    let mut recorded = office.recorded();
    let mut seconds = office.visitors().changes();
    // Ends with this one.
    let mut beside = tokio::task::JoinSet::new();
    beside.spawn(tell_of_database(Arc::clone(&office), id.clone(), send.clone()));
    loop {
        recorded.borrow_and_update();
        // What was told before says which warnings are no news.
        let facts = match office.facts(&id, from).await {
            Ok(facts) => facts,
            Err(problem) => return drop(send.send(Err(status_of_problem(&problem))).await),
        };
        for (entry, state) in facts {
            let news = told.news(&state);
            from = entry.seq;
            if entry.seq <= after {
                continue;
            }
            let mut release = convert::release_to_wire(&state, started_at, size);
            release.warnings = warnings::to_wire(&state);
            let over = state.outcome().is_some();
            if over {
                let until = office.just_over_and_watched_on(&state);
                release.watched_on_until_ms = until.map_or(0, |until| until.0);
                office.counted(&id).await;
                let met = office.release(Some(&id)).await.ok().flatten().and_then(|kept| kept.met);
                release.met = met.as_ref().map(convert::met_to_wire);
            }
            let mut update = convert::update_to_wire(entry.seq, entry.fact.at.0, &entry.fact.event, release);
            if let Some((host, detail)) = news {
                update.step = update.release.as_ref().map(|release| release.step.clone()).unwrap_or_default();
                (update.kind, update.host, update.detail) = ("check-warns".to_owned(), host, detail);
            }
            if send.send(Ok(update)).await.is_err() || over {
                return;
            }
        }
        tokio::select! {
            changed = recorded.changed() => if changed.is_err() { return },
            _ = seconds.changed() => {
                let Some(update) = of_visitors(&office, &id, size) else { continue };
                if send.send(Ok(update)).await.is_err() { return }
            }
            () = tokio::time::sleep(PROGRESS) => {
                for (host, (sent, total)) in office.fleet().transfers().under_way() {
                    let update = v1::ReleaseUpdate {
                        at_ms: SystemClock.now().0,
                        kind: "progress".to_owned(),
                        step: "stage".to_owned(),
                        host: host.to_string(),
                        detail: format!("{sent} of {total} bytes"),
                        ..Default::default()
                    };
                    if send.send(Ok(update)).await.is_err() { return }
                }
                if send.is_closed() { return }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::{Notify, oneshot};

    #[tokio::test]
    async fn what_is_begun_is_done_also_where_whoever_asked_is_gone() {
        let (goes_on, (began, has_begun)) = (Arc::new(Notify::new()), oneshot::channel());
        let (waits, (done, is_done)) = (Arc::clone(&goes_on), oneshot::channel());
        let nobody = || Problem::new(Code::NotPossibleNow, "nobody looks");
        let asked = tokio::spawn(to_the_end(async move {
            began.send(()).map_err(|()| nobody())?;
            waits.notified().await;
            done.send(()).map_err(|()| nobody())
        }));
        // It is at its journal when the connection of whoever asked breaks.
        assert_eq!(has_begun.await, Ok(()));
        asked.abort();
        assert!(asked.await.is_err_and(|error| error.is_cancelled()));
        goes_on.notify_one();
        assert_eq!(is_done.await, Ok(()));
    }
}
