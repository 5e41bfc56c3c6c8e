//! Work on files, away from the threads that answer.

use pointsman_core::{Aftermath, Code, Problem};

/// Runs work on files on a thread that may block.
pub async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(Problem::new(Code::FileSystem, "work on files ended abruptly")
            .aftermath(Aftermath::Unknown)
            .retry_useful()
            .because(&error))
    })
}
