//! What `order` accepts and refuses at its edges: certificates and requests that are good but for one thing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test says why")]

use agent_exec::error::Refusal;
use agent_exec::order::{self, Knowledge, Own, Permit, Permits, Verified};
use serde_json::{Value, json};
use wire::ids::Digest;
use wire::{Code, Risk, limits};

mod stage;

use stage::{NOW, TASK, World, grant, key};

/// One thing that is changed in a grant.
type Change = fn(&mut Value);

fn own(payload: &Value, risk: Risk) -> (Digest, Risk) {
    (payload["manifest"].as_str().unwrap().parse().unwrap(), risk)
}

/// Permitted, and needing nobody's approval.
fn judged(
    request: &Verified,
    own: Own<'_>,
    permit: Option<&Permit>,
    knowledge: &Knowledge<'_>,
) -> Result<Risk, Refusal> {
    let wanted = order::permitted(request, own, permit, knowledge)?;
    let approved = order::approved(request, wanted, None, || panic!("nobody approved anything"))?;
    assert_eq!(approved.by(), []);
    Ok(wanted.risk())
}

fn permitted(
    world: &World,
    payload: &Value,
    risk: Risk,
    approvals: u8,
    permits: &mut Permits,
) -> Result<Risk, Refusal> {
    let request = world.verify(payload).unwrap();
    let (manifest, risk) = own(payload, risk);
    let own = Own {
        risk,
        manifest: &manifest,
        approvals,
        approval_window_s: None,
        dry_run: None,
    };
    let permit = permits.take(&request);
    judged(&request, own, permit.as_ref(), &world.knows(NOW))
}

#[test]
fn a_task_may_be_as_old_as_eight_hours_and_as_young_as_two_clocks_can_differ() {
    let world = World::new();
    let skew = 2 * limits::SKEW_S;
    let opened = |opened: u64| {
        let mut grant = grant();
        grant["opened"] = json!(opened);
        world.accept(&grant, None).map(drop)
    };
    for fine in [NOW, NOW + 1, NOW + skew, NOW - 1, NOW - limits::TASK_MAX_S - skew + 1] {
        assert_eq!(opened(fine), Ok(()), "{fine}");
    }
    for not in [NOW + skew + 1, NOW - limits::TASK_MAX_S - skew, NOW + 100_000, 0] {
        assert_eq!(opened(not), Err(Code::GrantMismatch), "{not}");
    }
}

#[test]
fn the_session_s_login_key_is_the_certificate_s() {
    let world = World::new();
    let text = world.certificate("web-1", 300, &grant());
    let other = key(9);
    let with = |login_key| {
        let knowledge = Knowledge {
            login_key,
            ..world.knows(NOW)
        };
        order::accept(&text, &knowledge, None)
            .map(drop)
            .map_err(|refusal| refusal.code)
    };
    assert_eq!(with(Some(&world.login)), Ok(()));
    assert_eq!(with(Some(other.public())), Err(Code::KeyMismatch));
    assert_eq!(with(None), Err(Code::AuthInfoMissing));
}

#[test]
fn a_renewal_is_of_the_same_task() {
    let world = World::new();
    let task = world.task();
    assert!(world.accept(&grant(), Some(&task)).is_ok());
    let mut other = grant();
    other["task_id"] = json!(TASK.replace("0001", "0002"));
    assert!(world.accept(&other, None).is_ok());
    assert_eq!(world.accept(&other, Some(&task)).map(drop), Err(Code::WrongTask));
}

#[test]
fn a_grant_says_what_its_certificate_says() {
    let world = World::new();
    let mut other = grant();
    other["target"] = json!("web-2");
    assert_eq!(world.accept(&other, None).map(drop), Err(Code::GrantMismatch));
    assert_eq!(
        order::accept(&world.permit(&world.payload(), 90, |_| {}), &world.knows(NOW), None)
            .map(drop)
            .map_err(|refusal| refusal.code),
        Err(Code::CertificatePrincipals)
    );
    // An action's grant in a certificate that logs in.
    let mut action = grant();
    for (key, value) in [
        ("kind", json!("action")),
        ("actions", json!(["tail_log"])),
        ("manifest", json!(Digest::zero())),
        ("approvals", json!(0)),
        ("krl", json!(0)),
        ("request_sha256", json!(Digest::zero())),
    ] {
        action[key] = value;
    }
    assert_eq!(world.accept(&action, None).map(drop), Err(Code::GrantMismatch));
}

