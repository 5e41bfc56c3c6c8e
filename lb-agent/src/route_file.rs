//! The route on disk: what HAProxy reads at its next start or reload, written before anything is told to a running
//! worker. Where HAProxy reads a file that is not the agent's, OPNsense keeps the route, and the file here remembers
//! what OPNsense is known to keep.

mod kept;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use pointsman_chassis::durable;
use pointsman_core::{Code, Problem, Route, RouteEpoch};

use crate::config::{Config, Driver};
use crate::opnsense::Opnsense;
use crate::reply::WorkerId;
pub use kept::Caught;
use kept::Remote;

/// Mode of the map file: HAProxy reads it as root before it gives up its rights, or as its own user.
const MAP_MODE: u32 = 0o644;

/// The map file, and beside it the highest epoch that was ever in it.
#[derive(Clone, Debug)]
pub struct RouteFile {
    map: PathBuf,
    key: String,
    highest: PathBuf,
    copy: PathBuf,
    begun: PathBuf,
    settled: PathBuf,
    keeper: Keeper,
    own: Arc<Mutex<Own>>,
}

/// The routes that stand by the agent's own doing, as this process knows them. Also on disk, for the next one; but a full
/// disk must not make a stranger of what an order has set.
#[derive(Debug, Default)]
struct Own {
    confirmed: Option<Route>,
    begun: Option<Route>,
}

/// Who keeps the route for HAProxy's next start.
#[derive(Clone, Debug)]
enum Keeper {
    /// The file itself.
    Disk,
    /// OPNsense.
    Opnsense(Remote),
}

/// A route that lies ready to be what HAProxy's next start reads.
#[derive(Debug)]
pub enum Staged {
    /// Flushed, beside the file.
    File(durable::Staged),
    /// To be said in one call: OPNsense cannot be prepared.
    Call(Route),
}

fn unwritable(path: &Path, error: &std::io::Error) -> Problem {
    Problem::new(Code::MapFileUnwritable, format!("cannot write `{}`", path.display()))
        .because(error)
        .retry_useful()
        .hint("on the load balancer: `df -h`, and the owner of the map's folder")
}

/// Not flushed: the map file itself is. Without the copy a lost map leads to the maintenance page.
fn note(path: &Path, route: &Route) {
    let next = path.with_extension("next");
    let _ = std::fs::write(&next, format!("{route}\n")).and_then(|()| std::fs::rename(&next, path));
}

fn noted(path: &Path) -> Option<Route> {
    Route::parse(std::fs::read_to_string(path).ok()?.trim()).ok()
}

impl RouteFile {
    /// The map at `map` with its one key; the highest epoch is kept in the folder `state`.
    pub fn new(map: &Path, key: &str, state: &Path) -> Self {
        Self {
            map: map.to_owned(),
            key: key.to_owned(),
            highest: state.join("highest-route-epoch"),
            copy: state.join("route.copy"),
            begun: state.join("route.begun"),
            settled: state.join("settled-worker"),
            keeper: Keeper::Disk,
            own: Arc::default(),
        }
    }

    /// The route file of this configuration.
    pub fn of(config: &Config) -> Result<Self, Problem> {
        let haproxy = &config.haproxy;
        if haproxy.owns_the_map() {
            if haproxy.map.as_os_str().is_empty() {
                let problem = Problem::new(Code::ConfigInvalid, "`haproxy.map` is missing");
                return Err(problem.hint("the map file, by the path that stands in haproxy.cfg"));
            }
            return Ok(Self::new(&haproxy.map, &haproxy.key, &config.state));
        }
        let file = Self::new(&config.state.join("route.map"), &haproxy.key, &config.state);
        let Some(opnsense) = haproxy.opnsense.as_ref().filter(|_| haproxy.driver == Driver::Map) else {
            return Ok(file);
        };
        let api = Opnsense::new(opnsense, &haproxy.map_name())?;
        Ok(Self { keeper: Keeper::Opnsense(Remote::new(api, &config.state)), ..file })
    }

    /// The folder that the file lies in.
    pub fn folder(&self) -> Option<&Path> {
        self.map.parent()
    }

