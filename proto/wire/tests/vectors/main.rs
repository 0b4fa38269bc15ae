//! The vectors of tests/vectors: examples of every format of the wire, signed with known keys, and hostile ones.
//!
//! They are for whoever writes a relay or a target in another language, and the specs in docs/spec quote them. The tests
//! hold three things together: what the code makes (`make`), what the files say, and what the specs show (`docs`).
//! After a change of a format: `cargo test -p writ-wire --test vectors -- --ignored write_vectors`, then read the diff.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test says why"
)]

mod docs;
mod make;

use std::fs;
use std::path::{Path, PathBuf};

use openssh::certificate::{self, UserTerms};
use openssh::key::PublicKey;
use openssh::sshsig;
use serde::{Deserialize, Serialize};
use wire::ids::Digest;
use wire::lines::{RelayLine, TargetLine};
use wire::{FORCE_COMMAND, GRANT_EXTENSION, Grant, Hello, Outcome, Payload, enrolment, limits, statement, strict};

/// One file of vectors.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// The spec that says what the cases mean.
    spec: String,
    cases: Vec<Case>,
}

/// What is to be done with a case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Expect {
    #[default]
    Ok,
    Refused,
}

/// One vector. Which of its fields are there depends on the file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    expect: Expect,
    /// What is wrong with it, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// The stable Code with which a target refuses it, where it gets as far as a Code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// The bytes, where they are UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The bytes in hexadecimal, where they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
    /// SHA-256 of the bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    /// Who signed it, by the name in keys.json.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sig: Option<String>,
    /// The certificate of the session that a request comes in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    /// What a line means, or who sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    means: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// The target's clock, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    now: Option<u64>,
    /// Lines `on` of an approval, and the Statement that they give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    statement: Option<String>,
    /// A public key and the seed that makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seed: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    public: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
}

