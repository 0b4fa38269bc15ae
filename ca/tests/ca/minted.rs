//! What a minted certificate says, asked of OpenSSH's own tool and of the checks that targets make.

use std::process::Command;

use audit::Event;
use openssh::certificate::{Error, UserCertificate, UserTerms, check_user};
use wire::{FORCE_COMMAND, GRANT_EXTENSION, Grant, Kind, limits};

use crate::room::{Room, Running, key, now, open, renewal};
use crate::stand::Stand;

/// What `ssh-keygen -L` shows.
pub(crate) fn keygen(dir: &std::path::Path, certificate: &str) -> String {
    let path = dir.join("cert.pub");
    std::fs::write(&path, format!("{certificate}\n")).unwrap();
    let shown = Command::new("ssh-keygen")
        .arg("-L")
        .arg("-f")
        .arg(&path)
        .env("TZ", "UTC")
        .output()
        .unwrap();
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    String::from_utf8(shown.stdout).unwrap()
}

/// The lines under a heading of it, until the next one.
pub(crate) fn shown_under<'a>(shown: &'a str, heading: &str) -> Vec<&'a str> {
    let mut lines = shown
        .lines()
        .map(str::trim)
        .skip_while(|line| !line.starts_with(heading));
    assert!(lines.next().is_some(), "{heading} is not in {shown}");
    lines.take_while(|line| !line.contains(':')).collect()
}

/// Checks as a target does that has this principal and takes certificates of this age.
pub(crate) fn checked(certificate: &str, principal: &str, longest_s: u64) -> Result<UserCertificate, Error> {
    let terms = UserTerms {
        cas: &[key(201).public().clone()],
        principal,
        force_command: FORCE_COMMAND,
        grant: GRANT_EXTENSION,
        now: now(),
        skew_s: limits::SKEW_S,
        max_lifetime_s: longest_s + limits::SKEW_S,
    };
    check_user(certificate, &terms)
}

/// Checks a task certificate as its target does, and returns the grant's exact text.
pub(crate) fn grant_of(certificate: &str, principal: &str) -> String {
    let certificate = checked(certificate, principal, limits::TASK_CERTIFICATE_MAX_S).unwrap();
    certificate.grant().to_owned()
}

async fn served() -> (Room, Running) {
    let room = Room::new();
    let running = room.serve().await;
    (room, running)
}

/// REQ-CERT-16
#[tokio::test(flavor = "multi_thread")]
async fn ssh_keygen_shows_what_the_design_says() {
    let (room, running) = served().await;
    let call = open(1);
    let credential = running.open(&call).await.unwrap();
    let shown = keygen(room.dir.path(), &credential.certificate);
    let lines: Vec<&str> = shown.lines().map(str::trim).collect();
    let ends = |text: &str| lines.iter().any(|line| line.ends_with(text));
    assert!(ends("ssh-ed25519-cert-v01@openssh.com user certificate"), "{shown}");
    assert!(lines.contains(&&*format!("Key ID: \"{}\"", call.task_id)), "{shown}");
    assert!(
        lines.contains(&&*format!("Public key: ED25519-CERT {}", key(1).public().fingerprint())),
        "{shown}"
    );
    let ca = format!(
        "Signing CA: ED25519 {} (using ssh-ed25519)",
        key(201).public().fingerprint()
    );
    assert!(lines.contains(&&*ca), "{shown}");
    assert_eq!(shown_under(&shown, "Principals:"), ["web-1"], "{shown}");
    assert_eq!(
        shown_under(&shown, "Critical Options:"),
        [
            &*format!("force-command {FORCE_COMMAND}"),
            "source-address 127.0.0.0/8,10.1.2.3/32"
        ],
        "{shown}"
    );
    let extensions: Vec<&str> = lines
        .iter()
        .skip_while(|line| !line.starts_with("Extensions:"))
        .skip(1)
        .copied()
        .collect();
    assert!(
        extensions.len() == 1 && extensions[0].starts_with(GRANT_EXTENSION),
        "one extension, no permit-*: {shown}"
    );
    assert!(!shown.contains("permit-"), "{shown}");

    let valid = (credential.valid_before - credential.valid_after) as u64;
    assert_eq!(valid, 300 + limits::SKEW_S);
    assert!(now().abs_diff(credential.valid_after as u64 + limits::SKEW_S) <= 2);
    running.stop().await;
}

