//! The target: what it opened before it went to rest, what it says of itself, and what it knows of requests that were cut
//! off.

use std::path::Path;

use audit::{Log, Rights, Strangers, Tier, Who};
use openssh::key::{PublicKey, SigningKey};
use openssh::sshsig;
use wire::ids::{Digest, Fingerprint, Head};
use wire::lines::{Answer, TargetLine};
use wire::seal::seal;
use wire::{Code, Hello, Risk, VERSION};

use crate::answer::Reply;
use crate::error::{Fatal, Refusal};
use crate::history::{self, Told};
use crate::house::{self, Config};
use crate::ledger::{self, Claim, Found, Kept, Key, Ledger};
use crate::order::{self, Knowledge};
use crate::sys::{self, Ids};
use crate::{action, now, record, replay};

/// Opens later files of the log as writ-exec.
struct AsExec(Ids);

impl Rights for AsExec {
    fn with(&self, open: &mut dyn FnMut() -> std::io::Result<std::fs::File>) -> std::io::Result<std::fs::File> {
        sys::as_exec(self.0.exec_uid, open)
    }
}

/// The target: its configuration and what it opened before it went to rest.
pub(crate) struct Target {
    pub(crate) config: Config,
    pub(crate) key: SigningKey,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) boot_id: String,
    pub(crate) log: Log,
    pub(crate) ledger: Ledger,
    pub(crate) strangers: Strangers,
    pub(crate) known: action::Known,
}

impl Target {
    /// Opens everything that only writ-exec may open, each file with writ-exec's rights for that moment.
    pub(crate) fn open(config: Config) -> Result<Self, Fatal> {
        let key = sys::as_exec(config.exec_uid, || house::receipt_key(config.ids()))?;
        let who = Who {
            tier: Tier::Target,
            host: config.target.to_string(),
            build: wire::build::id().to_owned(),
        };
        let broken = |error: audit::Error| Fatal::Log(error.to_string());
        let rights = AsExec(config.ids());
        Ok(Self {
            fingerprint: Fingerprint::of(key.public()),
            boot_id: house::boot_id()?,
            strangers: Strangers::open(Path::new(house::STRANGERS), &rights).map_err(broken)?,
            log: Log::open(Path::new(house::LOG), Path::new(house::LOG_LOCK), who, Box::new(rights)).map_err(broken)?,
            ledger: Ledger::open(Path::new(house::LEDGER), config.exec_uid).map_err(|error| Fatal::File {
                file: house::LEDGER.to_owned(),
                what: error.to_string(),
            })?,
            known: action::Known::default(),
            config,
            key,
        })
    }

    /// After a start of the machine: says of each request that was cut off that nobody knows what became of it, and makes
    /// the ledger what the log wants it to be.
    pub(crate) fn recover(&mut self) -> Result<(), Fatal> {
        let ledger = |error: std::io::Error| Fatal::Log(format!("the ledger: {error}"));
        let refused = |refusal: Refusal| Fatal::Log(refusal.message);
        let Some(stale) = self.ledger.stale(&self.boot_id).map_err(ledger)? else {
            return Ok(());
        };
        let told = history::since(&self.log, now().saturating_sub(ledger::KEPT.as_secs()));
        for ((task_id, request_id), told) in told.map_err(|error| Fatal::Log(error.to_string()))? {
            // One of this start may be running in another session.
            let Some(request_sha256) = told.request_sha256().filter(|_| told.boot_id != self.boot_id) else {
                continue;
            };
            let is_claimed = order::works_once(
                told.intent.risk.unwrap_or(Risk::Destroy),
                told.intent.approvals.is_some(),
            );
            let kept = self.ended(told, &request_sha256).map_err(refused)?;
            let claim = match self.ledger.look(&task_id, &request_id).map_err(refused)? {
                _ if !is_claimed => continue,
                Found::Running(_) | Found::Answered(..) => continue,
                Found::Left(claim) => claim,
                Found::Nothing => {
                    let key = Key {
                        task_id,
                        request_id,
                        request_sha256,
                    };
                    self.ledger.claim(key).map_err(refused)?
                }
            };
            Ledger::settle(claim, &kept).map_err(ledger)?;
        }
        for claim in self.ledger.left().map_err(ledger)? {
            self.ledger.forget(claim).map_err(ledger)?;
        }
        self.ledger.fresh(stale, &self.boot_id).map_err(ledger)
    }

