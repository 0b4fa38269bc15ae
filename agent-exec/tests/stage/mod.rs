//! The target and everybody around it, as `order` is asked about them.

use agent_exec::order::{self, Knowledge, Permits, Task, Unverified, Verified};
use openssh::key::{PublicKey, SigningKey};
use openssh::sshsig;
use serde_json::{Value, json};
use ssh_key::certificate::{Builder, CertType};
use wire::ids::{Digest, Fingerprint, TargetName};
use wire::seal::Sealed;
use wire::{Code, FORCE_COMMAND, GRANT_EXTENSION, limits};

/// When all of it happens.
pub(crate) const NOW: u64 = 1_800_000_000;
pub(crate) const TASK: &str = "0192e4a0-7f00-7000-8000-000000000001";
pub(crate) const REQUEST: &str = "0192e4a0-7f00-7000-8000-00000000000a";

/// The target and everybody around it.
pub(crate) struct World {
    pub(crate) name: TargetName,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) ca: SigningKey,
    pub(crate) cas: [PublicKey; 1],
    pub(crate) task: SigningKey,
    pub(crate) login: PublicKey,
}

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32].into()).unwrap()
}

impl World {
    pub(crate) fn new() -> Self {
        let (ca, task) = (key(1), key(2));
        Self {
            name: "web-1".parse().unwrap(),
            fingerprint: Fingerprint::of(key(3).public()),
            cas: [ca.public().clone()],
            login: task.public().clone(),
            ca,
            task,
        }
    }

    pub(crate) fn knows(&self, now: u64) -> Knowledge<'_> {
        Knowledge {
            target: &self.name,
            key: &self.fingerprint,
            cas: &self.cas,
            login_key: Some(&self.login),
            max_lifetime_s: limits::TASK_CERTIFICATE_MAX_S,
            now,
        }
    }

    /// A certificate over the task's key with this grant, for this principal, valid from 30 s ago for `life` seconds.
    pub(crate) fn certificate(&self, principal: &str, life: u64, grant: &Value) -> String {
        self.certificate_of(grant["task_id"].as_str().unwrap(), principal, life, grant)
    }

    /// The same with a key id of its own.
    pub(crate) fn certificate_of(&self, key_id: &str, principal: &str, life: u64, grant: &Value) -> String {
        let after = NOW - limits::SKEW_S;
        let mut builder = Builder::new([7; 32], self.task.public().key_data(), after, after + life).unwrap();
        builder.cert_type(CertType::User).unwrap();
        builder.serial(5).unwrap();
        builder.key_id(key_id).unwrap();
        builder.valid_principal(principal).unwrap();
        builder.critical_option("force-command", FORCE_COMMAND).unwrap();
        builder.critical_option("source-address", "127.0.0.0/8").unwrap();
        builder.extension(GRANT_EXTENSION, grant.to_string()).unwrap();
        builder.sign(self.ca.private()).unwrap().to_openssh().unwrap()
    }

    pub(crate) fn accept(&self, grant: &Value, before: Option<&Task>) -> Result<Task, Code> {
        let text = self.certificate("web-1", 300, grant);
        order::accept(&text, &self.knows(NOW), before).map_err(|refusal| refusal.code)
    }

    pub(crate) fn task(&self) -> Task {
        self.accept(&grant(), None).unwrap()
    }

    pub(crate) fn seal(&self, payload: &Value) -> Sealed {
        let payload = payload.to_string();
        let sig = sshsig::sign(&self.task, sshsig::REQUEST, payload.as_bytes()).unwrap();
        Sealed { payload, sig }
    }

    pub(crate) fn verify(&self, payload: &Value) -> Result<Verified, Code> {
        order::verify(&self.seal(payload), Some(&self.task()), &self.knows(NOW)).map_err(|refused| match refused {
            Unverified::Stranger(refusal) | Unverified::Known { refusal, .. } => refusal.code,
        })
    }

    pub(crate) fn payload(&self) -> Value {
        json!({
            "v": 1, "task_id": TASK, "request_id": REQUEST,
            "requester": {"brain": "claude", "person": "alice", "proof": "relay"}, "reason": "why",
            "target": "web-1", "target_key": self.fingerprint, "action": "tail_log", "manifest": Digest::of(b"m"),
            "args": {}, "mode": "run", "expires": NOW + 50, "witness": {"relay": head()},
        })
    }

    /// An action certificate for this payload, changed.
    pub(crate) fn permit(&self, payload: &Value, life: u64, change: impl FnOnce(&mut Value)) -> String {
        let mut grant = grant();
        let pins = json!({
            "kind": "action", "actions": [payload["action"]], "manifest": payload["manifest"], "approvals": 0, "krl": 0,
            "request_sha256": Digest::of(payload.to_string().as_bytes()),
        });
        for (key, value) in pins.as_object().unwrap() {
            grant[key] = value.clone();
        }
        change(&mut grant);
        self.certificate("action/web-1", life, &grant)
    }

    pub(crate) fn permits(&self, text: &str) -> Result<Permits, Code> {
        let mut permits = Permits::default();
        permits
            .accept(text, &self.knows(NOW), Some(&self.task()))
            .map_err(|refusal| refusal.code)?;
        Ok(permits)
    }
}

pub(crate) fn head() -> Value {
    json!({"log": "0".repeat(32), "seq": 1, "hash": Digest::zero()})
}

pub(crate) fn grant() -> Value {
    json!({
        "v": 1, "kind": "task", "task_id": TASK, "opened": NOW - 100,
        "requester": {"brain": "claude", "person": "alice", "proof": "relay"}, "relay": "main", "target": "web-1",
        "actions": ["read_file", "tail_log"], "policy": Digest::zero(), "witness": {"ca": head()},
    })
}
