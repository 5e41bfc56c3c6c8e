//! What belongs to a database and not to what is in it: owner, encoding, locale, settings, rights. A dump of one
//! database holds none of it, and it follows the database, not its name.

use pointsman_core::{Code, Problem};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::statement::{field, literal, quoted, refused};

/// The first version of the server in which a database says who sorts its texts.
const PROVIDERS: i32 = 15;

/// A database from outside. Part of a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Its number, which stays when it is renamed.
    pub oid: u32,
    /// Who owns it.
    pub owner: String,
    /// How its texts are stored: `UTF8`.
    pub encoding: String,
    /// How they sort.
    pub collate: String,
    /// What counts as a letter.
    pub ctype: String,
    /// `c`, `i` for ICU, or `b`.
    pub provider: String,
    /// The locale of ICU or of the built-in provider.
    pub locale: Option<String>,
    /// What ICU sorts otherwise than its locale says.
    pub rules: Option<String>,
    /// Where its files are.
    pub tablespace: String,
    /// How many may connect; -1 for no limit.
    pub connection_limit: i32,
    /// What is said about it.
    pub comment: Option<String>,
    /// Who may do what; `None` for the rights that every database has.
    pub grants: Option<Vec<Grant>>,
    /// `ALTER DATABASE … SET`, and `ALTER ROLE … IN DATABASE … SET`.
    pub settings: Vec<Setting>,
}

/// A right on a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Who has it; `None` for everybody.
    pub role: Option<String>,
    /// `CONNECT`, `CREATE` or `TEMPORARY`.
    pub privilege: String,
    /// Whether it may be handed on.
    pub grantable: bool,
}

/// A setting of a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// For one role only.
    pub role: Option<String>,
    /// `NAME=VALUE`, as the server keeps it.
    pub assignment: String,
    /// Whether that role is a superuser: a person, and not the application.
    #[serde(default)]
    pub superuser: bool,
}

impl Shape {
    /// Asks for the shape of a database by name; `None` when there is none. Any database of the server may be asked.
    pub(crate) async fn ask(client: &Client, database: &str) -> Result<Option<Self>, Problem> {
        let failed = |error: tokio_postgres::Error| refused(&format!("look at `{database}`"), &error);
        // Columns that only some versions have are read by name from the row as JSON.
        let row = client
            .query_opt(
                "SELECT d.oid, r.rolname::text, pg_encoding_to_char(d.encoding)::text, t.spcname::text,
                        shobj_description(d.oid, 'pg_database'), d.datconnlimit, d.datcollate::text,
                        d.datctype::text, coalesce(to_jsonb(d) ->> 'datlocprovider', 'c'),
                        coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'),
                        to_jsonb(d) ->> 'daticurules', d.datacl IS NOT NULL
                   FROM pg_database d
                   JOIN pg_roles r ON r.oid = d.datdba
                   JOIN pg_tablespace t ON t.oid = d.dattablespace
                  WHERE d.datname = $1",
                &[&database],
            )
            .await
            .map_err(failed)?;
        let Some(row) = row else { return Ok(None) };
        let oid: u32 = field(&row, 0)?;
        let grants = if field(&row, 11)? { Some(grants(client, oid).await?) } else { None };
        Ok(Some(Self {
            oid,
            owner: field(&row, 1)?,
            encoding: field(&row, 2)?,
            tablespace: field(&row, 3)?,
            comment: field(&row, 4)?,
            connection_limit: field(&row, 5)?,
            collate: field(&row, 6)?,
            ctype: field(&row, 7)?,
            provider: field(&row, 8)?,
            locale: field(&row, 9)?,
            rules: field(&row, 10)?,
            grants,
            settings: settings(client, oid).await?,
        }))
    }

    /// The same of a database that must be there.
    pub(crate) async fn of(client: &Client, database: &str) -> Result<Self, Problem> {
        Self::ask(client, database).await?.ok_or_else(|| {
            Problem::new(Code::DatabaseUnfit, format!("there is no database `{database}`"))
                .hint(
                    "`name` in the agent's [database] section must be that of the live database; if that is gone, a restore needs \
                     an empty one in its place: as a superuser `CREATE DATABASE … OWNER …`, then `database-role.sql` with the backup's manifest",
                )
        })
    }

