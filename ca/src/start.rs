//! What a start needs, brought together: every fault at once, or an authority that can work.
//!
//! `check-config` does the same and then exits, so what it says is what a start would say.

use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use audit::Event;
use catalogue::Catalogue;
use grpc::keys::Own;
use nix::unistd::{AccessFlags, access, geteuid, gethostname, getuid};
use tokio::net::UnixListener;
use tokio::task::spawn_blocking;
use tokio::time::MissedTickBehavior;

use crate::authority::{self, Authority, Clock, Parts};
use crate::config::{Config, KnownBy, Targets};
use crate::error::{Error, told};
use crate::history;
use crate::inventory::Shelf;
use crate::issued::{Issued, LOOK_BACK_S};
use crate::policy::{self, Policy, World};
use crate::policy_file::read_trusted;
use crate::port::{Port, PortError};
use crate::record::Records;
use crate::roster::Roster;
use crate::signer::{HOST_CA, Signer, TASK_CA, TLS};
use crate::{service, socket};

/// The largest configuration that is read, in bytes.
const CONFIG_BYTES: u64 = 1 << 20;

/// An authority, and what an operator should hear about it although it is no fault.
pub struct Loaded {
    /// Ready to serve.
    pub authority: Authority,
    /// Lines such as "policy … is empty: everything is denied".
    pub notices: Vec<String>,
}

/// Refuses root: what a CA can do must not include everything else on the machine.
///
/// # Errors
/// What to do instead.
pub fn refuse_root(real: u32, effective: u32) -> Result<(), String> {
    if real == 0 || effective == 0 {
        return Err(
            "failed to start: refusing to run as root: run it as the account of the CA, for example `runuser -u writ-ca -- writ-ca …`"
                .to_owned(),
        );
    }
    Ok(())
}

/// [`refuse_root`] for this process.
///
/// # Errors
/// What to do instead.
pub fn refuse_own_root() -> Result<(), String> {
    refuse_root(getuid().as_raw(), geteuid().as_raw())
}

/// Reads the configuration.
///
/// # Errors
/// Every fault, each naming the file.
pub fn read_config(path: &Path) -> Result<Config, Vec<String>> {
    let text = read_trusted(path, CONFIG_BYTES).map_err(|what| vec![what])?;
    let text = String::from_utf8(text)
        .map_err(|_| vec![format!("failed to read {}: not UTF-8; write it anew", path.display())])?;
    Config::parse(&text).map_err(|faults| each("accept the configuration", path, &faults))
}

