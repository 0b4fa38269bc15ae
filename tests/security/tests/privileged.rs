//! Actions that run as root: only what is listed, only through agent-exec, no longer than listed, and said to be uncaged.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on says where; its name is its documentation"
)]

use std::process::Command;
use std::time::{Duration, Instant};

use harness::evil::{code, outcome};
use harness::ids::Who;
use harness::spawn::{run, wait_for};
use harness::{By, Changed, EXEC, Leaves, RUNNER, Stack, Target, assert_refused, processes};
use security::privileged::{Privileged, SUDOERS, carry_out, list, program_of, relay};
use security::{WEB, changes, stack, still_serves, tell};
use serde_json::{Value, json};

/// How long an action may take that ends by itself.
const USUAL: Duration = Duration::from_secs(10);

fn target(stack: &Stack) -> &Target {
    stack.target(WEB).unwrap()
}

/// agent-exec's own account in agent-exec's own group, as its children have them.
const EXECUTOR: Who = Who {
    gid: RUNNER.gid,
    ..EXEC
};

fn sudo(target: &Target, who: Who, words: &[&str], environment: &[(&str, &str)]) -> std::process::Output {
    let mut command: Command = target.command(who, "/usr/bin/env");
    for (name, value) in environment {
        command.arg(format!("{name}={value}"));
    }
    command.arg("/usr/bin/sudo").args(words);
    run("sudo", command, b"", Duration::from_secs(20)).unwrap()
}

/// REQ-MANIFEST-29, REQ-MANIFEST-31
#[test]
fn a_privileged_action_starts_clean_as_root_and_its_record_says_that_nothing_stands_around_it() {
    let stack = stack();
    let target = target(&stack);
    let perl = "print join(' ', $<, $>, (split ' ', $()[0]), \"\\n\"; printf \"%04o\\n\", umask; use Cwd; print cwd, \"\\n\"; \
                opendir D, '/proc/self/fd'; my $own = fileno D; print join(' ', grep { /\\d/ && $_ != $own && $_ != 3 } sort readdir D), \"\\n\"; \
                open S, '<', '/proc/self/status'; print grep /^(NoNewPrivs|Seccomp|SigIgn|SigBlk):/, <S>; \
                print map { \"$_=$ENV{$_}\\n\" } sort keys %ENV; print \"@ARGV\\n\"";
    let action = Privileged::new(target, "who_am_i", perl, USUAL, "").unwrap();
    let mut relay = relay(&stack).unwrap();
    let payload = action.payload(&relay, json!({"word": "two"}));
    let answer = carry_out(&stack, &mut relay, &payload).unwrap();
    assert_eq!(code(&answer), "none", "{answer}");
    let program = program_of("who_am_i");
    // The one signal is ignored by perl itself.
    let expected = format!(
        "0 0 0\n0077\n/\n0 1 2\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000080\nNoNewPrivs:\t0\nSeccomp:\t0\n\
         HOME=/root\nLANG=C.UTF-8\nLOGNAME=root\nMAIL=/var/mail/root\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\nSHELL=/bin/sh\n\
         SUDO_COMMAND=/usr/bin/perl {program} two\nSUDO_GID=64101\nSUDO_UID=64102\nSUDO_USER=writ-exec\nTERM=unknown\nTZ=UTC0\n\
         USER=root\ntwo\n"
    );
    assert_eq!(answer["output"].as_str().unwrap(), expected);
    assert_eq!(outcome(&answer).unwrap()["walls"], json!(["no_sandbox", "sudo:root"]));
    let records = target.records().unwrap();
    let of_it: Vec<&Value> = records
        .iter()
        .filter(|record| record["request_id"] == payload["request_id"])
        .collect();
    assert_eq!(of_it.len(), 2, "{of_it:?}");
    for record in &of_it {
        assert_eq!(record["walls"], json!(["no_sandbox", "sudo:root"]));
        assert_eq!(record["risk"], "change");
    }
    let argv = json!([
        "/usr/bin/sudo",
        "-n",
        "-u",
        "root",
        "--",
        "/usr/bin/perl",
        program,
        "two"
    ]);
    assert_eq!(of_it[0]["argv"], argv);
    still_serves(&mut relay).unwrap();
}

