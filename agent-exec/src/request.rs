//! The story of a request, from its line to its answer.
//!
//! Each step makes the value that the next one demands: what was not verified is not judged, what was not claimed is not
//! recorded, what was not recorded is not run, and what was not recorded is not answered.

use std::path::Path;

use openssh::key::PublicKey;
use wire::ids::{Digest, RequestId, TaskId};
use wire::lines::{Answer, Approval, RelayLine};
use wire::seal::Sealed;
use wire::{Code, Mode, Status, limits};

use crate::answer::{self, Action, Reply};
use crate::child::{self, Command};
use crate::effect::Look;
use crate::error::Refusal;
use crate::ledger::{Claim, Found, Key, Ledger};
use crate::order::{self, Approvers, Knowledge, Own, Permit, Touch, Unverified, Verified};
use crate::sys::Resting;
use crate::target::Target;
use crate::{Session, house, now, prepare, record, replay};

/// A request that was found to be in order, down to the opened program and file, with its walls. It is not recorded yet.
#[must_use]
struct Judged<'a> {
    request: &'a Verified,
    action: Action,
    command: Command,
    look: Option<Look>,
}

/// A request that nobody else carries out: a change, and what people approved, is claimed in the ledger; another read needs
/// no claim.
#[must_use]
struct Claimed<'a> {
    judged: Judged<'a>,
    claim: Option<Claim>,
}

/// A request whose intent is durable in the log: the only thing that can be run.
#[must_use]
struct Intended<'a>(Claimed<'a>);

/// What became of it, not recorded yet.
#[must_use]
struct Done<'a> {
    request: &'a Verified,
    action: Action,
    claim: Option<Claim>,
    reply: Reply,
}

impl Target {
    /// One line: nothing to say, an answer, or a refusal of the line itself.
    pub(crate) fn line(&mut self, session: &mut Session, line: &[u8]) -> Option<Result<Answer, Refusal>> {
        match RelayLine::parse(line) {
            Ok(RelayLine::Certificate(text)) => self.certificate(session, &text).err().map(Err),
            Ok(RelayLine::Request(sealed, approval)) => {
                let reply = self.request(session, &sealed, approval.as_ref());
                Some(reply.and_then(|reply| self.seal(reply)))
            }
            Ok(RelayLine::Outcome(id)) => Some(self.stored(session, &id).and_then(|reply| self.seal(reply))),
            // Nothing revokes in-band yet.
            Ok(RelayLine::Krl(_)) => Some(Err(Refusal::new(Code::LineUnsupported))),
            Err(error) => Some(Err(Refusal::because(Code::LineMalformed, error.to_string()))),
        }
    }

    fn certificate(&self, session: &mut Session, text: &str) -> Result<(), Refusal> {
        let cas = house::cas().map_err(|fatal| Refusal::because(fatal.code(), fatal.to_string()))?;
        let knowledge = self.knowledge(session.login_key.as_ref(), &cas);
        if order::is_for_an_action(text, &knowledge) {
            return session.permits.accept(text, &knowledge, session.task.as_ref());
        }
        session.task = Some(order::accept(text, &knowledge, session.task.as_ref())?);
        Ok(())
    }

    /// The kept answer to an earlier request of the session's task: any live certificate of the task may ask.
    fn stored(&mut self, session: &Session, id: &RequestId) -> Result<Reply, Refusal> {
        let task = session.task.as_ref();
        let task = task.ok_or_else(|| Refusal::new(Code::CertificateMissing))?;
        not_halted()?;
        task.certificate().check_time(now(), limits::SKEW_S)?;
        let cas = house::cas().map_err(|fatal| Refusal::because(fatal.code(), fatal.to_string()))?;
        if !cas.contains(task.certificate().ca()) {
            return Err(Refusal::new(Code::CertificateUntrusted));
        }
        self.recall(&task.grant().task_id, id, None)?
            .ok_or_else(|| Refusal::new(Code::UnknownRequest))
    }

