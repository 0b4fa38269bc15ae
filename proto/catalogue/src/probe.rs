//! Probes: health checks that a target's administrator defines by name in `target.toml`, `[probe.NAME]`.
//!
//! A caller names a probe and can say nothing else, so no address, path or program ever comes from outside.
//! Each becomes an argv: four kinds of `inspect`, the fifth runs a program of the administrator's.

use std::borrow::Borrow;
use std::fmt;
use std::net::IpAddr;

use serde::Deserialize;

use crate::text;

/// Where `inspect` is installed on a target.
pub const INSPECT: &str = "/usr/libexec/writ/inspect";

/// What a probe may take where nothing is configured, in milliseconds.
pub const DEFAULT_TIMEOUT_MS: u64 = 5_000;

/// The most that a probe may be given, in milliseconds.
pub const MAX_TIMEOUT_MS: u64 = 60_000;

/// A probe's name: 1 to 63 of a-z 0-9 _ -, beginning with a letter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct ProbeName(String);

impl ProbeName {
    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ProbeName {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if is_probe_name(&text) {
            Ok(Self(text))
        } else {
            Err(format!(
                "a probe's name must be 1 to 63 of a-z 0-9 _ -, beginning with a letter, not \"{}\"",
                text::quoted(&text)
            ))
        }
    }
}

impl Borrow<str> for ProbeName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProbeName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Whether a text has the shape of a probe's name.
#[must_use]
pub(crate) fn is_probe_name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

/// A probe as configured: checked when it was read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Probe {
    program: String,
    argv: Vec<String>,
    timeout_ms: u64,
}

impl Probe {
    /// The program, an absolute path.
    #[must_use]
    pub fn program(&self) -> &str {
        &self.program
    }

    /// What follows the program's name.
    #[must_use]
    pub fn argv(&self) -> &[String] {
        &self.argv
    }

    /// How long it may take, at most [`MAX_TIMEOUT_MS`].
    #[must_use]
    pub fn timeout_ms(&self) -> u64 {
        self.timeout_ms
    }
}

/// The keys of `[probe.NAME]`.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Written {
    Tcp {
        address: String,
        port: u16,
        timeout_ms: Option<u64>,
    },
    Http {
        url: String,
        timeout_ms: Option<u64>,
    },
    Disk {
        path: String,
        min_free_percent: u8,
        timeout_ms: Option<u64>,
    },
    Process {
        name: String,
        timeout_ms: Option<u64>,
    },
    Exec {
        program: String,
        argv: Option<Vec<String>>,
        timeout_ms: Option<u64>,
    },
}

impl TryFrom<Written> for Probe {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let inspect = INSPECT.to_owned();
        let (program, argv, timeout_ms) = match written {
            Written::Tcp {
                address,
                port,
                timeout_ms,
            } => {
                if !is_address(&address) {
                    return Err(refuse("address", "must be an IP address or localhost", &address));
                }
                if port == 0 {
                    return Err("port: must be 1 to 65535".to_owned());
                }
                (inspect, vec!["tcp".to_owned(), address, port.to_string()], timeout_ms)
            }
            Written::Http { url, timeout_ms } => {
                if !is_plain_url(&url) {
                    return Err(refuse(
                        "url",
                        "must be http://HOST[:PORT][/PATH] with an IP address or localhost",
                        &url,
                    ));
                }
                (inspect, vec!["http".to_owned(), url], timeout_ms)
            }
            Written::Disk {
                path,
                min_free_percent,
                timeout_ms,
            } => {
                if path != "/" && !text::is_plain_path(&path) {
                    return Err(refuse("path", "must be absolute, without . or ..", &path));
                }
                if min_free_percent > 100 {
                    return Err("min_free_percent: must be 0 to 100".to_owned());
                }
                (
                    inspect,
                    vec!["disk".to_owned(), path, min_free_percent.to_string()],
                    timeout_ms,
                )
            }
            Written::Process { name, timeout_ms } => {
                // The kernel keeps 15 bytes of a name; a longer one would never be found.
                if !(1..=15).contains(&name.len()) || text::hidden(&name).is_some() || name.starts_with('-') {
                    return Err(refuse("name", "must have 1 to 15 bytes, as in /proc/PID/comm", &name));
                }
                (inspect, vec!["process".to_owned(), name], timeout_ms)
            }
            Written::Exec {
                program,
                argv,
                timeout_ms,
            } => {
                if !text::is_plain_path(&program) {
                    return Err(refuse("program", "must be an absolute path, without . or ..", &program));
                }
                let argv = argv.unwrap_or_default();
                if let Some(bad) = argv.iter().find(|element| element.chars().any(char::is_control)) {
                    return Err(refuse("argv", "must have no control characters", bad));
                }
                (program, argv, timeout_ms)
            }
        };
        let timeout_ms = timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS);
        if !(1..=MAX_TIMEOUT_MS).contains(&timeout_ms) {
            return Err(format!("timeout_ms: must be 1 to {MAX_TIMEOUT_MS}, not {timeout_ms}"));
        }
        Ok(Self {
            program,
            argv,
            timeout_ms,
        })
    }
}

