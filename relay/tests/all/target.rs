//! A target: an SSH server that speaks the session's protocol, honestly or as a test wants it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use openssh::key::SigningKey;
use openssh::sshsig;
use russh::keys::{Certificate, PrivateKey};
use russh::server::{self, Auth, ChannelOpenHandle, Handler, Msg, Session};
use russh::{Channel, ChannelId};
use ssh_key::certificate::{Builder, CertType};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use wire::ids::{Digest, Head, RequestId};
use wire::lines::{Answer, RelayLine, TargetLine};
use wire::{Code, Encoding, Hello, Outcome, Payload, Status, Stream, seal};

/// How a target behaves. Each is one lie, or none.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Manner {
    /// Answers every request with this output.
    Says(String),
    /// Refuses every request, with these words.
    Refuses(Code, String),
    /// Answers, so many milliseconds after it has read.
    Slow(u64),
    /// Answers as soon as this is open.
    Waits(Gate),
    /// Reads and never answers.
    Mute,
    /// Leaves when a request comes.
    Leaves,
    /// Leaves when the first request comes, and answers those that follow.
    LeavesOnce,
    /// Leaves when the first request comes, and says of so many that follow that it is still at them.
    IsAtIt(usize),
    /// Refuses the line of the first request, and answers those that follow.
    RefusesLine(Code),
    /// Leaves when the first request comes, which it carries out, says of the second that it has expired, and remembers the
    /// first.
    ClaimsMeanwhile,
    /// Lets somebody in once, and ends that connection so many milliseconds after its hello.
    LetsInOnce(u64),
    /// Leaves when a change comes for the first time.
    LosesAChange,
    /// Signs its Outcomes with another key.
    ForgesOutcomes,
    /// Answers another request.
    AnswersAnother,
    /// Sends another output than it signed.
    SwapsOutput,
    /// Has a manifest of its own, and says so.
    HasAnotherManifest,
    /// Signs its hello with another key.
    ForgesHello,
    /// Calls itself another target in its hello.
    IsAnother,
    /// Its clock is so many seconds off.
    ClockOff(i64),
    /// Speaks version 2 only.
    SpeaksTwo,
    /// Sends this instead of a hello.
    Garbage(Vec<u8>),
    /// Refuses the certificate line.
    RefusesCertificate(Code),
    /// sshd does not let it in.
    NoLogin,
    /// Ends so many connections before it says a word, then answers.
    HangsUp(usize),
    /// Ends so many connections in the login, then answers.
    HangsUpInLogin(usize),
    /// Gives one connection so many sessions, and answers so many milliseconds after it has read.
    Sessions(usize, u64),
    /// Refuses certificates that come right before a request, and answers without them.
    RefusesBeside(Code),
    /// Writes to its standard error before each answer.
    Mutters,
    /// Sends this again and again instead of a hello, on its standard error or its output.
    Floods(&'static [u8], Option<u32>),
    /// Says no hello in this one of its sessions, counted from 1: it ends it.
    Dies(usize),
    /// Says no hello in this one of its sessions, counted from 1: it is silent there.
    IsSilent(usize),
    /// Says hello once more in its first session when this is open, which ends it.
    HelloAgain(Gate),
    /// Gives its session up when the first request comes, and says so.
    GivesUpOnce,
    /// Refuses the certificate line, and gives up waiting for another.
    GivesUpWaiting(Code),
    /// Its sshd opens sessions and takes no byte on them.
    TakesNothing,
    /// Takes so many milliseconds to open a session beside the first.
    OpensSlowly(u64),
}

/// What answers wait for, until a test opens it.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<Semaphore>);

impl Gate {
    pub(crate) fn closed() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    pub(crate) fn open(&self) {
        self.0.close();
    }

    async fn wait(&self) {
        // It never has a permit: who waits is told when it is closed.
        let _ = self.0.acquire().await;
    }
}

