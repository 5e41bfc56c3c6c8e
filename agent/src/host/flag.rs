//! The maintenance file of a host: there, or not. It lives beside the artifacts, so no activation touches it.

use std::io;

use pointsman_chassis::agent_service::Rule;
use pointsman_chassis::artifact::file_problem;
use pointsman_chassis::failpoint;
use pointsman_core::{Evidence, Problem};

use super::Site;
use crate::sys::Found;

/// The name of the file, in the site root: the web server's configuration looks for it.
pub const NAME: &str = ".maintenance";

/// Whether the file is there. A folder or a link is none: web servers show no page for it.
pub fn is_there(site: &Site) -> io::Result<bool> {
    Ok(matches!(site.root().look(NAME)?, Found::File(_)))
}

/// Has the file there, or not.
pub fn set_flag(site: &Site, on: bool, rule: &Rule) -> Result<Evidence, Problem> {
    let failed = |error: io::Error| {
        file_problem("cannot change the maintenance file", &error)
            .aftermath(pointsman_core::Aftermath::Unknown)
    };
    let found = site.root().look(NAME).map_err(failed)?;
    let already = if on { matches!(found, Found::File(_)) } else { found == Found::Nothing };
    if !already {
        rule.check()?;
        if on {
            site.root().remove(NAME).map_err(failed)?;
            site.root().create(NAME, 0o644).map_err(failed)?;
        } else {
            site.root().remove(NAME).map_err(failed)?;
        }
        site.root().sync().map_err(failed)?;
        failpoint::pass("flag-changed");
    }
    Ok(Evidence {
        already,
        detail: format!("maintenance file {}", if on { "there" } else { "gone" }),
        ..Evidence::default()
    })
}
