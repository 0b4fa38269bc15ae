//! Who calls: the account or the key at the other end of a connection, and the relay that is known by it.
//!
//! Asked for each call and not once for a connection: files of keys are read again when they change, so a key that is taken
//! out is refused with its next call, also on a connection that is open.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use grpc::keys::{Fault, Peer};
use openssh::key::PublicKey;
use tracing::error;

use crate::config::{KnownBy, Relay};

/// Who is at the other end, as far as that is proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A process of this machine: the kernel names its uid.
    Uid(u32),
    /// Whoever holds this key: TLS has checked a signature of it.
    Key(PublicKey),
}

impl fmt::Display for Caller {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid(uid) => write!(out, "uid {uid}"),
            Self::Key(key) => write!(out, "key {}", key.fingerprint()),
        }
    }
}

/// The relays of a configuration.
pub struct Roster {
    entries: Vec<Entry>,
}

struct Entry {
    relay: Arc<Relay>,
    known: Known,
}

enum Known {
    Uid(u32),
    Keys(Keys),
}

/// A file of keys, and what was last said of it: a fault is told once and not with each call.
struct Keys {
    file: Peer,
    told: Mutex<Option<Fault>>,
}

impl Roster {
    /// Those of a configuration. Nothing is read yet.
    #[must_use]
    pub fn new(relays: &[Relay]) -> Self {
        let entries = relays.iter().map(|relay| Entry {
            relay: Arc::new(relay.clone()),
            known: match &relay.known_by {
                KnownBy::Uid(uid) => Known::Uid(*uid),
                KnownBy::Keys(path) => Known::Keys(Keys {
                    file: Peer::at(path),
                    told: Mutex::default(),
                }),
            },
        });
        Self {
            entries: entries.collect(),
        }
    }

    /// The relay that is known by it now. Nobody is where two are.
    #[must_use]
    pub fn find(&self, caller: &Caller) -> Option<Arc<Relay>> {
        let mut found = self.entries.iter().filter(|entry| entry.known.by(caller));
        match (found.next(), found.next()) {
            (Some(entry), None) => Some(Arc::clone(&entry.relay)),
            _ => None,
        }
    }

    /// What keeps relays from being known by their keys, as a start would find it, and which of them have none now.
    #[must_use]
    pub fn look(&self) -> (Vec<String>, Vec<String>) {
        let (mut faults, mut notices) = (Vec::new(), Vec::new());
        let mut all: Vec<(PublicKey, &Entry)> = Vec::new();
        for entry in &self.entries {
            let Known::Keys(keys) = &entry.known else { continue };
            let (name, path) = (&entry.relay.name, keys.file.path().display());
            match keys.file.current() {
                Err(fault) => faults.push(fault.to_string()),
                Ok(found) if found.is_empty() => {
                    notices.push(format!("{path}: there is no key in it, so {name} is refused"));
                }
                Ok(found) => {
                    for key in found.iter() {
                        let other = all
                            .iter()
                            .find(|(other, entry)| other == key && &entry.relay.name != name);
                        if let Some((_, other)) = other {
                            faults.push(format!(
                                "failed to use {path}: {name} and {} have one key, and neither would be known by it",
                                other.relay.name
                            ));
                        }
                        all.push((key.clone(), entry));
                    }
                }
            }
        }
        (faults, notices)
    }
}

impl Known {
    fn by(&self, caller: &Caller) -> bool {
        match (self, caller) {
            (Self::Uid(uid), Caller::Uid(of)) => uid == of,
            (Self::Keys(keys), Caller::Key(key)) => keys.have(key),
            (Self::Uid(_), Caller::Key(_)) | (Self::Keys(_), Caller::Uid(_)) => false,
        }
    }
}

impl Keys {
    /// A file that cannot be read has no key in it: yesterday's are not today's.
    fn have(&self, key: &PublicKey) -> bool {
        let (found, fault) = match self.file.current() {
            Ok(keys) => (keys.contains(key), None),
            Err(fault) => (false, Some(fault)),
        };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != fault {
            if let Some(fault) = &fault {
                error!(%fault, "a relay is refused until its keys can be read");
            }
            *told = fault;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Targets;
    use openssh::key::SigningKey;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn key(seed: u8) -> PublicKey {
        SigningKey::from_seed(&zeroize::Zeroizing::new([seed; 32]))
            .unwrap()
            .public()
            .clone()
    }

    fn write(path: &Path, seeds: &[u8]) {
        let lines: String = seeds.iter().map(|seed| key(*seed).to_openssh() + "\n").collect();
        fs::write(path, lines).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }

    fn relay(name: &str, known_by: KnownBy) -> Relay {
        Relay {
            name: name.parse().unwrap(),
            known_by,
            persons: ["alice".parse().unwrap()].into(),
            targets: Targets::All,
            source_addresses: vec!["::1".parse().unwrap()],
            calls_per_minute: 1,
            person_calls_per_minute: 1,
            refusals_per_minute: 1,
        }
    }

    fn found(roster: &Roster, caller: Caller) -> Option<String> {
        roster.find(&caller).map(|relay| relay.name.to_string())
    }

    /// REQ-CARPC-1, REQ-CARPC-23
    #[test]
    fn a_relay_is_known_by_its_uid_or_by_its_keys_as_they_are_now() {
        let dir = tempfile::tempdir().unwrap();
        let (far, farther) = (dir.path().join("far.pub"), dir.path().join("farther.pub"));
        write(&far, &[1, 2]);
        write(&farther, &[3]);
        let roster = Roster::new(&[
            relay("near", KnownBy::Uid(7)),
            relay("far", KnownBy::Keys(far.clone())),
            relay("farther", KnownBy::Keys(farther.clone())),
        ]);
        assert_eq!(roster.look(), (vec![], vec![]));
        let by_key = |seed| found(&roster, Caller::Key(key(seed)));
        assert_eq!(found(&roster, Caller::Uid(7)).as_deref(), Some("near"));
        assert_eq!(found(&roster, Caller::Uid(8)), None);
        assert_eq!([by_key(1), by_key(2)].map(Option::unwrap), ["far", "far"]);
        assert_eq!(by_key(3).as_deref(), Some("farther"));
        assert_eq!(by_key(4), None);

        write(&far, &[2]);
        assert_eq!((by_key(1), by_key(2).as_deref()), (None, Some("far")));
        // One key for two: nobody can say whose call it is.
        write(&far, &[2, 3]);
        assert_eq!((by_key(2).as_deref(), by_key(3)), (Some("far"), None));
        assert!(roster.look().0[0].contains("far have one key"), "{:?}", roster.look());
        for broken in ["rm -rf /", &format!("{}\nwhat", key(2).to_openssh())] {
            fs::write(&far, broken).unwrap();
            assert_eq!(by_key(2), None, "{broken}");
            assert_eq!(roster.look().0.len(), 1);
        }
        write(&far, &[]);
        assert_eq!(by_key(2), None);
        assert!(roster.look().1[0].ends_with("so far is refused"));
        fs::remove_file(&far).unwrap();
        assert_eq!(by_key(2), None);
        write(&far, &[2]);
        assert_eq!(by_key(2).as_deref(), Some("far"));
        fs::set_permissions(&far, fs::Permissions::from_mode(0o664)).unwrap();
        assert_eq!(by_key(2), None);
    }
}
