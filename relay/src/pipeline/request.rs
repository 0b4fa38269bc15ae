//! The part of the story that makes a request and remembers it: its bytes, its records, its end.

use std::sync::Arc;

use audit::{Draft, Event, Output, Witness};
use openssh::key::SigningKey;
use openssh::sshsig;
use wire::ids::{ActionName, Digest, Fingerprint, Head, RequestId, TargetName, TaskId};
use wire::seal::Sealed;
use wire::{Code, Payload, PayloadWitness, Requester, Risk, Status, Stream};

use super::asking::Granted;
use super::panics::caught;
use super::verdict::{self, Unanswered, Verified};
use super::{Asked, Relay, refusals};
use crate::call::Done;
use crate::error::{About, Refusal, RefusedBy};
use crate::issuer::Issued;
use crate::records::{Appending, Written};
use crate::store::{Phase, Request, Task, Unsettled};

/// How long the bytes of a change are good, in seconds: for so long, and the tolerance for clocks, nobody can say of a
/// change that was lost that it will never begin.
const CHANGE_S: u64 = 30;

/// What every record about a request says, and what each answer to it has to be about.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) task: TaskId,
    pub(super) request: RequestId,
    pub(super) sha256: Digest,
    pub(super) target: TargetName,
    pub(super) action: ActionName,
}

/// The bytes of a request, not yet recorded.
pub(super) struct Built {
    pub(super) asked: Asked,
    pub(super) subject: Subject,
    pub(super) payload: String,
    pub(super) expires: u64,
    begun: u64,
    /// That people approved exactly these bytes, where they did.
    granted: Option<Granted>,
}

/// A request whose record is on its way into the log.
#[must_use = "a request that was begun has an end"]
pub(super) struct Begun {
    built: Built,
    record: Appending,
}

/// A request whose record is durable: the only thing that is ever signed.
#[must_use = "a recorded request is sent, or its end is recorded"]
pub(super) struct Recorded {
    pub(super) built: Built,
}

impl Subject {
    /// That of a request which the store remembers.
    pub(super) fn left(left: &Unsettled) -> Self {
        Self {
            task: left.task.id.clone(),
            request: left.request.id.clone(),
            sha256: left.request.sha256.clone(),
            target: left.request.target.clone(),
            action: left.request.action.clone(),
        }
    }

    pub(super) fn about(&self) -> About {
        About {
            task: Some(self.task.clone()),
            request: Some(self.request.clone()),
            target: Some(self.target.clone()),
            action: Some(self.action.clone()),
            ..About::default()
        }
    }

    pub(super) fn draft(&self, event: Event) -> Draft {
        Draft {
            task_id: Some(self.task.clone()),
            request_id: Some(self.request.clone()),
            request_sha256: Some(self.sha256.clone()),
            target: Some(self.target.clone()),
            action: Some(self.action.clone()),
            ..Draft::new(event)
        }
    }

    /// The record of an end that the target has told.
    pub(super) fn told(&self, verified: &Verified) -> Draft {
        let outcome = &verified.outcome;
        let sum = |stream: &Stream| Output {
            bytes: stream.bytes,
            sha256: stream.sha256.clone(),
        };
        Draft {
            status: Some(outcome.status),
            code: outcome.code,
            exit_code: outcome.exit_code,
            signal: outcome.signal,
            duration_ms: Some(outcome.duration_ms),
            output: outcome.output.as_ref().map(sum),
            stderr: outcome.stderr.as_ref().map(sum),
            resources: outcome.resources,
            manifest: outcome.manifest.clone(),
            witness: outcome.head.clone().map(|head| Witness {
                target: Some(head),
                ..Witness::default()
            }),
            ..self.draft(Event::Outcome)
        }
    }

    /// The record of an end without the target's word.
    pub(super) fn untold(&self, unanswered: &Unanswered) -> Draft {
        Draft {
            status: Some(unanswered.status),
            code: Some(unanswered.refusal.code),
            message: Some(refusals::said(&unanswered.refusal)),
            policy: refusals::deciding(&unanswered.refusal),
            ..self.draft(Event::Outcome)
        }
    }
}

impl Built {
    /// Bytes that people have approved: made when they were asked.
    pub(super) fn approved(
        asked: Asked,
        subject: Subject,
        payload: String,
        expires: u64,
        begun: u64,
        granted: Granted,
    ) -> Self {
        Self {
            asked,
            subject,
            payload,
            expires,
            begun,
            granted: Some(granted),
        }
    }

    pub(super) fn granted(&self) -> Option<&Granted> {
        self.granted.as_ref()
    }

