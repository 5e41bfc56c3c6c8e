//! Plain SQL on its way into a database that its template has given extensions: what only an extension's owner may say about
//! it is left out, and so are the schemas that came with them, as the list of an archive's contents leaves them out.

use std::io::{self, BufWriter, Write};

/// How much of a line is looked at: what is left out stands at its beginning.
const LOOKED_AT: usize = 512;

/// What a database has already before it is loaded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    /// Extensions.
    pub(crate) extensions: Vec<String>,
    /// Schemas beside `public`, in which those may be.
    pub(crate) schemas: Vec<String>,
}

/// Passes lines on, but those about what is given.
pub(crate) struct WithoutGiven<W: Write> {
    into: BufWriter<W>,
    given: Given,
    /// The beginning of the line, as long as nothing is decided about it.
    line: Vec<u8>,
    state: State,
    /// How the line begins that is left out: it was announced, as `pg_dump` does, and comes next.
    announced: Option<&'static [u8]>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Looking,
    Passing,
    Dropping,
}

impl<W: Write> WithoutGiven<W> {
    /// Leaves out what is said about these.
    pub(crate) fn on(given: Given, into: W) -> Self {
        let into = BufWriter::with_capacity(1 << 16, into);
        Self { into, given, line: Vec::new(), state: State::Looking, announced: None }
    }

    fn judged(&mut self) -> State {
        let line = self.line.as_slice();
        if let Some(rest) = line.strip_prefix(b"-- Name: ") {
            let is = |rest: &[u8], name: &str, kind: &[u8]| {
                rest.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(kind))
            };
            let commented =
                |rest| self.given.extensions.iter().any(|name| is(rest, name, b"; Type: COMMENT;"));
            self.announced = if rest.strip_prefix(b"EXTENSION ").is_some_and(commented) {
                Some(b"COMMENT ON EXTENSION ")
            } else if self.given.schemas.iter().any(|name| is(rest, name, b"; Type: SCHEMA;")) {
                Some(b"CREATE SCHEMA ")
            } else {
                None
            };
        } else if self.announced.is_some_and(|begins| line.starts_with(begins)) {
            self.announced = None;
            return State::Dropping;
        }
        State::Passing
    }
}

impl<W: Write> Write for WithoutGiven<W> {
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
        let schema = "--\n-- Name: gis; Type: SCHEMA; Schema: -; Owner: site\n--\n\n";
        let own = "ALTER SCHEMA gis OWNER TO site;\n-- Name: g; Type: SCHEMA; Schema: -\nCREATE SCHEMA g;\n";
        let rows = "COPY public.t (a) FROM stdin;\nCOMMENT ON EXTENSION postgis IS 'a row';\nCREATE SCHEMA gis;\n\\.\nend";
        let text = format!(
            "{schema}CREATE SCHEMA gis;\n{own}{before}COMMENT ON EXTENSION postgis IS 'maps';\n{other}{rows}"
        );
        for size in [1, 3, 7, 64, text.len()] {
            let mut out = Vec::new();
            let given = Given { extensions: vec!["postgis".to_owned()], schemas: vec!["gis".to_owned()] };
            let mut filter = WithoutGiven::on(given, &mut out);
            for part in text.as_bytes().chunks(size) {
                filter.write_all(part).unwrap();
            }
            filter.flush().unwrap();
            drop(filter);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{schema}{own}{before}{other}{rows}"));
        }
    }
}
