//! How artifacts travel: offers taken apart and joined, contents cut into pieces and checked piece by piece. Both
//! legs use it, from CI to the coordinator and from the coordinator to the hosts.

use std::fs::File;
use std::io::{self, Read as _};

use pointsman_core::manifest::{MAX_ENCODED_BYTES, Manifest};
use pointsman_core::{Aftermath, ArtifactDigest, Code, ContentHash, EnvironmentName, Epoch, Problem};
use pointsman_proto::{MAX_PIECE_BYTES, convert, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};

/// Pieces on their way between the reader of files and the network: enough to keep both busy.
const PIECES_UNDER_WAY: usize = 16;

/// The digest that names the artifact with this manifest.
pub fn digest_of(manifest_bytes: &[u8]) -> ArtifactDigest {
    ArtifactDigest::from_bytes(*blake3::hash(manifest_bytes).as_bytes())
}

/// The hash of a content.
pub fn hash_of(bytes: &[u8]) -> ContentHash {
    ContentHash::from_bytes(*blake3::hash(bytes).as_bytes())
}

/// Reads to the end and says what was read.
pub fn hash_reader(reader: impl io::Read) -> io::Result<(ContentHash, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut reader = io::BufReader::with_capacity(128 << 10, reader);
    let length = io::copy(&mut reader, &mut hasher)?;
    Ok((ContentHash::from_bytes(*hasher.finalize().as_bytes()), length))
}

/// An offer, whole.
#[derive(Debug)]
pub struct Offer {
    /// What the artifact is for.
    pub environment: EnvironmentName,
    /// The coordinator's epoch; 0 from CI.
    pub epoch: Epoch,
    /// The artifact's name.
    pub artifact: ArtifactDigest,
    /// What it is made of.
    pub manifest: Manifest,
    /// The manifest's canonical bytes.
    pub manifest_bytes: Vec<u8>,
    /// Modification time of each content, in seconds since 1970; empty from CI.
    pub mtimes: Vec<u64>,
}

/// The messages of an offer.
pub fn offer_messages(
    environment: &EnvironmentName,
    epoch: Epoch,
    manifest_bytes: &[u8],
    mtimes: &[u64],
) -> impl Stream<Item = v1::ArtifactOffer> + Send + 'static {
    let mtimes: Vec<u8> = mtimes.iter().flat_map(|mtime| mtime.to_le_bytes()).collect();
    let first =
        v1::ArtifactOffer { environment: environment.to_string(), epoch: epoch.0, ..Default::default() };
    let manifest: Vec<_> = manifest_bytes
        .chunks(MAX_PIECE_BYTES)
        .map(|part| v1::ArtifactOffer { manifest: part.to_vec(), ..Default::default() })
        .collect();
    let times: Vec<_> = mtimes
        .chunks(MAX_PIECE_BYTES)
        .map(|part| v1::ArtifactOffer { mtimes: part.to_vec(), ..Default::default() })
        .collect();
    tokio_stream::iter([first].into_iter().chain(manifest).chain(times))
}

fn broken(what: impl AsRef<str>) -> Problem {
    Problem::new(Code::TransferBroken, what).retry_useful()
}

/// Joins and checks the messages of an offer. Nothing after the first message is read before `admit` has agreed to
/// its environment and epoch.
pub async fn join_offer(
    mut messages: tonic::Streaming<v1::ArtifactOffer>,
    admit: impl FnOnce(&EnvironmentName, Epoch) -> Result<(), Problem>,
) -> Result<Offer, Problem> {
    let lost = |status: tonic::Status| broken("the offer of an artifact ended early").because(&status);
    let first =
        messages.message().await.map_err(lost)?.ok_or_else(|| broken("the offer of an artifact is empty"))?;
    let environment = convert::field("environment", &first.environment)?;
    let epoch = Epoch(first.epoch);
    admit(&environment, epoch)?;
    let (mut manifest_bytes, mut mtime_bytes) = (first.manifest, first.mtimes);
    while let Some(message) = messages.message().await.map_err(lost)? {
        manifest_bytes.extend(message.manifest);
        mtime_bytes.extend(message.mtimes);
        if manifest_bytes.len().saturating_add(mtime_bytes.len()) > MAX_ENCODED_BYTES {
            return Err(Problem::new(
                Code::ArtifactTooLarge,
                format!("the manifest is over {MAX_ENCODED_BYTES} bytes long"),
            ));
        }
    }
    let manifest = Manifest::decode(&manifest_bytes)?;
    let (times, rest) = mtime_bytes.as_chunks::<8>();
    let mtimes: Vec<u64> = times.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    if !rest.is_empty() || (!mtimes.is_empty() && mtimes.len() != manifest.contents().len()) {
        return Err(Problem::new(Code::ManifestInvalid, "the modification times do not fit the manifest"));
    }
    Ok(Offer { environment, epoch, artifact: digest_of(&manifest_bytes), manifest, manifest_bytes, mtimes })
}

