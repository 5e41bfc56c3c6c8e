//! How long the certificate that visitors get is still good.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use pointsman_chassis::http_check::connect;
use pointsman_core::several;
use rustls::pki_types::ServerName;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::miss::Miss;
use crate::place::Place;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
const THREE_DAYS_MS: u64 = 3 * DAY_MS;

/// Shakes hands as a visitor would: a certificate that a visitor would not take fails at once.
pub async fn make(min_left_ms: u64, place: &Place, until: Instant) -> Result<String, Miss> {
    let server = &place.server;
    let tls = server.tls.as_ref().ok_or_else(|| {
        Miss::Blind(
            "nothing is asked with TLS here: make it through the balancer, and give lb-agent.toml `frontend.tls_ca`".to_owned(),
        )
    })?;
    let shaken = async {
        let stream = connect(server.address, server.proxy_protocol).await?;
        let name = ServerName::try_from(server.host.clone()).map_err(|error| error.to_string())?;
        TlsConnector::from(Arc::clone(tls))
            .connect(name, stream)
            .await
            .map_err(|error| format!("no TLS: {error}"))
    };
    let shaken = tokio::time::timeout_at(until, shaken).await.map_err(|_| "no TLS in time".to_owned())??;
    let (_, connection) = shaken.get_ref();
    let chain = connection.peer_certificates().unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?.as_secs();
    Ok(judge_chain(chain, min_left_ms, now)?)
}

/// Judges the certificate, and those that are sent with it: visitors trust it by them, but not by one that is over already,
/// as the handshake has shown.
fn judge_chain<C: AsRef<[u8]>>(chain: &[C], min_left_ms: u64, now_s: u64) -> Result<String, String> {
    let (own, others) = chain.split_first().ok_or_else(|| "no certificate was shown".to_owned())?;
    let left = judge("the certificate", own.as_ref(), min_left_ms, now_s)?;
    for other in others.iter().filter(|other| ends(other.as_ref()).is_ok_and(|ends| ends > now_s)) {
        judge("a certificate sent with it", other.as_ref(), min_left_ms, now_s)?;
    }
    Ok(left)
}

fn judge(which: &str, certificate: &[u8], min_left_ms: u64, now_s: u64) -> Result<String, String> {
    let ends = ends(certificate).map_err(|error| format!("{which} cannot be read: {error}"))?;
    let left_ms = ends.saturating_sub(now_s).saturating_mul(1000);
    let left = format!("{which} ends in {}", span(left_ms));
    if left_ms < min_left_ms {
        return Err(format!("{left}, expected at least {}", span(min_left_ms)));
    }
    Ok(left)
}

/// When a certificate ends, in seconds.
fn ends(certificate: &[u8]) -> Result<u64, String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|error| error.to_string())?;
    Ok(u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0))
}

/// A time in whole days, or below three days in hours.
fn span(ms: u64) -> String {
    match ms {
        0..THREE_DAYS_MS => several(ms / HOUR_MS, "hour", "hours"),
        _ => several(ms / DAY_MS, "day", "days"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On the first of January 2030, in seconds.
    const NOW_S: u64 = 1_893_456_000;

    fn until(day: u8) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(vec!["h".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2030, 1, day);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_that_ends_soon_is_told() {
        let judged = |day, min_left_ms, now_s| judge("it", &until(day), min_left_ms, now_s);
        assert_eq!(judged(31, 14 * DAY_MS, NOW_S).unwrap(), "it ends in 30 days");
        assert_eq!(
            judged(31, 31 * DAY_MS, NOW_S).unwrap_err(),
            "it ends in 30 days, expected at least 31 days"
        );
        // Near its end hours count.
        assert_eq!(
            judged(2, 36 * HOUR_MS, NOW_S - 6 * 3600).unwrap_err(),
            "it ends in 30 hours, expected at least 36 hours"
        );
        assert_eq!(
            judged(2, DAY_MS, 2_000_000_000).unwrap_err(),
            "it ends in 0 hours, expected at least 24 hours"
        );
        assert!(judge("it", b"x", 0, 0).unwrap_err().starts_with("it cannot be read"));
    }

    #[test]
    fn those_that_are_sent_with_it_count_too() {
        let judged = |chain: &[Vec<u8>]| judge_chain(chain, 14 * DAY_MS, NOW_S);
        assert_eq!(judged(&[until(30), until(31)]).unwrap(), "the certificate ends in 29 days");
        assert_eq!(
            judged(&[until(31), until(2)]).unwrap_err(),
            "a certificate sent with it ends in 24 hours, expected at least 14 days"
        );
        // One that is over is sent for no visitor of today.
        assert!(judged(&[until(31), until(1), b"x".to_vec()]).is_ok());
        assert_eq!(judged(&[]).unwrap_err(), "no certificate was shown");
    }
}
