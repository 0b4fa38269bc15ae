//! Programs that write without end, and programs that take more than they were given: agent-exec stays small, says what it
//! cut, and each limit of a manifest holds.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on says where"
)]

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use harness::{Changed, Process};
use nix::libc;
use security::stage::{Ended, Perl, Stage};
use security::{WEB, stack, tell};
use serde_json::{Value, json};

/// The most that agent-exec may ever have in use.
const PEAK_KIB: u64 = 64 * 1024;
/// The longest line of an answer, in bytes.
const LINE: usize = 1 << 20;
/// What a flood writes at a time, about.
const MIB: usize = 1 << 20;
/// What a manifest may ask for at most.
const OUTPUT_BYTES: usize = 512 * 1024;
/// What is kept of standard error.
const STDERR_BYTES: usize = 16 * 1024;
/// Longest that a flood may take on a slow machine.
const FLOOD: Duration = Duration::from_secs(120);

/// A program that writes one text again and again to its standard output, its standard error, or both in turn.
struct Flood {
    name: &'static str,
    text: &'static str,
    streams: &'static [&'static str],
    /// About so much to each.
    mib: usize,
    /// SHA-256 of one stream, where it takes coreutils too long to compute it along the way.
    sha256: Option<&'static str>,
}

impl Flood {
    /// What is written at a time.
    fn block(&self) -> String {
        self.text.repeat(MIB / self.text.len())
    }

    fn program(&self) -> Perl {
        let text: String = self.text.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
        let writes: Vec<String> = self
            .streams
            .iter()
            .map(|stream| format!("syswrite({stream}, $b) == length $b || die"))
            .collect();
        let program = format!(
            "my $b = \"{text}\" x {}; for (1..{}) {{ {} }}",
            MIB / self.text.len(),
            self.mib,
            writes.join("; ")
        );
        Perl::reader(program)
            .timeout(FLOOD)
            .limits(format!("output_bytes = {OUTPUT_BYTES}\ncpu_s = 120"))
    }

    /// The digest of one stream, by coreutils.
    fn sha256(&self) -> JoinHandle<String> {
        let (block, mib, known) = (self.block(), self.mib, self.sha256);
        spawn(move || known.map_or_else(|| sha256sum(block.as_bytes(), mib), str::to_owned))
    }

    /// Lets it flow, and asserts what is true of every flood. Its end, and the most memory that agent-exec had in use.
    fn flow(&self) -> (Ended, u64) {
        let stack = stack();
        let mut stage = Stage::new(&stack).unwrap();
        let sha256 = self.sha256();
        let executor = stage.executor().unwrap().pid;
        let ended = stage.run(&self.program()).unwrap();
        ended.ok().unwrap();
        // The session is alive: this is the process that read it all.
        let peak = Process::of(executor).unwrap().peak_kib().unwrap();
        assert!(peak < PEAK_KIB, "{}: {peak} KiB", self.name);
        assert!(ended.answer.to_string().len() <= LINE);
        let (bytes, sha256) = ((self.block().len() * self.mib) as u64, sha256.join().unwrap());
        for (name, key) in [("STDOUT", "output"), ("STDERR", "stderr")] {
            let stream = &ended.outcome[key];
            if self.streams.contains(&name) {
                let said = (&stream["bytes"], &stream["sha256"], &stream["truncated"]);
                assert_eq!(
                    said,
                    (&json!(bytes), &json!(sha256), &json!(true)),
                    "{}: {stream}",
                    self.name
                );
                assert_eq!(ended.record[key], json!({"bytes": bytes, "sha256": sha256}));
            } else {
                assert_eq!((&stream["bytes"], &stream["truncated"]), (&json!(0), &json!(false)));
            }
            let text = ended.answer[key].as_str().unwrap_or_default();
            assert_eq!(stream["sent_sha256"], sha256sum(text.as_bytes(), 1), "{}", self.name);
        }
        println!(
            "{}: {} MiB in {} ms, agent-exec's peak {peak} KiB",
            self.name,
            self.mib * self.streams.len(),
            ended.outcome["duration_ms"]
        );
        stage.unharmed(&stack).unwrap();
        (ended, peak)
    }
}

fn sha256sum(block: &[u8], times: usize) -> String {
    let mut command = Command::new("sha256sum");
    let mut sum = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = sum.stdin.take().unwrap();
    for _ in 0..times {
        input.write_all(block).unwrap();
    }
    drop(input);
    let said = sum.wait_with_output().unwrap();
    String::from_utf8(said.stdout).unwrap()[..64].to_owned()
}