/// Loads everything that serving needs.
///
/// # Errors
/// Every fault.
pub fn load(config: Config, clock: Clock) -> Result<Loaded, Vec<String>> {
    let own_uid = geteuid().as_raw();
    let mut faults = Vec::new();
    let mut notices = Vec::new();

    check_dir("state_dir", &config.state_dir, own_uid, "0700", &mut faults);
    check_dir("log_dir", &config.log_dir, own_uid, "2750", &mut faults);
    check_socket_dir(&config.socket, &mut faults);
    for relay in config
        .relays
        .iter()
        .filter(|relay| relay.known_by == KnownBy::Uid(own_uid))
    {
        notices.push(format!(
            "{} has the CA's own uid: the boundary between them is missing",
            relay.name
        ));
    }
    let task_ca = keep(Signer::load(&config.key_dir, TASK_CA, own_uid), &mut faults);
    let host_ca = keep(Signer::load(&config.key_dir, HOST_CA, own_uid), &mut faults);
    if let (Some(task_ca), Some(host_ca)) = (&task_ca, &host_ca)
        && task_ca.public() == host_ca.public()
    {
        let dir = config.key_dir.display();
        let next = "move host_ca away, run writ-ca init, and enrol each target again";
        faults.push(format!(
            "failed to use key_dir {dir}: task_ca and host_ca are one key, and a host could log in; {next}"
        ));
    }
    let (unknown, nobody) = Roster::new(&config.relays).look();
    faults.extend(unknown);
    notices.extend(nobody);
    if config.tls_listen.is_some() {
        match Own::at(&config.key_dir.join(TLS)).current() {
            Ok(tls)
                if [&task_ca, &host_ca]
                    .iter()
                    .any(|ca| ca.as_ref().is_some_and(|ca| ca.public() == tls.public())) =>
            {
                let dir = config.key_dir.display();
                let next = "move tls away, run writ-ca init, and give relays the new tls.pub";
                faults.push(format!(
                    "failed to use key_dir {dir}: tls is a key that signs certificates; {next}"
                ));
            }
            Ok(_) => {}
            Err(fault) => faults.push(format!("{fault}; writ-ca init makes it")),
        }
    }
    let catalogue = keep(load_catalogue(&config.catalogue_dir), &mut faults);
    let mut shelf = Shelf::new(&config.inventory);
    let inventory = shelf.current();
    let policy = match read_trusted(&config.policy, policy::MAX_BYTES as u64) {
        Ok(bytes) => {
            let world = catalogue.as_ref().zip(inventory.as_ref().ok());
            let world = world.map(|(catalogue, inventory)| World::new(&config, catalogue, inventory));
            let loaded = load_policy(&config.policy, &bytes, world.as_ref());
            if let (Ok(Some(policy)), Some(world)) = (&loaded, &world) {
                let findings = policy.findings(world);
                notices.extend(
                    findings
                        .iter()
                        .map(|finding| format!("{}: {finding}", config.policy.display())),
                );
            }
            keep(loaded, &mut faults).flatten()
        }
        Err(what) => {
            faults.push(what);
            None
        }
    };
    match inventory {
        Ok(inventory) => {
            if !shelf.exists() {
                notices.push(format!(
                    "{}: there is none, so no target is known",
                    config.inventory.display()
                ));
            }
            for relay in &config.relays {
                let Targets::Only(names) = &relay.targets else { continue };
                for name in names.iter().filter(|name| inventory.find(name.as_str()).is_none()) {
                    notices.push(format!("target {name} of {} is not in the inventory", relay.name));
                }
            }
        }
        Err(error) => faults.push(told(&error)),
    }
    if policy.as_ref().is_some_and(|policy| policy.count() == 0) {
        notices.push(format!(
            "{}: there is no policy in it, so EVERYTHING IS DENIED",
            config.policy.display()
        ));
    }
    if catalogue
        .as_ref()
        .is_some_and(|all| authority::reads(all).next().is_none())
    {
        notices.push(format!(
            "{}: no read action in it, so no task can be opened",
            config.catalogue_dir.display()
        ));
    }
    // Last, and only where nothing else is wrong with its folders: opening an empty log begins it.
    let log = if faults.is_empty() {
        keep(open_log(&config, clock()), &mut faults)
    } else {
        None
    };

    match (task_ca, host_ca, policy, catalogue, log) {
        (Some(signer), Some(host_ca), Some(policy), Some(catalogue), Some((records, issued))) if faults.is_empty() => {
            let host_ca = host_ca.public().clone();
            let parts = Parts {
                config,
                policy,
                catalogue,
                signer,
                host_ca,
                records,
                shelf,
                issued,
                clock,
            };
            Ok(Loaded {
                authority: Authority::new(parts),
                notices,
            })
        }
        _ => Err(faults),
    }
}

/// Why serving ended, or did not begin.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket could not be opened.
    #[error("listen at {} (socket)", .0.display())]
    Listen(PathBuf, #[source] io::Error),
    /// The port could not be opened.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The record of a start or a stop could not be written.
    #[error("record in {} (log_dir) that the CA {}", .0.display(), .1)]
    Record(PathBuf, &'static str, #[source] Error),
    /// Connections are no longer taken.
    #[error("go on serving at {}", .0.display())]
    Serve(PathBuf, #[source] io::Error),
}

/// Serves on the configured socket, and port, until `stop` is done. Start and stop are recorded.
///
/// # Errors
/// When the socket, the port or the log fails.
pub async fn serve(authority: Authority, config: &Config, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
    let authority = Arc::new(authority);
    let (path, log) = (&config.socket, &config.log_dir);
    let listener = socket::listen(path)
        .and_then(UnixListener::from_std)
        .map_err(|cause| ServeError::Listen(path.clone(), cause))?;
    let port = match config.tls_listen {
        Some(address) => Some(Port::open(address, &config.key_dir, &authority).await?),
        None => None,
    };
    authority
        .record_own(Event::Start)
        .map_err(|cause| ServeError::Record(log.clone(), "starts", cause))?;
    let watching = tokio::spawn(watch_policy(Arc::clone(&authority)));
    let served = service::serve(Arc::clone(&authority), listener, port, stop).await;
    watching.abort();
    // A name that nobody answers to; the next start would replace it.
    let _ = fs::remove_file(path);
    authority.count_last();
    let recorded = authority.record_own(Event::Stop);
    served.map_err(|cause| ServeError::Serve(path.clone(), cause))?;
    recorded.map_err(|cause| ServeError::Record(log.clone(), "stops", cause))
}

/// Looks at the policy file once a second.
async fn watch_policy(authority: Arc<Authority>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        second.tick().await;
        let authority = Arc::clone(&authority);
        let _ = spawn_blocking(move || authority.refresh_policy()).await;
    }
}

/// The machine's clock, Unix seconds.
#[must_use]
pub fn clock() -> Clock {
    Box::new(|| {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |time| time.as_secs())
    })
}

