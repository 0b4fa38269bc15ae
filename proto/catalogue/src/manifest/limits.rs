//! `[limits]`: what a program may use, beside its time.

use super::{DEFAULT_OUTPUT_BYTES, MAX_OUTPUT_BYTES, Profile};
use crate::table::Table;

/// Bounds of one run. What a manifest leaves out has a default that the shipped actions are far below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Output that is answered, in bytes; the rest is counted and hashed.
    pub output_bytes: u64,
    /// CPU time of each process, in seconds.
    pub cpu_s: u64,
    /// Address space of each process, in bytes.
    pub memory_bytes: u64,
    /// Processes of the whole account that actions run as: parallel tasks and sshd's own share them (setrlimit(2)).
    pub processes: u64,
    /// Open files of each process.
    pub open_files: u64,
    /// Length of a file that it writes, in bytes; 0 for none at all.
    pub file_bytes: u64,
}

/// Defaults, and the most that a manifest may ask for.
const CPU_S: (u64, u64) = (60, 600);
const MEMORY_BYTES: (u64, u64) = (1 << 30, 64 << 30);
const PROCESSES: (u64, u64) = (256, 4096);
const OPEN_FILES: (u64, u64) = (256, 65_536);
const FILE_BYTES: (u64, u64) = (16 << 20, 1 << 40);

/// Reads `[limits]`. A reader writes no file, whatever its manifest says.
pub(super) fn read(table: &mut Table<'_>, profile: Profile) -> Limits {
    let mut limits = Limits {
        output_bytes: DEFAULT_OUTPUT_BYTES,
        cpu_s: CPU_S.0,
        memory_bytes: MEMORY_BYTES.0,
        processes: PROCESSES.0,
        open_files: OPEN_FILES.0,
        file_bytes: if profile == Profile::Reader { 0 } else { FILE_BYTES.0 },
    };
    let Some(mut table) = table.table("limits") else {
        return limits;
    };
    let mut set = |name: &str, least: u64, most: u64, value: &mut u64| {
        if let Some(asked) = table.integer(name, least, most) {
            *value = asked;
        }
    };
    set("output_bytes", 1, MAX_OUTPUT_BYTES, &mut limits.output_bytes);
    set("cpu_s", 1, CPU_S.1, &mut limits.cpu_s);
    set("memory_bytes", 1 << 20, MEMORY_BYTES.1, &mut limits.memory_bytes);
    set("processes", 1, PROCESSES.1, &mut limits.processes);
    set("open_files", 8, OPEN_FILES.1, &mut limits.open_files);
    let most = if profile == Profile::Reader { 0 } else { FILE_BYTES.1 };
    set("file_bytes", 0, most, &mut limits.file_bytes);
    table.finish();
    limits
}