impl PartialEq for Gate {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What the target's sshd shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Shows {
    /// A certificate of this CA (a seed), for this principal, that ends so many seconds from now.
    Certificate(u8, &'static str, i64),
    /// Its bare key.
    Key,
}

pub(crate) struct Target {
    pub(crate) address: String,
    pub(crate) host_key: SigningKey,
    pub(crate) seen: Arc<Seen>,
}

/// What the target has seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) connections: AtomicUsize,
    pub(crate) logins: AtomicUsize,
    /// Sessions that were opened, and those that were not closed since.
    pub(crate) sessions: AtomicUsize,
    pub(crate) open: AtomicUsize,
    pub(crate) certificates: AtomicUsize,
    pub(crate) requests: Mutex<Vec<Payload>>,
    /// Every line, in order, over all connections.
    pub(crate) lines: Mutex<Vec<RelayLine>>,
    /// Requests that were asked for by their id.
    pub(crate) asked_for: Mutex<Vec<RequestId>>,
    /// Requests that it has carried out, as its ledger has them.
    pub(crate) kept: Mutex<HashMap<RequestId, Digest>>,
}

pub(crate) async fn serve(receipt: SigningKey, manner: Manner, shows: Shows) -> Target {
    serve_with(russh::Preferred::default().kex, receipt, manner, shows).await
}

/// The same with these key exchanges.
pub(crate) async fn serve_with(
    kex: Cow<'static, [russh::kex::Name]>,
    receipt: SigningKey,
    manner: Manner,
    shows: Shows,
) -> Target {
    let host_key = crate::world::key(40);
    let mut config = server::Config {
        auth_rejection_time: std::time::Duration::ZERO,
        ..server::Config::default()
    };
    if manner == Manner::TakesNothing {
        config.window_size = 0;
    }
    config.keys.push(host_key.private().clone());
    config.preferred.kex = kex;
    config.preferred.cipher = Cow::Borrowed(&[russh::cipher::AES_128_GCM]);
    if let Shows::Certificate(ca, principal, ends) = shows {
        config
            .certificates
            .push(host_certificate(host_key.private(), ca, principal, ends));
    }
    let (config, seen, receipt) = (Arc::new(config), Arc::new(Seen::default()), Arc::new(receipt));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let shared = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            shared.connections.fetch_add(1, Ordering::SeqCst);
            if matches!(manner, Manner::HangsUp(times) if shared.connections.load(Ordering::SeqCst) <= times) {
                continue;
            }
            let actor = Actor {
                facts: Arc::new(Facts {
                    manner: manner.clone(),
                    receipt: Arc::clone(&receipt),
                    seen: Arc::clone(&shared),
                }),
                channels: 0,
                sessions: HashMap::new(),
            };
            let config = Arc::clone(&config);
            tokio::spawn(async move {
                if let Ok(session) = server::run_stream(config, stream, actor).await {
                    let _ = session.await;
                }
            });
        }
    });
    Target {
        address,
        host_key,
        seen,
    }
}

fn host_certificate(key: &PrivateKey, ca: u8, principal: &str, ends: i64) -> Certificate {
    let now = relay::serve::now();
    let before = now.saturating_add_signed(ends);
    let public = key.public_key().key_data().clone();
    let mut builder = Builder::new([7; 16], public, before.min(now) - 1000, before).unwrap();
    builder.serial(1).unwrap();
    builder.key_id("host").unwrap();
    builder.cert_type(CertType::Host).unwrap();
    builder.valid_principal(principal).unwrap();
    builder.sign(crate::world::key(ca).private()).unwrap()
}

/// sshd, for one connection.
struct Actor {
    facts: Arc<Facts>,
    /// That were opened and not closed.
    channels: usize,
    sessions: HashMap<ChannelId, mpsc::UnboundedSender<Vec<u8>>>,
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.facts.seen.open.fetch_sub(self.sessions.len(), Ordering::SeqCst);
    }
}

