//! The database and its backups.

use pointsman_core::bytes;
use pointsman_proto::v1;

use super::{or, problem_line, span, time};

/// Applied migrations that are shown: the newest.
const SHOWN: usize = 8;

/// How the database stands.
pub fn database(facts: &v1::DatabaseFacts, now_ms: u64) -> String {
    let mut text = format!(
        "database  {} on PostgreSQL {}, {}\nschema    {}\n",
        facts.name,
        or(&facts.server_version, "unknown"),
        bytes(facts.bytes),
        schema_version(&facts.schema_version)
    );
    if let Some(problem) = &facts.problem {
        text.push_str(&format!("problem   {}\n          hint: {}\n", problem_line(problem), problem.hint));
    }
    if !facts.progress.is_empty() {
        text.push_str(&format!("now       {}\n", facts.progress));
    }
    let earlier = facts.applied.len().saturating_sub(SHOWN);
    if earlier > 0 {
        text.push_str(&format!("applied   and {earlier} earlier\n"));
    }
    for applied in facts.applied.iter().skip(earlier) {
        text.push_str(&format!("{:<9} v{} {}\n", applied.state, applied.version, applied.phase));
    }
    for unfinished in &facts.unfinished {
        text.push_str(&format!("partly    {unfinished}\n"));
    }
    for other in &facts.beside {
        text.push_str(&format!("beside    {other}\n"));
    }
    match facts.backups.first() {
        None => text.push_str("backup    none\n"),
        Some(last) => {
            let age = span(now_ms.saturating_sub(last.taken_at_ms));
            let count = facts.backups.len();
            text.push_str(&format!(
                "backup    {} ({age} ago, checked by {}); {count} in all\n",
                last.id,
                or(&last.verified, "nothing")
            ));
        }
    }
    text
}

/// The database in one line of `status`.
pub(super) fn line(agent: &v1::AgentStatus, now_ms: u64) -> String {
    let name = format!("database    {:<12} ", agent.host);
    let problem = agent.problem.as_ref().or(agent.database.as_ref().and_then(|facts| facts.problem.as_ref()));
    if let Some(problem) = problem {
        return format!("{name}unknown: {}\n", problem_line(problem));
    }
    let Some(facts) = &agent.database else { return format!("{name}unknown\n") };
    let backup = facts.backups.first().map_or_else(
        || "no backup".to_owned(),
        |last| {
            let age = span(now_ms.saturating_sub(last.taken_at_ms));
            format!("last backup {age} ago, checked by {}", or(&last.verified, "nothing"))
        },
    );
    let mut text = format!(
        "{name}{} {}, {}, {backup}",
        facts.name,
        schema_version(&facts.schema_version),
        bytes(facts.bytes)
    );
    if !facts.unfinished.is_empty() {
        text.push_str(&format!("; applied in part: {}", facts.unfinished.join("; ")));
    }
    for other in &facts.beside {
        text.push_str(&format!("; beside it {other}"));
    }
    if !facts.progress.is_empty() {
        text.push_str(&format!("; now: {}", facts.progress));
    }
    text.push('\n');
    text
}

/// What the swap of a restored backup would lose, as the databases were compared last.
pub fn loss(facts: &v1::DatabaseFacts, backup: &str, now_ms: u64) -> Option<String> {
    let compared = facts.compared.as_ref().filter(|compared| compared.backup == backup)?;
    let age = match compared.at_ms {
        0 => "some time ago".to_owned(),
        at_ms => format!("{} ago", span(now_ms.saturating_sub(at_ms))),
    };
    Some(format!("with it {}; compared {age}, and once more before anybody is led away", compared.words))
}

