//! A relay that was taken over: it has what the relay has (a task's key and certificate) and none of the relay's checks.
//! It speaks to agent-exec line by line through OpenSSH's client and says whatever a test wants said. Written from the
//! specification and not over the wire crate, so that a mistake there is not repeated here.

use anyhow::{Context as _, Result, anyhow};
use openssh::key::SigningKey;
use openssh::sshsig;
use serde_json::{Map, Value, json};

use crate::ssh::Session;
use crate::stack::{Opened, Stack, new_id, now};

/// An open session with a live task on one target.
pub struct EvilRelay {
    /// The task: id, key, certificate.
    pub task: Opened,
    /// The lines to the target.
    pub session: Session,
    /// What the target said first, unverified.
    pub hello: Value,
    target: String,
}

impl EvilRelay {
    /// Opens a task at the CA, logs in and presents the certificate: everything still honest.
    pub fn start(stack: &Stack, target: &str) -> Result<EvilRelay> {
        let mut relay = EvilRelay::log_in(stack, target, stack.open_task(target)?)?;
        relay.present_own()?;
        Ok(relay)
    }

    /// Logs in with this task's certificate, reads the hello and presents nothing yet.
    pub fn log_in(stack: &Stack, target: &str, task: Opened) -> Result<EvilRelay> {
        let session = stack
            .login(&task.key, &task.certificate)?
            .session(stack.target(target)?)?;
        EvilRelay::over(target, task, session)
    }

    /// Takes over a session that was just opened: reads the hello and presents nothing yet.
    pub fn over(target: &str, task: Opened, session: Session) -> Result<EvilRelay> {
        let first = session.line().context("the target said no hello")?;
        let text = first
            .get("hello")
            .and_then(Value::as_str)
            .ok_or_else(|| anyhow!("not a hello: {first}"))?;
        Ok(EvilRelay {
            hello: serde_json::from_str(text)?,
            task,
            session,
            target: target.to_owned(),
        })
    }

    /// Presents the task's own certificate. A certificate that is accepted is not answered.
    pub fn present_own(&mut self) -> Result<()> {
        let line = json!({"certificate": self.task.certificate}).to_string();
        self.session.send(line)
    }

    /// Presents any text as a certificate. Its answer, if it is refused, comes with the next [`Session::line`].
    pub fn present(&mut self, certificate: &str) -> Result<()> {
        self.session.send(json!({ "certificate": certificate }).to_string())
    }

    /// An honest payload, to be changed before it is sent.
    pub fn payload(&self, action: &str, args: Value) -> Map<String, Value> {
        let hello = |pointer: &str| self.hello.pointer(pointer).cloned().unwrap_or_default();
        let key = hello("/receipt_key")
            .as_str()
            .and_then(|text| openssh::key::PublicKey::from_openssh(text).ok());
        let manifest = match self.hello.pointer(&format!("/manifests/{action}")) {
            Some(digest) => digest.clone(),
            None => "0".repeat(64).into(),
        };
        let payload = json!({
            "v": 1, "task_id": self.task.task_id, "request_id": new_id(),
            "requester": {"brain": "harness", "person": "alice", "proof": "relay"}, "reason": "a test",
            "target": self.target, "target_key": key.map(|key| key.fingerprint()).unwrap_or_default(),
            "action": action, "manifest": manifest, "args": args, "mode": "run", "expires": now() + 50,
            "witness": {"relay": hello("/head")},
        });
        match payload {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    /// A request line: this text, signed by this key for this namespace.
    pub fn line(payload: &str, key: &SigningKey, namespace: &str) -> Result<String> {
        let sig = sshsig::sign(key, namespace, payload.as_bytes())?;
        Ok(json!({"payload": payload, "sig": sig}).to_string())
    }

    /// Signs this text with the task's key, sends it, and returns the answer.
    pub fn send_text(&mut self, payload: &str) -> Result<Value> {
        let line = EvilRelay::line(payload, &self.task.key, sshsig::REQUEST)?;
        self.ask(&line)
    }

    /// Signs this payload with the task's key, sends it, and returns the answer.
    pub fn send(&mut self, payload: &Map<String, Value>) -> Result<Value> {
        self.send_text(&serde_json::to_string(payload)?)
    }

    /// An honest call whose answer is not waited for; the request's id.
    pub fn begin(&mut self, action: &str, args: Value) -> Result<String> {
        let payload = self.payload(action, args);
        let text = serde_json::to_string(&payload)?;
        let line = EvilRelay::line(&text, &self.task.key, sshsig::REQUEST)?;
        self.session.send(line)?;
        let id = payload.get("request_id").and_then(Value::as_str);
        Ok(id.unwrap_or_default().to_owned())
    }

    /// One honest call.
    pub fn call(&mut self, action: &str, args: Value) -> Result<Value> {
        let payload = self.payload(action, args);
        self.send(&payload)
    }

    /// Sends a line and returns the next line.
    pub fn ask(&mut self, line: &str) -> Result<Value> {
        self.session.send(line)?;
        self.session.line()
    }
}

/// The Outcome inside an answer, where it is one.
pub fn outcome(answer: &Value) -> Option<Value> {
    serde_json::from_str(answer.get("payload")?.as_str()?).ok()
}

/// The Code of an answer: of a refused line, or of an Outcome that is not ok; `none` where nothing was refused.
pub fn code(answer: &Value) -> String {
    let word = |value: &Value| value.as_str().map(str::to_owned);
    if let Some(code) = answer.pointer("/refused/code") {
        return word(code).unwrap_or_default();
    }
    outcome(answer)
        .and_then(|outcome| outcome.get("code").and_then(word))
        .unwrap_or_else(|| "none".to_owned())
}
