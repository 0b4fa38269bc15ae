//! Which approvals `order` counts: every one that is good but for one thing, beside one that is good.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test says why")]

use agent_exec::error::Refusal;
use agent_exec::order::{self, Approvers, Own, Touch, Verified, Wanted};
use ed25519_dalek::Signer as _;
use openssh::allowed_signers::AllowedSigners;
use openssh::key::SigningKey;
use openssh::sshsig;
use serde_json::{Value, json};
use ssh_key::certificate::{Builder, CertType};
use ssh_key::public::{Ed25519PublicKey, KeyData, SkEd25519};
use ssh_key::{Algorithm, HashAlg, Signature, SshSig};
use wire::ids::Digest;
use wire::lines::Approval;
use wire::{Code, Payload, Risk, statement};

mod stage;

use stage::{NOW, World, key};

/// A change that needs approvals, the people who may give them, and what the target was told.
struct Scene {
    world: World,
    payload: Value,
    needed: u8,
    signers: String,
    touch: Touch,
    now: u64,
}

/// A request and what came beside it, judged.
type Judged = Result<Vec<(String, String, String)>, Refusal>;

const CAROL: u8 = 20;
const DAVE: u8 = 21;

fn line(principal: &str, options: &str, key: &SigningKey) -> String {
    format!("{principal} {options}{}\n", key.public().to_openssh())
}

impl Scene {
    /// Carol and Dave may approve, each by a key of their own.
    fn new(needed: u8) -> Self {
        let world = World::new();
        let mut payload = world.payload();
        payload["action"] = json!("drop_table");
        payload["args"] = json!({"table": "orders"});
        payload["expires"] = json!(NOW + 600);
        Self {
            world,
            payload,
            needed,
            signers: line("carol", "", &key(CAROL)) + &line("dave", "", &key(DAVE)),
            touch: Touch::NotNeeded,
            now: NOW,
        }
    }

    fn request(&self) -> Verified {
        self.world.verify(&self.payload).unwrap()
    }

    fn wanted(&self) -> Result<Wanted, Refusal> {
        let manifest = Digest::of(b"m");
        let own = Own {
            risk: Risk::Destroy,
            manifest: &manifest,
            approvals: self.needed,
            approval_window_s: Some(600),
            dry_run: None,
        };
        let text = self.world.permit(&self.payload, 90, |_| {});
        let permit = self.world.permits(&text).unwrap().take(&self.request());
        order::permitted(&self.request(), own, permit.as_ref(), &self.world.knows(NOW))
    }

    /// The `on` line of a payload.
    fn on(payload: &Value) -> String {
        let bytes = payload.to_string();
        statement::on_line(&Payload::parse(bytes.as_bytes()).unwrap(), bytes.as_bytes())
    }

    /// The text that is signed for a payload, with these lines.
    fn text(payload: &Value, on: &[String]) -> String {
        statement::render(&Payload::parse(payload.to_string().as_bytes()).unwrap(), on)
    }

    /// The text for the request as it is.
    fn own_text(&self) -> String {
        Self::text(&self.payload, &[Self::on(&self.payload)])
    }

    fn signed(&self, by: u8) -> String {
        sshsig::sign(&key(by), sshsig::APPROVE, self.own_text().as_bytes()).unwrap()
    }

    fn judge(&self, on: Vec<String>, sigs: Vec<String>) -> Judged {
        let approved = order::approved(&self.request(), self.wanted()?, Some(&Approval { on, sigs }), || {
            Ok(Approvers {
                signers: AllowedSigners::parse(&self.signers).unwrap(),
                never: &self.world.cas,
                touch: self.touch,
                now: self.now,
            })
        })?;
        let one = |by: &audit::Approval| (by.principal.to_string(), by.fingerprint.to_string(), by.kind.clone());
        Ok(approved.by().iter().map(one).collect())
    }

    /// These signatures beside the line of the request.
    fn with(&self, sigs: Vec<String>) -> Judged {
        self.judge(vec![Self::on(&self.payload)], sigs)
    }

