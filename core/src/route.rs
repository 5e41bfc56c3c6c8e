//! The whole routing decision of a load balancer: one value of one map key.

use std::fmt;

use crate::{BackendName, RouteEpoch};

/// `<stable>:<canary>:<percent>:<epoch>`: everybody goes to `stable`, but `percent` of the visitors to `canary`.
/// At 0 percent only trusted testers reach `canary`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// Where visitors go.
    pub stable: BackendName,
    /// Where testers, and `percent` of the visitors, go.
    pub canary: BackendName,
    /// Share of visitors on `canary`, 0 to 100.
    pub percent: u8,
    /// The number of this move of traffic.
    pub epoch: RouteEpoch,
}

/// A text that is not a route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a route: expected `be_stable:be_canary:percent:epoch`, percent 0 to 100, plain decimals"
)]
pub struct InvalidRoute(String);

/// A decimal number with one way to write it: no sign, no leading zero.
fn plain_decimal(text: &str) -> Option<u64> {
    let plain = text == "0" || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()));
    plain.then(|| text.parse().ok()).flatten()
}

impl Route {
    /// Parses the map value. HAProxy itself accepts every value, so this grammar is the only guard.
    pub fn parse(text: &str) -> Result<Self, InvalidRoute> {
        let invalid = || InvalidRoute(crate::name::shown(text));
        let mut fields = text.split(':');
        let (Some(stable), Some(canary), Some(percent), Some(epoch), None) =
            (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(invalid());
        };
        Ok(Self {
            stable: BackendName::parse(stable).map_err(|_| invalid())?,
            canary: BackendName::parse(canary).map_err(|_| invalid())?,
            percent: plain_decimal(percent)
                .and_then(|p| u8::try_from(p).ok())
                .filter(|p| *p <= 100)
                .ok_or_else(invalid)?,
            epoch: RouteEpoch(plain_decimal(epoch).ok_or_else(invalid)?),
        })
    }

    /// Whether visitors are sent to the same places as by `other`, whatever the epochs.
    pub fn same_decision(&self, other: &Self) -> bool {
        self.stable == other.stable && self.canary == other.canary && self.percent == other.percent
    }

    /// The share of visitors that `backend` gets, in percent.
    pub fn share_of(&self, backend: &BackendName) -> u8 {
        let of_stable = if *backend == self.stable { 100u8.saturating_sub(self.percent) } else { 0 };
        let of_canary = if *backend == self.canary { self.percent } else { 0 };
        of_stable.saturating_add(of_canary)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:{}", self.stable, self.canary, self.percent, self.epoch)
    }
}

impl std::str::FromStr for Route {
    type Err = InvalidRoute;
    fn from_str(text: &str) -> Result<Self, InvalidRoute> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn grammar() {
        for good in ["be_blue:be_blue:0:1", "be_a:be_b:100:18446744073709551615"] {
            assert_eq!(Route::parse(good).unwrap().to_string(), good);
        }
        for bad in [
            "",
            "be_blue",
            "be_blue:be_blue:0",
            "be_blue:be_blue:0:1:2",
            "be_blue:be_blue:101:1",
            "be_blue:be_blue:-5:1",
            "be_blue:be_blue:00:1",
            "be_blue:be_blue:0:01",
            "be_blue:be_blue:0:1 ",
            "be_blue:be_blue:+1:1",
            "be_blue::0:1",
            "be_blue:be_blue:1.5:1",
            "be_blue:be_blue:1e1:1",
            "be_blue:be_blue::1",
            "be_blue:be_blue:0:18446744073709551616",
            "be_blue:be_blue:0:1\n",
            "be_blue be_blue:be_blue:0:1",
            "be_blue;x:be_blue:0:1",
        ] {
            assert!(Route::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shares_add_up() {
        let route = Route::parse("be_a:be_b:30:1").unwrap();
        let share = |name| route.share_of(&BackendName::parse(name).unwrap());
        assert_eq!((share("be_a"), share("be_b"), share("be_c")), (70, 30, 0));
        let same = Route::parse("be_a:be_a:30:1").unwrap();
        assert_eq!(same.share_of(&BackendName::parse("be_a").unwrap()), 100);
    }

    proptest! {
        #[test]
        fn what_parses_prints_the_same(text in "[ -~]{0,60}") {
            if let Ok(route) = Route::parse(&text) {
                prop_assert_eq!(route.to_string(), text);
            }
        }
    }
}
