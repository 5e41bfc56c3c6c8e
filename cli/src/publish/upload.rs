//! Sending a folder to the coordinator: only what its store lacks.

use std::fs::File;
use std::path::Path;

use pointsman_chassis::artifact::{offer_messages, pieces};
use pointsman_core::{ArtifactDigest, Code, EnvironmentName, Epoch, Problem};
use pointsman_proto::{convert, v1};

use super::scan::scan;
use crate::client::Caller;
use crate::out::Out;
use crate::render::several;

/// The artifact that `--artifact` names: a digest as it is, a folder after publishing it.
pub async fn publish(
    caller: &mut Caller,
    environment: &EnvironmentName,
    artifact: &str,
    out: &Out,
) -> Result<ArtifactDigest, Problem> {
    if let Ok(digest) = ArtifactDigest::parse(artifact) {
        return Ok(digest);
    }
    let root = Path::new(artifact).to_owned();
    let scanned = tokio::task::spawn_blocking(move || scan(&root)).await;
    let scanned = scanned.map_err(|error| {
        Problem::new(Code::FileSystem, "reading the folder ended abruptly").because(&error)
    })??;
    let manifest = scanned.manifest;
    let offer = offer_messages(environment, Epoch(0), &manifest.encode(), &[]);
    let call = caller.client.offer_artifact(offer).await;
    let need = call.map_err(|status| caller.explain(&status))?.into_inner();
    let digest: ArtifactDigest = convert::field("artifact", &need.artifact)?;
    if need.complete {
        out.say(&format!(
            "artifact {}: {}, nothing new to send",
            digest.short(),
            several(manifest.file_count(), "file")
        ));
        return Ok(digest);
    }
    let contents = manifest.contents();
    let at = |number: u32| usize::try_from(number).ok().and_then(|index| contents.get(index)).copied();
    let missing: Vec<(u32, u64)> =
        need.missing.iter().filter_map(|number| Some((*number, at(*number)?.1))).collect();
    let bytes = missing.iter().fold(0u64, |sum, (_, size)| sum.saturating_add(*size));
    out.say(&format!(
        "artifact {}: {}, sending {}, {}",
        digest.short(),
        several(manifest.file_count(), "file"),
        several(missing.len(), "content"),
        several(bytes, "byte")
    ));
    let (files, hashes) = (scanned.files, contents.iter().map(|(content, _)| *content).collect::<Vec<_>>());
    let header = v1::ContentPiece {
        artifact: digest.to_string(),
        environment: environment.to_string(),
        ..Default::default()
    };
    let (stream, reader) = pieces(header, missing, move |number| {
        let path = usize::try_from(number)
            .ok()
            .and_then(|index| hashes.get(index))
            .and_then(|content| files.get(content));
        File::open(path.ok_or_else(|| std::io::Error::other("no such content"))?)
    });
    let sent = caller.client.send_contents(stream).await;
    if let Ok(Err(error)) = reader.await {
        return Err(Problem::new(Code::SourceChanged, "a file could not be read any more while it was sent")
            .because(&error)
            .hint("wait until the build is done, then publish again"));
    }
    sent.map_err(|status| caller.explain(&status))?;
    Ok(digest)
}
