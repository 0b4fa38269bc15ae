//! `inventory.toml`: which targets there are, where, and by which keys they are known.
//!
//! The CA writes it when a target is enrolled; relays and auditors have copies. Keys come from here and never from the
//! target that is being talked to.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv6Addr, SocketAddr};

use openssh::key::PublicKey;
use wire::ids::TargetName;

use crate::fault::{Fault, Faults};
use crate::table::Table;
use crate::text;

/// Longest inventory, in bytes: some ten thousand targets.
pub const MAX_BYTES: usize = 8 * 1024 * 1024;
/// Most labels of a target.
const MAX_LABELS: usize = 32;

/// All targets, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    targets: BTreeMap<String, Target>,
}

/// A target as others know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    name: TargetName,
    address: String,
    host: HostTrust,
    receipt_key: PublicKey,
    labels: BTreeMap<String, String>,
}

/// How the target's sshd proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostTrust {
    /// By this very key.
    Key(PublicKey),
    /// By a host certificate of this CA.
    Ca(PublicKey),
}

impl HostTrust {
    fn key(&self) -> &'static str {
        match self {
            Self::Key(_) => "host_key",
            Self::Ca(_) => "host_ca",
        }
    }

    /// The key that is trusted.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        match self {
            Self::Key(key) | Self::Ca(key) => key,
        }
    }
}

impl Target {
    /// Puts a target together, under the same checks as one that is read.
    ///
    /// # Errors
    /// What is wrong with the address or the labels.
    pub fn new(
        name: TargetName,
        address: &str,
        host: HostTrust,
        receipt_key: PublicKey,
        labels: BTreeMap<String, String>,
    ) -> Result<Self, Vec<Fault>> {
        let faults = Faults::default();
        check_address(address).unwrap_or_else(|what| faults.add("address", what));
        for (key, value) in &labels {
            check_label(key, value).unwrap_or_else(|what| faults.add("labels", what));
        }
        if labels.len() > MAX_LABELS {
            faults.add("labels", format!("has more than {MAX_LABELS}"));
        }
        let faults = faults.into_vec();
        if faults.is_empty() {
            Ok(Self {
                name,
                address: address.to_owned(),
                host,
                receipt_key,
                labels,
            })
        } else {
            Err(faults)
        }
    }

    /// Its name, which is the principal of certificates for it.
    #[must_use]
    pub fn name(&self) -> &TargetName {
        &self.name
    }

    /// `host:port`; an IPv6 address stands in brackets.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Host and port apart, the host without brackets.
    #[must_use]
    pub fn host_and_port(&self) -> (&str, u16) {
        // The shape was checked when the target was made.
        split_address(&self.address).unwrap_or((&self.address, 22))
    }

    /// How its sshd proves who it is.
    #[must_use]
    pub fn host(&self) -> &HostTrust {
        &self.host
    }

    /// The key that signs its Outcomes.
    #[must_use]
    pub fn receipt_key(&self) -> &PublicKey {
        &self.receipt_key
    }

    /// What policy and callers may choose it by.
    #[must_use]
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// The target as a part of `inventory.toml`, ending with a newline.
    #[must_use]
    pub fn stanza(&self) -> String {
        let mut text = format!("[target.{}]\n", toml_key(self.name.as_str()));
        let mut line = |key: &str, value: &str| {
            let _infallible = writeln!(text, "{key} = {}", toml_text(value));
        };
        line("address", &self.address);
        line(self.host.key(), &self.host.public_key().to_openssh());
        line("receipt_key", &self.receipt_key.to_openssh());
        if !self.labels.is_empty() {
            let labels: Vec<String> = self
                .labels
                .iter()
                .map(|(key, value)| format!("{} = {}", toml_key(key), toml_text(value)))
                .collect();
            let _infallible = writeln!(text, "labels = {{ {} }}", labels.join(", "));
        }
        text
    }
}

