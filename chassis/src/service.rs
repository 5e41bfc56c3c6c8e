//! The life of a daemon: signals, and what systemd is told.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_stream::Stream;
use tracing::info;

/// Tells everything in a daemon that it is time to end.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Comes back when the daemon is to end.
    pub async fn requested(mut self) {
        // A closed channel means the same: whoever would have asked is gone.
        let _ = self.0.wait_for(|ending| *ending).await;
    }

    /// A stream that goes on until its reader leaves or the daemon is to end: no end of its own would let the daemon go.
    pub fn bounds<S: Stream>(self, stream: S) -> impl Stream<Item = S::Item> {
        stream.take_until(self.requested())
    }
}

/// Listens for SIGTERM and SIGINT, and calls `reload` on each SIGHUP.
pub fn listen(reload: impl Fn() + Send + 'static) -> std::io::Result<Shutdown> {
    let (ask, asked) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => {
                    info!("asked to reload: certificates are read anew; what a configuration file says, at a restart");
                    reload();
                }
            }
        }
        info!("asked to end");
        notify(&[sd_notify::NotifyState::Stopping]);
        let _ = ask.send(true);
    });
    Ok(Shutdown(asked))
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(states);
}

/// Tells systemd that the daemon is ready: its records are read and its port is bound.
pub fn ready(status: &str) {
    notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(status)]);
}

/// Tells systemd that the daemon is alive. To be called by the loop that does the work, never by a timer of its
/// own: a hang must show.
pub fn alive() {
    notify(&[sd_notify::NotifyState::Watchdog]);
}

/// How often [`alive`] is to be called: half of what systemd allows, or every ten seconds without systemd.
pub fn alive_every() -> Duration {
    /// Without systemd nobody waits; this only keeps the loop's rhythm.
    const WITHOUT_SYSTEMD: Duration = Duration::from_secs(10);
    sd_notify::watchdog_enabled().map_or(WITHOUT_SYSTEMD, |limit| limit / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_streamed_for_ever_ends_with_the_daemon() {
        let (ask, asked) = watch::channel(false);
        let mut endless = Box::pin(Shutdown(asked).bounds(futures_util::stream::repeat(1)));
        assert_eq!(endless.next().await, Some(1));
        ask.send(true).unwrap();
        assert_eq!(endless.next().await, None);
    }
}
