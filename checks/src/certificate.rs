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

const DAY_MS: u64 = 86_400_000;

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
    let certificate = connection.peer_certificates().and_then(|chain| chain.first());
    let certificate = certificate.ok_or_else(|| "no certificate was shown".to_owned())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?;
    Ok(judge(certificate, min_left_ms, now.as_secs())?)
}

fn judge(certificate: &[u8], min_left_ms: u64, now_s: u64) -> Result<String, String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|error| format!("the certificate cannot be read: {error}"))?;
    let ends = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    let left_ms = ends.saturating_sub(now_s).saturating_mul(1000);
    let left = format!("the certificate ends in {}", several(left_ms / DAY_MS, "day", "days"));
    if left_ms < min_left_ms {
        return Err(format!("{left}, expected at least {}", min_left_ms / DAY_MS));
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_ends_soon_is_told() {
        let mut params = rcgen::CertificateParams::new(vec!["h".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2030, 1, 31);
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let first_of_january = 1_893_456_000;
        let judged = |days| judge(certificate.der(), days * DAY_MS, first_of_january);
        assert_eq!(judged(14).unwrap(), "the certificate ends in 30 days");
        assert_eq!(judged(31).unwrap_err(), "the certificate ends in 30 days, expected at least 31");
        assert!(judge(b"x", 0, 0).is_err());
        assert_eq!(
            judge(certificate.der(), DAY_MS, 2_000_000_000).unwrap_err(),
            "the certificate ends in 0 days, expected at least 1"
        );
    }
}
