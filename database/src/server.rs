//! Which server this is.

use pointsman_core::Problem;

use crate::Session;
use crate::statement::{field, refused};

/// From this version on counters are in shared memory, and not sent to a process that may not have read them yet.
const COUNTERS_COMPLETE_FROM: u32 = 15;

/// What a server says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// `150018` is 15.18.
    pub number: u32,
    /// In words.
    pub version: String,
    /// The same for all copies of one cluster; other clusters have others.
    pub system: String,
    /// Whether it follows another server.
    pub standby: bool,
}

impl Server {
    pub(crate) async fn ask(session: &Session) -> Result<Self, Problem> {
        let row = session
            .client()
            .query_one(
                "SELECT current_setting('server_version_num')::int, current_setting('server_version'),
                        (SELECT system_identifier::text FROM pg_control_system()), pg_is_in_recovery()",
                &[],
            )
            .await
            .map_err(|error| refused("ask the server for its version", &error))?;
        let number: i32 = field(&row, 0)?;
        Ok(Self {
            number: number.unsigned_abs(),
            version: field(&row, 1)?,
            system: field(&row, 2)?,
            standby: field(&row, 3)?,
        })
    }

    /// Whether what a session wrote is counted in full when it has ended.
    pub(crate) fn counters_complete(&self) -> bool {
        self.major() >= COUNTERS_COMPLETE_FROM
    }

    /// 15 for 15.18.
    pub(crate) fn major(&self) -> u32 {
        self.number / 10_000
    }
}
