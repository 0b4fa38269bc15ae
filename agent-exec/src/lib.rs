//! agent-exec: what sshd runs on a target, whatever the relay asked for. This file is the story of a session;
//! that of a request is in `request`.
//!
//! It trusts nobody: the certificate, the request's signature, the arguments and the paths are checked here again, for
//! every request, also on a connection that has been open for minutes. Then it runs one program of the target's own
//! catalogue. Intent is durable before the effect, the result before the answer.
//!
//! It has one thread, no verbs, no configuration but `/etc/writ`, and it ends with its session.

use std::ffi::OsString;
use std::io::{Stdout, stdout};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use openssh::key::PublicKey;
use wire::lines::TargetLine;
use wire::{Code, EXEC, FORCE_COMMAND, limits};

mod action;
mod answer;
mod child;
mod descendants;
mod effect;
pub mod error;
mod history;
pub mod house;
mod input;
mod ledger;
pub mod order;
mod output;
mod part;
mod paths;
mod peer;
mod pin;
mod prepare;
mod privilege;
mod program;
mod record;
mod replay;
mod request;
pub mod sys;
mod target;
mod walls;

use error::{Fatal, Refusal};
use house::Config;
use order::{Permits, Task};
use peer::{Line, Lines, Out};
use sys::Resting;
use target::Target;

/// How long a session may last before its first certificate is accepted, whatever it sends meanwhile.
const UNCERTIFIED: Duration = Duration::from_secs(30);

/// Runs one session on standard input and output. Exit codes: 0 it ended, 1 it failed, 2 it was not started as it must be.
#[must_use]
pub fn main() -> ExitCode {
    match session() {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            eprintln!("agent-exec: failed to {fatal}");
            match fatal {
                Fatal::Arguments | Fatal::Ids(_) => ExitCode::from(2),
                // Whoever would be told is who does not read.
                Fatal::Peer(_) => ExitCode::FAILURE,
                Fatal::File { .. } | Fatal::Log(_) => {
                    let refused = TargetLine::Refused {
                        line: 0,
                        code: fatal.code(),
                    };
                    let _ = Out::new(stdout()).map(|out| say(&out, &refused));
                    ExitCode::FAILURE
                }
            }
        }
    }
}

/// The whole session.
fn session() -> Result<(), Fatal> {
    check_arguments(std::env::args_os())?;
    let config = Config::read()?;
    let started = sys::started(config.ids()).map_err(Fatal::Ids)?;
    // First to rest: until then the real uid is the actions' own, and one of them could stop this process with a lock in
    // its hands, for every session to come.
    let resting = sys::rest(started).map_err(|error| Fatal::Ids(error.to_string()))?;
    let out = Out::new(stdout()).map_err(Fatal::Peer)?;
    let mut target = Target::open(config)?;
    target.recover()?;
    descendants::adopt().map_err(|errno| Fatal::Ids(format!("no subreaper: {errno}")))?;
    let mut session = Session {
        begun: Instant::now(),
        login_key: std::env::var_os("SSH_USER_AUTH").and_then(|file| house::login_key(Path::new(&file))),
        task: None,
        permits: Permits::default(),
        resting,
    };
    let served = serve(&mut target, &mut session, &out);
    // Of an action whose supervisor was killed something may have been left: nothing is resident.
    descendants::end_strays(resting.ids().runner_uid);
    served
}

/// From the hello to the end of the relay's lines.
fn serve(target: &mut Target, session: &mut Session, out: &Out<Stdout>) -> Result<(), Fatal> {
    target.flush_strangers();
    if let Some(command) = std::env::var_os("SSH_ORIGINAL_COMMAND").filter(|command| command != EXEC) {
        target.count_stranger(&Refusal::because(Code::OriginalCommand, command.to_string_lossy()));
        let refused = TargetLine::Refused {
            line: 0,
            code: Code::OriginalCommand,
        };
        return say(out, &refused);
    }
    say(out, &target.hello()?)?;
    let stdin = std::io::stdin();
    let mut lines = Lines::new(stdin.as_fd(), limits::LINE_IN);
    for number in 1.. {
        let reply = match lines.next(session.patience()).map_err(Fatal::Peer)? {
            Line::Whole(line) => target.line(session, &line),
            Line::TooLong => Some(Err(Refusal::because(Code::LineMalformed, "longer than 256 KiB"))),
            Line::TooLate if session.task.is_none() => Some(Err(Refusal::new(Code::TimedOut))),
            Line::TooLate | Line::End => return Ok(()),
        };
        match reply {
            None => {}
            Some(Ok(answer)) => say(out, &TargetLine::Answer(answer))?,
            Some(Err(refusal)) => {
                target.count_stranger(&refusal);
                let refused = TargetLine::Refused {
                    line: number,
                    code: refusal.code,
                };
                say(out, &refused)?;
                // Where a line was not read to its end, nothing says where the next one begins.
                if lines.lost() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// sshd runs `<login shell> -c "<ForceCommand>"`. If the ForceCommand is ever lost, the text is the client's own.
fn check_arguments(mut arguments: impl Iterator<Item = OsString>) -> Result<(), Fatal> {
    // Newer kernels turn an empty argv into one empty string.
    let name = arguments.next().filter(|name| !name.is_empty());
    let rest = name.map(|_| arguments.collect::<Vec<_>>()).ok_or(Fatal::Arguments)?;
    match rest.as_slice() {
        [] => Ok(()),
        [flag, command] if flag == "-c" && command == FORCE_COMMAND => Ok(()),
        _ => Err(Fatal::Arguments),
    }
}

fn say(out: &Out<Stdout>, line: &TargetLine) -> Result<(), Fatal> {
    line.write_to(out.writer()).map_err(Fatal::Peer)
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
/// What belongs to this session and to no other.
struct Session {
    begun: Instant,
    login_key: Option<PublicKey>,
    task: Option<Task>,
    permits: Permits,
    resting: Resting,
}

impl Session {
    /// Until when the next line may begin: nothing is resident, so a session ends with its certificate.
    fn patience(&self) -> Instant {
        let Some(task) = &self.task else {
            return self.begun + UNCERTIFIED;
        };
        let ends = task.certificate().valid_before().saturating_add(limits::SKEW_S);
        Instant::now() + Duration::from_secs(ends.saturating_sub(now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &[&str]) -> bool {
        check_arguments(arguments.iter().map(OsString::from)).is_ok()
    }

    #[test]
    fn only_the_constant_or_nothing_is_accepted_as_arguments() {
        assert!(check(&["agent-exec"]));
        assert!(check(&["-agent-exec"]));
        assert!(check(&["agent-exec", "-c", FORCE_COMMAND]));
        let refused: [&[&str]; 7] = [
            &[],
            &[""],
            &["agent-exec", "-c"],
            &["agent-exec", "-c", "id"],
            &["agent-exec", "-c", FORCE_COMMAND, "x"],
            &["agent-exec", "--help"],
            &["agent-exec", FORCE_COMMAND],
        ];
        for arguments in refused {
            assert!(!check(arguments), "{arguments:?}");
        }
    }
}
