//! The form of a standing on disk: how an environment stood when a release of it began.

use std::str::FromStr;

use pointsman_core as domain;
use serde::{Deserialize, Serialize};

use super::record::Unaccounted;

/// [`domain::Standing`].
#[derive(Serialize, Deserialize)]
pub(super) struct Standing {
    live: Option<Live>,
    previous: Option<Live>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    turned_back: Option<TurnedBack>,
    route: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unaccounted: Option<Unaccounted>,
    maintenance: Option<Maintenance>,
    slots: Vec<Live>,
    ahead_of_live: Vec<String>,
    ahead_of_previous: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Live {
    slot: String,
    release: Option<String>,
    artifact: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct TurnedBack {
    what: Live,
    at_ms: u64,
    why: String,
}

#[derive(Serialize, Deserialize)]
struct Maintenance {
    since_ms: u64,
    by: String,
    reason: Option<String>,
    until_ms: Option<u64>,
}

fn live_of(live: &domain::LiveRelease) -> Live {
    Live {
        slot: live.slot.to_string(),
        release: live.release.as_ref().map(ToString::to_string),
        artifact: live.artifact.as_ref().map(ToString::to_string),
    }
}

/// What is there must parse; what is not is not there.
fn parsed<T: FromStr>(text: Option<&String>) -> Option<Option<T>> {
    text.map_or(Some(None), |text| text.parse().ok().map(Some))
}

fn live_from(record: &Live) -> Option<domain::LiveRelease> {
    Some(domain::LiveRelease {
        slot: record.slot.parse().ok()?,
        release: parsed(record.release.as_ref())?,
        artifact: parsed(record.artifact.as_ref())?,
    })
}

fn perhaps_live_from(record: Option<&Live>) -> Option<Option<domain::LiveRelease>> {
    record.map_or(Some(None), |record| live_from(record).map(Some))
}

/// A standing for the disk.
pub(super) fn standing_of(standing: &domain::Standing) -> Standing {
    let domain::Standing {
        live,
        previous,
        turned_back,
        route,
        unaccounted,
        maintenance,
        slots,
        ahead_of_live,
        ahead_of_previous,
    } = standing;
    Standing {
        live: live.as_ref().map(live_of),
        previous: previous.as_ref().map(live_of),
        turned_back: turned_back.as_ref().map(|turned| TurnedBack {
            what: live_of(&turned.what),
            at_ms: turned.at.0,
            why: turned.why.clone(),
        }),
        route: route.as_ref().map(ToString::to_string),
        unaccounted: unaccounted.as_ref().map(Unaccounted::of),
        maintenance: maintenance.as_ref().map(|page| Maintenance {
            since_ms: page.since.0,
            by: page.by.clone(),
            reason: page.reason.clone(),
            until_ms: page.until.map(|until| until.0),
        }),
        slots: slots.values().map(live_of).collect(),
        ahead_of_live: ahead_of_live.iter().cloned().collect(),
        ahead_of_previous: ahead_of_previous.iter().cloned().collect(),
    }
}

/// A standing from the disk.
pub(super) fn standing_from(record: Standing) -> Option<domain::Standing> {
    let slots = record.slots.iter().map(|slot| live_from(slot).map(|live| (live.slot.clone(), live)));
    Some(domain::Standing {
        live: perhaps_live_from(record.live.as_ref())?,
        previous: perhaps_live_from(record.previous.as_ref())?,
        turned_back: match record.turned_back {
            Some(turned) => Some(domain::TurnedBack {
                what: live_from(&turned.what)?,
                at: domain::Timestamp(turned.at_ms),
                why: turned.why,
            }),
            None => None,
        },
        route: parsed(record.route.as_ref())?,
        unaccounted: record.unaccounted.map_or(Some(None), |share| share.read().map(Some))?,
        slots: slots.collect::<Option<_>>()?,
        maintenance: record.maintenance.map(|page| domain::MaintenanceStanding {
            since: domain::Timestamp(page.since_ms),
            by: page.by,
            reason: page.reason,
            until: page.until_ms.map(domain::Timestamp),
        }),
        ahead_of_live: record.ahead_of_live.into_iter().collect(),
        ahead_of_previous: record.ahead_of_previous.into_iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{ArtifactDigest, LiveRelease, MaintenanceStanding, SlotName, Timestamp};

    #[test]
    fn a_standing_comes_back_as_it_went() {
        let live = |slot: &str, release: Option<&str>| LiveRelease {
            slot: SlotName::parse(slot).unwrap(),
            release: release.map(|release| release.parse().unwrap()),
            artifact: release.map(|_| ArtifactDigest::from_bytes([7; 32])),
        };
        let whole = domain::Standing {
            live: Some(live("green", Some("r2"))),
            previous: Some(live("blue", None)),
            turned_back: Some(domain::TurnedBack {
                what: live("canary", Some("r0")),
                at: Timestamp(7),
                why: "500".to_owned(),
            }),
            route: Some("be_green:be_blue:0:12".parse().unwrap()),
            unaccounted: Some(domain::Unaccounted { slot: SlotName::parse("blue").unwrap(), percent: 10 }),
            maintenance: Some(MaintenanceStanding {
                since: Timestamp(5),
                by: "ada".to_owned(),
                reason: Some("disks".to_owned()),
                until: Some(Timestamp(9)),
            }),
            slots: [live("green", Some("r2")), live("blue", None)]
                .map(|live| (live.slot.clone(), live))
                .into(),
            ahead_of_live: ["v2".to_owned()].into(),
            ahead_of_previous: ["v1".to_owned(), "v2".to_owned()].into(),
        };
        for standing in [domain::Standing::default(), whole] {
            let bytes = serde_json::to_vec(&standing_of(&standing)).unwrap();
            assert_eq!(standing_from(serde_json::from_slice(&bytes).unwrap()), Some(standing));
        }
    }

    #[test]
    fn a_standing_with_a_value_that_cannot_be_is_none() {
        let good = serde_json::to_value(standing_of(&domain::Standing::default())).unwrap();
        for (key, value) in [
            ("route", serde_json::json!("nowhere")),
            ("live", serde_json::json!({"slot": "/", "release": null, "artifact": null})),
            ("unaccounted", serde_json::json!({"slot": "blue", "percent": 0})),
            ("slots", serde_json::json!([{"slot": "blue", "release": null, "artifact": "1"}])),
        ] {
            let mut bad = good.clone();
            bad[key] = value;
            assert_eq!(standing_from(serde_json::from_value(bad).unwrap()), None, "{key}");
        }
    }
}
