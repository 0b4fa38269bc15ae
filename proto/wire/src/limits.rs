//! The limits of the wire. Each is checked before anything is parsed or done.

/// Longest line from relay to target, in bytes without the newline.
pub const LINE_IN: usize = 256 * 1024;
/// Longest line from target to relay, in bytes without the newline.
pub const LINE_OUT: usize = 1024 * 1024;
/// Longest payload, in bytes.
pub const PAYLOAD: usize = 64 * 1024;
/// Longest grant, in bytes.
pub const GRANT: usize = 4 * 1024;
/// Longest signed Outcome, without the output that stands beside it, in bytes.
pub const OUTCOME: usize = 64 * 1024;
/// Longest signed hello, in bytes: room for a few hundred actions.
pub const HELLO: usize = 128 * 1024;
/// Longest message of an Outcome, in bytes.
pub const MESSAGE: usize = 500;
/// Longest line of an enrolment in either direction, in bytes.
pub const ENROLMENT: usize = 16 * 1024;
/// Most signatures in one approval.
pub const APPROVAL_SIGS: usize = 8;
/// Most targets that one approval can cover.
pub const APPROVAL_ON: usize = 256;
/// Deepest nesting of objects and arrays.
pub const DEPTH: usize = 8;
/// Largest magnitude of an integer, exclusive: beyond it, readers in other languages round.
pub const INTEGER: i64 = 1 << 53;

/// Tolerance for clocks that differ, towards both ends of any validity, in seconds. Certificates are back-dated by it.
pub const SKEW_S: u64 = 30;
/// Longest life of a task certificate after its issue, in seconds.
pub const TASK_CERTIFICATE_MAX_S: u64 = 15 * 60;
/// Life of a task certificate where nobody configured another, in seconds.
pub const TASK_CERTIFICATE_DEFAULT_S: u64 = 5 * 60;
/// Longest life of an action certificate after its issue, in seconds. It is back-dated as well, so a target measures up to
/// [`SKEW_S`] more.
pub const ACTION_CERTIFICATE_MAX_S: u64 = 60;
/// Longest life of a task, in seconds.
pub const TASK_MAX_S: u64 = 8 * 60 * 60;
/// Furthest that a payload's `expires` may lie ahead, in seconds.
pub const REQUEST_MAX_S: u64 = 60;
/// Furthest that `expires` may lie ahead where approvals are needed and the manifest sets no `approval_window_s`, in seconds:
/// there where policy alone wants them. People sign within it.
pub const APPROVAL_WINDOW_DEFAULT_S: u64 = 10 * 60;
/// How far ahead `expires` of a request may lie, in seconds. People are waited for where approvals are needed: as long as the
/// manifest's `approval_window_s` says, or [`APPROVAL_WINDOW_DEFAULT_S`]. Nobody else is.
#[must_use]
pub const fn ahead_s(approvals: u8, window_s: Option<u64>) -> u64 {
    match (approvals, window_s) {
        (0, _) => REQUEST_MAX_S,
        (_, Some(window_s)) => window_s,
        (_, None) => APPROVAL_WINDOW_DEFAULT_S,
    }
}
/// Most action names in a grant.
pub const GRANT_ACTIONS: usize = 128;