    /// Creates a database of this shape from a template. Only its owner may connect to it, whoever may to the live one: it is
    /// there without anybody's rights until it is dressed, with all that the template holds. Its settings hold from the
    /// beginning, as far as the role may set them: rows and expressions may be read by them.
    pub(crate) async fn create(&self, client: &Client, name: &str, template: &str) -> Result<(), Problem> {
        let failed = |error: tokio_postgres::Error| refused(&format!("create the database `{name}`"), &error);
        let asked = "SELECT current_setting('server_version_num')::int / 10000";
        let major: i32 = field(&client.query_one(asked, &[]).await.map_err(failed)?, 0)?;
        let database = quoted(name);
        // One by one: a database is created outside of transactions, and everybody may connect to a new one.
        for statement in [
            self.creation(name, template, major),
            format!("REVOKE ALL ON DATABASE {database} FROM PUBLIC"),
            format!("ALTER DATABASE {database} ALLOW_CONNECTIONS true"),
        ] {
            client.batch_execute(&statement).await.map_err(failed)?;
        }
        for setting in self.settings.iter().filter(|setting| setting.may_hold_for_a_load()) {
            let Some(statement) = setting.statement(&database) else { continue };
            if let Err(error) = client.batch_execute(&statement).await {
                if error.as_db_error().is_none() {
                    return Err(failed(error));
                }
                let statement = self.told(&statement, name);
                tracing::warn!(statement, %error, "a setting of the database could not be given to a copy of it");
            }
        }
        Ok(())
    }

    /// Whether a database can begin from that one: both store and sort texts alike.
    pub(crate) fn sorts_like(&self, other: &Self) -> bool {
        self.texts() == other.texts()
    }

    /// How its texts are stored and sorted, in words.
    pub(crate) fn sorting(&self) -> String {
        let provider = match self.provider.as_str() {
            "i" => "icu",
            "b" => "builtin",
            _ => "libc",
        };
        let (locale, rules) = (self.locale.as_deref(), self.rules.as_deref());
        let locale = locale.map(|locale| format!(" `{locale}`")).unwrap_or_default();
        let rules = rules.map(|rules| format!(" with the rules `{rules}`")).unwrap_or_default();
        format!("{}, {}, {}, {provider}{locale}{rules}", self.encoding, self.collate, self.ctype)
    }

    fn texts(&self) -> (&str, &str, &str, &str, Option<&str>, Option<&str>) {
        let (locale, rules) = (self.locale.as_deref(), self.rules.as_deref());
        (&self.encoding, &self.collate, &self.ctype, &self.provider, locale, rules)
    }

