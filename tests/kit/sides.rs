//! Which side of a split visitors meet, each known by the id in the cookie `pm_id`.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};

use crate::wire::Wire;

/// Connections that ask at the same time.
const AT_ONCE: usize = 16;

/// What a visitor met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    /// The answer is marked as the canary side's.
    pub canary: bool,
    /// The first line of the page.
    pub page: String,
}

/// Asks for `path` once for each id. What they met, in the order of the ids.
pub async fn sides(frontend: SocketAddr, path: &str, ids: &[String]) -> Result<Vec<Met>> {
    let share = ids.len().div_ceil(AT_ONCE).max(1);
    let asking: Vec<_> = ids
        .chunks(share)
        .map(|ids| tokio::spawn(ask_for_each(frontend, path.to_owned(), ids.to_vec())))
        .collect();
    let mut met = Vec::with_capacity(ids.len());
    for asked in asking {
        met.extend(asked.await??);
    }
    Ok(met)
}

async fn ask_for_each(frontend: SocketAddr, path: String, ids: Vec<String>) -> Result<Vec<Met>> {
    let mut wire = Wire::open(frontend).await?;
    let mut met = Vec::with_capacity(ids.len());
    for id in ids {
        let request = format!("GET {path} HTTP/1.1\r\nHost: www.example.org\r\nCookie: pm_id={id}\r\n\r\n");
        let reply = wire.ask(request.as_bytes()).await?;
        if reply.status != 200 {
            bail!("visitor {id} got status {}", reply.status);
        }
        let page = String::from_utf8_lossy(reply.body).lines().next().context("an empty page")?.to_owned();
        let closes = reply.closes;
        met.push(Met { canary: reply.canary, page });
        if closes {
            wire = Wire::open(frontend).await?;
        }
    }
    Ok(met)
}

/// Visitors' ids as HAProxy makes them; the same in every run.
pub fn ids(count: usize) -> Vec<String> {
    let id = |number: usize| {
        let hex = blake3::hash(&number.to_le_bytes()).to_hex();
        let part = |from: usize, to: usize| hex.as_str().get(from..to).unwrap_or_default().to_owned();
        [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
    };
    (0..count).map(id).collect()
}

/// How many standard deviations the share of those on the canary is off from `percent`.
pub fn sigmas(met: &[Met], percent: u8) -> f64 {
    let (count, share) = (met.len() as f64, f64::from(percent) / 100.0);
    let on_canary = met.iter().filter(|met| met.canary).count() as f64;
    (on_canary - count * share).abs() / (count * share * (1.0 - share)).sqrt()
}
