//! What the agent itself has done to the states of servers: HAProxy shows no epoch by which it could be told.

use std::path::PathBuf;

use pointsman_core::{Code, Problem, Route};

/// What the agent has last done to the states, kept beside its receipts.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) path: PathBuf,
}

/// What stands in the record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Recorded {
    /// The route that was last set whole.
    pub(super) whole: Option<Route>,
    /// The route that was being set when the agent or HAProxy stopped.
    pub(super) begun: Option<Route>,
}

impl Record {
    pub(super) fn read(&self) -> Recorded {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let line = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            value.and_then(|value| Route::parse(value.trim()).ok())
        };
        Recorded { whole: line("whole"), begun: line("begun") }
    }

    /// Not flushed: what is lost with the machine is lost with HAProxy's states.
    pub(super) fn write(&self, recorded: &Recorded) -> Result<(), Problem> {
        let line = |name: &str, route: &Option<Route>| {
            route.as_ref().map_or_else(String::new, |route| format!("{name} {route}\n"))
        };
        let text = line("whole", &recorded.whole) + &line("begun", &recorded.begun);
        let next = self.path.with_extension("next");
        std::fs::write(&next, text).and_then(|()| std::fs::rename(&next, &self.path)).map_err(|error| {
            Problem::new(Code::MapFileUnwritable, format!("cannot write `{}`", self.path.display()))
                .because(&error)
                .retry_useful()
                .hint("on the load balancer: `df -h`, and the owner of the agent's state folder")
        })
    }
}