    fn creation(&self, name: &str, template: &str, major: i32) -> String {
        let locale = self.locale.as_deref().map(literal);
        let rules = self.rules.as_deref().map(|rules| format!(" ICU_RULES {}", literal(rules)));
        let provider = match (self.provider.as_str(), locale) {
            ("i", Some(locale)) => {
                format!(" LOCALE_PROVIDER icu ICU_LOCALE {locale}{}", rules.unwrap_or_default())
            }
            ("b", Some(locale)) => format!(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {locale}"),
            // Unsaid, it would be that of the template, whose cluster may have been made with another one.
            _ if major >= PROVIDERS => " LOCALE_PROVIDER libc".to_owned(),
            _ => String::new(),
        };
        // Naming the default tablespace needs a right that its absence does not.
        let tablespace = match self.tablespace.as_str() {
            "pg_default" => String::new(),
            other => format!(" TABLESPACE {}", quoted(other)),
        };
        format!(
            "CREATE DATABASE {} OWNER {} TEMPLATE {} ENCODING {} LC_COLLATE {} LC_CTYPE {}{provider}{tablespace} \
             ALLOW_CONNECTIONS false",
            quoted(name),
            quoted(&self.owner),
            quoted(template),
            literal(&self.encoding),
            literal(&self.collate),
            literal(&self.ctype),
        )
    }

    /// The settings of this database that change what its sessions see and that the other one, called `name`, lacks: as the
    /// statements that a superuser, or the role itself, would give.
    pub(crate) fn lacking(&self, other: &Self, name: &str) -> Vec<String> {
        let seen = |setting: &&Setting| !setting.superuser && setting.changes_what_is_seen();
        let has = |setting: &Setting| other.settings.iter().any(|there| there.says_the_same(setting));
        let lacking = self.settings.iter().filter(seen).filter(|setting| !has(setting));
        lacking.filter_map(|setting| setting.statement(&quoted(name))).collect()
    }

    /// The role whose setting this statement is: it may set it itself.
    pub(crate) fn role_of<'s>(&'s self, statement: &str, name: &str) -> Option<&'s str> {
        let is = |setting: &&Setting| setting.statement(&quoted(name)).as_deref() == Some(statement);
        self.settings.iter().find(is)?.role.as_deref()
    }

    /// A statement as it may be told: what is set may be a secret, unless it is known what it is for.
    pub(crate) fn told(&self, statement: &str, name: &str) -> String {
        let is = |setting: &&Setting| setting.statement(&quoted(name)).as_deref() == Some(statement);
        match self.settings.iter().find(is) {
            Some(setting) if !setting.changes_what_is_seen() => setting.setting("…", &quoted(name)),
            _ => None,
        }
        .unwrap_or_else(|| statement.to_owned())
    }

    /// The roles that have such settings.
    pub(crate) fn roles_that_see_otherwise(&self) -> Vec<&str> {
        let bare = Self { settings: Vec::new(), ..Self::default() };
        let statements = self.lacking(&bare, "");
        let mut roles: Vec<&str> = statements.iter().filter_map(|told| self.role_of(told, "")).collect();
        roles.sort_unstable();
        roles.dedup();
        roles
    }

    /// The statements that give a new database all else.
    pub(crate) fn dressing(&self, name: &str) -> Vec<String> {
        let database = quoted(name);
        let mut statements =
            vec![format!("ALTER DATABASE {database} CONNECTION LIMIT {}", self.connection_limit)];
        let comment = self.comment.as_deref().map_or_else(|| "NULL".to_owned(), literal);
        statements.push(format!("COMMENT ON DATABASE {database} IS {comment}"));
        statements.push(format!("REVOKE ALL ON DATABASE {database} FROM PUBLIC"));
        match &self.grants {
            Some(grants) => statements.extend(grants.iter().map(|grant| grant.statement(&database))),
            None => statements.push(format!("GRANT CONNECT, TEMPORARY ON DATABASE {database} TO PUBLIC")),
        }
        // What the live database does not set any more, a dressing of before must not leave.
        statements.push(format!("ALTER DATABASE {database} RESET ALL"));
        statements.extend(self.settings.iter().filter_map(|setting| setting.statement(&database)));
        statements
    }
}

impl Grant {
    fn statement(&self, database: &str) -> String {
        let role = self.role.as_deref().map_or_else(|| "PUBLIC".to_owned(), quoted);
        let option = if self.grantable { " WITH GRANT OPTION" } else { "" };
        // The server's own list of words, never a name.
        let privilege: String = self.privilege.chars().filter(char::is_ascii_uppercase).collect();
        format!("GRANT {privilege} ON DATABASE {database} TO {role}{option}")
    }
}

impl Setting {
    /// Whether both set the same: lists are kept with blanks in them, or without.
    fn says_the_same(&self, other: &Self) -> bool {
        let same_value = || match (self.assignment.split_once('='), other.assignment.split_once('=')) {
            (Some((name, one)), Some((named, another))) if name == named && LISTS.contains(&name) => {
                elements(one) == elements(another)
            }
            _ => self.assignment == other.assignment,
        };
        self.role == other.role && same_value()
    }

    /// Whether sessions that load a copy may begin with it: those of the agent, as nobody else.
    fn may_hold_for_a_load(&self) -> bool {
        self.role.is_none() && !self.assignment.to_ascii_lowercase().starts_with("role=")
    }

    fn changes_what_is_seen(&self) -> bool {
        let name = self.assignment.split('=').next().unwrap_or_default();
        CHANGE_WHAT_IS_SEEN.contains(&name.to_ascii_lowercase().as_str())
    }

    fn statement(&self, database: &str) -> Option<String> {
        let (name, value) = self.assignment.split_once('=')?;
        let value = if LISTS.contains(&name) {
            elements(value).iter().map(|element| literal(element)).collect::<Vec<_>>().join(", ")
        } else {
            literal(value)
        };
        self.setting(&value, database)
    }

    /// The statement that sets it to this.
    fn setting(&self, value: &str, database: &str) -> Option<String> {
        let (name, _) = self.assignment.split_once('=')?;
        // Extensions' settings have a dot in their names.
        let name = name.split('.').map(quoted).collect::<Vec<_>>().join(".");
        Some(match &self.role {
            None => format!("ALTER DATABASE {database} SET {name} TO {value}"),
            Some(role) => format!("ALTER ROLE {} IN DATABASE {database} SET {name} TO {value}", quoted(role)),
        })
    }
}

