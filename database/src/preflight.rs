//! Looks whether the work can be done at all, before a release begins: server, programs, role, room. Changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman_core::{Code, Problem, several};

use crate::copy::{self, MAX_NAME_BYTES};
use crate::server::Server;
use crate::shape::Shape;
use crate::statement::{field, quoted, refused};
use crate::tools::Tools;
use crate::{Session, Settings, backup, collation, guard, migrate, obstacle, room, template};

/// The server versions that this was made for.
const MAJORS: std::ops::RangeInclusive<u32> = 13..=18;
/// Transactions that must all meet the same session. A pooler that hands out sessions by the transaction changes it.
const PROBES: usize = 3;
/// How long all of it may take.
const LONGEST: Duration = Duration::from_secs(30);

/// What was found of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at: `tools`.
    pub check: &'static str,
    /// What that means.
    pub verdict: Verdict,
    /// What was found, and why that matters.
    pub found: String,
    /// What to type; empty where all is well.
    pub hint: String,
}

/// What a finding means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Fine,
    /// Something will not be as good as it could.
    Warning,
    /// Backups can be taken, but a backup of it could not be restored by the agent's role: what restores one would fail.
    Unrestorable,
    /// The work would fail, or do harm.
    Refused,
}

impl Finding {
    pub(crate) fn fine(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Fine, found: found.into(), hint: String::new() }
    }

    pub(crate) fn warning(check: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warning, found: found.into(), hint: hint.into() }
    }

    pub(crate) fn unrestorable(
        check: &'static str,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { check, verdict: Verdict::Unrestorable, found: found.into(), hint: hint.into() }
    }

    pub(crate) fn refused(check: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Refused, found: found.into(), hint: hint.into() }
    }

    fn problem(check: &'static str, problem: &Problem) -> Self {
        let causes = problem.causes.first().map(|cause| format!(": {cause}")).unwrap_or_default();
        Self::refused(check, format!("{}{causes}", problem.message), problem.hint.clone())
    }
}

/// Looks at everything. What cannot be looked at is refused.
pub async fn look(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let looked = tokio::time::timeout(LONGEST, look_at_all(settings, &mut findings)).await;
    match looked {
        Ok(Ok(())) => {}
        Ok(Err(problem)) => findings.push(Finding::problem("server", &problem)),
        Err(_) => findings.push(Finding::refused(
            "server",
            "the server did not answer all questions within 30 s",
            "on the database host: `systemctl status postgresql`",
        )),
    }
    findings
}

/// The first refusal as a problem, for whoever goes on only if there is none: `worst` is what it goes on with.
pub fn judge(findings: &[Finding], worst: Verdict) -> Result<(), Problem> {
    let refusals: Vec<&Finding> = findings.iter().filter(|finding| finding.verdict > worst).collect();
    let Some(first) = refusals.first() else { return Ok(()) };
    let problem = Problem::new(Code::DatabaseUnfit, &first.found).hint(&first.hint);
    Err(refusals.iter().skip(1).fold(problem, |problem, finding| problem.cause(&finding.found)))
}