    /// The request as the store remembers it when nobody knows its end.
    fn left(&self, task: &Task) -> Unsettled {
        Unsettled {
            task: task.clone(),
            request: self.remembered(Phase::Sent, Some((Status::Unknown, Some(Code::OutcomeUnknown)))),
            payload: Some(self.payload.clone()),
            begun: self.begun,
        }
    }

    fn remembered(&self, phase: Phase, end: Option<(Status, Option<Code>)>) -> Request {
        Request {
            id: self.subject.request.clone(),
            target: self.subject.target.clone(),
            action: self.subject.action.clone(),
            risk: self.asked.risk,
            mode: self.asked.act.mode,
            sha256: self.subject.sha256.clone(),
            phase,
            end,
        }
    }
}

impl Relay {
    /// The exact bytes that will be signed.
    pub(super) async fn build(
        &self,
        requester: &Requester,
        task: &Task,
        issued: &Issued,
        mut asked: Asked,
    ) -> Result<Built, Refusal> {
        let about = asked.about.clone();
        let internal = || Refusal::new(Code::Internal, &about);
        let request: RequestId = uuid::Uuid::now_v7().to_string().parse().map_err(|_| internal())?;
        asked.about.request = Some(request.clone());
        let relay = self.records.head();
        let begun = (self.now)();
        let life = match asked.risk {
            Risk::Read => wire::limits::REQUEST_MAX_S,
            Risk::Change | Risk::Destroy => CHANGE_S,
        };
        let latest = begun.saturating_add(life);
        let expires = latest.min(issued.valid_before).min(task.ends);
        let payload = Payload {
            v: wire::VERSION,
            task_id: task.id.clone(),
            request_id: request.clone(),
            requester: requester.clone(),
            reason: task.reason.clone(),
            target: asked.act.target.clone(),
            target_key: Fingerprint::of(&issued.receipt_key),
            action: asked.act.action.clone(),
            // Our own copy's, not what the target's hello says: the target has to see when the two differ.
            manifest: asked.manifest.clone(),
            args: asked.args.clone(),
            mode: asked.act.mode,
            expires,
            witness: PayloadWitness { relay },
        };
        let payload = serde_json::to_string(&payload).map_err(|_| internal())?;
        if payload.len() > wire::limits::PAYLOAD {
            return Err(Refusal::because(
                Code::ArgumentsInvalid,
                "they are too long together",
                &asked.about,
            ));
        }
        let subject = Subject {
            task: task.id.clone(),
            request,
            sha256: Digest::of(payload.as_bytes()),
            target: asked.act.target.clone(),
            action: asked.act.action.clone(),
        };
        Ok(Built {
            asked,
            subject,
            payload,
            expires,
            begun,
            granted: None,
        })
    }

    /// Begins to record what is about to be asked. The store has it first, so that a start finds every request that the log
    /// has no end of.
    pub(super) async fn begin(&self, requester: &Requester, task: &Task, built: Built) -> Result<Begun, Refusal> {
        let draft = Draft {
            requester: Some(requester.clone()),
            reason: Some(task.reason.clone()),
            risk: Some(built.asked.risk),
            manifest: Some(built.asked.manifest.clone()),
            mode: Some(built.asked.act.mode),
            ..built.subject.draft(Event::Request)
        };
        let phase = match built.asked.risk {
            Risk::Read => Phase::Sent,
            Risk::Change | Risk::Destroy => Phase::Recorded,
        };
        let request = built.remembered(phase, None);
        let begun = match &built.granted {
            None => self.store.begin(&task.id, request, &built.payload, built.begun).await,
            Some(granted) => {
                // Nobody signs, denies or lets it expire meanwhile.
                let _turn = self.approving.lock().await;
                let (id, payload) = (&granted.approval, &built.payload);
                self.store
                    .approving()
                    .carry_out(id, &task.id, request, payload, built.begun)
                    .await
            }
        };
        begun.map_err(|error| Refusal::store(&error, &built.asked.about))?;
        let record = self.records.begin(draft);
        Ok(Begun { built, record })
    }

    /// Waits until a request may be sent as far as records go, and signs it; meanwhile for who judges it, who gets its bytes
    /// and the word that their record stands in the log. What a power cut takes from the log after that was judged and never
    /// sent.
    pub(super) async fn record<T>(
        &self,
        begun: Begun,
        key: &SigningKey,
        judge: impl AsyncFnOnce(&Built, Written) -> Result<T, Unanswered>,
    ) -> Result<(Recorded, Result<(T, Sealed), Unanswered>), Refusal> {
        let Begun { built, record } = begun;
        let about = &built.asked.about;
        let kept = async {
            let durable = record.durable.settle().await;
            let durable = durable.map_err(|error| Refusal::log(&error, about))?;
            let leaves = caught(self.leaves(&built, &durable, key)).await;
            Ok::<_, Refusal>(leaves.unwrap_or_else(|| Err(Refusal::new(Code::Internal, about))))
        };
        // Where it is not durable nobody has to judge it.
        let judged = async { Ok(judge(&built, record.written).await) };
        match tokio::try_join!(kept, judged) {
            Ok((sealed, judged)) => {
                let both = judged.and_then(|judged| Ok((judged, sealed.map_err(Unanswered::unsent)?)));
                Ok((Recorded { built }, both))
            }
            Err(refusal) => {
                self.settle(&built.subject, Status::Refused, Some(refusal.code)).await;
                Err(refusal)
            }
        }
    }

