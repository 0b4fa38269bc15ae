//! `inspect`: what the shipped read actions run on a target.
//!
//! It has the rights of the account it runs as and takes no decision about access: files come as an open descriptor on
//! stdin, probes come from the target's own configuration. It reads no configuration and no environment variable, writes
//! nothing but its answer, and is one small static program, so that it starts in a fraction of a millisecond and needs
//! nothing else on the host.
//!
//! Exit code: 0 done or healthy, 1 failed or unhealthy, 2 called in a way it does not understand.

mod disk;
mod file;
mod http;
mod process;
mod service;
mod tcp;
mod text;

use std::ffi::OsString;
use std::process::ExitCode;

const HELP: &str = "\
usage: inspect tail -n LINES                  last lines of the file on stdin
       inspect read --offset BYTE --limit BYTES   a range of the file on stdin
       inspect tcp ADDRESS PORT               can a connection be opened?
       inspect http URL                       does GET answer 2xx or 3xx?
       inspect disk PATH MIN_FREE_PERCENT     is there enough room?
       inspect process NAME                   is it running?
       inspect service NAME                   does runit's service of this name run?
       inspect services                       all services of runit, and how each is

ADDRESS, and the host in URL, is an IP address or localhost: names are never looked up.
exit code: 0 done or healthy, 1 failed or unhealthy, 2 usage
";

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The bytes asked for are on stdout.
    Done,
    /// A good verdict, told in one line on stdout; or the help that was asked for.
    Healthy(String),
    /// A probe's verdict, told in one line on stdout.
    Unhealthy(String),
    /// Nothing, or not everything, was done; the reason goes to stderr.
    Failed(String),
    /// The arguments make no sense; the reason goes to stderr.
    Usage(String),
}

fn main() -> ExitCode {
    let args: Result<Vec<String>, OsString> = std::env::args_os().skip(1).map(OsString::into_string).collect();
    let end = match &args {
        Ok(args) => run(&args.iter().map(String::as_str).collect::<Vec<_>>()),
        Err(_) => End::Usage("an argument is not UTF-8".to_owned()),
    };
    match end {
        End::Done => ExitCode::SUCCESS,
        End::Healthy(line) => text::say(&line, ExitCode::SUCCESS),
        End::Unhealthy(line) => text::say(&line, ExitCode::from(1)),
        End::Failed(why) => text::complain(&why, 1),
        End::Usage(why) => text::complain(&format!("{why}; try inspect --help"), 2),
    }
}

fn run(args: &[&str]) -> End {
    match args {
        ["tail", "-n", lines] => match number(lines) {
            Some(lines) => file::on_stdin(|file, out| file::tail(file, lines, out)),
            None => End::Usage(format!("LINES must be a number, not {lines:?}")),
        },
        ["read", "--offset", offset, "--limit", limit] => match (number(offset), number(limit)) {
            (Some(offset), Some(limit)) => file::on_stdin(|file, out| file::read(file, offset, limit, out)),
            _ => End::Usage(format!("BYTE and BYTES must be numbers, not {offset:?} and {limit:?}")),
        },
        ["tcp", address, port] => tcp::probe(address, port),
        ["http", url] => http::probe(url),
        ["disk", path, min_free_percent] => disk::probe(path, min_free_percent),
        ["process", name] => process::probe(name),
        ["service", name] => service::probe(name),
        ["services"] => service::list(),
        ["--help" | "-h"] => End::Healthy(HELP.trim_end().to_owned()),
        ["--version" | "-V"] => End::Healthy(format!(
            "inspect {} build {}",
            env!("CARGO_PKG_VERSION"),
            option_env!("BUILD_ID").unwrap_or("unknown")
        )),
        [] => End::Usage("no verb".to_owned()),
        [verb, ..] => End::Usage(format!("{verb:?} with these arguments is not a verb")),
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
            &["process", ""],
            &["process", "a-name-of-more-than-15"],
        ];
        for call in calls {
            assert!(matches!(run(call), End::Usage(_)), "{call:?}");
        }
    }

    #[test]
    fn help_and_version_are_answers() {
        assert!(matches!(run(&["--help"]), End::Healthy(text) if text.contains("MIN_FREE_PERCENT")));
        assert!(matches!(run(&["--version"]), End::Healthy(text) if text.contains("build ")));
    }
}
