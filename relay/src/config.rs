//! `relay.toml`: every key, every fault at once.
//!
//! A setting that is unknown, missing or malformed is a fault, and all faults of a file are reported together, so that
//! nobody repairs a configuration one restart at a time. There is no setting that weakens a check.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::Ipv6Addr;
use std::num::NonZeroU32;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Table;
use wire::ids::{Digest, PersonName, RelayName};

use crate::approvals::SOCKET_NAME;
use crate::door::OpenTo;
use crate::limits::Limits;
use crate::rules::{self, RelayMode, Rule};
use crate::seats;
use crate::session::Bounds;

mod fields;

pub(crate) use fields::Fields;

/// Where the configuration is when nobody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/writ/relay.toml";
/// Where the socket is when nobody says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/writ-relay/relay.sock";

/// The largest configuration that is read, in bytes.
const MAX_BYTES: u64 = 256 * 1024;

/// A configuration that has no fault.
#[derive(Debug, Clone)]
pub struct Config {
    /// The relay's name, as the CA knows it.
    pub name: RelayName,
    /// The unix socket that clients connect to.
    pub socket: PathBuf,
    /// The unix socket that approvers connect to.
    pub approvals_socket: PathBuf,
    /// Whom that is open to.
    pub approvals_to: OpenTo,
    /// Where the CA is.
    pub ca: CaAddress,
    /// The folder of the relay's own log.
    pub log_dir: PathBuf,
    /// The folder of the relay's state, mode 0700.
    pub state_dir: PathBuf,
    /// The targets.
    pub inventory: PathBuf,
    /// The relay's copy of the catalogue.
    pub catalogue_dir: PathBuf,
    /// What a connection may have, and how long it is kept.
    pub bounds: Bounds,
    /// Most connections at a time, of all tasks together.
    pub connections: usize,
    /// Which uid is which person. Each uid once.
    pub persons: Vec<(u32, PersonName)>,
    /// How much there may be, and how fast.
    pub limits: Limits,
    /// What it is for.
    pub mode: RelayMode,
    /// What it refuses, not yet compared with catalogue and inventory.
    pub deny: Vec<Rule>,
    /// SHA-256 of the file's bytes.
    pub digest: Digest,
}

/// Where the CA is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaAddress {
    /// On this machine.
    Socket(PathBuf),
    /// On another.
    Tls {
        /// `host:port`.
        address: String,
        /// The file of its public keys, which is read again when it changes.
        keys: PathBuf,
    },
}

impl std::fmt::Display for CaAddress {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(out, "{}", path.display()),
            Self::Tls { address, .. } => write!(out, "{address}"),
        }
    }
}

/// Something wrong, in words that name the key and never its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(String);

impl Fault {
    /// A fault in these words.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Every fault of it.
    pub fn load(path: &Path) -> Result<Self, Vec<Fault>> {
        let bytes = read_trusted("configuration", path, MAX_BYTES).map_err(|fault| vec![fault])?;
        Self::parse(&bytes)
    }