impl Case {
    fn bytes(&self) -> Vec<u8> {
        match (&self.text, &self.hex) {
            (Some(text), None) => text.clone().into_bytes(),
            (None, Some(hex)) => (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
                .collect(),
            _ => panic!("{}: text or hex", self.name),
        }
    }

    /// Whether something refused it, and that this is what was expected.
    fn judge(&self, accepted: bool) {
        assert_eq!(accepted, self.expect == Expect::Ok, "{}: {:?}", self.name, self.why);
    }
}

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn folder() -> PathBuf {
    root().join("tests/vectors")
}

fn read(file: &str) -> Vec<Case> {
    let text = fs::read(folder().join(file)).unwrap();
    let file: File = serde_json::from_slice(&text).unwrap();
    file.cases
}

fn public(name: &str) -> PublicKey {
    let cases = read("keys.json");
    let key = cases.iter().find(|case| case.name == name).unwrap();
    PublicKey::from_openssh(key.public.as_deref().unwrap()).unwrap()
}

#[test]
#[ignore = "writes the files that the other tests compare with; read the diff before it is committed"]
fn write_vectors() {
    for (name, file) in make::all() {
        fs::write(folder().join(name), make::print(&file)).unwrap();
    }
    docs::write();
}

#[test]
fn the_files_are_what_the_code_gives() {
    for (name, file) in make::all() {
        let there = fs::read_to_string(folder().join(name)).unwrap_or_default();
        assert!(there == make::print(&file), "{name} is not what the code gives");
    }
}

#[test]
fn the_specs_show_what_is_in_the_files() {
    assert_eq!(docs::faults(), Vec::<String>::new());
}

/// REQ-JSON-1, REQ-JSON-2, REQ-JSON-3, REQ-JSON-5, REQ-JSON-6, REQ-JSON-7, REQ-JSON-8, REQ-JSON-11
#[test]
fn strict_json_is_read_as_the_vectors_say() {
    for case in read("strict-json.json") {
        case.judge(strict::value(&case.bytes(), 4096).is_ok());
    }
}

/// REQ-GRANT-1, REQ-GRANT-2, REQ-GRANT-3, REQ-PAYLOAD-4, REQ-OUTCOME-1, REQ-OUTCOME-2, REQ-JSON-4, REQ-JSON-10
#[test]
fn objects_are_read_as_the_vectors_say() {
    type Reader = fn(&[u8]) -> bool;
    let readers: [(&str, Reader); 4] = [
        ("grant.json", |bytes| Grant::parse(bytes).is_ok()),
        ("payload.json", |bytes| Payload::parse(bytes).is_ok()),
        ("hello.json", |bytes| Hello::parse(bytes).is_ok()),
        ("outcome.json", |bytes| Outcome::parse(bytes).is_ok()),
    ];
    for (file, reader) in readers {
        for case in read(file) {
            let bytes = case.bytes();
            case.judge(reader(&bytes));
            if let Some(sha256) = &case.sha256 {
                assert_eq!(Digest::of(&bytes).as_str(), sha256, "{}", case.name);
            }
            if case.sig.is_some() {
                assert!(verified(&case), "{}", case.name);
            }
        }
    }
}

fn verified(case: &Case) -> bool {
    let (sig, key) = (case.sig.as_deref().unwrap(), case.key.as_deref().unwrap());
    sshsig::verify(sig, &public(key), case.namespace.as_deref().unwrap(), &case.bytes()).is_ok()
}

/// REQ-SIG-1, REQ-SIG-2, REQ-SIG-3, REQ-SIG-4, REQ-SIG-5, REQ-SIG-6, REQ-SIG-7
#[test]
fn signatures_hold_as_the_vectors_say() {
    for case in read("sshsig.json") {
        case.judge(verified(&case));
    }
}

/// REQ-CERT-2, REQ-CERT-3, REQ-CERT-4, REQ-CERT-5, REQ-CERT-6, REQ-CERT-7, REQ-CERT-8, REQ-CERT-9, REQ-CERT-10
#[test]
fn certificates_are_accepted_as_the_vectors_say() {
    for case in read("certificate.json") {
        let cas = [public("task_ca")];
        let accepted = certificate::check_user(
            case.text.as_deref().unwrap(),
            &UserTerms {
                cas: &cas,
                principal: make::TARGET,
                force_command: FORCE_COMMAND,
                grant: GRANT_EXTENSION,
                now: case.now.unwrap(),
                skew_s: limits::SKEW_S,
                max_lifetime_s: limits::TASK_CERTIFICATE_MAX_S + limits::SKEW_S,
            },
        );
        // Those that fail for what their grant says are told apart by the Code, which agent-exec's own test compares.
        let of_the_grant = case
            .code
            .as_deref()
            .is_some_and(|code| code.starts_with("grant_m") && code != "grant_missing");
        if !of_the_grant {
            case.judge(accepted.is_ok());
        }
    }
}

/// REQ-SESSION-1, REQ-STATEMENT-8
#[test]
fn lines_mean_what_the_vectors_say() {
    for case in read("line.json") {
        let bytes = case.bytes();
        let means = match case.from.as_deref() {
            Some("relay") => RelayLine::parse(&bytes).ok().map(|line| match line {
                RelayLine::Certificate(_) => "certificate",
                RelayLine::Request(..) => "request",
                RelayLine::Outcome(_) => "outcome",
                RelayLine::Krl(_) => "krl",
            }),
            Some("target") => TargetLine::parse(&bytes).ok().map(|line| match line {
                TargetLine::Hello(_) => "hello",
                TargetLine::Answer(_) => "answer",
                TargetLine::Refused { .. } => "refused",
            }),
            other => panic!("{}: from {other:?}", case.name),
        };
        case.judge(means.is_some());
        assert_eq!(means, case.means.as_deref(), "{}", case.name);
    }
}

/// REQ-ENROL-1
#[test]
fn lines_of_an_enrolment_mean_what_the_vectors_say() {
    for case in read("enrolment.json") {
        let bytes = case.bytes();
        let again = match case.from.as_deref() {
            Some("target") => enrolment::Wish::parse(&bytes).ok().map(|wish| wish.to_line()),
            Some("ca") => enrolment::Answer::parse(&bytes).ok().map(|answer| answer.to_line()),
            other => panic!("{}: from {other:?}", case.name),
        };
        case.judge(again.is_some());
        if let Some(again) = again {
            assert_eq!(again.trim_end().as_bytes(), bytes.trim_ascii_end(), "{}", case.name);
        }
    }
}

/// REQ-APPROVER-2, REQ-APPROVER-3
#[test]
fn files_of_approvers_are_read_as_the_vectors_say() {
    for case in read("approvers.json") {
        let text = String::from_utf8(case.bytes()).unwrap();
        case.judge(openssh::allowed_signers::AllowedSigners::parse(&text).is_ok());
    }
}

/// REQ-STATEMENT-5, REQ-STATEMENT-6
#[test]
fn a_statement_is_written_again_from_its_payload() {
    for case in read("statement.json") {
        let payload = Payload::parse(&case.bytes()).unwrap();
        let on = case.on.clone().unwrap();
        let text = statement::render(&payload, &on);
        assert_eq!(Some(&text), case.statement.as_ref(), "{}", case.name);
        let own = statement::on_line(&payload, &case.bytes());
        assert_eq!(on.iter().filter(|line| **line == own).count(), 1, "{}", case.name);
        let key = public(case.key.as_deref().unwrap());
        let sig = case.sig.as_deref().unwrap();
        assert_eq!(
            sshsig::verify(sig, &key, sshsig::APPROVE, text.as_bytes()),
            Ok(()),
            "{}",
            case.name
        );
    }
}

/// The whole session, read as a stranger would who has the two public keys and nothing else.
/// REQ-SESSION-3, REQ-SESSION-17
#[test]
fn a_session_holds_together_from_hello_to_answer() {
    let lines = read("session.json");
    let [hello, certificate, request, answer] = lines.as_slice() else {
        panic!("four lines")
    };
    let Ok(TargetLine::Hello(hello)) = TargetLine::parse(&hello.bytes()) else {
        panic!("a hello first")
    };
    assert_eq!(hello.verify(&public("receipt"), sshsig::HELLO), Ok(()));
    let Ok(RelayLine::Certificate(certificate)) = RelayLine::parse(&certificate.bytes()) else {
        panic!("then a certificate")
    };
    assert_eq!(certificate, make::certificate_text());
    let Ok(RelayLine::Request(request, None)) = RelayLine::parse(&request.bytes()) else {
        panic!("then a request")
    };
    assert_eq!(request.verify(&public("task"), sshsig::REQUEST), Ok(()));
    let Ok(TargetLine::Answer(answer)) = TargetLine::parse(&answer.bytes()) else {
        panic!("then its answer")
    };
    assert_eq!(answer.outcome.verify(&public("receipt"), sshsig::OUTCOME), Ok(()));
    let outcome = Outcome::parse(answer.outcome.payload.as_bytes()).unwrap();
    assert_eq!(outcome.request_sha256, Digest::of(request.payload.as_bytes()));
    let sent = outcome.output.unwrap().sent_sha256;
    assert_eq!(sent, Digest::of(answer.output.unwrap().as_bytes()));
}