/// Opens the CA's log as this host.
///
/// # Errors
/// The fault.
pub fn open_records(config: &Config) -> Result<Records, Vec<String>> {
    let host = gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "unknown".to_owned());
    Records::open(&config.log_dir, &config.log_lock(), &config.state_dir, host).map_err(|error| {
        let (dir, next) = (
            config.log_dir.display(),
            "it must be the CA's own, mode 2750, with space left",
        );
        vec![format!("{} in {dir} (log_dir); {next}", told(&error))]
    })
}

fn open_log(config: &Config, now: u64) -> Result<(Records, Issued), Vec<String>> {
    let records = open_records(config)?;
    let mut issued = Issued::default();
    let entries = history::issued_since(&records, now.saturating_sub(LOOK_BACK_S));
    for entry in entries.map_err(|error| vec![told(&error)])? {
        issued.note(entry);
    }
    issued.sweep(now);
    Ok((records, issued))
}

/// The policies of a file. Where the world is not known, only whether they can be read at all is.
fn load_policy(path: &Path, bytes: &[u8], world: Option<&World<'_>>) -> Result<Option<Policy>, Vec<String>> {
    let refused = |faults: Vec<policy::Fault>| each("accept the policy", path, &faults);
    let Some(world) = world else {
        let faults = Policy::unreadable(bytes);
        return if faults.is_empty() {
            Ok(None)
        } else {
            Err(refused(faults))
        };
    };
    Policy::load(bytes, world).map(Some).map_err(refused)
}

pub(crate) fn load_catalogue(dir: &Path) -> Result<Catalogue, Vec<String>> {
    Catalogue::load(dir).map_err(|faults| each("accept the catalogue", dir, &faults))
}

/// One line for each fault of a file.
pub(crate) fn each<T: ToString>(what: &str, path: &Path, faults: &[T]) -> Vec<String> {
    let line = |fault: &T| format!("failed to {what} {}: {}", path.display(), fault.to_string());
    faults.iter().map(line).collect()
}

/// The folder behind a key is ours, and nobody else may do in it what `mode` does not let them.
fn check_dir(key: &str, dir: &Path, own_uid: u32, mode: &str, faults: &mut Vec<String>) {
    let at = |what: String| format!("failed to use {key} {}: {what}", dir.display());
    let make = format!("make it: install -d -o writ-ca -m {mode} {}", dir.display());
    let meta = match fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => meta,
        Ok(_) => return faults.push(at("it is not a folder; name one".to_owned())),
        Err(e) => return faults.push(at(format!("{e}; {make}"))),
    };
    if meta.uid() != own_uid {
        let uid = meta.uid();
        faults.push(at(format!("it is owned by uid {uid}, not by {own_uid}; chown it")));
    }
    // The set-group-id bit gives new files the folder's group; whether it is there is the administrator's to decide.
    let allowed = u32::from_str_radix(mode, 8).unwrap_or(0o700) & 0o777;
    let found = meta.mode() & 0o7777;
    if found & 0o777 & !allowed != 0 {
        faults.push(at(format!("mode {found:04o}; chmod {mode} it")));
    }
}

fn check_socket_dir(socket: &Path, faults: &mut Vec<String>) {
    let dir = socket.parent().unwrap_or(Path::new("/"));
    let at = |what: &str| format!("failed to use the folder of socket, {}: {what}", dir.display());
    match fs::metadata(dir) {
        Ok(meta) if meta.mode() & 0o002 != 0 => {
            faults.push(at(
                "everybody may write there, and could put another socket in its place; chmod o-w it",
            ));
        }
        Ok(_) => {
            if let Err(errno) = access(dir, AccessFlags::W_OK | AccessFlags::X_OK) {
                faults.push(at(&format!("{}; chown it to the CA's account", errno.desc())));
            }
        }
        Err(e) => faults.push(at(&format!("{e}; make it, with tmpfiles.d as in deploy/ca/README.md"))),
    }
}

fn keep<T>(result: Result<T, Vec<String>>, faults: &mut Vec<String>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(mut more) => {
            for fault in more.drain(..) {
                // Two keys in one bad folder say the same of it.
                if !faults.contains(&fault) {
                    faults.push(fault);
                }
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_refused_by_either_uid_and_told_what_to_do() {
        assert!(refuse_root(1000, 1000).is_ok());
        for (real, effective) in [(0, 0), (0, 1000), (1000, 0)] {
            assert!(refuse_root(real, effective).unwrap_err().contains("runuser"));
        }
    }
}