async fn look_at_all(settings: &Settings, findings: &mut Vec<Finding>) -> Result<(), Problem> {
    findings.push(name(settings));
    findings.push(folder(settings));
    findings.push(alone_in_folder(settings).await);
    findings.extend(untold(settings).await);
    let pooler = pooler(settings).await?;
    let refused = pooler.verdict == Verdict::Refused;
    findings.push(pooler);
    if refused {
        // All others set what would stay behind it.
        return Ok(());
    }
    let session = Session::open(settings, &settings.maintenance, "preflight").await?;
    let server = Server::ask(&session).await?;
    findings.push(version(&server));
    findings.push(standby(&server));
    findings.push(match Tools::find(settings, server.major()).await {
        Ok(tools) => Finding::fine("tools", tools.version),
        Err(problem) => Finding::problem("tools", &problem),
    });
    let live = Shape::of(session.client(), &settings.name).await?;
    findings.extend(role(settings, &session, &live).await?);
    findings.extend(extensions(settings, &session).await?);
    findings.extend(template::look(settings, &session, &live).await?);
    findings.extend(obstacle::look(settings).await?);
    findings.extend(collation::look(settings, &session, &server).await?);
    findings.push(match migrate::history_is_known(settings).await {
        Ok(()) => Finding::fine("history", "what was done to the database before is known"),
        Err(problem) => Finding::warning("history", problem.message, problem.hint),
    });
    findings.extend(language(settings, &session).await?);
    findings.push(role_settings(settings, &session, &live).await?);
    findings.push(replicated(settings, &session).await?);
    findings.push(prepared(settings, &session).await?);
    findings.push(other_work(&session, &live).await?);
    findings.push(match room::for_dump(settings, &session).await {
        Ok(()) => Finding::fine("room for a backup", "enough"),
        Err(problem) => Finding::problem("room for a backup", &problem),
    });
    findings.push(room_for_copy(settings, &session).await);
    Ok(())
}

/// Two databases in one folder would take each other's record of a restore, and what a dump left unfinished.
async fn alone_in_folder(settings: &Settings) -> Finding {
    let check = "folder's database";
    let (folder, database) = (settings.backup.dir.clone(), settings.name.clone());
    let looking = tokio::task::spawn_blocking(move || backup::neighbour(&folder, &database)).await;
    match looking.unwrap_or_else(|_| Err(Problem::new(Code::FileSystem, "cannot list backups"))) {
        Err(problem) => Finding::problem(check, &problem),
        Ok(None) => Finding::fine(check, "no other database's backups are in it"),
        Ok(Some(other)) => {
            let folder = settings.backup.dir.display();
            let found = format!("`{folder}` holds backups of the database `{other}` too");
            let hint = "give each database a folder of its own: `dir` in `[database.backup]` of its agent; move what is not \
                        of this one";
            Finding::refused(check, found, hint)
        }
    }
}

/// Dumps that are no backups: they take room, and nobody would know.
async fn untold(settings: &Settings) -> Option<Finding> {
    let folder = settings.backup.dir.clone();
    let looking = tokio::task::spawn_blocking(move || backup::untold(&folder)).await;
    let found = looking.ok()?.ok()?;
    let first = found.first()?;
    let folder = settings.backup.dir.display();
    let (count, dir) = (several(found.len(), "dump", "dumps"), format!("{folder}/{first}"));
    let found = format!("{count} without a manifest in `{folder}`, which count as no backup: `{first}`");
    let hint = format!("look whether somebody needs it; if nobody does: `rm {dir}.*`");
    Some(Finding::warning("dumps", found, hint))
}

fn name(settings: &Settings) -> Finding {
    let name = &settings.name;
    if name.len() > MAX_NAME_BYTES || name.is_empty() {
        let found = format!(
            "the name `{name}` is longer than {MAX_NAME_BYTES} bytes: names made from it would be cut"
        );
        return Finding::refused("name", found, "`ALTER DATABASE … RENAME TO` gives it a shorter one");
    }
    // PostgreSQL's programs read such a name as a list of connection settings.
    if name.contains('=') || name.contains("://") || name.contains(char::is_control) {
        let found = format!("the name `{name}` cannot be given to PostgreSQL's programs");
        return Finding::refused("name", found, "`ALTER DATABASE … RENAME TO` gives it another one");
    }
    Finding::fine("name", name)
}

fn folder(settings: &Settings) -> Finding {
    let folder = settings.backup.dir.display();
    match rustix::fs::access(&settings.backup.dir, rustix::fs::Access::WRITE_OK) {
        Ok(()) if settings.backup.dir.is_dir() => Finding::fine("folder", folder.to_string()),
        _ => Finding::refused(
            "folder",
            format!("backups cannot be written to `{folder}`"),
            format!("`install -d -m 0700 -o AGENT {folder}` with the agent's user"),
        ),
    }
}