    /// The route that HAProxy's next start will read; `None` when there is no valid one, or OPNsense is not known to
    /// keep it.
    pub fn read(&self) -> Option<Route> {
        match &self.keeper {
            Keeper::Opnsense(remote) if remote.in_doubt() => None,
            _ => self.read_here(),
        }
    }

    fn read_here(&self) -> Option<Route> {
        let text = std::fs::read_to_string(&self.map).ok()?;
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let (key, value) = lines.next()?.split_once(char::is_whitespace)?;
        (key == self.key).then(|| Route::parse(value.trim()).ok()).flatten()
    }

    /// Puts a route into the file, whole and durable.
    pub fn write_here(&self, route: &Route) -> Result<(), Problem> {
        let wrong = |error: std::io::Error| unwritable(&self.map, &error);
        let staged = self.stage_here(route)?;
        staged.publish().and_then(|()| staged.settle()).map_err(wrong)
    }

    /// Lays a route ready, so that little is left to do. What HAProxy's next start reads does not change.
    pub fn stage(&self, route: &Route) -> Result<Staged, Problem> {
        match &self.keeper {
            Keeper::Disk => self.stage_here(route).map(Staged::File),
            Keeper::Opnsense(_) => Ok(Staged::Call(route.clone())),
        }
    }

    /// Makes a route that lies ready what HAProxy's next start reads; `None` where OPNsense was to be asked and `called_off`
    /// ended first, as of [`RouteFile::write_unless`].
    pub async fn publish(
        &self,
        staged: &Staged,
        called_off: impl Future<Output = ()>,
    ) -> Option<Result<(), Problem>> {
        match staged {
            Staged::File(staged) => Some(staged.publish().map_err(|error| unwritable(&self.map, &error))),
            Staged::Call(route) => self.write_unless(route, called_off).await,
        }
    }

    /// Makes sure that a published route stands after a power cut too.
    pub fn settle_on_disk(&self, staged: &Staged) -> Result<(), Problem> {
        match staged {
            Staged::File(staged) => staged.settle().map_err(|error| unwritable(&self.map, &error)),
            Staged::Call(_) => Ok(()),
        }
    }

    fn stage_here(&self, route: &Route) -> Result<durable::Staged, Problem> {
        let line = format!("{} {route}\n", self.key);
        let staged = durable::Staged::write(&self.map, line.as_bytes(), MAP_MODE);
        staged.map_err(|error| unwritable(&self.map, &error))
    }

    /// Puts an earlier route back. The higher epoch is remembered first: it has been given away. Where OPNsense was to be asked
    /// and `called_off` ended first, it is asked later.
    pub async fn put_back(&self, route: &Route, called_off: impl Future<Output = ()>) -> Result<(), Problem> {
        self.give_away_above(route)?;
        self.write_unless(route, called_off).await.unwrap_or_else(|| self.owe(route))
    }

    /// The same without asking OPNsense, which keeps it later.
    pub fn put_back_owed(&self, route: &Route) -> Result<(), Problem> {
        self.give_away_above(route)?;
        self.owe(route)
    }

    /// Notes the highest epoch as given away, where that is above this route's, which is about to stand.
    fn give_away_above(&self, route: &Route) -> Result<(), Problem> {
        self.begin(route);
        let highest = self.highest_epoch();
        if highest <= route.epoch {
            return Ok(());
        }
        // With the route it was given to: the same order may come again, another with this number may not.
        let given = self.highest_here().filter(|given| given.epoch == highest).or_else(|| self.given_away());
        let text = format!("{highest} {}\n", given.map(|route| route.to_string()).unwrap_or_default());
        durable::replace(&self.highest, text.as_bytes(), 0o644)
            .map_err(|error| unwritable(&self.highest, &error))
    }

    /// Of the routes in the files, whether OPNsense keeps them or not, the one with the higher epoch.
    fn highest_here(&self) -> Option<Route> {
        let noted = match &self.keeper {
            Keeper::Opnsense(remote) => [remote.asked_for(), remote.owed()],
            Keeper::Disk => [None, None],
        };
        noted.into_iter().chain([self.read_here()]).flatten().max_by_key(|route| route.epoch)
    }