#[test]
fn a_payload_may_be_as_long_as_its_limit_and_not_longer() {
    let world = World::new();
    let padded = |length: usize| {
        let mut payload = world.payload();
        payload["args"] = json!({"x": ""});
        let missing = length - payload.to_string().len();
        payload["args"] = json!({"x": "y".repeat(missing)});
        assert_eq!(payload.to_string().len(), length);
        world.verify(&payload).map(drop)
    };
    assert_eq!(padded(limits::PAYLOAD), Ok(()));
    assert_eq!(padded(limits::PAYLOAD - 1), Ok(()));
    // Not read, so nobody proved anything by it.
    assert_eq!(padded(limits::PAYLOAD + 1), Err(Code::PayloadMalformed));
}

/// REQ-PAYLOAD-10
#[test]
fn how_far_a_request_is_off_is_said_in_seconds() {
    let world = World::new();
    let payload = world.verify(&world.payload()).unwrap().payload().clone();
    let at = |now: u64| order::timely(&payload, now).map_err(|refusal| (refusal.code, refusal.message));
    let expires = payload.expires;
    for fine in [expires - 60, expires, expires + 29, expires - 90, 0] {
        assert_eq!(at(fine), Ok(()), "{fine}");
    }
    let late = "it expired 30 s ago by the target's clock".to_owned();
    assert_eq!(at(expires + 30), Err((Code::RequestExpired, late)));
}

/// REQ-PAYLOAD-15
#[test]
fn only_people_are_waited_for_and_as_long_as_the_manifest_says() {
    let world = World::new();
    let far = |ahead: u64, approvals: u8, by_policy: u8, approval_window_s: Option<u64>| {
        let mut payload = world.payload();
        payload["expires"] = json!(NOW + ahead);
        let text = world.permit(&payload, 90, |grant| grant["approvals"] = json!(by_policy));
        let request = world.verify(&payload).unwrap();
        let permit = world.permits(&text).unwrap().take(&request);
        let (manifest, risk) = own(&payload, Risk::Change);
        let own = Own {
            risk,
            manifest: &manifest,
            approvals,
            approval_window_s,
            dry_run: None,
        };
        let wanted = order::permitted(&request, own, permit.as_ref(), &world.knows(NOW));
        wanted
            .map(|wanted| wanted.approvals())
            .map_err(|refusal| (refusal.code, refusal.message))
    };
    let too_far = |ahead: u64, may: u64| {
        let what = format!("it expires in {ahead} s by the target's clock, and may in {may} s");
        Err((Code::ExpiresTooFar, what))
    };
    for (approvals, by_policy, window, may) in [
        (0, 0, None, 60),
        (0, 0, Some(600), 60),
        (1, 0, Some(900), 900),
        (1, 2, Some(60), 60),
        (0, 1, Some(28_800), 28_800),
        (0, 1, None, 600),
    ] {
        assert_eq!(
            far(may + 30, approvals, by_policy, window),
            Ok(approvals.max(by_policy))
        );
        assert_eq!(far(may + 31, approvals, by_policy, window), too_far(may + 31, may));
    }
}

#[test]
fn a_task_certificate_covers_the_reads_that_it_lists_and_nothing_else() {
    let world = World::new();
    let none = &mut Permits::default();
    let code = |result: Result<Risk, Refusal>| result.map_err(|refusal| refusal.code);
    let payload = world.payload();
    assert_eq!(code(permitted(&world, &payload, Risk::Read, 0, none)), Ok(Risk::Read));
    for risk in [Risk::Change, Risk::Destroy] {
        let refused = permitted(&world, &payload, risk, 0, none);
        assert_eq!(code(refused), Err(Code::ActionCertificateMissing));
    }
    assert_eq!(
        code(permitted(&world, &payload, Risk::Read, 1, none)),
        Err(Code::ApprovalMissing)
    );
    let mut other = payload.clone();
    other["action"] = json!("check_health");
    assert_eq!(
        code(permitted(&world, &other, Risk::Read, 0, none)),
        Err(Code::ActionNotGranted)
    );
    let mut dry = payload.clone();
    dry["mode"] = json!("dry_run");
    assert_eq!(
        code(permitted(&world, &dry, Risk::Read, 0, none)),
        Err(Code::ModeUnsupported)
    );
}

