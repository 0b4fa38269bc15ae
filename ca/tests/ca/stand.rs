//! A CA that knows actions with effects, a task that is open on web-1, and requests of it.

use audit::{Event, Record};
use grpc::v1;
use serde_json::{Value, json};
use tonic::Status;
use wire::ids::{Digest, Fingerprint};
use wire::{Code, Head, Mode, Payload, PayloadWitness, Proof, Requester};

use crate::room::{Room, Running, file, key, now, open};

/// Counts its runs: a change with a default, so that a payload must say what it was.
pub(crate) const COUNT: &str = r#"
name = "count"
title = "Count"
description = "Adds to a counter."
risk = "change"
timeout_ms = 1_000
[args]
required = ["counter"]
properties.counter = { type = "string", enum = ["one", "two"] }
properties.by = { type = "integer", minimum = 1, maximum = 9, default = 1 }
[exec]
program = "/usr/libexec/writ/count"
argv = ["{counter}", "{by}"]
[sandbox]
profile = "tool"
"#;

/// Drops a table: two people must approve, and it can be tried out.
pub(crate) const DROP: &str = r#"
name = "drop_table"
title = "Drop a table"
description = "Drops a table of the shop."
risk = "destroy"
timeout_ms = 1_000
approvals = 2
approval_window_s = 600
[args]
required = ["table"]
properties.table = { type = "string", enum = ["carts"] }
[exec]
program = "/usr/libexec/writ/drop"
argv = ["{table}"]
[dry_run]
argv = ["--dry-run", "{table}"]
risk = "read"
[sandbox]
profile = "tool"
"#;

/// Lets everybody do everything.
pub(crate) const ALL: &str = "@id(\"all\") permit(principal, action, resource);";

pub(crate) struct Stand {
    pub(crate) room: Room,
    pub(crate) running: Running,
    /// How the task was opened.
    pub(crate) call: v1::OpenTaskRequest,
    /// What its certificate listed.
    pub(crate) reads: Vec<String>,
}

impl Stand {
    pub(crate) async fn new() -> Self {
        Self::with_policy(ALL).await
    }

    pub(crate) async fn with_policy(policy: &str) -> Self {
        let room = Room::with_policy(policy);
        for (name, text) in [("count", COUNT), ("drop_table", DROP)] {
            file(&room.config.catalogue_dir.join(format!("{name}.toml")), text);
        }
        let running = room.serve().await;
        let call = open(1);
        let reads = running.open(&call).await.unwrap().actions;
        Self {
            room,
            running,
            call,
            reads,
        }
    }

    /// Stops the CA, lets somebody at its files or its configuration, and starts it again.
    pub(crate) async fn again(self, change: impl FnOnce(&mut Room)) -> Self {
        let Self {
            mut room,
            running,
            call,
            reads,
        } = self;
        running.stop().await;
        change(&mut room);
        let running = room.serve().await;
        Self {
            room,
            running,
            call,
            reads,
        }
    }

    pub(crate) async fn stop(self) {
        self.running.stop().await;
    }

    /// A request that fits the task and the catalogue, to be changed.
    pub(crate) fn payload(&self, action: &str, args: Value) -> Payload {
        let manifest = self.room.config.catalogue_dir.join(format!("{action}.toml"));
        payload(&self.call, action, &std::fs::read(manifest).unwrap(), args)
    }

    /// One more on the counter.
    pub(crate) fn count(&self) -> Payload {
        self.payload("count", json!({"counter": "one", "by": 1}))
    }

    pub(crate) fn asking(&self, bytes: impl Into<Vec<u8>>) -> v1::AuthorizeActionRequest {
        v1::AuthorizeActionRequest {
            payload: bytes.into(),
            public_key: self.call.public_key.clone(),
            approvals_held: 0,
        }
    }

    /// The same by a relay that says how many approvals it holds.
    pub(crate) async fn ask_holding(&self, held: u32, payload: &Payload) -> Result<v1::ActionCertificate, Status> {
        let call = v1::AuthorizeActionRequest {
            approvals_held: held,
            ..self.asking(bytes(payload))
        };
        self.running.authorize(&call).await
    }

    pub(crate) async fn ask(&self, payload: &Payload) -> Result<v1::ActionCertificate, Status> {
        self.running.authorize(&self.asking(bytes(payload))).await
    }

    /// Every refusal of a request goes through here: its Code, one record that names the request, nothing authorized.
    pub(crate) async fn refuses(&self, payload: &Payload, code: Code) -> Record {
        let record = self.refuses_bytes(bytes(payload), code).await;
        assert_eq!(record.draft.request_id, Some(payload.request_id.clone()));
        assert_eq!(record.draft.task_id, Some(payload.task_id.clone()));
        assert_eq!(record.draft.action, Some(payload.action.clone()));
        record
    }

    /// The same for bytes that need be no request.
    pub(crate) async fn refuses_bytes(&self, bytes: impl Into<Vec<u8>>, code: Code) -> Record {
        let bytes = bytes.into();
        let record = self.running.refuses_authorize(&self.asking(bytes.clone()), code).await;
        assert_eq!(record.draft.request_sha256, Some(Digest::of(&bytes)));
        assert_eq!(record.draft.relay.as_ref().unwrap().as_str(), "relay-1");
        assert!(!self.running.events().contains(&Event::Authorize), "nothing was signed");
        record
    }
}

pub(crate) fn bytes(payload: &Payload) -> Vec<u8> {
    serde_json::to_vec(payload).unwrap()
}

/// A request of the task that `call` opened, for the target with the receipt key 101.
pub(crate) fn payload(call: &v1::OpenTaskRequest, action: &str, manifest: &[u8], args: Value) -> Payload {
    let Value::Object(args) = args else { panic!("{args}") };
    Payload {
        v: wire::VERSION,
        task_id: call.task_id.parse().unwrap(),
        request_id: uuid::Uuid::now_v7().to_string().parse().unwrap(),
        requester: Requester {
            brain: call.brain.parse().unwrap(),
            person: call.person.parse().unwrap(),
            proof: Proof::Relay,
        },
        reason: call.reason.parse().unwrap(),
        target: call.target.parse().unwrap(),
        target_key: Fingerprint::of(key(101).public()),
        action: action.parse().unwrap(),
        manifest: Digest::of(manifest),
        args,
        mode: Mode::Run,
        expires: now() + 60,
        witness: PayloadWitness {
            relay: Head {
                log: "0123456789abcdef0123456789abcdef".parse().unwrap(),
                seq: 7,
                hash: Digest::of(b"the relay's newest record"),
            },
        },
    }
}
