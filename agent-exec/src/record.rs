//! What agent-exec writes into its log about a request: one function for each moment.

use audit::{Cert, Decision, Draft, Event, Output, Witness};
use openssh::certificate::UserCertificate;
use wire::ids::{Digest, Fingerprint};
use wire::text::escaped;
use wire::{Code, Outcome, Payload, Status, Stream};

use crate::answer::{Action, said};
use crate::error::Refusal;
use crate::order::{Task, Verified};

/// Longest text of one argument in a record; the digest of the payload covers the whole.
const MAX_ARG: usize = 512;

/// Everything that a verified request says of itself.
fn about(event: Event, request: &Verified, certificate: &UserCertificate) -> Draft {
    let payload = request.payload();
    let mut draft = of_payload(event, payload, request.sha256());
    draft.cert = Some(cert(certificate));
    draft.witness = Some(Witness {
        relay: Some(payload.witness.relay.clone()),
        ca: Some(request.task().grant().witness.ca.clone()),
        target: request.task().grant().witness.target.clone(),
    });
    draft
}

fn of_payload(event: Event, payload: &Payload, sha256: &Digest) -> Draft {
    Draft {
        task_id: Some(payload.task_id.clone()),
        request_id: Some(payload.request_id.clone()),
        request_sha256: Some(sha256.clone()),
        requester: Some(payload.requester.clone()),
        reason: Some(payload.reason.clone()),
        target: Some(payload.target.clone()),
        action: Some(payload.action.clone()),
        mode: Some(payload.mode),
        ..Draft::new(event)
    }
}

fn cert(certificate: &UserCertificate) -> Cert {
    Cert {
        serial: wire::ids::Serial::of(certificate.serial()),
        key_id: certificate.key_id().to_owned(),
        ca: Fingerprint::of(certificate.ca()),
        key: Some(Fingerprint::of(certificate.key())),
        valid_before: Some(certificate.valid_before()),
    }
}

/// The intent: what is about to be run, and what will be looked at afterwards.
pub(crate) fn intent(request: &Verified, action: &Action, argv: &[String], look: Option<String>) -> Draft {
    Draft {
        risk: Some(action.risk),
        manifest: Some(action.manifest.clone()),
        walls: Some(action.walls.clone()),
        argv: Some(shown(argv)),
        message: look.as_deref().map(said),
        decision: Some(Decision::Allow),
        approvals: action.approvals(),
        ..about(Event::Intent, request, action.certificate(request))
    }
}

/// A command line for a record: without secrets, escaped, and each element cut.
fn shown(argv: &[String]) -> Vec<String> {
    let (argv, _) = redact::redact_argv(argv.iter().map(String::as_str));
    argv.iter().map(|element| escaped(element, MAX_ARG)).collect()
}

/// The result: what became of it.
pub(crate) fn result(request: &Verified, action: &Action, outcome: &Outcome) -> Draft {
    let output = |stream: &Stream| Output {
        bytes: stream.bytes,
        sha256: stream.sha256.clone(),
    };
    Draft {
        risk: Some(action.risk),
        manifest: outcome.manifest.clone(),
        status: Some(outcome.status),
        code: outcome.code,
        message: outcome.message.clone(),
        exit_code: outcome.exit_code,
        signal: outcome.signal,
        duration_ms: Some(outcome.duration_ms),
        output: outcome.output.as_ref().map(output),
        stderr: outcome.stderr.as_ref().map(output),
        resources: outcome.resources,
        walls: Some(outcome.walls.clone()),
        approvals: action.approvals(),
        ..about(Event::Result, request, action.certificate(request))
    }
}

/// The result of a request whose process is gone without one: nobody can say more. Written by whoever finds it.
pub(crate) fn never_ended(intent: &Draft) -> Draft {
    Draft {
        event: Event::Result,
        argv: None,
        decision: None,
        status: Some(Status::Unknown),
        code: Some(Code::OutcomeUnknown),
        message: Some("agent-exec was gone before it could say what became of it".to_owned()),
        ..intent.clone()
    }
}

/// A refusal of a request that was verified.
pub(crate) fn refused(request: &Verified, refusal: &Refusal) -> Draft {
    deny(about(Event::Refused, request, request.task().certificate()), refusal)
}

/// A refusal of bytes that the session's key signed, and that did not become a verified request.
pub(crate) fn refused_bytes(task: &Task, bytes: &[u8], refusal: &Refusal) -> Draft {
    let grant = task.grant();
    let draft = Draft {
        task_id: Some(grant.task_id.clone()),
        request_sha256: Some(Digest::of(bytes)),
        requester: Some(grant.requester.clone()),
        target: Some(grant.target.clone()),
        cert: Some(cert(task.certificate())),
        ..Draft::new(Event::Refused)
    };
    deny(draft, refusal)
}

fn deny(draft: Draft, refusal: &Refusal) -> Draft {
    Draft {
        decision: Some(Decision::Deny),
        status: Some(Status::Refused),
        code: Some(refusal.code),
        message: Some(said(&refusal.message)),
        ..draft
    }
}
