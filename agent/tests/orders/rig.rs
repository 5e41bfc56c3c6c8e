//! An agent in the test's own process, behind a real gRPC connection, and the artifacts that are brought to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use pointsman_agent::{Config, WebHands};
use pointsman_chassis::agent_service::AgentService;
use pointsman_chassis::artifact::{digest_of, hash_of, offer_messages};
use pointsman_chassis::ledger::Ledger;
use pointsman_chassis::tls::Peer;
use pointsman_core::manifest::{Entry, Kind, Manifest};
use pointsman_core::{
    Action, Activation, ArtifactDigest, Code, Epoch, Evidence, HostName, Order, OrderKey, PeerName, Problem,
    ReleaseId, Step, Timestamp,
};
use pointsman_proto::agent_v1::DiagnoseRequest;
use pointsman_proto::agent_v1::agent_client::AgentClient;
use pointsman_proto::agent_v1::agent_server::AgentServer;
use pointsman_proto::convert::{self, ReceivedOrder};
use pointsman_proto::{problem_of_status, v1};
use tempfile::TempDir;
use tonic::codegen::tokio_stream;
use tonic::transport::{Channel, Endpoint, Server, server::TcpIncoming};

/// Modification time of the n-th content: as told, and no multiple of anything.
pub fn mtime(content: usize) -> u64 {
    1_700_000_001 + content as u64 * 7
}

/// An artifact, with the bytes of its contents.
#[derive(Clone)]
pub struct Tree {
    pub manifest: Manifest,
    pub bytes: Vec<u8>,
    pub digest: ArtifactDigest,
    pub contents: Vec<Vec<u8>>,
    pub files: BTreeMap<String, (Vec<u8>, bool)>,
}

/// Files with `+x` at the end of their text are executable; a text `-> x` is a link; a path that ends in `/` is a folder.
pub fn tree(paths: &[(&str, &str)]) -> Tree {
    let mut files = BTreeMap::new();
    let entries = paths.iter().map(|(path, text)| {
        if let Some(path) = path.strip_suffix('/') {
            return Entry { path: path.to_owned(), kind: Kind::Directory };
        }
        if let Some(target) = text.strip_prefix("-> ") {
            return Entry { path: (*path).to_owned(), kind: Kind::Link { target: target.to_owned() } };
        }
        let executable = text.ends_with("+x");
        files.insert((*path).to_owned(), (text.as_bytes().to_vec(), executable));
        let kind = Kind::File { size: text.len() as u64, content: hash_of(text.as_bytes()), executable };
        Entry { path: (*path).to_owned(), kind }
    });
    let manifest = Manifest::new(entries.collect()).unwrap();
    let contents = manifest
        .contents()
        .into_iter()
        .map(|(hash, _)| files.values().find(|(bytes, _)| hash_of(bytes) == hash).unwrap().0.clone());
    let contents = contents.collect();
    let bytes = manifest.encode();
    Tree { digest: digest_of(&bytes), manifest, bytes, contents, files }
}

/// A small site; `marker` makes it another one.
pub fn site(marker: &str) -> Tree {
    tree(&[
        ("index.html", &format!("<title>{marker}</title>")),
        ("assets/", ""),
        ("assets/app.js", &format!("'{marker}'")),
        ("assets/copy.js", &format!("'{marker}'")),
        ("assets/empty.css", ""),
        ("assets/deep/", ""),
        ("assets/deep/ü.txt", "the same in every version"),
        ("bin/", ""),
        ("bin/tool", "#!/bin/sh\n#+x"),
        ("latest.js", "-> assets/app.js"),
        ("assets/deep/home", "-> ../../index.html"),
        ("void/", ""),
    ])
}

impl Tree {
    pub fn mtimes(&self) -> Vec<u64> {
        (0..self.contents.len()).map(mtime).collect()
    }

    /// The whole contents with these numbers, one piece each.
    pub fn pieces(&self, numbers: &[u32]) -> Vec<v1::ContentPiece> {
        numbers.iter().map(|number| piece(*number, 0, &self.contents[*number as usize])).collect()
    }

    pub fn all(&self) -> Vec<u32> {
        (0..).zip(&self.contents).map(|(number, _)| number).collect()
    }

    /// The first path of a content.
    pub fn first_path(&self, number: u32) -> String {
        let wanted = self.manifest.contents()[number as usize].0;
        let holds = |entry: &&Entry| matches!(&entry.kind, Kind::File { content, .. } if *content == wanted);
        self.manifest.entries().iter().find(holds).unwrap().path.clone()
    }
}

pub fn piece(content: u32, offset: u64, data: &[u8]) -> v1::ContentPiece {
    v1::ContentPiece { content, offset, data: data.to_vec(), ..Default::default() }
}