    /// The story of a request: verify, then carry out; whatever stops it is recorded and answered. A peer that proved
    /// nothing gets no signature of this target: its line is refused, like one that cannot be read.
    fn request(
        &mut self,
        session: &mut Session,
        sealed: &Sealed,
        approval: Option<&Approval>,
    ) -> Result<Reply, Refusal> {
        let sha256 = Digest::of(sealed.payload.as_bytes());
        // A ca.pub that cannot be used trusts nobody.
        let (cas, fault) = match house::cas() {
            Ok(cas) => (cas, None),
            Err(fatal) => (Vec::new(), Some(fatal)),
        };
        let (request, refusal, draft) = match order::verify(
            sealed,
            session.task.as_ref(),
            &self.knowledge(session.login_key.as_ref(), &cas),
        ) {
            Err(Unverified::Stranger(refusal)) => return Err(refusal),
            Err(Unverified::Known { task, refusal }) => {
                let refusal = match fault {
                    Some(fatal) if refusal.code == Code::CertificateUntrusted => {
                        Refusal::because(fatal.code(), fatal.to_string())
                    }
                    _ => refusal,
                };
                let draft = record::refused_bytes(&task, sealed.payload.as_bytes(), &refusal);
                (None, refusal, draft)
            }
            Ok(request) => match self.carry_out(session, &request, approval, &cas) {
                Ok(reply) => return Ok(reply),
                Err(refusal) => {
                    let draft = record::refused(&request, &refusal);
                    (Some(request), refusal, draft)
                }
            },
        };
        let (refusal, head) = self.record_refusal(&draft, refusal);
        Ok(answer::refused(sha256, request.as_ref(), refusal, head, now()))
    }

    /// Recall, validate, judge, claim, record the intent, run, record the result.
    fn carry_out(
        &mut self,
        session: &mut Session,
        request: &Verified,
        approval: Option<&Approval>,
        cas: &[PublicKey],
    ) -> Result<Reply, Refusal> {
        // Before anything is looked up: a halted target looks at nothing.
        not_halted()?;
        let payload = request.payload();
        if let Some(reply) = self.recall(&payload.task_id, &payload.request_id, Some(request.sha256()))? {
            return Ok(reply);
        }
        let permit = session.permits.take(request);
        let judged = self.judge(session, request, permit, approval, cas)?;
        let claimed = self.claim(judged)?;
        let intended = self.intend(claimed)?;
        let done = run(session.resting, intended);
        Ok(self.record_result(done))
    }

