//! Bringing an artifact from the store to one host: the manifest, then what is missing there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use pointsman_chassis::artifact::{offer_messages, pieces};
use pointsman_chassis::tls;
use pointsman_core::{ArtifactDigest, Code, EnvironmentName, Epoch, HostName, Problem};
use pointsman_proto::agent_v1::agent_client::AgentClient;
use pointsman_proto::v1;
use tonic::transport::Channel;

use crate::artifact_store::ArtifactStore;

/// How far the transfers under way have come, per host: bytes sent and bytes to send.
#[derive(Clone, Default)]
pub struct Transfers(Arc<Mutex<BTreeMap<HostName, (u64, u64)>>>);

impl Transfers {
    /// The transfers under way.
    pub fn under_way(&self) -> BTreeMap<HostName, (u64, u64)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, host: &HostName, sent: u64, total: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(host.clone(), (sent, total));
    }

    fn over(&self, host: &HostName) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(host);
    }
}

/// Takes the host off the list however the transfer ends, also when it is given up.
struct UnderWay<'a>(&'a Transfers, &'a HostName);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.over(self.1);
    }
}

/// Sends what a host lacks of an artifact. Changes nothing that anybody is served.
pub async fn send_artifact(
    mut client: AgentClient<Channel>,
    store: ArtifactStore,
    transfers: &Transfers,
    (environment, epoch): (&EnvironmentName, Epoch),
    host: &HostName,
    artifact: ArtifactDigest,
) -> Result<u64, Problem> {
    let from_store = store.clone();
    let read = move || -> Result<_, Problem> {
        let (manifest, bytes) = from_store.manifest(&artifact)?;
        let mtimes = from_store.mtimes(&manifest)?;
        Ok((manifest, bytes, mtimes))
    };
    let (manifest, bytes, mtimes) = tokio::task::spawn_blocking(read).await.map_err(|error| {
        Problem::new(Code::StoreUnwritable, "reading the artifact ended abruptly").because(&error)
    })??;
    let explain = |status: &tonic::Status| {
        tls::explain(status, Code::AgentUnreachable, &format!("agent `{host}`")).on(host)
    };
    let need = client
        .offer_artifact(offer_messages(environment, epoch, &bytes, &mtimes))
        .await
        .map_err(|status| explain(&status))?
        .into_inner();
    if need.complete {
        return Ok(0);
    }
    let contents = manifest.contents();
    let wanted = |number: &u32| usize::try_from(*number).ok().and_then(|index| contents.get(index)).copied();
    let missing: Vec<(u32, u64)> =
        need.missing.iter().filter_map(|number| Some((*number, wanted(number)?.1))).collect();
    let total = missing.iter().fold(0u64, |sum, (_, size)| sum.saturating_add(*size));
    transfers.note(host, 0, total);
    let _under_way = UnderWay(transfers, host);
    let header = v1::ContentPiece {
        artifact: artifact.to_string(),
        environment: environment.to_string(),
        epoch: epoch.0,
        ..Default::default()
    };
    let hashes: Vec<_> = contents.iter().map(|(content, _)| *content).collect();
    let sent_ones: Vec<_> = missing.iter().filter_map(|(number, _)| Some(wanted(number)?.0)).collect();
    let of_store = store.clone();
    let (stream, reader) = pieces(header, missing, move |number| {
        let content = usize::try_from(number)
            .ok()
            .and_then(|index| hashes.get(index))
            .ok_or_else(|| std::io::Error::other("no such content"))?;
        store.content(content)
    });
    let (noting, noted) = (transfers.clone(), host.clone());
    let mut sent = 0u64;
    let counted = tokio_stream::StreamExt::map(stream, move |piece| {
        sent = sent.saturating_add(piece.data.len() as u64);
        noting.note(&noted, sent, total);
        piece
    });
    let answered = client.send_contents(counted).await;
    // A content that could not be read explains a broken transfer better than the host can.
    let answered = match reader.await {
        Ok(Err(error)) => Err(Problem::new(
            Code::StoreUnwritable,
            "a content of the artifact cannot be read from the store",
        )
        .because(&error)),
        _ => answered.map(drop).map_err(|status| explain(&status)),
    };
    match answered {
        Err(problem) if [Code::ContentMismatch, Code::StoreUnwritable].contains(&problem.code) => {
            // The host only sees that what came is wrong. Whether it left here like that is told here, once for all tries.
            let looked = tokio::task::spawn_blocking(move || of_store.must_be_whole(&sent_ones)).await;
            Err(looked.unwrap_or(Ok(())).err().unwrap_or(problem))
        }
        answered => answered.map(|()| total),
    }
}
