//! Codes: the stable name of every refusal and failure. Each has exactly one.
//!
//! A Code is for programs and for searching; the message beside it is for people. Codes are never renamed or reused.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whose fault it is, which says who has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Whoever made the call.
    Caller,
    /// What the owners of policy decided.
    Policy,
    /// The other side of a connection.
    Peer,
    /// A machine, its configuration or its network.
    Machine,
    /// The program that an action ran.
    Program,
}

/// Whether the same call can succeed later without anybody changing anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It can: wait a little, then ask again.
    Later,
    /// It cannot.
    Never,
}

/// Declares the Codes once: variant, word of the wire, retry, fault, and the text that can follow "failed to".
macro_rules! codes {
    ($($variant:ident $word:literal $retry:ident $fault:ident $text:literal,)*) => {
        /// A stable error code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Code {
            $(
                #[doc = concat!("Failed to ", $text, ".")]
                #[serde(rename = $word)]
                $variant,
            )*
        }

        impl Code {
            /// Every Code, in the order of docs/spec/codes.md.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The word of the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// A lower-case fragment that can follow "failed to".
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Whether asking again can help.
            #[must_use]
            pub fn retry(self) -> Retry {
                match self { $(Self::$variant => Retry::$retry,)* }
            }

            /// Whose fault it is.
            #[must_use]
            pub fn fault(self) -> Fault {
                match self { $(Self::$variant => Fault::$fault,)* }
            }
        }
    };
}