/// Reads contents on a thread of its own and gives them out as pieces. A content that cannot be read, or is no
/// longer what it was, ends the stream; the receiver then misses it, and the reason comes by the second value.
pub fn pieces<O>(
    header: v1::ContentPiece,
    missing: Vec<(u32, u64)>,
    mut open: O,
) -> (ReceiverStream<v1::ContentPiece>, tokio::task::JoinHandle<io::Result<u64>>)
where
    O: FnMut(u32) -> io::Result<File> + Send + 'static,
{
    let (send, receive) = mpsc::channel(PIECES_UNDER_WAY);
    let reader = tokio::task::spawn_blocking(move || {
        let mut sent: u64 = 0;
        // A closed channel means that the receiver gave up; its answer says why.
        if send.blocking_send(header).is_err() {
            return Ok(sent);
        }
        for (content, size) in missing {
            let mut file = open(content)?;
            let mut offset: u64 = 0;
            while offset < size || (size == 0 && offset == 0) {
                let room = usize::try_from(size.saturating_sub(offset))
                    .unwrap_or(MAX_PIECE_BYTES)
                    .min(MAX_PIECE_BYTES);
                let mut data = vec![0; room];
                file.read_exact(&mut data)?;
                let length = data.len() as u64;
                if send
                    .blocking_send(v1::ContentPiece { content, offset, data, ..Default::default() })
                    .is_err()
                {
                    return Ok(sent);
                }
                sent = sent.saturating_add(length);
                offset = offset.saturating_add(length);
                if size == 0 {
                    break;
                }
            }
        }
        Ok(sent)
    });
    (ReceiverStream::new(receive), reader)
}

/// Checks the pieces of contents as they come: in order, within their sizes, and in the end the hash.
pub struct PieceCheck {
    contents: Vec<(ContentHash, u64)>,
    current: Option<u32>,
    offset: u64,
    hasher: blake3::Hasher,
}

/// What a piece is to its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// It is the first: a new file begins.
    pub first: bool,
    /// It is the last, and the content matched its digest.
    pub last: bool,
}

impl PieceCheck {
    /// Expects contents of this manifest.
    pub fn new(manifest: &Manifest) -> Self {
        Self { contents: manifest.contents(), current: None, offset: 0, hasher: blake3::Hasher::new() }
    }

    /// The hash and size of a content.
    pub fn content(&self, number: u32) -> Option<(ContentHash, u64)> {
        self.contents.get(usize::try_from(number).ok()?).copied()
    }

    /// Whether a content has begun and not ended.
    pub fn unfinished(&self) -> bool {
        self.current.is_some()
    }

    /// Takes the next piece.
    pub fn piece(&mut self, piece: &v1::ContentPiece) -> Result<Place, Problem> {
        let number = piece.content;
        let (expected, size) =
            self.content(number).ok_or_else(|| broken(format!("content {number} is not in the manifest")))?;
        if piece.data.len() > MAX_PIECE_BYTES {
            return Err(broken(format!("a piece of content {number} is over {MAX_PIECE_BYTES} bytes long")));
        }
        let first = self.current.is_none();
        if first {
            self.current = Some(number);
            self.offset = 0;
            self.hasher.reset();
        }
        if self.current != Some(number) || piece.offset != self.offset || (piece.data.is_empty() && size != 0)
        {
            return Err(broken(format!("a piece of content {number} came out of order")));
        }
        let end = self.offset.saturating_add(piece.data.len() as u64);
        if end > size {
            return Err(broken(format!("content {number} is longer than the manifest says")));
        }
        self.hasher.update(&piece.data);
        self.offset = end;
        let last = end == size;
        if last {
            self.current = None;
            if *self.hasher.finalize().as_bytes() != *expected.as_bytes() {
                let message = format!("content {number} arrived with another digest than the manifest says");
                return Err(Problem::new(Code::ContentMismatch, message).retry_useful());
            }
        }
        Ok(Place { first, last })
    }
}

