//! `ca.toml`: where things are, and what each relay may ask for.
//!
//! Everything that widens a certificate stands here and nowhere else: its lifetime, the addresses it may be used from,
//! the persons a relay may speak for, the targets it may reach. Unknown keys are refused and every fault is named at
//! once. There is no secret in this file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use toml::{Table, Value};
use wire::ids::{PersonName, RelayName, TargetName};
use wire::limits::{TASK_CERTIFICATE_DEFAULT_S, TASK_CERTIFICATE_MAX_S};

/// The shortest life of a task certificate that can be asked for, in seconds.
pub const TASK_LIFETIME_MIN_S: u64 = 5;

/// Calls a minute of a relay for which nothing is said.
pub const RELAY_CALLS_PER_MINUTE: u64 = 12_000;

/// Calls a minute of each person of a relay for which nothing is said.
pub const PERSON_CALLS_PER_MINUTE: u64 = 3_000;

/// Refusals a minute that are recorded one by one, of a relay for which nothing is said.
pub const REFUSALS_PER_MINUTE: u64 = 300;

/// The most of anything a minute that can be allowed.
const MOST_PER_MINUTE: u64 = 1_000_000;

/// Where the configuration is when no `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/writ/ca.toml";

/// What a CA is told. Every path is absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Unix socket that relays connect to.
    pub socket: PathBuf,
    /// Where relays on other machines connect, if any do.
    pub tls_listen: Option<SocketAddr>,
    /// Folder of the private keys, 0700.
    pub key_dir: PathBuf,
    /// Folder of everything else that is ours to write.
    pub state_dir: PathBuf,
    /// Folder of the audit log.
    pub log_dir: PathBuf,
    /// `inventory.toml`; written by `enroll`, read again when it changes.
    pub inventory: PathBuf,
    /// Folder of manifests: the CA's own copy.
    pub catalogue_dir: PathBuf,
    /// Cedar policy file.
    pub policy: PathBuf,
    /// Life of a task certificate, [`TASK_LIFETIME_MIN_S`]..=900 seconds.
    pub task_lifetime_s: u64,
    /// Keys of labels that policy may name although no target has them now.
    pub labels: BTreeSet<LabelKey>,
    /// At least one; names and uids are unique.
    pub relays: Vec<Relay>,
}

/// One relay: how it is recognised, and what it may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// Its name in grants and records.
    pub name: RelayName,
    /// How it is recognised.
    pub known_by: KnownBy,
    /// Whom it may speak for. Never empty.
    pub persons: BTreeSet<PersonName>,
    /// What it may reach.
    pub targets: Targets,
    /// Where its connections come from: `source-address` of every certificate it gets. Never empty.
    pub source_addresses: Vec<Cidr>,
    /// Certificates that it may ask for in a minute, at once or spread.
    pub calls_per_minute: u64,
    /// The same for each of its persons.
    pub person_calls_per_minute: u64,
    /// Refusals that are recorded one by one in a minute; beyond, they are counted.
    pub refusals_per_minute: u64,
}

/// The key of a label, as inventories have them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabelKey(String);

impl LabelKey {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LabelKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let also = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
        if (1..=63).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.bytes().all(also)
        {
            return Ok(Self(text.to_owned()));
        }
        let shown = wire::text::escaped(text, 80);
        Err(format!(
            "\"{shown}\" is no key of a label: 1 to 63 of A-Z a-z 0-9 . _ - /, beginning with a letter or digit"
        ))
    }
}

/// How a relay is recognised: one way, so that one fact says who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownBy {
    /// On the unix socket, by the uid of its process, which the kernel tells us. Never 0.
    Uid(u32),
    /// On the port, by a key in this file, which is read again when it changes.
    Keys(PathBuf),
}

/// Which targets a relay may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Targets {
    /// All of the inventory, written `["*"]`.
    All,
    /// These and no others.
    Only(BTreeSet<TargetName>),
}

impl Targets {
    /// Whether `target` is among them.
    #[must_use]
    pub fn include(&self, target: &TargetName) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(target),
        }
    }
}

