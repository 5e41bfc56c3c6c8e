//! The database and its backups.

use pointsman_proto::v1;

use super::{bytes, or, problem_line, span, time};

/// Applied migrations that are shown: the newest.
const SHOWN: usize = 8;

/// How the database stands.
pub fn database(facts: &v1::DatabaseFacts, now_ms: u64) -> String {
    let mut text = format!(
        "database  {} on PostgreSQL {}, {}\nschema    {}\n",
        facts.name,
        or(&facts.server_version, "unknown"),
        bytes(facts.bytes),
        version(&facts.schema_version)
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
            version(&backup.schema_version),
            or(&backup.verified, "nothing").to_owned(),
            or(&backup.release, "-").to_owned(),
        ]);
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn version(version: &str) -> String {
    if version.is_empty() { "unknown".to_owned() } else { format!("v{version}") }
}