/// A local file-system operation that failed, as a problem. A full disk is told apart: it is the most common and
/// has its own way out.
pub fn file_problem(what: impl AsRef<str>, error: &io::Error) -> Problem {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let code = if full { Code::NoRoom } else { Code::FileSystem };
    let hint = if full {
        "make room on this host: `df -h` and `df -i`"
    } else {
        "look at the path and its owner on this host"
    };
    Problem::new(code, what).aftermath(Aftermath::Unchanged).because(error).hint(hint)
}

/// Collects a stream of pieces without keeping them: hands each to `sink` in order, checked.
pub async fn receive_pieces(
    messages: tonic::Streaming<v1::ContentPiece>,
    mut check: PieceCheck,
    sink: mpsc::Sender<(v1::ContentPiece, Place)>,
    idle: std::time::Duration,
) -> Result<(u64, u32), Problem> {
    let mut messages = std::pin::pin!(messages);
    let (mut bytes, mut contents) = (0u64, 0u32);
    loop {
        let next = tokio::time::timeout(idle, messages.next()).await;
        let message = match next {
            Err(_) => return Err(broken(format!("no piece came for {} s", idle.as_secs()))),
            Ok(None) if check.unfinished() => return Err(broken("the transfer ended within a content")),
            Ok(None) => return Ok((bytes, contents)),
            Ok(Some(message)) => {
                message.map_err(|status| broken("the transfer ended early").because(&status))?
            }
        };
        let place = check.piece(&message)?;
        bytes = bytes.saturating_add(message.data.len() as u64);
        contents = contents.saturating_add(u32::from(place.last));
        if sink.send((message, place)).await.is_err() {
            // The writer ended first; it has the reason.
            return Ok((bytes, contents));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_core::manifest::{Entry, Kind};

    fn manifest(contents: &[&[u8]]) -> Manifest {
        let entries = contents.iter().enumerate().map(|(i, bytes)| Entry {
            path: format!("{i}"),
            kind: Kind::File { size: bytes.len() as u64, content: hash_of(bytes), executable: false },
        });
        Manifest::new(entries.collect()).unwrap()
    }

    fn piece(content: u32, offset: u64, data: &[u8]) -> v1::ContentPiece {
        v1::ContentPiece { content, offset, data: data.to_vec(), ..Default::default() }
    }

    #[test]
    fn pieces_in_order_pass() {
        let mut check = PieceCheck::new(&manifest(&[b"hello", b""]));
        assert_eq!(check.piece(&piece(0, 0, b"he")).unwrap(), Place { first: true, last: false });
        assert!(check.unfinished());
        assert_eq!(check.piece(&piece(0, 2, b"llo")).unwrap(), Place { first: false, last: true });
        assert_eq!(check.piece(&piece(1, 0, b"")).unwrap(), Place { first: true, last: true });
        assert!(!check.unfinished());
    }

    #[test]
    fn anything_else_is_refused() {
        let cases: [(&[v1::ContentPiece], Code); 6] = [
            (&[piece(9, 0, b"x")], Code::TransferBroken),
            (&[piece(0, 1, b"ello")], Code::TransferBroken),
            (&[piece(0, 0, b"hello!")], Code::TransferBroken),
            (&[piece(0, 0, b"he"), piece(1, 0, b"")], Code::TransferBroken),
            (&[piece(0, 0, b"")], Code::TransferBroken),
            (&[piece(0, 0, b"jello")], Code::ContentMismatch),
        ];
        for (pieces, code) in cases {
            let mut check = PieceCheck::new(&manifest(&[b"hello", b""]));
            let last = pieces.iter().map(|piece| check.piece(piece)).last().unwrap();
            assert_eq!(last.unwrap_err().code, code, "{pieces:?}");
        }
    }
}
