//! How many of the ways to lose a backup are noticed.

use std::sync::Arc;

use anyhow::Result;
use pointsman_database_testkit::Cluster;
use serde_json::{Value, json};

use super::place::{Place, damage};

pub async fn measure(cluster: &Arc<Cluster>) -> Result<Value> {
    eprintln!("== damages");
    let (mut tried, mut noticed) = (0_u32, 0_u32);
    for (index, name) in damage::ALL.iter().enumerate() {
        let mut place = Place::of(Arc::clone(cluster), &format!("damaged_{index}"));
        let told = match damage::try_out(&mut place, name).await {
            None => "not tried: it needs root".to_owned(),
            Some(outcome) => {
                tried += 1;
                noticed += u32::from(outcome.is_ok());
                outcome.unwrap_or_else(|why| format!("NOT NOTICED: {why}"))
            }
        };
        eprintln!("{name}: {told}");
    }
    Ok(json!({ "damages": tried, "damages_noticed": noticed }))
}
