//! The vectors as the code makes them: fixed keys, a fixed clock, fixed names.

use openssh::key::SigningKey;
use openssh::sshsig;
use serde::Serialize;
use serde_json::Map;
use ssh_key::certificate::{Builder, CertType};
use wire::enrolment::{self, Wish};
use wire::ids::{Digest, Fingerprint, Head, LogId, Serial};
use wire::lines::{Answer, Approval, RelayLine, TargetLine};
use wire::seal::{Sealed, seal};
use wire::{
    Code, Encoding, FORCE_COMMAND, GRANT_EXTENSION, Grant, GrantWitness, Hello, Kind, Mode, Outcome, Payload,
    PayloadWitness, Proof, Requester, Resources, Status, Stream, VERSION, limits, statement,
};
use zeroize::Zeroizing;

use super::{Case, Expect, File};

/// 2027-01-15T08:00:00Z: the clock of every example.
pub(super) const NOW: u64 = 1_800_000_000;
pub(super) const TARGET: &str = "web-1";
const TASK: &str = "0192e4a0-7f00-7000-8000-00000000000a";
const REQUEST: &str = "0192e4a0-7f00-7000-8000-00000000000b";
const OTHER: &str = "0192e4a0-7f00-7000-8000-0000000000ff";
const SERIAL: u64 = 4_242_424_242_424_242;
const LOG_TEXT: &str = "GET /cart/400 200\n";

/// The keys, by the byte that their seed repeats.
const KEYS: [(&str, u8); 6] = [
    ("task_ca", 1),
    ("task", 2),
    ("host_ca", 3),
    ("approver", 5),
    ("receipt", 7),
    ("somebody", 9),
];

/// Every file.
pub(super) fn all() -> Vec<(&'static str, File)> {
    let file = |spec: &str, cases| File {
        spec: format!("docs/spec/{spec}"),
        cases,
    };
    vec![
        ("keys.json", file("sshsig.md", keys())),
        ("strict-json.json", file("strict-json.md", strict_json())),
        ("sshsig.json", file("sshsig.md", signatures())),
        ("certificate.json", file("certificate.md", certificates())),
        ("grant.json", file("grant.md", grants())),
        ("payload.json", file("payload.md", payloads())),
        ("request.json", file("payload.md", requests())),
        ("hello.json", file("session.md", hellos())),
        ("outcome.json", file("outcome.md", outcomes())),
        ("line.json", file("session.md", lines())),
        ("session.json", file("session.md", session())),
        ("statement.json", file("statement.md", statements())),
        ("approvers.json", file("approval.md", approvers())),
        ("enrolment.json", file("enrolment.md", enrolment())),
    ]
}

/// A file's text: one spelling, whatever features a build gives serde_json.
pub(super) fn print(file: &File) -> String {
    format!("{}\n", serde_json::to_string_pretty(file).unwrap())
}

fn key(name: &str) -> SigningKey {
    let (_, seed) = KEYS.iter().find(|(known, _)| *known == name).unwrap();
    SigningKey::from_seed(&Zeroizing::new([*seed; 32])).unwrap()
}

fn good(name: &str, text: impl Into<String>) -> Case {
    let text = text.into();
    Case {
        name: name.to_owned(),
        text: Some(text),
        ..Case::default()
    }
}

fn bad(name: &str, why: &str, text: impl Into<String>) -> Case {
    Case {
        expect: Expect::Refused,
        why: Some(why.to_owned()),
        ..good(name, text)
    }
}