    /// Checks the text of a file.
    ///
    /// # Errors
    /// Every fault of it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Vec<Fault>> {
        let text = std::str::from_utf8(bytes).map_err(|_| vec![Fault::new("not UTF-8")])?;
        // The parser's own text would quote the line: a value could be in it.
        let table: Table = toml::from_str(text).map_err(|error| {
            let line = error
                .span()
                .map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            vec![Fault::new(format!("not TOML: line {line}: {}", error.message()))]
        })?;
        let mut fields = Fields::of(table, "");
        let name = fields.parsed::<RelayName>("name");
        let socket = fields.path("socket");
        let (approvals_socket, approvals_to) = approvals(&mut fields, socket.as_deref());
        let ca = ca(&mut fields);
        let log_dir = fields.path("log_dir");
        let state_dir = fields.path("state_dir");
        let inventory = fields.path("inventory");
        let catalogue_dir = fields.path("catalogue_dir");
        let idle_s = fields.number(
            "connection_idle_s",
            10..=28_800,
            seats::BOUNDS.connection_idle.as_secs(),
        );
        let channels = fields.number("channels_max", 1..=32, seats::BOUNDS.channels as u64);
        let connections = fields.number("connections_max", 1..=4096, seats::CONNECTIONS as u64);
        let bounds = Bounds {
            channels: usize::try_from(channels).unwrap_or(seats::BOUNDS.channels),
            connection_idle: Duration::from_secs(idle_s),
            ..seats::BOUNDS
        };
        let persons = persons(&mut fields);
        let limits = limits(&mut fields);
        let mode = rules::mode(&mut fields);
        let deny = rules::rules(&mut fields);
        let faults = fields.finish();
        match (name, socket, ca, log_dir, state_dir, inventory, catalogue_dir) {
            (
                Some(name),
                Some(socket),
                Some(ca),
                Some(log_dir),
                Some(state_dir),
                Some(inventory),
                Some(catalogue_dir),
            ) if faults.is_empty() => Ok(Self {
                name,
                socket,
                approvals_socket,
                approvals_to,
                ca,
                log_dir,
                state_dir,
                inventory,
                catalogue_dir,
                bounds,
                connections: usize::try_from(connections).unwrap_or(seats::CONNECTIONS),
                persons,
                limits,
                mode,
                deny,
                digest: Digest::of(bytes),
            }),
            _ => Err(faults),
        }
    }

    /// The store: tasks and requests.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.state_dir.join("store.sqlite")
    }

    /// The key that the CA knows the relay by, where it is on another machine.
    #[must_use]
    pub fn tls_key(&self) -> PathBuf {
        self.state_dir.join("tls")
    }

    /// The lock of the relay's log: beside the state, where no reader of logs can hold it.
    #[must_use]
    pub fn log_lock(&self) -> PathBuf {
        self.state_dir.join("log.lock")
    }
}

/// What is wrong with a folder that must be this process's own, with this mode (`0700`, or `2750` where log shippers
/// read). The set-group-id bit is the administrator's to give.
#[must_use]
pub fn own_folder_fault(key: &str, path: &Path, mode: u32) -> Option<Fault> {
    let fault = |what: String| Some(Fault::new(format!("{key}: failed to use {}: {what}", path.display())));
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) => {
            let make = format!("install -d -o writ-relay -m {mode:04o} {}", path.display());
            return fault(format!("{error}; make it: {make}"));
        }
    };
    if !found.is_dir() {
        return fault("it is not a folder; name one".to_owned());
    }
    if found.uid() != nix::unistd::geteuid().as_raw() {
        return fault(format!("it is owned by uid {}; chown it to writ-relay", found.uid()));
    }
    let is = found.mode() & 0o7777;
    let owner = mode & 0o700;
    if is & owner != owner || is & 0o777 & !mode != 0 {
        return fault(format!("mode {is:04o}; chmod {mode:04o} it"));
    }
    None
}