/// REQ-CERT-17, REQ-CARPC-10, REQ-GRANT-3
#[tokio::test(flavor = "multi_thread")]
async fn the_grant_names_the_task_and_the_record_that_is_older_than_it() {
    let (_room, running) = served().await;
    let call = open(1);
    let credential = running.open(&call).await.unwrap();
    let text = grant_of(&credential.certificate, "web-1");
    assert!(text.len() <= limits::GRANT);
    let grant = Grant::parse(text.as_bytes()).unwrap();
    assert_eq!(grant.kind, Kind::Task);
    assert_eq!(grant.task_id.as_str(), call.task_id);
    assert_eq!(grant.opened as i64, credential.opened);
    assert_eq!(
        (grant.requester.person.as_str(), grant.requester.brain.as_str()),
        ("alice", "claude")
    );
    assert_eq!((grant.relay.as_str(), grant.target.as_str()), ("relay-1", "web-1"));
    let actions: Vec<&str> = grant.actions.iter().map(wire::ids::ActionName::as_str).collect();
    assert_eq!(actions, ["check_health", "read_file", "tail_log"]);
    assert_eq!(credential.actions, actions);
    assert_eq!(grant.policy.as_str(), credential.policy);
    assert_eq!(credential.receipt_key, key(101).public().to_openssh());
    assert_eq!(
        (grant.request_sha256, grant.manifest, grant.approvals, grant.krl),
        (None, None, None, None)
    );

    let records = running.records();
    let issue = records.last().unwrap();
    assert_eq!(issue.draft.event, Event::Issue);
    assert_eq!(grant.witness.ca.seq, issue.envelope.seq);
    let cert = issue.draft.cert.as_ref().unwrap();
    assert_eq!(cert.key.as_ref().unwrap().as_str(), key(1).public().fingerprint());
    assert_eq!(cert.valid_before, Some(credential.valid_before as u64));
    assert_eq!(issue.draft.policy.as_deref(), Some(&["shipped-reads".to_owned()][..]));
    let read = openssh::certificate::read(&credential.certificate).unwrap();
    assert_eq!(cert.serial.as_str(), read.serial().to_string());
    assert!(read.serial() < 1 << 63);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_two_certificates_are_the_same() {
    let (_room, running) = served().await;
    let call = open(1);
    let mut serials = std::collections::BTreeSet::new();
    serials.insert(
        openssh::certificate::read(&running.open(&call).await.unwrap().certificate)
            .unwrap()
            .serial(),
    );
    for _ in 0..5 {
        let again = running.renew(&renewal(&call)).await.unwrap();
        serials.insert(openssh::certificate::read(&again.certificate).unwrap().serial());
    }
    assert_eq!(serials.len(), 6);
    let events = running.events();
    assert_eq!(events.iter().filter(|event| **event == Event::Renew).count(), 5);
    running.stop().await;
}

/// Not a test of a promise: prints how long a call takes here.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, to be run by hand with --nocapture"]
async fn how_long_a_call_takes() {
    let (_room, running) = served().await;
    for (name, parallel) in [("one at a time", 1_usize), ("eight at a time", 8)] {
        let started = std::time::Instant::now();
        let mut times = Vec::new();
        let callers = (0..parallel).map(|_| {
            let mut client = running.client.clone();
            tokio::spawn(async move {
                let mut times = Vec::new();
                for _ in 0..400 / parallel {
                    let at = std::time::Instant::now();
                    client.open_task(open(1)).await.unwrap();
                    times.push(at.elapsed());
                }
                times
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            times.extend(caller.await.unwrap());
        }
        let whole = started.elapsed();
        times.sort();
        println!(
            "{name}: p50 {:?} p99 {:?}, {:.0} calls/s",
            times[200],
            times[395],
            400.0 / whole.as_secs_f64()
        );
    }
    let mut client = running.client.clone();
    let mut times: Vec<_> = Vec::new();
    for _ in 0..400 {
        let at = std::time::Instant::now();
        client.describe(grpc::v1::DescribeRequest {}).await.unwrap();
        times.push(at.elapsed());
    }
    times.sort();
    println!("describe: p50 {:?}", times[200]);
    running.stop().await;

    let stand = Stand::new().await;
    let mut times: Vec<_> = Vec::new();
    for _ in 0..400 {
        let request = stand.count();
        let at = std::time::Instant::now();
        stand.ask(&request).await.unwrap();
        times.push(at.elapsed());
    }
    times.sort();
    println!("authorize: p50 {:?} p99 {:?}", times[200], times[395]);
    stand.stop().await;
}