impl Inventory {
    /// Reads the file's text.
    ///
    /// # Errors
    /// Everything that is wrong with it, at least one fault.
    pub fn parse(text: &str) -> Result<Self, Vec<Fault>> {
        let faults = Faults::default();
        let mut targets = BTreeMap::new();
        if text.len() > MAX_BYTES {
            faults.add("", format!("has more than {MAX_BYTES} bytes"));
        } else if let Some(mut table) = Table::read(text, &faults) {
            for (name, stanza) in table.table("target").map(Table::tables).unwrap_or_default() {
                if let Some(target) = read_target(&name, stanza) {
                    targets.insert(name, target);
                }
            }
            table.finish();
        }
        check_keys_differ(&targets, &faults);
        let faults = faults.into_vec();
        if faults.is_empty() {
            Ok(Self { targets })
        } else {
            Err(faults)
        }
    }

    /// One target.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Target> {
        self.targets.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Target> {
        self.targets.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// The whole file: a stanza for each, in order of names.
    #[must_use]
    pub fn to_toml(&self) -> String {
        self.iter().map(Target::stanza).collect::<Vec<_>>().join("\n")
    }

    /// Adds a target, or replaces its address and labels. A name keeps its keys.
    ///
    /// # Errors
    /// Another target has its receipt key, or the name is there with other keys.
    pub fn insert(&mut self, target: Target) -> Result<(), Fault> {
        let name = target.name.as_str().to_owned();
        if let Some(known) = self.targets.get(&name) {
            if known.receipt_key != target.receipt_key {
                return Err(of_target(&name, "receipt_key", "differs from the one that is known"));
            }
            if matches!((&known.host, &target.host), (HostTrust::Key(old), HostTrust::Key(new)) if old != new) {
                return Err(of_target(&name, "host_key", "differs from the one that is known"));
            }
        }
        if let Some(other) = self
            .iter()
            .find(|other| other.name != target.name && other.receipt_key == target.receipt_key)
        {
            return Err(of_target(&name, "receipt_key", &format!("is that of {}", other.name)));
        }
        self.targets.insert(name, target);
        Ok(())
    }
}

fn of_target(name: &str, key: &str, what: &str) -> Fault {
    Fault {
        file: None,
        path: format!("target.{}.{key}", toml_key(name)),
        what: what.to_owned(),
    }
}

fn read_target(name: &str, mut table: Table<'_>) -> Option<Target> {
    let parsed: Option<TargetName> = name.parse().ok();
    if parsed.is_none() {
        table.faults().add(
            table.path(),
            "must be called by 1 to 63 of a-z 0-9 . _ -, beginning with a letter or digit",
        );
    }
    let address = table.demand_string("address");
    if let Some(Err(what)) = address.as_deref().map(check_address) {
        table.fault("address", what);
    }
    let before = table.faults().count();
    let host_key = key(&mut table, "host_key");
    let host_ca = key(&mut table, "host_ca");
    let host = match (host_key, host_ca) {
        (Some(key), None) => Some(HostTrust::Key(key)),
        (None, Some(ca)) => Some(HostTrust::Ca(ca)),
        (Some(_), Some(_)) => {
            table.fault(
                "host_key",
                "must not stand beside host_ca: one of them says how the host is known",
            );
            None
        }
        (None, None) => table.demand("host_ca", None, before),
    };
    let before = table.faults().count();
    let receipt_key = key(&mut table, "receipt_key");
    let receipt_key = table.demand("receipt_key", receipt_key, before);
    let labels = labels(&mut table);
    table.finish();
    Some(Target {
        name: parsed?,
        address: address?,
        host: host?,
        receipt_key: receipt_key?,
        labels,
    })
}

fn key(table: &mut Table<'_>, name: &str) -> Option<PublicKey> {
    let found = table.string(name)?;
    match PublicKey::from_openssh(&found) {
        Ok(key) => Some(key),
        Err(error) => {
            table.fault(name, format!("must be \"ssh-ed25519 AAAA...\": failed to {error}"));
            None
        }
    }
}

fn labels(table: &mut Table<'_>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let before = table.faults().count();
    match table.take("labels") {
        None => {}
        Some(toml::Value::Table(entries)) => {
            if entries.len() > MAX_LABELS {
                table.fault("labels", format!("has more than {MAX_LABELS}"));
            }
            for (key, value) in entries {
                match value {
                    toml::Value::String(value) => {
                        check_label(&key, &value).unwrap_or_else(|what| table.fault("labels", what));
                        found.insert(key, value);
                    }
                    _ => table.fault("labels", format!("\"{}\" must be a string", text::quoted(&key))),
                }
            }
        }
        Some(_) => table.fault("labels", "must be a table of strings"),
    }
    if table.faults().count() > before {
        found.clear();
    }
    found
}

fn check_label(key: &str, value: &str) -> Result<(), String> {
    let fits = |text: &str, also: &[u8]| {
        (1..=63).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || also.contains(&b))
    };
    if fits(key, b"._-/") && fits(value, b"._-/:@+") {
        Ok(())
    } else {
        let pair = format!("\"{}\" = \"{}\"", text::quoted(key), text::quoted(value));
        Err(format!(
            "{pair} must have 1 to 63 of A-Z a-z 0-9 . _ - / (and : @ + in the value) each"
        ))
    }
}