    /// Who approved, by name.
    fn people(&self, sigs: Vec<String>) -> Vec<String> {
        self.with(sigs)
            .unwrap()
            .into_iter()
            .map(|(principal, ..)| principal)
            .collect()
    }

    /// That Carol's signature as it was made does not count, for this reason; and that another one does, beside it.
    fn refuses(&self, signature: &str, code: Code, what: &str) {
        let refusal = self.with(vec![signature.to_owned()]).unwrap_err();
        assert_eq!(refusal.code, code, "{}", refusal.message);
        assert!(refusal.message.contains(what), "{}", refusal.message);
        assert_eq!(self.people(vec![signature.to_owned(), self.signed(DAVE)]), ["dave"]);
    }
}

/// A security key's signature over a text.
fn pressed(seed: u8, flags: u8, application: &str, text: &str) -> (KeyData, String) {
    use sha2::{Digest as _, Sha256};
    let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
    let public: KeyData = SkEd25519::new(Ed25519PublicKey(key.verifying_key().to_bytes()), application).into();
    let message = SshSig::signed_data(sshsig::APPROVE, HashAlg::Sha512, text.as_bytes()).unwrap();
    let trailer = [flags, 0, 0, 0, 9];
    let hashes = (Sha256::digest(application), Sha256::digest(&message));
    let signed = [hashes.0.as_slice(), &trailer, hashes.1.as_slice()].concat();
    let bytes = [&key.sign(&signed).to_bytes()[..], &trailer].concat();
    let signature = Signature::new(Algorithm::SkEd25519, bytes).unwrap();
    (public.clone(), travelling(public, HashAlg::Sha512, signature))
}

/// A signature as it travels.
fn travelling(public: KeyData, hash: HashAlg, signature: Signature) -> String {
    use base64::Engine as _;
    use ssh_key::encoding::Encode as _;
    let whole = SshSig::new(public, sshsig::APPROVE, hash, signature).unwrap();
    base64::engine::general_purpose::STANDARD.encode(whole.encode_vec().unwrap())
}

/// A signature with a certificate over the key.
fn certified(by: u8, ca: u8, text: &str, change: impl FnOnce(&mut Builder)) -> String {
    let mut builder = Builder::new([7; 32], key(by).public().key_data(), NOW - 60, NOW + 60).unwrap();
    change(&mut builder);
    let certificate = builder.sign(key(ca).private()).unwrap();
    let plain = key(by)
        .private()
        .sign(sshsig::APPROVE, HashAlg::Sha512, text.as_bytes())
        .unwrap();
    travelling(
        KeyData::Certificate(Box::new(certificate)),
        HashAlg::Sha512,
        plain.signature().clone(),
    )
}

/// REQ-APPROVAL-1, REQ-APPROVAL-7
#[test]
fn as_many_people_as_are_needed_and_their_keys_are_named() {
    let scene = Scene::new(2);
    let by = scene.with(vec![scene.signed(CAROL), scene.signed(DAVE)]).unwrap();
    let one = |name: &str, seed| {
        (
            name.to_owned(),
            key(seed).public().fingerprint(),
            "ssh-ed25519".to_owned(),
        )
    };
    assert_eq!(by, [one("carol", CAROL), one("dave", DAVE)]);
    // Nobody is asked who may approve where nobody has to.
    let none = Scene::new(0);
    let fine = order::approved(&none.request(), Scene::near(&none), None, || panic!("asked"));
    assert_eq!(fine.unwrap().by(), []);
    let approval = Approval {
        on: vec![Scene::on(&none.payload)],
        sigs: vec![none.signed(CAROL)],
    };
    let refused = order::approved(&none.request(), Scene::near(&none), Some(&approval), || panic!("asked"));
    assert_eq!(refused.unwrap_err().code, Code::LineMalformed);
}

impl Scene {
    /// What is wanted of a request that needs nobody: it expires soon.
    fn near(scene: &Self) -> Wanted {
        let payload = scene.world.payload();
        let request = scene.world.verify(&payload).unwrap();
        let manifest = Digest::of(b"m");
        let own = Own {
            risk: Risk::Read,
            manifest: &manifest,
            approvals: 0,
            approval_window_s: None,
            dry_run: None,
        };
        order::permitted(&request, own, None, &scene.world.knows(NOW)).unwrap()
    }
}

