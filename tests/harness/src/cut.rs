//! A wire that breaks: a TCP proxy before a target's sshd that ends a connection after exactly so many bytes of one direction.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use anyhow::{Context as _, Result};

/// A direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Towards {
    /// What the relay sends.
    Target,
    /// What the target sends.
    Relay,
}

/// The end of a connection: after this many bytes of this direction, both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Whose bytes are counted.
    pub towards: Towards,
    /// How many pass.
    pub after: u64,
}

/// How many bytes have passed on one connection.
#[derive(Debug, Default)]
struct Passed {
    target: AtomicU64,
    relay: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    cuts: Mutex<VecDeque<Cut>>,
    dark: AtomicBool,
    /// How many connections have come to the end of what was to pass.
    cut: AtomicUsize,
    passed: Mutex<Vec<Arc<Passed>>>,
    /// One end of each connection that was let through, for as long as it is carried.
    ends: Mutex<Vec<Weak<TcpStream>>>,
}

/// The proxy. It listens until its process ends.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Wire {
    /// A wire to this address from one of its own, whole and lit.
    pub fn to(target: SocketAddr) -> Result<Wire> {
        Wire::between((Ipv4Addr::LOCALHOST, 0).into(), target)
    }

    /// A wire between these two addresses, whole and lit.
    pub fn between(from: SocketAddr, target: SocketAddr) -> Result<Wire> {
        let listener = TcpListener::bind(from).with_context(|| format!("failed to listen on {from}"))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            cuts: Mutex::default(),
            dark: AtomicBool::new(false),
            cut: AtomicUsize::new(0),
            passed: Mutex::default(),
            ends: Mutex::default(),
        });
        let at_work = Arc::clone(&shared);
        thread::spawn(move || {
            for relay in listener.incoming().flatten() {
                // Out of planned cuts: whole, or, in the dark, nothing.
                let cut = lock(&at_work.cuts).pop_front();
                if cut.is_none() && at_work.dark.load(Ordering::SeqCst) {
                    continue;
                }
                let passed = Arc::new(Passed::default());
                lock(&at_work.passed).push(Arc::clone(&passed));
                if let Ok(sshd) = TcpStream::connect(target) {
                    let sshd = Arc::new(sshd);
                    let mut ends = lock(&at_work.ends);
                    ends.retain(|end| end.strong_count() > 0);
                    ends.push(Arc::downgrade(&sshd));
                    drop(ends);
                    let _ = join(Arc::new(relay), sshd, cut, &passed, &at_work);
                }
            }
        });
        Ok(Wire { address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connections are cut like this, one each, in the order in which they come.
    pub fn cut(&self, cuts: impl IntoIterator<Item = Cut>) {
        lock(&self.shared.cuts).extend(cuts);
    }

    /// How many cuts have met no connection yet; none of them will.
    pub fn take_back(&self) -> usize {
        std::mem::take(&mut *lock(&self.shared.cuts)).len()
    }

    /// How many connections were cut at their byte. One that ends by itself before that is none of them.
    pub fn cuts(&self) -> usize {
        self.shared.cut.load(Ordering::SeqCst)
    }

    /// Whether connections that are not to be cut are let through, or ended before their first byte.
    pub fn dark(&self, dark: bool) {
        self.shared.dark.store(dark, Ordering::SeqCst);
    }

    /// Ends every connection now.
    pub fn sever(&self) {
        for end in lock(&self.shared.ends).drain(..).filter_map(|end| end.upgrade()) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    /// How many bytes have passed on each connection, in the order in which they came: towards the target, towards the relay.
    pub fn passed(&self) -> Vec<(u64, u64)> {
        let all = lock(&self.shared.passed);
        let of = |passed: &Arc<Passed>| {
            (
                passed.target.load(Ordering::SeqCst),
                passed.relay.load(Ordering::SeqCst),
            )
        };
        all.iter().map(of).collect()
    }
}

/// Carries bytes both ways, on threads of their own.
fn join(
    relay: Arc<TcpStream>,
    sshd: Arc<TcpStream>,
    cut: Option<Cut>,
    passed: &Arc<Passed>,
    shared: &Arc<Shared>,
) -> Result<()> {
    relay.set_nodelay(true)?;
    sshd.set_nodelay(true)?;
    for (towards, from, to) in [
        (Towards::Target, Arc::clone(&relay), Arc::clone(&sshd)),
        (Towards::Relay, sshd, relay),
    ] {
        let most = cut.filter(|cut| cut.towards == towards).map(|cut| cut.after);
        let (passed, shared) = (Arc::clone(passed), Arc::clone(shared));
        thread::spawn(move || {
            let count = match towards {
                Towards::Target => &passed.target,
                Towards::Relay => &passed.relay,
            };
            if carry(&from, &to, most, count) == End::Cut {
                shared.cut.fetch_add(1, Ordering::SeqCst);
            }
            // Whatever ended one direction ends both: a wire that is cut carries nothing.
            for end in [from, to] {
                let _ = end.shutdown(Shutdown::Both);
            }
        });
    }
    Ok(())
}

/// Why nothing more is carried.
#[derive(PartialEq, Eq)]
enum End {
    /// As many bytes have passed as were to pass.
    Cut,
    /// An end has hung up.
    HungUp,
}

/// Carries at most so many bytes.
fn carry(mut from: &TcpStream, mut to: &TcpStream, most: Option<u64>, count: &AtomicU64) -> End {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let left = most.map(|most| most.saturating_sub(count.load(Ordering::SeqCst)));
        let room = left.map_or(buffer.len(), |left| {
            usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len())
        });
        let Some(into) = buffer.get_mut(..room).filter(|into| !into.is_empty()) else {
            return End::Cut;
        };
        let Ok(read @ 1..) = from.read(into) else {
            return End::HungUp;
        };
        let Some(bytes) = buffer.get(..read) else {
            return End::HungUp;
        };
        // Before they pass: whoever has an answer finds all of it counted.
        count.fetch_add(read as u64, Ordering::SeqCst);
        if to.write_all(bytes).is_err() {
            return End::HungUp;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