/// What every agent-exec of a target knows.
struct Facts {
    manner: Manner,
    receipt: Arc<SigningKey>,
    seen: Arc<Seen>,
}

impl Facts {
    /// The SHA-256 of its own manifest of `tail_log`: the shipped one, as everywhere.
    fn manifest(&self) -> Digest {
        if self.manner == Manner::HasAnotherManifest {
            return Digest::of(b"its own");
        }
        crate::world::manifest("tail_log")
    }

    fn hello(&self) -> Vec<u8> {
        let now = relay::serve::now();
        let mut hello = Hello {
            versions: vec![1],
            target: "web-1".parse().unwrap(),
            build: "fake".into(),
            receipt_key: self.receipt.public().to_openssh(),
            now,
            boot_id: "0".into(),
            head: head(1),
            manifests: [("tail_log".parse().unwrap(), self.manifest())].into(),
        };
        let forged = crate::world::key(99);
        let mut key = &*self.receipt;
        match &self.manner {
            Manner::Garbage(bytes) => return bytes.clone(),
            Manner::ForgesHello => key = &forged,
            Manner::IsAnother => hello.target = "web-2".parse().unwrap(),
            Manner::ClockOff(seconds) => hello.now = now.saturating_add_signed(*seconds),
            Manner::SpeaksTwo => hello.versions = vec![2],
            _ => {}
        }
        TargetLine::Hello(seal::seal(key, sshsig::HELLO, &hello).unwrap())
            .to_line()
            .into_bytes()
    }

    /// The answer to the how-many-eth request.
    fn answer(&self, payload: &str, requests: usize) -> String {
        let named = Payload::parse(payload.as_bytes()).unwrap().manifest;
        self.outcome(Digest::of(payload.as_bytes()), &named, requests)
    }

    fn outcome(&self, request_sha256: Digest, named: &Digest, requests: usize) -> String {
        let mut outcome = Outcome {
            v: 1,
            request_sha256,
            status: Status::Ok,
            code: None,
            message: None,
            exit_code: Some(0),
            signal: None,
            output: None,
            stderr: None,
            resources: None,
            duration_ms: 3,
            replayed: false,
            manifest_differs: *named != self.manifest(),
            walls: Vec::new(),
            manifest: Some(self.manifest()),
            serial: None,
            head: Some(head(17)),
            now: relay::serve::now(),
        };
        let mut output = None;
        let forged = crate::world::key(99);
        let mut key = &*self.receipt;
        match &self.manner {
            Manner::Refuses(code, words) => {
                (outcome.status, outcome.code, outcome.exit_code) = (Status::Refused, Some(*code), None);
                outcome.message = Some(words.clone());
            }
            Manner::RefusesBeside(_) => {
                (outcome.status, outcome.code, outcome.exit_code) =
                    (Status::Refused, Some(Code::ActionCertificateMissing), None);
            }
            Manner::RefusesCertificate(_) => {
                (outcome.status, outcome.code, outcome.exit_code) =
                    (Status::Refused, Some(Code::CertificateMissing), None);
            }
            Manner::IsAtIt(times) if requests <= *times + 1 => {
                (outcome.status, outcome.code, outcome.exit_code) = (Status::Refused, Some(Code::InProgress), None);
            }
            Manner::ClaimsMeanwhile if requests == 2 => {
                (outcome.status, outcome.code, outcome.exit_code) = (Status::Refused, Some(Code::RequestExpired), None);
            }
            Manner::AnswersAnother => outcome.request_sha256 = Digest::of(b"another"),
            Manner::ForgesOutcomes => key = &forged,
            Manner::Says(text) => output = Some(text.clone()),
            Manner::SwapsOutput => output = Some("signed".into()),
            _ => {}
        }
        outcome.output = output.as_ref().map(|text| Stream {
            encoding: Encoding::Text,
            bytes: text.len() as u64,
            sha256: Digest::of(text.as_bytes()),
            sent_sha256: Digest::of(text.as_bytes()),
            truncated: false,
            redactions: 0,
        });
        if self.manner == Manner::SwapsOutput {
            output = Some("swapped".into());
        }
        let outcome = seal::seal(key, sshsig::OUTCOME, &outcome).unwrap();
        TargetLine::Answer(Answer {
            outcome,
            output,
            stderr: None,
        })
        .to_line()
    }

