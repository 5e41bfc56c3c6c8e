//! The wire of pointsman: messages and services generated from `proto/`, and in [`convert`] the only place where
//! they become domain types and back.

pub mod convert;
mod secret;
mod status;

#[expect(
    missing_docs,
    clippy::allow_attributes,
    reason = "generated code; its documents are the .proto files"
)]
mod generated {
    pub mod pointsman {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/pointsman.v1.rs"));
        }
        pub mod agent {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/pointsman.agent.v1.rs"));
            }
        }
    }
}

/// Messages and services between coordinator and agents.
pub use generated::pointsman::agent::v1 as agent_v1;
/// Messages and services for the command line and CI.
pub use generated::pointsman::v1;
pub use status::{problem_of_status, status_of_problem};

/// Every message and service, as `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Largest control message either side sends or accepts, in bytes. Content pieces stay far below.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Longest time that the coordinator waits for checks which are made because somebody asks, each of which may take its own.
pub const LONGEST_CHECKS: std::time::Duration = std::time::Duration::from_mins(10);

/// Largest `data` of one content piece and largest part of a manifest in one message, in bytes.
pub const MAX_PIECE_BYTES: usize = 256 << 10;