fn refuse(key: &str, wanted: &str, found: &str) -> String {
    format!("{key}: {wanted}, not \"{}\"", text::quoted(found))
}

fn is_address(text: &str) -> bool {
    text == "localhost" || text.parse::<IpAddr>().is_ok()
}

/// What `inspect http` understands: no user, no name to look up, nothing that ends a request line early.
fn is_plain_url(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else {
        return false;
    };
    let (host, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let (name, port) = match host.strip_prefix('[') {
        Some(v6) => match v6.split_once(']') {
            Some((name, after)) if name.contains(':') => (name, after),
            _ => return false,
        },
        None => host.find(':').map_or((host, ""), |colon| host.split_at(colon)),
    };
    let port_fits = match port.strip_prefix(':') {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok_and(|port| port > 0),
        None => port.is_empty(),
    };
    is_address(name) && port_fits && url.len() <= 2048 && path.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Debug, Deserialize)]
    struct Config {
        probe: BTreeMap<ProbeName, Probe>,
    }

    fn read(text: &str) -> Result<Config, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// REQ-MANIFEST-25
    #[test]
    fn each_kind_becomes_an_argv() {
        let config = read(
            r#"
            [probe.ssh]
            kind = "tcp"
            address = "127.0.0.1"
            port = 22
            timeout_ms = 1000
            [probe.web]
            kind = "http"
            url = "http://[::1]:8080/health?x=1"
            [probe.disk]
            kind = "disk"
            path = "/"
            min_free_percent = 10
            [probe.cron]
            kind = "process"
            name = "cron"
            [probe.own-check]
            kind = "exec"
            program = "/opt/check"
            argv = ["--all"]
            "#,
        )
        .unwrap();
        let argv = |name: &str| config.probe[name].argv().join(" ");
        assert_eq!(argv("ssh"), "tcp 127.0.0.1 22");
        assert_eq!(config.probe["ssh"].timeout_ms(), 1000);
        assert_eq!(config.probe["ssh"].program(), INSPECT);
        assert_eq!(argv("web"), "http http://[::1]:8080/health?x=1");
        assert_eq!(argv("disk"), "disk / 10");
        assert_eq!(argv("cron"), "process cron");
        assert_eq!(
            (config.probe["own-check"].program(), argv("own-check").as_str()),
            ("/opt/check", "--all")
        );
        assert_eq!(config.probe["cron"].timeout_ms(), DEFAULT_TIMEOUT_MS);
    }

    /// REQ-MANIFEST-24
    #[test]
    fn each_bad_probe_is_refused_by_the_name_of_its_fault() {
        let table = [
            ("kind = \"udp\"", "udp"),
            ("address = \"127.0.0.1\"\nport = 1", "kind"),
            (
                "kind = \"tcp\"\naddress = \"127.0.0.1\"\nport = 1\nhost = \"x\"",
                "host",
            ),
            ("kind = \"tcp\"\naddress = \"example.org\"\nport = 1", "address"),
            ("kind = \"tcp\"\naddress = \"127.0.0.1\"\nport = 0", "port"),
            ("kind = \"tcp\"\naddress = \"127.0.0.1\"\nport = 70000", "70000"),
            (
                "kind = \"tcp\"\naddress = \"127.0.0.1\"\nport = 1\ntimeout_ms = 0",
                "timeout_ms",
            ),
            (
                "kind = \"tcp\"\naddress = \"127.0.0.1\"\nport = 1\ntimeout_ms = 60001",
                "timeout_ms",
            ),
            ("kind = \"http\"\nurl = \"https://127.0.0.1/\"", "url"),
            ("kind = \"http\"\nurl = \"http://user@127.0.0.1/\"", "url"),
            ("kind = \"http\"\nurl = \"http://example.org/\"", "url"),
            ("kind = \"http\"\nurl = \"http://127.0.0.1/ x\"", "url"),
            ("kind = \"http\"\nurl = \"http://[127.0.0.1]/\"", "url"),
            ("kind = \"disk\"\npath = \"var\"\nmin_free_percent = 1", "path"),
            (
                "kind = \"disk\"\npath = \"/\"\nmin_free_percent = 101",
                "min_free_percent",
            ),
            ("kind = \"process\"\nname = \"\"", "name"),
            ("kind = \"process\"\nname = \"sixteen-letters-\"", "name"),
            ("kind = \"exec\"\nprogram = \"check\"", "program"),
            ("kind = \"exec\"\nprogram = \"/opt/../bin/sh\"", "program"),
            ("kind = \"exec\"\nprogram = \"/opt/check\"\nargv = [\"a\\nb\"]", "argv"),
        ];
        for (body, fault) in table {
            let error = read(&format!("[probe.x]\n{body}")).unwrap_err();
            assert!(error.contains(fault), "{body}: {error}");
        }
        for name in ["X", "1x", "a.b", "\"\"", "\"a b\""] {
            let text = format!("[probe]\n{name} = {{ kind = \"process\", name = \"x\" }}");
            assert!(read(&text).is_err(), "{name}");
        }
    }
}
