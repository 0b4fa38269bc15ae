//! What a target can be asked to do, and which targets there are.
//!
//! A [`Manifest`] is one action's file, a [`Catalogue`] all of them: parsed once, strictly, with every fault named. From a
//! manifest come the schema that models see, the check of arguments, and the argv: the same code for relay, CA and target,
//! so that they cannot differ in what they accept. The target's own copy decides; the others shape calls and policy.
//! An [`Inventory`] says which targets exist and by which keys they are known. A [`Probe`] is a health check that a target
//! defines by name.
//!
//! Nothing here runs anything, and no clock is read.

pub mod args;
pub mod fault;
pub mod folder;
pub mod inventory;
pub mod manifest;
pub mod probe;
pub mod schema;
mod table;
mod text;

pub use args::{ArgFault, CheckedArgs, FileArg};
pub use fault::Fault;
pub use folder::{Catalogue, Entry, Folder};
pub use inventory::{HostTrust, Inventory, Target};
pub use manifest::{Element, Exec, FileRule, Limits, Manifest, Output, Privilege, Profile, Terms};
pub use probe::{Probe, ProbeName};
