//! The walls around an action: which system calls it may make and which files it may open by name.
//!
//! Both are built before the fork and put up by the child after it has become the action's account. A wall that cannot be
//! built or put up is a refusal: nothing runs without it. The record names what was applied. No promise rests on Landlock
//! beyond its first version; where the kernel has a later one, more kinds of access are covered (docs/walls.md).

#[cfg(test)]
mod bench;
mod calls;
#[cfg(test)]
mod oracle;
mod tree;

use std::fs::OpenOptions;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::LazyLock;

pub(crate) use catalogue::Profile;
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr,
};
use seccompiler::BpfProgram;

use self::calls::{CALLS, Call};
use crate::sys;

/// Where the child holds the opened program: the one descriptor that `execveat` may name.
pub(crate) const PROGRAM_FD: i32 = 4;

/// The newest Landlock that was tested here; of a newer kernel's no more is asked than this.
const NEWEST: i32 = 5;

/// Stand for the process id of the action and its negation until there is one. No process id is that large.
const OWN_PROCESS: u32 = 0x7ead_0001;
const OWN_GROUP: u32 = 0x7ead_0002;

/// Walls that are built and stand nowhere yet.
pub(crate) struct Walls {
    filter: BpfProgram,
    ruleset: OwnedFd,
    names: Vec<String>,
}

impl Walls {
    /// Builds the walls of a profile around a program.
    ///
    /// # Errors
    /// What is missing on this host.
    pub(crate) fn build(profile: Profile, program: BorrowedFd<'_>) -> Result<Self, String> {
        Self::build_with(profile, program, sys::landlock_abi().min(NEWEST))
    }

    fn build_with(profile: Profile, program: BorrowedFd<'_>, abi: i32) -> Result<Self, String> {
        let ruleset = ruleset(profile, program, abi).map_err(|error| format!("Landlock: {error}"))?;
        let filter = filter(profile)?;
        let name = profile.as_str();
        let names = vec![
            "no_new_privs".to_owned(),
            format!("seccomp:{name}"),
            format!("landlock:{name}:{abi}"),
        ];
        Ok(Self { filter, ruleset, names })
    }

    /// What a record says of them.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// The ruleset, which the child has to keep open until it stands behind it.
    pub(crate) fn ruleset(&self) -> BorrowedFd<'_> {
        self.ruleset.as_fd()
    }

    /// Puts the process's own id into the filter. In the child: it allocates nothing.
    pub(crate) fn settle(&mut self, pid: u32) {
        for instruction in &mut self.filter {
            if instruction.k == OWN_PROCESS {
                instruction.k = pid;
            } else if instruction.k == OWN_GROUP {
                instruction.k = pid.wrapping_neg();
            }
        }
    }

    /// Puts up the filter: from then on nothing else can be put up. In the child.
    ///
    /// # Errors
    /// The kernel refused it.
    pub(crate) fn filter(&self) -> Result<(), ()> {
        seccompiler::apply_filter(&self.filter).map_err(drop)
    }
}

/// The filter of a profile, laid out once a process.
fn filter(profile: Profile) -> Result<BpfProgram, String> {
    static READER: LazyLock<Result<BpfProgram, String>> = LazyLock::new(|| lay_out(Profile::Reader));
    static TOOL: LazyLock<Result<BpfProgram, String>> = LazyLock::new(|| lay_out(Profile::Tool));
    let filter = match profile {
        Profile::Reader => &READER,
        Profile::Tool => &TOOL,
    };
    (*filter).clone()
}

fn lay_out(profile: Profile) -> Result<BpfProgram, String> {
    tree::lay_out(rows(profile)).map_err(|error| format!("seccomp: {error}"))
}

/// The rows of a profile.
fn rows(profile: Profile) -> impl Iterator<Item = &'static Call> {
    let tool = profile == Profile::Tool;
    CALLS.iter().filter(move |call| tool || call.profile == Profile::Reader)
}