fn check_address(address: &str) -> Result<(), String> {
    match split_address(address) {
        Some(_) => Ok(()),
        None => {
            let wanted = "must be HOST:PORT, with a name, an IPv4 address, or an IPv6 address in brackets";
            Err(format!("{wanted}, not \"{}\"", text::quoted(address)))
        }
    }
}

fn split_address(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let port: u16 = Some(port)
        .filter(|port| port.bytes().all(|b| b.is_ascii_digit()))?
        .parse()
        .ok()?;
    if port == 0 {
        return None;
    }
    if let Some(v6) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return v6.parse::<Ipv6Addr>().ok().map(|_| (v6, port));
    }
    let named = !host.is_empty()
        && host.len() <= 253
        && host.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        });
    // All digits and dots: an address, and then a valid one.
    let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if named && (!numeric || address.parse::<SocketAddr>().is_ok()) {
        Some((host, port))
    } else {
        None
    }
}

/// Two targets with one receipt key could answer for each other.
fn check_keys_differ(targets: &BTreeMap<String, Target>, faults: &Faults) {
    let mut seen: BTreeMap<&[u8; 32], &str> = BTreeMap::new();
    for (name, target) in targets {
        if let Some(other) = seen.insert(target.receipt_key.as_bytes(), name) {
            faults.add(
                format!("target.{}.receipt_key", toml_key(name)),
                format!("is that of {other}"),
            );
        }
    }
}

fn toml_key(key: &str) -> String {
    if key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
        key.to_owned()
    } else {
        toml_text(key)
    }
}

