//! agent-exec: what sshd runs on a target, whatever the relay asked for. This file is its story.
//!
//! It trusts nobody: the certificate, the request's signature, the arguments and the paths are checked here again, for
//! every request, also on a connection that has been open for minutes. Then it runs one program of the target's own
//! catalogue. Intent is durable before the effect, the result before the answer.
//!
//! It has one thread, no verbs, no configuration but `/etc/writ`, and it ends with its session.

use std::ffi::OsString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use audit::{Log, Rights, Strangers, Tier, Who};
use catalogue::{FileArg, FileRule};
use openssh::key::{PublicKey, SigningKey};
use openssh::sshsig;
use wire::ids::{Digest, Fingerprint, Head};
use wire::lines::{Answer, Approval, RelayLine, TargetLine};
use wire::seal::{Sealed, seal};
use wire::{Code, EXEC, FORCE_COMMAND, Hello, Risk, VERSION, limits};

mod action;
mod answer;
mod child;
mod descendants;
pub mod error;
pub mod house;
pub mod order;
mod output;
mod part;
mod paths;
mod peer;
mod pin;
mod program;
mod record;
pub mod sys;
mod walls;

use answer::{Action, Reply};
use child::Command;
use error::{Fatal, Refusal};
use house::Config;
use order::{Knowledge, Task, Unverified, Verified};
use part::Part;
use peer::{Line, Lines};
use sys::{Ids, Resting};
use walls::Walls;

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
                Fatal::File { .. } | Fatal::Log(_) | Fatal::Peer(_) => {
                    let _ = say(&TargetLine::Refused {
                        line: 0,
                        code: fatal.code(),
                    });
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
    let mut target = Target::open(config)?;
    descendants::adopt().map_err(|errno| Fatal::Ids(format!("no subreaper: {errno}")))?;
    let mut session = Session {
        begun: Instant::now(),
        login_key: std::env::var_os("SSH_USER_AUTH").and_then(|file| house::login_key(Path::new(&file))),
        task: None,
        resting,
    };
    target.flush_strangers();
    if let Some(command) = std::env::var_os("SSH_ORIGINAL_COMMAND").filter(|command| command != EXEC) {
        target.count_stranger(&Refusal::because(Code::OriginalCommand, command.to_string_lossy()));
        return say(&TargetLine::Refused {
            line: 0,
            code: Code::OriginalCommand,
        });
    }
    say(&target.hello()?)?;
    let stdin = std::io::stdin();
    let mut lines = Lines::new(stdin.as_fd(), limits::LINE_IN);
    for number in 1.. {
        let reply = match lines.next(session.patience()).map_err(Fatal::Peer)? {
            Line::Whole(line) => target.line(&mut session, &line),
            Line::TooLong => Some(Err(Refusal::because(Code::LineMalformed, "longer than 256 KiB"))),
            Line::TooLate if session.task.is_none() => Some(Err(Refusal::new(Code::TimedOut))),
            Line::TooLate | Line::End => return Ok(()),
        };
        match reply {
            None => {}
            Some(Ok(answer)) => say(&TargetLine::Answer(answer))?,
            Some(Err(refusal)) => {
                target.count_stranger(&refusal);
                say(&TargetLine::Refused {
                    line: number,
                    code: refusal.code,
                })?;
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

fn say(line: &TargetLine) -> Result<(), Fatal> {
    peer::write(std::io::stdout(), line.to_line().as_bytes()).map_err(Fatal::Peer)
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Opens later files of the log as writ-exec.
struct AsExec(Ids);

impl Rights for AsExec {
    fn with(&self, open: &mut dyn FnMut() -> std::io::Result<std::fs::File>) -> std::io::Result<std::fs::File> {
        sys::as_exec(self.0.exec_uid, open)
    }
}

/// What belongs to this session and to no other.
struct Session {
    begun: Instant,
    login_key: Option<PublicKey>,
    task: Option<Task>,
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

/// A request that was found to be in order, down to the opened program and file, with its walls. It is not recorded yet.
#[must_use]
struct Judged<'a> {
    request: &'a Verified,
    action: Action,
    command: Command,
}

/// A request whose intent is durable in the log: the only thing that can be run.
#[must_use]
struct Intended<'a>(Judged<'a>);

/// The target: its configuration and what it opened before it went to rest.
struct Target {
    config: Config,
    key: SigningKey,
    fingerprint: Fingerprint,
    boot_id: String,
    log: Log,
    strangers: Strangers,
    known: action::Known,
}

impl Target {
    /// Opens everything that only writ-exec may open, each file with writ-exec's rights for that moment.
    fn open(config: Config) -> Result<Self, Fatal> {
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
            known: action::Known::default(),
            config,
            key,
        })
    }

    /// The first line: who this is, what it has, what time it thinks it is.
    fn hello(&self) -> Result<TargetLine, Fatal> {
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

    /// One line: nothing to say, an answer, or a refusal of the line itself.
    fn line(&mut self, session: &mut Session, line: &[u8]) -> Option<Result<Answer, Refusal>> {
        match RelayLine::parse(line) {
            Ok(RelayLine::Certificate(text)) => self.certificate(session, &text).err().map(Err),
            Ok(RelayLine::Request(sealed, approval)) => {
                let reply = self.request(session, &sealed, approval.as_ref());
                Some(reply.and_then(|reply| self.seal(reply)))
            }
            // Only changes are stored, and this target runs none yet; nothing revokes in-band yet.
            Ok(RelayLine::Outcome(_) | RelayLine::Krl(_)) => Some(Err(Refusal::new(Code::LineUnsupported))),
            Err(error) => Some(Err(Refusal::because(Code::LineMalformed, error.to_string()))),
        }
    }

    fn certificate(&self, session: &mut Session, text: &str) -> Result<(), Refusal> {
        let cas = house::cas().map_err(|fatal| Refusal::because(fatal.code(), fatal.to_string()))?;
        let task = order::accept(text, &self.knowledge(session, &cas), session.task.as_ref())?;
        session.task = Some(task);
        Ok(())
    }

    /// The story of a request: verify, then carry out; whatever stops it is recorded and answered. A peer that proved
    /// nothing gets no signature of this target: its line is refused, like one that cannot be read.
    fn request(&mut self, session: &Session, sealed: &Sealed, approval: Option<&Approval>) -> Result<Reply, Refusal> {
        let sha256 = Digest::of(sealed.payload.as_bytes());
        // A ca.pub that cannot be used trusts nobody.
        let (cas, fault) = match house::cas() {
            Ok(cas) => (cas, None),
            Err(fatal) => (Vec::new(), Some(fatal)),
        };
        let (request, refusal, draft) =
            match order::verify(sealed, session.task.as_ref(), &self.knowledge(session, &cas)) {
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
                Ok(request) => match self.carry_out(session, &request, approval) {
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

    /// Validate, judge, record the intent, run, record the result.
    fn carry_out(
        &mut self,
        session: &Session,
        request: &Verified,
        approval: Option<&Approval>,
    ) -> Result<Reply, Refusal> {
        let judged = self.judge(request, approval)?;
        let intended = self.intend(judged)?;
        let (reply, risk) = run(session.resting, intended);
        Ok(self.record_result(request, risk, reply))
    }

    /// Everything that the target's own catalogue, clock and operator say to it.
    fn judge<'a>(&mut self, request: &'a Verified, approval: Option<&Approval>) -> Result<Judged<'a>, Refusal> {
        let payload = request.payload();
        // Before the catalogue is opened: a halted target looks at nothing.
        if house::halted() {
            return Err(Refusal::because(Code::Halted, "an operator halted this target"));
        }
        order::timely(payload, now())?;
        let entry = self.known.find(Path::new(house::ACTIONS), &payload.action)?;
        let manifest = entry.manifest();
        order::permitted(request, manifest.risk(), approval)?;
        let args = action::check_args(entry, &payload.args)?;
        let resolved = action::resolve(entry, &args, &self.config.probe)?;
        let (stdin, part) = match resolved.file {
            Some((file, rule)) => open_file(file, rule, args.offset())?,
            None => (no_input()?, None),
        };
        let invalid = |what: String| Refusal::because(Code::ManifestInvalid, what);
        let program = program::open(resolved.program()).map_err(invalid)?;
        let walls = Walls::build(manifest.profile(), program.as_fd())
            .map_err(|what| Refusal::because(Code::WallUnavailable, what))?;
        let action = Action {
            manifest: entry.digest().clone(),
            risk: manifest.risk(),
            encoding: action::encoding(&args),
            part,
            walls: walls.names().to_vec(),
        };
        let (argv, timeout, limits) = (resolved.argv, resolved.timeout, manifest.limits());
        Ok(Judged {
            request,
            action,
            command: Command {
                argv,
                program,
                stdin,
                timeout,
                limits,
                walls,
            },
        })
    }

    /// Makes the intent durable, and space for the result with it.
    fn intend<'a>(&mut self, judged: Judged<'a>) -> Result<Intended<'a>, Refusal> {
        let draft = record::intent(judged.request, &judged.action, &judged.command.argv);
        self.log.intend(&draft)?;
        Ok(Intended(judged))
    }

    /// Makes the result durable; where that fails, nothing is claimed about it.
    fn record_result(&mut self, request: &Verified, risk: Risk, mut reply: Reply) -> Reply {
        match self.log.append(&record::result(request, risk, &reply.outcome)) {
            Ok(head) => {
                reply.outcome.head = Some(head);
                reply
            }
            Err(error) => answer::unrecorded(request, error.to_string(), now()),
        }
    }

    /// Records a refusal. Where the log cannot be written that is the reason that is given: an unrecorded refusal of
    /// another kind would be one that nobody finds.
    fn record_refusal(&mut self, draft: &audit::Draft, refusal: Refusal) -> (Refusal, Option<Head>) {
        match self.log.append(draft) {
            Ok(head) => (refusal, Some(head)),
            Err(error) => (Refusal::from(error), None),
        }
    }

    /// Counts a peer that proved nothing. A count that cannot be written changes nothing for it: it is refused anyway.
    fn count_stranger(&mut self, refusal: &Refusal) {
        if let Err(error) = self
            .strangers
            .note(&mut self.log, refusal.code, &refusal.message, now())
        {
            eprintln!("agent-exec: failed to count a refusal: {error}");
        }
    }

    fn flush_strangers(&mut self) {
        if let Err(error) = self.strangers.flush_due(&mut self.log, now()) {
            eprintln!("agent-exec: failed to record the count of refusals: {error}");
        }
    }

    fn knowledge<'a>(&'a self, session: &'a Session, cas: &'a [PublicKey]) -> Knowledge<'a> {
        Knowledge {
            target: &self.config.target,
            key: &self.fingerprint,
            cas,
            login_key: session.login_key.as_ref(),
            max_lifetime_s: self.config.task_max_lifetime_s,
            now: now(),
        }
    }

    fn seal(&self, reply: Reply) -> Result<Answer, Refusal> {
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

/// Opens the file that a request names, beneath the folders that its rule allows; approved by its content, a copy of it.
/// Where the output is to be the file's bytes from an offset on, what stands before it is read here.
fn open_file(file: FileArg<'_>, rule: &FileRule, offset: Option<u64>) -> Result<(OwnedFd, Option<Part>), Refusal> {
    let opened = paths::open(file.path, rule.within()).and_then(|opened| match file.sha256 {
        Some(sha256) => pin::pin(opened, sha256),
        None => Ok(opened),
    });
    let opened = opened.map_err(|error| Refusal::because(error.code, format!("{}: {}", file.name, error.message)))?;
    let part = offset.map(|start| Part::of(opened.try_clone()?, start)).transpose();
    let part = part
        .map_err(|error| Refusal::because(Code::PathRefused, format!("{}: failed to read it: {error}", file.name)))?;
    Ok((opened.into(), part))
}

/// The standard input of a program that is given none.
fn no_input() -> Result<OwnedFd, Refusal> {
    program::no_input().map_err(|error| Refusal::because(Code::Internal, format!("/dev/null: {error}")))
}

/// Runs what was intended. Nothing else in this crate starts a program.
fn run(resting: Resting, intended: Intended<'_>) -> (Reply, Risk) {
    let Intended(Judged {
        request,
        action,
        command,
    }) = intended;
    let reply = match child::run(resting, command, std::io::stdout()) {
        Ok(ran) => answer::ran(request, &action, ran, now()),
        Err(error) => answer::no_program(request, &action, &error, now()),
    };
    (reply, action.risk)
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
