//! The database that restores begin from, because it holds the extensions that a superuser created or only one can: whether one
//! like the live database can begin from it, and holds nothing then that the live one has not.

use pointsman_core::Problem;

use crate::copy::template_of;
use crate::preflight::{Finding, extensions_of};
use crate::shape::Shape;
use crate::statement::{field, refused};
use crate::{Session, Settings, foreign};

/// What findings are about.
const CHECK: &str = "template";

/// Looks at it; none is well too, where no extension needs it.
pub(crate) async fn look(
    settings: &Settings,
    session: &Session,
    live: &Shape,
) -> Result<Vec<Finding>, Problem> {
    let name = template_of(settings);
    let Some(shape) = Shape::ask(session.client(), &name).await? else {
        return foreign::look(settings, None, CHECK, &script(settings, live)).await;
    };
    let mut findings: Vec<Finding> = belongs_to_other(session, &name).await?.into_iter().collect();
    let unlike = unlike(settings, &name, &shape, live);
    if findings.is_empty() {
        findings.extend(extensions(settings, &name, live).await?);
        // One that is to be made anew gets its rights then.
        if unlike.is_none() {
            findings.extend(closed(settings, &name, live).await?);
        }
        findings.extend(foreign::look(settings, Some(&name), CHECK, &script(settings, live)).await?);
    }
    findings.extend(unlike);
    if findings.is_empty() {
        findings.push(Finding::fine(CHECK, name));
    }
    Ok(findings)
}

/// The server lets no database begin from one that stores or sorts texts otherwise.
fn unlike(settings: &Settings, template: &str, shape: &Shape, live: &Shape) -> Option<Finding> {
    if shape.sorts_like(live) {
        return None;
    }
    let found = format!(
        "`{template}`, which restores begin from, stores or sorts texts otherwise ({}) than `{}` ({})",
        shape.sorting(),
        settings.name,
        live.sorting()
    );
    Some(Finding::refused(CHECK, found, format!("this makes it anew: {}", script(settings, live))))
}

/// What the live database has given up stays in every copy, which then differs from its backup; what was put into another
/// schema there is not found where the backup's own things look for it; what was updated there would be of before.
async fn extensions(settings: &Settings, template: &str, live: &Shape) -> Result<Vec<Finding>, Problem> {
    let wanted = extensions_of(settings, &settings.name).await?;
    let (mut surplus, mut moved, mut other) = (Vec::new(), Vec::new(), Vec::new());
    for (name, there) in extensions_of(settings, template).await? {
        match wanted.get(&name) {
            None => surplus.push(format!("`{name}`")),
            Some(here) if here.schema != there.schema => {
                moved.push(format!("`{name}` in schema {} instead of {}", there.schema, here.schema));
            }
            Some(here) if here.version != there.version => {
                other.push(format!("`{name}` {} instead of {}", there.version, here.version));
            }
            Some(_) => {}
        }
    }
    let begins = format!("`{template}`, which restores begin from, has");
    let script = script(settings, live);
    let mut findings = Vec::new();
    if !surplus.is_empty() {
        let found = format!("{begins} {} and `{}` has not", surplus.join(", "), settings.name);
        findings.push(Finding::unrestorable(CHECK, found, format!("this drops it there: {script}")));
    }
    if !moved.is_empty() {
        let found = format!("{begins} {}", moved.join(", "));
        findings.push(Finding::unrestorable(CHECK, found, format!("this makes it anew there: {script}")));
    }
    if !other.is_empty() {
        let found = format!("{begins} {}, and so would a restored database", other.join(", "));
        findings.push(Finding::warning(CHECK, found, format!("this updates it there: {script}")));
    }
    Ok(findings)
}

/// Rows of extensions' own tables are loaded into copies of it, and counted there.
async fn closed(settings: &Settings, template: &str, live: &Shape) -> Result<Option<Finding>, Problem> {
    let session = Session::open(settings, template, "preflight").await?;
    let sql = "SELECT DISTINCT c.oid::regclass::text
                 FROM pg_extension e, unnest(e.extconfig) AS config JOIN pg_class c ON c.oid = config
                WHERE c.relkind IN ('r', 'p')
                  AND NOT (has_schema_privilege(c.relnamespace, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
                           AND has_table_privilege(c.oid, 'INSERT'))
                ORDER BY 1 LIMIT 5";
    let rows = session.client().query(sql, &[]).await;
    let rows = rows.map_err(|error| refused("ask for rights on what extensions made", &error))?;
    let tables: Vec<String> = rows.iter().map(|row| field(row, 0)).collect::<Result<_, Problem>>()?;
    if tables.is_empty() {
        return Ok(None);
    }
    let found = format!(
        "in `{template}`, which restores begin from, `{}` may not read and fill {}",
        settings.user,
        tables.join(", ")
    );
    Ok(Some(Finding::unrestorable(
        CHECK,
        found,
        format!("this gives it the rights: {}", script(settings, live)),
    )))
}

/// The command that runs the script which makes it.
fn script(settings: &Settings, live: &Shape) -> String {
    // Inside single quotes a shell reads nothing but the next one.
    let word = |name: &str| match name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c)) {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('\'', "'\\''")),
    };
    let (database, owner, role) = (word(&settings.name), word(&live.owner), word(&settings.user));
    format!(
        "`su postgres -c 'psql -X -v ON_ERROR_STOP=1 -v database={database} -v owner={owner} -v role={role} -d postgres' \
         < database-role.sql`"
    )
}

/// Only its owner may begin a database from a template that is not marked as one for everybody.
async fn belongs_to_other(session: &Session, template: &str) -> Result<Option<Finding>, Problem> {
    let sql = "SELECT pg_get_userbyid(datdba)::text, current_user::text FROM pg_database
                WHERE datname = $1 AND NOT datistemplate AND NOT pg_has_role(datdba, 'USAGE')";
    let row = session.client().query_opt(sql, &[&template]).await;
    let row = row.map_err(|error| refused("ask for the owner of the template", &error))?;
    let Some(row) = row else { return Ok(None) };
    let (owner, user): (String, String) = (field(&row, 0)?, field(&row, 1)?);
    let found =
        format!("`{template}`, which restores begin from, belongs to `{owner}`: `{user}` may not use it");
    let hint = format!("as a superuser: `ALTER DATABASE \"{template}\" OWNER TO \"{user}\"`");
    Ok(Some(Finding::refused(CHECK, found, hint)))
}