/// Reads a file that says who is who or where a target is: it belongs to root or to us, and nobody else may write it.
/// Owner and mode are those of the file that was opened.
///
/// # Errors
/// The one fault that keeps it from being read.
pub fn read_trusted(key: &str, path: &Path, max: u64) -> Result<Vec<u8>, Fault> {
    use io::Read as _;
    let fault = |what: String| Fault::new(format!("{key}: failed to read {}: {what}", path.display()));
    let machine = |error: io::Error| fault(format!("{error}; it must be there, and readable for writ-relay"));
    let file = fs::File::open(path).map_err(machine)?;
    let found = file.metadata().map_err(machine)?;
    if !found.is_file() {
        return Err(fault("it is not a file; name one".to_owned()));
    }
    if ![0, nix::unistd::geteuid().as_raw()].contains(&found.uid()) {
        return Err(fault(format!("it is owned by uid {}; chown it to root", found.uid())));
    }
    let mode = found.mode() & 0o7777;
    if mode & 0o022 != 0 {
        let what = "it must not be writable for group or others; chmod go-w it";
        return Err(fault(format!("mode {mode:04o}, {what}")));
    }
    let mut bytes = Vec::new();
    file.take(max.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(machine)?;
    if u64::try_from(bytes.len()).is_ok_and(|read| read <= max) {
        Ok(bytes)
    } else {
        Err(fault(format!("it has more than {max} bytes; shorten it")))
    }
}

/// The approvers' socket: beside the clients', for the relay's own account and root, or in a folder of its own, for its group.
/// What people are asked to approve is not for whoever may call actions.
fn approvals(fields: &mut Fields, socket: Option<&Path>) -> (PathBuf, OpenTo) {
    let Some(path) = fields.optional_path("approvals_socket") else {
        return (
            socket.unwrap_or(Path::new("")).with_file_name(SOCKET_NAME),
            OpenTo::Owner,
        );
    };
    if socket.is_some_and(|socket| socket.parent() == path.parent()) {
        fields.fault(
            "approvals_socket",
            "must be in another folder than socket, whose group are the clients; leave it out to have it open to root alone",
        );
    }
    (path, OpenTo::Group)
}

/// `ca`, and `ca_keys` where it is on another machine.
fn ca(fields: &mut Fields) -> Option<CaAddress> {
    let text = fields.text("ca")?;
    if let Some(address) = text.strip_prefix("tls:") {
        let keys = fields.path("ca_keys");
        let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
        let is_plain = |host: &str| host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
        let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(inside) => inside.parse::<Ipv6Addr>().is_ok(),
            None => !host.is_empty() && is_plain(host),
        };
        if is_host && port.parse::<u16>().is_ok_and(|port| port > 0) {
            let address = address.to_owned();
            return keys.map(|keys| CaAddress::Tls { address, keys });
        }
    } else if let Some(path) = text.strip_prefix("unix:").map(Path::new)
        && path.is_absolute()
    {
        return Some(CaAddress::Socket(path.to_owned()));
    }
    fields.fault(
        "ca",
        "must be unix: and an absolute path, or tls: and a host and a port",
    );
    None
}

fn persons(fields: &mut Fields) -> Vec<(u32, PersonName)> {
    let mut persons = Vec::new();
    let mut uids = BTreeSet::new();
    for mut entry in fields.tables("person") {
        let uid = entry.uid("uid");
        let name = entry.parsed::<PersonName>("name");
        if let Some(uid) = uid
            && !uids.insert(uid)
        {
            entry.fault("uid", "stands twice");
        }
        persons.extend(uid.zip(name));
        fields.take_faults(entry);
    }
    persons
}

