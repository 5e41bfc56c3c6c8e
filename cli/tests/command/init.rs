//! `init`: what it writes, what it leaves alone, and who its certificates name.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::compare::{Cases, golden};
use crate::kit::{INIT, Sandbox};

/// Every file below a folder, with its content.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(here) = folders.pop() {
        for entry in fs::read_dir(&here).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn with(more: &[&'static str]) -> Vec<&'static str> {
    [&INIT[..], more].concat()
}

#[test]
fn what_it_writes() {
    let sandbox = Sandbox::new();
    let ran = sandbox.run(&with(&["--ci", "website", "--viewer", "grafana"]));
    assert_eq!(ran.code, 0);
    golden("init.txt", &ran.shown());
    let files = tree(&sandbox.path().join("site"));
    let list: Vec<String> = files.keys().map(|path| path.display().to_string()).collect();
    golden("init-files.txt", &list.join("\n"));
    let mut cases = Cases::default();
    for (path, content) in files.iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "toml")) {
        cases.add(&path.display().to_string(), std::str::from_utf8(content).unwrap());
    }
    cases.check("init-configuration.txt");
}

#[test]
fn as_json() {
    let ran = Sandbox::new().run(&with(&["-o", "json"]));
    assert_eq!(ran.code, 0);
    ran.document();
    golden("init-json.txt", &ran.shown());
}

#[test]
fn keys_are_for_their_owner_alone() {
    let sandbox = Sandbox::initialised();
    let site = sandbox.path().join("site");
    let keys: Vec<PathBuf> =
        tree(&site).into_keys().filter(|path| path.to_string_lossy().ends_with("key.pem")).collect();
    // The authority, the coordinator, a load balancer, two web hosts, a person.
    assert_eq!(keys.len(), 6);
    for key in keys {
        let mode = fs::metadata(site.join(&key)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{} has mode {mode:o}", key.display());
    }
}

#[test]
fn a_second_time_keeps_everything() {
    let sandbox = Sandbox::initialised();
    let site = sandbox.path().join("site");
    // What a person completed by hand is theirs.
    sandbox.write("site/hosts/lb1/etc/pointsman/lb-agent.toml", "mine\n");
    let before = tree(&site);
    let ran = sandbox.run(&INIT);
    assert_eq!(ran.code, 0);
    golden("init-again.txt", &ran.shown());
    assert!(before == tree(&site), "a file was changed, added or removed");
}

#[test]
fn hosts_can_be_added_later() {
    let sandbox = Sandbox::initialised();
    let site = sandbox.path().join("site");
    let before = tree(&site);
    let ran = sandbox.run(&with(&["--web", "web3=10.0.0.4:7444", "--operator", "ben"]));
    assert_eq!(ran.code, 0);
    golden("init-more.txt", &ran.shown());
    let after = tree(&site);
    for (path, content) in &before {
        assert!(after.get(path) == Some(content), "{} was changed", path.display());
    }
    let new: Vec<String> = after
        .keys()
        .filter(|path| !before.contains_key(*path))
        .map(|path| path.display().to_string())
        .collect();
    golden("init-more-files.txt", &new.join("\n"));
}

/// The alternative names of a certificate, URIs apart from the others.
fn names(pem: &[u8]) -> (Vec<String>, Vec<String>) {
    let (_, pem) = parse_x509_pem(pem).unwrap();
    let (_, certificate) = X509Certificate::from_der(&pem.contents).unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let (uris, others): (Vec<_>, Vec<_>) =
        names.value.general_names.iter().partition(|name| matches!(name, GeneralName::URI(_)));
    let text = |name: &&GeneralName<'_>| match name {
        GeneralName::URI(text) | GeneralName::DNSName(text) => (*text).to_owned(),
        other => panic!("{other:?} should not be in a certificate"),
    };
    (uris.iter().map(text).collect(), others.iter().map(text).collect())
}

#[test]
fn each_certificate_names_one_peer() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.run(&with(&["--ci", "website", "--viewer", "grafana"])).code, 0);
    let files = tree(&sandbox.path().join("site"));
    let mut text = String::new();
    for (path, pem) in files.iter().filter(|(path, _)| path.ends_with("cert.pem")) {
        let (uris, others) = names(pem);
        assert_eq!(uris.len(), 1, "{}", path.display());
        text.push_str(&format!("{}\n  {}\n  DNS {}\n", path.display(), uris.join(" "), others.join(" ")));
    }
    golden("init-names.txt", &text);
}

#[test]
fn only_the_authority_may_sign_and_leaves_end_within_400_days() {
    let sandbox = Sandbox::initialised();
    for (path, pem) in tree(&sandbox.path().join("site")) {
        let name = path.to_string_lossy();
        if !name.ends_with(".pem") || name.ends_with("key.pem") {
            continue;
        }
        let (_, pem) = parse_x509_pem(&pem).unwrap();
        let (_, certificate) = X509Certificate::from_der(&pem.contents).unwrap();
        let leaf = path.ends_with("cert.pem");
        assert_eq!(certificate.is_ca(), !leaf, "{}", path.display());
        let validity = certificate.validity();
        let days = (validity.not_after.timestamp() - validity.not_before.timestamp()) / 86_400;
        assert!(validity.is_valid(), "{}", path.display());
        assert!(if leaf { days <= 400 } else { days > 3_000 }, "{}: {days} days", path.display());
        let usages = certificate.extensions().iter().filter_map(|found| match found.parsed_extension() {
            ParsedExtension::ExtendedKeyUsage(usage) => Some(usage.client_auth && usage.server_auth),
            _ => None,
        });
        assert_eq!(usages.collect::<Vec<_>>(), if leaf { vec![true] } else { vec![] }, "{}", path.display());
    }
}

#[test]
fn names_that_cannot_be_are_refused() {
    let sandbox = Sandbox::new();
    let mut cases = Cases::default();
    let site = |domain: &'static str, coordinator: &'static str, operator: &'static str| {
        let head = ["init", "--environment", "production", "--dir", "site", "--trust-domain", domain];
        [&head[..], &["--coordinator", coordinator, "--operator", operator]].concat()
    };
    for (name, arguments) in [
        ("a trust domain", site("Example.org", "control=h:1", "anna")),
        ("a person", site("example.org", "control=h:1", "Anna")),
        ("no port", site("example.org", "control=h", "anna")),
        ("no name", site("example.org", "h:1", "anna")),
        ("a host", site("example.org", "Control=h:1", "anna")),
    ] {
        let ran = sandbox.run(&arguments);
        assert_eq!(ran.code, 2, "{name}");
        cases.add(name, &ran.shown());
    }
    cases.check("init-refused.txt");
}

/// A name that cannot be is found before anything is written.
#[test]
fn a_refused_init_leaves_nothing() {
    let sandbox = Sandbox::new();
    let ran = sandbox.run(&with(&["--viewer", "Not A Name"]));
    assert_eq!(ran.code, 2);
    assert!(!sandbox.path().join("site").exists());
}

/// A run that was cut short between certificate and key is finished by the next one.
#[test]
fn a_certificate_without_its_key_is_not_kept() {
    let sandbox = Sandbox::initialised();
    let key = sandbox.path().join("site/people/operator-anna/key.pem");
    fs::remove_file(&key).unwrap();
    let ran = sandbox.run(&INIT);
    assert!(key.exists() || ran.code != 0, "{}{}", ran.stdout, ran.stderr);
}