    /// The route that has the highest epoch and was taken back.
    pub fn given_away(&self) -> Option<Route> {
        let text = std::fs::read_to_string(&self.highest).ok()?;
        Route::parse(text.split_whitespace().nth(1)?).ok()
    }

    fn own<T>(&self, act: impl FnOnce(&mut Own) -> T) -> T {
        act(&mut self.own.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes a route that the agent itself is about to lead to: found later where it was never confirmed, it is nobody's
    /// change by hand. A failure to write costs only that, and only after a crash.
    pub fn begin(&self, route: &Route) {
        self.own(|own| {
            own.begun = Some(route.clone());
            note(&self.begun, route);
        });
    }

    /// The route that the agent itself led to last, confirmed or not.
    pub fn begun(&self) -> Option<Route> {
        self.own(|own| own.begun.clone()).or_else(|| noted(&self.begun))
    }

    /// From now on this is the route that was confirmed last. The copy for the next start is [`RouteFile::keep_copy`]'s.
    pub fn confirm(&self, route: &Route) {
        self.own(|own| own.confirmed = Some(route.clone()));
    }

    /// Keeps a copy of the confirmed route, for the day the map file is lost. A failure costs only that.
    pub fn keep_copy(&self) {
        self.own(|own| own.confirmed.as_ref().map(|route| note(&self.copy, route)));
    }

    /// Both of it, where nobody waits.
    pub fn remember(&self, route: &Route) {
        self.confirm(route);
        self.keep_copy();
    }

    /// The last confirmed route.
    pub fn remembered(&self) -> Option<Route> {
        self.own(|own| own.confirmed.clone()).or_else(|| noted(&self.copy))
    }

    /// Notes the worker that was seen with the route on disk. Not flushed: what is lost with the machine is lost with
    /// HAProxy's processes.
    pub fn settle(&self, worker: WorkerId) {
        if self.settled() != Some(worker) {
            let next = self.settled.with_extension("next");
            let _ = std::fs::write(&next, format!("{worker}\n"))
                .and_then(|()| std::fs::rename(&next, &self.settled));
        }
    }

    /// The worker that was last seen with the route on disk, also by an agent that has ended since.
    pub fn settled(&self) -> Option<WorkerId> {
        std::fs::read_to_string(&self.settled).ok()?.trim().parse().ok()
    }

    /// The highest epoch that was ever on disk. It never falls.
    pub fn highest_epoch(&self) -> RouteEpoch {
        let kept = std::fs::read_to_string(&self.highest)
            .ok()
            .and_then(|text| text.split_whitespace().next()?.parse().ok())
            .unwrap_or(0);
        let on_disk = self.highest_here().map_or(0, |route| route.epoch.0);
        RouteEpoch(on_disk.max(kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_highest_epoch_never_falls() {
        let folder = tempfile::tempdir().unwrap();
        let file = RouteFile::new(&folder.path().join("route.map"), "route", folder.path());
        assert_eq!(file.read(), None);
        assert_eq!(file.highest_epoch(), RouteEpoch(0));
        let (old, new) = (Route::parse("be_a:be_a:0:7").unwrap(), Route::parse("be_b:be_a:0:9").unwrap());
        file.write(&new).await.unwrap();
        file.put_back(&old, std::future::pending()).await.unwrap();
        assert_eq!((file.read(), file.highest_epoch()), (Some(old), RouteEpoch(9)));
    }

    #[test]
    fn what_is_not_a_route_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("route.map");
        let file = RouteFile::new(&path, "route", folder.path());
        for text in ["", "route", "route be_a", "other be_a:be_a:0:1", "route be_a:be_a:0:x\n", "\u{0}\u{1}"]
        {
            std::fs::write(&path, text).unwrap();
            assert_eq!(file.read(), None, "{text:?}");
        }
        std::fs::write(&path, "# comment\n\nroute\tbe_a:be_a:0:1 \r\n").unwrap();
        assert_eq!(file.read(), Route::parse("be_a:be_a:0:1").ok());
    }
}
