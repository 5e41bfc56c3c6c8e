//! Renewing a certificate in a real HAProxy: no reload, no connection lost, and the next handshake has it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use pointsman_chassis::agent_service::Hands as _;
use pointsman_chassis::site_certificate::SiteCertificate;
use pointsman_core::{Activation, Aftermath, Code, Epoch};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::net::free;
use crate::pki::{Authority, NEW, OLD, Wish};
use crate::real::Haproxy;
use crate::rig::{P, V};

/// A visitor that takes any certificate and remembers it.
#[derive(Debug, Default)]
struct Visitor(Mutex<Option<CertificateDer<'static>>>);

impl ServerCertVerifier for Visitor {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap() = Some(leaf.clone().into_owned());
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ECDSA_NISTP521_SHA512]
    }
}

async fn visit(address: SocketAddr) -> (TlsStream<TcpStream>, CertificateDer<'static>) {
    let visitor = Arc::new(Visitor::default());
    let config = ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&visitor) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("www.example.org").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let shown = visitor.0.lock().unwrap().take().unwrap();
    (stream, shown)
}

async fn get(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 1024];
    let count = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..count]).lines().next().unwrap_or_default().to_owned()
}

async fn started(old: &str, address: SocketAddr) -> Option<Haproxy> {
    started_with(address, |certs| std::fs::write(certs.join("www.pem"), old).unwrap()).await
}

/// With whatever `put` lays into the folder of certificates.
async fn started_with(address: SocketAddr, put: impl FnOnce(&Path)) -> Option<Haproxy> {
    started_as(address, "", put).await
}

/// The same, with more words in the line of the command socket.
async fn started_as(address: SocketAddr, words: &str, put: impl FnOnce(&Path)) -> Option<Haproxy> {
    pointsman_chassis::tls::install_crypto();
    Haproxy::start_as(words, |folder| {
        let certs = folder.join("certs");
        std::fs::create_dir(&certs).unwrap();
        put(&certs);
        // The whole folder: HAProxy loads every file in it that it is not told to leave alone.
        let sections = format!(
            "frontend secure\n  bind {address} ssl crt {}\n  http-request return status 200 content-type text/plain string ok\n",
            certs.display()
        );
        let more = format!(
            "[[haproxy.certificates]]\npath = {:?}\naddress = \"{address}\"\n",
            certs.join("www.pem")
        );
        (sections, more)
    })
    .await
}

fn leaf(pem: &str) -> CertificateDer<'static> {
    SiteCertificate::parse(pem.as_bytes()).unwrap().leaf().unwrap().clone()
}

#[tokio::test]
async fn the_next_handshake_has_it_and_nobody_is_cut() {
    let (authority, address) = (Authority::new(), free());
    let (old, new) = (authority.make(OLD).pem(), authority.make(NEW).pem());
    let Some(haproxy) = started(&old, address).await else { return };
    let (mut idle, shown) = visit(address).await;
    assert_eq!(shown, leaf(&old));
    assert_eq!(get(&mut idle).await, "HTTP/1.1 200 OK");
    let pid = haproxy.pid().await;
    // With blank lines and words in it, which the socket would take for commands.
    let untidy = new.replace("-----BEGIN", "\n\nsubject=x\n-----BEGIN");
    assert!(!haproxy.agent.deploy_certificate(&untidy).await.unwrap().already);
    assert_eq!(haproxy.pid().await, pid, "there was no reload");
    assert_eq!(get(&mut idle).await, "HTTP/1.1 200 OK");
    assert_eq!(visit(address).await.1, leaf(&new));
    assert!(haproxy.agent.deploy_certificate(&new).await.unwrap().already);
    // What is on disk is what a reload brings, and nothing beside it.
    haproxy.reload().await;
    assert_eq!(visit(address).await.1, leaf(&new));
    let facts = haproxy.agent.describe().await.balancer.unwrap().certificates;
    assert!(facts[0].served && facts[0].problem.is_none(), "{facts:?}");
    let listed = haproxy.admin("show ssl cert").await;
    assert_eq!(listed.matches("www.pem").count(), 1, "{listed}");
}

