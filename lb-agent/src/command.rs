//! What is sent to HAProxy's command sockets: one command, and nothing that could be a second one.
//!
//! A command is put together from words here and nowhere else. Whatever a word holds, the bytes that leave are one line
//! with one command: HAProxy ends a command at a line feed and at `;`, an argument at a space, and takes `\` for an
//! escape, `<<` for the start of a payload and a leading `@` for the name of another process. None of these can stand
//! in a word, so nothing has to be escaped; names and routes have a grammar of their own that is narrower still.

use std::fmt;

use pointsman_core::{Code, Problem};
use zeroize::Zeroizing;

/// The most that is sent at once, payload included, in bytes, unless HAProxy says that its buffers hold more. It must hold it whole in
/// one of `tune.bufsize`, 16384 by default. One of 16383 bytes is taken; from 16384 on no answer comes, and 2.6 then spins until
/// its own watchdog kills the process (measured). The rest is a margin.
pub const MAX_INPUT_BYTES: usize = 16_000;

/// That margin, which a smaller `tune.bufsize` has too.
pub const INPUT_MARGIN_BYTES: usize = 384;

/// One command for HAProxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    line: String,
    /// Lines without blank ones among them: a blank line would end the payload, and what follows be a command. They may
    /// be a secret.
    payload: Option<Zeroizing<String>>,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({:?}{})", self.line, if self.payload.is_some() { " <<" } else { "" })
    }
}

fn refused(what: &str, why: &str) -> Problem {
    let shown: String = what.chars().take(80).collect();
    Problem::new(
        Code::HaproxyReplyUnexpected,
        format!("refused to send `{}` to HAProxy: {why}", shown.escape_default()),
    )
    .hint("compare the names in lb-agent.toml with haproxy.cfg: letters, digits and `_ - . : /` only")
}

/// Why this cannot be a word of a command.
fn unfit(word: &str) -> Option<&'static str> {
    if word.is_empty() {
        return Some("a word is empty");
    }
    if !word.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some("a word holds a space, a control character or something that is not ASCII");
    }
    // Quotes mean nothing to the versions measured; no value of ours has one, and a later version may read them.
    if word.contains([';', '\\', '"', '\'']) || word.contains("<<") {
        return Some("a word holds what HAProxy reads as the end of a command, an escape or a payload");
    }
    word.starts_with('@').then_some("a word names another process")
}

impl Command {
    /// The command of these words.
    pub fn of(words: &[&str]) -> Result<Self, Problem> {
        let line = words.join(" ");
        if let Some(why) = words.iter().find_map(|word| unfit(word)) {
            return Err(refused(&line, why));
        }
        Self { line, payload: None }.bounded(MAX_INPUT_BYTES)
    }

    /// The command of these words with a payload, such as a certificate. Blank lines and carriage returns in it are
    /// left out: a blank line is where HAProxy takes a payload to end. `most` bytes go through its buffers.
    pub fn with_payload(words: &[&str], payload: &str, most: usize) -> Result<Self, Problem> {
        let Self { line, .. } = Self::of(words)?;
        let fit = |byte: u8| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        if !payload.bytes().all(fit) {
            return Err(refused(&line, "its payload holds something that is no text"));
        }
        // The whole room at once: a string that grows leaves copies behind.
        let mut joined = Zeroizing::new(String::with_capacity(payload.len().saturating_add(1)));
        for line in payload.split(['\n', '\r']).filter(|line| !line.trim().is_empty()) {
            if !joined.is_empty() {
                joined.push('\n');
            }
            joined.push_str(line);
        }
        let payload = joined;
        if payload.is_empty() {
            return Err(refused(&line, "its payload is empty"));
        }
        Self { line, payload: Some(payload) }.bounded(most)
    }

    fn bounded(self, most: usize) -> Result<Self, Problem> {
        if self.line.is_empty() {
            return Err(refused("", "it is empty"));
        }
        if self.bytes().len() > most {
            return Err(refused(&self.line, "it is longer than HAProxy reads at once"));
        }
        Ok(self)
    }

    /// The same command for the worker of this process id, to be sent to the master.
    pub fn for_worker(&self, pid: u32) -> Self {
        Self { line: format!("@!{pid} {}", self.line), payload: self.payload.clone() }
    }

    /// Its first two words: enough to know it in a message.
    pub fn verb(&self) -> String {
        self.line.split(' ').filter(|word| !word.starts_with("@!")).take(2).collect::<Vec<_>>().join(" ")
    }