#[test]
fn an_action_certificate_covers_its_one_request_once() {
    let world = World::new();
    let mut payload = world.payload();
    payload["action"] = json!("restart_service");
    let permits = &mut world.permits(&world.permit(&payload, 90, |_| {})).unwrap();
    let mut other = payload.clone();
    other["args"] = json!({"x": 1});
    let code = |result: Result<Risk, Refusal>| result.map_err(|refusal| refusal.code);
    let missing = Err(Code::ActionCertificateMissing);
    assert_eq!(code(permitted(&world, &other, Risk::Change, 0, permits)), missing);
    assert_eq!(
        code(permitted(&world, &payload, Risk::Change, 0, permits)),
        Ok(Risk::Change)
    );
    assert_eq!(code(permitted(&world, &payload, Risk::Change, 0, permits)), missing);
}

/// What is tried out needs the certificate of the action itself, and nobody's signature where it only looks. REQ-PAYLOAD-14
#[test]
fn a_dry_run_stands_under_the_actions_certificate_and_is_judged_by_its_own_risk() {
    let world = World::new();
    let mut payload = world.payload();
    payload["mode"] = json!("dry_run");
    let manifest = Digest::of(b"m");
    let judge = |own: Risk, dry_run: Option<Risk>, approvals: u8, certified: Option<u8>| {
        let request = world.verify(&payload).unwrap();
        let permit = certified.and_then(|number| {
            let text = world.permit(&payload, 90, |grant| grant["approvals"] = json!(number));
            world.permits(&text).unwrap().take(&request)
        });
        let own = Own {
            risk: own,
            manifest: &manifest,
            approvals,
            approval_window_s: None,
            dry_run,
        };
        judged(&request, own, permit.as_ref(), &world.knows(NOW)).map_err(|refusal| refusal.code)
    };
    let (read, change, destroy) = (Risk::Read, Risk::Change, Risk::Destroy);
    // The task's certificate lists it, and that is not enough.
    assert_eq!(judge(change, Some(read), 0, None), Err(Code::ActionCertificateMissing));
    assert_eq!(judge(change, Some(read), 0, Some(0)), Ok(read));
    assert_eq!(judge(destroy, Some(change), 0, Some(0)), Ok(change));
    // The manifest's approvals are for what has an effect; policy's are for all that it certifies.
    assert_eq!(judge(destroy, Some(read), 2, Some(0)), Ok(read));
    assert_eq!(judge(destroy, Some(change), 2, Some(0)), Err(Code::ApprovalMissing));
    assert_eq!(judge(destroy, Some(read), 0, Some(1)), Err(Code::ApprovalMissing));
    assert_eq!(judge(change, None, 0, Some(0)), Err(Code::ModeUnsupported));
}

#[test]
fn request_certificate_and_target_mean_one_manifest() {
    let world = World::new();
    let other = json!(Digest::of(b"another"));
    for (request, certificate, target) in [(true, false, false), (false, true, false), (false, false, true)] {
        let mut payload = world.payload();
        if request {
            payload["manifest"] = other.clone();
        }
        let text = world.permit(&payload, 90, |grant| {
            grant["manifest"] = if certificate {
                other.clone()
            } else {
                json!(Digest::of(b"m"))
            };
        });
        let permits = &mut world.permits(&text).unwrap();
        let verified = world.verify(&payload).unwrap();
        let manifest = if target { Digest::of(b"third") } else { Digest::of(b"m") };
        let own = Own {
            risk: Risk::Change,
            manifest: &manifest,
            approvals: 0,
            approval_window_s: None,
            dry_run: None,
        };
        let permit = permits.take(&verified);
        let refused = judged(&verified, own, permit.as_ref(), &world.knows(NOW)).unwrap_err();
        assert_eq!(refused.code, Code::ManifestChanged, "{request} {certificate} {target}");
    }
}

#[test]
fn approvals_are_the_more_of_what_policy_and_manifest_want() {
    let world = World::new();
    let payload = world.payload();
    for (policy, manifest, expected) in [
        (0, 0, Ok(())),
        (1, 0, Err(Code::ApprovalMissing)),
        (0, 1, Err(Code::ApprovalMissing)),
    ] {
        let text = world.permit(&payload, 90, |grant| grant["approvals"] = json!(policy));
        let permits = &mut world.permits(&text).unwrap();
        let result = permitted(&world, &payload, Risk::Change, manifest, permits);
        assert_eq!(
            result.map(drop).map_err(|refusal| refusal.code),
            expected,
            "{policy} {manifest}"
        );
    }
}