/// The beginning of what a stream held, for as far as it is kept.
fn beginning(text: &str, bytes: usize) -> String {
    text.repeat(bytes / text.len() + 1)[..bytes].to_owned()
}

fn yes(gib: usize, sha256: &'static str) {
    let flood = Flood {
        name: "yes_flood",
        text: "y\n",
        streams: &["STDOUT"],
        mib: gib * 1024,
        sha256: Some(sha256),
    };
    let (ended, _) = flood.flow();
    assert_eq!(ended.output(), beginning("y\n", OUTPUT_BYTES));
}

/// A fifth of the whole, which is the next test. The digest is that of `yes | head -c 2147483648 | sha256sum`.
///
/// REQ-OUTCOME-5, REQ-OUTCOME-9
#[test]
fn yes_flood() {
    yes(2, "f9e4950967b1473d8234b652ee7a7480cadee7ce774476b827dfe89ce6bc94a3");
}

/// The digest is that of `yes | head -c 10737418240 | sha256sum`.
///
/// REQ-OUTCOME-5, REQ-OUTCOME-9
#[test]
#[ignore = "10 GiB take 15 s and more: the whole of what the test above does a fifth of"]
fn yes_flood_of_10_gib() {
    yes(10, "bfc47a7a1b9ad2740a58bf245f8d41aeb24b36b455576767323e1776129c556d");
}

/// `head -c 1073741824 /dev/zero | tr '\0' a | sha256sum`
const ONE_GIB_OF_A: &str = "c4d3e5935f50de4f0ad36ae131a72fb84a53595f81f92678b42b91fc78992d84";

#[test]
fn one_huge_line() {
    let (ended, _) = Flood {
        name: "one_huge_line",
        text: "a",
        streams: &["STDOUT"],
        mib: 1024,
        sha256: Some(ONE_GIB_OF_A),
    }
    .flow();
    assert_eq!(ended.output(), beginning("a", OUTPUT_BYTES));
}

/// REQ-OUTCOME-5
#[test]
fn stderr_flood() {
    for streams in [&["STDERR"][..], &["STDOUT", "STDERR"]] {
        let text = "it goes on and on\n";
        let (ended, _) = Flood {
            name: "stderr_flood",
            text,
            streams,
            mib: 128,
            sha256: None,
        }
        .flow();
        assert_eq!(ended.answer["stderr"], beginning(text, STDERR_BYTES));
    }
}

/// What takes the most room on its way into an answer: each secret is replaced, each control character is six bytes of
/// JSON, and what is no text becomes base64.
///
/// REQ-OUTCOME-6
#[test]
fn floods_that_are_costly_to_show_stay_in_bounds() {
    let mut peaks = Vec::new();
    for (name, text) in [
        ("secrets", "password=hunter2hunter2\n"),
        ("short secrets", "token=a1b2c3d4 "),
        ("control characters", "\u{1b}"),
        ("quotes", "\"\\"),
        ("zero bytes", "\0"),
        ("three bytes a character", "\u{fffd}"),
    ] {
        let (ended, peak) = Flood {
            name,
            text,
            streams: &["STDOUT", "STDERR"],
            mib: 32,
            sha256: None,
        }
        .flow();
        assert!(!ended.answer.to_string().contains("hunter2"));
        peaks.push(peak);
    }
    println!(
        "costly floods: {} kinds, the highest peak {} KiB",
        peaks.len(),
        peaks.iter().max().unwrap()
    );
}

/// REQ-OUTCOME-5
#[test]
fn output_is_cut_behind_its_limit_and_not_before() {
    let stack = stack();
    let mut stage = Stage::new(&stack).unwrap();
    for (bytes, truncated) in [(99, false), (100, false), (101, true)] {
        let perl = Perl::reader(format!("print 'a' x {bytes}")).limits("output_bytes = 100");
        let ended = stage.run(&perl).unwrap();
        assert_eq!(ended.ok().unwrap(), "a".repeat(bytes.min(100)));
        let output = &ended.outcome["output"];
        assert_eq!(
            (&output["truncated"], &output["bytes"]),
            (&json!(truncated), &json!(bytes))
        );
    }
}

/// How a program ends that wants more than it was given.
enum Ends {
    /// By itself, after it has said this.
    Says(String),
    /// It gave up with this exit code.
    Exit(i32),
    /// The kernel ended it with this signal.
    Signal(i32),
}

