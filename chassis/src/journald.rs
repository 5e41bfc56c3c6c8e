//! Events for journald, by its native protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).
//!
//! The text of an entry holds everything, as a line on a terminal would: `journalctl -u UNIT` shows nothing else. Each field
//! is kept beside it, to search by.

use std::fmt::{Debug, Write as _};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// What is kept of one value, in bytes: all of them fit into one datagram.
const LONGEST_BYTES: usize = 8 * 1024;

/// Writes events to journald; what it does not take, to standard error, which systemd reads as well.
pub(crate) struct Journald {
    socket: UnixDatagram,
    name: String,
}

impl Journald {
    /// Connects to the journal of this host.
    pub(crate) fn connect() -> io::Result<Self> {
        Self::to(Path::new(SOCKET))
    }

    fn to(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        // Whoever writes a line does not wait for a journal that hangs.
        socket.set_nonblocking(true)?;
        let name = std::env::current_exe().ok();
        let name = name.as_deref().and_then(Path::file_name).unwrap_or_default();
        Ok(Self { socket, name: name.to_string_lossy().into_owned() })
    }
}

impl<S: Subscriber> Layer<S> for Journald {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut entry = Entry::default();
        event.record(&mut entry);
        let metadata = event.metadata();
        let text = format!("{}{}", entry.message, entry.line);
        let mut datagram = Vec::with_capacity(512);
        put(&mut datagram, "MESSAGE", text.trim_start());
        put(&mut datagram, "PRIORITY", priority(metadata.level()));
        put(&mut datagram, "SYSLOG_IDENTIFIER", &self.name);
        put(&mut datagram, "TARGET", metadata.target());
        for (name, value) in &entry.fields {
            put(&mut datagram, name, value);
        }
        if self.socket.send(&datagram).is_err() {
            eprintln!("{} {}: {}", metadata.level(), metadata.target(), text.trim_start());
        }
    }
}

/// The priorities of syslog.
fn priority(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

/// One field: its name, the length of its value in 8 bytes, and the value, which may hold anything.
fn put(datagram: &mut Vec<u8>, name: &str, value: &str) {
    let end = value.floor_char_boundary(LONGEST_BYTES);
    let value = value.get(..end).unwrap_or_default();
    datagram.extend_from_slice(name.as_bytes());
    datagram.push(b'\n');
    datagram.extend_from_slice(&u64::try_from(value.len()).unwrap_or(0).to_le_bytes());
    datagram.extend_from_slice(value.as_bytes());
    datagram.push(b'\n');
}

/// What an event says.
#[derive(Default)]
struct Entry {
    message: String,
    /// ` name=value` of each field.
    line: String,
    fields: Vec<(String, String)>,
}

impl Entry {
    fn add(&mut self, field: &Field, value: String) {
        if field.name() == "message" {
            self.message = value;
            return;
        }
        // Writing to a string cannot fail.
        let _ = write!(self.line, " {}={value}", field.name());
        let fit = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        let name: String = field.name().chars().map(fit).collect();
        self.fields.push((format!("POINTSMAN_{name}"), value));
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// The fields of a datagram, as journald reads them.
    fn read(mut datagram: &[u8]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        while let Some(at) = datagram.iter().position(|byte| *byte == b'\n') {
            let name = String::from_utf8(datagram[..at].to_vec()).unwrap();
            let length =
                usize::try_from(u64::from_le_bytes(datagram[at + 1..at + 9].try_into().unwrap())).unwrap();
            let value = String::from_utf8(datagram[at + 9..at + 9 + length].to_vec()).unwrap();
            assert_eq!(datagram[at + 9 + length], b'\n');
            fields.push((name, value));
            datagram = &datagram[at + 10 + length..];
        }
        fields
    }

    #[test]
    fn the_text_of_an_entry_holds_everything_and_each_field_is_there_to_search_by() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        journal.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        let subscriber = tracing_subscriber::registry().with(Journald::to(&path).unwrap());
        let long = "ä".repeat(LONGEST_BYTES);
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(release = "v1", step = %"check", "order failed\nFAKE=1");
            tracing::info!(long, "much");
        });
        let mut buffer = vec![0; 64 * 1024];
        let length = journal.recv(&mut buffer).unwrap();
        let fields = read(&buffer[..length]);
        let value =
            |wanted: &str| fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        assert_eq!(value("MESSAGE"), Some("order failed\nFAKE=1 release=v1 step=check"));
        assert_eq!((value("PRIORITY"), value("POINTSMAN_RELEASE")), (Some("4"), Some("v1")));
        assert_eq!((value("POINTSMAN_STEP"), value("FAKE")), (Some("check"), None), "text makes no fields");
        let length = journal.recv(&mut buffer).unwrap();
        let fields = read(&buffer[..length]);
        assert!(fields.iter().all(|(_, value)| value.len() <= LONGEST_BYTES), "too long for a datagram");
    }
}