/// REQ-APPROVAL-1
#[test]
fn approval_missing() {
    let scene = Scene::new(2);
    let nothing = order::approved(&scene.request(), scene.wanted().unwrap(), None, || panic!("asked"));
    let refusal = nothing.unwrap_err();
    assert_eq!(refusal.code, Code::ApprovalMissing);
    assert_eq!(
        refusal.message,
        "it needs the approvals of 2 people, and none came with it"
    );
    let refusal = scene.with(vec![scene.signed(CAROL)]).unwrap_err();
    assert_eq!(refusal.code, Code::ApprovalMissing);
    assert_eq!(
        refusal.message,
        "it needs the approvals of 2 people, and has those of 1"
    );
}

/// REQ-APPROVAL-3
#[test]
fn approval_other_args() {
    let scene = Scene::new(1);
    let mut other = scene.payload.clone();
    other["args"] = json!({"table": "order"});
    // What was signed, brought for what was not: with the lines of one, and of the other.
    let text = Scene::text(&other, &[Scene::on(&other)]);
    let signature = sshsig::sign(&key(CAROL), sshsig::APPROVE, text.as_bytes()).unwrap();
    scene.refuses(
        &signature,
        Code::ApprovalInvalid,
        "signature 1: failed to verify the signature",
    );
    let refusal = scene.judge(vec![Scene::on(&other)], vec![signature]).unwrap_err();
    assert_eq!(
        (refusal.code, refusal.message.as_str()),
        (Code::ApprovalInvalid, ANOTHER_HERE)
    );
    // Each field that is signed.
    for (field, value) in [
        ("reason", json!("because")),
        ("mode", json!("dry_run")),
        ("expires", json!(NOW + 599)),
        ("action", json!("drop_tables")),
        (
            "requester",
            json!({"brain": "claude", "person": "alicia", "proof": "relay"}),
        ),
        (
            "requester",
            json!({"brain": "clause", "person": "alice", "proof": "relay"}),
        ),
        (
            "requester",
            json!({"brain": "claude", "person": "alice", "proof": "token"}),
        ),
        ("task_id", json!("0192e4a0-7f00-7000-8000-000000000002")),
    ] {
        let mut other = scene.payload.clone();
        other[field] = value;
        let text = Scene::text(&other, &[Scene::on(&scene.payload)]);
        let signature = sshsig::sign(&key(CAROL), sshsig::APPROVE, text.as_bytes()).unwrap();
        scene.refuses(&signature, Code::ApprovalInvalid, "failed to verify the signature");
    }
}

const ANOTHER_HERE: &str = "another request on this target was approved by the same text";
const NOT_AMONG: &str = "this request is not among those that were approved";
const NO_LINE: &str = "a line of what was approved names no target, key and digest";

