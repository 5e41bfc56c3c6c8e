//! The route as OPNsense keeps it for HAProxy's next start. Two notes in the agent's folder say what is not certain of it:
//! `route.unsure`, that OPNsense may keep another route than the file here says, and `route.owed`, that visitors are led by
//! a route all the same, which OPNsense is still to be asked for. Both are there before anything else is done.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pointsman_chassis::durable;
use pointsman_core::{Aftermath, Code, Problem, Route};
use tracing::info;

use super::{Keeper, MAP_MODE, RouteFile, unwritable};
use crate::opnsense::Opnsense;

/// OPNsense, and what is noted of it. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    api: Arc<Opnsense>,
    /// While it is there, OPNsense may keep the route in it or the one in the agent's file.
    unsure: PathBuf,
    /// While it is there, visitors are led by the route in it, and OPNsense is still to keep it.
    owed: PathBuf,
    /// Who holds this may change what OPNsense keeps, or conclude which route that is. It may take as long as a call.
    asking: Arc<tokio::sync::Mutex<()>>,
    /// Who holds this may change the notes: never held over a call.
    notes: Arc<Mutex<Notes>>,
}

#[derive(Debug, Default)]
struct Notes {
    /// Why OPNsense could not be had to keep what is owed.
    why: Option<Problem>,
    /// A reload has brought an older route: OPNsense may keep that.
    older: bool,
}

/// What came of catching up with OPNsense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caught {
    /// There was nothing to do, or there is nothing left.
    Up,
    /// What was owed is kept now.
    Kept(Route),
}

impl Remote {
    pub(super) fn new(api: Opnsense, state: &std::path::Path) -> Self {
        Self {
            api: Arc::new(api),
            unsure: state.join("route.unsure"),
            owed: state.join("route.owed"),
            asking: Arc::default(),
            notes: Arc::default(),
        }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn in_doubt(&self) -> bool {
        self.unsure.exists() || self.owed.exists()
    }

    pub(super) fn asked_for(&self) -> Option<Route> {
        Route::parse(std::fs::read_to_string(&self.unsure).ok()?.trim()).ok()
    }

    pub(super) fn owed(&self) -> Option<Route> {
        Route::parse(std::fs::read_to_string(&self.owed).ok()?.trim()).ok()
    }
}

fn put(path: &std::path::Path, text: &str) -> Result<(), Problem> {
    durable::replace(path, text.as_bytes(), MAP_MODE).map_err(|error| unwritable(path, &error))
}

fn take_away(path: &std::path::Path) -> Result<(), Problem> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(unwritable(path, &error)),
        _ => Ok(()),
    }
}

/// Has a note say what it said before; nothing where there was none.
fn put_again(path: &std::path::Path, before: Option<&str>) -> Result<(), Problem> {
    before.map_or_else(|| take_away(path), |text| put(path, text))
}

impl RouteFile {
    fn remote(&self) -> Option<&Remote> {
        match &self.keeper {
            Keeper::Opnsense(remote) => Some(remote),
            Keeper::Disk => None,
        }
    }

    /// Puts a route where HAProxy's next start finds it, whole and durable.
    pub async fn write(&self, route: &Route) -> Result<(), Problem> {
        let Some(remote) = self.remote() else { return self.write_here(route) };
        let _asking = remote.asking.lock().await;
        self.have_kept(remote, route).await
    }

    /// The same, waiting no longer than until `called_off` ends: then `None`, and it is open which route OPNsense keeps. A call
    /// that was begun is not dropped, as it could still reach OPNsense after the next one: it goes on by itself, and the next
    /// waits for its end.
    pub async fn write_unless(
        &self,
        route: &Route,
        called_off: impl Future<Output = ()>,
    ) -> Option<Result<(), Problem>> {
        let Some(remote) = self.remote() else { return Some(self.write_here(route)) };
        tokio::pin!(called_off);
        let asking = tokio::select! {
            biased;
            () = &mut called_off => return None,
            asking = Arc::clone(&remote.asking).lock_owned() => asking,
        };
        let (file, remote, route) = (self.clone(), remote.clone(), route.clone());
        let call = tokio::spawn(async move {
            let _asking = asking;
            file.have_kept(&remote, &route).await
        });
        tokio::select! {
            biased;
            ended = call => Some(ended.unwrap_or_else(|error| {
                let message = "the call to OPNsense ended abruptly";
                Err(Problem::new(Code::OpnsenseSilent, message).because(&error).aftermath(Aftermath::Unknown))
            })),
            () = called_off => None,
        }
    }

    /// Has OPNsense keep a route, and what was owed before is settled with it. Whoever calls this is the one who asks. Where
    /// another route has come to be owed meanwhile nothing is concluded: that one is still to be kept.
    async fn have_kept(&self, remote: &Remote, route: &Route) -> Result<(), Problem> {
        let (doubted, owed) = {
            let _notes = remote.notes();
            // An earlier doubt is not settled by an order that changes nothing.
            let doubted = std::fs::read_to_string(&remote.unsure).ok();
            put(&remote.unsure, &format!("{route}\n"))?;
            (doubted, remote.owed())
        };
        let kept = remote.api.keep(&self.key, route).await;
        let mut notes = remote.notes();
        if remote.asked_for().as_ref() != Some(route) || remote.owed() != owed {
            return kept;
        }
        match kept {
            Ok(()) => {
                self.write_here(route)?;
                notes.why = None;
                take_away(&remote.owed)?;
                take_away(&remote.unsure)
            }
            Err(problem) if problem.aftermath == Aftermath::Unchanged => {
                put_again(&remote.unsure, doubted.as_deref())?;
                Err(problem)
            }
            Err(problem) => Err(problem),
        }
    }