/// The agent, and a coordinator's connection to it.
pub struct Rig {
    pub folder: TempDir,
    pub root: PathBuf,
    pub ledger: Ledger,
    pub client: AgentClient<Channel>,
    orders: AtomicU64,
}

pub struct Options {
    pub extra: String,
    pub keep: usize,
    pub root: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { extra: String::new(), keep: 5, root: None }
    }
}

pub fn problem(status: tonic::Status) -> Problem {
    problem_of_status(&status, Code::AgentUnreachable, "web1")
}

impl Rig {
    pub async fn new() -> Self {
        Self::with(Options::default()).await
    }

    pub async fn with(options: Options) -> Self {
        // As in the agent's unit: every mode that matters is set in so many words.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        let folder = tempfile::tempdir().unwrap();
        let root = options.root.unwrap_or_else(|| folder.path().join("site"));
        std::fs::create_dir_all(&root).unwrap();
        std::fs::create_dir_all(folder.path().join("outside")).unwrap();
        let text = format!(
            r#"listen = "127.0.0.1:1"
state = "none"
{}
[pki]
cert = "none"
key = "none"
ca = "none"
[web]
root = {:?}
server = "127.0.0.1:1"
host = "www.example.org"
keep = {}
floor_bytes = 0
"#,
            options.extra,
            root.display().to_string(),
            options.keep
        );
        let config: Config = pointsman_chassis::config::parse(Path::new("agent.toml"), &text).unwrap();
        let ledger = Ledger::open(&folder.path().join("receipts.db")).unwrap();
        let own = PeerName::parse("spiffe://test/env/production/role/web-agent/host/web1").unwrap();
        let service = AgentService::new(
            WebHands::new(config.clone(), config.web.unwrap()).unwrap(),
            ledger.clone(),
            own,
        );
        let coordinator = PeerName::parse("spiffe://test/env/production/role/coordinator/host/c1").unwrap();
        let peer = Peer { name: coordinator, serial: "01".to_owned(), not_before: 0, not_after: i64::MAX };
        let server = AgentServer::with_interceptor(service, move |mut request: tonic::Request<()>| {
            request.extensions_mut().insert(peer.clone());
            Ok(request)
        });
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = incoming.local_addr().unwrap();
        tokio::spawn(Server::builder().add_service(server).serve_with_incoming(incoming));
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let client = AgentClient::new(channel);
        Self { folder, root, ledger, client, orders: AtomicU64::new(1) }
    }

    pub fn outside(&self) -> PathBuf {
        self.folder.path().join("outside")
    }

    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    pub fn staging(&self, tree: &Tree) -> PathBuf {
        self.at(".pointsman/staging").join(tree.digest.to_string())
    }

    pub fn sealed(&self, tree: &Tree) -> PathBuf {
        self.at("artifacts").join(tree.digest.to_string())
    }

    pub fn mark(&self, tree: &Tree) -> PathBuf {
        self.at(".pointsman/complete").join(tree.digest.to_string())
    }

    pub fn order(&self, step: Step, action: Action) -> ReceivedOrder {
        let number = self.orders.fetch_add(1, Ordering::SeqCst);
        ReceivedOrder {
            environment: "production".parse().unwrap(),
            order: Order {
                release: ReleaseId::parse(&format!("r{number}")).unwrap(),
                key: OrderKey { step, host: HostName::parse("web1").unwrap() },
                attempt: 1,
                epoch: Epoch(1),
                deadline: Timestamp(u64::MAX / 2),
                leads_back: false,
                action,
            },
            journal_seq: number,
            journal_hash: [0; 32],
            only_prepared: false,
        }
    }

    pub async fn send(&self, order: &ReceivedOrder) -> Result<Evidence, Problem> {
        let done = self.client.clone().perform(convert::order_to_wire(order)).await.map_err(problem)?;
        Ok(convert::evidence_from_wire(done.get_ref(), convert::Exchange { began_us: 0, ended_us: 0 }))
    }

    pub async fn perform(&self, step: Step, action: Action) -> Result<Evidence, Problem> {
        self.send(&self.order(step, action)).await
    }

    pub async fn offer_bytes(&self, manifest: &[u8], mtimes: &[u64]) -> Result<v1::ArtifactNeed, Problem> {
        let messages = offer_messages(&"production".parse().unwrap(), Epoch(1), manifest, mtimes);
        Ok(self.client.clone().offer_artifact(messages).await.map_err(problem)?.into_inner())
    }

    pub async fn offer(&self, tree: &Tree) -> Result<Vec<u32>, Problem> {
        Ok(self.offer_bytes(&tree.bytes, &tree.mtimes()).await?.missing)
    }

