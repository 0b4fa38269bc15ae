//! A relay between a fake CA and a fake target, with folders of its own.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use catalogue::{Catalogue, HostTrust, Inventory};
use openssh::key::SigningKey;
use relay::gate::{Clock, Gate};
use relay::issuer::Issuer;
use relay::limits::Limits;
use relay::mcp::{self, Tools};
use relay::people::People;
use relay::pipeline::{Relay, Turns};
use relay::records::Records;
use relay::rules::Rules;
use relay::seats::Seats;
use relay::store::{Sqlite, Store};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::client::Client;
use crate::target::{self, Manner, Seen, Shows};

pub(crate) const ALICE: u32 = 1001;
pub(crate) const BOB: u32 = 1002;
pub(crate) const NOBODY: u32 = 1003;

pub(crate) struct World {
    folder: tempfile::TempDir,
    pub(crate) relay: Arc<Relay>,
    pub(crate) ca: Arc<crate::ca::Facts>,
    pub(crate) seen: Arc<Seen>,
    tools: Arc<Tools>,
}

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&Zeroizing::new([seed; 32])).unwrap()
}

/// The arguments of a `tail_log` that opens a task where there is none.
pub(crate) fn tail() -> Value {
    serde_json::json!({ "target": "web-1", "path": "/var/log/x.log", "reason": "why" })
}

