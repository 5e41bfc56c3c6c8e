//! Environments that the journal knows and of which there is no file: nobody drives what is open there, and what they may need of
//! the artifact store is kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use pointsman_core::{ArtifactDigest, Code, EnvironmentName, Problem, ReleaseId};
use pointsman_proto::v1;
use tokio::sync::OnceCell;
use tracing::{error, warn};

use crate::archive::Archive;
use crate::diagnose;
use crate::journal::JournalStore;
use crate::opening;
use crate::retention;

/// An environment without a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fileless {
    /// Its name.
    pub environment: EnvironmentName,
    /// Its release that is not over.
    pub open: Option<ReleaseId>,
    /// The artifacts that it may need when its file is back.
    pub needed: BTreeSet<ArtifactDigest>,
}

/// All of them. They are read from the journal once: while this coordinator runs, nothing is recorded of any. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct FilelessEnvironments(Arc<OnceCell<Vec<Fileless>>>);

impl FilelessEnvironments {
    /// Reads them, where that was not done yet, and says in the log what nobody drives. `led` are those that have a file.
    pub async fn read(
        &self,
        journal: &JournalStore,
        led: &BTreeSet<EnvironmentName>,
    ) -> Result<&[Fileless], Problem> {
        let found = self.0.get_or_try_init(|| async {
            let found = read(journal, led).await?;
            found.iter().for_each(Fileless::tell);
            Ok(found)
        });
        found.await.map(Vec::as_slice)
    }

    fn known(&self) -> &[Fileless] {
        self.0.get().map_or(&[], Vec::as_slice)
    }

    /// What `doctor` says of any environment: that another's release is left alone.
    pub fn findings(&self) -> impl Iterator<Item = v1::Finding> {
        self.known().iter().filter_map(Fileless::finding)
    }

    /// Why nothing can be asked of an environment, if it is one of these.
    pub fn why_not(&self, environment: &EnvironmentName) -> Option<Problem> {
        let fileless = self.known().iter().find(|fileless| fileless.environment == *environment)?;
        let message = match fileless.nobody_drives() {
            Some(nobody_drives) => nobody_drives,
            None => format!("the journal knows environment `{environment}`, but there is no file for it"),
        };
        Some(Problem::new(Code::EnvironmentUnknown, message).hint(fileless.fix()))
    }
}

async fn read(journal: &JournalStore, led: &BTreeSet<EnvironmentName>) -> Result<Vec<Fileless>, Problem> {
    let mut found = Vec::new();
    for environment in journal.environments().await? {
        if led.contains(&environment) {
            continue;
        }
        let told = opening::look(journal, &environment).await;
        let told = told.map_err(|problem| problem.in_environment(&environment))?;
        if told.releases.is_empty() {
            continue;
        }
        let open = told.open().map(|kept| kept.state.plan.release.clone());
        let newest = Archive::of(journal, &environment).before(u64::MAX, retention::RELEASES_KEPT).await?;
        let needed = retention::needed(&told.standing, newest.iter().chain(told.open()));
        found.push(Fileless { environment, open, needed });
    }
    Ok(found)
}

impl Fileless {
    fn tell(&self) {
        let (environment, artifacts) = (&self.environment, self.needed.len());
        match &self.open {
            Some(release) => error!(
                %environment, %release,
                "a release is open and its environment has no file: nobody drives it or watches its visitors. {}", self.fix()
            ),
            None => {
                warn!(%environment, artifacts, "an environment of the journal has no file: its artifacts are kept")
            }
        }
    }

    fn nobody_drives(&self) -> Option<String> {
        let release = self.open.as_ref()?;
        Some(format!(
            "release `{release}` of `{0}` is open, and there is no file for environment `{0}`: nobody drives it or watches its \
             visitors",
            self.environment
        ))
    }

    fn fix(&self) -> String {
        format!(
            "on the coordinator: put `{}.toml` back to the other environments, then `systemctl restart pointsman-coordinator`",
            self.environment
        )
    }

    fn finding(&self) -> Option<v1::Finding> {
        let what = self.nobody_drives()?;
        let why = "its visitors stay where they are, whatever they meet".to_owned();
        Some(v1::Finding { why, fix: self.fix(), ..diagnose::finding("coordinator", "warn", what, None) })
    }
}
