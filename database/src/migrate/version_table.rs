//! The table with the versions that was there before pointsman, read by name and type and kept up in its own style. It is
//! never created or altered.

use pointsman_core::{Code, Problem};
use pointsman_migration::Version;

use super::fault::Fault;
use super::ledger::literal;
use crate::Session;

/// Most rows read.
const MAX_ROWS: i64 = 10_000;
/// The name that such tables mostly have.
const CUSTOMARY: &str = "schema_version";

const FIND: &str = "
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), format_type(a.atttypid, a.atttypmod)
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = 'version' AND NOT a.attisdropped
 WHERE c.oid = to_regclass($1)";

/// Tables of people, wherever they are: with none of them there was nothing before.
const HAS_TABLES: &str = "
SELECT EXISTS (
    SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
       AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pointsman')
       AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d
            WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'))";

/// Tables of a name that have a column `version`, with their schemas.
const NAMED: &str = "
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = 'version' AND NOT a.attisdropped
 WHERE c.relname = $1 AND c.relkind IN ('r', 'p', 'v') AND n.nspname !~ '^pg_' AND n.nspname <> 'pointsman'
 ORDER BY 1 LIMIT 5";

/// Tables in which other tools keep what they have done.
const OF_OTHER_TOOLS: &str = "
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), EXISTS (
       SELECT 1 FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'version' AND NOT a.attisdropped)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relname IN ('flyway_schema_history', 'schema_migrations', 'alembic_version', 'django_migrations', 'databasechangelog',
                     'goose_db_version', 'knex_migrations', '__EFMigrationsHistory', '_sqlx_migrations', '_prisma_migrations')
   AND c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'pointsman'
 ORDER BY 1 LIMIT 1";

/// How other tools say that a version was begun and did not succeed.
const HALTED: &str = "
SELECT quote_ident(attname), attname = 'success'
  FROM pg_catalog.pg_attribute
 WHERE attrelid = to_regclass($1) AND attname IN ('dirty', 'success') AND atttypid = 'bool'::regtype AND NOT attisdropped";

/// Columns beside `version` that every row needs a value for.
const NEEDED: &str = "
SELECT quote_ident(attname), format_type(atttypid, NULL)
  FROM pg_catalog.pg_attribute
 WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped AND attname <> 'version'
   AND attnotnull AND NOT atthasdef AND attidentity = ''
 ORDER BY attnum";

/// The table as it was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct VersionTable {
    name: String,
    kind: String,
    rows: Vec<(String, Version)>,
    /// Columns that say when, and must be filled.
    times: Vec<String>,
    /// Columns that must be filled with what only the file's author knows.
    others: Vec<String>,
    /// What other tools note of a version that they began and did not finish, in words.
    halted: Option<String>,
    /// Rows that are no versions.
    pub(crate) unreadable: Vec<String>,
}

