//! How long a restore takes.

use anyhow::{Context as _, Result, ensure};
use pointsman_database::{Progress, backup, restore};
use serde_json::{Value, json};

use super::ROUNDS;
use super::cost::{self, middle};
use super::place::{Place, rule};
use crate::figures::rounded;

pub async fn measure(place: &Place) -> Result<Value> {
    eprintln!("== restores");
    let taken = place.take("restored").await?;
    let (authority, progress) = (rule(), Progress::default());
    let (mut load, mut checked, mut prepared) = (Vec::new(), Vec::new(), Vec::new());
    let name = &place.settings.name;
    for _ in 0..ROUNDS {
        place.sql_in("postgres", "CREATE DATABASE seed_restore");
        let theirs = cost::of_shell(place, "gunzip < seed.sql.gz | psql -q seed_restore > /dev/null").await?;
        place.sql_in("postgres", "DROP DATABASE seed_restore");

        let (loaded, ours) =
            cost::of(backup::load_into_scratch(&place.settings, &taken.id, &progress)).await?;
        loaded?.remove(&place.settings).await?;
        load.push(ours.wall / theirs.wall);

        let (made, ours) =
            cost::of(restore::beside(&place.settings, &taken.id, &authority, &progress)).await?;
        ensure!(!made?.already, "a restore of {name} stood there already");
        checked.push(ours.wall / theirs.wall);
        restore::discard(&place.settings, &authority).await?;

        let (_, prepared_copy) = restore::prepare(&place.settings, &taken.id, &authority, &progress).await?;
        let (made, ours) =
            cost::of(restore::beside(&place.settings, &taken.id, &authority, &progress)).await?;
        made.context("from a prepared copy")?;
        prepared.push(ours.wall / theirs.wall);
        restore::discard(&place.settings, &authority).await?;
        prepared_copy.remove(&place.settings).await?;
    }
    Ok(json!({
        "restore_wall_ratio": rounded(middle(load)),
        "restore_checked_wall_ratio": rounded(middle(checked)),
        "prepared_restore_ratio": rounded(middle(prepared)),
    }))
}