    /// The bytes with the task's signature. Of a change it is durable, before there is one, that it may be under way.
    async fn leaves(&self, built: &Built, _durable: &Head, key: &SigningKey) -> Result<Sealed, Refusal> {
        let about = &built.asked.about;
        let Subject { task, request, .. } = &built.subject;
        if built.asked.risk != Risk::Read {
            let sent = self.store.sent(task, request).await;
            sent.map_err(|error| Refusal::store(&error, about))?;
        }
        let payload = built.payload.clone();
        let sig = sshsig::sign(key, sshsig::REQUEST, payload.as_bytes())
            .map_err(|_| Refusal::because(Code::NotSent, "it could not be signed", about))?;
        Ok(Sealed { payload, sig })
    }

    /// Records what became of a request, and hands it up. What an effect became of that nobody knows is asked for further.
    pub(super) async fn conclude(
        self: &Arc<Self>,
        task: &Task,
        recorded: Recorded,
        told: Result<Verified, Unanswered>,
    ) -> Result<Done, Refusal> {
        let built = recorded.built;
        let draft = match &told {
            Ok(verified) => built.subject.told(verified),
            Err(unanswered) => built.subject.untold(unanswered),
        };
        let reads = built.asked.risk == Risk::Read;
        let head = match self.record_end(&built.subject, draft, told.is_ok()).await {
            Ok(head) => head,
            Err(error) => {
                tracing::error!(%error, "what became of a request cannot be recorded");
                let about = &built.asked.about;
                let (known, detail) = match &told {
                    Ok(_) => (None, "the answer came, and could not be recorded"),
                    Err(unanswered) if unanswered.status == Status::Unknown || reads => {
                        (None, "no answer came, and that could not be recorded")
                    }
                    // It never began, and never will.
                    Err(unanswered) => (
                        Some(unanswered.status),
                        "nothing was done, and that could not be recorded",
                    ),
                };
                let status = known.unwrap_or(Status::Unknown);
                self.settle(&built.subject, status, Some(error.code())).await;
                if reads || known.is_some() {
                    return Err(Refusal::because(error.code(), detail, about));
                }
                self.ask_later(built.left(task));
                return Err(Refusal::because(Code::OutcomeUnknown, detail, about).to_be_looked_at());
            }
        };
        match told {
            Ok(verified) if verified.outcome.status == Status::Refused => {
                Err(verdict::refusal(verified, &built.asked.about))
            }
            Ok(verified) => Ok(verdict::done(verified, built.subject, &built.asked)),
            Err(unanswered) => {
                let unknown = unanswered.status == Status::Unknown && !reads;
                if unknown {
                    self.ask_later(built.left(task));
                }
                let mut refusal = unanswered.refusal;
                // The CA has a record of its own no; of everything else this is the record.
                if refusal.by != RefusedBy::Ca || !refusals::is_recorded_elsewhere(&refusal) {
                    refusal.record = Some(head.seq);
                }
                Err(if unknown { refusal.to_be_looked_at() } else { refusal })
            }
        }
    }

    /// Records an end, durably, and remembers it. `last`: nobody will ever know more.
    pub(super) async fn record_end(&self, subject: &Subject, draft: Draft, last: bool) -> Result<Head, audit::Error> {
        let (status, code) = (draft.status.unwrap_or(Status::Unknown), draft.code);
        let head = self.records.append(draft).await?;
        self.settle(subject, status, code).await;
        if last
            && status == Status::Unknown
            && let Err(error) = self.store.give_up(&subject.task, &subject.request).await
        {
            tracing::error!(%error, request = %subject.request, "what nobody knows will be asked for once more");
        }
        Ok(head)
    }

    /// Remembers what became of a request. The log has it; what cannot be written now the store writes before it says
    /// anything else.
    pub(super) async fn settle(&self, subject: &Subject, status: Status, code: Option<Code>) {
        if let Err(error) = self.store.settle(&subject.task, &subject.request, status, code).await {
            let Subject { task, request, .. } = subject;
            tracing::error!(%error, %task, %request, "the end of a request is not in the store yet");
        }
    }
}