/// An address block as sshd takes it: no bits set beyond the prefix (sshd refuses the certificate otherwise).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u32,
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| format!("{text:?} is not an address block"))?;
        let (bits, width) = match address {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
            IpAddr::V6(v6) => (v6.to_bits(), 128),
        };
        let prefix = match prefix {
            None => width,
            Some(text) if text.is_empty() || text.len() > 3 || !text.bytes().all(|b| b.is_ascii_digit()) => {
                return Err(format!("/{text} is not a prefix length"));
            }
            Some(digits) => digits
                .parse()
                .map_err(|_| format!("/{digits} is not a prefix length"))?,
        };
        if prefix > width {
            return Err(format!("{text:?} has a prefix longer than its address"));
        }
        if bits.checked_shl(prefix).unwrap_or(0) != 0 {
            return Err(format!("{text:?} has bits set beyond its prefix"));
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Config {
    /// Reads the text of `ca.toml`.
    ///
    /// # Errors
    /// Every fault of the text, each naming its key.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let table: Table = text
            .parse()
            .map_err(|e: toml::de::Error| vec![format!("not TOML: {}", e.message())])?;
        let mut top = Section::new("", table);
        let socket = top.path("socket");
        let tls_listen = top.address("tls_listen");
        let key_dir = top.path("key_dir");
        let state_dir = top.path("state_dir");
        let log_dir = top.path("log_dir");
        let inventory = top.path("inventory");
        let catalogue_dir = top.path("catalogue_dir");
        let policy = top.path("policy");
        let task_lifetime_s = top.number(
            "task_lifetime_s",
            "seconds",
            TASK_CERTIFICATE_DEFAULT_S,
            TASK_LIFETIME_MIN_S..=TASK_CERTIFICATE_MAX_S,
        );
        let labels = top.labels();
        let relays = top.relays();
        if tls_listen.is_none() && relays.iter().any(|relay| matches!(relay.known_by, KnownBy::Keys(_))) {
            top.fault(
                "tls_listen",
                "a relay has tls_keys, and there is nowhere for it to connect",
            );
        }
        let faults = top.finish();
        match (
            socket,
            key_dir,
            state_dir,
            log_dir,
            inventory,
            catalogue_dir,
            policy,
            task_lifetime_s,
        ) {
            (
                Some(socket),
                Some(key_dir),
                Some(state_dir),
                Some(log_dir),
                Some(inventory),
                Some(catalogue_dir),
                Some(policy),
                Some(task_lifetime_s),
            ) if faults.is_empty() => Ok(Self {
                socket,
                tls_listen,
                key_dir,
                state_dir,
                log_dir,
                inventory,
                catalogue_dir,
                policy,
                task_lifetime_s,
                labels,
                relays,
            }),
            _ => Err(faults),
        }
    }

    /// The lock file beside the state, never in the log's folder (a reader of the log could hold it there).
    #[must_use]
    pub fn log_lock(&self) -> PathBuf {
        self.state_dir.join("log.lock")
    }

    /// Every person that some relay may speak for.
    #[must_use]
    pub fn persons(&self) -> BTreeSet<&PersonName> {
        self.relays.iter().flat_map(|relay| &relay.persons).collect()
    }
}

/// A TOML table that is emptied key by key; what is left over is unknown.
struct Section {
    at: String,
    table: Table,
    faults: Vec<String>,
}

impl Section {
    fn new(at: &str, table: Table) -> Self {
        Self {
            at: at.to_owned(),
            table,
            faults: Vec::new(),
        }
    }

    fn fault(&mut self, key: &str, what: impl fmt::Display) {
        self.faults.push(format!("{}{key}: {what}", self.at));
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        let value = self.table.remove(key);
        if value.is_none() {
            self.fault(key, "missing");
        }
        value
    }

