//! What OpenSSH's formats say, and what they must say before this project believes them.
//!
//! Bytes in, values out: no I/O and no clock. The certificate checks go beyond what a parser does (type, principals,
//! options, lifetime), and signatures are ed25519 with strict verification.
//! Sources: OpenSSH's PROTOCOL.certkeys and PROTOCOL.sshsig.

pub mod certificate;
pub mod key;
pub mod sshsig;

mod strict;