#[tokio::test]
async fn what_haproxy_must_never_get_is_refused() {
    let (authority, address) = (Authority::new(), free());
    let old = authority.make(OLD);
    let Some(haproxy) = started(&old.pem(), address).await else { return };
    let foreign = crate::pki::Made { key: old.key.clone(), ..authority.make(NEW) };
    // Another authority of the same name: what HAProxy would serve, no visitor would trust.
    let stranger = crate::pki::Made { chain: Authority::new().make(NEW).chain, ..authority.make(NEW) };
    let names: Vec<String> =
        (0..600).map(|number| format!("host-{number}.a-long-name.example.org")).collect();
    let names: Vec<&str> = OLD.names.iter().copied().chain(names.iter().map(String::as_str)).collect();
    for pem in [
        foreign.pem(),
        stranger.pem(),
        authority.below_until(-1).make(NEW).pem(),
        authority.make(Wish { until: -1, ..OLD }).pem(),
        authority.make(Wish { names: &["other.example.org"], ..NEW }).pem(),
        "garbage".to_owned(),
        // HAProxy 2.6 would not survive this one.
        authority.make(Wish { names: &names, ..NEW }).pem(),
    ] {
        let refused = haproxy.agent.deploy_certificate(&pem).await.unwrap_err();
        assert_eq!((refused.code, refused.aftermath), (Code::SiteCertificateUnfit, Aftermath::Unchanged));
        assert_eq!(visit(address).await.1, leaf(&old.pem()));
    }
    let on_disk = SiteCertificate::read(&haproxy.folder.path().join("certs/www.pem")).unwrap();
    assert_eq!(on_disk.pem(), SiteCertificate::parse(old.pem().as_bytes()).unwrap().pem());
}

/// As long as may be sent, HAProxy takes it; with a larger `tune.bufsize` that is more.
#[tokio::test]
async fn the_longest_that_is_sent_is_taken() {
    let authority = Authority::new();
    pointsman_chassis::tls::install_crypto();
    let old = authority.make(OLD).pem();
    let names: Vec<String> =
        (100..3000).map(|number| format!("host-{number}.a-long-name.example.org")).collect();
    for (global, counts, least, most) in
        [("", 200..900, 15_500, 16_000), ("  tune.bufsize 32768\n", 620..900, 31_500, 32_384)]
    {
        let address = free();
        let started = Haproxy::start_with(|folder| {
            let pem = folder.join("www.pem");
            std::fs::write(&pem, &old).unwrap();
            let sections = format!(
                "global\n{global}frontend secure\n  bind {address} ssl crt {}\n  http-request return status 200\n",
                pem.display()
            );
            (sections, format!("[[haproxy.certificates]]\npath = {pem:?}\naddress = \"{address}\"\n"))
        });
        let Some(haproxy) = started.await else { return };
        let mut taken = 0;
        // Ever longer, until it is refused for its length: the last one that was taken came close to it.
        for count in counts.step_by(5) {
            let names: Vec<&str> =
                OLD.names.iter().copied().chain(names.iter().take(count).map(String::as_str)).collect();
            let new = authority.make(Wish { names: &names, from: 0, until: 90 }).pem();
            if new.len() < least {
                continue;
            }
            match haproxy.agent.deploy_certificate(&new).await {
                Ok(_) => {
                    assert_eq!(visit(address).await.1, leaf(&new));
                    taken = new.len();
                }
                Err(problem) => {
                    assert!(problem.message.contains("command socket takes"), "{problem:?}");
                    assert!(problem.hint.contains("`tune.bufsize "), "{problem:?}");
                    break;
                }
            }
        }
        assert!((least..most).contains(&taken), "{taken}");
    }
}