/// REQ-APPROVAL-2
#[test]
fn approval_other_target() {
    let scene = Scene::new(1);
    let mut there = scene.payload.clone();
    there["target"] = json!("web-2");
    there["target_key"] = json!(wire::ids::Fingerprint::of(key(99).public()));
    let judge = |on: Vec<String>| {
        let text = Scene::text(&scene.payload, &on);
        let signature = sshsig::sign(&key(CAROL), sshsig::APPROVE, text.as_bytes()).unwrap();
        scene
            .judge(on, vec![signature])
            .map(drop)
            .map_err(|refusal| (refusal.code, refusal.message))
    };
    let invalid = |what: &str| Err((Code::ApprovalInvalid, what.to_owned()));
    assert_eq!(judge(vec![Scene::on(&there)]), invalid(NOT_AMONG));
    // A fan-out: one signature, several targets.
    let (own, other) = (Scene::on(&scene.payload), Scene::on(&there));
    assert_eq!(judge(vec![own.clone(), other.clone()]), Ok(()));
    assert_eq!(
        judge(vec![other.clone(), own.clone()]),
        invalid("approval.on: 1 to 256 lines, strictly sorted")
    );
    assert_eq!(
        judge(vec![own.clone(), own.clone()]),
        invalid("approval.on: 1 to 256 lines, strictly sorted")
    );
    assert_eq!(judge(vec![]), invalid("approval.on: 1 to 256 lines, strictly sorted"));
    // The same target twice, by its name, by its key, and under another name.
    let mut twice = scene.payload.clone();
    twice["request_id"] = json!("0192e4a0-7f00-7000-8000-00000000000b");
    let mut renamed = twice.clone();
    renamed["target"] = json!("web-9");
    let mut rekeyed = twice.clone();
    rekeyed["target_key"] = there["target_key"].clone();
    for second in [&twice, &renamed, &rekeyed] {
        let mut on = vec![own.clone(), Scene::on(second)];
        on.sort();
        assert_eq!(judge(on), invalid(ANOTHER_HERE), "{second}");
    }
    for text in [
        "web-3 and nothing else",
        "x",
        "",
        "web-3 SHA256:x y",
        &format!("{other} {other}"),
    ] {
        let mut on = vec![own.clone(), text.to_owned()];
        on.sort();
        assert_eq!(judge(on), invalid(NO_LINE), "{text}");
    }
}

/// The payload says until when, and the manifest how long that may be. REQ-PAYLOAD-10, REQ-PAYLOAD-15
#[test]
fn approval_expired() {
    let scene = Scene::new(1);
    let payload = scene.request().payload().clone();
    assert_eq!(order::timely(&payload, NOW + 629), Ok(()));
    assert_eq!(
        order::timely(&payload, NOW + 630).unwrap_err().code,
        Code::RequestExpired
    );
    let mut late = Scene::new(1);
    late.payload["expires"] = json!(NOW + 631);
    assert_eq!(late.wanted().unwrap_err().code, Code::ExpiresTooFar);
}

/// An approval is for one request: the ledger lets that run once, and no other is it. REQ-APPROVAL-2, REQ-APPROVAL-6
#[test]
fn approval_reused() {
    let scene = Scene::new(1);
    let signature = scene.signed(CAROL);
    let mut again = Scene::new(1);
    again.payload["request_id"] = json!("0192e4a0-7f00-7000-8000-00000000000b");
    let refusal = again
        .judge(vec![Scene::on(&scene.payload)], vec![signature.clone()])
        .unwrap_err();
    assert_eq!(
        (refusal.code, refusal.message.as_str()),
        (Code::ApprovalInvalid, ANOTHER_HERE)
    );
    again.refuses(&signature, Code::ApprovalInvalid, "failed to verify the signature");
}

/// REQ-APPROVAL-4
#[test]
fn approver_unknown() {
    let mut scene = Scene::new(1);
    scene.refuses(
        &scene.signed(50),
        Code::ApproverUnknown,
        "failed to find the key among those that may sign",
    );
    let stranger = key(50).public().fingerprint();
    let refusal = scene.with(vec![scene.signed(50)]).unwrap_err();
    assert!(refusal.message.contains(&stranger), "{}", refusal.message);
    // No such file, or one that names nobody.
    scene.signers = String::new();
    assert_eq!(
        scene.with(vec![scene.signed(CAROL)]).unwrap_err().code,
        Code::ApproverUnknown
    );
    // A line for other namespaces, and a principal that is nobody's name.
    scene.signers = line("dave", "", &key(DAVE)) + &line("carol", "namespaces=\"git\" ", &key(CAROL));
    scene.refuses(
        &scene.signed(CAROL),
        Code::ApproverUnknown,
        "failed to find the namespace in the key's line",
    );
    scene.signers = line("dave", "", &key(DAVE)) + &line("Carol", "", &key(CAROL));
    scene.refuses(
        &scene.signed(CAROL),
        Code::ApproverUnknown,
        "its principal is not the name of a person",
    );
}