/// Everything that sudo could be asked by somebody who has writ-exec's rights, and by an action. REQ-MANIFEST-27
#[test]
fn privileged_argv_is_finite() {
    let stack = stack();
    let target = target(&stack);
    let perl = "open F, '>>', '/tmp/listed'; print F \"@ARGV\\n\"; open F, '>', '/tmp/canary' if \"@ARGV\" !~ /^(one|two)$/ || $ENV{EVIL}";
    let _listed = Changed::keep(target.root(), "tmp/listed").unwrap();
    let action = Privileged::new(target, "on_the_list", perl, USUAL, "").unwrap();
    let program = program_of("on_the_list");
    let p = program.as_str();
    let ran = || std::fs::read_to_string(target.root().at("tmp/listed")).unwrap_or_default();

    let good: &[&str] = &["-n", "-u", "root", "--", "/usr/bin/perl", p, "one"];
    assert!(
        sudo(target, EXECUTOR, good, &[]).status.success(),
        "{:?}",
        sudo(target, EXECUTOR, good, &[])
    );
    let before = ran();
    assert!(!before.is_empty());

    let perl = "/usr/bin/perl";
    let attacks: Vec<Vec<&str>> = vec![
        vec!["--", perl, p, "three"],
        vec!["--", perl, p],
        vec!["--", perl, p, ""],
        vec!["--", perl, p, "one", ""],
        vec!["--", perl, p, "one", "two"],
        vec!["--", perl, p, "one two"],
        vec!["--", perl, p, "*"],
        vec!["--", perl, p, "on?"],
        vec!["--", perl, p, "\\one"],
        vec!["--", perl, p, "one\n"],
        vec!["--", perl, p, " one"],
        vec!["--", perl, &*Box::leak(format!("{p} one").into_boxed_str())],
        vec!["--", perl],
        vec!["--", perl, "-e", "1"],
        vec!["--", "/usr/bin/../bin/perl", p, "three"],
        vec!["--", "/bin/sh", "-c", "id"],
        vec!["--", p, "one"],
        vec!["-s"],
        vec!["-i"],
        vec!["-s", "--", perl, p, "one"],
        vec!["-i", "--", perl, p, "one"],
        vec!["-E", "--", perl, p, "one"],
        vec!["--preserve-env=PATH", "--", perl, p, "one"],
        vec!["EVIL=1", "--", perl, p, "one"],
        vec!["-T", "600", "--", perl, p, "one"],
        vec!["-D", "/tmp", "--", perl, p, "one"],
        vec!["-R", "/tmp", "--", perl, p, "one"],
        vec!["-C", "9", "--", perl, p, "one"],
        vec!["-u", "writ-exec", "--", perl, p, "one"],
        vec!["-u", "nobody", "--", perl, p, "one"],
        vec!["-u", "#-1", "--", perl, p, "one"],
        vec!["-u", "#4294967295", "--", perl, p, "one"],
        vec!["-g", "shadow", "--", perl, p, "one"],
        vec!["-e", "/etc/shadow"],
        vec!["-e", "--", p],
        vec!["-U", "root", "-l"],
    ];
    let mut count = 0;
    for attack in &attacks {
        let words = [&["-n"], &attack[..]].concat();
        let output = sudo(
            target,
            EXECUTOR,
            &words,
            &[("EDITOR", "/usr/bin/touch -- /tmp/canary"), ("EVIL", "1")],
        );
        assert!(!output.status.success(), "{attack:?}: {output:?}");
        assert_eq!(ran(), before, "{attack:?} ran");
        assert!(!target.root().at("tmp/canary").exists(), "{attack:?}");
        count += 1;
    }
    // What is listed gets none of the caller's variables.
    let environment = [
        ("EVIL", "1"),
        ("PERL5OPT", "-MEvil"),
        ("PERL5LIB", "/tmp"),
        ("LD_PRELOAD", "/tmp/x.so"),
    ];
    assert!(sudo(target, EXECUTOR, good, &environment).status.success());
    assert!(!target.root().at("tmp/canary").exists());
    let before = ran();
    // The account of the actions has nothing at all, also in another group.
    for who in [
        RUNNER,
        Who {
            gid: EXEC.gid,
            ..RUNNER
        },
    ] {
        for words in [
            good,
            &["-n", "-l"],
            &["-n", "-v"],
            &["-n", "--", "/usr/bin/id"],
            &["-n", "-s"],
        ] {
            let output = sudo(target, who, words, &[]);
            assert!(!output.status.success(), "{words:?}: {output:?}");
            assert_eq!(ran(), before, "{words:?} ran");
            count += 1;
        }
    }
    // A request gets no further than the schema.
    let mut relay = relay(&stack).unwrap();
    for word in [
        json!("three"),
        json!(""),
        json!("one two"),
        json!("*"),
        json!(1),
        json!(["one"]),
        json!("-e"),
    ] {
        let payload = action.payload(&relay, json!({"word": word}));
        assert_refused(&stack, By::Target(WEB), Leaves::Record, "arguments_invalid", || {
            Ok(code(&carry_out(&stack, &mut relay, &payload)?))
        })
        .unwrap();
        count += 1;
    }
    assert_eq!(ran(), before);
    tell("privileged_argv_is_finite", count);
}

