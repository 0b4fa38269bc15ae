//! Who signed: people whom the target's file names, each once, and not the one who asks.

use openssh::sshsig;
use ssh_key::HashAlg;
use ssh_key::certificate::Builder;
use wire::Code;

use crate::scene::{CAROL, DAVE, Scene, certified, line, travelling};
use crate::stage::{NOW, key};

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