/// REQ-APPROVAL-4
#[test]
fn approver_expired() {
    let mut scene = Scene::new(1);
    for (options, code) in [
        ("valid-before=\"20270115075959Z\" ", Some(Code::ApproverExpired)),
        ("valid-before=\"20270115080000Z\" ", None),
        ("valid-after=\"20270115080000Z\" ", None),
        ("valid-after=\"20270115080001Z\" ", Some(Code::ApproverExpired)),
    ] {
        scene.signers = line("dave", "", &key(DAVE)) + &line("carol", options, &key(CAROL));
        match code {
            Some(code) => scene.refuses(&scene.signed(CAROL), code, "failed to accept a key that is not valid"),
            None => assert_eq!(scene.people(vec![scene.signed(CAROL)]), ["carol"], "{options}"),
        }
    }
    scene.signers = line("dave", "", &key(DAVE)) + &line("carol", "cert-authority ", &key(60));
    let signature = certified(CAROL, 60, &scene.own_text(), |builder| {
        builder.valid_principal("carol").unwrap();
    });
    assert_eq!(scene.people(vec![signature.clone()]), ["carol"]);
    scene.now = NOW + 60;
    scene.refuses(
        &signature,
        Code::ApproverExpired,
        "failed to accept a certificate outside of its validity",
    );
}

/// REQ-APPROVAL-5
#[test]
fn approver_is_requester() {
    let mut scene = Scene::new(1);
    scene.signers += &line("alice", "", &key(70));
    scene.refuses(&scene.signed(70), Code::ApproverIsRequester, "it is alice's, who asks");
    // Names are bytes.
    scene.signers = line("dave", "", &key(DAVE)) + &line("alice.b", "", &key(70));
    assert_eq!(scene.people(vec![scene.signed(70)]), ["alice.b"]);
    // By a certificate, too; and no certificate makes her key somebody else's.
    scene.signers = line("dave", "", &key(DAVE)) + &line("alice,carol", "cert-authority ", &key(60));
    let signed = |name: &str| {
        certified(70, 60, &scene.own_text(), |builder| {
            builder.valid_principal(name).unwrap();
        })
    };
    scene.refuses(&signed("alice"), Code::ApproverIsRequester, "it is alice's, who asks");
    let as_carol = signed("carol");
    assert_eq!(scene.people(vec![as_carol.clone()]), ["carol"]);
    scene.signers += &line("alice", "", &key(70));
    scene.refuses(&as_carol, Code::ApproverUnknown, "failed to find exactly one principal");
}

/// REQ-APPROVAL-1
#[test]
fn two_signatures_one_key() {
    let mut scene = Scene::new(2);
    let missing = |scene: &Scene, sigs: Vec<String>| {
        let refusal = scene.with(sigs).unwrap_err();
        assert_eq!(refusal.code, Code::ApprovalMissing, "{}", refusal.message);
        assert_eq!(
            refusal.message,
            "it needs the approvals of 2 people, and has those of 1"
        );
    };
    missing(&scene, vec![scene.signed(CAROL), scene.signed(CAROL)]);
    // Another signature of one key: by the other hash.
    let plain = key(CAROL)
        .private()
        .sign(sshsig::APPROVE, HashAlg::Sha256, scene.own_text().as_bytes())
        .unwrap();
    let data = key(CAROL).public().key_data();
    let other = travelling(data, HashAlg::Sha256, plain.signature().clone());
    missing(&scene, vec![scene.signed(CAROL), other]);
    // Two keys of one person.
    scene.signers += &line("carol", "", &key(30));
    missing(&scene, vec![scene.signed(CAROL), scene.signed(30)]);
    // A person's key and the same person's certificate; one key as two people's by certificates.
    scene.signers += &line("carol,erin,frank", "cert-authority ", &key(60));
    let signed = |by: u8, name: &str| {
        certified(by, 60, &scene.own_text(), |builder| {
            builder.valid_principal(name).unwrap();
        })
    };
    missing(&scene, vec![scene.signed(CAROL), signed(31, "carol")]);
    missing(&scene, vec![signed(31, "erin"), signed(31, "frank")]);
    assert_eq!(
        scene.people(vec![signed(31, "erin"), signed(32, "frank")]),
        ["erin", "frank"]
    );
    // Enough, in whatever order and however often.
    let sigs = vec![
        scene.signed(CAROL),
        scene.signed(CAROL),
        signed(32, "frank"),
        scene.signed(DAVE),
    ];
    assert_eq!(scene.people(sigs), ["carol", "frank", "dave"]);
}