/// With a `tune.bufsize` below the default it is less, and 2.6 would spin and be killed on an input as long as its buffer.
#[tokio::test]
async fn no_more_is_sent_than_haproxys_buffers_hold() {
    let (authority, address) = (Authority::new(), free());
    pointsman_chassis::tls::install_crypto();
    let old = authority.make(OLD).pem();
    let started = Haproxy::start_with(|folder| {
        let pem = folder.join("www.pem");
        std::fs::write(&pem, &old).unwrap();
        let sections = format!(
            "global\n  tune.bufsize 8192\nfrontend secure\n  bind {address} ssl crt {}\n  http-request return status 200\n",
            pem.display()
        );
        (sections, format!("[[haproxy.certificates]]\npath = {pem:?}\naddress = \"{address}\"\n"))
    });
    let Some(haproxy) = started.await else { return };
    let pid = haproxy.pid().await;
    let names: Vec<String> =
        (100..1000).map(|number| format!("host-{number}.a-long-name.example.org")).collect();
    let (mut taken, mut refused) = (0, 0);
    for count in (100..500).step_by(20) {
        let names: Vec<&str> =
            OLD.names.iter().copied().chain(names.iter().take(count).map(String::as_str)).collect();
        let new = authority.make(Wish { names: &names, from: 0, until: 90 }).pem();
        match haproxy.agent.deploy_certificate(&new).await {
            Ok(_) => taken = new.len(),
            Err(problem) => {
                refused += 1;
                assert_eq!(
                    (problem.code, problem.aftermath),
                    (Code::SiteCertificateUnfit, Aftermath::Unchanged)
                );
                assert!(problem.causes[0].contains("hold 8192 bytes"), "{problem:?}");
                // As much as this very one needs.
                let needed = if new.len() < 15_900 { "`tune.bufsize 16384`" } else { "`tune.bufsize 32768`" };
                assert!(problem.hint.contains(needed), "{}: {problem:?}", new.len());
            }
        }
    }
    assert!((6_500..8_192).contains(&taken) && refused > 0, "{taken} {refused}");
    assert_eq!(haproxy.pid().await, pid, "it lives");
}

const DH: &str = "-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
";

/// Whatever HAProxy serves, a renewed certificate may follow it, and the one before is kept so that it can come back.
#[tokio::test]
async fn whatever_is_in_place_can_be_renewed() {
    let authority = Authority::new();
    let old = authority.make(OLD);
    let broken = crate::pki::Made { chain: Authority::new().make(OLD).chain, ..old.clone() };
    let (with_parameters, apart) = (format!("{}{DH}", old.pem()), format!("{}{}", old.leaf, old.chain));
    for (what, pem, key) in [
        ("parameters for Diffie-Hellman", with_parameters.as_str(), ""),
        ("a key in a file of its own", &apart, old.key.as_str()),
        ("a chain that nobody trusts", &broken.pem(), ""),
        ("a key of another kind", include_str!("../certificates/p521.pem"), ""),
    ] {
        let address = free();
        let started = started_with(address, |certs| {
            std::fs::write(certs.join("www.pem"), pem).unwrap();
            if !key.is_empty() {
                std::fs::write(certs.join("www.pem.key"), key).unwrap();
            }
        });
        let Some(haproxy) = started.await else { return };
        let facts = haproxy.agent.describe().await.balancer.unwrap().certificates;
        assert!(facts[0].served && facts[0].problem.is_none(), "{what}: {facts:?}");
        let before = visit(address).await.1;
        let path = haproxy.folder.path().join("certs/www.pem");
        let new = authority.make(NEW).pem();
        haproxy.agent.deploy_certificate(&new).await.unwrap_or_else(|problem| panic!("{what}: {problem:?}"));
        assert_eq!(visit(address).await.1, leaf(&new), "{what}");
        assert!(haproxy.agent.deploy_certificate(&new).await.unwrap().already, "{what}");
        let on_disk = std::fs::read_to_string(&path).unwrap();
        assert_eq!(on_disk.contains("DH PARAMETERS"), pem.contains("DH PARAMETERS"), "{what}");
        haproxy.reload().await;
        assert_eq!(visit(address).await.1, leaf(&new), "{what}");
        // The one before is kept whole: it can be put back by hand as it stands.
        std::fs::copy(path.with_file_name(".www.pem.previous"), &path).unwrap();
        let _ = std::fs::remove_file(path.with_file_name("www.pem.key"));
        haproxy.reload().await;
        assert_eq!(visit(address).await.1, before, "{what}");
    }
}

