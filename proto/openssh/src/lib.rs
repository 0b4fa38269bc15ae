//! What OpenSSH's formats say, and what they must say before this project believes them.
//!
//! Bytes in, values out: no I/O and no clock. The certificate checks go beyond what a parser does (type, principals,
//! options, lifetime), and signatures of machines are ed25519 with strict verification. People sign with keys of four kinds,
//! and `allowed_signers` says who they are.
//! Sources: OpenSSH's PROTOCOL.certkeys, PROTOCOL.sshsig, PROTOCOL.u2f and ssh-keygen(1).

pub mod allowed_signers;
pub mod certificate;
pub mod key;
pub mod person;
pub mod sshsig;

mod strict;
