//! The files that HAProxy runs by, as it names them itself, and the folders in which a change of them shows.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::reply;
use crate::workers::Workers;

/// Where HAProxy's configuration is when neither lb-agent.toml nor HAProxy itself says so.
pub const USUAL_CONFIG: &str = "/etc/haproxy/haproxy.cfg";

/// What HAProxy named when it was asked last: while it is down it runs by these again when it is started.
#[derive(Clone, Debug, Default)]
pub struct Loaded(Arc<Mutex<Option<Vec<PathBuf>>>>);

impl Loaded {
    /// The files that HAProxy has loaded, in its order, by the names that it was started with; those of the last answer where it
    /// gives none. Of a folder it names every file.
    pub async fn ask(&self, workers: &Workers) -> Option<Vec<PathBuf>> {
        let answer = workers.ask(&["show", "env", "HAPROXY_CFGFILES"], reply::loaded_files).await;
        let files: Vec<PathBuf> = answer.into_iter().flatten().map(PathBuf::from).collect();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !files.is_empty() {
            *last = Some(files);
        }
        last.clone()
    }
}

/// The folders that hold these files; of a folder itself. Where HAProxy does not name its files by whole paths, the usual one.
pub fn folders(named: &[PathBuf], loaded: Option<&[PathBuf]>) -> BTreeSet<PathBuf> {
    let loaded = loaded.filter(|files| files.iter().all(|file| file.is_absolute()));
    let usual = [PathBuf::from(USUAL_CONFIG)];
    // What lb-agent.toml names is what doctor reads, and what HAProxy has loaded is what it reads again.
    let all = named.iter().chain(loaded.unwrap_or(if named.is_empty() { &usual } else { &[] }));
    all.filter_map(|path| if path.is_dir() { Some(path.as_path()) } else { path.parent() })
        .map(Path::to_owned)
        .collect()
}

/// Whether HAProxy reads every `*.cfg` of the folder in which it has loaded these, one after the other: its answer names no folder.
/// Several in the order of their names are a whole folder, and so is one of `conf.d`. The folder of the usual file holds other
/// things besides.
pub fn are_a_folder(together: &[PathBuf]) -> bool {
    let Some(folder) = together.first().and_then(|file| file.parent()) else { return false };
    let in_order = together.is_sorted_by(|one, next| one.parent() == next.parent() && one < next);
    let by_name = folder.extension().is_some_and(|ending| ending == "d");
    in_order && (together.len() > 1 || by_name) && Some(folder) != Path::new(USUAL_CONFIG).parent()
}

/// Files that HAProxy has loaded, each with those beside it in the same folder.
pub fn by_folder(loaded: &[PathBuf]) -> impl Iterator<Item = &[PathBuf]> {
    loaded.chunk_by(|one, next| one.parent() == next.parent() && one < next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn a_change_shows_where_haproxys_files_are() {
        let folder = tempfile::tempdir().unwrap();
        let conf_d = folder.path().display().to_string();
        for (named, loaded, expected) in [
            (&[][..], None, &["/etc/haproxy"][..]),
            (&["/srv/h.cfg"], None, &["/srv"]),
            (&[conf_d.as_str()], None, &[conf_d.as_str()]),
            (&[], Some(&["h.cfg"][..]), &["/etc/haproxy"]),
            (&[], Some(&["/srv/h.cfg", "/srv/conf.d/a.cfg", "/srv/conf.d/b.cfg"]), &["/srv", "/srv/conf.d"]),
            (&["/srv/h.cfg"], Some(&["/etc/h/a.cfg"]), &["/etc/h", "/srv"]),
        ] {
            let found = folders(&paths(named), loaded.map(paths).as_deref());
            assert_eq!(found, paths(expected).into_iter().collect(), "{named:?} {loaded:?}");
        }
    }

    #[test]
    fn what_was_loaded_from_a_folder() {
        for (loaded, is) in [
            (&["/srv/a.cfg", "/srv/b.cfg"][..], true),
            (&["/srv/b.cfg", "/srv/a.cfg"], false),
            (&["/srv/a.cfg"], false),
            (&["/srv/conf.d/a.cfg"], true),
            (&["/etc/haproxy/a.cfg", "/etc/haproxy/b.cfg"], false),
            (&["/etc/haproxy/conf.d/a.cfg"], true),
            (&[], false),
        ] {
            assert_eq!(are_a_folder(&paths(loaded)), is, "{loaded:?}");
        }
    }
}