/// Asks until it is so.
pub(crate) async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !so().await {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How the inventory recognises the target's host.
#[derive(Clone, Copy)]
pub(crate) enum Pinned {
    /// By the host CA of this seed.
    Ca(u8),
    /// By its key.
    Right,
    /// By another key.
    Wrong,
}

/// The CA of hosts, as a seed.
pub(crate) const HOST_CA: u8 = 20;
/// A host certificate as it should be.
pub(crate) const GOOD: Shows = Shows::Certificate(HOST_CA, "web-1", 3600);

/// A change, and one that people have to approve.
const CHANGES: [(&str, &str); 2] = [("restart", ""), ("drain", "approvals = 1\napproval_window_s = 600\n")];

/// The manifests of [`CHANGES`].
pub(crate) fn changes() -> [(&'static str, String); 2] {
    CHANGES.map(|(name, more)| {
        let manifest = format!(
            "name = \"{name}\"\ntitle = \"Restart\"\ndescription = \"Restarts a service.\"\nrisk = \"change\"\n\
             timeout_ms = 1000\n{more}[args]\nproperties.unit = {{ type = \"string\", maxLength = 64, default = \"shop\" }}\n\
             [exec]\nprogram = \"/bin/true\"\nargv = [\"{{unit}}\"]\n[sandbox]\nprofile = \"tool\"\n"
        );
        (name, manifest)
    })
}

/// A change that can be tried out, one whose trial is a change, and one with arguments of every kind.
const TRIALS: [(&str, &str); 3] = [
    (
        "restart_service",
        "risk = \"change\"\n[args]\n\
         properties.unit = { enum = [\"shop\", \"shop-db\", \"cron\"], type = \"string\", default = \"shop\" }\n\
         [exec]\nprogram = \"/bin/true\"\nargv = [\"{unit}\"]\n[dry_run]\nargv = [\"check\", \"{unit}\"]\nrisk = \"read\"\n",
    ),
    (
        "wipe_cache",
        "risk = \"destroy\"\napprovals = 1\napproval_window_s = 600\n[exec]\nprogram = \"/bin/true\"\nargv = []\n\
         [dry_run]\nargv = [\"stage\"]\nrisk = \"change\"\n",
    ),
    (
        "label_host",
        "risk = \"change\"\n[args]\n\
         properties.label = { type = \"string\", maxLength = 64, default = \"none\" }\n\
         properties.owner = { type = \"string\", maxLength = 64 }\n\
         properties.place = { type = \"string\", maxLength = 64, default = \"/srv/shop\" }\n\
         properties.number = { type = \"integer\", minimum = 0, maximum = 9, default = 1 }\n\
         properties.force = { type = \"boolean\", default = false }\n\
         properties.units = { type = \"array\", maxItems = 4, default = [\"cron\"], items = { type = \"string\", maxLength = 32 } }\n\
         [exec]\nprogram = \"/bin/true\"\nargv = [\"{label}\"]\n",
    ),
];

/// The manifests of [`TRIALS`].
fn trials() -> [(&'static str, String); 3] {
    TRIALS.map(|(name, rest)| {
        let manifest = format!(
            "name = \"{name}\"\ntitle = \"Try {name}\"\ndescription = \"Does what its name says.\"\ntimeout_ms = 1000\n\
             {rest}[sandbox]\nprofile = \"tool\"\n"
        );
        (name, manifest)
    })
}

/// The shipped actions, [`CHANGES`] and [`TRIALS`].
pub(crate) fn catalogue() -> Catalogue {
    let folder = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/catalogue/actions.d");
    for entry in std::fs::read_dir(shipped).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    for (name, manifest) in changes().into_iter().chain(trials()) {
        std::fs::write(folder.path().join(format!("{name}.toml")), manifest).unwrap();
    }
    let (catalogue, faults) = Catalogue::lint(folder.path(), &[0, nix::unistd::geteuid().as_raw()]);
    assert!(faults.is_empty(), "{faults:?}");
    catalogue
}

/// The SHA-256 of a shipped manifest, which is also the relay's own copy.
pub(crate) fn manifest(action: &str) -> wire::ids::Digest {
    catalogue().find(&action.parse().unwrap()).unwrap().digest().clone()
}

impl World {
    pub(crate) async fn new(manner: Manner) -> Self {
        Self::with(manner, GOOD, Pinned::Ca(HOST_CA)).await
    }

    /// A world whose target is what listens at an address, whatever that is.
    pub(crate) async fn at(address: &str) -> Self {
        let mut target = target::serve(key(30), Manner::Mute, GOOD).await;
        address.clone_into(&mut target.address);
        Self::around(target, Pinned::Ca(HOST_CA))
    }

    pub(crate) async fn with(manner: Manner, shows: Shows, pinned: Pinned) -> Self {
        Self::around(target::serve(key(30), manner, shows).await, pinned)
    }

    /// A world with its own bounds on connections.
    pub(crate) async fn with_seats(manner: Manner, seats: Seats) -> Self {
        let mut world = Self::new(manner).await;
        Arc::get_mut(&mut world.relay).unwrap().seats = seats;
        world
    }

    fn around(target: target::Target, pinned: Pinned) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        std::fs::create_dir(&state).unwrap();
        std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::create_dir(folder.path().join("log")).unwrap();
        let ca = crate::ca::Facts::generous();
        let socket = folder.path().join("ca.sock");
        crate::ca::serve(&socket, Arc::clone(&ca));
        let trust = match pinned {
            Pinned::Ca(seed) => HostTrust::Ca(key(seed).public().clone()),
            Pinned::Right => HostTrust::Key(target.host_key.public().clone()),
            Pinned::Wrong => HostTrust::Key(key(41).public().clone()),
        };
        let mut inventory = Inventory::default();
        for (name, receipt) in [("web-1", 30), ("denied-1", 31), ("web-2", 32)] {
            let name = name.parse().unwrap();
            let zone = if receipt == 32 { "b" } else { "a" };
            let labels = [("env", "test"), ("zone", zone)].map(|(key, value)| (key.to_owned(), value.to_owned()));
            inventory
                .insert(
                    catalogue::Target::new(
                        name,
                        &target.address,
                        trust.clone(),
                        key(receipt).public().clone(),
                        labels.into(),
                    )
                    .unwrap(),
                )
                .unwrap();
        }
        let name: wire::ids::RelayName = "relay-1".parse().unwrap();
        let catalogue = catalogue();
        let tools = Arc::new(Tools::new(&catalogue));
        let relay = Arc::new(Relay {
            config: wire::ids::Digest::of(b"config"),
            people: People::new([(ALICE, "alice".parse().unwrap()), (BOB, "bob".parse().unwrap())]),
            inventory,
            catalogue,
            rules: Rules::default(),
            store: Box::new(Sqlite::open(&state.join("store.sqlite")).unwrap()),
            issuer: Issuer::new(&socket),
            records: Records::open(&folder.path().join("log"), &state.join("log.lock"), &name).unwrap(),
            seats: Seats::default(),
            gate: Gate::default(),
            turns: Turns::default(),
            approving: tokio::sync::Mutex::default(),
            now: relay::serve::now,
            name,
        });
        Self {
            folder,
            relay,
            ca,
            seen: target.seen,
            tools,
        }
    }

    /// The same relay, started anew on the same folders: its clients are gone, and so is all that was in memory only.
    pub(crate) async fn restart(self) -> Self {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while Arc::strong_count(&self.relay) > 1 {
            assert!(std::time::Instant::now() < until, "a client is still there");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let Relay {
            store,
            records,
            config,
            people,
            inventory,
            catalogue,
            rules,
            issuer,
            name,
            ..
        } = Arc::into_inner(self.relay).unwrap();
        drop((store, records));
        let state = self.folder.path().join("state");
        let relay = Arc::new(Relay {
            store: Box::new(Sqlite::open(&state.join("store.sqlite")).unwrap()),
            records: Records::open(&self.folder.path().join("log"), &state.join("log.lock"), &name).unwrap(),
            seats: Seats::default(),
            gate: Gate::default(),
            turns: Turns::default(),
            approving: tokio::sync::Mutex::default(),
            now: relay::serve::now,
            config,
            people,
            inventory,
            catalogue,
            rules,
            issuer,
            name,
        });
        relay.take_up().await.unwrap();
        Self { relay, ..self }
    }

    /// Another store around the one that there is, before there is a client.
    pub(crate) fn wrap_store(&mut self, wrap: impl FnOnce(Box<dyn Store>) -> Box<dyn Store>) {
        let nowhere = Sqlite::open(&self.folder.path().join("state/nowhere.sqlite")).unwrap();
        let relay = Arc::get_mut(&mut self.relay).unwrap();
        let store = std::mem::replace(&mut relay.store, Box::new(nowhere));
        relay.store = wrap(store);
    }

    /// What hides the log, until it is dropped: nothing can be written to it.
    pub(crate) fn hide_log(&self) -> impl Drop + Send + use<> {
        struct Hidden {
            log: PathBuf,
            hidden: PathBuf,
            segment: PathBuf,
            kept: Vec<u8>,
        }
        impl Drop for Hidden {
            fn drop(&mut self) {
                std::fs::write(&self.segment, &self.kept).unwrap();
                std::fs::rename(&self.hidden, &self.log).unwrap();
            }
        }
        let log = self.folder.path().join("log");
        let hidden = log.with_file_name("hidden");
        std::fs::rename(&log, &hidden).unwrap();
        let segment = std::fs::read_dir(&hidden).unwrap().next().unwrap().unwrap().path();
        let kept = std::fs::read(&segment).unwrap();
        std::fs::write(&segment, &kept[..kept.len() / 2]).unwrap();
        Hidden {
            log,
            hidden,
            segment,
            kept,
        }
    }

    /// Other limits, before there is a client.
    pub(crate) fn limit(&mut self, limits: Limits, clock: Clock) {
        Arc::get_mut(&mut self.relay).unwrap().gate = Gate::new(limits, clock);
    }

    /// Rules as `relay.toml` has them, before there is a client.
    pub(crate) fn rule(&mut self, rules: &str) {
        let relay = Arc::get_mut(&mut self.relay).unwrap();
        relay.rules = crate::rules::rules(rules, &relay.inventory, &relay.catalogue).unwrap();
    }

    /// Another clock, before there is a client.
    pub(crate) fn clock(&mut self, now: fn() -> u64) {
        Arc::get_mut(&mut self.relay).unwrap().now = now;
    }

    /// A client of this uid, not yet initialised.
    pub(crate) fn raw(&self, uid: u32) -> Client {
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(mcp::serve(Arc::clone(&self.relay), Arc::clone(&self.tools), far, uid));
        Client::over(near)
    }

    /// A client of this uid.
    pub(crate) async fn client(&self, uid: u32) -> Client {
        let mut client = self.raw(uid);
        client.initialize("test").await;
        client
    }

    /// The relay's records.
    pub(crate) fn records(&self) -> Vec<Value> {
        let mut files: Vec<_> = std::fs::read_dir(self.folder.path().join("log"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
            .iter()
            .flat_map(|file| {
                std::fs::read_to_string(file)
                    .unwrap()
                    .lines()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .map(|line| serde_json::from_str(&line).unwrap())
            .collect()
    }

    /// The events of the relay's log, in order, without its genesis.
    pub(crate) fn events(&self) -> Vec<String> {
        self.records()
            .iter()
            .map(|record| record["event"].as_str().unwrap().to_owned())
            .skip(1)
            .collect()
    }

    pub(crate) fn log_folder(&self) -> std::path::PathBuf {
        self.folder.path().join("log")
    }
}