    /// What is sent back for one line, or that the session ends.
    fn react(&self, number: u64, line: &[u8]) -> Option<String> {
        let line = RelayLine::parse(line).unwrap();
        self.seen.lines.lock().unwrap().push(line.clone());
        match line {
            RelayLine::Certificate(_) => {
                self.seen.certificates.fetch_add(1, Ordering::SeqCst);
                match self.manner {
                    Manner::GivesUpWaiting(code) => {
                        let late = Code::TimedOut;
                        let lines = [(number, code), (number + 1, late)];
                        Some(
                            lines
                                .map(|(line, code)| TargetLine::Refused { line, code }.to_line())
                                .concat(),
                        )
                    }
                    Manner::RefusesCertificate(code) => Some(TargetLine::Refused { line: number, code }.to_line()),
                    Manner::RefusesBeside(code) if number > 1 => {
                        Some(TargetLine::Refused { line: number, code }.to_line())
                    }
                    _ => Some(String::new()),
                }
            }
            RelayLine::Request(sealed, _) => {
                let payload = Payload::parse(sealed.payload.as_bytes()).unwrap();
                let mut requests = self.seen.requests.lock().unwrap();
                requests.push(payload.clone());
                match self.manner {
                    Manner::GivesUpOnce if requests.len() == 1 => {
                        let code = Code::SessionLost;
                        Some(TargetLine::Refused { line: 0, code }.to_line())
                    }
                    Manner::RefusesLine(code) if requests.len() == 1 => {
                        Some(TargetLine::Refused { line: number, code }.to_line())
                    }
                    Manner::ClaimsMeanwhile if requests.len() == 1 => {
                        let sha256 = Digest::of(sealed.payload.as_bytes());
                        self.seen.kept.lock().unwrap().insert(payload.request_id, sha256);
                        None
                    }
                    Manner::LosesAChange if payload.action.as_str() == "restart" => {
                        let changes = requests.iter().filter(|one| one.action == payload.action).count();
                        (changes > 1).then(|| self.answer(&sealed.payload, requests.len()))
                    }
                    Manner::LeavesOnce | Manner::IsAtIt(_) if requests.len() == 1 => None,
                    Manner::Mute => Some(String::new()),
                    Manner::Leaves => None,
                    _ => Some(self.answer(&sealed.payload, requests.len())),
                }
            }
            RelayLine::Outcome(id) => {
                self.seen.asked_for.lock().unwrap().push(id.clone());
                if let Some(sha256) = self.seen.kept.lock().unwrap().get(&id) {
                    return Some(self.outcome(sha256.clone(), &self.manifest(), 0));
                }
                let code = Code::UnknownRequest;
                Some(TargetLine::Refused { line: number, code }.to_line())
            }
            other => panic!("{other:?}"),
        }
    }
}

fn head(seq: u64) -> Head {
    Head {
        log: "00000000000000000000000000000000".parse().unwrap(),
        seq,
        hash: Digest::zero(),
    }
}

impl Handler for Actor {
    type Error = russh::Error;

