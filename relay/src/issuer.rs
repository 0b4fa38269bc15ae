//! The CA, asked over its unix socket or over TLS: the only gRPC client.
//!
//! Whatever comes back is turned into checked values here and goes no further as a wire type. The CA decides; nothing
//! here judges its policy. A certificate that is not what was asked for is a fault of the CA's and is not used.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use grpc::v1::ca_client::CaClient;
use grpc::v1::{AuthorizeActionRequest, DescribeRequest, OpenTaskRequest, RenewTaskRequest};
use hyper_util::rt::TokioIo;
use openssh::certificate;
use openssh::key::PublicKey;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;
use wire::ids::{ActionName, Reason, TargetName, TaskId};
use wire::limits::APPROVAL_SIGS;
use wire::{Code, Kind, Requester};

use self::far::Far;
use crate::config::{CaAddress, Config};
use crate::error::chain;

mod far;

/// Longest wait for an answer of the CA, its durable record included.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer that is read, in bytes: a certificate has at most 16 KiB.
const ANSWER_BYTES: usize = 256 * 1024;

/// Why there is no certificate.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Nobody answers, or too late.
    #[error("reach the CA: {0}")]
    Unavailable(String),
    /// The CA said no, with its reason.
    #[error("get the CA's consent: {message}")]
    Refused {
        /// Its Code.
        code: Code,
        /// Its words.
        message: String,
        /// The ids of the policies that decided, where policies did and it says them as it should.
        policy: Vec<String>,
    },
    /// The relay is being stopped: nothing was asked.
    #[error("ask the CA while the relay is being stopped")]
    Stopping,
    /// The answer is not what was asked for.
    #[error("use the CA's answer: {0}")]
    Protocol(String),
}

/// A task certificate, as issued.
#[derive(Debug, Clone)]
pub struct Issued {
    /// In OpenSSH's text form.
    pub certificate: String,
    /// First second at which it is no longer valid, Unix time.
    pub valid_before: u64,
    /// The target's receipt key, as the CA knows it.
    pub receipt_key: PublicKey,
    /// When the task ends, whatever is renewed, Unix time.
    pub task_ends: u64,
    /// The actions that it covers. Every other needs a certificate for each request.
    pub actions: Arc<BTreeSet<ActionName>>,
}

/// A certificate for one request.
#[derive(Debug, Clone)]
pub struct Permit {
    /// In OpenSSH's text form.
    pub certificate: String,
    /// First second at which it is no longer valid, Unix time.
    pub valid_before: u64,
}

/// The CA's word on a request that policy allows.
#[derive(Debug, Clone)]
pub enum Word {
    /// It may be sent.
    Permit(Permit),
    /// So many people have to approve it before there is a certificate.
    Wants(u8),
}

/// What the CA says of itself.
#[derive(Debug, Clone)]
pub struct Description {
    /// Build id of its binary.
    pub build: String,
    /// The relay's name, as the CA knows us.
    pub relay: String,
    /// Its clock, Unix time.
    pub now: u64,
}

/// The CA's client. Cheap to clone; connects when first used, and again when the connection is lost.
#[derive(Clone)]
pub struct Issuer {
    way: Way,
    closed: Arc<AtomicBool>,
}

#[derive(Clone)]
enum Way {
    Near { client: CaClient<Channel>, socket: PathBuf },
    Far(Arc<Far>),
}

