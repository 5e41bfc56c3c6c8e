//! Whether a certificate may take the place of another one: pure, by what both say of themselves.

use std::collections::BTreeSet;

use pointsman_chassis::site_certificate::{InPlace, KeyKind, SiteCertificate, unfit};
use pointsman_core::Problem;

use crate::config::CertificatePath;

/// How many certificates of a file must be of now: itself, and the authority that signed it.
const DATED: usize = 2;

/// What is other than before, though nothing is wrong with it.
#[derive(Debug, Default)]
pub struct Changes {
    /// Names that nobody gets a certificate for any more.
    pub dropped: Vec<String>,
    /// The kind of key before and now.
    pub keys: Option<(KeyKind, KeyKind)>,
}

/// Refuses a certificate that would be worse at `path` than the one in place, but for the names in `drop`. `now` in seconds
/// since 1970.
pub fn may_follow(
    path: &CertificatePath,
    new: &SiteCertificate,
    old: &InPlace,
    drop: &BTreeSet<&str>,
    now: i64,
) -> Result<Changes, Problem> {
    let keys = (old.facts().key, new.facts().key);
    of_its_kind(path.as_str(), keys)?;
    // Beyond the authority that signed it visitors may have a way of their own: a cross-signed one that ended is often left there.
    for (place, dates) in (1..).zip(new.chain_dates().iter().take(DATED)) {
        let what = if place == 1 { "it".to_owned() } else { format!("certificate {place} of its chain") };
        in_time(&what, *dates, now)?;
    }
    if new.facts().not_before < old.facts().not_before {
        return Err(unfit("it was issued before the one in place"));
    }
    let (dropped, missing): (Vec<&str>, Vec<&str>) =
        uncovered(&old.facts().names, &new.facts().names).into_iter().partition(|name| drop.contains(name));
    if !missing.is_empty() {
        return Err(unfit(format!(
            "it lacks {} of the names of the one in place: {}",
            missing.len(),
            some(&missing)
        ))
        .hint("if it is meant: `--drop-name NAME` with `pointsman cert deploy`, once for each; for a folder that is watched, `drop_names` beside `watch` in lb-agent.toml"));
    }
    if new.facts().needs_chain && new.chain_length() == 0 && old.chain_length() > 0 {
        return Err(unfit("its chain is missing, and the one in place has one: use `fullchain.pem`"));
    }
    Ok(Changes {
        dropped: dropped.into_iter().map(str::to_owned).collect(),
        keys: Some(keys).filter(|(before, now)| before != now),
    })
}

/// HAProxy's endings for certificates of one name with keys of several kinds, of which it shows each visitor one that they take.
const OF_ONE_KIND: [(&str, KeyKind); 3] =
    [(".rsa", KeyKind::Rsa), (".ecdsa", KeyKind::Ecdsa), (".dsa", KeyKind::Dsa)];

/// Refuses a key of another kind where HAProxy has one of each: nothing would be left for visitors who take the kind before
/// alone, and a handshake that asks for the new kind sees nothing of it. What comes to its own ending mends.
fn of_its_kind(path: &str, (before, now): (KeyKind, KeyKind)) -> Result<(), Problem> {
    let ending = OF_ONE_KIND.iter().find(|(ending, _)| path.ends_with(ending));
    match ending {
        Some((_, kind)) if before != now && now != *kind => Err(unfit(format!(
            "its key is of the kind {now}, and `{path}` holds the one of the kind {before}, for visitors who take no other"
        ))
        .hint("name the file of its kind, as `--path /etc/haproxy/certs/site.pem.ecdsa`, and renew the other with one of its own kind")),
        _ => Ok(()),
    }
}

fn in_time(what: &str, (not_before, not_after): (i64, i64), now: i64) -> Result<(), Problem> {
    if not_after <= now {
        return Err(unfit(format!("{what} ended {} hours ago", now.saturating_sub(not_after) / 3600)));
    }
    if not_before > now {
        let wait_s = not_before.saturating_sub(now);
        return Err(unfit(format!("{what} is not valid yet, for {wait_s} s"))
            .hint("compare the clocks: `timedatectl`"));
    }
    Ok(())
}

/// The names that a certificate with the names `new` does not cover.
fn uncovered<'a>(old: &'a BTreeSet<String>, new: &BTreeSet<String>) -> Vec<&'a str> {
    let covered = |name: &str| {
        // A wildcard stands for exactly one label, and never for itself by another one.
        let wild = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        new.contains(name) || (!name.starts_with('*') && wild.is_some_and(|wild| new.contains(&wild)))
    };
    old.iter().map(String::as_str).filter(|name| !covered(name)).collect()
}

/// So many names that a message stays readable.
const SHOWN: usize = 5;

fn some(names: &[&str]) -> String {
    let shown: Vec<&str> = names.iter().copied().take(SHOWN).collect();
    let rest = names.len().saturating_sub(shown.len());
    if rest == 0 { shown.join(", ") } else { format!("{} and {rest} more", shown.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> BTreeSet<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn beside_one_of_another_kind_each_keeps_its_own() {
        use KeyKind::{Dsa, Ecdsa, Other, Rsa};
        for (path, before, now, may) in [
            ("/c/site.pem.rsa", Rsa, Rsa, true),
            ("/c/site.pem.rsa", Rsa, Ecdsa, false),
            ("/c/site.pem.rsa", Rsa, Other, false),
            ("/c/site.pem.ecdsa", Ecdsa, Rsa, false),
            ("/c/site.pem.dsa", Dsa, Rsa, false),
            // What was put there by mistake can be put right, and what goes against the ending all along goes on.
            ("/c/site.pem.rsa", Ecdsa, Rsa, true),
            ("/c/site.pem.ecdsa", Other, Other, true),
            ("/c/site.pem.ecdsa", Rsa, Ecdsa, true),
            ("/c/site.pem", Rsa, Ecdsa, true),
            ("/c/site.rsa.pem", Rsa, Ecdsa, true),
        ] {
            assert_eq!(of_its_kind(path, (before, now)).is_ok(), may, "{path} {before} {now}");
        }
    }

    #[test]
    fn every_name_must_be_covered() {
        for (old, new, missing) in [
            ("www.a.org", "www.a.org a.org", ""),
            ("www.a.org a.org", "www.a.org", "a.org"),
            ("www.a.org", "*.a.org", ""),
            ("a.org", "*.a.org", "a.org"),
            ("x.www.a.org", "*.a.org", "x.www.a.org"),
            ("*.a.org", "www.a.org", "*.a.org"),
            ("*.a.org", "*.a.org", ""),
            ("*.b.a.org", "*.a.org *.org", "*.b.a.org"),
            ("192.0.2.1", "192.0.2.1", ""),
            ("", "www.a.org", ""),
        ] {
            assert_eq!(uncovered(&names(old), &names(new)).join(" "), missing, "{old:?} by {new:?}");
        }
    }
}
