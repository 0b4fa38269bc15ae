//! The Codes of tests/vectors: what a target answers to each certificate and each request there.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test says why")]

use std::fs;
use std::path::Path;

use agent_exec::order::{self, Knowledge, Own, Task, Unverified};
use openssh::key::PublicKey;
use serde_json::Value;
use wire::ids::{Fingerprint, TargetName};
use wire::seal::Sealed;
use wire::{Risk, limits};

fn cases(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/vectors")
        .join(file);
    let file: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    file["cases"].as_array().unwrap().clone()
}

fn key(name: &str) -> PublicKey {
    let keys = cases("keys.json");
    let key = keys.iter().find(|key| key["name"] == name).unwrap();
    PublicKey::from_openssh(key["public"].as_str().unwrap()).unwrap()
}

/// The target of the vectors: web-1, with the receipt key and the task CA of keys.json.
struct Web1 {
    name: TargetName,
    fingerprint: Fingerprint,
    cas: [PublicKey; 1],
    login: PublicKey,
}

impl Web1 {
    fn new() -> Self {
        Self {
            name: "web-1".parse().unwrap(),
            fingerprint: Fingerprint::of(&key("receipt")),
            cas: [key("task_ca")],
            login: key("task"),
        }
    }

    fn knows(&self, now: u64) -> Knowledge<'_> {
        Knowledge {
            target: &self.name,
            key: &self.fingerprint,
            cas: &self.cas,
            login_key: Some(&self.login),
            max_lifetime_s: limits::TASK_CERTIFICATE_MAX_S,
            now,
        }
    }

    fn accept(&self, text: &str, now: u64) -> Result<Task, String> {
        order::accept(text, &self.knows(now), None).map_err(|refusal| refusal.code.to_string())
    }

    /// Everything that is checked of a read before its manifest is looked at.
    fn verify(&self, sealed: &Sealed, task: &Task, now: u64) -> Result<(), String> {
        let verified = match order::verify(sealed, Some(task), &self.knows(now)) {
            Ok(verified) => verified,
            Err(Unverified::Stranger(refusal) | Unverified::Known { refusal, .. }) => {
                return Err(refusal.code.to_string());
            }
        };
        let own = Own {
            risk: Risk::Read,
            manifest: &verified.payload().manifest,
            approvals: 0,
            approval_window_s: None,
            dry_run: None,
        };
        order::timely(verified.payload(), now)
            .and_then(|()| order::permitted(&verified, own, None, &self.knows(now)).map(drop))
            .map_err(|refusal| refusal.code.to_string())
    }
}

fn text<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key]
        .as_str()
        .unwrap_or_else(|| panic!("{}: no {key}", case["name"]))
}

/// That a case ended as it says: accepted, or refused with its Code.
fn judge(case: &Value, result: Result<(), String>) {
    let expected = match text(case, "expect") {
        "ok" => Ok(()),
        _ => Err(text(case, "code").to_owned()),
    };
    assert_eq!(result, expected, "{}", case["name"]);
}

#[test]
fn each_certificate_of_the_vectors_gets_its_code() {
    let web_1 = Web1::new();
    for case in cases("certificate.json") {
        let accepted = web_1.accept(text(&case, "text"), case["now"].as_u64().unwrap());
        judge(&case, accepted.map(drop));
    }
}

#[test]
fn each_request_of_the_vectors_gets_its_code() {
    let web_1 = Web1::new();
    for case in cases("request.json") {
        let now = case["now"].as_u64().unwrap();
        let task = web_1.accept(text(&case, "certificate"), now).unwrap();
        let sealed = Sealed {
            payload: text(&case, "text").to_owned(),
            sig: text(&case, "sig").to_owned(),
        };
        judge(&case, web_1.verify(&sealed, &task, now));
    }
}

/// REQ-CERT-15: what was good when the session began is judged again for every request.
#[test]
fn a_certificate_that_ended_or_whose_ca_is_gone_covers_no_further_request() {
    let web_1 = Web1::new();
    let case = cases("request.json")
        .into_iter()
        .find(|case| case["expect"] == "ok")
        .unwrap();
    let now = case["now"].as_u64().unwrap();
    let task = web_1.accept(text(&case, "certificate"), now).unwrap();
    let sealed = Sealed {
        payload: text(&case, "text").to_owned(),
        sig: text(&case, "sig").to_owned(),
    };
    assert_eq!(web_1.verify(&sealed, &task, now), Ok(()));
    let ended = task.certificate().valid_before() + 30;
    assert_eq!(
        web_1.verify(&sealed, &task, ended),
        Err("certificate_expired".to_owned())
    );
    let early = task.certificate().valid_after() - 31;
    assert_eq!(
        web_1.verify(&sealed, &task, early),
        Err("certificate_not_yet_valid".to_owned())
    );
    let nobody = Knowledge {
        cas: &[],
        ..web_1.knows(now)
    };
    match order::verify(&sealed, Some(&task), &nobody) {
        Err(Unverified::Known { refusal, .. }) => assert_eq!(refusal.code, wire::Code::CertificateUntrusted),
        other => panic!("{other:?}"),
    }
}