fn signed(by: &str, namespace: &str, case: Case) -> Case {
    let text = case.text.clone().unwrap();
    Case {
        key: Some(by.to_owned()),
        namespace: Some(namespace.to_owned()),
        sig: Some(sshsig::sign(&key(by), namespace, text.as_bytes()).unwrap()),
        sha256: Some(Digest::of(text.as_bytes()).to_string()),
        ..case
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

fn head(log: &str, seq: u64) -> Head {
    Head {
        log: LogId::of_genesis(log.as_bytes()),
        seq,
        hash: Digest::of(format!("{log} {seq}").as_bytes()),
    }
}

fn keys() -> Vec<Case> {
    KEYS.iter()
        .map(|(name, seed)| Case {
            name: (*name).to_owned(),
            seed: Some(format!("{seed:02x}").repeat(32)),
            public: Some(key(name).public().to_openssh()),
            fingerprint: Some(key(name).public().fingerprint()),
            ..Case::default()
        })
        .collect()
}

fn strict_json() -> Vec<Case> {
    let hex = |name: &str, why: &str, hex: &str| Case {
        hex: Some(hex.to_owned()),
        text: None,
        ..bad(name, why, "")
    };
    vec![
        good("plain", r#"{"a":[1,-1,true,"x",{"b":{}}]}"#),
        good("eight deep", "[[[[[[[[1]]]]]]]]"),
        good("largest integer", "9007199254740991"),
        good("spaces around it", " {} \n"),
        good("an escape of what needs none", r#"{"\u0061":1}"#),
        bad("json_dup_key", "a key stands twice", r#"{"a":1,"a":2}"#),
        bad(
            "json_dup_key by escape",
            "a key stands twice, spelt differently",
            r#"{"a":1,"\u0061":2}"#,
        ),
        bad(
            "json_dup_key deep",
            "a key stands twice, further down",
            r#"{"a":[{"b":1,"b":1}]}"#,
        ),
        bad("json_big_int", "2^53", "9007199254740992"),
        bad("json_big_int negative", "-2^53", "-9007199254740992"),
        bad(
            "json_big_int 2^64",
            "readers round it to a float",
            "18446744073709551616",
        ),
        bad("a whole float", "not an integer in its plain spelling", "200.0"),
        bad("an exponent", "not an integer in its plain spelling", "2e2"),
        bad("minus zero", "not an integer in its plain spelling", "-0"),
        bad("a leading zero", "not JSON", "01"),
        bad("null", "what is absent is left out", r#"{"a":null}"#),
        bad("NUL in a string", "NUL", r#""a\u0000b""#),
        bad("NUL in a key", "NUL", r#"{"\u0000":1}"#),
        bad("a lone surrogate", "no Unicode text", r#""\ud800""#),
        bad("json_deep", "nine deep", "[[[[[[[[[1]]]]]]]]]"),
        bad("json_trailing", "something trails", "{} {}"),
        bad("json_trailing text", "something trails", "{}x"),
        bad("nothing", "no value", ""),
        bad(
            "too long",
            "the reader of this file allows 4,096 bytes",
            format!("\"{}\"", "x".repeat(4095)),
        ),
        hex("json_bad_utf8", "not UTF-8", "22ff22"),
        hex("a byte order mark", "not JSON", "efbbbf7b7d"),
        hex("a control character", "not JSON", "220122"),
        hex("json_trailing NUL", "something trails", "7b7d00"),
    ]
}

fn signatures() -> Vec<Case> {
    let one = signed("task", sshsig::REQUEST, good("a request", "hello"));
    let sig = one.sig.clone().unwrap();
    let with = |name: &str, why: &str, change: &dyn Fn(&mut Case)| {
        let mut case = Case {
            expect: Expect::Refused,
            why: Some(why.to_owned()),
            name: name.to_owned(),
            ..one.clone()
        };
        change(&mut case);
        case
    };
    vec![
        one.clone(),
        with("sig_wrong_namespace", "made for another purpose", &|case| {
            case.namespace = Some(sshsig::OUTCOME.to_owned());
        }),
        with("another key", "made by somebody else", &|case| {
            case.key = Some("somebody".to_owned())
        }),
        with("another message", "made over other bytes", &|case| {
            case.text = Some("hellp".to_owned())
        }),
        with("sig_prefix_garbage", "three bytes before the magic", &|case| {
            case.sig = Some(format!("AAAA{sig}"))
        }),
        with("sig_trailing_text", "a newline after the base64", &|case| {
            case.sig = Some(format!("{sig}\n"))
        }),
        with("a trailing byte", "three bytes after the blob", &|case| {
            case.sig = Some(format!("{sig}AAAA"))
        }),
        with("armoured", "the PEM form", &|case| {
            case.sig = Some(format!(
                "-----BEGIN SSH SIGNATURE-----\n{sig}\n-----END SSH SIGNATURE-----\n"
            ));
        }),
        with("no signature", "empty", &|case| case.sig = Some(String::new())),
    ]
}

fn requester() -> Requester {
    Requester {
        brain: "claude-code".parse().unwrap(),
        person: "alice".parse().unwrap(),
        proof: Proof::Relay,
    }
}

fn grant() -> Grant {
    Grant {
        v: VERSION,
        kind: Kind::Task,
        task_id: TASK.parse().unwrap(),
        opened: NOW - 100,
        requester: requester(),
        relay: "relay-1".parse().unwrap(),
        target: TARGET.parse().unwrap(),
        actions: ["check_health", "read_file", "tail_log"]
            .map(|name| name.parse().unwrap())
            .to_vec(),
        policy: Digest::of(b"policy.cedar"),
        witness: GrantWitness {
            ca: head("ca", 12),
            target: None,
        },
        request_sha256: None,
        manifest: None,
        approvals: None,
        krl: None,
    }
}

/// The reserved kind: what a target will want beside a change.
fn action_grant() -> Grant {
    Grant {
        kind: Kind::Action,
        actions: vec!["restart_service".parse().unwrap()],
        request_sha256: Some(Digest::of(b"payload")),
        manifest: Some(Digest::of(b"restart_service.toml")),
        approvals: Some(1),
        krl: Some(3),
        ..grant()
    }
}

fn grants() -> Vec<Case> {
    let text = json(&grant());
    let swap = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    };
    let with = |change: &dyn Fn(&mut Grant)| {
        let mut grant = grant();
        change(&mut grant);
        json(&grant)
    };
    vec![
        good("task", text.clone()),
        good("action", json(&action_grant())),
        bad("version", "a version that is not spoken", swap("\"v\":1", "\"v\":2")),
        bad(
            "unknown key",
            "a key that no version has",
            swap("{\"v\":1", "{\"v\":1,\"admin\":true"),
        ),
        bad("missing key", "no target", swap("\"target\":\"web-1\",", "")),
        bad(
            "null",
            "null instead of absent",
            swap("{\"v\":1", "{\"v\":1,\"krl\":null"),
        ),
        bad(
            "unsorted",
            "actions not strictly sorted",
            with(&|grant| grant.actions.reverse()),
        ),
        bad(
            "twice",
            "an action listed twice",
            with(&|grant| grant.actions[1] = grant.actions[0].clone()),
        ),
        bad("no action", "an empty list", with(&|grant| grant.actions.clear())),
        bad(
            "a pin in a task",
            "fields of the other kind",
            with(&|grant| grant.krl = Some(1)),
        ),
        bad("an action without its pin", "a field of its kind is missing", {
            json(&Grant {
                request_sha256: None,
                ..action_grant()
            })
        }),
        bad(
            "a name with a comma",
            "a target that would be two principals",
            swap("\"web-1\"", "\"web-1,root\""),
        ),
        bad(
            "an upper-case id",
            "not the one spelling of a UUID",
            swap(TASK, &TASK.to_uppercase()),
        ),
        bad(
            "grant_over_4k",
            "longer than 4,096 bytes",
            format!("{text}{}", " ".repeat(limits::GRANT)),
        ),
    ]
}

fn payload() -> Payload {
    let mut args = Map::new();
    // In order of their names, so that a map that sorts and one that does not give the same bytes.
    args.insert("lines".to_owned(), 1.into());
    args.insert("path".to_owned(), "/var/log/shop/web.log".into());
    Payload {
        v: VERSION,
        task_id: TASK.parse().unwrap(),
        request_id: REQUEST.parse().unwrap(),
        requester: requester(),
        reason: "the shop answers slowly".parse().unwrap(),
        target: TARGET.parse().unwrap(),
        target_key: Fingerprint::of(key("receipt").public()),
        action: "tail_log".parse().unwrap(),
        manifest: Digest::of(b"tail_log.toml"),
        args,
        mode: Mode::Run,
        expires: NOW + 60,
        witness: PayloadWitness {
            relay: head("relay", 7),
        },
    }
}

fn payloads() -> Vec<Case> {
    let text = json(&payload());
    let swap = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    };
    vec![
        signed("task", sshsig::REQUEST, good("run", text.clone())),
        bad(
            "version_unsupported",
            "a version that is not spoken",
            swap("\"v\":1", "\"v\":2"),
        ),
        bad(
            "json_unknown_field",
            "a key that no version has",
            swap("{\"v\":1", "{\"v\":1,\"sudo\":true"),
        ),
        bad(
            "json_unknown_field deep",
            "the same, further down",
            swap("\"proof\":", "\"admin\":true,\"proof\":"),
        ),
        bad(
            "json_dup_key",
            "a key stands twice",
            swap("\"mode\":\"run\"", "\"mode\":\"dry_run\",\"mode\":\"run\""),
        ),
        bad("an array of its fields", "a second spelling of an object", {
            swap("{\"relay\":{\"log\"", "[{\"log\"").replacen("}}}", "}]}", 1)
        }),
        bad(
            "expires as text",
            "a number in quotes",
            swap(&format!("{}", NOW + 60), &format!("\"{}\"", NOW + 60)),
        ),
        bad(
            "expires with a fraction",
            "not an integer",
            swap(&format!("{}", NOW + 60), &format!("{}.0", NOW + 60)),
        ),
        bad(
            "a reason of two lines",
            "a control character",
            swap("the shop answers", "the shop\\nanswers"),
        ),
        bad("no arguments", "args is absent; without arguments it is {}", {
            swap("\"args\":{\"lines\":1,\"path\":\"/var/log/shop/web.log\"},", "")
        }),
    ]
}

/// Requests in a session that the good certificate opened, with the Code of a target that refuses.
fn requests() -> Vec<Case> {
    let case = |name: &str, by: &str, namespace: &str, code: Option<Code>, payload: &Payload| Case {
        certificate: Some(certificate_text()),
        now: Some(NOW),
        expect: if code.is_some() { Expect::Refused } else { Expect::Ok },
        code: code.map(|code| code.to_string()),
        ..signed(by, namespace, good(name, json(payload)))
    };
    let with = |name: &str, code: Code, change: &dyn Fn(&mut Payload)| {
        let mut payload = payload();
        change(&mut payload);
        case(name, "task", sshsig::REQUEST, Some(code), &payload)
    };
    let run = case("run", "task", sshsig::REQUEST, None, &payload());
    let at = |name: &str, code: Option<Code>, now: u64| Case {
        now: Some(now),
        ..case(name, "task", sshsig::REQUEST, code, &payload())
    };
    vec![
        run.clone(),
        at("just in time", None, NOW + 60 + limits::SKEW_S - 1),
        at("request_expired", Some(Code::RequestExpired), NOW + 60 + limits::SKEW_S),
        at("expires just near enough", None, NOW - limits::SKEW_S),
        case(
            "request_wrong_key",
            "somebody",
            sshsig::REQUEST,
            Some(Code::SignatureInvalid),
            &payload(),
        ),
        case(
            "sig_wrong_namespace",
            "task",
            sshsig::OUTCOME,
            Some(Code::SignatureInvalid),
            &payload(),
        ),
        Case {
            sig: Some(String::new()),
            ..case(
                "request_unsigned",
                "task",
                sshsig::REQUEST,
                Some(Code::SignatureInvalid),
                &payload(),
            )
        },
        Case {
            text: run.text.as_ref().map(|text| text.replace("\"lines\":1", "\"lines\":2")),
            sha256: None,
            ..case(
                "a changed byte",
                "task",
                sshsig::REQUEST,
                Some(Code::SignatureInvalid),
                &payload(),
            )
        },
        with("version_unsupported", Code::VersionUnsupported, &|payload| {
            payload.v = 2
        }),
        with("request_for_other_target", Code::WrongTarget, &|payload| {
            payload.target = "web-2".parse().unwrap()
        }),
        with("a host that took over the name", Code::WrongTarget, &|payload| {
            payload.target_key = Fingerprint::of(key("somebody").public());
        }),
        with("request of another task", Code::WrongTask, &|payload| {
            payload.task_id = OTHER.parse().unwrap()
        }),
        with("request of another person", Code::RequesterMismatch, &|payload| {
            payload.requester.person = "bob".parse().unwrap();
        }),
        with("grant_action_not_listed", Code::ActionNotGranted, &|payload| {
            payload.action = "restart_service".parse().unwrap();
        }),
        with("a dry run of a read", Code::ModeUnsupported, &|payload| {
            payload.mode = Mode::DryRun
        }),
        with("expires too far", Code::ExpiresTooFar, &|payload| {
            payload.expires = NOW + 60 + limits::SKEW_S + 1
        }),
    ]
}

fn hello() -> Hello {
    Hello {
        versions: vec![VERSION],
        target: TARGET.parse().unwrap(),
        build: "v0.1.0".to_owned(),
        receipt_key: key("receipt").public().to_openssh(),
        now: NOW,
        boot_id: "6f1c7c1e-5c0e-4b52-9d1b-0c2f5d6e7a8b".to_owned(),
        head: head(TARGET, 40),
        manifests: ["check_health", "read_file", "tail_log"]
            .map(|name| (name.parse().unwrap(), Digest::of(format!("{name}.toml").as_bytes())))
            .into(),
    }
}

fn hellos() -> Vec<Case> {
    let text = json(&hello());
    vec![
        signed("receipt", sshsig::HELLO, good("web-1", text.clone())),
        bad(
            "unknown key",
            "a key that no version has",
            text.replacen('{', "{\"motd\":\"hi\",", 1),
        ),
        bad(
            "missing key",
            "no clock",
            text.replacen(&format!("\"now\":{NOW},"), "", 1),
        ),
    ]
}

fn stream(bytes: &str) -> Stream {
    Stream {
        encoding: Encoding::Text,
        bytes: bytes.len() as u64,
        sha256: Digest::of(bytes.as_bytes()),
        sent_sha256: Digest::of(bytes.as_bytes()),
        truncated: false,
        redactions: 0,
    }
}

fn outcome() -> Outcome {
    Outcome {
        v: VERSION,
        request_sha256: Digest::of(json(&payload()).as_bytes()),
        status: Status::Ok,
        code: None,
        message: None,
        exit_code: Some(0),
        signal: None,
        output: Some(stream(LOG_TEXT)),
        stderr: Some(stream("")),
        resources: Some(Resources {
            cpu_user_ms: 0,
            cpu_system_ms: 1,
            max_rss_kib: 512,
        }),
        duration_ms: 1,
        replayed: false,
        manifest_differs: false,
        walls: Vec::new(),
        manifest: Some(Digest::of(b"tail_log.toml")),
        serial: Some(Serial::of(SERIAL)),
        head: Some(head(TARGET, 42)),
        now: NOW + 1,
    }
}

fn refused() -> Outcome {
    Outcome {
        status: Status::Refused,
        code: Some(Code::PathRefused),
        message: Some("path: it is not beneath a directory that the action allows".to_owned()),
        exit_code: None,
        output: None,
        stderr: None,
        resources: None,
        duration_ms: 0,
        manifest: None,
        head: Some(head(TARGET, 41)),
        ..outcome()
    }
}

fn outcomes() -> Vec<Case> {
    let text = json(&outcome());
    let stranger = Outcome {
        code: Some(Code::SignatureInvalid),
        message: Some(Code::SignatureInvalid.text().to_owned()),
        serial: None,
        head: None,
        ..refused()
    };
    let with_message = |message: &str| {
        json(&Outcome {
            message: Some(message.to_owned()),
            ..refused()
        })
    };
    vec![
        signed("receipt", sshsig::OUTCOME, good("ok", text.clone())),
        signed("receipt", sshsig::OUTCOME, good("refused", json(&refused()))),
        signed(
            "receipt",
            sshsig::OUTCOME,
            good("refused before it was verified", json(&stranger)),
        ),
        bad(
            "ok with a code",
            "status ok has no code",
            text.replacen("\"status\":\"ok\"", "\"status\":\"ok\",\"code\":\"internal\"", 1),
        ),
        bad(
            "failed without a code",
            "every other status has one",
            text.replacen("\"ok\"", "\"failed\"", 1),
        ),
        bad(
            "a status that no version has",
            "maybe",
            text.replacen("\"ok\"", "\"maybe\"", 1),
        ),
        good("the longest message", with_message(&"x".repeat(limits::MESSAGE))),
        bad(
            "a message that is too long",
            "501 bytes",
            with_message(&"x".repeat(limits::MESSAGE + 1)),
        ),
        bad(
            "a message of two lines",
            "a control character",
            with_message("two\nlines"),
        ),
        bad("a serial as a number", "63 bits do not fit the integers of the wire", {
            text.replacen(&format!("\"{SERIAL}\""), &SERIAL.to_string(), 1)
        }),
        bad(
            "version",
            "a version that is not spoken",
            text.replacen("\"v\":1", "\"v\":2", 1),
        ),
    ]
}

/// A host certificate of the vectors, for the answer of an enrolment.
fn host_certificate() -> String {
    let nonce: [u8; 32] = *b"a nonce of thirty-two bytes here";
    let host_key = key("somebody").public().key_data();
    let mut builder = Builder::new(nonce, host_key, NOW - limits::SKEW_S, NOW + 365 * 86_400).unwrap();
    builder.cert_type(CertType::Host).unwrap();
    builder.serial(SERIAL).unwrap().key_id(TARGET).unwrap();
    builder.valid_principal(TARGET).unwrap();
    builder.sign(key("host_ca").private()).unwrap().to_openssh().unwrap()
}

fn enrolment() -> Vec<Case> {
    let from = |who: &str, means: &str, case: Case| Case {
        from: Some(who.to_owned()),
        means: (case.expect == Expect::Ok).then(|| means.to_owned()),
        ..case
    };
    let wish = Wish {
        target: TARGET.parse().unwrap(),
        host_key: key("somebody").public().clone(),
        receipt_key: key("receipt").public().clone(),
    };
    let answer = enrolment::Answer {
        target: TARGET.parse().unwrap(),
        task_ca: key("task_ca").public().clone(),
        host_certificate: host_certificate(),
    };
    let same = Wish {
        host_key: wish.receipt_key.clone(),
        ..wish.clone()
    };
    let (wish_line, answer_line) = (wish.to_line(), answer.to_line());
    let host_key = wish.host_key.to_openssh();
    let wish = |case| from("target", "wish", case);
    let answer = |case| from("ca", "answer", case);
    vec![
        wish(good("wish", wish_line.trim_end())),
        answer(good("answer", answer_line.trim_end())),
        wish(good("with its newline", wish_line.clone())),
        wish(bad(
            "version",
            "a version that is not spoken",
            wish_line.replacen("\"v\":1", "\"v\":2", 1),
        )),
        wish(bad(
            "json_unknown_field",
            "an address is the operator's to say",
            wish_line.replacen("{", "{\"address\":\"web-1:22\",", 1),
        )),
        wish(bad("no receipt key", "a key is missing", {
            wish_line.replacen("receipt_key", "receipt", 1)
        })),
        wish(bad("one key for both", "sshd could sign Outcomes", same.to_line())),
        wish(bad(
            "a key with a comment",
            "one key has one text",
            wish_line.replacen(&host_key, &format!("{host_key} root@web-1"), 1),
        )),
        wish(bad(
            "another kind of key",
            "ed25519 only",
            wish_line.replacen(&host_key, "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ==", 1),
        )),
        wish(bad("two lines", "something trails", wish_line.repeat(2))),
        answer(bad("a wish", "another line", wish_line)),
        answer(bad(
            "a CA key with a comment",
            "one key has one text",
            answer_line.replacen("\",\"host_certificate", " ca\",\"host_certificate", 1),
        )),
    ]
}

pub(super) fn certificate_text() -> String {
    minted(
        "task_ca",
        NOW - limits::SKEW_S,
        NOW + limits::TASK_CERTIFICATE_DEFAULT_S,
        |builder| {
            usual(builder);
        },
    )
}

fn minted(by: &str, from: u64, until: u64, change: impl FnOnce(&mut Builder)) -> String {
    let nonce: [u8; 32] = *b"a nonce of thirty-two bytes here";
    let mut builder = Builder::new(nonce, key("task").public().key_data(), from, until).unwrap();
    builder.serial(SERIAL).unwrap().key_id(TASK).unwrap();
    change(&mut builder);
    builder.sign(key(by).private()).unwrap().to_openssh().unwrap()
}

fn usual(builder: &mut Builder) -> &mut Builder {
    body(builder, CertType::User, TARGET, FORCE_COMMAND);
    builder.extension(GRANT_EXTENSION, json(&grant())).unwrap()
}

fn body(builder: &mut Builder, kind: CertType, principal: &str, force_command: &str) {
    builder.cert_type(kind).unwrap().valid_principal(principal).unwrap();
    builder.critical_option("force-command", force_command).unwrap();
    builder.critical_option("source-address", "127.0.0.0/8").unwrap();
}

/// A name, the Code of its refusal, and what is done to the builder.
type Change = (&'static str, Code, fn(&mut Builder));

fn certificates() -> Vec<Case> {
    let (from, until) = (NOW - limits::SKEW_S, NOW + limits::TASK_CERTIFICATE_DEFAULT_S);
    let at = |name: &str, code: Option<Code>, now: u64, text: String| Case {
        now: Some(now),
        expect: if code.is_some() { Expect::Refused } else { Expect::Ok },
        code: code.map(|code| code.to_string()),
        ..good(name, text)
    };
    let good_text = certificate_text();
    let longest = limits::TASK_CERTIFICATE_MAX_S;
    let changes: [Change; 13] = [
        ("cert_host_type", Code::CertificateType, |b| {
            body(b, CertType::Host, TARGET, FORCE_COMMAND);
            b.extension(GRANT_EXTENSION, json(&grant())).unwrap();
        }),
        ("cert_empty_principals", Code::CertificatePrincipals, |b| {
            b.cert_type(CertType::User).unwrap().all_principals_valid().unwrap();
        }),
        ("another target's", Code::CertificatePrincipals, |b| {
            body(b, CertType::User, "web-2", FORCE_COMMAND)
        }),
        ("two principals", Code::CertificatePrincipals, |b| {
            usual(b).valid_principal("root").unwrap();
        }),
        ("action_cert_used_to_log_in", Code::CertificatePrincipals, |b| {
            body(b, CertType::User, "action/web-1", FORCE_COMMAND);
            b.extension(GRANT_EXTENSION, json(&action_grant())).unwrap();
        }),
        ("another force-command", Code::CertificateOptions, |b| {
            body(b, CertType::User, TARGET, "/bin/sh")
        }),
        ("permit-pty", Code::CertificateOptions, |b| {
            usual(b).extension("permit-pty", "").unwrap();
        }),
        ("cert_no_grant", Code::GrantMissing, |b| {
            body(b, CertType::User, TARGET, FORCE_COMMAND)
        }),
        ("grant_malformed", Code::GrantMalformed, |b| {
            body(b, CertType::User, TARGET, FORCE_COMMAND);
            b.extension(GRANT_EXTENSION, "{}").unwrap();
        }),
        ("grant_for_other_target", Code::GrantMismatch, |b| {
            body(b, CertType::User, TARGET, FORCE_COMMAND);
            b.extension(
                GRANT_EXTENSION,
                json(&Grant {
                    target: "web-2".parse().unwrap(),
                    ..grant()
                }),
            )
            .unwrap();
        }),
        ("a task older than eight hours", Code::GrantMismatch, |b| {
            body(b, CertType::User, TARGET, FORCE_COMMAND);
            b.extension(
                GRANT_EXTENSION,
                json(&Grant {
                    opened: NOW - limits::TASK_MAX_S - 2 * limits::SKEW_S,
                    ..grant()
                }),
            )
            .unwrap();
        }),
        ("a task opened in the future", Code::GrantMismatch, |b| {
            body(b, CertType::User, TARGET, FORCE_COMMAND);
            b.extension(
                GRANT_EXTENSION,
                json(&Grant {
                    opened: NOW + 2 * limits::SKEW_S + 1,
                    ..grant()
                }),
            )
            .unwrap();
        }),
        ("grant of another task", Code::GrantMismatch, |b| {
            body(b, CertType::User, TARGET, FORCE_COMMAND);
            b.extension(
                GRANT_EXTENSION,
                json(&Grant {
                    task_id: OTHER.parse().unwrap(),
                    ..grant()
                }),
            )
            .unwrap();
        }),
    ];
    let mut cases = vec![
        at("task", None, NOW, good_text.clone()),
        at(
            "at its last second",
            None,
            until + limits::SKEW_S - 1,
            good_text.clone(),
        ),
        at(
            "cert_expired",
            Some(Code::CertificateExpired),
            until + limits::SKEW_S,
            good_text.clone(),
        ),
        at(
            "as early as it may come",
            None,
            from - limits::SKEW_S,
            good_text.clone(),
        ),
        at(
            "cert_not_yet_valid",
            Some(Code::CertificateNotYetValid),
            from - limits::SKEW_S - 1,
            good_text.clone(),
        ),
        at(
            "the longest life",
            None,
            NOW,
            minted("task_ca", from, NOW + longest, |b| {
                usual(b);
            }),
        ),
        at(
            "cert_ttl_over_max",
            Some(Code::CertificateLifetime),
            NOW,
            minted("task_ca", from, NOW + longest + 1, |b| {
                usual(b);
            }),
        ),
        at(
            "cert_forever",
            Some(Code::CertificateLifetime),
            NOW,
            minted("task_ca", 0, u64::MAX, |b| {
                usual(b);
            }),
        ),
        at(
            "cert_wrong_ca",
            Some(Code::CertificateUntrusted),
            NOW,
            minted("somebody", from, until, |b| {
                usual(b);
            }),
        ),
        at(
            "with a comment",
            Some(Code::CertificateMalformed),
            NOW,
            format!("{good_text} alice@laptop"),
        ),
    ];
    cases.extend(changes.map(|(name, code, change)| at(name, Some(code), NOW, minted("task_ca", from, until, change))));
    cases
}

fn sealed_request() -> Sealed {
    seal(&key("task"), sshsig::REQUEST, &payload()).unwrap()
}

fn sealed_answer(outcome: &Outcome, output: Option<&str>) -> TargetLine {
    TargetLine::Answer(Answer {
        outcome: seal(&key("receipt"), sshsig::OUTCOME, outcome).unwrap(),
        output: output.map(str::to_owned),
        stderr: output.map(|_| String::new()),
    })
}

fn line_of_relay(line: &RelayLine) -> String {
    line.to_line().trim_end().to_owned()
}

fn line_of_target(line: &TargetLine) -> String {
    line.to_line().trim_end().to_owned()
}

fn lines() -> Vec<Case> {
    let from = |from: &str, means: &str, case: Case| Case {
        from: Some(from.to_owned()),
        means: (case.expect == Expect::Ok).then(|| means.to_owned()),
        ..case
    };
    let relay = |means: &str, line: RelayLine| from("relay", means, good(means, line_of_relay(&line)));
    let target = |means: &str, line: TargetLine| from("target", means, good(means, line_of_target(&line)));
    let short = Sealed {
        payload: "{}".to_owned(),
        sig: "AA==".to_owned(),
    };
    let approval = Approval {
        on: vec!["web-1 SHA256:… 00…".to_owned()],
        sigs: vec!["AA==".to_owned()],
    };
    let none =
        |name: &str, sender: &str, text: &str| from(sender, "", bad(name, "keys that do not stand together", text));
    vec![
        relay(
            "certificate",
            RelayLine::Certificate("ssh-ed25519-cert-v01@openssh.com AAAA".to_owned()),
        ),
        relay("request", RelayLine::Request(short.clone(), None)),
        Case {
            name: "request with an approval".to_owned(),
            ..relay("request", RelayLine::Request(short.clone(), Some(approval)))
        },
        relay("outcome", RelayLine::Outcome(REQUEST.parse().unwrap())),
        relay("krl", RelayLine::Krl(short.clone())),
        target("hello", TargetLine::Hello(short.clone())),
        target(
            "answer",
            TargetLine::Answer(Answer {
                outcome: short,
                output: Some("x".to_owned()),
                stderr: Some(String::new()),
            }),
        ),
        target(
            "refused",
            TargetLine::Refused {
                line: 1,
                code: Code::CertificateExpired,
            },
        ),
        Case {
            name: "refused before the first line".to_owned(),
            ..target(
                "refused",
                TargetLine::Refused {
                    line: 0,
                    code: Code::OriginalCommand,
                },
            )
        },
        none("nothing", "relay", "{}"),
        none(
            "two meanings",
            "relay",
            r#"{"certificate":"a","payload":"b","sig":"c"}"#,
        ),
        none("a request without a signature", "relay", r#"{"payload":"b"}"#),
        none("a krl without a signature", "relay", r#"{"krl":"b"}"#),
        none("an outcome of no request", "relay", r#"{"outcome":"7"}"#),
        none(
            "an approval that covers nothing",
            "relay",
            r#"{"payload":"b","sig":"c","approval":{"on":[],"sigs":["s"]}}"#,
        ),
        none(
            "an approval that is not sorted",
            "relay",
            r#"{"payload":"b","sig":"c","approval":{"on":["b","a"],"sigs":["s"]}}"#,
        ),
        none(
            "nine signatures",
            "relay",
            r#"{"payload":"b","sig":"c","approval":{"on":["a"],"sigs":["1","2","3","4","5","6","7","8","9"]}}"#,
        ),
        none(
            "a key that no version has",
            "relay",
            r#"{"certificate":"a","shell":true}"#,
        ),
        none("an array", "relay", r#"["certificate"]"#),
        none(
            "a hello with an output",
            "target",
            r#"{"hello":"a","sig":"b","output":"c"}"#,
        ),
        none(
            "a Code that no version has",
            "target",
            r#"{"refused":{"line":1,"code":"because"}}"#,
        ),
    ]
}

fn session() -> Vec<Case> {
    let line = |name: &str, from: &str, text: String| Case {
        from: Some(from.to_owned()),
        ..good(name, text)
    };
    let hello = TargetLine::Hello(seal(&key("receipt"), sshsig::HELLO, &hello()).unwrap());
    vec![
        line("hello", "target", line_of_target(&hello)),
        line(
            "certificate",
            "relay",
            line_of_relay(&RelayLine::Certificate(certificate_text())),
        ),
        line(
            "request",
            "relay",
            line_of_relay(&RelayLine::Request(sealed_request(), None)),
        ),
        line(
            "answer",
            "target",
            line_of_target(&sealed_answer(&outcome(), Some(LOG_TEXT))),
        ),
    ]
}

fn statements() -> Vec<Case> {
    let make = |name: &str, payload: &Payload, others: &[&str]| {
        let text = json(payload);
        let mut on = vec![statement::on_line(payload, text.as_bytes())];
        on.extend((21_u8..).zip(others).map(|(seed, other)| {
            let key = SigningKey::from_seed(&Zeroizing::new([seed; 32])).unwrap();
            let sha256 = Digest::of(other.as_bytes());
            format!("{other} {} {sha256}", Fingerprint::of(key.public()))
        }));
        on.sort();
        let statement = statement::render(payload, &on);
        Case {
            key: Some("approver".to_owned()),
            namespace: Some(sshsig::APPROVE.to_owned()),
            sig: Some(sshsig::sign(&key("approver"), sshsig::APPROVE, statement.as_bytes()).unwrap()),
            sha256: Some(Digest::of(text.as_bytes()).to_string()),
            on: Some(on),
            statement: Some(statement),
            ..good(name, text)
        }
    };
    let mut change = payload();
    change.action = "restart_service".parse().unwrap();
    change.args = Map::new();
    change.args.insert("unit".to_owned(), "shop.service".into());
    change.expires = NOW + 900;
    let mut hostile = change.clone();
    hostile.reason = "caf\u{e9} \u{202e}reversed".parse().unwrap();
    hostile.args.insert("unit".to_owned(), "x\non: web-9 \u{1b}[2J".into());
    let mut blanks = change.clone();
    blanks.reason = "tidy up    on: web-9".parse().unwrap();
    blanks.args.insert("unit".to_owned(), " shop".into());
    vec![
        make("one target", &change, &[]),
        make("a fan-out", &change, &["web-2", "web-3"]),
        make("hostile text", &hostile, &[]),
        make("blanks that nobody counts", &blanks, &[]),
    ]
}

/// Files of approvers.
fn approvers() -> Vec<Case> {
    let public = |name: &str| key(name).public().to_openssh();
    let plain = public("approver");
    let token = {
        let inside = ssh_key::public::Ed25519PublicKey(*key("somebody").public().as_bytes());
        let data: ssh_key::public::KeyData = ssh_key::public::SkEd25519::new(inside, "ssh:").into();
        ssh_key::PublicKey::from(data).to_openssh().unwrap()
    };
    let p256 = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBHwf2HMM5TRXvo2SQJjsNkiDD5KqiiNjrGVv3UUh+mMT5RHxiRtOnlqvjhQtBq0VpmpCV/PwUdhOig4vkbqAcEc=";
    let web = token.replace("AAAABHNzaDo=", "AAAABHdlYjo=");
    let own = format!("carol namespaces=\"approve.v1@writ.internal\" {token} carol's token\n");
    let times = "valid-after=\"20260101Z\",valid-before=\"20280101083000Z\"";
    let line = |options: &str| format!("carol {options} {plain}\n");
    vec![
        good("nobody", "# nobody yet\n\n"),
        good(
            "each kind of line",
            format!("{own}dave\t{times}  {plain}\nerin,frank cert-authority {p256}\n"),
        ),
        good("no newline at its end", format!("carol {plain}")),
        bad("a pattern of names", "names are literal", format!("* {plain}\n")),
        bad("a quoted name", "names are literal", format!("\"carol\" {plain}\n")),
        bad(
            "two people with one key",
            "nobody could tell who signed",
            format!("carol,dave {plain}\n"),
        ),
        bad(
            "one key on two lines",
            "nobody could tell who signed",
            format!("carol {plain}\ndave {plain}\n"),
        ),
        bad("a name without a key", "not a line of the format", "carol\n"),
        bad(
            "an RSA key",
            "not a kind that approves",
            "carol ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAQ8=\n",
        ),
        bad(
            "the key of a web site",
            "its application is not ssh:",
            format!("carol {web}\n"),
        ),
        bad(
            "an unknown option",
            "not a line of the format",
            line("no-touch-required"),
        ),
        bad(
            "an option twice",
            "which one counts?",
            line("valid-before=\"20280101Z\",valid-before=\"20290101Z\""),
        ),
        bad(
            "a pattern of namespaces",
            "namespaces are literal",
            line("namespaces=\"approve.*\""),
        ),
        bad(
            "a local time",
            "times are UTC and say so",
            line("valid-before=\"20280101\""),
        ),
        bad(
            "a day that is none",
            "there is no 30 February",
            line("valid-before=\"20280230Z\""),
        ),
        bad(
            "times the wrong way round",
            "it would never count",
            line("valid-after=\"20280101Z\",valid-before=\"20270101Z\""),
        ),
        bad(
            "a carriage return",
            "lines end with a newline alone",
            format!("carol {plain}\r\n"),
        ),
    ]
}