/// sudo ends what does not want to end; this is what `TIMEOUT` in each line is for. REQ-MANIFEST-32
#[test]
fn privileged_timeout() {
    let stack = stack();
    let target = target(&stack);
    let perl = "$SIG{$_} = 'IGNORE' for qw(TERM HUP INT); $| = 1; print \"up\\n\"; sleep 60";
    let time = Duration::from_millis(1500);
    let action = Privileged::new(target, "stubborn", perl, time, "").unwrap();
    let mut relay = relay(&stack).unwrap();
    let payload = action.payload(&relay, json!({}));
    relay
        .present(&changes::permit(&stack, &relay, &payload, |_, _| {}).unwrap())
        .unwrap();
    let begun = Instant::now();
    let answer = relay.send(&payload).unwrap();
    let took = begun.elapsed();
    assert_eq!(code(&answer), "deadline_exceeded", "{answer}");
    assert_eq!(answer["output"], "up\n");
    assert!(processes::with_argument(&program_of("stubborn")).is_empty());
    // Its own time, sudo's second more, to the next whole one, and the two seconds that sudo waits.
    assert!(took >= time && took < time + Duration::from_secs(4), "{took:?}");
    println!(
        "privileged_timeout: 1500 ms were given, after {} ms nothing of it was left",
        took.as_millis()
    );

    // Where the supervisor is gone, sudo still ends it.
    let payload = action.payload(&relay, json!({}));
    relay
        .present(&changes::permit(&stack, &relay, &payload, |_, _| {}).unwrap())
        .unwrap();
    let text = serde_json::to_string(&payload).unwrap();
    let line = harness::EvilRelay::line(&text, &relay.task.key, openssh::sshsig::REQUEST).unwrap();
    relay.session.send(line).unwrap();
    let begun = Instant::now();
    let running = || processes::with_argument(&program_of("stubborn"));
    wait_for("root's process", Duration::from_secs(5), || Ok(running().len() == 2)).unwrap();
    let sudo = running().into_iter().find(|process| process.name() == "sudo").unwrap();
    let executor = sudo.parent().unwrap();
    assert_eq!(processes::Process::of(executor).unwrap().name(), "agent-exec");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(executor).unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    wait_for("its end", Duration::from_secs(10), || Ok(running().is_empty())).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
}

#[test]
fn a_privileged_program_that_ends_when_it_is_asked_ends_at_its_deadline() {
    let stack = stack();
    let target = target(&stack);
    let perl = "$SIG{TERM} = sub { print \"asked\\n\"; exit 3 }; $| = 1; print \"up\\n\"; sleep 60";
    let time = Duration::from_millis(1000);
    let action = Privileged::new(target, "polite", perl, time, "").unwrap();
    let mut relay = relay(&stack).unwrap();
    let payload = action.payload(&relay, json!({}));
    let begun = Instant::now();
    let answer = carry_out(&stack, &mut relay, &payload).unwrap();
    assert_eq!(
        (code(&answer).as_str(), answer["output"].as_str()),
        ("deadline_exceeded", Some("up\nasked\n"))
    );
    assert!(begun.elapsed() < time + Duration::from_secs(1), "{:?}", begun.elapsed());
}

