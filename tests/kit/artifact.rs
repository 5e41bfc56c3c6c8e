//! Publishing a folder over gRPC, as the command line does, but with nothing of the command line in it.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use pointsman_chassis::artifact::{digest_of, hash_of, offer_messages, pieces};
use pointsman_core::manifest::{Entry, Kind, Manifest};
use pointsman_core::{ContentHash, EnvironmentName, Epoch};
use pointsman_proto::v1;

use crate::client::Client;
use crate::{ENVIRONMENT, tree};

/// A folder, read: its manifest, and where each content lies.
#[derive(Debug)]
pub struct Source {
    /// What it is made of.
    pub manifest: Manifest,
    /// A file with each content, in the order of the manifest's contents.
    pub places: Vec<PathBuf>,
}

/// Reads a folder.
pub fn read_source(folder: &Path) -> Result<Source> {
    let mut entries = Vec::new();
    let mut files: Vec<(ContentHash, PathBuf)> = Vec::new();
    for (path, place) in tree::paths(folder)? {
        let metadata = std::fs::symlink_metadata(&place)?;
        let kind = if metadata.is_dir() {
            Kind::Directory
        } else if metadata.is_symlink() {
            Kind::Link { target: std::fs::read_link(&place)?.display().to_string() }
        } else {
            let content = hash_of(&std::fs::read(&place)?);
            files.push((content, place));
            Kind::File {
                size: metadata.len(),
                content,
                executable: metadata.permissions().mode() & 0o100 != 0,
            }
        };
        entries.push(Entry { path: path.display().to_string(), kind });
    }
    let manifest = Manifest::new(entries)?;
    let place = |content: &ContentHash| files.iter().find(|(other, _)| other == content);
    let contents = manifest.contents().into_iter();
    let places = contents.filter_map(|(content, _)| Some(place(&content)?.1.clone())).collect();
    Ok(Source { manifest, places })
}

/// The manifest of a folder.
pub fn manifest_of(folder: &Path) -> Result<Manifest> {
    Ok(read_source(folder)?.manifest)
}

/// Publishes a folder: offers it, sends what is missing. Returns the artifact's digest.
pub async fn publish(client: &mut Client, folder: &Path) -> Result<String> {
    let (bytes, digest, source) = {
        let source = read_source(folder)?;
        let bytes = source.manifest.encode();
        (bytes.clone(), digest_of(&bytes).to_string(), source)
    };
    let environment: EnvironmentName = ENVIRONMENT.parse()?;
    let offer = offer_messages(&environment, Epoch(0), &bytes, &[]);
    let need = client.api.offer_artifact(offer).await?.into_inner();
    if need.artifact != digest {
        bail!("offered {digest}, the coordinator calls it {}", need.artifact);
    }
    if need.complete {
        return Ok(digest);
    }
    let contents = source.manifest.contents();
    let size = |number: &u32| contents.get(usize::try_from(*number).ok()?).map(|(_, size)| *size);
    let missing = need.missing.iter().filter_map(|number| Some((*number, size(number)?))).collect();
    let header = v1::ContentPiece {
        artifact: digest.clone(),
        environment: ENVIRONMENT.to_owned(),
        ..Default::default()
    };
    let (stream, reader) = pieces(header, missing, move |number| {
        let place = usize::try_from(number).ok().and_then(|number| source.places.get(number));
        File::open(place.ok_or_else(|| std::io::Error::other("no such content"))?)
    });
    client.api.send_contents(stream).await?;
    reader.await?.context("cannot read the artifact")?;
    Ok(digest)
}
