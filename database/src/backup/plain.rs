//! Plain SQL on its way into a database that its template has given extensions: what only an extension's owner may say about
//! it is left out, as the list of an archive's contents leaves it out.

use std::io::{self, BufWriter, Write};

/// How much of a line is looked at: what is left out stands at its beginning.
const LOOKED_AT: usize = 512;

/// Passes lines on, but those comments.
pub(crate) struct WithoutComments<W: Write> {
    into: BufWriter<W>,
    extensions: Vec<String>,
    /// The beginning of the line, as long as nothing is decided about it.
    line: Vec<u8>,
    state: State,
    /// Whether the comment on such an extension was announced, as `pg_dump` does, and comes next.
    announced: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Looking,
    Passing,
    Dropping,
}

impl<W: Write> WithoutComments<W> {
    /// Leaves out what is said about these.
    pub(crate) fn on(extensions: Vec<String>, into: W) -> Self {
        let into = BufWriter::with_capacity(1 << 16, into);
        Self { into, extensions, line: Vec::new(), state: State::Looking, announced: false }
    }

    fn judged(&mut self) -> State {
        let line = self.line.as_slice();
        if let Some(rest) = line.strip_prefix(b"-- Name: EXTENSION ") {
            let is_of = |name: &String| {
                rest.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"; Type: COMMENT;"))
            };
            self.announced = self.extensions.iter().any(is_of);
        } else if self.announced && line.starts_with(b"COMMENT ON EXTENSION ") {
            self.announced = false;
            return State::Dropping;
        }
        State::Passing
    }
}

impl<W: Write> Write for WithoutComments<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let ends = part.ends_with(b"\n");
            match self.state {
                State::Dropping => {}
                State::Passing => self.into.write_all(part)?,
                State::Looking => {
                    self.line.extend_from_slice(part);
                    if ends || self.line.len() >= LOOKED_AT {
                        self.state = self.judged();
                        if self.state == State::Passing {
                            self.into.write_all(&self.line)?;
                        }
                        self.line.clear();
                    }
                }
            }
            if ends {
                self.state = State::Looking;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // A last line without an end.
        let left = std::mem::take(&mut self.line);
        self.into.write_all(&left)?;
        self.into.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_on_what_the_template_gave_are_left_out_however_the_text_is_cut() {
        let before = "--\n-- Name: EXTENSION postgis; Type: COMMENT; Schema: -; Owner: -\n--\n\n";
        let other = "-- Name: EXTENSION hstore; Type: COMMENT; Schema: -; Owner: -\nCOMMENT ON EXTENSION hstore IS 'pairs';\n";
        let rows = "COPY public.t (a) FROM stdin;\nCOMMENT ON EXTENSION postgis IS 'a row';\n\\.\nend";
        let text = format!("{before}COMMENT ON EXTENSION postgis IS 'maps';\n{other}{rows}");
        for size in [1, 3, 7, 64, text.len()] {
            let mut out = Vec::new();
            let mut filter = WithoutComments::on(vec!["postgis".to_owned()], &mut out);
            for part in text.as_bytes().chunks(size) {
                filter.write_all(part).unwrap();
            }
            filter.flush().unwrap();
            drop(filter);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{before}{other}{rows}"));
        }
    }
}