fn version(server: &Server) -> Finding {
    if MAJORS.contains(&server.major()) {
        return if server.counters_complete() {
            Finding::fine("version", server.version.clone())
        } else {
            slow_swap(server)
        };
    }
    let found = format!("PostgreSQL {} is not one of {} to {}", server.version, MAJORS.start(), MAJORS.end());
    Finding::refused("version", found, "the backups of this server must be taken another way")
}

/// The swap of a restore compares all rows once more where counters do not tell whether any were written.
fn slow_swap(server: &Server) -> Finding {
    let version = &server.version;
    let found =
        format!("PostgreSQL {version}: a restore reads both databases while visitors wait for its swap");
    Finding::warning(
        "version",
        found,
        "nothing needs to be done; a server of 15 or above counts what is written",
    )
}

fn standby(server: &Server) -> Finding {
    if server.standby {
        return Finding::refused(
            "primary",
            "server is in recovery; migrations need the primary",
            "give the agent's [database] section the primary's host",
        );
    }
    Finding::fine("primary", "yes")
}

/// Locks and snapshots belong to sessions: through a pooler they would be somebody else's.
async fn pooler(settings: &Settings) -> Result<Finding, Problem> {
    let session = Session::untouched(settings, &settings.maintenance, "preflight").await?;
    // Alone, a session gets the same server again and again, as long as nobody else asks.
    let other = Session::untouched(settings, &settings.maintenance, "preflight").await?;
    if let Err(problem) = migrate::refuse_pooler(settings, &session, &other).await {
        return Ok(Finding::problem("pooler", &problem));
    }
    let failed = |error: tokio_postgres::Error| refused("look for a pooler", &error);
    let asked = "SELECT pg_backend_pid(), pg_try_advisory_lock(hashtextextended('pointsman probe', 0)),
                        pg_advisory_unlock(hashtextextended('pointsman probe', 0))";
    for _ in 0..PROBES {
        // Each in a transaction of its own.
        let row = session.client().query_one(asked, &[]).await.map_err(failed)?;
        let (pid, unlocked): (i32, bool) = (field(&row, 0)?, field(&row, 2)?);
        if pid != session.pid() || !unlocked {
            let port = settings.port;
            let found = format!("port {port} changes its backend between transactions; give the direct port");
            return Ok(Finding::refused("pooler", found, "the server's own port: `pg_lsclusters`"));
        }
    }
    Ok(Finding::fine("pooler", "none"))
}

const RIGHTS: &str = "
    SELECT r.rolsuper, r.rolcreatedb, pg_has_role(r.oid, d.datdba, 'MEMBER'),
           pg_has_role(r.oid, 'pg_signal_backend', 'MEMBER'), pg_has_role(r.oid, 'pg_read_all_stats', 'MEMBER')";

/// Logical replication belongs to a database and not to its name.
async fn replicated(settings: &Settings, session: &Session) -> Result<Finding, Problem> {
    let check = "replication";
    let sql = "SELECT format('replication slot `%s`', slot_name) FROM pg_replication_slots WHERE database = $1
               UNION ALL
               SELECT format('subscription `%s`', s.subname) FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
                WHERE d.datname = $1 LIMIT 10";
    let rows = session.client().query(sql, &[&settings.name]).await;
    let rows = rows.map_err(|error| refused("look for logical replication", &error))?;
    let bound: Vec<String> = rows.iter().map(|row| field(row, 0)).collect::<Result<_, _>>()?;
    if bound.is_empty() {
        return Ok(Finding::fine(check, "none hangs on the database"));
    }
    let found =
        format!("{} stays with the old database when a restored one is put in its place", bound.join(", "));
    let hint = "after such a swap: make it anew on the live database, and drop the old one: a slot that nobody reads keeps WAL";
    Ok(Finding::warning(check, found, hint))
}