    fn string(&mut self, key: &str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            other => {
                self.fault(key, format_args!("a string is wanted, not a {}", other.type_str()));
                None
            }
        }
    }

    fn path(&mut self, key: &str) -> Option<PathBuf> {
        let text = self.string(key)?;
        if Path::new(&text).is_absolute() {
            return Some(PathBuf::from(text));
        }
        self.fault(key, "an absolute path is wanted");
        None
    }

    /// An address and a port that may be left out.
    fn address(&mut self, key: &str) -> Option<SocketAddr> {
        let value = self.table.remove(key)?;
        let address = value.as_str().and_then(|text| text.parse().ok());
        let address = address.filter(|address: &SocketAddr| address.port() != 0);
        if address.is_none() {
            self.fault(key, "an address and a port are wanted, such as 192.0.2.1:7443");
        }
        address
    }

    fn number(&mut self, key: &str, unit: &str, default: u64, within: RangeInclusive<u64>) -> Option<u64> {
        let Some(value) = self.table.remove(key) else {
            return Some(default);
        };
        let found = value.as_integer().and_then(|n| u64::try_from(n).ok());
        let found = found.filter(|n| within.contains(n));
        if found.is_none() {
            let (least, most) = within.into_inner();
            self.fault(
                key,
                format_args!("a whole number of {unit} from {least} to {most} is wanted"),
            );
        }
        found
    }

    /// Label keys that need not be in the inventory; none unless they are named.
    fn labels(&mut self) -> BTreeSet<LabelKey> {
        if !self.table.contains_key("labels") {
            return BTreeSet::new();
        }
        self.list("labels").into_iter().collect()
    }

    /// A list of at least one string, each of which `T` accepts.
    fn list<T>(&mut self, key: &str) -> Vec<T>
    where
        T: FromStr<Err: fmt::Display>,
    {
        let Some(value) = self.take(key) else { return Vec::new() };
        let Value::Array(items) = value else {
            self.fault(key, "a list of strings is wanted");
            return Vec::new();
        };
        if items.is_empty() {
            self.fault(key, "at least one is wanted");
        }
        let mut list = Vec::with_capacity(items.len());
        for item in items {
            match item.as_str().map(str::parse::<T>) {
                Some(Ok(value)) => list.push(value),
                Some(Err(what)) => self.fault(key, what),
                None => self.fault(key, "a list of strings is wanted"),
            }
        }
        list
    }

    fn relays(&mut self) -> Vec<Relay> {
        let tables = match self.table.remove("relay") {
            Some(Value::Array(items)) if !items.is_empty() => items,
            _ => {
                self.fault("relay", "at least one [[relay]] is wanted");
                return Vec::new();
            }
        };
        let mut relays: Vec<Relay> = Vec::new();
        let mut uids = BTreeMap::new();
        for (n, item) in tables.into_iter().enumerate() {
            let Value::Table(table) = item else {
                self.fault("relay", "a table is wanted");
                continue;
            };
            let mut section = Section::new(&format!("relay[{n}]."), table);
            if let Some(relay) = section.relay() {
                if relays.iter().any(|other| other.name == relay.name) {
                    section.fault("name", format_args!("{} is there twice", relay.name));
                }
                if let KnownBy::Uid(uid) = relay.known_by
                    && let Some(other) = uids.insert(uid, relay.name.clone())
                {
                    section.fault("uid", format_args!("{uid} is already the uid of {other}"));
                }
                relays.push(relay);
            }
            self.faults.append(&mut section.finish());
        }
        relays
    }

    fn relay(&mut self) -> Option<Relay> {
        let name = self.string("name").and_then(|text| match text.parse::<RelayName>() {
            Ok(name) => Some(name),
            Err(what) => {
                self.fault("name", what);
                None
            }
        });
        let known_by = self.known_by();
        let persons = self.list::<PersonName>("persons").into_iter().collect();
        let targets = self.targets();
        let source_addresses = self.list::<Cidr>("source_addresses");
        let mut rate = |key, unit, default| self.number(key, unit, default, 1..=MOST_PER_MINUTE);
        let calls_per_minute = rate("calls_per_minute", "calls", RELAY_CALLS_PER_MINUTE);
        let person_calls_per_minute = rate("person_calls_per_minute", "calls", PERSON_CALLS_PER_MINUTE);
        let refusals_per_minute = rate("refusals_per_minute", "refusals", REFUSALS_PER_MINUTE);
        Some(Relay {
            name: name?,
            known_by: known_by?,
            persons,
            targets,
            source_addresses,
            calls_per_minute: calls_per_minute?,
            person_calls_per_minute: person_calls_per_minute?,
            refusals_per_minute: refusals_per_minute?,
        })
    }

    fn known_by(&mut self) -> Option<KnownBy> {
        match (self.table.contains_key("uid"), self.table.contains_key("tls_keys")) {
            (true, true) => {
                self.table.remove("uid");
                self.table.remove("tls_keys");
                self.fault("uid", "one of uid and tls_keys is wanted, not both");
                None
            }
            (false, true) => self.path("tls_keys").map(KnownBy::Keys),
            (_, false) => {
                let uid = match self.take("uid") {
                    Some(Value::Integer(n)) if n > 0 => u32::try_from(n).ok().filter(|uid| *uid != u32::MAX),
                    _ => None,
                };
                if uid.is_none() {
                    self.fault(
                        "uid",
                        "the number of an account other than root is wanted, or else tls_keys",
                    );
                }
                uid.map(KnownBy::Uid)
            }
        }
    }

    fn targets(&mut self) -> Targets {
        let star = Value::Array(vec![Value::from("*")]);
        if self.table.get("targets") == Some(&star) {
            self.table.remove("targets");
            return Targets::All;
        }
        Targets::Only(self.list::<TargetName>("targets").into_iter().collect())
    }

    fn finish(mut self) -> Vec<String> {
        let unknown: Vec<String> = self.table.keys().cloned().collect();
        for key in unknown {
            // The name only: a value put under a mistyped key may be a secret.
            self.fault(&key, "unknown key");
        }
        self.faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        socket = "/run/writ-ca/ca.sock"
        key_dir = "/var/lib/writ-ca/keys"
        state_dir = "/var/lib/writ-ca"
        log_dir = "/var/log/writ-ca"
        inventory = "/var/lib/writ-ca/inventory.toml"
        catalogue_dir = "/usr/share/writ/actions.d"
        policy = "/etc/writ/policy.cedar"
        [[relay]]
        name = "relay-1"
        uid = 64110
        persons = ["alice"]
        targets = ["web-1", "web-2"]
        source_addresses = ["127.0.0.0/8", "::1"]
    "#;

    fn faults(text: &str) -> String {
        Config::parse(text).unwrap_err().join("\n")
    }

    #[test]
    fn a_good_file_is_read_with_its_defaults() {
        let config = Config::parse(GOOD).unwrap();
        assert_eq!(config.task_lifetime_s, 300);
        let blocks: Vec<String> = config.relays[0].source_addresses.iter().map(Cidr::to_string).collect();
        assert_eq!(blocks, ["127.0.0.0/8", "::1/128"]);
    }

    /// REQ-CARPC-22
    #[test]
    fn quotas_and_labels_are_read_with_their_bounds() {
        let config = Config::parse(GOOD).unwrap();
        let relay = &config.relays[0];
        assert_eq!((relay.calls_per_minute, relay.person_calls_per_minute), (12_000, 3_000));
        assert_eq!(relay.refusals_per_minute, 300);
        let said = format!("labels = [\"env\", \"a.b/c\"]\n{GOOD}calls_per_minute = 7\nperson_calls_per_minute = 1\n");
        let config = Config::parse(&said).unwrap();
        assert_eq!(
            (
                config.relays[0].calls_per_minute,
                config.relays[0].person_calls_per_minute
            ),
            (7, 1)
        );
        assert_eq!(
            config.labels.iter().map(LabelKey::as_str).collect::<Vec<_>>(),
            ["a.b/c", "env"]
        );
        for wrong in ["0", "-1", "1000001", "\"7\"", "1.5"] {
            let found = faults(&format!("{GOOD}calls_per_minute = {wrong}\n"));
            assert_eq!(
                found,
                "relay[0].calls_per_minute: a whole number of calls from 1 to 1000000 is wanted"
            );
        }
        for wrong in ["[]", "[\"e nv\"]", "[\"\"]", "[3]", "\"env\"", "[\"\u{435}nv\"]"] {
            assert!(
                faults(&format!("labels = {wrong}\n{GOOD}")).starts_with("labels: "),
                "{wrong}"
            );
        }
    }

    #[test]
    fn the_shipped_example_is_read() {
        Config::parse(include_str!("../../deploy/ca/ca.toml")).unwrap();
    }

    #[test]
    fn a_relay_elsewhere_is_known_by_its_keys_and_the_example_shows_how() {
        let shipped = include_str!("../../deploy/ca/ca.toml");
        let far = shipped
            .replace("# tls_listen", "tls_listen")
            .replace("uid = 64110", "#")
            .replace("# tls_keys", "tls_keys");
        let config = Config::parse(&far).unwrap();
        assert_eq!(config.tls_listen, Some("192.0.2.1:7443".parse().unwrap()));
        assert_eq!(config.relays[0].known_by, KnownBy::Keys("/etc/writ/relay-1.pub".into()));

        let refused = |from: &str, to: &str| faults(&far.replace(from, to));
        for (from, to, fault) in [
            ("tls_listen = ", "# ", "tls_listen: a relay has tls_keys"),
            (
                "192.0.2.1:7443",
                "ca.example:7443",
                "tls_listen: an address and a port are wanted",
            ),
            (
                "192.0.2.1:7443",
                "192.0.2.1:0",
                "tls_listen: an address and a port are wanted",
            ),
            (
                "\ntls_keys",
                "\nuid = 7\ntls_keys",
                "relay[0].uid: one of uid and tls_keys is wanted",
            ),
            (
                "tls_keys = \"/etc",
                "tls_keys = \"etc",
                "relay[0].tls_keys: an absolute path is wanted",
            ),
            ("tls_keys = ", "# ", "relay[0].uid: missing"),
        ] {
            let found = refused(from, to);
            assert!(found.contains(fault), "{fault} not in:\n{found}");
        }
    }

    #[test]
    fn all_faults_are_named_at_once_without_values() {
        let text = GOOD
            .replace("key_dir", "keys_dir")
            .replace("\"/var/log/writ-ca\"", "\"log\"")
            .replace("64110", "0")
            .replace("[\"alice\"]", "[]")
            + "\n token = \"hunter2\"\n";
        let found = faults(&text);
        for part in [
            "key_dir: missing",
            "keys_dir: unknown key",
            "log_dir: an absolute path is wanted",
            "relay[0].uid: the number of an account other than root is wanted",
            "relay[0].persons: at least one is wanted",
            "relay[0].token: unknown key",
        ] {
            assert!(found.contains(part), "{part} not in:\n{found}");
        }
        assert!(!found.contains("hunter2"));
    }

    #[test]
    fn ttl_over_max_is_refused_at_start() {
        for (lifetime, fine) in [
            ("4", false),
            ("5", true),
            ("900", true),
            ("901", false),
            ("-1", false),
            ("\"300\"", false),
        ] {
            let text = format!("task_lifetime_s = {lifetime}\n{GOOD}");
            assert_eq!(Config::parse(&text).is_ok(), fine, "{lifetime}");
        }
    }

    #[test]
    fn two_relays_with_one_uid_or_name_are_refused() {
        let relay = &GOOD[GOOD.find("[[relay]]").unwrap()..];
        let found = faults(&format!("{GOOD}{relay}"));
        assert!(found.contains("relay[1].name: relay-1 is there twice"), "{found}");
        assert!(
            found.contains("relay[1].uid: 64110 is already the uid of relay-1"),
            "{found}"
        );
    }

    #[test]
    fn an_address_block_that_sshd_would_refuse_is_refused_here() {
        for text in [
            "127.0.0.1/8",
            "127.0.0.0/33",
            "host",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/8,0.0.0.0/0",
            "!10.0.0.1",
            "*",
            "",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
        for text in ["0.0.0.0/0", "10.0.0.0/8", "10.1.2.3", "fd00::/8", "::/0"] {
            assert!(text.parse::<Cidr>().is_ok(), "{text}");
        }
    }
}