    /// Notes, whole and durable, that visitors are led by a route which OPNsense is still to keep. Nobody is asked. Where the
    /// file itself is what HAProxy reads, it is written.
    pub fn owe(&self, route: &Route) -> Result<(), Problem> {
        let Some(remote) = self.remote() else { return self.write_here(route) };
        let mut notes = remote.notes();
        let doubted = std::fs::read_to_string(&remote.unsure).ok();
        let text = format!("{route}\n");
        put(&remote.unsure, &text)?;
        if let Err(problem) = put(&remote.owed, &text) {
            put_again(&remote.unsure, doubted.as_deref())?;
            return Err(problem);
        }
        notes.why = None;
        Ok(())
    }

    /// The route that visitors are led by and OPNsense is still to keep.
    pub fn owed(&self) -> Option<Route> {
        self.remote()?.owed()
    }

    /// Whether it is not known which route OPNsense keeps.
    pub fn in_doubt(&self) -> bool {
        self.remote().is_some_and(Remote::in_doubt)
    }

    /// The route that is to stand as far as the agent's notes say: the one that is owed, else the one that HAProxy's next
    /// start is known to read.
    pub fn stands(&self) -> Option<Route> {
        self.owed().or_else(|| self.read())
    }

    /// Why HAProxy's next start or reload may bring another route than [`RouteFile::stands`], in words that can go on after
    /// others; `None` where it brings that.
    pub fn unkept(&self) -> Option<String> {
        let remote = self.remote().filter(|remote| remote.in_doubt())?;
        let Some(route) = remote.owed() else {
            return Some("it is not known which route OPNsense keeps: its answer was lost".to_owned());
        };
        let why = remote.notes().why.clone().map_or_else(String::new, |problem| {
            let cause = problem.causes.first().map_or_else(String::new, |cause| format!(", {cause}"));
            format!(": {}{cause}", problem.message)
        });
        Some(format!("OPNsense does not keep route `{route}` yet{why}"))
    }

    /// Notes that a reload has brought an older route: OPNsense may keep that, and is looked at.
    pub fn older_was_brought(&self) {
        if let Some(remote) = self.remote() {
            remote.notes().older = true;
        }
    }

    /// Whether [`RouteFile::catch_up`] has something to do.
    pub fn is_behind(&self) -> bool {
        self.remote()
            .is_some_and(|remote| remote.in_doubt() || remote.notes().older || self.read_here().is_none())
    }

    /// Has OPNsense keep what is owed to it; else finds out which route it keeps, where a lost answer left that open, at the
    /// very first start, and where a reload brought an older one. Needs no hold on the route: what an order has done meanwhile
    /// is not concluded over. What fails stays to be done.
    pub async fn catch_up(&self) -> Result<Caught, Problem> {
        let Some(remote) = self.remote() else { return Ok(Caught::Up) };
        let _asking = remote.asking.lock().await;
        if let Some(route) = remote.owed() {
            return self.settle_debt(remote, &route).await;
        }
        self.find_out(remote).await?;
        let older = remote.notes().older;
        if let Some(route) = self.read().filter(|_| older) {
            let kept = remote.api.kept(&self.key).await?;
            if let Some(kept) = kept.filter(|kept| kept.epoch < route.epoch) {
                info!(%kept, wanted = %route, "OPNsense keeps an older route: having it keep the one that stands");
                self.have_kept(remote, &route).await?;
            }
            remote.notes().older = false;
        }
        Ok(Caught::Up)
    }

    async fn settle_debt(&self, remote: &Remote, route: &Route) -> Result<Caught, Problem> {
        let kept = remote.api.keep(&self.key, route).await;
        let mut notes = remote.notes();
        // Another may have come to be owed meanwhile, and this one is no matter any more.
        if remote.owed().as_ref() != Some(route) {
            return Ok(Caught::Up);
        }
        if let Err(problem) = kept {
            notes.why = Some(problem.clone());
            return Err(problem);
        }
        self.write_here(route)?;
        notes.why = None;
        take_away(&remote.owed)?;
        take_away(&remote.unsure)?;
        Ok(Caught::Kept(route.clone()))
    }

    /// Which route OPNsense keeps, where that is open.
    async fn find_out(&self, remote: &Remote) -> Result<(), Problem> {
        let (asked_for, here) = (remote.asked_for(), self.read_here());
        if !remote.unsure.exists() && here.is_some() {
            return Ok(());
        }
        let Some(kept) = remote.api.kept(&self.key).await? else { return Ok(()) };
        let _notes = remote.notes();
        // What has come to be owed meanwhile is what is to be kept.
        if remote.owed().is_some() || remote.asked_for() != asked_for {
            return Ok(());
        }
        let first = here.is_none();
        let ours = [asked_for, here, self.given_away()];
        if first || ours.into_iter().flatten().any(|route| route == kept) {
            self.write_here(&kept)?;
            take_away(&remote.unsure)?;
            info!(route = %kept, "OPNsense keeps this route");
        }
        Ok(())
    }

    /// Says whether what HAProxy's next start reads is this route, by looking where it is kept.
    pub async fn check_kept(&self, route: &Route) -> Result<(), Problem> {
        let Some(remote) = self.remote() else { return Ok(()) };
        let kept = remote.api.kept(&self.key).await?;
        if kept.as_ref() == Some(route) {
            return Ok(());
        }
        let found = kept.map_or_else(|| "no valid route".to_owned(), |route| format!("`{route}`"));
        let message = format!("OPNsense keeps {found}, HAProxy routes by `{route}`");
        Err(Problem::new(Code::RouteDrift, message).cause("an Apply in OPNsense would move visitors").hint(
            "correct the map file's content in OPNsense, or move traffic anew: `pointsman traffic show ENV`",
        ))
    }
}
