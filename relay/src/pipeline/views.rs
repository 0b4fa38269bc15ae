//! The part of the story that only shows: the targets, and the relay itself.

use wire::Requester;

use super::Relay;
use crate::call::{Caller, Listed, ServerView};
use crate::error::{About, Refusal};

impl Relay {
    /// Every target of the inventory, with the caller's open task there.
    pub(super) async fn list_targets(&self, requester: &Requester) -> Result<Vec<Listed>, Refusal> {
        let open = self.store.places(&Self::owner(requester), (self.now)()).await;
        let mut open = open.map_err(|error| Refusal::store(&error, &About::default()))?;
        let listed = |target: &catalogue::Target| Listed {
            target: target.name().clone(),
            labels: target.labels().clone(),
            task: open.remove(target.name()),
        };
        Ok(self.inventory.iter().map(listed).collect())
    }

    /// Who this relay is, whether the CA answers, and what is missing of the separation of accounts.
    pub(super) async fn server_info(&self, caller: &Caller) -> ServerView {
        let own = nix::unistd::geteuid().as_raw();
        let mut boundary_missing = Vec::new();
        if caller.uid == own {
            boundary_missing.push("the client runs as the relay's account: it can read the relay's keys".to_owned());
        }
        if self.issuer.uid().await == Some(own) {
            boundary_missing.push("the CA runs as the relay's account: the relay can sign for itself".to_owned());
        }
        let about = About::default();
        let ca = match self.issuer.describe().await {
            Ok(ca) => Ok((
                ca.build,
                ca.now.cast_signed().saturating_sub((self.now)().cast_signed()),
            )),
            Err(error) => Err(Refusal::issuer(error, &about).code),
        };
        ServerView {
            relay: self.name.to_string(),
            config: self.config.clone(),
            head: self.records.head(),
            ca,
            boundary_missing,
            person: caller.person.clone(),
            mode: self.rules.mode(),
        }
    }
}
