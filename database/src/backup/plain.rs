//! Plain SQL on its way into a database that its template has given extensions: what only an extension's owner may say about
//! it is left out, and so are what it has from there and what would ask other databases, as the list of an archive's contents
//! leaves them out.

use std::io::{self, BufWriter, Write};

use super::given::{Announcement, Extent, Given, as_stored};

/// How much of a line is looked at: what is left out stands at its beginning.
/// A function is announced with the types of all its arguments.
const LOOKED_AT: usize = 2048;

/// Passes lines on, but those about what is given.
pub(crate) struct WithoutGiven<W: Write> {
    into: BufWriter<W>,
    given: Given,
    /// The beginning of the line, as long as nothing is decided about it.
    line: Vec<u8>,
    state: State,
    /// What is left out: it was announced, as `pg_dump` does, and comes next.
    announced: Option<Announced>,
    /// Whether the last line began a comment of `pg_dump`, or ended one.
    at_bar: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Announced {
    /// The line that begins so.
    Line(&'static [u8]),
    /// All until the next announcement, once the bar has come that ends this one.
    All { begun: bool },
}

/// Stands before and after each announcement.
const BAR: &[u8] = b"--\n";

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
        Self { into, given, line: Vec::new(), state: State::Looking, announced: None, at_bar: false }
    }

    fn judged(&mut self) -> State {
        let line = self.line.as_slice();
        let is_bar = line == BAR;
        let after_bar = std::mem::replace(&mut self.at_bar, is_bar);
        if let Some(Announced::All { begun }) = &mut self.announced {
            if !*begun {
                *begun = is_bar;
                return State::Passing;
            } else if !is_bar {
                return State::Dropping;
            }
            self.announced = None;
        }
        let announcement = line.strip_prefix(b"-- Name: ").filter(|_| after_bar);
        if let Some(announcement) = announcement {
            let announcement = as_stored(announcement);
            let entry = Announcement::parse(&announcement);
            let extent = entry.and_then(|entry| self.given.extent(&entry));
            self.announced = extent.map(|extent| match extent {
                Extent::Line(begins) => Announced::Line(begins),
                Extent::All => Announced::All { begun: false },
            });
        } else if matches!(self.announced, Some(Announced::Line(begins)) if line.starts_with(begins)) {
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
        let before = "--\n-- Name: EXTENSION postgis; Type: COMMENT; Schema: -; Owner: \n--\n\n";
        let other = "--\n-- Name: EXTENSION hstore; Type: COMMENT; Schema: -; Owner: \nCOMMENT ON EXTENSION hstore IS 'pairs';\n";
        let schema = "--\n-- Name: gis; Type: SCHEMA; Schema: -; Owner: site\n--\n\n";
        let own = "ALTER SCHEMA gis OWNER TO site;\n--\n-- Name: g; Type: SCHEMA; Schema: -; Owner: site\nCREATE SCHEMA g;\n";
        let rows = "COPY public.t (a) FROM stdin;\nCOMMENT ON EXTENSION postgis IS 'a row';\nCREATE SCHEMA gis;\n\\.\nend";
        let text = format!(
            "{schema}CREATE SCHEMA gis;\n{own}{before}COMMENT ON EXTENSION postgis IS 'maps';\n{other}{rows}"
        );
        assert_passes(&text, &format!("{schema}{own}{before}{other}{rows}"));
    }

    fn assert_passes(text: &str, expected: &str) {
        for size in [1, 3, 7, 64, text.len()] {
            let mut out = Vec::new();
            let given = Given {
                extensions: vec!["postgis".to_owned()],
                schemas: vec!["gis".to_owned(), "the maps".to_owned()],
                foreign_schemas: vec!["the maps".to_owned()],
                foreign_roles: vec!["postgres".to_owned()],
                empty: vec![("public".to_owned(), "of_far".to_owned())],
            };
            let mut filter = WithoutGiven::on(given, &mut out);
            for part in text.as_bytes().chunks(size) {
                filter.write_all(part).unwrap();
            }
            filter.flush().unwrap();
            drop(filter);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn whatever_is_said_of_what_is_a_superusers_is_left_out_to_the_next_announcement() {
        let named = |name: &str, kind: &str, schema: &str, owner: &str| {
            format!("--\n-- Name: {name}; Type: {kind}; Schema: {schema}; Owner: {owner}\n--\n")
        };
        let made = named("the maps", "SCHEMA", "-", "postgres");
        let comment = named("SCHEMA \"the maps\"", "COMMENT", "-", "postgres");
        let table = named("TABLE spatial_ref_sys", "ACL", "public", "postgres");
        let catalog = named("FUNCTION pg_stat_reset()", "ACL", "pg_catalog", "postgres")
            + "\nGRANT ALL ON FUNCTION pg_catalog.pg_stat_reset() TO a;\n\n";
        let far = named("of_far", "MATERIALIZED VIEW DATA", "public", "site");
        let own =
            named("TABLE features", "ACL", "public", "site") + "\nGRANT SELECT ON TABLE features TO a;\n\n";
        // A row that says the same is none.
        let rows = format!("COPY t (a) FROM stdin;\n{}a\n\\.\n", table.strip_prefix("--\n").unwrap());
        let text = format!(
            "{made}\nCREATE SCHEMA \"the maps\";\n\n\nALTER SCHEMA \"the maps\" OWNER TO postgres;\n\n{comment}\nCOMMENT ON SCHEMA \"the maps\" IS 'of\nmaps';\n\n\
             {catalog}{table}\nREVOKE ALL ON TABLE spatial_ref_sys FROM PUBLIC;\nGRANT SELECT ON TABLE spatial_ref_sys TO a;\n\n{own}{rows}{far}\nREFRESH MATERIALIZED VIEW public.of_far;\n\n\n{catalog}"
        );
        assert_passes(&text, &format!("{made}{comment}{catalog}{table}{own}{rows}{far}{catalog}"));
    }
}
