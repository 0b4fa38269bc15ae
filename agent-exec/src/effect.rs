//! Whether a change came about: the read action that its manifest names is asked afterwards, until it says so or the time
//! that an effect may take to show is over.
//!
//! Everything about it that can be known is found before the change: which action, that it only reads, that its arguments
//! and its program are in order. A change whose effect nobody could see is not made.

use std::time::{Duration, Instant};

use catalogue::{Entry, Manifest};
use serde_json::{Map, Value};
use wire::ids::ActionName;
use wire::{Code, Mode, Risk};

use crate::child::{self, Ran};
use crate::error::Refusal;
use crate::prepare::{self, Probes};
use crate::sys::{Resting, SpawnError};

/// From one look to the next.
const PAUSE: Duration = Duration::from_millis(100);

/// The look that will be taken.
#[must_use]
pub(crate) struct Look {
    entry: Entry,
    args: Map<String, Value>,
    probes: Probes,
    wait: Duration,
}

impl Look {
    /// What a manifest wants, with the values of this request; `find` knows the actions of this target.
    ///
    /// # Errors
    /// `manifest_invalid` where it could not be taken.
    pub(crate) fn wanted(
        manifest: &Manifest,
        own: &Map<String, Value>,
        probes: &Probes,
        find: impl FnOnce(&ActionName) -> Result<Entry, Refusal>,
    ) -> Result<Option<Self>, Refusal> {
        let Some(verify) = manifest.verify() else {
            return Ok(None);
        };
        let unfit = |what: &str| Refusal::because(Code::ManifestInvalid, format!("verify, {}: {what}", verify.action));
        let entry = find(&verify.action).map_err(|refusal| unfit(&refusal.message))?;
        if entry.manifest().risk() != Risk::Read {
            return Err(unfit("it is not a read action"));
        }
        let look = Self {
            args: verify.args_for(own),
            probes: probes.clone(),
            wait: Duration::from_millis(verify.wait_ms),
            entry,
        };
        prepare::foresee(&look.entry, &look.args, probes).map_err(|refusal| unfit(&refusal.message))?;
        Ok(Some(look))
    }

    /// What the intent says of it.
    pub(crate) fn announced(&self) -> String {
        let manifest = self.entry.manifest();
        format!("{} will be asked whether it came about", manifest.name())
    }

    /// Takes it.
    ///
    /// # Errors
    /// What was seen last instead of the effect.
    pub(crate) fn take(self, resting: Resting) -> Result<(), String> {
        let end = Instant::now() + self.wait;
        loop {
            let seen = self.once(resting, end.saturating_duration_since(Instant::now()));
            let Err(what) = seen else { return Ok(()) };
            if Instant::now() + PAUSE >= end {
                let name = self.entry.manifest().name();
                return Err(format!(
                    "{name} does not show its effect within {} ms: {what}",
                    self.wait.as_millis()
                ));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// One look, in the time that is left.
    fn once(&self, resting: Resting, left: Duration) -> Result<(), String> {
        let prepared = prepare::prepare(&self.entry, &self.args, Mode::Run, Risk::Read, &self.probes);
        let mut command = prepared.map_err(|refusal| refusal.message)?.command;
        command.timeout = command.timeout.min(left);
        // Whoever asked for the change may be gone; the look belongs to it and goes on as it does.
        command.alone = child::Alone::GoesOn;
        match child::run(resting, command, std::io::stdout()) {
            Ok(Ran { cut: Some(_), .. }) => Err("it took too long".to_owned()),
            Ok(Ran { ended, .. }) => match ended.how {
                Ok(0) => Ok(()),
                Ok(code) => Err(format!("exit code {code}")),
                Err(signal) => Err(format!("signal {signal}")),
            },
            Err(SpawnError::NotStarted(error) | SpawnError::Lost(error)) => Err(error.to_string()),
        }
    }
}
