//! What an action tries against the log that describes it and against its deadline, and whom it asks for more: it fails, the
//! log is whole, and the session goes on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on says where"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use harness::evil::code;
use harness::processes::{below, status};
use harness::target::LOG;
use harness::{By, Changed, EXEC, Leaves, ROOT, RUNNER, Target, assert_refused};
use nix::libc;
use security::stage::{Perl, Stage};
use security::tries::{TRY, all_refused, by_hand};
use security::{WEB, add_action, granted, stack, tell};
use serde_json::{Value, json};

/// Every file of these folders of a target, as the target names it.
fn files(target: &Target, folders: &[&str]) -> Vec<String> {
    let below = |folder: &&str| {
        let entries = fs::read_dir(target.root().at(folder))
            .unwrap()
            .map(|entry| entry.unwrap());
        let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
        let folder = (*folder).to_owned();
        files
            .map(move |file| format!("{folder}/{}", file.file_name().display()))
            .collect::<Vec<_>>()
    };
    folders.iter().flat_map(below).collect()
}

/// The bytes of a log's files.
fn contents(folder: PathBuf) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

/// REQ-MANIFEST-18
#[test]
fn child_cannot_write_audit() {
    let stack = stack();
    let target = stack.target(WEB).unwrap();
    let mut stage = Stage::new(&stack).unwrap();
    let executor = stage.executor().unwrap().pid;
    let link = Changed::keep(target.root(), "tmp/link").unwrap();
    let own = files(target, &[LOG, "/var/lib/writ"]);
    assert!(own.len() >= 3, "{own:?}");
    std::os::unix::fs::symlink(&own[0], link.path()).unwrap();
    let list = |files: &[String]| {
        files
            .iter()
            .map(|file| format!("'{file}'"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let program = format!(
        "{TRY} for my $f ({own}) {{ try(\"read $f\", open(F, '<', $f)); try(\"read $f as its\", open(F, '<', \"/proc/{executor}/root$f\")) }}
         for my $f ({own}, {read}, '/tmp/link', map {{ \"/proc/{executor}/root$_\" }} {own}) {{
             try(\"append to $f\", open(F, '>>', $f)); try(\"change $f\", open(F, '+<', $f)); try(\"empty $f\", open(F, '>', $f));
             next if $f eq '/tmp/link';
             try(\"remove $f\", unlink $f); try(\"rename $f\", rename($f, \"$f.x\")); try(\"open up $f\", chmod(0666, $f));
             try(\"link to $f\", link($f, '/tmp/second')) }}
         for my $d ('/var/log/writ', '/var/lib/writ', '/var/lib/writ/ledger', '/etc/writ', '/etc/writ/actions.d') {{
             try(\"new file in $d\", open(F, '>', \"$d/x\")); try(\"new folder in $d\", mkdir \"$d/y\"); try(\"another $d\", rename($d, \"$d.x\")) }}
         try(\"its descriptors\", opendir(D, '/proc/{executor}/fd'));",
        own = list(&own),
        read = list(&files(target, &["/etc/writ", "/etc/writ/actions.d"])),
    );
    let before = contents(target.root().at(LOG));
    let mut attacks = 0;
    for perl in [Perl::reader(&program), Perl::tool(&program)] {
        let ended = stage.run(&perl).unwrap();
        attacks += all_refused(ended.ok().unwrap()).unwrap();
    }
    attacks += by_hand(target, &program).unwrap();
    let after = contents(target.root().at(LOG));
    for (file, bytes) in &before {
        assert!(after[file].starts_with(bytes), "{} is another", file.display());
    }
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    tell("child_cannot_write_audit", attacks);

    let harmless = format!(
        "{TRY} my $f = '/tmp/own'; try('append', open(F, '>>', $f)); try('change', open(F, '+<', $f));
         try('empty', open(F, '>', $f)); try('remove', unlink $f)"
    );
    let ended = stage.run(&Perl::tool(harmless)).unwrap();
    assert_eq!(ended.ok().unwrap(), "append ok\nchange ok\nempty ok\nremove ok\n");
    stage.unharmed(&stack).unwrap();
}

#[test]
fn child_cannot_outlive_deadline() {
    let stack = stack();
    let mut stage = Stage::new(&stack).unwrap();
    let executor = stage.executor().unwrap().pid;
    let program = format!(
        "{TRY} my $more = pack 'QQ', ~0, ~0;
         call('another session', {}); call('another group', {}, 0, 0); call('no parent', {}, 1, 0, 0, 0, 0);
         call('orphans of its own', {}, 36, 1, 0, 0, 0); call('more time', {}, 0, 0, $more, 0);
         call('a world of its own', {}, 0x20000000); call('a clone in one', {}, 0x20000011, 0, 0, 0, 0);
         call('a supervisor that stands still', {}, getppid, 19);
         print \"done\\n\"; my $all = \"\\xff\" x 8; syscall({}, 0, $all, 0, 8); my $x = 'x' x 65536;
         for (1..3) {{ syscall({}, {}, 0, 0, 0, 0) or last }}
         fork; fork; 1 while defined syswrite(STDOUT, $x) && defined syswrite(STDERR, $x); sleep 60",
        libc::SYS_setsid,
        libc::SYS_setpgid,
        libc::SYS_prctl,
        libc::SYS_prctl,
        libc::SYS_prlimit64,
        libc::SYS_unshare,
        libc::SYS_clone,
        libc::SYS_kill,
        libc::SYS_rt_sigprocmask,
        libc::SYS_clone,
        libc::CLONE_PARENT | libc::SIGCHLD,
    );
    let asked = stage
        .begin(
            &Perl::tool(program)
                .timeout(Duration::from_millis(1000))
                .limits("cpu_s = 600"),
        )
        .unwrap();
    stage.wait_for(10).unwrap();
    let ended = stage.finish(&asked).unwrap();
    ended.timed_out().unwrap();
    let (tried, flood) = ended.output().split_once("done\n").unwrap();
    assert!(flood.starts_with("xx"));
    let attacks = all_refused(tried).unwrap();
    assert!(below(executor).is_empty());
    tell("child_cannot_outlive_deadline", attacks + 1);
    stage.unharmed(&stack).unwrap();
}

/// Those that would run a program for somebody, each behind a socket.
const MANAGERS: [&str; 5] = [
    "/run/systemd/private",
    "/run/dbus/system_bus_socket",
    "/run/user/64101/systemd/private",
    "/run/user/64101/bus",
    "/run/user/64102/systemd/private",
];

/// What doctor says of user managers.
fn doctor(target: &Target) -> Value {
    let output = target
        .run(ROOT, "/usr/sbin/writ-target", &["doctor", "--json"], b"")
        .unwrap();
    let said: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    said.into_iter().find(|item| item["check"] == "user_manager").unwrap()
}

/// A target of the harness has no systemd. That a host with one starts none for these accounts is what the installation
/// masks and doctor checks; here that check is asked, and it is shown that an action finds nobody.
#[test]
fn child_cannot_reach_user_manager() {
    let stack = stack();
    let target = stack.target(WEB).unwrap();
    let mut stage = Stage::new(&stack).unwrap();
    assert!(MANAGERS.iter().all(|socket| !target.root().at(socket).exists()));
    let program = format!(
        "{TRY} for my $f ('{}') {{ try($f, socket(S, 1, 1, 0) && connect(S, pack('S a*', 1, $f))) }}",
        MANAGERS.join("', '")
    );
    for (perl, errno) in [
        (Perl::reader(&program), libc::EPERM),
        (Perl::tool(&program), libc::ENOENT),
    ] {
        let said = MANAGERS.map(|socket| format!("{socket} {errno}\n")).concat();
        assert_eq!(stage.run(&perl).unwrap().ok().unwrap(), said);
    }
    assert_eq!(doctor(target)["ok"], true);
    for who in [RUNNER, EXEC] {
        let mask = format!("etc/systemd/system/user@{}.service", who.uid);
        let there = target.root().at(&mask);
        assert_eq!(fs::read_link(&there).unwrap().to_str(), Some("/dev/null"));
        fs::remove_file(&there).unwrap();
        let said = doctor(target);
        std::os::unix::fs::symlink("/dev/null", &there).unwrap();
        assert_eq!(said["ok"], false, "{said}");
    }
    assert_eq!(doctor(target)["ok"], true);
    println!("child_cannot_reach_user_manager: there is no systemd here; on a host it is doctor's check user_manager");
    stage.unharmed(&stack).unwrap();
}

/// The same program as every sudo: root's, with the set-id bit. What it then reads is what only root may.
#[test]
fn child_cannot_sudo() {
    const PROGRAM: &str = "/usr/bin/set-id-cat";
    let stack = stack();
    let target = stack.target(WEB).unwrap();
    let root = target.root();
    let program = Changed::write(root, PROGRAM, fs::read(root.at("/usr/bin/cat")).unwrap()).unwrap();
    let mut stage = Stage::new(&stack).unwrap();
    let mut attacks = 0;
    for mode in [0o4755, 0o2755, 0o6755] {
        program.own(0, mode).unwrap();
        // Where no wall stands, the bit counts: root's group is there or root itself.
        let output = target.run(RUNNER, PROGRAM, &["/proc/self/status"], b"").unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let gained = |field| status(&text, field).unwrap().split('\t').any(|id| id == "0");
        assert_eq!(
            (gained("Uid"), gained("Gid")),
            (mode & 0o4000 != 0, mode & 0o2000 != 0),
            "{text}"
        );

        let ended = stage
            .run(&Perl::tool(format!("exec '{PROGRAM}', '/proc/self/status'")))
            .unwrap();
        let text = ended.ok().unwrap();
        assert!(text.starts_with("Name:\tset-id-cat"), "{text}");
        assert_eq!(status(text, "Uid"), Some("64101\t64101\t64101\t64101"), "{text}");
        assert_eq!(status(text, "Gid"), Some("64101\t64101\t64101\t64101"), "{text}");
        let ended = stage
            .run(&Perl::tool(format!("exec '{PROGRAM}', '/etc/shadow'")))
            .unwrap();
        assert_eq!((ended.code().as_str(), ended.output()), ("exit_nonzero", ""));
        let ended = stage
            .run(&Perl::reader(format!("{TRY} try('exec', exec '{PROGRAM}')")))
            .unwrap();
        all_refused(ended.ok().unwrap()).unwrap();
        attacks += 3;

        // As the action's own program it is refused before anything runs.
        let manifest = format!(
            "name = \"set_id\"\ntitle = \"Root\"\ndescription = \"Wants root.\"\nrisk = \"read\"\ntimeout_ms = 1000\n\
             [args]\n[exec]\nprogram = \"{PROGRAM}\"\nargv = [\"/etc/shadow\"]\n[sandbox]\nprofile = \"tool\"\n"
        );
        let _action = add_action(target, "set_id", &manifest).unwrap();
        let mut relay = granted(&stack, &["set_id"]).unwrap();
        assert_refused(&stack, By::Target(WEB), Leaves::Record, "manifest_invalid", || {
            Ok(code(&relay.call("set_id", json!({}))?))
        })
        .unwrap();
        attacks += 1;
    }
    if root.at("/usr/bin/sudo").exists() {
        let ended = stage
            .run(&Perl::tool("exec '/usr/bin/sudo', '-n', 'cat', '/etc/shadow'"))
            .unwrap();
        assert_eq!((ended.code().as_str(), ended.output()), ("exit_nonzero", ""));
        attacks += 1;
    }
    tell("child_cannot_sudo", attacks);
    stage.unharmed(&stack).unwrap();
}