    async fn auth_openssh_certificate(&mut self, user: &str, _: &Certificate) -> Result<Auth, russh::Error> {
        assert_eq!(user, wire::LOGIN);
        let logins = self.facts.seen.logins.fetch_add(1, Ordering::SeqCst) + 1;
        if matches!(self.facts.manner, Manner::HangsUpInLogin(times) if logins <= times) {
            return Err(russh::Error::Disconnect);
        }
        let is_in = matches!(self.facts.manner, Manner::LetsInOnce(_)) && logins > 1;
        Ok(if is_in || self.facts.manner == Manner::NoLogin {
            Auth::reject()
        } else {
            Auth::Accept
        })
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        if let (Manner::OpensSlowly(ms), 1..) = (&self.facts.manner, self.channels) {
            tokio::time::sleep(std::time::Duration::from_millis(*ms)).await;
        }
        if matches!(self.facts.manner, Manner::Sessions(most, _) if self.channels >= most) {
            reply.reject(russh::ChannelOpenFailure::ConnectFailed).await;
        } else {
            self.channels += 1;
            reply.accept().await;
        }
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        assert_eq!(command, wire::EXEC.as_bytes());
        let count = self.facts.seen.sessions.fetch_add(1, Ordering::SeqCst) + 1;
        self.facts.seen.open.fetch_add(1, Ordering::SeqCst);
        let (feed, fed) = mpsc::unbounded_channel();
        self.sessions.insert(channel, feed);
        let (facts, handle) = (Arc::clone(&self.facts), session.handle());
        match self.facts.manner {
            Manner::Dies(which) if which == count => {
                tokio::spawn(async move { handle.close(channel).await });
            }
            Manner::IsSilent(which) if which == count => {}
            Manner::HelloAgain(ref gate) if count == 1 => {
                let (gate, hello, says) = (gate.clone(), facts.hello(), handle.clone());
                tokio::spawn(async move {
                    gate.wait().await;
                    says.data(channel, hello).await
                });
                tokio::spawn(agent_exec(facts, handle, channel, fed));
            }
            _ => {
                tokio::spawn(agent_exec(facts, handle, channel, fed));
            }
        }
        Ok(())
    }

    async fn data(&mut self, channel: ChannelId, data: &[u8], _: &mut Session) -> Result<(), russh::Error> {
        if let Some(feed) = self.sessions.get(&channel) {
            let _ = feed.send(data.to_vec());
        }
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), russh::Error> {
        self.channels -= 1;
        if self.sessions.remove(&channel).is_some() {
            self.facts.seen.open.fetch_sub(1, Ordering::SeqCst);
        }
        Ok(())
    }
}

/// One session: its lines in order, until it is closed.
async fn agent_exec(
    facts: Arc<Facts>,
    handle: server::Handle,
    channel: ChannelId,
    mut fed: mpsc::UnboundedReceiver<Vec<u8>>,
) {
    if let Manner::Floods(what, stream) = facts.manner {
        while !what.is_empty() {
            let sent = match stream {
                Some(stream) => handle.extended_data(channel, stream, what).await,
                None => handle.data(channel, what).await,
            };
            if sent.is_err() || fed.is_closed() {
                break;
            }
        }
        return;
    }
    let _ = handle.data(channel, facts.hello()).await;
    if let Manner::LetsInOnce(ms) = facts.manner {
        tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
        let (why, said) = (russh::Disconnect::ByApplication, String::new());
        let _ = handle.disconnect(why, said, String::new()).await;
        return;
    }
    let mut lines = relay::lines::Lines::new(wire::limits::LINE_IN);
    let mut number = 0;
    while let Some(data) = fed.recv().await {
        lines.push(&data);
        while let Some(relay::lines::Piece::Line(line)) = lines.next_piece() {
            number += 1;
            if let (Manner::Slow(ms) | Manner::Sessions(_, ms), true) = (&facts.manner, number > 1) {
                tokio::time::sleep(std::time::Duration::from_millis(*ms)).await;
            }
            if facts.manner == Manner::Mutters && number > 1 {
                let _ = handle.extended_data(channel, 1, &b"muttering"[..]).await;
            }
            let reaction = facts.react(number, &line);
            if let (Manner::Waits(gate), true) = (&facts.manner, number > 1) {
                gate.wait().await;
            }
            match reaction {
                Some(text) => {
                    let _ = handle.data(channel, text.into_bytes()).await;
                }
                None => {
                    let _ = handle.close(channel).await;
                }
            }
        }
    }
}