struct Limit {
    limits: &'static str,
    /// What wants more, and how it ends.
    hostile: Vec<(&'static str, String, Ends)>,
    /// Wants no more than it was given, and says `ok`.
    harmless: String,
}

/// Where a tool may write.
const FILE: &str = "tmp/resources";

fn limits() -> Vec<Limit> {
    use Ends::{Exit, Says, Signal};
    let fill = |mib: u32| format!("my $n = {mib} << 20; my $x = 'a' x $n; print 'ok'");
    let open = |files: u32| {
        format!(
            "my @f; while (@f < {files}) {{ open(my $f, '<', '/dev/null') or last; push @f, $f }}
             print @f == {files} ? 'ok' : @f.' '.($!+0)"
        )
    };
    let write = |bytes: u32| {
        format!(
            "open(F, '>', '/tmp/resources') or die; my $n = 0;
             while ($n < {bytes}) {{ my $r = syswrite(F, 'x' x 4096) or last; $n += $r }}
             print $n == {bytes} ? 'ok' : $n.' '.($!+0)"
        )
    };
    // A file whose length is set and not written.
    let hole = |bytes: &str| format!("open(F, '>', '/tmp/resources') or die; print truncate(F, {bytes}) ? 'ok' : $!+0");
    let fork = |processes: u32| {
        format!(
            "my $n = 0; while ($n < {processes}) {{ my $p = fork; last unless defined $p; $p or sleep(60), exit; $n++ }}
             print $n == {processes} ? 'ok' : $n > 10 && $n < 40 ? $!+0 : $n"
        )
    };
    let deaf = |signal: &str, program: &str| format!("$SIG{{{signal}}} = 'IGNORE'; {program}");
    let (cpu, long) = ("1 while 1".to_owned(), write(1 << 20));
    vec![
        Limit {
            limits: "memory_bytes = 134_217_728",
            hostile: vec![("memory", fill(300), Exit(1))],
            harmless: fill(16),
        },
        Limit {
            limits: "cpu_s = 1",
            hostile: vec![
                ("cpu", cpu.clone(), Signal(libc::SIGKILL)),
                ("cpu, deaf", deaf("XCPU", &cpu), Signal(libc::SIGKILL)),
            ],
            harmless: "select(undef, undef, undef, 1.2); print 'ok'".to_owned(),
        },
        Limit {
            limits: "open_files = 16",
            hostile: vec![("open files", open(100), Says(format!("13 {}", libc::EMFILE)))],
            harmless: open(13),
        },
        Limit {
            limits: "file_bytes = 10_000",
            hostile: vec![
                ("length of a file", long.clone(), Signal(libc::SIGXFSZ)),
                (
                    "length, deaf",
                    deaf("XFSZ", &long),
                    Says(format!("10000 {}", libc::EFBIG)),
                ),
                (
                    "length of a hole",
                    deaf("XFSZ", &hole("1 << 40")),
                    Says(libc::EFBIG.to_string()),
                ),
            ],
            harmless: write(8192) + ";" + &hole("10_000").replace("'ok'", "''"),
        },
        Limit {
            limits: "processes = 40",
            hostile: vec![("processes", fork(100), Says(libc::EAGAIN.to_string()))],
            harmless: fork(5),
        },
    ]
}

#[test]
fn each_limit_holds_and_leaves_room_below_it() {
    let stack = stack();
    let _file = Changed::keep(stack.target(WEB).unwrap().root(), FILE).unwrap();
    let mut stage = Stage::new(&stack).unwrap();
    let mut attacks = 0;
    for Limit {
        limits,
        hostile,
        harmless,
    } in limits()
    {
        let mut run = |program: &str| stage.run(&Perl::tool(program).limits(limits)).unwrap();
        for (name, program, ends) in hostile {
            let ended = run(&program);
            let (said, code, exit, signal) = match ends {
                Ends::Says(text) => (text, "none", json!(0), Value::Null),
                Ends::Exit(code) => (String::new(), "exit_nonzero", json!(code), Value::Null),
                Ends::Signal(signal) => (String::new(), "signalled", Value::Null, json!(signal)),
            };
            let Ended { answer, outcome, .. } = &ended;
            assert_eq!(
                (ended.output(), ended.code().as_str()),
                (said.as_str(), code),
                "{name}: {answer}"
            );
            assert_eq!(
                (&outcome["exit_code"], &outcome["signal"]),
                (&exit, &signal),
                "{name}: {answer}"
            );
            attacks += 1;
        }
        assert_eq!(run(&harmless).ok().unwrap(), "ok", "{limits}");
    }
    tell("limits", attacks);
    stage.unharmed(&stack).unwrap();
}