    /// What is sent to a worker.
    pub fn bytes(&self) -> Zeroizing<Vec<u8>> {
        let payload = self.payload.as_deref().map_or("", String::as_str);
        let room = self.line.len().saturating_add(payload.len()).saturating_add(" <<\n\n\n".len());
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        bytes.extend_from_slice(self.line.as_bytes());
        if !payload.is_empty() {
            bytes.extend_from_slice(b" <<\n");
            bytes.extend_from_slice(payload.as_bytes());
            bytes.push(b'\n');
        }
        bytes.push(b'\n');
        bytes
    }

    /// What is sent to a master, which keeps the connection open unless it is told to quit. A payload would end the
    /// line, so a master is sent none.
    pub fn master_bytes(&self) -> Result<Vec<u8>, Problem> {
        match self.payload {
            None => Ok(format!("{};quit\n", self.line).into_bytes()),
            Some(_) => Err(refused(&self.line, "a master is sent no payload")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn config() -> ProptestConfig {
        ProptestConfig { failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() }
    }

    /// Splits input as HAProxy does: at line feeds and at `;`, whatever stands before them. A payload is skipped.
    fn commands(input: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let mut lines = input.split(|byte| *byte == b'\n');
        while let Some(line) = lines.next() {
            found.extend(line.split(|byte| *byte == b';').map(<[u8]>::to_vec));
            let begins = line.windows(2).any(|pair| pair == b"<<");
            if begins {
                lines.by_ref().find(|line| line.is_empty());
            }
        }
        found.retain(|command| !command.is_empty());
        found
    }

    fn words() -> impl Strategy<Value = Vec<String>> {
        let bait =
            "(;|\n|\r|\\\\|<<|@1| |\t|\0|;quit|\nshutdown frontend fe|é|\u{2028}|'|\"|%0a|\\\\;|\\\\ ){0,3}";
        let word = prop_oneof![
            any::<String>(),
            ("[a-z/_.:0-9]{0,12}", bait, "[a-z]{0,6}").prop_map(|(a, b, c)| format!("{a}{b}{c}")),
        ];
        prop::collection::vec(word, 0..6)
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn no_words_make_a_second_command(words in words()) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let Ok(command) = Command::of(&words) else { return Ok(()) };
            let bytes = command.bytes();
            prop_assert_eq!(commands(&bytes), [words.join(" ").into_bytes()]);
            // Nor more arguments than words.
            prop_assert_eq!(bytes.split(|byte| *byte == b' ').count(), words.len());
            prop_assert!(!bytes.starts_with(b"@") && bytes.len() <= MAX_INPUT_BYTES);
            let sent = command.for_worker(7).master_bytes().unwrap();
            prop_assert_eq!(commands(&sent), [format!("@!7 {}", words.join(" ")).into_bytes(), b"quit".to_vec()]);
        }

        #[test]
        fn no_payload_makes_a_second_command(payload in prop_oneof![any::<String>(), "([a-z;<@\\\\ ]{0,9}(\n|\r|\r\n)){0,9}"]) {
            let Ok(command) = Command::with_payload(&["set", "ssl", "cert", "/x.pem"], &payload, MAX_INPUT_BYTES) else { return Ok(()) };
            let bytes = command.bytes();
            prop_assert_eq!(commands(&bytes), [b"set ssl cert /x.pem <<".to_vec()]);
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            prop_assert_eq!(text.matches("\n\n").count(), 1);
            prop_assert!(text.ends_with("\n\n"));
            prop_assert!(command.master_bytes().is_err());
        }
    }

    #[test]
    fn what_is_refused() {
        for words in [
            &[][..],
            &[""],
            &["show", ""],
            &["show info"],
            &["show", "info;show"],
            &["show", "info\n"],
            &["show", "\r"],
            &["get", "map", "/a\\ b", "x"],
            &["get", "map", "/a", "<<"],
            &["get", "map", "/a", "x<<y"],
            &["@1", "show", "info"],
            &["show", "@!7"],
            &["röute"],
        ] {
            assert!(Command::of(words).is_err(), "{words:?}");
        }
        assert!(Command::of(&["x", &"a".repeat(MAX_INPUT_BYTES)]).is_err());
        assert!(Command::with_payload(&["x"], &"a\n".repeat(MAX_INPUT_BYTES), MAX_INPUT_BYTES).is_err());
        assert!(Command::with_payload(&["x"], " \n\r\n", MAX_INPUT_BYTES).is_err());
        let certificate =
            Command::with_payload(&["set", "ssl", "cert", "/x.pem"], "a\r\n\r\n \nb c\n", MAX_INPUT_BYTES)
                .unwrap();
        assert_eq!(certificate.bytes().as_slice(), b"set ssl cert /x.pem <<\na\nb c\n\n");
        assert_eq!(certificate.for_worker(1).verb(), "set ssl");
    }
}
