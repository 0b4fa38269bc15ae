//! The stubs of `ca.proto`: what a relay may ask of the CA; and the TLS that carries it between two machines.
//!
//! Generated types are wire types. Each of the two users turns them into checked values in one file of its own and
//! lets them go no further.

pub mod keys;
pub mod policies;
pub mod tls;

/// The protocol's only version so far.
pub mod v1 {
    #![expect(missing_docs, reason = "generated; ca.proto holds the words")]
    tonic::include_proto!("writ.ca.v1");
}

/// Metadata key of a refusal's stable Code.
pub const CODE: &str = "writ-code";

/// Metadata key of a refusal's one line of text: printable ASCII, everything else escaped (`wire::text::ascii`).
pub const MESSAGE: &str = "writ-message";

/// Metadata key of the policies that decided so ([`policies`]); absent where none did.
pub const POLICY: &str = "writ-policy";
