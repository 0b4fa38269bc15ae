//! How quick the log is: `cargo run --release -p writ-audit --example log_speed [MEBIBYTES]`.
//!
//! Prints rates of appending with durability (1 and 64 writers), of verifying and of replaying.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use audit::{Cert, Decision, Draft, Event, Expected, Log, Output, Own, Tier, Who};
use wire::ids::{Digest, Serial};

fn main() {
    let mebibytes: u64 = std::env::args().nth(1).map_or(256, |text| text.parse().unwrap());
    let room = tempfile::tempdir().unwrap();
    for writers in [1, 8, 64] {
        let dir = room.path().join(writers.to_string());
        std::fs::create_dir(&dir).unwrap();
        open(&dir);
        let (done, start) = (AtomicU64::new(0), Instant::now());
        std::thread::scope(|scope| {
            for _ in 0..writers {
                scope.spawn(|| {
                    let mut log = open(&dir);
                    while start.elapsed() < Duration::from_secs(3) {
                        log.append(&draft(done.fetch_add(1, Ordering::Relaxed))).unwrap();
                    }
                });
            }
        });
        let rate = done.into_inner() as f64 / start.elapsed().as_secs_f64();
        println!("append, {writers} writers: {rate:.0} records/s");
        assert!(audit::verify(&[dir], &Expected::default()).ok);
    }

    let dir = room.path().join("big");
    std::fs::create_dir(&dir).unwrap();
    let mut log = open(&dir);
    let (mut number, start) = (0, Instant::now());
    while number * 1000 < mebibytes << 20 {
        let _ = log.write(&draft(number)).unwrap();
        number += 1;
    }
    println!(
        "write without waiting: {:.0} records/s",
        number as f64 / start.elapsed().as_secs_f64()
    );
    for _ in 0..2 {
        let start = Instant::now();
        let report = audit::verify(std::slice::from_ref(&dir), &Expected::default());
        assert!(report.ok);
        let bytes = report.logs[0].bytes as f64;
        println!(
            "verify: {:.0} MB/s ({:.0} records/s)",
            bytes / 1e6 / start.elapsed().as_secs_f64(),
            report.logs[0].records as f64 / start.elapsed().as_secs_f64(),
        );
    }
    let start = Instant::now();
    let log = open(&dir);
    println!("open: {:?}", start.elapsed());
    let start = Instant::now();
    let _ = log.head();
    println!("head: {:?}", start.elapsed());
}

fn open(dir: &Path) -> Log {
    let who = Who {
        tier: Tier::Target,
        host: "web-1".to_owned(),
        build: "v0.1.0-1-gabcdef0".to_owned(),
    };
    Log::open(dir, &dir.with_extension("lock"), who, Box::new(Own)).unwrap()
}

fn draft(number: u64) -> Draft {
    Draft {
        task_id: Some(format!("0192e4a0-7f00-7000-8000-{:012x}", number / 4).parse().unwrap()),
        request_id: Some(format!("0192e4a0-7f00-7000-8001-{number:012x}").parse().unwrap()),
        request_sha256: Some(Digest::of(b"payload")),
        reason: Some("find out why checkout answers 502".parse().unwrap()),
        target: Some("web-1".parse().unwrap()),
        action: Some("tail_log".parse().unwrap()),
        risk: Some(wire::Risk::Read),
        argv: Some(
            ["/usr/libexec/writ/inspect", "tail", "-n", "200"]
                .map(str::to_owned)
                .to_vec(),
        ),
        mode: Some(wire::Mode::Run),
        decision: Some(Decision::Allow),
        cert: Some(Cert {
            serial: Serial::of(number),
            key_id: format!("0192e4a0-7f00-7000-8000-{:012x}", number / 4),
            ca: format!("SHA256:{}", "A".repeat(43)).parse().unwrap(),
            key: None,
            valid_before: None,
        }),
        exit_code: Some(0),
        duration_ms: Some(1),
        output: Some(Output {
            bytes: 20_000,
            sha256: Digest::of(b"output"),
        }),
        ..Draft::new(Event::Intent)
    }
}