impl Issuer {
    /// A client of the CA that a configuration names. Nothing is sent yet; must be called inside a runtime.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        match &config.ca {
            CaAddress::Socket(socket) => Self::new(socket),
            CaAddress::Tls { address, keys } => Self::far(address, &config.tls_key(), keys),
        }
    }

    /// A client of the CA at this socket. Nothing is sent yet; must be called inside a runtime.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        let path = socket.to_owned();
        let connector = service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        Self::by(Way::Near {
            client: client(endpoint().connect_with_connector_lazy(connector)),
            socket: socket.to_owned(),
        })
    }

    /// A client of the CA at this `host:port`, which has one of the keys in the file `ca`; we have the key in the file
    /// `own`. Nothing is sent yet.
    #[must_use]
    pub fn far(address: &str, own: &Path, ca: &Path) -> Self {
        Self::by(Way::Far(Arc::new(Far::new(address, own, ca))))
    }

    fn by(way: Way) -> Self {
        Self {
            way,
            closed: Arc::default(),
        }
    }

    fn client(&self) -> Result<CaClient<Channel>, Error> {
        match &self.way {
            Way::Near { client, .. } => Ok(client.clone()),
            Way::Far(far) => far.client(),
        }
    }

    /// Asks for no certificate any more.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// The client for whatever makes a certificate.
    fn minting(&self) -> Result<CaClient<Channel>, Error> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(Error::Stopping);
        }
        self.client()
    }

    /// The first certificate of a task on one target.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn open_task(
        &self,
        task: &TaskId,
        requester: &Requester,
        reason: &Reason,
        target: &TargetName,
        key: &PublicKey,
    ) -> Result<Issued, Error> {
        let request = OpenTaskRequest {
            task_id: task.to_string(),
            brain: requester.brain.to_string(),
            person: requester.person.to_string(),
            proof: requester.proof.as_str().to_owned(),
            reason: reason.to_string(),
            target: target.to_string(),
            public_key: key.to_openssh(),
        };
        let answer = patiently(self.minting()?.open_task(request)).await?;
        checked(answer, task, target, key)
    }

    /// The next certificate of an open task on one target, for the same key.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn renew_task(&self, task: &TaskId, target: &TargetName, key: &PublicKey) -> Result<Issued, Error> {
        let request = RenewTaskRequest {
            task_id: task.to_string(),
            target: target.to_string(),
            public_key: key.to_openssh(),
        };
        let answer = patiently(self.minting()?.renew_task(request)).await?;
        checked(answer, task, target, key)
    }

    /// A certificate of the task's key for one request: these bytes, of which so many approvals are held.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn authorize_action(
        &self,
        task: &TaskId,
        target: &TargetName,
        key: &PublicKey,
        payload: &str,
        held: u8,
    ) -> Result<Word, Error> {
        let request = AuthorizeActionRequest {
            payload: payload.as_bytes().to_vec(),
            public_key: key.to_openssh(),
            approvals_held: held.into(),
        };
        let answer = patiently(self.minting()?.authorize_action(request)).await?;
        if answer.approvals > u32::from(held) {
            let wants = u8::try_from(answer.approvals).ok();
            let wants = wants.filter(|wants| usize::from(*wants) <= APPROVAL_SIGS);
            let too_many = || Error::Protocol("a need for more approvals than a request can have".to_owned());
            return wants.map(Word::Wants).ok_or_else(too_many);
        }
        let principal = Kind::Action.principal(target);
        let valid_before = certificate_for(&answer.certificate, task, &principal, key, answer.valid_before)?;
        Ok(Word::Permit(Permit {
            certificate: answer.certificate,
            valid_before,
        }))
    }

    /// Who the CA is. Mints nothing.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn describe(&self) -> Result<Description, Error> {
        let answer = patiently(self.client()?.describe(DescribeRequest {})).await?;
        Ok(Description {
            build: answer.build,
            relay: answer.relay,
            now: unsigned(answer.now)?,
        })
    }

    /// The uid that the CA runs as, from the kernel; `None` when nobody listens, or on another machine.
    pub async fn uid(&self) -> Option<u32> {
        let Way::Near { socket, .. } = &self.way else {
            return None;
        };
        let stream = UnixStream::connect(socket).await.ok()?;
        stream.peer_cred().ok().map(|peer| peer.uid())
    }
}

fn endpoint() -> Endpoint {
    // The URI is never resolved: the connector knows the way.
    Endpoint::from_static("http://ca.writ.internal")
        .connect_timeout(PATIENCE)
        .timeout(PATIENCE)
}

fn client(channel: Channel) -> CaClient<Channel> {
    CaClient::new(channel).max_decoding_message_size(ANSWER_BYTES)
}

async fn patiently<T>(call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Result<T, Error> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(refusal(&status)),
        Err(_) => Err(Error::Unavailable(format!("no answer within {} s", PATIENCE.as_secs()))),
    }
}

fn refusal(status: &tonic::Status) -> Error {
    let entry = |name| status.metadata().get(name).and_then(|value| value.to_str().ok());
    match entry(grpc::CODE) {
        // A Code of a newer CA is still a refusal, and its text says the rest.
        Some(word) => Error::Refused {
            code: word.parse().unwrap_or(Code::PolicyDenied),
            message: entry(grpc::MESSAGE).unwrap_or(word).to_owned(),
            policy: deciding(status),
        },
        None => match status.code() {
            tonic::Code::Unavailable | tonic::Code::DeadlineExceeded | tonic::Code::Cancelled => {
                // The library's own words say nothing of the cause.
                Error::Unavailable(status.source().map_or_else(|| status.message().to_owned(), chain))
            }
            code => Error::Protocol(format!("{code:?}: {}", status.message())),
        },
    }
}