/// Whether a disk is full, or a right is lacking, is read from the server's own words, which programs pass on.
async fn language(settings: &Settings, session: &Session) -> Result<Option<Finding>, Problem> {
    let row = session.client().query_one("SELECT current_setting('lc_messages')", &[]).await;
    let spoken: String = field(&row.map_err(|error| refused("ask for the server's language", &error))?, 0)?;
    let english = spoken.is_empty() || ["C", "POSIX", "en"].iter().any(|known| spoken.starts_with(known));
    if english {
        return Ok(None);
    }
    let found =
        format!("the server speaks `{spoken}` to the agent: a full disk would be taken for a damaged backup");
    let hint = format!("as a superuser: `ALTER ROLE {} SET lc_messages = 'C';`", quoted(&settings.user));
    Ok(Some(Finding::warning("messages", found, hint)))
}

/// A restored database is another one: what roles have set for the live one must be set for it too.
async fn role_settings(settings: &Settings, session: &Session, live: &Shape) -> Result<Finding, Problem> {
    let check = "role settings";
    let roles = live.roles_that_see_otherwise();
    let sql = "SELECT rolname::text FROM pg_roles WHERE rolname = ANY ($1) AND NOT pg_has_role(oid, 'MEMBER') ORDER BY 1";
    let rows = session.client().query(sql, &[&roles]).await;
    let rows = rows.map_err(|error| refused("ask for the role's rights", &error))?;
    let foreign: Vec<String> = rows.iter().map(|row| field(row, 0)).collect::<Result<_, _>>()?;
    if foreign.is_empty() {
        return Ok(Finding::fine(check, "a restored database gets them"));
    }
    let (user, roles) = (&settings.user, foreign.join(", "));
    let found = format!(
        "what {roles} has set for the database cannot be set for a restored one, which will not be swapped"
    );
    let grants: Vec<String> =
        foreign.iter().map(|role| format!("GRANT {} TO {};", quoted(role), quoted(user))).collect();
    Ok(Finding::warning(
        check,
        found,
        format!("as a superuser: `{}`, or set them when a restore names them", grants.join(" ")),
    ))
}

async fn role(settings: &Settings, session: &Session, live: &Shape) -> Result<Vec<Finding>, Problem> {
    let rights = format!(
        "{RIGHTS}, ({}), o.rolsuper FROM pg_roles r, pg_database d JOIN pg_roles o ON o.oid = d.datdba
          WHERE r.rolname = current_user AND d.datname = $1",
        guard::SUPERUSER_TO_BECOME
    );
    let row = session
        .client()
        .query_one(&rights, &[&settings.name])
        .await
        .map_err(|error| refused("ask for the role's rights", &error))?;
    let (user, role) = (&settings.user, quoted(&settings.user));
    if field(&row, 0)? {
        let found = format!("`{user}` is a superuser");
        return Ok(vec![if settings.allow_superuser {
            Finding::warning("role", found, "the script `database-role.sql` makes a role with less power")
        } else {
            let hint =
                "the script `database-role.sql` makes a role with less power, or `allow_superuser = true`";
            Finding::refused("role", format!("{found}; the agent needs less"), hint)
        }]);
    }
    let wanted = [
        (1, "may not create databases", format!("ALTER ROLE {role} CREATEDB")),
        (2, "is no member of the database's owner", format!("GRANT {} TO {role}", quoted(&live.owner))),
        (3, "may not end sessions", format!("GRANT pg_signal_backend TO {role}")),
        (4, "may not see what other sessions do", format!("GRANT pg_read_all_stats TO {role}")),
    ];
    let mut findings = Vec::new();
    if field(&row, 6)? {
        let found = format!(
            "the database belongs to `{}`, a superuser: what runs as its owner could do anything",
            live.owner
        );
        let hint = format!(
            "give it to a role of the application, as a superuser: `ALTER DATABASE {} OWNER TO …;`, what is in it too, then \
             `database-role.sql` with that owner",
            quoted(&settings.name)
        );
        if !settings.allow_superuser {
            findings.push(Finding::refused("role", found, hint));
            return Ok(findings);
        }
        findings.push(Finding::warning("role", found, hint));
    }
    if let Some(superuser) = field::<Option<String>>(&row, 5)? {
        let problem = guard::may_become(settings, &superuser);
        findings.push(match Finding::problem("role", &problem) {
            found if settings.allow_superuser => Finding { verdict: Verdict::Warning, ..found },
            found => found,
        });
    }
    for (index, lacks, grant) in wanted {
        if !field::<bool>(&row, index)? {
            let hint = format!("as a superuser: `{grant};`, or run the script `database-role.sql`");
            findings.push(Finding::refused("role", format!("`{user}` {lacks}"), hint));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::fine("role", format!("`{user}` has its rights and no more")));
    }
    Ok(findings)
}