impl VersionTable {
    /// Reads the table of this name; `None` if there is none.
    pub(crate) async fn read(session: &Session, name: &str) -> Result<Option<Self>, Problem> {
        let failed = |error| Fault::from(error).while_doing(&format!("read the table `{name}`"));
        let Some(row) = session.client().query_opt(FIND, &[&name]).await.map_err(failed)? else {
            return Ok(None);
        };
        let found: String = row.try_get(0).map_err(failed)?;
        let kind: Option<String> = row.try_get(1).map_err(failed)?;
        let kind = kind.ok_or_else(|| {
            Problem::new(Code::RecordsUnfit, format!("the table {found} has no column `version`"))
                .hint("correct or remove `version_table` in the agent's [database] section")
        })?;
        let sql = format!("SELECT version::text FROM {found} WHERE version IS NOT NULL LIMIT {MAX_ROWS}");
        let mut table = Self { name: found, kind, ..Self::default() };
        for row in session.client().query(HALTED, &[&name]).await.map_err(failed)? {
            let (column, is_success): (String, bool) =
                (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
            let table_name = &table.name;
            // Who keeps attempts has a good one too, where it came to that.
            let bad = format!(
                "SELECT version::text FROM {table_name} bad WHERE {column} IS NOT DISTINCT FROM {} AND NOT EXISTS (
                        SELECT 1 FROM {table_name} good WHERE good.version = bad.version AND good.{column} IS NOT DISTINCT FROM {is_success})
                  LIMIT 1",
                !is_success
            );
            if let Some(row) = session.client().query_opt(&bad, &[]).await.map_err(failed)? {
                let version: Option<String> = row.try_get(0).map_err(failed)?;
                let version = version.unwrap_or_else(|| "without a number".to_owned());
                table.halted = Some(format!("version {version} has `{column} = {}`", !is_success));
            }
        }
        for row in session.client().query(NEEDED, &[&name]).await.map_err(failed)? {
            let (column, kind): (String, String) =
                (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
            let is_time = kind == "date" || kind.starts_with("timestamp");
            if is_time { table.times.push(column) } else { table.others.push(column) }
        }
        for row in session.client().query(&sql, &[]).await.map_err(failed)? {
            let text: String = row.try_get(0).map_err(failed)?;
            match Version::parse(text.trim()) {
                Ok(version) => table.rows.push((text, version)),
                Err(_) => table.unreadable.push(text),
            }
        }
        Ok(Some(table))
    }

    /// Refuses to begin with a database of which is not known what was done to it before: its table with the versions was
    /// not found, was not named, or says that one of them was not finished. `name` is what the settings say.
    pub(crate) async fn must_be_known(session: &Session, name: Option<&str>) -> Result<(), Problem> {
        let failed = |error| Fault::from(error).while_doing("look for the table with the versions");
        let table = match name {
            Some("") => return Ok(()),
            Some(name) => Self::read(session, name).await?,
            None => None,
        };
        if let Some(table) = table {
            let Some(halted) = &table.halted else { return Ok(()) };
            let message =
                format!("the table {} says that {halted}: it was begun and not finished", table.name);
            return Err(Problem::new(Code::AdoptionRefused, message)
                .hint("finish or undo that version by hand, correct its row, then try again"));
        }
        let row = session.client().query_one(HAS_TABLES, &[]).await.map_err(failed)?;
        if !row.try_get::<_, bool>(0).map_err(failed)? {
            return Ok(());
        }
        let base = name.map_or(CUSTOMARY, |name| name.rsplit('.').next().unwrap_or(name)).trim_matches('"');
        let rows = session.client().query(NAMED, &[&base]).await.map_err(failed)?;
        let named: Vec<String> =
            rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(failed)?;
        if name.is_none() && named.is_empty() {
            return match session.client().query_opt(OF_OTHER_TOOLS, &[]).await.map_err(failed)? {
                Some(row) => Err(of_another_tool(
                    &row.try_get::<_, String>(0).map_err(failed)?,
                    row.try_get(1).map_err(failed)?,
                )),
                None => Ok(()),
            };
        }
        let message = match (name, named.first()) {
            (None, None) => return Ok(()),
            (None, Some(found)) => {
                format!("the database has a table {found}, and the agent's configuration does not name it")
            }
            (Some(name), _) => {
                format!("the database has tables, and `{name}` with their version is not found")
            }
        };
        let problem = Problem::new(Code::AdoptionRefused, message)
            .cause("without it every file would run, also those whose work is there");
        Err(match named.first() {
            Some(found) => problem.hint(format!(
                "in the agent's [database] section: `version_table = {:?}`; `\"\"` where it is of something else; then \
                 `systemctl restart pointsman-agent`",
                found
            )),
            None => problem.hint(
                "correct `version_table` in the agent's [database] section, with the schema if need be, or remove it; then \
                 `systemctl restart pointsman-agent`",
            ),
        })
    }

    /// The highest version in it, by number and not by text.
    pub(crate) fn highest(&self) -> Option<&Version> {
        self.rows.iter().map(|(_, version)| version).max()
    }

    /// Whether it holds this version, however it is written.
    pub(crate) fn holds(&self, version: &Version) -> bool {
        self.rows.iter().any(|(_, held)| held == version)
    }

    /// Its name as SQL.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Adds the version in the table's own style, unless the file has done so itself. Where a row needs what only the file's
    /// author knows, the file has to.
    pub(crate) fn insert_sql(&self, version: &Version) -> Result<String, Problem> {
        let text = self.spelled(version)?;
        let name = &self.name;
        let missing = format!(
            "NOT EXISTS (SELECT 1 FROM {name} WHERE version::text = ANY ({}))",
            array(&forms(version))
        );
        if !self.others.is_empty() {
            let others = self.others.join(", ");
            let told = format!(
                "a row of {name} needs a value for {others}: write it in the file, \
                 `INSERT INTO {name} (version, {others}) VALUES ({}, ...)`",
                literal(&text)
            );
            // What is raised takes its text as a parameter: a per cent sign in a name means nothing.
            let body = format!(
                "BEGIN IF {missing} THEN RAISE EXCEPTION USING ERRCODE = 'not_null_violation', MESSAGE = {}; END IF; END",
                literal(&told)
            );
            return Ok(format!("DO {};", literal(&body)));
        }
        let columns: String = self.times.iter().map(|column| format!(", {column}")).collect();
        let now = ", now()".repeat(self.times.len());
        let (text, kind) = (literal(&text), &self.kind);
        Ok(format!("INSERT INTO {name} (version{columns}) SELECT {text}::{kind}{now} WHERE {missing};"))
    }

    /// Takes the version out again.
    pub(crate) fn delete_sql(&self, version: &Version) -> String {
        format!("DELETE FROM {} WHERE version::text = ANY ({});", self.name, array(&forms(version)))
    }

    fn spelled(&self, version: &Version) -> Result<String, Problem> {
        let bare = version.to_string();
        if matches!(self.kind.as_str(), "smallint" | "integer" | "bigint" | "numeric") {
            let whole = bare.strip_suffix(".0.0").filter(|major| major.chars().all(|c| c.is_ascii_digit()));
            return whole.map(str::to_owned).ok_or_else(|| {
                Problem::new(
                    Code::RecordsUnfit,
                    format!("the table {} holds whole numbers, the version is {bare}", self.name),
                )
                .hint("name the file after a whole number, or remove `version_table` in the agent's [database] section")
            });
        }
        let last = self.rows.iter().max_by_key(|(_, version)| version).map_or("", |(text, _)| text.trim());
        // As many numbers as those before it have, unless the others say something.
        let numbers = |text: &str| text.split('.').count();
        let mut spelled = bare.as_str();
        while !last.is_empty() && numbers(spelled) > numbers(last) {
            let Some(shorter) = spelled.strip_suffix(".0") else { break };
            spelled = shorter;
        }
        Ok(if last.starts_with('v') { format!("v{spelled}") } else { spelled.to_owned() })
    }
}

/// Another tool has migrated the database until now.
fn of_another_tool(table: &str, has_versions: bool) -> Problem {
    let message = format!("another tool keeps in {table} what it has done to the database");
    let name = if has_versions {
        format!("`version_table = {table:?}` where the files go on with its versions, else ")
    } else {
        String::new()
    };
    Problem::new(Code::AdoptionRefused, message)
        .cause("without it every file would run, also those whose work is there")
        .hint(format!(
            "in the agent's [database] section: {name}`version_table = \"\"` where all of the files come after it; then \
             `systemctl restart pointsman-agent`"
        ))
}

/// Every way in which the version may be written.
fn forms(version: &Version) -> Vec<String> {
    let full = version.to_string();
    let short = full.strip_suffix(".0").map(str::to_owned);
    let shortest = short.as_deref().and_then(|short| short.strip_suffix(".0")).map(str::to_owned);
    let bare = [Some(full), short, shortest].into_iter().flatten();
    bare.flat_map(|text| [format!("v{text}"), text]).collect()
}

fn array(texts: &[String]) -> String {
    format!("ARRAY[{}]", texts.iter().map(|text| literal(text)).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(kind: &str, rows: &[&str]) -> VersionTable {
        let rows = rows.iter().map(|text| ((*text).to_owned(), Version::parse(text).unwrap())).collect();
        VersionTable {
            name: "public.schema_version".into(),
            kind: kind.into(),
            rows,
            ..VersionTable::default()
        }
    }

    #[test]
    fn a_version_is_written_as_those_before_it() {
        let version = |text| Version::parse(text).unwrap();
        assert_eq!(table("text", &["1.1.0"]).spelled(&version("1.2.0")).unwrap(), "1.2.0");
        assert_eq!(table("text", &["v1.1.0"]).spelled(&version("1.2.0")).unwrap(), "v1.2.0");
        assert_eq!(table("text", &[]).spelled(&version("1.2.0")).unwrap(), "1.2.0");
        assert_eq!(table("text", &["1.9", "1.10"]).spelled(&version("1.11.0")).unwrap(), "1.11");
        assert_eq!(table("text", &["v1.9"]).spelled(&version("1.11.2")).unwrap(), "v1.11.2");
        let of_rails = table("text", &["20240115101500"]);
        assert_eq!(of_rails.spelled(&version("20240116101500")).unwrap(), "20240116101500");
        assert_eq!(table("integer", &["11"]).spelled(&version("12")).unwrap(), "12");
        assert!(table("integer", &["11"]).spelled(&version("1.2.0")).is_err());
    }

    #[test]
    fn the_highest_version_is_found_by_number() {
        assert_eq!(
            table("text", &["1.9.0", "v1.10.0", "1.2"]).highest(),
            Version::parse("1.10.0").ok().as_ref()
        );
        assert!(table("text", &["v1.2"]).holds(&Version::parse("1.2.0").unwrap()));
        assert_eq!(forms(&Version::parse("3").unwrap()), ["v3.0.0", "3.0.0", "v3.0", "3.0", "v3", "3"]);
    }
}
