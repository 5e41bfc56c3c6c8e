//! The route on disk: what HAProxy reads at its next start or reload, written before anything is told to a running
//! worker.

use std::path::{Path, PathBuf};

use pointsman_chassis::durable::{self, Staged};
use pointsman_core::{Code, Problem, Route, RouteEpoch};

/// Mode of the map file: HAProxy reads it as root before it gives up its rights, or as its own user.
const MAP_MODE: u32 = 0o644;

/// The map file, and beside it the highest epoch that was ever in it.
#[derive(Clone, Debug)]
pub struct RouteFile {
    map: PathBuf,
    key: String,
    highest: PathBuf,
    copy: PathBuf,
    settled: PathBuf,
}

fn unwritable(path: &Path, error: &std::io::Error) -> Problem {
    Problem::new(Code::MapFileUnwritable, format!("cannot write `{}`", path.display()))
        .because(error)
        .retry_useful()
        .hint("on the load balancer: `df -h`, and the owner of the map's folder")
}

impl RouteFile {
    /// The map at `map` with its one key; the highest epoch is kept in the folder `state`.
    pub fn new(map: &Path, key: &str, state: &Path) -> Self {
        Self {
            map: map.to_owned(),
            key: key.to_owned(),
            highest: state.join("highest-route-epoch"),
            copy: state.join("route.copy"),
            settled: state.join("settled-worker"),
        }
    }

    /// The route on disk; `None` when the file is missing or holds no valid route.
    pub fn read(&self) -> Option<Route> {
        let text = std::fs::read_to_string(&self.map).ok()?;
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let (key, value) = lines.next()?.split_once(char::is_whitespace)?;
        (key == self.key).then(|| Route::parse(value.trim()).ok()).flatten()
    }

    /// Puts a route on disk, whole and durable.
    pub fn write(&self, route: &Route) -> Result<(), Problem> {
        let staged = self.stage(route)?;
        self.publish(&staged)?;
        self.settle_on_disk(&staged)
    }

    /// Lays a route ready beside the map file, flushed. What a reload would bring does not change.
    pub fn stage(&self, route: &Route) -> Result<Staged, Problem> {
        let line = format!("{} {route}\n", self.key);
        Staged::write(&self.map, line.as_bytes(), MAP_MODE).map_err(|error| unwritable(&self.map, &error))
    }

    /// Puts a route that lies ready into the map file: a reload from now on brings it.
    pub fn publish(&self, staged: &Staged) -> Result<(), Problem> {
        staged.publish().map_err(|error| unwritable(&self.map, &error))
    }

    /// Makes sure that a published route stands after a power cut too.
    pub fn settle_on_disk(&self, staged: &Staged) -> Result<(), Problem> {
        staged.settle().map_err(|error| unwritable(&self.map, &error))
    }

    /// Puts an earlier route back. The higher epoch is remembered first: it has been given away.
    pub fn put_back(&self, route: &Route) -> Result<(), Problem> {
        let highest = self.highest_epoch();
        if highest > route.epoch {
            // With the route it was given to: the same order may come again, another with this number may not.
            let given = self.read().filter(|given| given.epoch == highest).or_else(|| self.given_away());
            let text = format!("{highest} {}\n", given.map(|route| route.to_string()).unwrap_or_default());
            durable::replace(&self.highest, text.as_bytes(), 0o644)
                .map_err(|error| unwritable(&self.highest, &error))?;
        }
        self.write(route)
    }

    /// The route that has the highest epoch and was taken back.
    pub fn given_away(&self) -> Option<Route> {
        let text = std::fs::read_to_string(&self.highest).ok()?;
        Route::parse(text.split_whitespace().nth(1)?).ok()
    }

    /// Keeps a copy of a confirmed route, for the day the map file is lost. A failure costs only that.
    pub fn remember(&self, route: &Route) {
        let next = self.copy.with_extension("next");
        // Not flushed: the map file itself is. Without the copy a lost map leads to the maintenance page.
        let _ = std::fs::write(&next, format!("{route}\n")).and_then(|()| std::fs::rename(&next, &self.copy));
    }

    /// The last confirmed route.
    pub fn remembered(&self) -> Option<Route> {
        Route::parse(std::fs::read_to_string(&self.copy).ok()?.trim()).ok()
    }

    /// Notes the worker that was seen with the route on disk. Not flushed: what is lost with the machine is lost with
    /// HAProxy's processes.
    pub fn settle(&self, pid: u32) {
        if self.settled() != Some(pid) {
            let next = self.settled.with_extension("next");
            let _ = std::fs::write(&next, format!("{pid}\n"))
                .and_then(|()| std::fs::rename(&next, &self.settled));
        }
    }

    /// The worker that was last seen with the route on disk, also by an agent that has ended since.
    pub fn settled(&self) -> Option<u32> {
        std::fs::read_to_string(&self.settled).ok()?.trim().parse().ok()
    }

    /// The highest epoch that was ever on disk. It never falls.
    pub fn highest_epoch(&self) -> RouteEpoch {
        let kept = std::fs::read_to_string(&self.highest)
            .ok()
            .and_then(|text| text.split_whitespace().next()?.parse().ok())
            .unwrap_or(0);
        let on_disk = self.read().map_or(0, |route| route.epoch.0);
        RouteEpoch(on_disk.max(kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_epoch_never_falls() {
        let folder = tempfile::tempdir().unwrap();
        let file = RouteFile::new(&folder.path().join("route.map"), "route", folder.path());
        assert_eq!(file.read(), None);
        assert_eq!(file.highest_epoch(), RouteEpoch(0));
        let (old, new) = (Route::parse("be_a:be_a:0:7").unwrap(), Route::parse("be_b:be_a:0:9").unwrap());
        file.write(&new).unwrap();
        file.put_back(&old).unwrap();
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