/// Settings with which the same query finds other tables, other rows, or other texts.
const CHANGE_WHAT_IS_SEEN: [&str; 11] = [
    "bytea_output",
    "client_encoding",
    "datestyle",
    "default_text_search_config",
    "default_transaction_read_only",
    "intervalstyle",
    "role",
    "row_security",
    "search_path",
    "standard_conforming_strings",
    "timezone",
];

/// Settings that the server keeps as lists of quoted names: each name is a value of its own, as `pg_dump` has it.
const LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// The names in `"$user", public`.
pub(crate) fn elements(list: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let (mut inside, mut characters) = (false, list.chars().peekable());
    while let Some(c) = characters.next() {
        match c {
            '"' if inside && characters.peek() == Some(&'"') => {
                characters.next();
                if let Some(last) = found.last_mut() {
                    last.push('"');
                }
            }
            '"' => inside = !inside,
            ',' if !inside => found.push(String::new()),
            c if !inside && c.is_whitespace() => {}
            c => {
                if let Some(last) = found.last_mut() {
                    last.push(c);
                }
            }
        }
    }
    found
}

async fn grants(client: &Client, oid: u32) -> Result<Vec<Grant>, Problem> {
    let rows = client
        .query(
            "SELECT r.rolname::text, a.privilege_type, a.is_grantable
               FROM pg_database d, aclexplode(d.datacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
              WHERE d.oid = $1 ORDER BY 1 NULLS FIRST, 2",
            &[&oid],
        )
        .await
        .map_err(|error| refused("list rights on the database", &error))?;
    rows.iter()
        .map(|row| Ok(Grant { role: field(row, 0)?, privilege: field(row, 1)?, grantable: field(row, 2)? }))
        .collect()
}

async fn settings(client: &Client, oid: u32) -> Result<Vec<Setting>, Problem> {
    let rows = client
        .query(
            "SELECT r.rolname::text, unnest(s.setconfig), coalesce(r.rolsuper, false)
               FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole
              WHERE s.setdatabase = $1 ORDER BY 1 NULLS FIRST, 2",
            &[&oid],
        )
        .await
        .map_err(|error| refused("list settings of the database", &error))?;
    rows.iter()
        .map(|row| {
            Ok(Setting { role: field(row, 0)?, assignment: field(row, 1)?, superuser: field(row, 2)? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sorts_texts_is_said_to_servers_that_know_of_it() {
        let shape = |provider: &str, locale: Option<&str>, rules: Option<&str>| Shape {
            provider: provider.into(),
            locale: locale.map(str::to_owned),
            rules: rules.map(str::to_owned),
            tablespace: "pg_default".into(),
            ..Shape::default()
        };
        let cases = [
            (shape("c", None, None), 14, ""),
            (shape("c", None, None), 15, " LOCALE_PROVIDER libc"),
            (shape("i", Some("de"), None), 15, " LOCALE_PROVIDER icu ICU_LOCALE 'de'"),
            (
                shape("i", Some("de"), Some("&a < g")),
                16,
                " LOCALE_PROVIDER icu ICU_LOCALE 'de' ICU_RULES '&a < g'",
            ),
            (shape("b", Some("C.UTF-8"), None), 17, " LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'"),
        ];
        for (shape, major, expected) in cases {
            let statement = shape.creation("n", "t", major);
            let (_, told) = statement.split_once(" LC_CTYPE ''").unwrap();
            assert_eq!(told, format!("{expected} ALLOW_CONNECTIONS false"));
        }
    }

    #[test]
    fn lists_become_their_elements_and_nothing_leaves_its_quotes() {
        let statement = |assignment: &str| {
            Setting { role: None, assignment: assignment.into(), superuser: false }
                .statement("\"d\"")
                .unwrap()
        };
        assert_eq!(
            statement("search_path=\"$user\", gis, \"a\"\"b, c\""),
            "ALTER DATABASE \"d\" SET \"search_path\" TO '$user', 'gis', 'a\"b, c'"
        );
        assert_eq!(statement("app.x=it's=1"), "ALTER DATABASE \"d\" SET \"app\".\"x\" TO 'it''s=1'");
    }
}
