//! Outcomes: what is said of a request, whether it ran or not.

use wire::ids::{Digest, Head};
use wire::{Code, Encoding, Outcome, Resources, Status, VERSION};

use crate::child::{Cut, Ran};
use crate::error::Refusal;
use crate::order::Verified;

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
        message: Some(refusal.message),
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
pub(crate) fn ran(request: &Verified, manifest: Digest, ran: Ran, wanted: Option<Encoding>, now: u64) -> Reply {
    let (status, code, message) = judge(&ran);
    let (output, output_stream) = ran.stdout.finish(wanted);
    let (stderr, stderr_stream) = ran.stderr.finish(Some(Encoding::Text));
    let outcome = Outcome {
        status,
        code,
        message,
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
        manifest_differs: manifest != request.payload().manifest,
        manifest: Some(manifest),
        serial: Some(request.serial()),
        ..empty(request.sha256().clone(), now)
    };
    Reply {
        outcome,
        output: Some(output),
        stderr: Some(stderr),
    }
}

/// The Outcome of a program that could not be started.
#[must_use]
pub(crate) fn not_started(request: &Verified, manifest: Digest, error: &std::io::Error, now: u64) -> Reply {
    let outcome = Outcome {
        status: Status::Failed,
        code: Some(Code::ExecFailed),
        message: Some(not_found(error).map_or_else(|| error.to_string(), str::to_owned)),
        manifest_differs: manifest != request.payload().manifest,
        manifest: Some(manifest),
        serial: Some(request.serial()),
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
pub(crate) fn unrecorded(request: &Verified, message: String, now: u64) -> Reply {
    let outcome = Outcome {
        status: Status::Unknown,
        code: Some(Code::OutcomeUnknown),
        message: Some(wire::statement::escaped(&message, 400)),
        serial: Some(request.serial()),
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
