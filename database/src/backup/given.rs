//! What a database has before it is loaded, because it began from the template, and which entries of a dump are about that, or
//! would ask other databases.

use crate::statement::quoted;

/// A name or a line as it stands in a dump, which has the encoding of its database: each byte is a character here, so that
/// what is the same there is the same here, whatever the encoding is.
pub(crate) fn as_stored(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// What a database has already before it is loaded; all names are as they are stored.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    /// Extensions.
    pub(crate) extensions: Vec<String>,
    /// Schemas beside `public`.
    pub(crate) schemas: Vec<String>,
    /// Schemas of roles that the agent could not become. Rights on them, and their comments, are there too.
    pub(crate) foreign_schemas: Vec<String>,
    /// Such roles. Rights on what is theirs in a schema are there too: an extension made it.
    pub(crate) foreign_roles: Vec<String>,
    /// Materialized views, by schema and name, that are to stay empty.
    pub(crate) empty: Vec<(String, String)>,
}

/// How much of an entry is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The statement in one line that begins so; what else the entry says still holds.
    Line(&'static [u8]),
    /// All of it.
    All,
}

/// What `pg_dump` says of an entry before its statements: `gis; Type: SCHEMA; Schema: -; Owner: site`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Announcement<'a> {
    name: &'a str,
    kind: &'a str,
    schema: &'a str,
    /// Empty of what nobody owns.
    owner: &'a str,
}

impl<'a> Announcement<'a> {
    /// Reads what follows `-- Name: `.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        // What nobody owns has no owner there, but the space before one.
        let (rest, owner) = text.trim_end_matches(['\n', '\r']).rsplit_once("; Owner: ")?;
        let (rest, schema) = rest.rsplit_once("; Schema: ")?;
        let (name, kind) = rest.rsplit_once("; Type: ")?;
        Some(Self { name, kind, schema, owner })
    }

    /// The same as the list of an archive's contents has it, where blanks stand between names and in them.
    pub(crate) fn listed(&self) -> String {
        format!("{} {} {} {}", self.kind, self.schema, self.name, self.owner)
    }
}

impl Given {
    /// How much of an entry is given.
    pub(crate) fn extent(&self, entry: &Announcement<'_>) -> Option<Extent> {
        // What is said of a thing names it as a statement would.
        let is_one = |names: &[String], kind: &str| {
            let is = |name: &str| names.iter().any(|one| one == name || quoted(one) == name);
            entry.name.strip_prefix(kind).is_some_and(is)
        };
        match entry.kind {
            "COMMENT" if is_one(&self.extensions, "EXTENSION ") => {
                Some(Extent::Line(b"COMMENT ON EXTENSION "))
            }
            "COMMENT" | "ACL" if is_one(&self.foreign_schemas, "SCHEMA ") => Some(Extent::All),
            "ACL" if self.has_rights(entry.schema, entry.owner) => Some(Extent::All),
            "SCHEMA" if is_one(&self.foreign_schemas, "") => Some(Extent::All),
            "SCHEMA" if is_one(&self.schemas, "") => Some(Extent::Line(b"CREATE SCHEMA ")),
            "MATERIALIZED VIEW DATA" if self.stays_empty(entry) => Some(Extent::All),
            _ => None,
        }
    }

    fn stays_empty(&self, entry: &Announcement<'_>) -> bool {
        self.empty.iter().any(|(schema, name)| schema == entry.schema && name == entry.name)
    }

    /// Whether the rights on a thing in this schema, whose owner this is, are there.
    fn has_rights(&self, schema: &str, owner: &str) -> bool {
        // On what is the server's own somebody else gives rights, and doctor refuses them.
        schema != "-" && schema != "pg_catalog" && self.foreign_roles.iter().any(|role| role == owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_template_gave_is_known_and_nothing_else() {
        let given = Given {
            extensions: vec!["plpgsql".to_owned(), "postgis".to_owned()],
            schemas: vec!["gis".to_owned(), "topology".to_owned()],
            foreign_schemas: vec!["topology".to_owned(), "the maps".to_owned()],
            foreign_roles: vec!["postgres".to_owned(), "DB Admin".to_owned()],
            empty: vec![("maps".to_owned(), "of far".to_owned())],
        };
        let line = |begins: &'static str| Some(Extent::Line(begins.as_bytes()));
        let (all, schema, comment) =
            (Some(Extent::All), line("CREATE SCHEMA "), line("COMMENT ON EXTENSION "));
        let cases = [
            ("postgis; Type: EXTENSION; Schema: -; Owner: ", None),
            ("EXTENSION postgis; Type: COMMENT; Schema: -; Owner: ", comment),
            ("EXTENSION hstore; Type: COMMENT; Schema: -; Owner: ", None),
            ("gis; Type: SCHEMA; Schema: -; Owner: site", schema),
            ("SCHEMA gis; Type: ACL; Schema: -; Owner: site", None),
            ("SCHEMA gis; Type: COMMENT; Schema: -; Owner: site", None),
            ("gist; Type: SCHEMA; Schema: -; Owner: site", None),
            ("gis old; Type: SCHEMA; Schema: -; Owner: site", None),
            ("topology; Type: SCHEMA; Schema: -; Owner: postgres", all),
            ("SCHEMA topology; Type: ACL; Schema: -; Owner: postgres", all),
            ("SCHEMA \"the maps\"; Type: COMMENT; Schema: -; Owner: postgres", all),
            ("TABLE spatial_ref_sys; Type: ACL; Schema: public; Owner: postgres", all),
            ("TABLE pg_buffercache; Type: ACL; Schema: public; Owner: DB Admin", all),
            ("TABLE q; Type: ACL; Schema: Laden 1; Owner: App postgres", None),
            ("FUNCTION pg_stat_reset(); Type: ACL; Schema: pg_catalog; Owner: postgres", None),
            ("FUNCTION levenshtein(text, text); Type: ACL; Schema: public; Owner: postgres", all),
            ("TABLE features; Type: ACL; Schema: public; Owner: site", None),
            ("of far; Type: MATERIALIZED VIEW DATA; Schema: maps; Owner: site", all),
            ("of far; Type: MATERIALIZED VIEW; Schema: maps; Owner: site", None),
            ("of far; Type: MATERIALIZED VIEW DATA; Schema: public; Owner: site", None),
            ("near; Type: MATERIALIZED VIEW DATA; Schema: maps; Owner: site", None),
            ("DEFAULT PRIVILEGES FOR TABLES; Type: DEFAULT ACL; Schema: -; Owner: postgres", None),
        ];
        for (entry, expected) in cases {
            assert_eq!(given.extent(&Announcement::parse(entry).unwrap()), expected, "{entry}");
        }
    }

    #[test]
    fn an_entry_is_listed_with_its_names_in_a_row() {
        let entry =
            Announcement::parse("TABLE q; Type: ACL; Schema: Laden 1; Owner: App postgres\n").unwrap();
        assert_eq!(entry.listed(), "ACL Laden 1 TABLE q App postgres");
    }
}