/// Neither of the two keys of ca.pub approves anything, nor certifies who does. REQ-APPROVAL-4
#[test]
fn approver_key_from_task_ca() {
    let mut scene = Scene::new(1);
    let ca = 1;
    assert_eq!(scene.world.cas[0], *key(ca).public());
    let dave = line("dave", "", &key(DAVE));
    scene.signers = dave.clone() + &line("carol", "", &key(ca));
    scene.refuses(
        &scene.signed(ca),
        Code::ApproverUnknown,
        "failed to accept a key of a machine",
    );
    scene.signers = dave.clone() + &line("carol", "cert-authority ", &key(ca));
    let text = scene.own_text();
    let carol = |builder: &mut Builder| {
        builder.valid_principal("carol").unwrap();
    };
    scene.refuses(
        &certified(CAROL, ca, &text, carol),
        Code::ApproverUnknown,
        "failed to accept a key of a machine",
    );
    scene.signers = dave + &line("carol", "cert-authority ", &key(60));
    scene.refuses(
        &certified(ca, 60, &text, carol),
        Code::ApproverUnknown,
        "failed to accept a key of a machine",
    );
    assert_eq!(scene.people(vec![certified(CAROL, 60, &text, carol)]), ["carol"]);
}

/// A certificate: its name, its CA, what it says, and why it does not count.
type Certified = (&'static str, u8, fn(&mut Builder), &'static str);

/// REQ-APPROVAL-4
#[test]
fn a_certificate_names_one_approver_and_nothing_that_is_not_understood() {
    let mut scene = Scene::new(1);
    scene.signers = line("dave", "", &key(DAVE)) + &line("carol,erin", "cert-authority ", &key(60));
    let text = scene.own_text();
    let table: [Certified; 5] = [
        (
            "nobody",
            60,
            |b| {
                b.all_principals_valid().unwrap();
            },
            "exactly one principal",
        ),
        (
            "two",
            60,
            |b| {
                b.valid_principal("carol").unwrap().valid_principal("erin").unwrap();
            },
            "exactly one principal",
        ),
        (
            "another CA",
            61,
            |b| {
                b.valid_principal("carol").unwrap();
            },
            "find the key among those that may sign",
        ),
        (
            "a host's",
            60,
            |b| {
                b.cert_type(CertType::Host).unwrap().valid_principal("carol").unwrap();
            },
            "not a user's",
        ),
        (
            "critical",
            60,
            |b| {
                b.valid_principal("carol").unwrap().critical_option("x@y", "").unwrap();
            },
            "critical options",
        ),
    ];
    for (name, ca, change, what) in table {
        println!("{name}");
        scene.refuses(&certified(CAROL, ca, &text, change), Code::ApproverUnknown, what);
    }
    let fine = certified(CAROL, 60, &text, |builder| {
        builder
            .valid_principal("root")
            .unwrap()
            .valid_principal("carol")
            .unwrap();
        builder.extension("permit-pty", "").unwrap();
    });
    let by = scene.with(vec![fine]).unwrap();
    let expected = (
        "carol".to_owned(),
        key(CAROL).public().fingerprint(),
        "ssh-ed25519-cert-v01@openssh.com".to_owned(),
    );
    assert_eq!(by, [expected]);
}

