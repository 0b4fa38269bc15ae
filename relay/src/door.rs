//! The relay's door: a unix socket, and the kernel's word for who came in.
//!
//! Clients and keys never share a uid: whoever may open the socket (mode 0660, group of the folder) is named by the
//! uid that the kernel reports (SO_PEERCRED, unix(7)), never by what they say. Connections are counted and capped, in all
//! and for each uid, so that no account can keep the others out.
//! The socket appears under its name with its final mode, or not at all. The CA opens its own in the same way: two short
//! files, since no crate that both use has anything to do with sockets.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::num::NonZeroU32;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::lock::lock;

/// Whom a door is open to, beside root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenTo {
    /// The relay's own account.
    Owner,
    /// That, and the folder's group: its set-group-id bit gives the socket the same.
    Group,
}

impl OpenTo {
    fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Group => 0o660,
        }
    }
}

/// Connections held at once. The next one is told so.
pub const MAX_CONNECTIONS: usize = 64;

/// Why the door could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something that is not a socket is in the way: it is left alone.
    #[error("listen at {0}: another file is there")]
    Occupied(PathBuf),
    /// Another process listens there.
    #[error("listen at {0}: a relay is already running")]
    Busy(PathBuf),
    /// The kernel's refusal.
    #[error("listen at {path}")]
    Machine {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// An open door.
#[derive(Debug)]
pub struct Door {
    listener: UnixListener,
    path: PathBuf,
    places: Arc<Semaphore>,
    of_one: u32,
    counts: Counts,
}

/// How many connections each uid has.
type Counts = Arc<Mutex<BTreeMap<u32, u32>>>;

/// Somebody who came in. The place is given back when this is dropped.
#[derive(Debug)]
pub struct Visitor {
    /// Both directions of the connection.
    pub stream: UnixStream,
    /// The uid of the process that connected, from the kernel.
    pub uid: u32,
    /// One of [`MAX_CONNECTIONS`]; `None` when all are taken, or all that this uid may have.
    pub place: Option<Place>,
}

/// A connection's place. Given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    _one_of_all: OwnedSemaphorePermit,
    uid: u32,
    counts: Counts,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        if let Some(count) = counts.get_mut(&self.uid) {
            *count = count.saturating_sub(1);
        }
        counts.retain(|_, count| *count > 0);
    }
}

impl Door {
    /// Binds the socket with mode 0660, or 0600 for its owner alone, for at most `of_one` connections of each uid. A socket left behind by a relay that is
    /// gone is replaced.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn open(path: &Path, to: OpenTo, of_one: NonZeroU32) -> Result<Self, Error> {
        clear(path).await?;
        let listener = bind(path, to.mode()).map_err(|source| Error::Machine {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            of_one: of_one.get(),
            counts: Counts::default(),
        })
    }

    /// The next visitor.
    ///
    /// # Errors
    /// The kernel's, of this one connection: the door stays open.
    pub async fn next(&self) -> io::Result<Visitor> {
        let (stream, _) = self.listener.accept().await?;
        let uid = stream.peer_cred()?.uid();
        let place = self.place(uid);
        Ok(Visitor { stream, uid, place })
    }

    fn place(&self, uid: u32) -> Option<Place> {
        let mut counts = lock(&self.counts);
        let taken = counts.get(&uid).copied().unwrap_or_default();
        if taken >= self.of_one {
            return None;
        }
        let one_of_all = Arc::clone(&self.places).try_acquire_owned().ok()?;
        counts.insert(uid, taken.saturating_add(1));
        Some(Place {
            _one_of_all: one_of_all,
            uid,
            counts: Arc::clone(&self.counts),
        })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // Best effort: a socket that stays is replaced at the next start.
        let _ = fs::remove_file(&self.path);
    }
}

/// Binds beside the name and moves the socket there when it is as it must be. The process's umask is left alone: other
/// threads make files meanwhile.
fn bind(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    match fs::remove_file(beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(beside)?;
    fs::set_permissions(beside, Permissions::from_mode(mode))?;
    fs::rename(beside, path)?;
    Ok(listener)
}

async fn clear(path: &Path) -> Result<(), Error> {
    let machine = |source| Error::Machine {
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(machine(error)),
        Ok(found) if !found.file_type().is_socket() => Err(Error::Occupied(path.to_owned())),
        Ok(_) => match UnixStream::connect(path).await {
            Ok(_) => Err(Error::Busy(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(machine),
            Err(error) => Err(machine(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: NonZeroU32 = NonZeroU32::MAX;

    #[tokio::test]
    async fn visitors_are_named_by_the_kernel_and_the_socket_has_mode_0660() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.sock");
        let door = Door::open(&path, OpenTo::Group, MANY).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
        let own = folder.path().join("approvals.sock");
        let _own = Door::open(&own, OpenTo::Owner, MANY).await.unwrap();
        assert_eq!(fs::metadata(&own).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_file(&own).unwrap();
        let _client = UnixStream::connect(&path).await.unwrap();
        let visitor = door.next().await.unwrap();
        assert_eq!(visitor.uid, nix::unistd::getuid().as_raw());
        drop(door);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_or_another_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let door = Door::open(&path, OpenTo::Group, MANY).await.unwrap();
        assert!(matches!(
            Door::open(&path, OpenTo::Group, MANY).await,
            Err(Error::Busy(_))
        ));
        drop(door);
        fs::write(&path, "precious").unwrap();
        assert!(matches!(
            Door::open(&path, OpenTo::Group, MANY).await,
            Err(Error::Occupied(_))
        ));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn connections_beyond_the_cap_have_no_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.sock");
        let door = Door::open(&path, OpenTo::Group, MANY).await.unwrap();
        let mut held = Vec::new();
        let mut clients = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            clients.push(UnixStream::connect(&path).await.unwrap());
            held.push(door.next().await.unwrap());
        }
        assert!(held.iter().all(|visitor| visitor.place.is_some()));
        clients.push(UnixStream::connect(&path).await.unwrap());
        assert!(door.next().await.unwrap().place.is_none());
        held.pop();
        clients.push(UnixStream::connect(&path).await.unwrap());
        assert!(door.next().await.unwrap().place.is_some());
    }

    #[tokio::test]
    async fn one_account_cannot_take_all_connections() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.sock");
        let door = Door::open(&path, OpenTo::Group, 3.try_into().unwrap()).await.unwrap();
        let mut places: Vec<_> = (0..3).map(|_| door.place(1001).unwrap()).collect();
        assert!(door.place(1001).is_none());
        let others: Vec<_> = (0..MAX_CONNECTIONS - 3)
            .map(|one| door.place(2000 + u32::try_from(one).unwrap()))
            .collect();
        assert!(others.iter().all(Option::is_some));
        assert!(door.place(1002).is_none(), "all are taken");
        places.pop();
        assert!(door.place(1001).is_some());
        drop((places, others));
        assert!(lock(&door.counts).is_empty(), "who has none is not kept");
    }
}
