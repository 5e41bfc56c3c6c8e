//! Listening to a release, whatever happens to the coordinator meanwhile.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kit::Client;
use pointsman_proto::v1;
use tokio::task::JoinHandle;

/// Pause before a coordinator that does not answer is asked again.
const AGAIN: Duration = Duration::from_millis(10);

/// What has been heard of a release.
#[derive(Clone, Default)]
struct Heard {
    release: String,
    updates: Vec<v1::ReleaseUpdate>,
}

/// An ear on the release that begins next.
pub struct Ear {
    heard: Arc<Mutex<Heard>>,
    task: JoinHandle<()>,
}

impl Ear {
    /// Listens to the first release that is not `before`.
    pub fn listen(client: Client, before: String) -> Self {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let task = tokio::spawn(listen(client, before, Arc::clone(&heard)));
        Self { heard, task }
    }

    fn last(&self) -> Option<v1::Release> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.updates.iter().rev().find_map(|update| update.release.clone())
    }

    /// The release, once it is known.
    pub fn release(&self) -> String {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).release.clone()
    }

    /// Whether this was recorded of a step.
    pub fn recorded(&self, kind: &str, step: &str) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.updates.iter().any(|update| update.kind == kind && update.step == step)
    }

    /// How the release ended, once it did.
    pub fn outcome(&self) -> Option<String> {
        self.last().map(|release| release.outcome).filter(|outcome| !outcome.is_empty())
    }

    /// Why the release waits for a person, while it does.
    pub fn held(&self) -> Option<String> {
        self.last()?.held.map(|problem| format!("{problem:?}"))
    }

    /// Why the release turned back, if it did.
    pub fn turned_back(&self) -> String {
        self.last().and_then(|release| release.turned_back).map_or_else(String::new, |why| format!("{why:?}"))
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The newest release, if the coordinator answers; empty before the first.
pub async fn newest(client: &mut Client) -> Option<String> {
    let request = v1::ListReleasesRequest { environment: kit::ENVIRONMENT.to_owned(), limit: 1 };
    let listed = client.api.list_releases(request).await.ok()?.into_inner();
    Some(listed.releases.into_iter().next().and_then(|release| release.plan).unwrap_or_default().release)
}

async fn listen(mut client: Client, before: String, heard: Arc<Mutex<Heard>>) {
    let release = loop {
        match newest(&mut client).await.filter(|newest| *newest != before) {
            Some(release) => break release,
            None => tokio::time::sleep(AGAIN).await,
        }
    };
    heard.lock().unwrap_or_else(PoisonError::into_inner).release.clone_from(&release);
    loop {
        let after_seq = {
            let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.updates.iter().map(|update| update.seq).max().unwrap_or(0)
        };
        let environment = kit::ENVIRONMENT.to_owned();
        let request = v1::FollowRequest { environment, release: release.clone(), after_seq };
        if let Ok(updates) = client.api.follow(request).await {
            let mut updates = updates.into_inner();
            while let Ok(Some(update)) = updates.message().await {
                heard.lock().unwrap_or_else(PoisonError::into_inner).updates.push(update);
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}
