//! What walls add to an action, measured where they can be replaced by others: here and nowhere else. Nothing outside of
//! tests can, and no flag turns one off.
//!
//! Actions behind their walls alternate with actions behind the least that the kernel takes as walls: a filter that allows
//! everything, and a ruleset that knows one kind of access. What putting up the least costs is measured by itself, so that
//! it can be added to the difference. It runs inside a target, as agent-exec does, and prints its raw samples.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use seccompiler::{SeccompAction, sock_filter};

use super::*;
use crate::child::{self, Alone, Command};
use crate::house::{self, Config};
use crate::sys::{Cage, Resting};

const ROUNDS: usize = 500;
const WARM_UP: usize = 20;

/// Any log of 200 lines of 100 bytes each, at least.
const LOG: &str = "/var/log/shop/bench.log";
const BYTES: u64 = 20_000;

const PROGRAM: [&str; 4] = ["/usr/libexec/writ/inspect", "tail", "-n", "200"];

#[test]
#[ignore = "a measurement, for the inside of a target: `make bench` runs it"]
fn reader() {
    measure(Profile::Reader);
}

#[test]
#[ignore = "a measurement, for the inside of a target: `make bench` runs it"]
fn tool() {
    measure(Profile::Tool);
}

/// Takes and prints the samples of one profile, in ms.
fn measure(profile: Profile) {
    let started = sys::started(Config::read().unwrap().ids()).unwrap();
    let resting = sys::rest(started).unwrap();
    let (mut with, mut building) = (Vec::new(), Vec::new());
    let (mut without, mut alone) = (Vec::new(), Vec::new());
    for round in 0..WARM_UP + ROUNDS {
        let (behind_walls, built) = action(resting, |program| Walls::build(profile, program).unwrap());
        let prepared = least();
        let (behind_least, _) = action(resting, |_| prepared);
        let least_alone = put_up(least());
        if round >= WARM_UP {
            with.push(behind_walls);
            building.push(built);
            without.push(behind_least);
            alone.push(least_alone);
        }
    }
    // On a line of its own: the test's name stands there already.
    println!(
        "\n{}",
        serde_json::json!({"with": with, "building": building, "least": without, "alone": alone})
    );
}

/// One action behind these walls: from their building to the end of its process, and their building alone. Killed children
/// look fast: its exit code and the length of its output are looked at.
fn action(resting: Resting, walls: impl FnOnce(BorrowedFd<'_>) -> Walls) -> (f64, f64) {
    let argv = PROGRAM.map(str::to_owned).to_vec();
    let program = OwnedFd::from(File::open(PROGRAM[0]).unwrap());
    let stdin = File::open(LOG).unwrap().into();
    let mut actions = crate::action::Known::default();
    let tail_log = actions.find(Path::new(house::ACTIONS), &"tail_log".parse().unwrap());
    let limits = tail_log.unwrap().manifest().limits();
    let begun = Instant::now();
    let walls = walls(program.as_fd());
    let built = ms(begun);
    let command = Command {
        argv,
        program,
        stdin,
        alone: Alone::Ends,
        timeout: Duration::from_secs(10),
        limits,
        cage: Cage::Walls(walls),
    };
    let ran = child::run(resting, command, std::io::stdout()).unwrap();
    let took = ms(begun);
    assert_eq!(ran.ended.how, Ok(0));
    let (_, stdout) = ran.stdout.finish(None, None);
    assert_eq!(stdout.bytes, BYTES);
    (took, built)
}

/// What the kernel takes as walls and what stops nearly nothing.
fn least() -> Walls {
    let allow_all = sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: SeccompAction::Allow.into(),
    };
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::MakeChar)
        .and_then(Ruleset::create)
        .unwrap();
    Walls {
        filter: vec![allow_all],
        ruleset: Option::<OwnedFd>::from(ruleset).unwrap(),
        names: Vec::new(),
    }
}

/// What a process does to stand behind walls, here in a thread: they stand around it alone, and it ends with this.
fn put_up(mut walls: Walls) -> f64 {
    let thread = std::thread::spawn(move || {
        let begun = Instant::now();
        nix::sys::prctl::set_no_new_privs().unwrap();
        sys::restrict_self(walls.ruleset().as_raw_fd()).unwrap();
        walls.settle(std::process::id());
        walls.filter().unwrap();
        ms(begun)
    });
    thread.join().unwrap()
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