/// Only root could end it: it is not waited for, and the Outcome says that it is there.
#[test]
fn what_a_privileged_program_leaves_to_run_is_told() {
    let stack = stack();
    let target = target(&stack);
    let perl = "use POSIX; exit 0 if fork; POSIX::setsid(); close $_ for *STDIN, *STDOUT, *STDERR; sleep 60";
    let action = Privileged::new(target, "leaves_one", perl, USUAL, "").unwrap();
    let mut relay = relay(&stack).unwrap();
    let payload = action.payload(&relay, json!({}));
    let answer = carry_out(&stack, &mut relay, &payload).unwrap();
    let left = processes::with_argument(&program_of("leaves_one"));
    for process in &left {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(process.pid).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    assert_eq!(left.len(), 1, "{left:?}");
    let told = outcome(&answer).unwrap();
    assert_eq!(told["status"], "ok", "{answer}");
    assert_eq!(told["message"], "1 of its processes could not be ended");
    still_serves(&mut relay).unwrap();
}

/// What sudo does not list it does not run, and what it would run is looked at first.
#[test]
fn where_sudo_or_its_list_is_not_as_it_must_be_nothing_runs() {
    let stack = stack();
    let target = target(&stack);
    let root = target.root();
    let action = Privileged::new(target, "unlisted", "open F, '>', '/tmp/canary'", USUAL, "").unwrap();
    let mut relay = relay(&stack).unwrap();
    let mut attacks = 0;
    let sudo = Changed::keep(root, "usr/bin/sudo").unwrap();
    for (uid, mode) in [(0, 0o755), (0, 0o4775), (0, 0o4757), (0, 0o6755), (64125, 0o4755)] {
        sudo.own(uid, mode).unwrap();
        let payload = action.payload(&relay, json!({}));
        assert_refused(&stack, By::Target(WEB), Leaves::Record, "manifest_invalid", || {
            Ok(code(&carry_out(&stack, &mut relay, &payload)?))
        })
        .unwrap_or_else(|error| panic!("{uid} {mode:o}: {error:?}"));
        attacks += 1;
    }
    drop(sudo);
    let perl = Changed::keep(root, "usr/bin/perl").unwrap();
    for (uid, mode) in [(0, 0o775), (0, 0o4755), (64125, 0o755)] {
        perl.own(uid, mode).unwrap();
        let payload = action.payload(&relay, json!({}));
        assert_refused(&stack, By::Target(WEB), Leaves::Record, "manifest_invalid", || {
            Ok(code(&carry_out(&stack, &mut relay, &payload)?))
        })
        .unwrap_or_else(|error| panic!("{uid} {mode:o}: {error:?}"));
        attacks += 1;
    }
    drop(perl);

    let listed = Changed::keep(root, SUDOERS).unwrap();
    for text in ["", "# nothing\n", "agent-runner ALL = (root) NOPASSWD: ALL\n"] {
        listed.set(text).unwrap();
        let payload = action.payload(&relay, json!({}));
        let answer = carry_out(&stack, &mut relay, &payload).unwrap();
        assert_eq!(
            (code(&answer).as_str(), answer["output"].as_str()),
            ("exit_nonzero", Some("")),
            "{text:?}"
        );
        let said = answer["stderr"].as_str().unwrap();
        assert!(said.contains("sudo: a password is required"), "{said}");
        assert!(!harness::refused::canary(&stack));
        attacks += 1;
    }
    drop(listed);
    list(target).unwrap();
    let payload = action.payload(&relay, json!({}));
    assert_eq!(code(&carry_out(&stack, &mut relay, &payload).unwrap()), "none");
    let canary = root.at("tmp/canary");
    assert!(canary.exists(), "the same runs where it is listed");
    std::fs::remove_file(canary).unwrap();
    tell("sudo and its list", attacks);
}
