//! Commands from any words and payload: what is sent is one command, or nothing.

use pointsman_lb_agent::command::{Command, MAX_INPUT_BYTES};

/// Holds what is made of these words against the rule.
pub fn hold(words: &[String], payload: Option<&str>, pid: u32) {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let made = match payload {
        None => Command::of(&words),
        Some(payload) => Command::with_payload(&words, payload, MAX_INPUT_BYTES),
    };
    let Ok(command) = made else { return };
    let bytes = command.bytes();
    assert!(bytes.len() <= MAX_INPUT_BYTES && bytes.is_ascii());
    let (line, rest) = bytes.split_at(bytes.iter().position(|byte| *byte == b'\n').expect("a line ends"));
    assert!(!line.iter().any(|byte| matches!(byte, b';' | b'\\' | b'\r')) && line.first() != Some(&b'@'));
    if payload.is_none() {
        assert_eq!((line, rest), (words.join(" ").as_bytes(), &b"\n"[..]));
        let sent = command.for_worker(pid).master_bytes().expect("a master is sent commands");
        assert_eq!(sent, format!("@!{pid} {};quit\n", words.join(" ")).as_bytes());
        return;
    }
    // The payload ends with the first blank line, and that is the last of it.
    let rest = std::str::from_utf8(rest).expect("text");
    assert!(line.ends_with(b" <<") && rest.ends_with("\n\n") && rest.matches("\n\n").count() == 1);
    assert!(!rest.contains('\r') && command.master_bytes().is_err());
}