fn toml_text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 3] = [
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAh",
    ];

    fn text() -> String {
        format!(
            "[target.web-1]\naddress = \"127.0.0.11:2201\"\nhost_ca = \"{}\"\nreceipt_key = \"{}\"\nlabels = {{ env = \"demo\" }}\n",
            KEYS[0], KEYS[1]
        )
    }

    fn told(text: &str) -> Vec<String> {
        Inventory::parse(text)
            .err()
            .unwrap_or_default()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn what_is_written_is_what_was_read() {
        let inventory = Inventory::parse(&text()).unwrap();
        let target = inventory.find("web-1").unwrap();
        assert_eq!(target.host_and_port(), ("127.0.0.11", 2201));
        assert_eq!(target.host(), &HostTrust::Ca(PublicKey::from_openssh(KEYS[0]).unwrap()));
        assert_eq!(target.receipt_key().to_openssh(), KEYS[1]);
        assert_eq!(target.labels()["env"], "demo");
        assert_eq!(inventory.to_toml(), text());

        let mut more = inventory.clone();
        let labels = BTreeMap::from([("a.b/c".to_owned(), "x:y".to_owned())]);
        let host = HostTrust::Key(PublicKey::from_openssh(KEYS[0]).unwrap());
        let key = PublicKey::from_openssh(KEYS[2]).unwrap();
        more.insert(Target::new("db.eu".parse().unwrap(), "[::1]:22", host, key, labels).unwrap())
            .unwrap();
        assert_eq!(Inventory::parse(&more.to_toml()).unwrap(), more);
        assert_eq!(more.find("db.eu").unwrap().host_and_port(), ("::1", 22));
    }

    /// REQ-INVENTORY-1, REQ-INVENTORY-2, REQ-INVENTORY-3, REQ-INVENTORY-5, REQ-INVENTORY-6
    #[test]
    fn each_fault_is_named() {
        let table = [
            ("[target.web-1]", "[target.Web]", "target.Web: must be called"),
            ("[target.web-1]", "[target.\"a,b\"]", "target.\"a,b\": must be called"),
            ("[target.web-1]", "[targets.web-1]", "targets: is not a known key"),
            ("host_ca", "host_cas", "target.web-1.host_ca: is missing"),
            ("host_ca", "host_cas", "target.web-1.host_cas: is not a known key"),
            (
                "receipt_key",
                "host_key",
                "target.web-1.host_key: must not stand beside host_ca",
            ),
            ("receipt_key", "host_key", "target.web-1.receipt_key: is missing"),
            ("ssh-ed25519", "ssh-rsa", "target.web-1.host_ca: must be \"ssh-ed25519"),
            (
                "127.0.0.11:2201",
                "127.0.0.11",
                "target.web-1.address: must be HOST:PORT",
            ),
            (
                "127.0.0.11:2201",
                "127.0.0.999:1",
                "target.web-1.address: must be HOST:PORT",
            ),
            (
                "127.0.0.11:2201",
                "127.0.0.11:0",
                "target.web-1.address: must be HOST:PORT",
            ),
            (
                "127.0.0.11:2201",
                "127.0.0.11:+1",
                "target.web-1.address: must be HOST:PORT",
            ),
            ("127.0.0.11:2201", "::1:22", "target.web-1.address: must be HOST:PORT"),
            (
                "127.0.0.11:2201",
                "-oProxyCommand=x:22",
                "target.web-1.address: must be HOST:PORT",
            ),
            (
                "127.0.0.11:2201",
                "user@host:22",
                "target.web-1.address: must be HOST:PORT",
            ),
            (
                "env = \"demo\"",
                "env = 5",
                "target.web-1.labels: \"env\" must be a string",
            ),
            (
                "env = \"demo\"",
                "\"\" = \"x\"",
                "target.web-1.labels: \"\" = \"x\" must have",
            ),
            (
                "env = \"demo\"",
                "env = \"a b\"",
                "target.web-1.labels: \"env\" = \"a b\" must have",
            ),
            ("address", "port = 1\naddress", "target.web-1.port: is not a known key"),
        ];
        for (from, to, expected) in table {
            let lines = told(&text().replacen(from, to, 1));
            assert!(
                lines.iter().any(|line| line.starts_with(expected)),
                "{to}: wanted {expected}, told {lines:#?}"
            );
        }
    }

    /// REQ-INVENTORY-4
    #[test]
    fn two_targets_cannot_share_a_receipt_key() {
        let both = text() + &text().replace("web-1", "web-2");
        assert_eq!(told(&both), ["target.web-2.receipt_key: is that of web-1"]);
        let mut inventory = Inventory::parse(&text()).unwrap();
        let known = inventory.find("web-1").unwrap().clone();
        let key = |n: usize| PublicKey::from_openssh(KEYS[n]).unwrap();
        let target = |name: &str, host, receipt| {
            Target::new(name.parse().unwrap(), "h:22", host, receipt, BTreeMap::new()).unwrap()
        };
        assert!(inventory.insert(target("web-2", known.host().clone(), key(1))).is_err());
        assert!(inventory.insert(target("web-1", known.host().clone(), key(2))).is_err());
        assert!(
            inventory.insert(target("web-1", known.host().clone(), key(1))).is_ok(),
            "the address may change"
        );
        assert!(
            inventory
                .insert(target("web-2", HostTrust::Key(key(0)), key(2)))
                .is_ok()
        );
        assert!(
            inventory
                .insert(target("web-2", HostTrust::Key(key(1)), key(2)))
                .is_err()
        );
    }
}
