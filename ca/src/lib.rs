//! The CA: decides what a relay may do for whom on which target, and signs credentials that live for minutes.
//!
//! [`authority`] is the story of a call; [`start`] brings together what it needs; [`service`] is its door.
//! Promises: nothing is signed before its record is durable, and nothing that policy did not allow. Never: signs bytes it
//! was handed, takes from a call what widens a certificate, shows a private key.

pub mod authority;
pub mod call;
pub mod certificate;
pub mod config;
pub mod convert;
pub mod enroll;
pub mod error;
pub mod history;
pub mod init;
pub mod inventory;
pub mod issued;
pub mod policy;
pub mod policy_file;
pub mod port;
pub mod quota;
pub mod random;
pub mod record;
pub mod repeats;
pub mod review;
pub mod roster;
pub mod service;
pub mod signer;
pub mod socket;
pub mod start;
