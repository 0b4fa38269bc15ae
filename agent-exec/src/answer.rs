//! Outcomes: what is said of a request, whether it ran or not.

use openssh::certificate::UserCertificate;
use wire::ids::{Digest, Head, Serial};
use wire::{Code, Encoding, Outcome, Resources, Risk, Status, VERSION};

use crate::child::{Cut, Ran};
use crate::error::Refusal;
use crate::order::{self, Approved, Permit, Verified};
use crate::part::Part;
use crate::sys::SpawnError;

/// A message as an Outcome and a record have it: one line of printable ASCII, whatever it was made of.
#[must_use]
pub(crate) fn said(message: &str) -> String {
    wire::text::escaped(message, wire::limits::MESSAGE)
}

/// What an Outcome says of the action that it is about.
#[derive(Debug)]
pub(crate) struct Action {
    /// SHA-256 of the target's own manifest.
    pub(crate) manifest: Digest,
    /// The risk that it declares.
    pub(crate) risk: Risk,
    /// How the caller wants the output, where it may choose.
    pub(crate) encoding: Option<Encoding>,
    /// Where the output stands in a file, where it is a part of one.
    pub(crate) part: Option<Part>,
    /// The walls that stand around the program.
    pub(crate) walls: Vec<String>,
    /// The action certificate, where it stands under one.
    pub(crate) permit: Option<Permit>,
    /// Who approved it.
    pub(crate) approved: Approved,
}

impl Action {
    /// The certificate that it stands under.
    pub(crate) fn certificate<'a>(&'a self, request: &'a Verified) -> &'a UserCertificate {
        let of_the_task = request.task().certificate();
        self.permit.as_ref().map_or(of_the_task, Permit::certificate)
    }

    /// Whether its request is claimed.
    pub(crate) fn works_once(&self) -> bool {
        order::works_once(self.risk, !self.approved.by().is_empty())
    }

    /// Who approved it, as a record has that.
    pub(crate) fn approvals(&self) -> Option<Vec<audit::Approval>> {
        Some(self.approved.by().to_vec()).filter(|by| !by.is_empty())
    }

    fn serial(&self, request: &Verified) -> Serial {
        Serial::of(self.certificate(request).serial())
    }
}

/// An Outcome and the texts that stand beside it.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Not yet sealed.
    pub outcome: Outcome,
    /// Standard output.
    pub output: Option<String>,
    /// Standard error.
    pub stderr: Option<String>,
}

/// The Outcome of a request that did not run. `request` is absent when nothing about it could be verified.
#[must_use]
pub(crate) fn refused(
    sha256: Digest,
    request: Option<&Verified>,
    refusal: Refusal,
    head: Option<Head>,
    now: u64,
) -> Reply {
    let outcome = Outcome {
        status: Status::Refused,
        code: Some(refusal.code),
        message: Some(said(&refusal.message)),
        serial: request.map(Verified::serial),
        head,
        ..empty(sha256, now)
    };
    Reply {
        outcome,
        output: None,
        stderr: None,
    }
}

/// The Outcome of a program that ran. Its head is filled in when the result is in the log.
#[must_use]
pub(crate) fn ran(request: &Verified, action: &Action, ran: Ran, now: u64) -> Reply {
    let (status, code, message) = judge(&ran);
    let left = (ran.survivors > 0).then(|| format!("{} of its processes could not be ended", ran.survivors));
    let message = message
        .into_iter()
        .chain(left)
        .reduce(|first, second| format!("{first}; {second}"));
    let (output, output_stream) = ran.stdout.finish(action.encoding, action.part.as_ref());
    let (stderr, stderr_stream) = ran.stderr.finish(Some(Encoding::Text), None);
    let outcome = Outcome {
        status,
        code,
        message: message.as_deref().map(said),
        exit_code: ran.ended.how.ok(),
        signal: ran.ended.how.err(),
        output: Some(output_stream),
        stderr: Some(stderr_stream),
        resources: Some(Resources {
            cpu_user_ms: ran.ended.cpu_user_ms,
            cpu_system_ms: ran.ended.cpu_system_ms,
            max_rss_kib: ran.ended.max_rss_kib,
        }),
        duration_ms: u64::try_from(ran.duration.as_millis()).unwrap_or(u64::MAX),
        walls: action.walls.clone(),
        manifest_differs: action.manifest != request.payload().manifest,
        manifest: Some(action.manifest.clone()),
        serial: Some(action.serial(request)),
        ..empty(request.sha256().clone(), now)
    };
    Reply {
        outcome,
        output: Some(output),
        stderr: Some(stderr),
    }
}