/// What is left out is as it is by default; numbers that nobody can mean are faults.
fn limits(fields: &mut Fields) -> Limits {
    let mut limits = Limits::default();
    let Some(mut table) = fields.table("limits") else {
        return limits;
    };
    for (key, number, most) in [
        ("person_calls_per_minute", &mut limits.person.per_minute, 1_000_000),
        ("person_burst_calls", &mut limits.person.burst, 1_000_000),
        ("target_actions_per_minute", &mut limits.target.per_minute, 1_000_000),
        ("target_burst_actions", &mut limits.target.burst, 1_000_000),
        ("person_calls_at_once", &mut limits.person_calls, 256),
        ("uid_connections", &mut limits.uid_connections, 64),
    ] {
        let set = table.number(key, 1..=most, number.get().into());
        *number = u32::try_from(set).ok().and_then(NonZeroU32::new).unwrap_or(*number);
    }
    let waiting = table.number("person_calls_waiting", 0..=1024, limits.person_waiting.into());
    limits.person_waiting = u32::try_from(waiting).unwrap_or(limits.person_waiting);
    limits.drain = Duration::from_secs(table.number("drain_s", 1..=600, limits.drain.as_secs()));
    fields.take_faults(table);
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../deploy/relay/relay.toml");

    #[test]
    fn the_shipped_example_has_no_fault() {
        let config = Config::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!(config.name.as_str(), "relay-1");
        assert_eq!(config.socket, Path::new(DEFAULT_SOCKET));
        assert_eq!(config.ca, CaAddress::Socket("/run/writ-ca/ca.sock".into()));
        assert_eq!(config.persons.len(), 1);
        assert_eq!((config.bounds.channels, config.connections), (8, 512));
        assert_eq!(config.bounds.connection_idle, Duration::from_secs(300));
        assert_eq!(config.digest, Digest::of(EXAMPLE.as_bytes()));
        assert_eq!(config.limits, Limits::default(), "the example shows the defaults");
    }

    #[test]
    fn limits_that_are_left_out_have_their_default_and_others_are_checked() {
        let (before, rest) = EXAMPLE.split_once("\n[limits]\n").unwrap();
        let after = &rest[rest.find("[[person]]").unwrap()..];
        let parse = |limits: &str| Config::parse(format!("{before}\n{limits}\n{after}").as_bytes());
        assert_eq!(parse("").unwrap().limits, Limits::default());
        let limits = parse("[limits]\nperson_calls_per_minute = 60\nperson_calls_waiting = 0\ndrain_s = 7").unwrap();
        let limits = limits.limits;
        assert_eq!(limits.person.per_minute.get(), 60);
        assert_eq!(limits.person.burst, Limits::default().person.burst);
        assert_eq!((limits.person_waiting, limits.drain), (0, Duration::from_secs(7)));
        let faulty = "[limits]\nperson_burst_calls = 0\ntarget_actions_per_minute = -1\nuid_connections = 65\n\
                      person_calls_at_once = \"9\"\ndrain_s = 9_999_999_999\nspeed = 3";
        let faults = parse(faulty).unwrap_err();
        let said: Vec<_> = faults.iter().map(ToString::to_string).collect();
        for key in [
            "person_burst_calls: must be a number from 1 to 1000000",
            "target_actions_per_minute: must be",
            "uid_connections: must be a number from 1 to 64",
            "person_calls_at_once: must be",
            "drain_s: must be a number from 1 to 600",
            "speed: is unknown",
        ] {
            let key = format!("limits.{key}");
            assert!(said.iter().any(|fault| fault.starts_with(&key)), "{key} in {said:?}");
        }
        assert_eq!(said.len(), 6, "{said:?}");
        assert_eq!(parse("limits = 3").unwrap_err().len(), 1);
    }

    #[test]
    fn a_ca_on_another_machine_is_named_by_its_address_and_the_file_of_its_keys() {
        let with = |ca: &str, keys: &str| {
            let ca = format!("ca = \"{ca}\"\n{keys}");
            Config::parse(EXAMPLE.replace("ca = \"unix:/run/writ-ca/ca.sock\"", &ca).as_bytes())
        };
        let keys = "ca_keys = \"/etc/writ/ca_tls.pub\"";
        for address in ["ca.example:7443", "192.0.2.1:7443", "[2001:db8::1]:7443", "localhost:1"] {
            let found = with(&format!("tls:{address}"), keys).unwrap().ca;
            let wanted = CaAddress::Tls {
                address: address.to_owned(),
                keys: "/etc/writ/ca_tls.pub".into(),
            };
            assert_eq!(found, wanted);
        }
        for (ca, keys, fault) in [
            ("tls:ca.example:7443", "", "ca_keys: is missing"),
            (
                "tls:ca.example:7443",
                "ca_keys = \"ca.pub\"",
                "ca_keys: must be an absolute path",
            ),
            // A unix socket shows who listens by its folder: keys beside it would be believed to be checked.
            ("unix:/run/writ-ca/ca.sock", keys, "ca_keys: is unknown"),
            ("tls:ca.example", keys, "ca: must be"),
            ("tls::7443", keys, "ca: must be"),
            ("tls:ca.example:0", keys, "ca: must be"),
            ("tls:ca.example:70000", keys, "ca: must be"),
            ("tls:user@ca.example:7443", keys, "ca: must be"),
            ("tls:[ca.example]:7443", keys, "ca: must be"),
            ("https://ca.example:7443", "", "ca: must be"),
        ] {
            let faults = with(ca, keys).unwrap_err();
            assert!(
                faults.iter().any(|found| found.to_string().starts_with(fault)),
                "{ca}: {faults:?}"
            );
            assert_eq!(faults.len(), 1, "{ca}: {faults:?}");
        }
    }

    #[test]
    fn all_faults_are_reported_at_once_without_values() {
        let text = r#"
            name = "Relay One"
            socket = "relay.sock"
            ca = "https://secret.example"
            log_dir = 7
            channels_max = 0
            connections_max = "many"
            connection_idle_s = -1
            surprise = "hunter2"
            [[person]]
            uid = 0
            name = "alice"
            [[person]]
            uid = 1000
            name = "Bob!"
            colour = "red"
        "#;
        let faults = Config::parse(text.as_bytes()).unwrap_err();
        let said = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        for key in [
            "name:",
            "socket:",
            "ca:",
            "log_dir:",
            "state_dir:",
            "inventory:",
            "catalogue_dir:",
            "channels_max:",
            "connections_max:",
            "connection_idle_s:",
            "surprise:",
            "person[0].uid:",
            "person[1].name:",
            "person[1].colour:",
        ] {
            assert!(said.lines().any(|line| line.starts_with(key)), "{key} in\n{said}");
        }
        for value in ["hunter2", "secret.example", "Relay One", "Bob!"] {
            assert!(!said.contains(value), "{value} in\n{said}");
        }
    }

    #[test]
    fn one_uid_is_one_person() {
        let text = format!("{EXAMPLE}\n[[person]]\nuid = 64120\nname = \"mallory\"\n");
        let faults = Config::parse(text.as_bytes()).unwrap_err();
        assert!(
            faults.iter().any(|fault| fault.to_string().contains("stands twice")),
            "{faults:?}"
        );
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_folder_that_others_can_enter_or_write_is_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        let fault = |mode| own_folder_fault("state_dir", folder.path(), mode).map(|fault| fault.to_string());
        for (is, wanted, fine) in [
            (0o700, 0o700, true),
            (0o750, 0o700, false),
            (0o500, 0o700, false),
            (0o2750, 0o2750, true),
            (0o750, 0o2750, true),
            (0o770, 0o2750, false),
            (0o755, 0o2750, false),
        ] {
            chmod(folder.path(), is);
            assert_eq!(fault(wanted).is_none(), fine, "{is:04o} for {wanted:04o}");
        }
        let said = fault(0o2750).unwrap();
        assert!(
            said.starts_with("state_dir: failed to use ") && said.ends_with("mode 0755; chmod 2750 it"),
            "{said}"
        );
    }

    #[test]
    fn a_file_that_somebody_else_could_write_decides_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.toml");
        fs::write(&path, EXAMPLE).unwrap();
        chmod(&path, 0o644);
        assert!(Config::load(&path).is_ok());
        for mode in [0o664, 0o646, 0o666] {
            chmod(&path, mode);
            let fault = Config::load(&path).unwrap_err()[0].to_string();
            assert!(
                fault.starts_with("configuration: failed to read ") && fault.contains("chmod go-w"),
                "{fault}"
            );
        }
        chmod(&path, 0o644);
        // Only root can give a file away; as somebody else this half is not shown.
        if std::os::unix::fs::chown(&path, Some(64_999), None).is_ok() {
            let fault = Config::load(&path).unwrap_err()[0].to_string();
            assert!(fault.contains("owned by uid 64999"), "{fault}");
        }
        fs::write(&path, vec![b'#'; 300 * 1024]).unwrap();
        if std::os::unix::fs::chown(&path, Some(nix::unistd::geteuid().as_raw()), None).is_ok() {
            assert!(Config::load(&path).unwrap_err()[0].to_string().contains("more than"));
        }
        assert!(
            Config::load(folder.path()).unwrap_err()[0]
                .to_string()
                .contains("not a file")
        );
    }
}