    pub fn header(tree: &Tree) -> v1::ContentPiece {
        v1::ContentPiece {
            artifact: tree.digest.to_string(),
            environment: "production".to_owned(),
            epoch: 1,
            ..Default::default()
        }
    }

    pub async fn contents(
        &self,
        tree: &Tree,
        pieces: Vec<v1::ContentPiece>,
    ) -> Result<v1::ContentReceipt, Problem> {
        let messages: Vec<_> = std::iter::once(Self::header(tree)).chain(pieces).collect();
        let sent = self.client.clone().send_contents(tokio_stream::iter(messages)).await;
        Ok(sent.map_err(problem)?.into_inner())
    }

    pub async fn stage(&self, tree: &Tree) -> Result<Evidence, Problem> {
        self.perform(Step::Stage, Action::Stage { artifact: tree.digest }).await
    }

    pub async fn discard(&self, tree: &Tree) -> Result<Evidence, Problem> {
        self.perform(Step::Discard, Action::Discard { artifact: tree.digest }).await
    }

    /// Offer, what is missing, stage: as a coordinator does it.
    pub async fn bring(&self, tree: &Tree) -> Result<Evidence, Problem> {
        let missing = self.offer(tree).await?;
        if !missing.is_empty() {
            self.contents(tree, tree.pieces(&missing)).await?;
        }
        self.stage(tree).await
    }

    pub async fn activate(&self, tree: Option<&Tree>) -> Result<Evidence, Problem> {
        self.activate_with(tree, &[], &[]).await
    }

    pub async fn activate_with(
        &self,
        tree: Option<&Tree>,
        restart: &[&str],
        hooks: &[&str],
    ) -> Result<Evidence, Problem> {
        let activation = Activation {
            restart: restart.iter().map(|unit| unit.parse().unwrap()).collect(),
            hooks: hooks.iter().map(|hook| hook.parse().unwrap()).collect(),
        };
        self.perform(Step::Activate, Action::Activate { artifact: tree.map(|tree| tree.digest), activation })
            .await
    }

    pub async fn diagnose(&self, restart: &[&str], hooks: &[&str]) -> Vec<v1::Finding> {
        let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let request = DiagnoseRequest {
            environment: "production".to_owned(),
            restart: texts(restart),
            hooks: texts(hooks),
        };
        self.client.clone().diagnose(request).await.unwrap().into_inner().findings
    }

    pub async fn flag(&self, on: bool) -> Result<Evidence, Problem> {
        self.perform(Step::Maintain, Action::SetFlag { on }).await
    }

    pub fn link(&self, name: &str) -> Option<String> {
        std::fs::read_link(self.at(name)).ok().map(|target| target.to_str().unwrap().to_owned())
    }

    /// The artifact is here, whole: every byte, mode and time as told, and nothing else.
    pub fn must_be_whole(&self, tree: &Tree) {
        use std::os::unix::fs::MetadataExt as _;
        let sealed = self.sealed(tree);
        assert!(self.mark(tree).is_file(), "not complete");
        let mut found = walk(&sealed);
        assert_eq!(mode(&sealed), 0o755, "the tree itself");
        let contents = tree.manifest.contents();
        for entry in tree.manifest.entries() {
            let path = sealed.join(&entry.path);
            assert!(found.remove(&path), "{} is missing", entry.path);
            match &entry.kind {
                Kind::Directory => assert_eq!(mode(&path), 0o755, "{}", entry.path),
                Kind::Link { target } => assert_eq!(std::fs::read_link(&path).unwrap(), Path::new(target)),
                Kind::File { content, .. } => {
                    let (bytes, executable) = &tree.files[&entry.path];
                    assert_eq!(std::fs::read(&path).unwrap(), *bytes, "{}", entry.path);
                    assert_eq!(mode(&path), if *executable { 0o755 } else { 0o644 }, "{}", entry.path);
                    let number = contents.iter().position(|(hash, _)| hash == content).unwrap();
                    let metadata = std::fs::symlink_metadata(&path).unwrap();
                    assert_eq!(
                        metadata.mtime(),
                        i64::try_from(mtime(number)).unwrap(),
                        "time of {}",
                        entry.path
                    );
                }
            }
        }
        assert!(found.is_empty(), "too much: {found:?}");
    }

    pub fn must_not_be_complete(&self, tree: &Tree) {
        assert!(!self.mark(tree).exists(), "it is marked as complete");
    }
}

pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Every path below a folder, no link followed.
pub fn walk(folder: &Path) -> std::collections::BTreeSet<PathBuf> {
    let mut found = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(walk(&entry.path()));
        }
        found.insert(entry.path());
    }
    found
}