/// With `severity-output` HAProxy puts a severity before every message, and the messages are read all the same.
#[tokio::test]
async fn severities_before_messages_hide_nothing() {
    for words in ["severity-output number", "severity-output string"] {
        let (authority, address) = (Authority::new(), free());
        let (old, new) = (authority.make(OLD).pem(), authority.make(NEW).pem());
        let put = |certs: &Path| std::fs::write(certs.join("www.pem"), &old).unwrap();
        let Some(haproxy) = started_as(address, words, put).await else { return };
        haproxy.agent.deploy_certificate(&new).await.unwrap();
        assert_eq!(visit(address).await.1, leaf(&new), "{words}");
        // A key that somebody took out of the map is added again: HAProxy's word for it is known.
        assert!(haproxy.admin("set map MAP nothing x").await.starts_with('['), "{words}");
        haproxy.admin("del map MAP route").await;
        haproxy.agent.set_route(P, V).await.unwrap();
        let findings = haproxy.agent.hands.diagnose(&Activation::default()).await;
        let level = findings.iter().find(|finding| finding.check == "socket-level").unwrap();
        assert!(level.what.contains("is level admin"), "{level:?}");
    }
}

/// Where the path is a link, what it leads to is renewed, also when it leads elsewhere later.
#[tokio::test]
async fn behind_a_link_the_file_is_renewed_and_the_link_stays() {
    let (authority, address) = (Authority::new(), free());
    let (old, new) = (authority.make(OLD).pem(), authority.make(NEW).pem());
    let put = |certs: &Path| {
        let store = certs.with_file_name("store");
        std::fs::create_dir(&store).unwrap();
        ["one.pem", "two.pem"].iter().for_each(|name| std::fs::write(store.join(name), &old).unwrap());
        std::os::unix::fs::symlink("../store/one.pem", certs.join("www.pem")).unwrap();
    };
    let Some(haproxy) = started_with(address, put).await else { return };
    let (link, store) = (haproxy.folder.path().join("certs/www.pem"), haproxy.folder.path().join("store"));
    let read = |name: &str| std::fs::read_to_string(store.join(name)).unwrap();
    let plain = |pem: &str| SiteCertificate::parse(pem.as_bytes()).unwrap().pem().to_owned();
    haproxy.agent.deploy_certificate(&new).await.unwrap();
    assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("../store/one.pem"));
    assert_eq!((read("one.pem"), read(".one.pem.previous")), (plain(&new), plain(&old)));
    haproxy.reload().await;
    assert_eq!(visit(address).await.1, leaf(&new));
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("../store/two.pem", &link).unwrap();
    haproxy.reload().await;
    assert_eq!(visit(address).await.1, leaf(&old));
    haproxy.agent.deploy_certificate(&new).await.unwrap();
    assert_eq!(
        (read("two.pem"), std::fs::read_link(&link).unwrap()),
        (plain(&new), "../store/two.pem".into())
    );
    let beside = std::fs::read_dir(link.parent().unwrap()).unwrap().count();
    assert_eq!(beside, 1, "nothing is laid beside the link");
}

