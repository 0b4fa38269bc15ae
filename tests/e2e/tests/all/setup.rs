//! `tests/harness/setup` on a machine without an sshd: what it installs is not started, and what it puts in place for that is
//! gone again, however it ends. The machine is a root of the harness, and its apt-get a stand-in that looks around.

use std::fs;
use std::process::Output;

use harness::bare::Bare;

const SETUP: &str = include_str!("../../../harness/setup");

/// Where Debian asks whether a service may be started.
const POLICY: &str = "usr/sbin/policy-rc.d";

/// A machine without sshd whose apt-get notes what policy-rc.d answers, and then does this.
fn machine(apt_get: &str) -> Bare {
    let machine = Bare::build("web-1").unwrap();
    let root = machine.control();
    // Links to the machine's own, where it has them.
    for program in ["usr/sbin/sshd", "usr/bin/apt-get", POLICY] {
        let _ = fs::remove_file(root.at(program));
    }
    let looks = "#!/bin/sh\nset +e\n/usr/sbin/policy-rc.d ssh start >/dev/null; echo $? >>/tmp/policy-said\n";
    root.file("usr/sbin/apt-get", 0o755, format!("{looks}{apt_get}\n"))
        .unwrap();
    root.file("root/setup", 0o755, SETUP).unwrap();
    machine
}

fn set_up(machine: &Bare) -> Output {
    let mut command = machine.typed_on_control("exec /root/setup");
    command.env("LC_ALL", "C");
    harness::spawn::run("setup", command, b"", std::time::Duration::from_secs(20)).unwrap()
}

fn has_policy(machine: &Bare) -> bool {
    machine.control().at(POLICY).symlink_metadata().is_ok()
}

fn policy_said(machine: &Bare) -> String {
    fs::read_to_string(machine.control().at("tmp/policy-said")).unwrap()
}

#[test]
fn what_setup_installs_is_not_started_and_nothing_of_its_own_stays() {
    let install = "ln -s /usr/lib-sbin/sshd /usr/sbin/sshd";
    let machine = machine(install);
    let done = set_up(&machine);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(policy_said(&machine), "101\n", "no service may be started");
    assert!(!has_policy(&machine));
    // Now nothing is missing, so nothing is asked.
    assert!(set_up(&machine).status.success());
    assert_eq!(policy_said(&machine), "101\n");
}

#[test]
fn setup_that_fails_or_is_stopped_leaves_nothing_and_names_the_command() {
    let failed = machine("exit 100");
    let done = set_up(&failed);
    assert_eq!(done.status.code(), Some(2), "{done:?}");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(said.trim_end().ends_with("apt-get install -y openssh-server"), "{said}");
    assert!(!has_policy(&failed));

    let stopped = machine("kill -TERM $PPID; sleep 1");
    let done = set_up(&stopped);
    assert!(!done.status.success(), "{done:?}");
    assert!(!has_policy(&stopped));
    for machine in [failed, stopped] {
        let temporary = fs::read_dir(machine.control().at("tmp")).unwrap();
        let left: Vec<_> = temporary.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["policy-said"]);
    }
}

#[test]
fn a_machines_own_policy_stays() {
    let machine = machine("exit 100");
    machine.control().file(POLICY, 0o755, "#!/bin/sh\nexit 104\n").unwrap();
    set_up(&machine);
    assert!(policy_said(&machine).starts_with("104\n"));
    assert!(has_policy(&machine));
}
