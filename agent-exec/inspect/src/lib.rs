//! `inspect`: what the shipped read actions run on a target.
//!
//! It has the rights of the account it runs as and takes no decision about access: files come as an open descriptor on
//! stdin, probes come from the target's own configuration. It reads no configuration and no environment variable, writes
//! nothing but its answer, and is one small program without a C library and without a heap, so that it starts in a tenth
//! of a millisecond and needs nothing else on the host ([why](../../../docs/adr/0009-inspect-without-a-c-library.md)).
//!
//! Exit code: 0 done or healthy, 1 failed or unhealthy, 2 called in a way it does not understand.

#![cfg_attr(not(test), no_std)]

mod disk;
mod error;
mod file;
mod folder;
mod http;
mod migrations;
mod process;
mod service;
mod tcp;
mod text;

use core::time::Duration;

use rustix::fd::BorrowedFd;

use text::Part::Quoted;
use text::{Words, words};

const HELP: &str = "\
usage: inspect tail -n LINES                  last lines of the file on stdin
       inspect read --offset BYTE --limit BYTES   a range of the file on stdin
       inspect tcp ADDRESS PORT               can a connection be opened?
       inspect http URL                       does GET answer 2xx or 3xx?
       inspect disk PATH MIN_FREE_PERCENT     is there enough room?
       inspect process NAME                   is it running?
       inspect service NAME                   does runit's service of this name run?
       inspect services                       all services of runit, and how each is
       inspect migrations FOLDER              the migrations in a folder, and the SHA-256 of each

ADDRESS, and the host in URL, is an IP address or localhost: names are never looked up.
exit code: 0 done or healthy, 1 failed or unhealthy, 2 usage";

/// Bytes read at a time, and all the memory there is.
pub const BLOCK: usize = 64 * 1024;

/// The most arguments that any verb has, its own name included, and one more: so many are already not understood.
const ARGUMENTS: usize = 6;

/// What the program is given by whoever starts it.
pub struct Host<'a> {
    /// The file to read.
    pub stdin: BorrowedFd<'a>,
    /// Where answers go.
    pub stdout: BorrowedFd<'a>,
    /// Where reasons go.
    pub stderr: BorrowedFd<'a>,
    /// A clock that nobody sets.
    pub now: fn() -> Duration,
    /// Memory for what is read and written.
    pub block: &'a mut [u8; BLOCK],
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
enum End<'a> {
    /// The bytes asked for are on stdout.
    Done,
    /// A good verdict, told in one line on stdout; or the help that was asked for.
    Healthy(Words<'a>),
    /// A probe's verdict, told in one line on stdout.
    Unhealthy(Words<'a>),
    /// Nothing, or not everything, was done; the reason goes to stderr.
    Failed(Words<'a>),
    /// The arguments make no sense; the reason goes to stderr.
    Usage(Words<'a>),
}

/// Does what the arguments ask for, the program's own name not among them, and gives back the exit code.
pub fn answer<'a>(args: impl Iterator<Item = &'a [u8]>, host: &mut Host<'_>) -> u8 {
    let mut first = [""; ARGUMENTS];
    let mut count = 0;
    let mut text = true;
    for arg in args {
        match core::str::from_utf8(arg) {
            Ok(arg) => {
                if let Some(place) = first.get_mut(count) {
                    *place = arg;
                    count += 1;
                }
            }
            Err(_) => text = false,
        }
    }
    let mut peer = [0; http::STATUS_LINE];
    let end = if text {
        run(first.get(..count).unwrap_or_default(), host, &mut peer)
    } else {
        End::Usage(words!["an argument is not UTF-8"])
    };
    match end {
        End::Done => 0,
        End::Healthy(line) => text::say(host, &line, 0),
        End::Unhealthy(line) => text::say(host, &line, 1),
        End::Failed(why) => text::complain(host, &why, "", 1),
        End::Usage(why) => text::complain(host, &why, "; try inspect --help", 2),
    }
}

/// `peer` is memory for what a peer says, which the end may repeat.
fn run<'a>(args: &[&'a str], host: &mut Host<'_>, peer: &'a mut [u8; http::STATUS_LINE]) -> End<'a> {
    match *args {
        ["tail", "-n", lines] => match number(lines) {
            Some(lines) => file::on_stdin(host, |file, size, block, out| file::tail(file, size, lines, block, out)),
            None => End::Usage(words!["LINES must be a number, not ", Quoted(lines)]),
        },
        ["read", "--offset", offset, "--limit", limit] => match (number(offset), number(limit)) {
            (Some(offset), Some(limit)) => file::on_stdin(host, |file, size, block, out| {
                file::read(file, size, (offset, limit), block, out)
            }),
            _ => End::Usage(words![
                "BYTE and BYTES must be numbers, not ",
                Quoted(offset),
                " and ",
                Quoted(limit)
            ]),
        },
        ["tcp", address, port] => tcp::probe(address, port, host.now),
        ["http", url] => http::probe(url, host.now, peer),
        ["disk", path, min_free_percent] => disk::probe(path, min_free_percent),
        ["process", name] => process::probe(name),
        ["service", name] => service::probe(name, peer),
        ["services"] => service::list(host),
        ["migrations", folder] => migrations::list(folder, host),
        ["--help" | "-h"] => End::Healthy(words![HELP]),
        ["--version" | "-V"] => End::Healthy(words![
            concat!("inspect ", env!("CARGO_PKG_VERSION"), " build "),
            option_env!("BUILD_ID").unwrap_or("unknown")
        ]),
        [] => End::Usage(words!["no verb"]),
        [verb, ..] => End::Usage(words![Quoted(verb), " with these arguments is not a verb"]),
    }
}

