//! With what they signed: certificates, security keys, and what is no signature at all.

use agent_exec::error::Refusal;
use agent_exec::order::{self, Touch};
use openssh::sshsig;
use ssh_key::certificate::{Builder, CertType};
use wire::Code;
use wire::lines::Approval;

use crate::scene::{CAROL, DAVE, Scene, certified, line, pressed};
use crate::stage::key;

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