    /// The kept answer, where the request was carried out before. One whose process is gone is settled by the log.
    fn recall(
        &mut self,
        task: &TaskId,
        request: &RequestId,
        sha256: Option<&Digest>,
    ) -> Result<Option<Reply>, Refusal> {
        let same = |key: &Key| match sha256 {
            Some(sha256) if *sha256 != key.request_sha256 => Err(Refusal::new(Code::RequestIdReused)),
            _ => Ok(()),
        };
        let kept = match self.ledger.look(task, request)? {
            Found::Nothing => return Ok(None),
            Found::Running(key) => {
                same(&key)?;
                return Err(Refusal::new(Code::InProgress));
            }
            Found::Answered(key, kept) => {
                same(&key)?;
                *kept
            }
            Found::Left(claim) => {
                same(claim.key())?;
                match self.settle(claim)? {
                    Some(kept) => kept,
                    None => return Ok(None),
                }
            }
        };
        Ok(Some(replay::again(kept, now())))
    }
    /// Everything that the target's own catalogue, clock and operator say to it.
    fn judge<'a>(
        &mut self,
        session: &Session,
        request: &'a Verified,
        permit: Option<Permit>,
        approval: Option<&Approval>,
        cas: &[PublicKey],
    ) -> Result<Judged<'a>, Refusal> {
        let payload = request.payload();
        order::timely(payload, now())?;
        let entry = self.known.find(Path::new(house::ACTIONS), &payload.action)?;
        let manifest = entry.manifest();
        let own = Own {
            risk: manifest.risk(),
            manifest: entry.digest(),
            approvals: manifest.approvals(),
            approval_window_s: manifest.approval_window_s(),
            dry_run: manifest.dry_run().map(|dry_run| dry_run.risk),
        };
        let knowledge = Knowledge {
            target: &self.config.target,
            key: &self.fingerprint,
            cas,
            login_key: session.login_key.as_ref(),
            max_lifetime_s: self.config.task_max_lifetime_s,
            now: now(),
        };
        let wanted = order::permitted(request, own, permit.as_ref(), &knowledge)?;
        let approved = order::approved(request, wanted, approval, || {
            let signers = house::approvers().map_err(|fatal| Refusal::because(fatal.code(), fatal.to_string()))?;
            Ok(Approvers {
                signers,
                never: cas,
                touch: Touch::of(self.config.require_touch),
                now: now(),
            })
        })?;
        let risk = wanted.risk();
        let prepared = prepare::prepare(entry, &payload.args, payload.mode, risk, &self.config.probe)?;
        if !approved.by().is_empty() && prepared.args != payload.args {
            // People read every argument and signed that: no default comes in behind them.
            let what = "an approved request has every argument, those with a default too";
            return Err(Refusal::because(Code::ArgumentsInvalid, what));
        }
        let (manifest, digest) = (manifest.clone(), entry.digest().clone());
        // What is only tried out has no effect that could be looked at.
        let look = match payload.mode {
            Mode::DryRun => None,
            Mode::Run => Look::wanted(&manifest, &prepared.args, &self.config.probe, |name| {
                self.known.find(Path::new(house::ACTIONS), name).cloned()
            })?,
        };
        Ok(Judged {
            request,
            action: Action {
                manifest: digest,
                risk,
                encoding: prepared.encoding,
                part: prepared.part,
                walls: prepared.walls,
                permit,
                approved,
            },
            command: prepared.command,
            look,
        })
    }

    /// Makes sure that nobody else carries it out, now or ever again.
    fn claim<'a>(&self, judged: Judged<'a>) -> Result<Claimed<'a>, Refusal> {
        let payload = judged.request.payload();
        if !judged.action.works_once() {
            return Ok(Claimed { judged, claim: None });
        }
        let claim = self.ledger.claim(Key {
            task_id: payload.task_id.clone(),
            request_id: payload.request_id.clone(),
            request_sha256: judged.request.sha256().clone(),
        })?;
        // Again, now that it is claimed: whoever found no claim after that time was told that there will never be one.
        if let Err(refusal) = order::timely(payload, now()) {
            let _ = self.ledger.forget(claim);
            return Err(refusal);
        }
        Ok(Claimed {
            judged,
            claim: Some(claim),
        })
    }

    /// Makes the intent durable, and space for the result with it.
    fn intend<'a>(&mut self, claimed: Claimed<'a>) -> Result<Intended<'a>, Refusal> {
        let Claimed { judged, claim } = claimed;
        let look = judged.look.as_ref().map(Look::announced);
        let draft = record::intent(judged.request, &judged.action, &judged.command.argv, look);
        if let Err(error) = self.log.intend(&draft) {
            if let Some(claim) = claim {
                // Where that fails too, whoever asks next finds a claim that nothing came of.
                let _ = self.ledger.forget(claim);
            }
            return Err(error.into());
        }
        Ok(Intended(Claimed { judged, claim }))
    }

    /// Makes the result durable, and keeps the answer of a change; where the first fails, nothing is claimed about it.
    fn record_result(&mut self, done: Done<'_>) -> Reply {
        let Done {
            request,
            action,
            claim,
            mut reply,
        } = done;
        match self.log.append(&record::result(request, &action, &reply.outcome)) {
            Ok(head) => reply.outcome.head = Some(head),
            Err(error) => return answer::unrecorded(request, &action, &error.to_string(), now()),
        }
        if let Some(claim) = claim
            && let Err(error) = Ledger::settle(claim, &replay::keep(&reply))
        {
            // The log knows how it ended; whoever asks again is told from there.
            eprintln!("agent-exec: failed to keep an answer: {error}");
        }
        reply
    }
}

fn not_halted() -> Result<(), Refusal> {
    if house::halted() {
        return Err(Refusal::because(Code::Halted, "an operator halted this target"));
    }
    Ok(())
}

/// Runs what was intended. Nothing else in this crate starts a program.
fn run(resting: Resting, intended: Intended<'_>) -> Done<'_> {
    let Intended(Claimed { judged, claim }) = intended;
    let Judged {
        request,
        action,
        command,
        look,
    } = judged;
    let reply = match child::run(resting, command, std::io::stdout()) {
        Ok(ran) => answer::ran(request, &action, ran, now()),
        Err(error) => answer::no_program(request, &action, &error, now()),
    };
    let reply = match look {
        Some(look) if reply.outcome.status == Status::Ok => match look.take(resting) {
            Ok(()) => reply,
            Err(what) => answer::without_effect(reply, &what, now()),
        },
        Some(_) | None => reply,
    };
    Done {
        request,
        action,
        claim,
        reply,
    }
}