/// Extensions of the live database that a restore could not create. One that is marked for nobody but superusers, or whose script
/// runs with the rights of whoever creates it and that a superuser created, would fail in a superuser's schema, and in another be
/// the agent's with nobody's rights on it.
async fn extensions(settings: &Settings, session: &Session) -> Result<Vec<Finding>, Problem> {
    let live = Session::open(settings, &settings.name, "preflight").await?;
    let failed = |error: tokio_postgres::Error| refused("list extensions", &error);
    let rows = live
        .client()
        .query(
            "SELECT e.extname::text, a.name IS NOT NULL,
                    coalesce(bool_or(v.trusted OR NOT v.superuser AND NOT o.rolsuper), false) OR e.extname = 'plpgsql'
               FROM pg_extension e
               JOIN pg_roles o ON o.oid = e.extowner
               LEFT JOIN pg_available_extensions a ON a.name = e.extname
               LEFT JOIN pg_available_extension_versions v ON v.name = e.extname
              GROUP BY 1, 2, e.extname",
            &[],
        )
        .await
        .map_err(failed)?;
    let template = copy::template_of(settings);
    let prepared = Shape::ask(session.client(), &template).await?.is_some();
    let there = if prepared { extensions_of(settings, &template).await? } else { BTreeMap::new() };
    let mut findings = Vec::new();
    for row in &rows {
        let (name, available, creatable): (String, bool, bool) =
            (field(row, 0)?, field(row, 1)?, field(row, 2)?);
        if !available {
            let found = format!("extension `{name}` is in the database, but not installed on the server");
            findings.push(Finding::refused(
                "extensions",
                found,
                "`apt-get install` its package: `apt-cache search postgresql`",
            ));
        } else if !creatable && !there.contains_key(&name) && !settings.allow_superuser {
            let found = format!("a restore could not create the extension `{name}`: only a superuser can");
            let hint = format!(
                "the script `database-role.sql` makes `{template}` with it, which restores begin from"
            );
            findings.push(Finding::refused("extensions", found, hint));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::fine("extensions", format!("{} can be restored", rows.len())));
    }
    Ok(findings)
}

/// An extension as a database has it.
pub(crate) struct Extension {
    pub(crate) schema: String,
    pub(crate) version: String,
}

/// The extensions of a database by their names.
pub(crate) async fn extensions_of(
    settings: &Settings,
    database: &str,
) -> Result<BTreeMap<String, Extension>, Problem> {
    let session = Session::open(settings, database, "preflight").await?;
    let sql = "SELECT extname::text, extnamespace::regnamespace::text, extversion FROM pg_extension";
    let rows = session.client().query(sql, &[]).await.map_err(|error| refused("list extensions", &error))?;
    rows.iter()
        .map(|row| Ok((field(row, 0)?, Extension { schema: field(row, 1)?, version: field(row, 2)? })))
        .collect()
}

