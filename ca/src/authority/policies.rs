//! The policy in force, and how another one takes its place.
//!
//! A policy is read, parsed and checked aside; then, with the books in hand, its record is made durable and it is put in
//! force. So every record behind that one was judged by the new policy, every record before it by the old one, and no call by
//! both. What cannot be loaded changes nothing, is recorded once, and is told to everybody who asks until it is mended.

use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard, PoisonError};

use audit::Decision;
use catalogue::Inventory;
use tracing::{error, info, warn};
use wire::ids::Digest;

use super::Authority;
use crate::config::Config;
use crate::error::told;
use crate::policy::{self, Policy, World, schema};
use crate::policy_file::{Look, PolicyFile};

/// What is looked at for another policy.
pub(super) struct Watch {
    file: PolicyFile,
    /// The labels that the file was last checked against.
    labels: Option<BTreeSet<String>>,
}

impl Watch {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            file: PolicyFile::new(&config.policy, policy::MAX_BYTES as u64),
            labels: None,
        }
    }
}

impl Authority {
    /// Looks at the policy file, and at the labels that it may speak of. To be called every second or so: what changed is
    /// in force when two looks have found it the same.
    pub fn refresh_policy(&self) {
        let mut watch = self.watch();
        // A broken inventory refuses every call by itself.
        let Ok(inventory) = self.books().shelf.current() else {
            return;
        };
        let labels = schema::labels(&self.config, &inventory);
        if watch.labels.as_ref().is_some_and(|known| *known != labels) {
            watch.file.forget();
        }
        watch.labels = Some(labels);
        let recorded = match watch.file.look() {
            Look::Same => Ok(()),
            Look::Unusable(what) => self.keep_policy(&what),
            Look::New(bytes) => self.take_policy(&bytes, &inventory, &watch),
        };
        if let Err(cause) = recorded {
            error!(
                why = told(&cause),
                "failed to record a change of policy; the old one stays in force"
            );
            watch.file.forget();
        }
    }

    /// Puts what stands in the file in force, if it can be.
    fn take_policy(&self, bytes: &[u8], inventory: &Inventory, watch: &Watch) -> Result<(), audit::Error> {
        let world = World::new(&self.config, &self.catalogue, inventory);
        let policy = match Policy::load(bytes, &world) {
            Ok(policy) => policy,
            Err(faults) => {
                let path = watch.file.path().display();
                let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                let digest = Digest::of(bytes);
                return self.keep_policy(&format!(
                    "failed to accept the policy {path}, {digest}: {}",
                    faults.join("; ")
                ));
            }
        };
        let findings = policy.findings(&world);
        let mut books = self.books();
        let old = books.policy.digest().clone();
        if *policy.digest() == old && books.policy_fault.is_none() {
            return Ok(());
        }
        let message = format!("policy {} comes into force after {old}", policy.digest());
        self.records.policy(Decision::Allow, &message)?;
        info!(policy = %policy.digest(), %old, "another policy is in force");
        for finding in findings {
            warn!("{}: {finding}", watch.file.path().display());
        }
        books.policy = Arc::new(policy);
        books.policy_fault = None;
        Ok(())
    }

    /// Leaves the old policy in force, loudly.
    fn keep_policy(&self, what: &str) -> Result<(), audit::Error> {
        let what = wire::text::escaped(what, wire::limits::MESSAGE);
        let mut books = self.books();
        if books.policy_fault.as_ref() == Some(&what) {
            return Ok(());
        }
        let policy = books.policy.digest().clone();
        error!(%policy, why = what, "the policy file cannot be put in force; the old policy stays in force");
        self.records
            .policy(Decision::Deny, &format!("policy {policy} stays in force: {what}"))?;
        books.policy_fault = Some(what);
        Ok(())
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        // What a panic leaves behind is at most a look that is made again.
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
