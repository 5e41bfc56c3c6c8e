//! Where checks are made: which server is asked, how visitors' routes are pinned, and what the agent may use.

use std::path::PathBuf;
use std::sync::Arc;

use pointsman_chassis::http_check::Target;

use crate::grants::Grants;

/// A place.
#[derive(Clone)]
pub struct Place {
    /// The server.
    pub server: Target,
    /// Where the server is asked with TLS, the file of the authorities that signed its certificate: other programs verify it too.
    pub authorities: Option<PathBuf>,
    /// The side of the route to ask for, and the mark that every answer must then bear.
    pub pin: Option<Pin>,
    /// What the agent may use.
    pub grants: Arc<Grants>,
    /// What is asked here, for earlier passes: another slot, or another route, is another place.
    pub key: String,
}

/// One side of the route of one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// `stable` or `canary`.
    pub side: &'static str,
    /// The epoch.
    pub epoch: String,
}

impl Pin {
    /// Says whether an answer, by its `X-Pointsman` header, came from that side.
    pub fn judge(&self, mark: Option<&str>) -> Result<(), String> {
        let field =
            |name: &str| mark?.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        let (epoch, side) = (field("epoch"), field("side"));
        if epoch == Some(self.epoch.as_str()) && side == Some(self.side) {
            return Ok(());
        }
        Err(format!(
            "was answered on side `{}` of epoch {}, expected `{}` of {}",
            side.unwrap_or("none"),
            epoch.unwrap_or("none"),
            self.side,
            self.epoch
        ))
    }
}