/// The Outcome of a program that did what it could, after which its effect was not to be seen.
#[must_use]
pub(crate) fn without_effect(reply: Reply, what: &str, now: u64) -> Reply {
    let left = reply.outcome.message.as_deref().map(|left| format!("; {left}"));
    let message = format!("it ended with exit code 0, and {what}{}", left.unwrap_or_default());
    Reply {
        outcome: Outcome {
            status: Status::Failed,
            code: Some(Code::VerifyFailed),
            message: Some(said(&message)),
            now,
            ..reply.outcome
        },
        ..reply
    }
}

/// The Outcome where there is nothing to tell of a program: none ran, or one was lost.
#[must_use]
pub(crate) fn no_program(request: &Verified, action: &Action, error: &SpawnError, now: u64) -> Reply {
    let (status, code, message) = match error {
        SpawnError::NotStarted(error) => (
            Status::Failed,
            Code::ExecFailed,
            not_found(error).map_or_else(|| error.to_string(), str::to_owned),
        ),
        SpawnError::Lost(error) => (
            Status::Unknown,
            Code::OutcomeUnknown,
            format!("it was lost while it ran: {error}"),
        ),
    };
    let outcome = Outcome {
        status,
        code: Some(code),
        message: Some(said(&message)),
        manifest_differs: action.manifest != request.payload().manifest,
        manifest: Some(action.manifest.clone()),
        serial: Some(action.serial(request)),
        ..empty(request.sha256().clone(), now)
    };
    Reply {
        outcome,
        output: None,
        stderr: None,
    }
}

/// The program is open, so what the kernel did not find is what the file names: the interpreter of a script, which has no
/// path to the script, or a loader.
fn not_found(error: &std::io::Error) -> Option<&'static str> {
    (error.kind() == std::io::ErrorKind::NotFound)
        .then_some("it is a script, or its loader is missing: name a program; scripts are not run")
}

/// What is answered when a result could not be recorded: that it ran is certain, and nothing else is said of it.
#[must_use]
pub(crate) fn unrecorded(request: &Verified, action: &Action, message: &str, now: u64) -> Reply {
    let outcome = Outcome {
        status: Status::Unknown,
        code: Some(Code::OutcomeUnknown),
        message: Some(said(message)),
        serial: Some(action.serial(request)),
        ..empty(request.sha256().clone(), now)
    };
    Reply {
        outcome,
        output: None,
        stderr: None,
    }
}

fn judge(ran: &Ran) -> (Status, Option<Code>, Option<String>) {
    let failed = |status, code, message: String| (status, Some(code), Some(message));
    match (ran.cut, ran.ended.how) {
        (Some(Cut::Deadline), _) => failed(
            Status::TimedOut,
            Code::DeadlineExceeded,
            format!("ended after {} ms", ran.duration.as_millis()),
        ),
        (Some(Cut::PeerGone), _) => failed(
            Status::Failed,
            Code::SessionLost,
            "ended: nobody waits for it".to_owned(),
        ),
        (None, Ok(0)) => (Status::Ok, None, None),
        (None, Ok(code)) => failed(Status::Failed, Code::ExitNonzero, format!("exit code {code}")),
        (None, Err(signal)) => failed(Status::Failed, Code::Signalled, format!("signal {signal}")),
    }
}

fn empty(request_sha256: Digest, now: u64) -> Outcome {
    Outcome {
        v: VERSION,
        request_sha256,
        status: Status::Unknown,
        code: None,
        message: None,
        exit_code: None,
        signal: None,
        output: None,
        stderr: None,
        resources: None,
        duration_ms: 0,
        replayed: false,
        manifest_differs: false,
        walls: Vec::new(),
        manifest: None,
        serial: None,
        head: None,
        now,
    }
}