#[test]
fn a_session_holds_few_certificates_that_it_does_not_use() {
    let world = World::new();
    let mut permits = Permits::default();
    let text = |number: u64| {
        let mut payload = world.payload();
        payload["args"] = json!({ "number": number });
        world.permit(&payload, 90, |_| {})
    };
    let mut accept = |number: u64, now: u64| {
        let accepted = permits.accept(&text(number), &world.knows(now), Some(&world.task()));
        accepted.map_err(|refusal| refusal.code)
    };
    for number in 0..16 {
        assert_eq!(accept(number, NOW), Ok(()));
    }
    assert_eq!(accept(16, NOW), Err(Code::Capacity));
    assert_eq!(accept(3, NOW), Ok(()), "one that it holds already");
}

#[test]
fn an_action_certificate_is_the_task_s_own() {
    let world = World::new();
    let payload = world.payload();
    let table: [(&str, Code, Change); 6] = [
        ("opened", Code::GrantMismatch, |grant| grant["opened"] = json!(NOW - 99)),
        ("relay", Code::GrantMismatch, |grant| grant["relay"] = json!("other")),
        ("requester", Code::GrantMismatch, |grant| {
            grant["requester"]["person"] = json!("bob")
        }),
        ("target", Code::GrantMismatch, |grant| grant["target"] = json!("web-2")),
        ("task", Code::WrongTask, |grant| {
            grant["task_id"] = json!(TASK.replace("0001", "0002"))
        }),
        ("krl", Code::KrlStale, |grant| grant["krl"] = json!(1)),
    ];
    for (name, code, change) in table {
        let text = world.permit(&payload, 90, change);
        assert_eq!(world.permits(&text).map(drop), Err(code), "{name}");
    }
    let long = world.permit(&payload, 91, |_| {});
    assert_eq!(world.permits(&long).map(drop), Err(Code::CertificateLifetime));
    let mut none = Permits::default();
    let fine = world.permit(&payload, 90, |_| {});
    let refused = none.accept(&fine, &world.knows(NOW), None).unwrap_err();
    assert_eq!(refused.code, Code::CertificateMissing);
    assert!(order::is_for_an_action(&fine, &world.knows(NOW)));
    assert!(!order::is_for_an_action(
        &world.certificate("web-1", 300, &grant()),
        &world.knows(NOW)
    ));
}

/// Key id and grant, each by itself.
#[test]
fn an_action_certificate_names_the_task_twice() {
    let world = World::new();
    let other = TASK.replace("0001", "0002");
    let mut grant = grant();
    let payload = world.payload();
    for (key, value) in [
        ("kind", json!("action")),
        ("actions", json!([payload["action"]])),
        ("manifest", payload["manifest"].clone()),
        ("approvals", json!(0)),
        ("krl", json!(0)),
        ("request_sha256", json!(Digest::of(payload.to_string().as_bytes()))),
    ] {
        grant[key] = value;
    }
    let text = world.certificate_of(&other, "action/web-1", 90, &grant);
    assert_eq!(world.permits(&text).map(drop), Err(Code::WrongTask));
    grant["task_id"] = json!(other);
    let text = world.certificate_of(TASK, "action/web-1", 90, &grant);
    assert_eq!(world.permits(&text).map(drop), Err(Code::WrongTask));
}

/// A CA that pinned the bytes of one action and named another.
#[test]
fn an_action_certificate_names_the_action_of_the_bytes_that_it_pins() {
    let world = World::new();
    let payload = world.payload();
    let text = world.permit(&payload, 90, |grant| grant["actions"] = json!(["read_file"]));
    let permits = &mut world.permits(&text).unwrap();
    let refused = permitted(&world, &payload, Risk::Change, 0, permits).unwrap_err();
    assert_eq!(refused.code, Code::GrantMismatch);
}

#[test]
fn a_certificate_of_a_ca_that_is_not_trusted_any_more_covers_nothing() {
    let world = World::new();
    let payload = world.payload();
    let permits = &mut world.permits(&world.permit(&payload, 90, |_| {})).unwrap();
    let request = world.verify(&payload).unwrap();
    let permit = permits.take(&request);
    let (manifest, risk) = own(&payload, Risk::Change);
    let own = Own {
        risk,
        manifest: &manifest,
        approvals: 0,
        approval_window_s: None,
        dry_run: None,
    };
    let judge = |knowledge: &Knowledge<'_>| {
        let found = judged(&request, own, permit.as_ref(), knowledge);
        found.map_err(|refusal| refusal.code)
    };
    assert_eq!(judge(&world.knows(NOW)), Ok(Risk::Change));
    let others = [key(8).public().clone()];
    let without = Knowledge {
        cas: &others,
        ..world.knows(NOW)
    };
    assert_eq!(judge(&without), Err(Code::CertificateUntrusted));
    assert_eq!(judge(&world.knows(NOW + 90)), Err(Code::CertificateExpired));
}