/// Every backup, one a line.
pub fn backups(facts: &v1::DatabaseFacts, now_ms: u64) -> String {
    if facts.backups.is_empty() {
        return "there is no backup".to_owned();
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["backup", "taken", "age", "size", "rows", "schema", "checked by", "release"]);
    for backup in &facts.backups {
        table.add_row([
            backup.id.clone(),
            time(backup.taken_at_ms),
            span(now_ms.saturating_sub(backup.taken_at_ms)),
            bytes(backup.bytes),
            backup.rows.to_string(),
            schema_version(&backup.schema_version),
            or(&backup.verified, "nothing").to_owned(),
            or(&backup.release, "-").to_owned(),
        ]);
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A schema version for people. A table from before pointsman may have written it with its `v`.
pub fn schema_version(version: &str) -> String {
    match version.trim_start_matches('v') {
        "" => "version unknown".to_owned(),
        number => format!("v{number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> v1::DatabaseFacts {
        v1::DatabaseFacts {
            name: "site".to_owned(),
            server_version: "15.18".to_owned(),
            bytes: 10_000_000,
            schema_version: "2.0.0".to_owned(),
            backups: vec![v1::BackupFacts {
                id: "pre-migration-20261125T183132Z-v2".to_owned(),
                bytes: 512_000,
                taken_at_ms: 1_000,
                release: "v2".to_owned(),
                verified: "restore-test".to_owned(),
                schema_version: "1.0.0".to_owned(),
                rows: 20_001,
            }],
            ..Default::default()
        }
    }

    fn agent(database: Option<v1::DatabaseFacts>) -> v1::AgentStatus {
        v1::AgentStatus {
            host: "db".to_owned(),
            role: "database-agent".to_owned(),
            database,
            ..Default::default()
        }
    }

    #[test]
    fn whoever_accepts_a_loss_reads_which() {
        let compared = |at_ms| v1::ComparedLoss {
            backup: "b1".to_owned(),
            words: "2 rows written since the backup are lost: public.visits 2 (2 new, 0 changed, 0 deleted)"
                .to_owned(),
            at_ms,
        };
        let stands = |at_ms| v1::DatabaseFacts { compared: Some(compared(at_ms)), ..facts() };
        let told = loss(&stands(1_000), "b1", 7_201_000).unwrap();
        assert!(told.contains("public.visits 2 (2 new") && told.contains("compared 2 h"), "{told}");
        assert!(loss(&stands(0), "b1", 7_201_000).unwrap().contains("compared some time ago"));
        assert_eq!((loss(&stands(1_000), "b2", 0), loss(&facts(), "b1", 0)), (None, None));
    }

    #[test]
    fn status_says_the_schema_and_how_old_the_backup_is() {
        let told = line(&agent(Some(facts())), 17_000);
        let expected = "database    db           site v2.0.0, 10.0 MB, last backup 16.0 s ago, checked by restore-test\n";
        assert_eq!(told, expected);
        let running = v1::DatabaseFacts {
            progress: "backup: 3 MB".to_owned(),
            backups: Vec::new(),
            beside: vec!["`site_restore_1`".to_owned()],
            ..facts()
        };
        let told = line(&agent(Some(running)), 17_000);
        assert!(told.ends_with("no backup; beside it `site_restore_1`; now: backup: 3 MB\n"), "{told}");
        let partly = "v2.1.0 expand: 2 statements stand";
        let half = v1::DatabaseFacts {
            schema_version: String::new(),
            unfinished: vec![partly.to_owned()],
            ..facts()
        };
        assert!(line(&agent(Some(half.clone())), 0).ends_with(&format!("; applied in part: {partly}\n")));
        let told = database(&half, 17_000);
        assert!(
            told.contains(&format!("partly    {partly}\n")) && told.contains("version unknown"),
            "{told}"
        );
    }

    #[test]
    fn what_cannot_be_asked_is_unknown_and_never_well() {
        let silent =
            v1::Problem { code: "PM0501".to_owned(), message: "no answer".to_owned(), ..Default::default() };
        let told = line(&v1::AgentStatus { problem: Some(silent.clone()), ..agent(None) }, 0);
        assert_eq!(told, "database    db           unknown: [PM0501] no answer\n");
        let broken = v1::DatabaseFacts { problem: Some(silent), ..facts() };
        assert!(line(&agent(Some(broken)), 0).contains("unknown"));
        assert!(line(&agent(None), 0).contains("unknown"));
    }

    #[test]
    fn a_list_names_what_can_be_restored_and_how_far_it_was_checked() {
        let listed = backups(&facts(), 17_000);
        for word in
            ["pre-migration-20261125T183132Z-v2", "16.0 s", "512.0 kB", "20001", "v1.0.0", "restore-test"]
        {
            assert!(listed.contains(word), "{word}: {listed}");
        }
        assert_eq!(backups(&v1::DatabaseFacts::default(), 0), "there is no backup");
    }
}