/// The policies that a refusal names. A no stays one whatever stands beside it: what is no list of ids is left out.
fn deciding(status: &tonic::Status) -> Vec<String> {
    let mut entries = status.metadata().get_all(grpc::POLICY).iter();
    let (Some(entry), None) = (entries.next(), entries.next()) else {
        return Vec::new();
    };
    let read = entry.to_str().ok().and_then(grpc::policies::read);
    read.unwrap_or_default()
}

/// The answer as values, when it is about the key, task and target that were asked for.
fn checked(
    answer: grpc::v1::TaskCertificate,
    task: &TaskId,
    target: &TargetName,
    key: &PublicKey,
) -> Result<Issued, Error> {
    let principal = Kind::Task.principal(target);
    let valid_before = certificate_for(&answer.certificate, task, &principal, key, answer.valid_before)?;
    let receipt_key = PublicKey::from_openssh(&answer.receipt_key)
        .map_err(|error| Error::Protocol(format!("receipt key: {error}")))?;
    let actions: Result<BTreeSet<_>, _> = answer.actions.iter().map(|name| name.parse()).collect();
    let actions =
        actions.map_err(|_| Error::Protocol("a certificate for actions that can have no such name".to_owned()))?;
    Ok(Issued {
        valid_before,
        certificate: answer.certificate,
        receipt_key,
        task_ends: unsigned(answer.ends)?,
        actions: Arc::new(actions),
    })
}

/// When a certificate ends, if it is about the key, task and principal that were asked for.
fn certificate_for(text: &str, task: &TaskId, principal: &str, key: &PublicKey, ends: i64) -> Result<u64, Error> {
    let protocol = |what: &str| Error::Protocol(what.to_owned());
    let read = certificate::read(text).map_err(|error| Error::Protocol(error.to_string()))?;
    if read.public_key() != &key.key_data() {
        return Err(protocol("a certificate for another key"));
    }
    if read.key_id() != task.as_str() || read.valid_principals() != [principal] {
        return Err(protocol("a certificate for another task or target"));
    }
    if read.valid_before() != unsigned(ends)? {
        return Err(protocol("a certificate that ends at another time than it says"));
    }
    Ok(read.valid_before())
}

fn unsigned(time: i64) -> Result<u64, Error> {
    u64::try_from(time).map_err(|_| Error::Protocol("a time before 1970".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// REQ-CARPC-12
    #[test]
    fn a_refusal_keeps_the_code_and_the_words_of_the_ca() {
        let mut status = tonic::Status::permission_denied("no");
        status
            .metadata_mut()
            .insert(grpc::CODE, "policy_denied".parse().unwrap());
        status
            .metadata_mut()
            .insert(grpc::MESSAGE, "no policy permits it".parse().unwrap());
        let Error::Refused { code, message, policy } = refusal(&status) else {
            panic!("refused")
        };
        assert_eq!((code, message.as_str()), (Code::PolicyDenied, "no policy permits it"));
        assert!(policy.is_empty());
    }

    fn policies_of(entries: &[&str]) -> Vec<String> {
        let mut status = tonic::Status::permission_denied("no");
        let metadata = status.metadata_mut();
        metadata.insert(grpc::CODE, "policy_denied".parse().unwrap());
        for entry in entries {
            metadata.append(grpc::POLICY, entry.parse().unwrap());
        }
        let Error::Refused { code, policy, .. } = refusal(&status) else {
            panic!("refused")
        };
        assert_eq!(code, Code::PolicyDenied);
        policy
    }

    /// REQ-CARPC-12
    #[test]
    fn a_refusal_keeps_the_policies_and_stays_one_whatever_is_in_their_place() {
        assert_eq!(policies_of(&["night-shift,no-db"]), ["night-shift", "no-db"]);
        let long = "x".repeat(100_000);
        let bad: [&[&str]; 6] = [
            &[],
            &[""],
            &["one", "two"],
            &["Ignore previous instructions"],
            &["no-db, night-shift"],
            &[&long],
        ];
        for entries in bad {
            assert!(policies_of(entries).is_empty());
        }
        println!("{} attacks, {} refused", bad.len(), bad.len());
    }

    #[tokio::test]
    async fn a_ca_that_is_not_there_is_unavailable_and_not_a_refusal() {
        let issuer = Issuer::new(Path::new("/nonexistent/ca.sock"));
        assert!(matches!(issuer.describe().await, Err(Error::Unavailable(_))));
        assert_eq!(issuer.uid().await, None);
    }
}
