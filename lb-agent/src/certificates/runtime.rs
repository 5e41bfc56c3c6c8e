//! The certificates of the running worker: shown, set and committed over its command socket.

use pointsman_chassis::site_certificate::{LeafFacts, unfit};
use pointsman_core::{Aftermath, Code, Problem};

use crate::command::{Command, INPUT_MARGIN_BYTES, MAX_INPUT_BYTES};
use crate::config::CertificatePath;
use crate::reply::{self, ShownCertificate};
use crate::socket::{CommandSocket, unreadable};
use crate::workers::first_line;

/// One certificate in the running worker.
pub struct Runtime<'a> {
    pub(crate) socket: &'a CommandSocket,
    pub(crate) path: &'a CertificatePath,
}

fn command(verb: &str, path: &CertificatePath) -> Result<Command, Problem> {
    Command::of(&[verb, "ssl", "cert", path.as_str()])
}

/// What a buffer of HAProxy's holds unless `tune.bufsize` says otherwise.
pub const DEFAULT_BUFFER_BYTES: usize = 16_384;

/// What goes through a buffer of so many bytes.
fn fit_through(buffer: usize) -> usize {
    buffer.saturating_sub(INPUT_MARGIN_BYTES)
}

/// The longest command that goes through a buffer of so many bytes, or of the default where that is not known.
fn most(buffer: Option<usize>) -> usize {
    buffer.map_or(MAX_INPUT_BYTES, fit_through)
}

/// Larger than any certificate that is taken in, [`pointsman_chassis::site_certificate::MAX_PEM_BYTES`], needs.
const LARGEST_BUFFER_BYTES: usize = 128 << 10;

/// Whether HAProxy shows this very certificate.
pub fn is(shown: &ShownCertificate, leaf: &LeafFacts) -> bool {
    shown.sha1.eq_ignore_ascii_case(&leaf.sha1)
        && shown.serial.trim_start_matches('0').eq_ignore_ascii_case(leaf.serial.trim_start_matches('0'))
}

impl Runtime<'_> {
    /// Refuses a certificate that does not fit through the socket: HAProxy would hang on it, or die. What fits is asked of the
    /// worker; one that does not say has the default. Returns how many bytes a whole command may have.
    pub async fn fits_socket(&self, pem: &str) -> Result<usize, Problem> {
        let pools = self.socket.ask(&Command::of(&["show", "pools"])?).await?;
        let buffer = reply::buffer_bytes(&pools);
        let (length, room) = (pem.len(), Self::room(self.path, buffer));
        if length <= room {
            return Ok(most(buffer));
        }
        let message = format!(
            "with chain and key it is {length} bytes long, and HAProxy's command socket takes {room}"
        );
        let problem = unfit(message).hint(format!(
            "in `global` of haproxy.cfg: `tune.bufsize {}`, then `systemctl reload haproxy`; or leave certificates out of the chain that visitors have already, as the root; or put it in place by hand and reload",
            Self::buffer_for(self.path, length)
        ));
        Err(match buffer.filter(|bytes| *bytes < DEFAULT_BUFFER_BYTES) {
            Some(bytes) => problem.cause(format!(
                "HAProxy's buffers hold {bytes} bytes: `tune.bufsize` in haproxy.cfg is below its default"
            )),
            None => problem,
        })
    }

    /// How many bytes of chain and key go through a buffer of so many bytes; through one of the default size if that is not known.
    pub fn room(path: &CertificatePath, buffer: Option<usize>) -> usize {
        most(buffer).saturating_sub("set ssl cert  <<\n\n\n".len()).saturating_sub(path.as_str().len())
    }

    /// The buffer through which so many bytes of chain and key go: the default, or that doubled as often as it takes.
    pub fn buffer_for(path: &CertificatePath, length: usize) -> usize {
        let sizes = std::iter::successors(Some(DEFAULT_BUFFER_BYTES), |bytes| bytes.checked_mul(2));
        sizes
            .take_while(|bytes| *bytes <= LARGEST_BUFFER_BYTES)
            .find(|bytes| Self::room(path, Some(*bytes)) >= length)
            .unwrap_or(LARGEST_BUFFER_BYTES)
    }

    /// What is served.
    pub async fn shown(&self) -> Result<ShownCertificate, Problem> {
        let command = command("show", self.path)?;
        let answer = self.socket.ask(&command).await?;
        if let Some(shown) = reply::certificate(&answer).filter(|shown| shown.path == self.path.as_str()) {
            return Ok(shown);
        }
        if answer.starts_with("Can't display the certificate") {
            return Err(self.refused("HAProxy does not know it", &answer));
        }
        Err(unreadable(&command, &first_line(&answer)))
    }

    /// Has the worker serve a certificate, by its PEM. The answer says only that it was taken: what is served is for
    /// [`Runtime::shown`] to say.
    pub async fn serve(&self, pem: &str) -> Result<(), Problem> {
        let most = self.fits_socket(pem).await?;
        let words = ["set", "ssl", "cert", self.path.as_str()];
        let set = self.socket.ask(&Command::with_payload(&words, pem, most)?).await?;
        if !reply::certificate_is_set(&set, self.path.as_str()) {
            return Err(self.refused("HAProxy refused it", &set));
        }
        let committed = self.socket.ask(&command("commit", self.path)?).await?;
        if !reply::certificate_is_committed(&committed) {
            return Err(self.refused("HAProxy did not commit it", &committed));
        }
        Ok(())
    }

    /// Gives up the open transaction. There may be none; what came of it only looking says.
    pub async fn abort(&self) {
        if let Ok(command) = command("abort", self.path) {
            let _ = self.socket.ask(&command).await;
        }
    }

    fn refused(&self, what: &str, answer: &str) -> Problem {
        Problem::new(Code::CertificateNotTaken, format!("certificate `{}`: {what}", self.path.as_str()))
            .aftermath(Aftermath::Unchanged)
            .cause(format!("its answer: {}", first_line(answer)))
            .hint("compare the path in haproxy.cfg and lb-agent.toml; `show ssl cert`, given to the socket that lb-agent.toml names, lists what HAProxy has")
    }
}
