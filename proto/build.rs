//! Compiles the `.proto` files with protox: no `protoc` is needed on any machine.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let files = ["proto/pointsman/v1/coordinator.proto", "proto/pointsman/agent/v1/agent.proto"];
    let descriptors = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // Tests walk the descriptors: every RPC must have a row in the access table.
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // Messages with a private key: what they show is written by hand in `src/secret.rs`.
    let secret = [".pointsman.v1.DeployCertificateRequest", ".pointsman.agent.v1.DeployCertificateRequest"];
    tonic_prost_build::configure().build_transport(false).skip_debug(secret).compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