/// A plain decimal number. `+5`, which the standard library takes, is not one.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::stdio::{stderr, stdin, stdout};

    /// What `run` says, as text.
    fn told(args: &[&str]) -> (&'static str, String) {
        let mut block = Box::new([0; BLOCK]);
        let mut host = Host {
            stdin: stdin(),
            stdout: stdout(),
            stderr: stderr(),
            now: || Duration::ZERO,
            block: &mut block,
        };
        match run(args, &mut host, &mut [0; http::STATUS_LINE]) {
            End::Done => ("done", String::new()),
            End::Healthy(line) => ("healthy", line.told()),
            End::Unhealthy(line) => ("unhealthy", line.told()),
            End::Failed(why) => ("failed", why.told()),
            End::Usage(why) => ("usage", why.told()),
        }
    }

    #[test]
    fn a_call_that_is_not_understood_is_a_usage_error() {
        let calls: &[&[&str]] = &[
            &[],
            &["rm", "-rf", "/"],
            &["tail"],
            &["tail", "-n"],
            &["tail", "-n", "-1"],
            &["tail", "-n", "+1"],
            &["tail", "-n", ""],
            &["tail", "-n", "99999999999999999999"],
            &["tail", "-f", "5"],
            &["tail", "-n", "5", "extra"],
            &["read", "--offset", "0"],
            &["read", "--offset", "x", "--limit", "1"],
            &["tcp", "127.0.0.1"],
            &["tcp", "127.0.0.1", "0"],
            &["tcp", "127.0.0.1", "65536"],
            &["tcp", "example.org", "80"],
            &["http", "https://127.0.0.1/"],
            &["http", "http://example.org/"],
            &["disk", "relative", "5"],
            &["disk", "/", "101"],
            &["service"],
            &["service", "../x"],
            &["services", "x"],
            &["migrations"],
            &["migrations", "relative"],
            &["process", ""],
            &["process", "a-name-of-more-than-15"],
        ];
        for call in calls {
            assert_eq!(told(call).0, "usage", "{call:?}");
        }
        let (_, why) = told(&["read", "--offset", "'x", "--limit", "\""]);
        assert_eq!(why, r#"BYTE and BYTES must be numbers, not "'x" and "\"""#);
    }

    #[test]
    fn help_and_version_are_answers() {
        for (ask, part) in [
            ("--help", "MIN_FREE_PERCENT"),
            ("-h", "2 usage"),
            ("--version", "build "),
            ("-V", "inspect "),
        ] {
            let (end, text) = told(&[ask]);
            assert!(end == "healthy" && text.contains(part), "{ask}: {text}");
        }
    }
}