/// Which files may be opened by name. Everything that Landlock knows of and no rule allows is refused.
fn ruleset(profile: Profile, program: BorrowedFd<'_>, abi: i32) -> Result<OwnedFd, String> {
    if abi < 1 {
        return Err("this kernel has none; it must be ≥ 5.13 with landlock in its list of security modules".to_owned());
    }
    let text = |error: landlock::RulesetError| error.to_string();
    let known = AccessFs::from_all(ABI::from(abi));
    let look = AccessFs::ReadFile | AccessFs::ReadDir;
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let mut ruleset = ruleset.handle_access(known).and_then(Ruleset::create).map_err(text)?;
    let rules: &[(&str, BitFlags<AccessFs>)] = match profile {
        // A static program needs none of these; another is loaded from them and from nowhere else.
        Profile::Reader => &[
            ("/lib", look | AccessFs::Execute),
            ("/lib64", look | AccessFs::Execute),
            ("/usr/lib", look | AccessFs::Execute),
            ("/usr/lib64", look | AccessFs::Execute),
            ("/etc/ld.so.cache", AccessFs::ReadFile.into()),
            ("/dev/null", AccessFs::ReadFile | AccessFs::WriteFile),
        ],
        Profile::Tool => &[
            ("/", look | AccessFs::Execute),
            ("/tmp", known),
            ("/var/tmp", known),
            ("/dev/null", AccessFs::ReadFile | AccessFs::WriteFile),
        ],
    };
    ruleset = ruleset
        .add_rule(PathBeneath::new(program, AccessFs::Execute | AccessFs::ReadFile))
        .map_err(text)?;
    for (path, access) in rules {
        ruleset = allow(ruleset, Path::new(path), *access & known)?;
    }
    Option::<OwnedFd>::from(ruleset).ok_or_else(|| "the kernel made no ruleset".to_owned())
}

/// One rule. A path that is not there needs none.
fn allow(ruleset: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, String> {
    match OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_CLOEXEC)
        .open(path)
    {
        Ok(opened) => ruleset
            .add_rule(PathBeneath::new(opened, access))
            .map_err(|error| error.to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(ruleset),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::fd::AsRawFd as _;

    /// Runs a look behind the Landlock wall of a profile. Walls stand around one thread, and it ends with the look.
    fn behind(profile: Profile, abi: i32, look: impl FnOnce() + Send + 'static) {
        let program = File::open("/bin/true").unwrap();
        let walls = Walls::build_with(profile, program.as_fd(), abi).unwrap();
        let thread = std::thread::spawn(move || {
            nix::sys::prctl::set_no_new_privs().unwrap();
            sys::restrict_self(walls.ruleset().as_raw_fd()).unwrap();
            look();
        });
        thread.join().unwrap();
    }

    /// The first version is what every promise rests on; the second adds moving between folders; the newest is what runs.
    fn versions() -> Vec<i32> {
        let newest = sys::landlock_abi().min(NEWEST);
        assert!(newest >= 1, "this kernel has no Landlock: nothing can be shown here");
        [1, 2, newest].into_iter().filter(|abi| *abi <= newest).collect()
    }

    #[test]
    fn a_reader_opens_no_file_by_name_but_libraries_whatever_the_version() {
        for abi in versions() {
            behind(Profile::Reader, abi, || {
                assert!(File::open("/etc/passwd").is_err());
                assert!(File::open("/proc/self/status").is_err());
                assert!(fs::read_dir("/tmp").is_err());
                assert!(fs::write(format!("/tmp/writ-walls-{}", std::process::id()), "x").is_err());
                assert!(fs::read_dir("/usr/lib").is_ok());
            });
        }
    }

    #[test]
    fn a_tool_reads_what_its_account_may_and_writes_below_tmp_only_whatever_the_version() {
        let elsewhere = std::env::current_dir().unwrap().join("target-of-walls");
        for abi in versions() {
            let elsewhere = elsewhere.clone();
            behind(Profile::Tool, abi, move || {
                assert!(File::open("/etc/passwd").is_ok());
                let own = format!("/tmp/writ-walls-{}-{abi}", std::process::id());
                fs::write(&own, "x").unwrap();
                fs::remove_file(&own).unwrap();
                assert!(fs::write(&elsewhere, "x").is_err());
                assert!(!elsewhere.exists());
            });
        }
    }

    #[test]
    fn a_host_without_landlock_is_refused() {
        let program = File::open("/bin/true").unwrap();
        for abi in [0, -1] {
            let refused = Walls::build_with(Profile::Reader, program.as_fd(), abi).err().unwrap();
            assert!(refused.contains("5.13"), "{refused}");
        }
    }

    #[test]
    fn the_filter_knows_the_process_only_once_it_is_there() {
        let program = File::open("/bin/true").unwrap();
        let mut walls = Walls::build(Profile::Tool, program.as_fd()).unwrap();
        let holds = |walls: &Walls, number: u32| walls.filter.iter().any(|instruction| instruction.k == number);
        assert!(holds(&walls, OWN_PROCESS) && holds(&walls, OWN_GROUP));
        walls.settle(4711);
        assert!(holds(&walls, 4711) && holds(&walls, 4711_u32.wrapping_neg()));
        assert!(!holds(&walls, OWN_PROCESS) && !holds(&walls, OWN_GROUP));
    }
}
