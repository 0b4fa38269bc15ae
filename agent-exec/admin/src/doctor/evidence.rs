//! The log: is it whole, can it be written, is there room for more, and was none of it written in the future?

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use audit::{Expected, Kind, verify};
use nix::sys::statvfs::{FsFlags, statvfs};
use wire::limits::SKEW_S;

use super::LOG;
use super::report::{Check, Report};

const WHOLE: Check = Check {
    name: "audit_log",
    what: "the log verifies: chained, in order, from its first line on",
    why: "a broken chain means that records were changed or lost",
    mend: "`writ-audit verify /var/log/writ` says where; keep a copy before anything else",
};
const WRITABLE: Check = Check {
    name: "audit_writable",
    what: "log and state lie on file systems that can be written",
    why: "nothing runs where it cannot be recorded first",
    mend: "`mount -o remount,rw MOUNT`",
};
const SPACE: Check = Check {
    name: "audit_space",
    what: "there are 64 MiB of room for the log",
    why: "on a full disk every action is refused",
    mend: "make room below `/var/log`",
};
const CLOCK: Check = Check {
    name: "clock",
    what: "the clock is not behind the log",
    why: "certificates live for minutes: with a wrong clock all are refused",
    mend: "`timedatectl set-ntp true`",
};

pub(super) const CHECKS: &[&Check] = &[&WHOLE, &WRITABLE, &SPACE, &CLOCK];

/// One segment, which is the least that a log should have room for.
const ROOM: u64 = 64 << 20;

/// A file system that must be written.
#[derive(Debug, Clone)]
struct Disk {
    path: PathBuf,
    read_only: bool,
    free_bytes: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Evidence {
    /// Records in all logs, or what is wrong; none where nothing was recorded yet.
    verified: Option<Result<u64, String>>,
    disks: Vec<Result<Disk, String>>,
    /// When a segment was last written, in Unix seconds.
    written: Option<u64>,
}

pub(super) fn look() -> Evidence {
    let disk = |path: &str| {
        let about = statvfs(path).map_err(|errno| format!("failed to look at {path}: {}", errno.desc()))?;
        Ok(Disk {
            path: PathBuf::from(path),
            read_only: about.flags().contains(FsFlags::ST_RDONLY),
            free_bytes: about.blocks_available().saturating_mul(about.fragment_size()),
        })
    };
    Evidence {
        verified: verified(Path::new(LOG)),
        disks: vec![disk(LOG), disk("/var/lib/writ")],
        written: std::fs::read_dir(LOG)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|end| end == "jsonl"))
            .filter_map(|entry| entry.metadata().ok())
            .filter_map(|about| u64::try_from(about.mtime()).ok())
            .max(),
    }
}

fn verified(folder: &Path) -> Option<Result<u64, String>> {
    let report = verify(&[folder.to_owned()], &Expected::default());
    let fault = report
        .faults
        .first()
        .or(report.logs.iter().find_map(|log| log.fault.as_ref()));
    match fault {
        None => Some(Ok(report.logs.iter().map(|log| log.records).sum())),
        Some(fault) if fault.kind == Kind::NoLog => None,
        Some(fault) => {
            let at = fault.seq.map(|seq| format!(" at record {seq}")).unwrap_or_default();
            Some(Err(format!("{}{at}: {}", fault.kind.as_str(), fault.what)))
        }
    }
}

pub(super) fn judge(evidence: &Evidence, now: u64, report: &mut Report) {
    match &evidence.verified {
        None => report.settle(&WHOLE, "nothing was recorded yet"),
        Some(Ok(records)) => report.settle(&WHOLE, format!("{records} records, whole")),
        Some(Err(what)) => {
            let mend = format!("cp -a {LOG} /root/writ-log, then: writ-audit verify /root/writ-log");
            report.finding(&WHOLE, format!("{LOG}: {what}"), mend);
        }
    }
    for disk in &evidence.disks {
        match disk {
            Err(error) => report.finding(&WRITABLE, error, "writ/install NAME"),
            Ok(disk) if disk.read_only => {
                let path = disk.path.display();
                let mend = format!("mount -o remount,rw \"$(stat -c %m {path})\"");
                report.finding(
                    &WRITABLE,
                    format!("{path} lies on a file system that is mounted read-only"),
                    mend,
                );
            }
            Ok(disk) if disk.free_bytes < ROOM => {
                let (path, free) = (disk.path.display(), disk.free_bytes >> 20);
                report.notice(
                    &SPACE,
                    format!("{path} has room for {free} MiB"),
                    format!("df -h {path}, then make room"),
                );
            }
            Ok(_) => {}
        }
    }
    report.settle(&WRITABLE, "log and state can be written");
    report.settle(&SPACE, "at least 64 MiB are free");
    if let Some(ahead) = evidence
        .written
        .and_then(|written| written.checked_sub(now))
        .filter(|ahead| *ahead > SKEW_S)
    {
        let what = format!("the log was written {ahead} s in the future: the clock went back");
        report.finding(&CLOCK, what, "timedatectl set-ntp true");
    }
    report.settle(&CLOCK, "not behind the log; it was compared with no time server");
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn healthy() -> Evidence {
        let disk = Disk {
            path: PathBuf::from(LOG),
            read_only: false,
            free_bytes: ROOM,
        };
        Evidence {
            verified: Some(Ok(7)),
            disks: vec![Ok(disk.clone()), Ok(disk)],
            written: Some(NOW),
        }
    }

    fn judged(evidence: &Evidence) -> Report {
        let mut report = Report::default();
        judge(evidence, NOW, &mut report);
        report
    }

    #[test]
    fn a_whole_log_with_room_has_no_findings() {
        let report = judged(&healthy());
        assert_eq!(report.found(), Vec::<&str>::new());
        assert_eq!(report.said().len(), CHECKS.len());
        let mut evidence = healthy();
        (evidence.verified, evidence.written) = (None, None);
        assert!(judged(&evidence).found().is_empty());
    }

    #[test]
    fn each_broken_thing_is_named() {
        let mut evidence = healthy();
        evidence.verified = Some(Err("chain_broken at record 3".to_owned()));
        assert_eq!(judged(&evidence).found(), ["audit_log"]);
        let mut evidence = healthy();
        evidence.disks[1].as_mut().unwrap().read_only = true;
        assert_eq!(judged(&evidence).found(), ["audit_writable"]);
        let mut evidence = healthy();
        evidence.disks[0] = Err("failed".to_owned());
        assert_eq!(judged(&evidence).found(), ["audit_writable"]);
        let mut evidence = healthy();
        evidence.written = Some(NOW + 3600);
        assert_eq!(judged(&evidence).found(), ["clock"]);
        let mut evidence = healthy();
        evidence.disks[0].as_mut().unwrap().free_bytes = 1 << 20;
        assert!(judged(&evidence).found().is_empty());
        assert!(judged(&evidence).text().contains("room for 1 MiB"));
    }

    #[test]
    fn logs_are_verified_as_an_auditor_would() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(verified(folder.path()), None);
        std::fs::write(folder.path().join("00000000000000000000.jsonl"), "{}\n").unwrap();
        assert!(verified(folder.path()).unwrap().unwrap_err().starts_with("malformed"));
        assert!(verified(&folder.path().join("none")).unwrap().is_err());
    }
}
