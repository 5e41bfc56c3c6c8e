//! The agents of an environment over gRPC: the coordinator's adapter of [`pointsman_core::ports::Fleet`].

mod grpc;
mod transfer;

pub use grpc::GrpcFleet;
pub use transfer::Transfers;
