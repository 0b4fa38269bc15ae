//! agent-exec: what sshd runs on a target, whatever the relay asked for. This file is its story.
//!
//! It trusts nobody: the certificate, the request's signature, the arguments and the paths are checked here again, for
//! every request, also on a connection that has been open for minutes. Then it runs one program of the target's own
//! catalogue. Intent is durable before the effect, the result before the answer.
//!
//! It has one thread, no verbs, no configuration but `/etc/writ`, and it ends with its session.

use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use audit::{Log, Rights, Strangers, Tier, Who};
use catalogue::{Manifest, Privilege};
use openssh::key::{PublicKey, SigningKey};
use openssh::sshsig;
use wire::ids::{Digest, Fingerprint, Head, RequestId, TaskId};
use wire::lines::{Answer, Approval, RelayLine, TargetLine};
use wire::seal::{Sealed, seal};
use wire::{Code, EXEC, FORCE_COMMAND, Hello, Risk, VERSION, limits};

mod action;
mod answer;
mod child;
mod descendants;
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
mod program;
mod record;
mod replay;
pub mod sys;
mod walls;

use answer::{Action, Reply};
use child::{Alone, Command};
use error::{Fatal, Refusal};
use history::Told;
use house::Config;
use ledger::{Claim, Found, Kept, Key, Ledger};
use order::{Knowledge, Own, Permit, Permits, Task, Unverified, Verified};
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
    target.recover()?;
    descendants::adopt().map_err(|errno| Fatal::Ids(format!("no subreaper: {errno}")))?;
    let mut session = Session {
        begun: Instant::now(),
        login_key: std::env::var_os("SSH_USER_AUTH").and_then(|file| house::login_key(Path::new(&file))),
        task: None,
        permits: Permits::default(),
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
    line.write_to(peer::Writer::buffered(std::io::stdout()))
        .map_err(Fatal::Peer)
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

/// A request that was found to be in order, down to the opened program and file, with its walls. It is not recorded yet.
#[must_use]
struct Judged<'a> {
    request: &'a Verified,
    action: Action,
    command: Command,
}

/// A request that nobody else carries out: a change is claimed in the ledger, and a read needs no claim.
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

/// The target: its configuration and what it opened before it went to rest.
struct Target {
    config: Config,
    key: SigningKey,
    fingerprint: Fingerprint,
    boot_id: String,
    log: Log,
    ledger: Ledger,
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
    fn recover(&mut self) -> Result<(), Fatal> {
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
            let reads = told.intent.risk == Some(Risk::Read);
            let kept = self.ended(told, &request_sha256).map_err(refused)?;
            let claim = match self.ledger.look(&task_id, &request_id).map_err(refused)? {
                _ if reads => continue,
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

    /// Settles a claim whose process is gone: what the log says, or that nobody knows. A request that was never begun may
    /// be claimed again.
    fn settle(&mut self, claim: Claim) -> Result<Option<Kept>, Refusal> {
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
        };
        let knowledge = Knowledge {
            target: &self.config.target,
            key: &self.fingerprint,
            cas,
            login_key: session.login_key.as_ref(),
            max_lifetime_s: self.config.task_max_lifetime_s,
            now: now(),
        };
        order::permitted(request, own, permit.as_ref(), approval, &knowledge)?;
        served(manifest)?;
        let args = action::check_args(entry, &payload.args)?;
        let resolved = action::resolve(entry, &args, &self.config.probe)?;
        let input = match resolved.file {
            Some((file, rule)) => input::open(file, rule, args.offset())?,
            None => input::none()?,
        };
        let invalid = |what: String| Refusal::because(Code::ManifestInvalid, what);
        let program = program::open(resolved.program()).map_err(invalid)?;
        let walls = Walls::build(manifest.profile(), program.as_fd())
            .map_err(|what| Refusal::because(Code::WallUnavailable, what))?;
        let action = Action {
            manifest: entry.digest().clone(),
            risk: manifest.risk(),
            encoding: action::encoding(&args),
            part: input.part,
            walls: walls.names().to_vec(),
            permit,
        };
        let command = Command {
            argv: resolved.argv,
            program,
            stdin: input.stdin,
            timeout: resolved.timeout,
            limits: manifest.limits(),
            alone: match manifest.risk() {
                Risk::Read => Alone::Ends,
                Risk::Change | Risk::Destroy => Alone::GoesOn,
            },
            walls,
        };
        Ok(Judged {
            request,
            action,
            command,
        })
    }

    /// Makes sure that nobody else carries it out, now or ever again.
    fn claim<'a>(&self, judged: Judged<'a>) -> Result<Claimed<'a>, Refusal> {
        let payload = judged.request.payload();
        let claim = match judged.action.risk {
            Risk::Read => None,
            Risk::Change | Risk::Destroy => Some(self.ledger.claim(Key {
                task_id: payload.task_id.clone(),
                request_id: payload.request_id.clone(),
                request_sha256: judged.request.sha256().clone(),
            })?),
        };
        Ok(Claimed { judged, claim })
    }

    /// Makes the intent durable, and space for the result with it.
    fn intend<'a>(&mut self, claimed: Claimed<'a>) -> Result<Intended<'a>, Refusal> {
        let Claimed { judged, claim } = claimed;
        let draft = record::intent(judged.request, &judged.action, &judged.command.argv);
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

    fn knowledge<'a>(&'a self, login_key: Option<&'a PublicKey>, cas: &'a [PublicKey]) -> Knowledge<'a> {
        Knowledge {
            target: &self.config.target,
            key: &self.fingerprint,
            cas,
            login_key,
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

fn not_halted() -> Result<(), Refusal> {
    if house::halted() {
        return Err(Refusal::because(Code::Halted, "an operator halted this target"));
    }
    Ok(())
}

/// What a manifest may ask for and this version does not do is not left out in silence.
fn served(manifest: &Manifest) -> Result<(), Refusal> {
    let missing = if manifest.privilege() != Privilege::None {
        "privilege"
    } else if manifest.verify().is_some() {
        "verify"
    } else {
        return Ok(());
    };
    Err(Refusal::because(
        Code::ManifestInvalid,
        format!("it has `{missing}`, which this version of agent-exec does not do"),
    ))
}

/// Runs what was intended. Nothing else in this crate starts a program.
fn run(resting: Resting, intended: Intended<'_>) -> Done<'_> {
    let Intended(Claimed { judged, claim }) = intended;
    let Judged {
        request,
        action,
        command,
    } = judged;
    let reply = match child::run(resting, command, std::io::stdout()) {
        Ok(ran) => answer::ran(request, &action, ran, now()),
        Err(error) => answer::no_program(request, &action, &error, now()),
    };
    Done {
        request,
        action,
        claim,
        reply,
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