/// Of one name HAProxy has one certificate of each kind of key, and shows each visitor the one that they take.
#[tokio::test]
async fn beside_one_of_another_kind_a_certificate_keeps_its_kind() {
    let (authority, address) = (Authority::new(), free());
    pointsman_chassis::tls::install_crypto();
    let (rsa, ecdsa) = (include_str!("../certificates/rsa.pem"), authority.make(OLD).pem());
    let started = Haproxy::start_with(|folder| {
        let both = [("rsa", rsa), ("ecdsa", ecdsa.as_str())].map(|(kind, pem)| {
            let path = folder.join(format!("site.pem.{kind}"));
            std::fs::write(&path, pem).unwrap();
            format!("[[haproxy.certificates]]\npath = {path:?}\naddress = \"{address}\"\n")
        });
        let sections = format!(
            "frontend secure\n  bind {address} ssl crt {}/site.pem\n  http-request return status 200\n",
            folder.display()
        );
        (sections, both.concat())
    });
    let Some(haproxy) = started.await else { return };
    let path = |kind: &str| haproxy.folder.path().join(format!("site.pem.{kind}")).display().to_string();
    let new = authority.make(NEW).pem();
    for (kind, pem) in [("rsa", new.as_str()), ("ecdsa", rsa)] {
        let refused = haproxy.agent.deploy_certificate_as(Epoch(1), &path(kind), pem).await.unwrap_err();
        assert_eq!(
            (refused.code, refused.aftermath),
            (Code::SiteCertificateUnfit, Aftermath::Unchanged),
            "{kind}: {refused:?}"
        );
    }
    assert!(haproxy.agent.deploy_certificate_as(Epoch(1), &path("rsa"), rsa).await.unwrap().already);
    haproxy.agent.deploy_certificate_as(Epoch(1), &path("ecdsa"), &new).await.unwrap();
    assert_eq!(visit(address).await.1, leaf(&new));
}

#[tokio::test]
async fn that_visitors_who_know_one_kind_of_key_alone_lose_it_is_said() {
    let (authority, address) = (Authority::new(), free());
    let Some(haproxy) = started(include_str!("../certificates/rsa.pem"), address).await else { return };
    let done = haproxy.agent.deploy_certificate(&authority.make(NEW).pem()).await.unwrap();
    assert!(done.detail.contains("its key is ECDSA now, no more RSA"), "{done:?}");
    let again =
        haproxy.agent.deploy_certificate(&authority.make(Wish { from: 0, ..NEW }).pem()).await.unwrap();
    assert!(!again.detail.contains("key is"), "{again:?}");
}

/// An answer of the authority about one certificate, which HAProxy shows with it, is of no use with the next.
#[tokio::test]
async fn that_an_ocsp_response_belongs_to_the_one_before_is_said() {
    let (authority, address) = (Authority::new(), free());
    let old = authority.make(OLD).pem();
    let Some(haproxy) = started(&old, address).await else { return };
    let beside = haproxy.folder.path().join("certs/www.pem.ocsp");
    // As one names its certificate: by the serial number as DER has it.
    let response = |pem: &str| {
        let serial = SiteCertificate::parse(pem.as_bytes()).unwrap().facts().serial.clone();
        let pairs: Vec<&str> = (0..serial.len()).step_by(2).map(|at| &serial[at..at + 2]).collect();
        let mut bytes: Vec<u8> = pairs.iter().map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
        if bytes[0] > 0x7f {
            bytes.insert(0, 0);
        }
        [&[0x30, 0x40, 2, u8::try_from(bytes.len()).unwrap()], bytes.as_slice(), &[0x80, 0]].concat()
    };
    let new = authority.make(NEW).pem();
    std::fs::write(&beside, response(&new)).unwrap();
    let done = haproxy.agent.deploy_certificate(&new).await.unwrap();
    assert!(!done.detail.contains("ocsp"), "{done:?}");
    std::fs::write(&beside, response(&old)).unwrap();
    let again = authority.make(Wish { from: 0, ..NEW }).pem();
    let done = haproxy.agent.deploy_certificate(&again).await.unwrap();
    assert!(done.detail.contains("www.pem.ocsp` is of another certificate"), "{done:?}");
}
