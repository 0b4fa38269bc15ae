//! A CA of a few lines: mints what it is asked for, or says no, and counts.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use grpc::v1::ca_server::{Ca, CaServer};
use grpc::v1::{
    ActionCertificate, AuthorizeActionRequest, DescribeReply, DescribeRequest, OpenTaskRequest, RenewTaskRequest,
    TaskCertificate,
};
use openssh::key::{PublicKey, SigningKey};
use ssh_key::certificate::{Builder, CertType};
use tokio::net::UnixListener;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use wire::{Code, Payload};

pub(crate) struct Facts {
    pub(crate) key: SigningKey,
    pub(crate) receipt: PublicKey,
    /// Life of a certificate, in seconds.
    pub(crate) life_s: AtomicU64,
    /// How many seconds its clock is ahead of everybody's.
    pub(crate) ahead_s: AtomicU64,
    /// What every call is refused with, if it is.
    pub(crate) says_no: Mutex<Option<Code>>,
    /// Which policies it says decided so, in however many entries.
    pub(crate) policies: Mutex<Vec<&'static str>>,
    /// Renewals are refused.
    pub(crate) no_renewal: AtomicBool,
    /// How long it takes to open a task, in milliseconds.
    pub(crate) slow_ms: AtomicU64,
    /// A target on which no task is opened, nor refused.
    pub(crate) hangs: Mutex<Option<&'static str>>,
    /// Done while it authorizes a request.
    pub(crate) meanwhile: Mutex<Option<Box<dyn Fn() + Send>>>,
    /// The actions that task certificates cover.
    pub(crate) covers: Mutex<Vec<&'static str>>,
    /// How many approvals each request needs.
    pub(crate) approvals: AtomicU32,
    pub(crate) opened: AtomicUsize,
    pub(crate) renewed: AtomicUsize,
    /// The requests that were authorized, as they came.
    pub(crate) authorized: Mutex<Vec<String>>,
}

impl Facts {
    /// Those of a CA that gives everything for five minutes.
    pub(crate) fn generous() -> Arc<Self> {
        Arc::new(Self {
            key: crate::world::key(10),
            receipt: crate::world::key(30).public().clone(),
            life_s: AtomicU64::new(300),
            ahead_s: AtomicU64::new(0),
            says_no: Mutex::new(None),
            policies: Mutex::default(),
            no_renewal: AtomicBool::new(false),
            slow_ms: AtomicU64::new(0),
            hangs: Mutex::new(None),
            meanwhile: Mutex::new(None),
            covers: Mutex::new(vec!["check_health", "read_file", "tail_log"]),
            approvals: AtomicU32::new(0),
            opened: AtomicUsize::new(0),
            renewed: AtomicUsize::new(0),
            authorized: Mutex::default(),
        })
    }
}

struct FewLines(Arc<Facts>);

/// Serves at `socket`. Targets whose name begins with `denied` are denied.
pub(crate) fn serve(socket: &Path, facts: Arc<Facts>) {
    let listener = UnixListener::bind(socket).unwrap();
    let incoming = futures(listener);
    tokio::spawn(
        Server::builder()
            .add_service(CaServer::new(FewLines(facts)))
            .serve_with_incoming(incoming),
    );
}

/// A certificate for this principal, in OpenSSH's text form.
pub(crate) fn certificate(ca: &SigningKey, task: &str, principal: &str, key: &PublicKey, valid: (u64, u64)) -> String {
    let mut builder = Builder::new([7; 16], key.key_data(), valid.0, valid.1).unwrap();
    builder.serial(7).unwrap();
    builder.key_id(task).unwrap();
    builder.cert_type(CertType::User).unwrap();
    builder.valid_principal(principal).unwrap();
    builder.sign(ca.private()).unwrap().to_openssh().unwrap()
}

fn futures(listener: UnixListener) -> tokio_stream::wrappers::UnixListenerStream {
    tokio_stream::wrappers::UnixListenerStream::new(listener)
}

impl FewLines {
    fn refusal(&self, code: Code, message: &str) -> Status {
        let mut status = Status::permission_denied("refused");
        let metadata = status.metadata_mut();
        metadata.insert(grpc::CODE, code.as_str().parse().unwrap());
        metadata.insert(grpc::MESSAGE, message.parse().unwrap());
        for policies in &*self.0.policies.lock().unwrap() {
            metadata.append(grpc::POLICY, policies.parse().unwrap());
        }
        status
    }

