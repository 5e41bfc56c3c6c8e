//! The version that a database says it has: by our records, and in the table that was there before them.

use pointsman_core::Problem;
use tokio_postgres::Client;

use crate::statement::{field, refused};

/// The table that is looked for when the settings name none.
const CUSTOMARY: &str = "schema_version";

/// The highest version of both, by number and not by text; none where neither says one.
pub(crate) async fn schema_version(client: &Client, table: Option<&str>) -> Result<Option<String>, Problem> {
    let (ours, theirs) = (of_records(client).await?, of_table(client, table).await?);
    Ok(ours.into_iter().chain(theirs).max_by_key(|version| numbers(version)))
}

async fn of_records(client: &Client) -> Result<Option<String>, Problem> {
    let failed = |error: tokio_postgres::Error| refused("read the records", &error);
    let there = client
        .query_one("SELECT to_regclass('pointsman.migration') IS NOT NULL", &[])
        .await
        .map_err(failed)?;
    if !field::<bool>(&there, 0)? {
        return Ok(None);
    }
    let sql =
        "SELECT version FROM pointsman.migration WHERE phase = 'expand' AND state IN ('applied', 'adopted')";
    let rows = client.query(sql, &[]).await.map_err(failed)?;
    let versions: Vec<String> = rows.iter().map(|row| field(row, 0)).collect::<Result<_, _>>()?;
    Ok(versions.into_iter().max_by_key(|version| numbers(version)))
}

async fn of_table(client: &Client, table: Option<&str>) -> Result<Option<String>, Problem> {
    let failed = |error: tokio_postgres::Error| refused("read the schema version", &error);
    let table = table.unwrap_or(CUSTOMARY);
    let found = client
        .query_opt(
            "SELECT format('%I.%I', n.nspname, c.relname)
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'version'
              WHERE c.oid = to_regclass($1)",
            &[&table],
        )
        .await
        .map_err(failed)?;
    let Some(row) = found else { return Ok(None) };
    let name: String = field(&row, 0)?;
    let rows = client.query(&format!("SELECT version::text FROM {name}"), &[]).await.map_err(failed)?;
    let versions: Vec<Option<String>> = rows.iter().map(|row| field(row, 0)).collect::<Result<_, _>>()?;
    Ok(versions.into_iter().flatten().max_by_key(|version| numbers(version)))
}

/// The numbers in a version, which order it.
fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn ten_comes_after_nine() {
        let highest =
            ["1.9.0", "v1.10.0", "1.2.30"].into_iter().max_by_key(|version| super::numbers(version));
        assert_eq!(highest, Some("v1.10.0"));
    }
}