    /// The first line: who this is, what it has, what time it thinks it is.
    pub(crate) fn hello(&self) -> Result<TargetLine, Fatal> {
        let hello = Hello {
            versions: vec![VERSION],
            target: self.config.target.clone(),
            build: wire::build::id().to_owned(),
            receipt_key: self.key.public().to_openssh(),
            now: now(),
            boot_id: self.boot_id.clone(),
            head: self.log.head(),
            manifests: action::digests(Path::new(house::ACTIONS)),
        };
        let fault = |what: String| Fatal::File {
            file: house::RECEIPT_KEY.to_owned(),
            what,
        };
        seal(&self.key, sshsig::HELLO, &hello)
            .map(TargetLine::Hello)
            .map_err(|error| fault(error.to_string()))
    }
    /// Settles a claim whose process is gone: what the log says, or that nobody knows. A request that was never begun may
    /// be claimed again.
    pub(crate) fn settle(&mut self, claim: Claim) -> Result<Option<Kept>, Refusal> {
        let disk = |error: std::io::Error| Refusal::because(Code::LogUnavailable, format!("the ledger: {error}"));
        let key = claim.key().clone();
        let told = history::since(&self.log, now().saturating_sub(ledger::KEPT.as_secs()))?
            .remove(&(key.task_id, key.request_id))
            // Another request of this id may have been a read.
            .filter(|told| told.request_sha256().as_ref() == Some(&key.request_sha256));
        let Some(told) = told else {
            self.ledger.forget(claim).map_err(disk)?;
            return Ok(None);
        };
        let kept = self.ended(told, &key.request_sha256)?;
        Ledger::settle(claim, &kept).map_err(disk)?;
        Ok(Some(kept))
    }

    /// How a request ended, as far as the log knows. Where it does not, that is put into the log first.
    fn ended(&mut self, told: Told, request_sha256: &Digest) -> Result<Kept, Refusal> {
        let (end, head) = match told.end {
            Some(end) => end,
            None => {
                let draft = record::never_ended(&told.intent);
                let head = self.log.append(&draft)?;
                (draft, head)
            }
        };
        Ok(replay::recorded(request_sha256.clone(), &end, &head, now()))
    }
    /// Records a refusal. Where the log cannot be written that is the reason that is given: an unrecorded refusal of
    /// another kind would be one that nobody finds.
    pub(crate) fn record_refusal(&mut self, draft: &audit::Draft, refusal: Refusal) -> (Refusal, Option<Head>) {
        match self.log.append(draft) {
            Ok(head) => (refusal, Some(head)),
            Err(error) => (Refusal::from(error), None),
        }
    }

    /// Counts a peer that proved nothing. A count that cannot be written changes nothing for it: it is refused anyway.
    pub(crate) fn count_stranger(&mut self, refusal: &Refusal) {
        if let Err(error) = self
            .strangers
            .note(&mut self.log, refusal.code, &refusal.message, now())
        {
            eprintln!("agent-exec: failed to count a refusal: {error}");
        }
    }

    pub(crate) fn flush_strangers(&mut self) {
        if let Err(error) = self.strangers.flush_due(&mut self.log, now()) {
            eprintln!("agent-exec: failed to record the count of refusals: {error}");
        }
    }

    pub(crate) fn knowledge<'a>(&'a self, login_key: Option<&'a PublicKey>, cas: &'a [PublicKey]) -> Knowledge<'a> {
        Knowledge {
            target: &self.config.target,
            key: &self.fingerprint,
            cas,
            login_key,
            max_lifetime_s: self.config.task_max_lifetime_s,
            now: now(),
        }
    }

    pub(crate) fn seal(&self, reply: Reply) -> Result<Answer, Refusal> {
        let Reply {
            outcome,
            output,
            stderr,
        } = reply;
        let outcome = seal(&self.key, sshsig::OUTCOME, &outcome)
            .map_err(|error| Refusal::because(Code::Internal, error.to_string()))?;
        Ok(Answer {
            outcome,
            output,
            stderr,
        })
    }
}