    async fn take_time(&self) {
        let slow = self.0.slow_ms.load(Ordering::SeqCst);
        tokio::time::sleep(std::time::Duration::from_millis(slow)).await;
    }

    fn mint(&self, task: &str, target: &str, key: &str) -> Result<Response<TaskCertificate>, Status> {
        if target.starts_with("denied") {
            return Err(self.refusal(Code::PolicyDenied, "no policy permits it"));
        }
        if let Some(code) = *self.0.says_no.lock().unwrap() {
            return Err(self.refusal(code, "it says no"));
        }
        let now = relay::serve::now() + self.0.ahead_s.load(Ordering::SeqCst);
        let (after, before) = (now - 30, now + self.0.life_s.load(Ordering::SeqCst));
        let key = PublicKey::from_openssh(key).unwrap();
        Ok(Response::new(TaskCertificate {
            certificate: certificate(&self.0.key, task, target, &key, (after, before)),
            valid_after: after.cast_signed(),
            valid_before: before.cast_signed(),
            receipt_key: self.0.receipt.to_openssh(),
            actions: self
                .0
                .covers
                .lock()
                .unwrap()
                .iter()
                .map(|name| (*name).to_owned())
                .collect(),
            policy: "0".repeat(64),
            opened: now.cast_signed(),
            ends: now.cast_signed() + 28_800,
        }))
    }
}

#[tonic::async_trait]
impl Ca for FewLines {
    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<DescribeReply>, Status> {
        let now = relay::serve::now().cast_signed();
        Ok(Response::new(DescribeReply {
            build: "few-lines".into(),
            relay: "relay-1".into(),
            now,
            ..DescribeReply::default()
        }))
    }

    async fn open_task(&self, request: Request<OpenTaskRequest>) -> Result<Response<TaskCertificate>, Status> {
        let request = request.into_inner();
        self.0.opened.fetch_add(1, Ordering::SeqCst);
        self.take_time().await;
        let hangs = self
            .0
            .hangs
            .lock()
            .unwrap()
            .is_some_and(|hangs| hangs == request.target);
        if hangs {
            std::future::pending::<()>().await;
        }
        self.mint(&request.task_id, &request.target, &request.public_key)
    }

    async fn renew_task(&self, request: Request<RenewTaskRequest>) -> Result<Response<TaskCertificate>, Status> {
        let request = request.into_inner();
        self.0.renewed.fetch_add(1, Ordering::SeqCst);
        self.take_time().await;
        let target = if self.0.no_renewal.load(Ordering::SeqCst) {
            "denied"
        } else {
            &request.target
        };
        self.mint(&request.task_id, target, &request.public_key)
    }

    async fn authorize_action(
        &self,
        request: Request<AuthorizeActionRequest>,
    ) -> Result<Response<ActionCertificate>, Status> {
        let request = request.into_inner();
        let text = String::from_utf8(request.payload).unwrap();
        let payload = Payload::parse(text.as_bytes()).unwrap();
        self.0.authorized.lock().unwrap().push(text);
        self.take_time().await;
        if let Some(meanwhile) = &*self.0.meanwhile.lock().unwrap() {
            meanwhile();
        }
        if let Some(code) = *self.0.says_no.lock().unwrap() {
            return Err(self.refusal(code, "it says no"));
        }
        // As its copy of the manifests says, or its policy.
        let by_manifest = u32::from(["drain", "wipe_cache"].contains(&payload.action.as_str()));
        let approvals = self.0.approvals.load(Ordering::SeqCst).max(by_manifest);
        if approvals > request.approvals_held {
            return Ok(Response::new(ActionCertificate {
                approvals,
                policy: "0".repeat(64),
                policies: vec!["all".into()],
                ..ActionCertificate::default()
            }));
        }
        let now = relay::serve::now();
        let key = PublicKey::from_openssh(&request.public_key).unwrap();
        let principal = format!("action/{}", payload.target);
        let valid = (now - 30, now + 60);
        Ok(Response::new(ActionCertificate {
            certificate: certificate(&self.0.key, payload.task_id.as_str(), &principal, &key, valid),
            valid_after: valid.0.cast_signed(),
            valid_before: valid.1.cast_signed(),
            policy: "0".repeat(64),
            approvals,
            policies: vec!["all".into()],
        }))
    }
}
