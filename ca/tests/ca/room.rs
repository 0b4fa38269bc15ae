//! A CA in a folder of its own, and a relay's client for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use audit::{Event, Record};
use ca::config::{Config, KnownBy, Relay, Targets};
use ca::{signer, start};
use catalogue::{HostTrust, Target};
use grpc::v1;
use grpc::v1::ca_client::CaClient;
use openssh::key::SigningKey;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use wire::Code;
use zeroize::Zeroizing;

/// Everything a CA needs, with two relays: relay-1 is whoever runs the test and speaks for alice and on web-1 and web-2;
/// relay-2 is somebody else and speaks for bob.
pub(crate) struct Room {
    pub(crate) dir: TempDir,
    pub(crate) config: Config,
    /// Seconds that are added to the clock.
    pub(crate) ahead: Arc<AtomicU64>,
}

/// A CA that serves.
pub(crate) struct Running {
    pub(crate) client: CaClient<Channel>,
    log_dir: PathBuf,
    socket: PathBuf,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), start::ServeError>>,
}

pub(crate) fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&Zeroizing::new([seed; 32])).unwrap()
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub(crate) fn target(name: &str, seed: u8, labels: &[(&str, &str)]) -> Target {
    let labels: BTreeMap<String, String> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let trust = HostTrust::Ca(key(200).public().clone());
    Target::new(
        name.parse().unwrap(),
        "127.0.0.1:22",
        trust,
        key(seed).public().clone(),
        labels,
    )
    .unwrap()
}