/// REQ-APPROVER-6
#[test]
fn sig_sk_without_touch() {
    let mut scene = Scene::new(1);
    let text = scene.own_text();
    let (public, touched) = pressed(40, 1, "ssh:", &text);
    let public = ssh_key::PublicKey::from(public).to_openssh().unwrap();
    scene.signers += &format!("erin {public}\n");
    let (_, untouched) = pressed(40, 0, "ssh:", &text);
    scene.refuses(&untouched, Code::ApprovalInvalid, "a security key that was not touched");
    let by = scene.with(vec![touched]).unwrap();
    assert_eq!(
        (by[0].0.as_str(), by[0].2.as_str()),
        ("erin", "sk-ssh-ed25519@openssh.com")
    );
    // The task CA's key in a security key is the task CA's.
    let (public, signature) = pressed(1, 1, "ssh:", &text);
    let public = ssh_key::PublicKey::from(public).to_openssh().unwrap();
    scene.signers += &format!("erin {public}\n");
    scene.refuses(&signature, Code::ApproverUnknown, "a key of a machine");
}

/// REQ-APPROVAL-8
#[test]
fn where_a_touch_is_required_a_key_in_a_file_does_not_count() {
    let mut scene = Scene::new(1);
    scene.touch = Touch::Needed;
    let (public, touched) = pressed(40, 1, "ssh:", &scene.own_text());
    let public = ssh_key::PublicKey::from(public).to_openssh().unwrap();
    scene.signers += &format!("erin {public}\n");
    let refusal = scene.with(vec![scene.signed(CAROL)]).unwrap_err();
    assert_eq!(refusal.code, Code::ApproverUnknown);
    assert!(
        refusal
            .message
            .contains("this target wants a security key, and it is ssh-ed25519"),
        "{}",
        refusal.message
    );
    assert_eq!(scene.people(vec![scene.signed(CAROL), touched]), ["erin"]);
}

/// REQ-APPROVER-4
#[test]
fn sig_wrong_namespace_and_garbage_are_no_approvals() {
    let scene = Scene::new(1);
    let text = scene.own_text();
    for namespace in [sshsig::REQUEST, sshsig::OUTCOME, "file", "approve.v2@writ.internal"] {
        let signature = sshsig::sign(&key(CAROL), namespace, text.as_bytes()).unwrap();
        scene.refuses(&signature, Code::ApprovalInvalid, "a signature of another namespace");
    }
    let good = scene.signed(CAROL);
    for garbage in [
        "",
        "AAAA",
        &good[..good.len() - 4],
        &format!("{good}AAAA"),
        &format!("{good}\n"),
        &"A".repeat(5000),
    ] {
        scene.refuses(garbage, Code::ApprovalInvalid, "failed to read an SSHSIG signature");
    }
    let nine = vec![good; 9];
    assert_eq!(
        scene.with(nine).unwrap_err().message,
        "approval.sigs: 1 to 8 signatures"
    );
}

/// REQ-APPROVAL-9
#[test]
fn of_several_signatures_that_do_not_count_the_first_says_why() {
    let mut scene = Scene::new(2);
    scene.signers += &line("alice", "", &key(70));
    let (unknown, requester) = (scene.signed(50), scene.signed(70));
    let code = |sigs: Vec<String>| {
        let refusal = scene.with(sigs).unwrap_err();
        (
            refusal.code,
            refusal
                .message
                .split("; ")
                .nth(1)
                .map(|what| what.split(':').next().unwrap().to_owned()),
        )
    };
    let first = code(vec![scene.signed(CAROL), unknown.clone(), requester.clone()]);
    assert_eq!(first, (Code::ApproverUnknown, Some("signature 2".to_owned())));
    let first = code(vec![requester, scene.signed(CAROL), unknown]);
    assert_eq!(first, (Code::ApproverIsRequester, Some("signature 1".to_owned())));
}

/// REQ-APPROVAL-9
#[test]
fn a_file_that_cannot_be_used_lets_nobody_approve() {
    let scene = Scene::new(1);
    let approval = Approval {
        on: vec![Scene::on(&scene.payload)],
        sigs: vec![scene.signed(CAROL)],
    };
    let broken = || Err(Refusal::because(Code::ConfigInvalid, "line 3"));
    let refused = order::approved(&scene.request(), scene.wanted().unwrap(), Some(&approval), broken);
    assert_eq!(refused.unwrap_err().code, Code::ConfigInvalid);
}
