//! Hints from the file system that something in a folder has changed. A hint may be lost, and on some mounts none ever
//! comes: whoever uses them looks from time to time as well.

use std::path::Path;
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tracing::warn;

/// Hints about some folders.
pub struct Hints {
    hints: mpsc::Receiver<()>,
    /// Keeps the channel open where nothing can be watched.
    _changed: mpsc::Sender<()>,
    _watcher: Option<notify::RecommendedWatcher>,
}

impl Hints {
    /// Watches folders, not files: editors, mounts of secrets and this agent itself rename. A folder that cannot be
    /// watched gives no hints.
    pub fn of<'a>(folders: impl IntoIterator<Item = &'a Path>) -> Self {
        let (changed, hints) = mpsc::channel(1);
        let sender = changed.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading is an event too: it must not lead to reading again.
            if event.is_ok_and(|event| !event.kind.is_access()) {
                // A full channel holds a hint already.
                let _ = sender.try_send(());
            }
        });
        let mut watcher =
            watcher.inspect_err(|error| warn!(%error, "cannot watch folders, only looking at them")).ok();
        if let Some(watcher) = watcher.as_mut() {
            for folder in folders {
                if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                    warn!(folder = %folder.display(), %error, "cannot watch this folder, only looking at it");
                }
            }
        }
        Self { hints, _changed: changed, _watcher: watcher }
    }

    /// Waits for a hint, at most so long.
    pub async fn within(&mut self, longest: Duration) -> bool {
        tokio::time::timeout(longest, self.hints.recv()).await.is_ok()
    }
}