/// Transactions that were prepared and left. One that is about to be finished, as applications with several databases have them
/// at any moment, is in nobody's way.
async fn prepared(settings: &Settings, session: &Session) -> Result<Finding, Problem> {
    let row = session
        .client()
        .query_opt(
            "SELECT gid, owner::text, extract(epoch FROM clock_timestamp() - prepared)::bigint
               FROM pg_prepared_xacts WHERE database = $1 AND prepared < clock_timestamp() - interval '5 s'
              ORDER BY prepared LIMIT 1",
            &[&settings.name],
        )
        .await
        .map_err(|error| refused("look for prepared transactions", &error))?;
    let Some(row) = row else { return Ok(Finding::fine("prepared transactions", "none")) };
    let (gid, owner, age): (String, String, i64) = (field(&row, 0)?, field(&row, 1)?, field(&row, 2)?);
    Ok(Finding::refused(
        "prepared transactions",
        format!("transaction `{gid}` of `{owner}` has been prepared for {age} s and holds its locks"),
        format!(
            "ask whose it is; then, in the database, what its manager says: `COMMIT PREPARED '{gid}'` or `ROLLBACK PREPARED '{gid}'`"
        ),
    ))
}

/// Dumps of others and rewrites of whole tables: both would hold up, or be held up.
async fn other_work(session: &Session, live: &Shape) -> Result<Finding, Problem> {
    let row = session
        .client()
        .query_opt(
            "SELECT pid, coalesce(application_name, ''), left(coalesce(query, ''), 100) FROM pg_stat_activity
              WHERE datid = $1 AND pid <> pg_backend_pid() AND state <> 'idle'
                AND (application_name IN ('pg_dump', 'pg_basebackup') OR query ~* '^\\s*(VACUUM\\s.*FULL|CLUSTER)')
              LIMIT 1",
            &[&live.oid],
        )
        .await
        .map_err(|error| refused("look for other work", &error))?;
    let Some(row) = row else { return Ok(Finding::fine("other work", "none")) };
    let (pid, application, query): (i32, String, String) =
        (field(&row, 0)?, field(&row, 1)?, field(&row, 2)?);
    let found = format!("session {pid} (`{application}`) holds tables for long: `{query}`");
    let look = format!("on the database: `SELECT state, query FROM pg_stat_activity WHERE pid = {pid}`");
    Ok(Finding::warning("other work", found, format!("wait until it has ended; {look}")))
}

/// Refuses when a copy will be made and will probably not fit: a full disk under the live database is worse than no release.
pub async fn must_have_room_for_copy(settings: &Settings) -> Result<(), Problem> {
    let session = Session::open(settings, &settings.maintenance, "preflight").await?;
    room::for_copy_of_live(settings, &session).await
}

async fn room_for_copy(settings: &Settings, session: &Session) -> Finding {
    let check = "room for a copy";
    if !settings.is_here() {
        let found = "how much room the server has is unknown: it is on another machine";
        return Finding::warning(check, found, "look there: `df -h`");
    }
    if room::free_for_data(settings, session).await.is_none() {
        let found =
            "how much room the server has is unknown, because the role may not ask where its data are";
        let user = quoted(&settings.user);
        return Finding::warning(check, found, format!("`GRANT pg_read_all_settings TO {user};`"));
    }
    match room::for_copy_of_live(settings, session).await {
        Ok(()) => Finding::fine(check, "enough"),
        // A backup can be taken all the same, only not tested.
        Err(problem) => Finding { verdict: Verdict::Warning, ..Finding::problem(check, &problem) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_refused_served_slowly_or_served() {
        let verdict = |number: u32| {
            let text = number.to_string();
            version(&Server { number, version: text, system: String::new(), standby: false }).verdict
        };
        let expected = [
            (120_022, Verdict::Refused),
            (130_000, Verdict::Warning),
            (140_020, Verdict::Warning),
            (150_000, Verdict::Fine),
            (180_006, Verdict::Fine),
            (190_000, Verdict::Refused),
        ];
        for (number, expected) in expected {
            assert_eq!(verdict(number), expected, "{number}");
        }
    }
}