/// A folder with the mode wanted whatever the umask.
pub(crate) fn folder(path: &Path, mode: u32) {
    fs::create_dir_all(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn file(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
}

/// Copies the shipped manifests.
pub(crate) fn catalogue(to: &Path) {
    folder(to, 0o755);
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/catalogue/actions.d");
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        file(&to.join(entry.file_name()), &fs::read_to_string(entry.path()).unwrap());
    }
}

pub(crate) const SHIPPED_POLICY: &str = include_str!("../../../deploy/ca/policy.cedar");

impl Room {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        folder(&at("run"), 0o755);
        folder(&at("state"), 0o700);
        folder(&at("log"), 0o2750);
        catalogue(&at("actions.d"));
        signer::create_dir(&at("keys")).unwrap();
        signer::create(&at("keys"), signer::TASK_CA, &Zeroizing::new([201; 32])).unwrap();
        signer::create(&at("keys"), signer::HOST_CA, &Zeroizing::new([200; 32])).unwrap();
        file(&at("policy.cedar"), SHIPPED_POLICY);
        let inventory = [
            target("web-1", 101, &[("env", "demo")]),
            target("web-2", 102, &[]),
            target("db-1", 103, &[]),
        ];
        file(
            &at("inventory.toml"),
            &inventory.iter().map(Target::stanza).collect::<String>(),
        );
        let relay = |name: &str, uid: u32, person: &str, targets| Relay {
            name: name.parse().unwrap(),
            known_by: KnownBy::Uid(uid),
            persons: [person.parse().unwrap()].into(),
            targets,
            source_addresses: vec!["127.0.0.0/8".parse().unwrap(), "10.1.2.3".parse().unwrap()],
            calls_per_minute: 1_000_000,
            person_calls_per_minute: 1_000_000,
            refusals_per_minute: 1_000_000,
        };
        let mine = Targets::Only(["web-1", "web-2", "gone"].map(|name| name.parse().unwrap()).into());
        let config = Config {
            socket: at("run/ca.sock"),
            tls_listen: None,
            key_dir: at("keys"),
            state_dir: at("state"),
            log_dir: at("log"),
            inventory: at("inventory.toml"),
            catalogue_dir: at("actions.d"),
            policy: at("policy.cedar"),
            task_lifetime_s: 300,
            labels: BTreeSet::new(),
            relays: vec![
                relay("relay-1", own_uid(), "alice", mine),
                relay("relay-2", own_uid() + 1, "bob", Targets::All),
            ],
        };
        Self {
            dir,
            config,
            ahead: Arc::default(),
        }
    }

    pub(crate) fn with_policy(text: &str) -> Self {
        let room = Self::new();
        file(&room.config.policy, text);
        room
    }

    pub(crate) async fn serve(&self) -> Running {
        let ahead = Arc::clone(&self.ahead);
        let clock = Box::new(move || now() + ahead.load(Ordering::SeqCst));
        let starts = || {
            let records = records(&self.config.log_dir);
            records
                .iter()
                .filter(|record| record.draft.event == Event::Start)
                .count()
        };
        let before = if self.config.log_dir.is_dir() { starts() } else { 0 };
        let loaded = start::load(self.config.clone(), clock).unwrap();
        let (stop, stopped) = oneshot::channel();
        let config = self.config.clone();
        let serving = tokio::spawn(async move {
            start::serve(loaded.authority, &config, async {
                let _ = stopped.await;
            })
            .await
        });
        let client = connect(&self.config.socket).await;
        // The socket is there before it is recorded that it is: a test that counts records must not count that one.
        while starts() == before {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let (log_dir, socket) = (self.config.log_dir.clone(), self.config.socket.clone());
        Running {
            client,
            log_dir,
            socket,
            stop,
            serving,
        }
    }
}

pub(crate) async fn connect(socket: &Path) -> CaClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display())).unwrap();
    for _ in 0..500 {
        if let Ok(channel) = endpoint.connect().await {
            return CaClient::new(channel);
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("nobody serves at {}", socket.display());
}

/// A call that is granted, to be changed.
pub(crate) fn open(seed: u8) -> v1::OpenTaskRequest {
    v1::OpenTaskRequest {
        task_id: uuid::Uuid::now_v7().to_string(),
        brain: "claude".into(),
        person: "alice".into(),
        proof: "relay".into(),
        reason: "look at the log".into(),
        target: "web-1".into(),
        public_key: key(seed).public().to_openssh(),
    }
}

pub(crate) fn renewal(call: &v1::OpenTaskRequest) -> v1::RenewTaskRequest {
    v1::RenewTaskRequest {
        task_id: call.task_id.clone(),
        target: call.target.clone(),
        public_key: call.public_key.clone(),
    }
}

/// The policies that a refusal names.
pub(crate) fn policies_of(status: &Status) -> Vec<String> {
    let entry = status.metadata().get(grpc::POLICY);
    entry.map_or_else(Vec::new, |entry| grpc::policies::read(entry.to_str().unwrap()).unwrap())
}

pub(crate) fn code_of(status: &Status) -> Code {
    let text = status
        .metadata()
        .get(grpc::CODE)
        .unwrap_or_else(|| panic!("no code in {status:?}"));
    assert!(status.metadata().get(grpc::MESSAGE).is_some());
    text.to_str().unwrap().parse().unwrap()
}

/// Every record of a log, in order, each read strictly.
pub(crate) fn records(log_dir: &Path) -> Vec<Record> {
    let mut paths: Vec<_> = fs::read_dir(log_dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let mut records = Vec::new();
    for path in paths {
        let bytes = fs::read(path).unwrap();
        let lines = bytes
            .split_inclusive(|byte| *byte == b'\n')
            .filter(|line| line.ends_with(b"\n"));
        records.extend(lines.map(|line| Record::parse(line).unwrap()));
    }
    records
}

impl Running {
    pub(crate) fn records(&self) -> Vec<Record> {
        records(&self.log_dir)
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.records().into_iter().map(|record| record.draft.event).collect()
    }

    pub(crate) async fn open(&self, call: &v1::OpenTaskRequest) -> Result<v1::TaskCertificate, Status> {
        self.client
            .clone()
            .open_task(call.clone())
            .await
            .map(tonic::Response::into_inner)
    }

    pub(crate) async fn renew(&self, call: &v1::RenewTaskRequest) -> Result<v1::TaskCertificate, Status> {
        self.client
            .clone()
            .renew_task(call.clone())
            .await
            .map(tonic::Response::into_inner)
    }

    pub(crate) async fn authorize(&self, call: &v1::AuthorizeActionRequest) -> Result<v1::ActionCertificate, Status> {
        self.client
            .clone()
            .authorize_action(call.clone())
            .await
            .map(tonic::Response::into_inner)
    }

    /// Every refusal of a relay goes through here: the Code, exactly one record of it, and nothing else in the log.
    pub(crate) async fn refuses_open(&self, call: &v1::OpenTaskRequest, code: Code) -> Record {
        let before = self.records().len();
        let status = self.open(call).await.expect_err("refused");
        self.one_refusal(before, &status, code)
    }

    /// The same for a renewal.
    pub(crate) async fn refuses_renewal(&self, call: &v1::RenewTaskRequest, code: Code) -> Record {
        let before = self.records().len();
        let status = self.renew(call).await.expect_err("refused");
        self.one_refusal(before, &status, code)
    }

    /// The same for a request.
    pub(crate) async fn refuses_authorize(&self, call: &v1::AuthorizeActionRequest, code: Code) -> Record {
        let before = self.records().len();
        let status = self.authorize(call).await.expect_err("refused");
        self.one_refusal(before, &status, code)
    }

    fn one_refusal(&self, before: usize, status: &Status, code: Code) -> Record {
        assert_eq!(code_of(status), code, "{status:?}");
        let mut records = self.records().split_off(before);
        assert_eq!(records.len(), 1, "one record for one refusal: {records:?}");
        let record = records.remove(0);
        assert_eq!((record.draft.event, record.draft.code), (Event::Refused, Some(code)));
        record
    }

    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        self.serving.await.unwrap().unwrap();
    }
}