codes! {
    // The caller.
    ArgumentsInvalid "arguments_invalid" Never Caller "accept the arguments",
    ReasonRequired "reason_required" Never Caller "open a task without a reason",
    UnknownTarget "unknown_target" Never Caller "find a target of this name",
    UnknownAction "unknown_action" Never Caller "find an action of this name",
    UnknownTool "unknown_tool" Never Caller "find a tool of this name",
    UnknownTask "unknown_task" Never Caller "find an open task of this id",
    UnknownApproval "unknown_approval" Never Caller "find an approval of this id that is still asked for",
    TaskEnded "task_ended" Never Caller "use a task that has ended",
    PersonUnmapped "person_unmapped" Never Caller "find out which person this client acts for",
    RateLimited "rate_limited" Later Caller "take more calls now",
    Capacity "capacity" Later Caller "take more work now",
    Stopping "stopping" Later Machine "begin anything while it is being stopped",
    MessageTooLong "message_too_long" Never Caller "read a message of that size",
    // The CA and its policy.
    PolicyDenied "policy_denied" Never Policy "find a policy that allows it",
    PolicyError "policy_error" Never Policy "evaluate the policy",
    ReadOnly "read_only" Never Policy "change anything: the relay only reads",
    PersonNotOfThisRelay "person_not_of_this_relay" Never Policy "let this relay speak for this person",
    TargetNotOfThisRelay "target_not_of_this_relay" Never Policy "let this relay reach this target",
    RelayUnknown "relay_unknown" Never Policy "recognise the relay",
    TaskMismatch "task_mismatch" Never Policy "accept other facts for a task that is open",
    KeyMismatch "key_mismatch" Never Policy "accept another key than the session's",
    CaUnavailable "ca_unavailable" Later Machine "reach the CA",
    // The connection.
    Unreachable "unreachable" Later Machine "reach the target",
    HostKeyChanged "host_key_changed" Never Peer "recognise the target's host key",
    HostKeyUnknown "host_key_unknown" Never Peer "find a pinned host key or host CA for the target",
    LoginRefused "login_refused" Never Peer "log in to the target",
    ClockDifference "clock_difference" Never Machine "agree with the target about the time",
    SessionLost "session_lost" Later Machine "keep the session until the answer",
    NotSent "not_sent" Later Machine "send the request",
    TimedOut "timed_out" Later Machine "get an answer in time",
    ProtocolError "protocol_error" Never Peer "understand the other side",
    VersionUnsupported "version_unsupported" Never Peer "find a version that both sides speak",
    ReceiptInvalid "receipt_invalid" Never Peer "verify the target's signature",
    OutcomeUnknown "outcome_unknown" Never Machine "find out what became of the request",
    // The line, the certificate, the grant.
    LineMalformed "line_malformed" Never Peer "read the line",
    OriginalCommand "original_command" Never Peer "run a command other than the protocol's",
    IdsUnexpected "ids_unexpected" Never Machine "start with the ids of the installation",
    AuthInfoMissing "auth_info_missing" Never Machine "find sshd's word on how the session logged in",
    CertificateMissing "certificate_missing" Never Peer "find a certificate in this session",
    CertificateMalformed "certificate_malformed" Never Peer "read the certificate",
    CertificateUntrusted "certificate_untrusted" Never Peer "trust the certificate's CA",
    CertificateType "certificate_type" Never Peer "accept this type of certificate",
    CertificatePrincipals "certificate_principals" Never Peer "accept the certificate's principals",
    CertificateLifetime "certificate_lifetime" Never Peer "accept the certificate's lifetime",
    CertificateExpired "certificate_expired" Later Peer "use a certificate that has ended",
    CertificateNotYetValid "certificate_not_yet_valid" Later Peer "use a certificate that is not valid yet",
    CertificateOptions "certificate_options" Never Peer "accept the certificate's options",
    CertificateRevoked "certificate_revoked" Never Peer "use a certificate that was revoked",
    GrantMissing "grant_missing" Never Peer "find a grant in the certificate",
    GrantMalformed "grant_malformed" Never Peer "read the grant",
    GrantMismatch "grant_mismatch" Never Peer "match the grant with its certificate",
    // The request.
    PayloadMalformed "payload_malformed" Never Peer "read the payload",
    SignatureInvalid "signature_invalid" Never Peer "verify the request's signature",
    WrongTask "wrong_task" Never Peer "match the request with the session's task",
    WrongTarget "wrong_target" Never Peer "recognise itself in the request",
    RequesterMismatch "requester_mismatch" Never Peer "match the requester with the grant",
    ActionNotGranted "action_not_granted" Never Policy "find the action in the grant",
    RequestExpired "request_expired" Later Caller "run a request that has expired",
    ExpiresTooFar "expires_too_far" Never Peer "accept a request that is valid for so long",
    PathRefused "path_refused" Never Caller "open the path as the action's rules want it",
    PathNotFound "path_not_found" Never Caller "find the file",
    FileChanged "file_changed" Never Caller "find the file as it was asked for",
    ModeUnsupported "mode_unsupported" Never Caller "do that in this mode",
    ActionCertificateMissing "action_certificate_missing" Never Peer "find an action certificate for the request",
    ManifestChanged "manifest_changed" Never Machine "run an action whose manifest has changed",
    LineUnsupported "line_unsupported" Never Peer "serve this kind of line",
    ApprovalRequired "approval_required" Later Policy "do it before people have approved it",
    ApprovalDenied "approval_denied" Never Policy "do what a person has denied",
    ApprovalExpired "approval_expired" Later Policy "get the approvals in time",
    ApprovalMissing "approval_missing" Never Policy "find the approvals that the action needs",
    ApprovalInvalid "approval_invalid" Never Policy "find this request in what was approved, or verify a signature under it",
    ApproverUnknown "approver_unknown" Never Policy "find who approved among those who may",
    ApproverExpired "approver_expired" Never Policy "accept an approver's key or certificate outside of its time",
    ApproverIsRequester "approver_is_requester" Never Policy "count the approval of the person who asks",
    KrlStale "krl_stale" Never Machine "find a revocation list as new as the certificate demands",
    UnknownRequest "unknown_request" Never Caller "find a request of this id in the task",
    RequestIdReused "request_id_reused" Never Caller "accept other bytes under a request id that was used",
    InProgress "in_progress" Later Caller "answer while the request is still running",
    Halted "halted" Never Policy "run anything while the target is halted",
    // This machine and the program.
    ConfigInvalid "config_invalid" Never Machine "use its configuration",
    ManifestInvalid "manifest_invalid" Never Machine "use the action's manifest",
    LogUnavailable "log_unavailable" Later Machine "write the record",
    StoreUnavailable "store_unavailable" Later Machine "use its store",
    WallUnavailable "wall_unavailable" Never Machine "put up the walls around the program",
    ExecFailed "exec_failed" Never Machine "start the program",
    ExitNonzero "exit_nonzero" Never Program "succeed: the program's exit code is not 0",
    Signalled "signalled" Never Program "finish: a signal ended the program",
    VerifyFailed "verify_failed" Never Program "show its effect afterwards",
    DeadlineExceeded "deadline_exceeded" Later Program "finish within its time limit",
    Internal "internal" Never Machine "do what it should",
}

impl Code {
    /// Whether the same call can succeed later.
    #[must_use]
    pub fn retryable(self) -> bool {
        self.retry() == Retry::Later
    }
}

impl fmt::Display for Code {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl std::str::FromStr for Code {
    type Err = UnknownCode;
    fn from_str(word: &str) -> Result<Self, UnknownCode> {
        Self::ALL
            .iter()
            .copied()
            .find(|code| code.as_str() == word)
            .ok_or(UnknownCode)
    }
}

/// A word that is no Code of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("recognise the code")]
pub struct UnknownCode;

#[cfg(test)]
mod tests {
    use super::*;

    /// REQ-CODE-1
    #[test]
    fn every_code_has_one_word_and_comes_back_from_it() {
        for code in Code::ALL {
            assert_eq!(code.as_str().parse(), Ok(*code));
            assert_eq!(serde_json::to_string(code).unwrap(), format!("\"{code}\""));
            assert!(code.text().starts_with(|c: char| c.is_ascii_lowercase()), "{code}");
        }
        let words: std::collections::BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(words.len(), Code::ALL.len());
    }
}
