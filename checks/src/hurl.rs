//! Files of the `hurl` command. The command and its folder are the agent's to grant; secrets reach it by a file.

use std::io::Write as _;
use std::time::Duration;

use pointsman_chassis::process::{self, RunError};
use tokio::time::Instant;

use crate::miss::Miss;
use crate::place::Place;
use crate::session::Session;

/// Runs one file against the place. In the file, `{{url}}` is the server, with TLS by the name that its certificate must have and
/// without it by its address, `{{host}}` its name and `{{side}}` the side of the
/// route that is meant; each of its requests asks for that by `X-Pointsman`. Secrets are variables by their names.
pub async fn make(file: &str, place: &Place, session: &Session, until: Instant) -> Result<String, Miss> {
    if place.server.proxy_protocol {
        return Err(Miss::Blind(
            "`hurl` asks no server that awaits the PROXY protocol: give the load balancer's frontend a `bind` without it".to_owned(),
        ));
    }
    let (command, path) = place.grants.hurl(file).map_err(Miss::Blind)?;
    let left = until.saturating_duration_since(Instant::now());
    let secrets = secrets_file(session)
        .map_err(|error| Miss::Blind(format!("cannot hand secrets to hurl: {error}")))?;
    let (address, host) = (place.server.address, &place.server.host);
    if place.server.tls.is_some() != place.authorities.is_some() {
        return Err(Miss::Blind("it is not known whose certificates `hurl` is to trust".to_owned()));
    }
    let url = match &place.authorities {
        Some(_) => format!("https://{host}"),
        None => format!("http://{address}"),
    };
    let mut arguments = vec![
        "--no-color".to_owned(),
        "--max-time".to_owned(),
        left.as_secs().max(1).to_string(),
        "--variable".to_owned(),
        format!("url={url}"),
        "--variable".to_owned(),
        format!("host={host}"),
        "--variable".to_owned(),
        format!("side={}", place.pin.as_ref().map_or("", |pin| pin.side)),
    ];
    // Asked by its name, so that the certificate and the `Host` fit, and yet here and nowhere else.
    if let Some(authorities) = &place.authorities {
        let here = format!("{host}:{HTTPS_PORT}:{address}");
        arguments.extend(["--connect-to".to_owned(), here]);
        arguments.extend(["--cacert".to_owned(), authorities.display().to_string()]);
    }
    // Every request of the file is led to the side that is meant.
    if let Some(pin) = &place.pin {
        arguments.extend(["--header".to_owned(), format!("X-Pointsman: {}", pin.side)]);
    }
    if let Some(secrets) = &secrets {
        arguments.extend(["--secrets-file".to_owned(), secrets.path().display().to_string()]);
    }
    arguments.extend(["--test".to_owned(), "--".to_owned(), path.display().to_string()]);
    // A moment less than what is left: the command's own end says more than ours.
    let program = command.display().to_string();
    let ran = process::run(&program, &arguments, left.max(Duration::from_secs(1))).await;
    match ran {
        Ok(_) => Ok(format!("`{file}` passed")),
        Err(error @ (RunError::NotStarted(..) | RunError::Lost(..))) => Err(Miss::Blind(error.to_string())),
        Err(RunError::Ended { status, output, .. }) if status.code().is_some_and(|code| code < ASKED) => {
            Err(Miss::Blind(format!("hurl cannot run `{file}`: {output}")))
        }
        Err(error) => Err(Miss::Failed(error.to_string())),
    }
}

/// The port of `https://` where none is said.
const HTTPS_PORT: u16 = 443;

/// The first exit code with which hurl says that it has asked: below it the command line or the file is wrong
/// (<https://hurl.dev/docs/manual.html#exit-codes>).
const ASKED: i32 = 3;

/// `name=value` by line, in a file that its owner alone can read and that goes when it is dropped.
fn secrets_file(session: &Session) -> std::io::Result<Option<tempfile::NamedTempFile>> {
    if session.values.is_empty() {
        return Ok(None);
    }
    let mut file = tempfile::NamedTempFile::new()?;
    for (name, value) in &session.values {
        // A value that an answer gave could bring a line of its own.
        if !value.contains(char::is_control) {
            writeln!(file, "{name}={value}")?;
        }
    }
    file.flush()?;
    Ok(Some(file))
}
