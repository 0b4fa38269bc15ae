//! The part of the story that asks the relay's own rules, before anybody else is asked for anything.

use catalogue::{Manifest, Target};
use wire::ids::TargetName;
use wire::{Code, Mode, Requester, Risk};

use super::Relay;
use crate::error::{About, Refusal};
use crate::rules::{Question, READONLY, What};

impl Relay {
    /// The relay's mode lets through what has this risk.
    pub(super) fn ruled_by_mode(&self, manifest: &Manifest, risk: Risk, about: &About) -> Result<(), Refusal> {
        if self.rules.mode_lets(risk) {
            return Ok(());
        }
        let tried = manifest.in_mode(Mode::DryRun);
        let about = About {
            trial: tried.is_some_and(|terms| self.rules.mode_lets(terms.risk)),
            ..about.clone()
        };
        let detail = format_args!("its mode is {READONLY}, and this has the risk {}", risk.as_str());
        Err(Refusal::ruled(Code::ReadOnly, &[READONLY], detail, &about))
    }

    /// No deny rule fits.
    pub(super) fn ruled(
        &self,
        requester: &Requester,
        target: &Target,
        what: Option<What<'_>>,
        about: &About,
    ) -> Result<(), Refusal> {
        let question = Question {
            requester,
            target,
            what,
        };
        let judgement = self.rules.judge(&question);
        if judgement.denied.is_empty() {
            return Ok(());
        }
        let (rules, detail) = (&judgement.denied, judgement.detail());
        Err(Refusal::ruled(Code::PolicyDenied, rules, detail, about))
    }

    /// No deny rule keeps the requester from the target altogether.
    pub(super) fn ruled_here(&self, requester: &Requester, target: &TargetName) -> Result<(), Refusal> {
        let about = About {
            target: Some(target.clone()),
            ..About::default()
        };
        match self.inventory.find(target.as_str()) {
            Some(target) => self.ruled(requester, target, None, &about),
            None => Err(Refusal::new(Code::UnknownTarget, &about)),
        }
    }
}
