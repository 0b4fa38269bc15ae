//! A CA on another machine: TLS in front of the CA of a few lines, and keys that are replaced while calls are made.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use grpc::tls::Server;
use openssh::key::PublicKey;
use relay::issuer::{Error, Issuer};
use tokio::net::{TcpListener, UnixStream};

use crate::binary::Room;
use crate::ca::{Facts, serve};
use crate::world::{key, until};

/// The keys of the CA and of the relay, now and next.
const CA: u8 = 60;
const CA_NEXT: u8 = 61;
const RELAY: u8 = 62;
const RELAY_NEXT: u8 = 63;

/// A CA elsewhere, and a relay's files.
struct Elsewhere {
    folder: tempfile::TempDir,
    address: String,
    /// What the next connection gets.
    server: Arc<Mutex<Server>>,
    /// By which keys connections came.
    came: Arc<Mutex<Vec<PublicKey>>>,
}

fn server(seed: u8) -> Server {
    let relays = [RELAY, RELAY_NEXT].map(|seed| key(seed).public().clone());
    Server::new(&key(seed), move |shown| relays.contains(shown)).unwrap()
}

impl Elsewhere {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("ca.sock");
        serve(&socket, Facts::generous());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let elsewhere = Self {
            address: listener.local_addr().unwrap().to_string(),
            server: Arc::new(Mutex::new(server(CA))),
            came: Arc::default(),
            folder,
        };
        let (server, came) = (Arc::clone(&elsewhere.server), Arc::clone(&elsewhere.came));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (server, came, socket) = (server.lock().unwrap().clone(), Arc::clone(&came), socket.clone());
                tokio::spawn(async move {
                    let Ok((mut outside, shown)) = server.accept(stream).await else {
                        return;
                    };
                    came.lock().unwrap().push(shown);
                    let mut inside = UnixStream::connect(socket).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
                });
            }
        });
        elsewhere.own(RELAY);
        elsewhere.ca(&[CA]);
        elsewhere
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The relay's own key, put in place as an administrator does it.
    fn own(&self, seed: u8) {
        let next = self.at("tls.next");
        assert!(grpc::keys::create(&next, &key(seed)).unwrap());
        std::fs::rename(next, self.at("tls")).unwrap();
    }

    /// The keys that the CA may have.
    fn ca(&self, seeds: &[u8]) {
        let lines: String = seeds
            .iter()
            .map(|seed| key(*seed).public().to_openssh() + "\n")
            .collect();
        let next = self.at("ca.next");
        std::fs::write(&next, lines).unwrap();
        std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::rename(next, self.at("ca.pub")).unwrap();
    }

    fn issuer(&self) -> Issuer {
        Issuer::far(&self.address, &self.at("tls"), &self.at("ca.pub"))
    }

    fn last(&self) -> PublicKey {
        self.came.lock().unwrap().last().unwrap().clone()
    }
}

fn unavailable(answer: Result<relay::issuer::Description, Error>) -> String {
    match answer {
        Err(Error::Unavailable(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// REQ-CARPC-24
#[tokio::test(flavor = "multi_thread")]
async fn a_ca_on_another_machine_is_asked_over_one_connection() {
    let elsewhere = Elsewhere::new().await;
    let issuer = elsewhere.issuer();
    let calls = (0..32).map(|_| {
        tokio::spawn({
            let issuer = issuer.clone();
            async move { issuer.describe().await.unwrap().relay }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap(), "relay-1");
    }
    assert_eq!(*elsewhere.came.lock().unwrap(), [key(RELAY).public().clone()]);
    assert_eq!(issuer.uid().await, None, "nobody's uid can be seen from here");
}

/// REQ-CARPC-27
#[tokio::test(flavor = "multi_thread")]
async fn a_ca_with_another_key_is_asked_nothing() {
    let elsewhere = Elsewhere::new().await;
    *elsewhere.server.lock().unwrap() = server(99);
    let why = unavailable(elsewhere.issuer().describe().await);
    assert!(why.contains(&key(99).public().fingerprint()), "{why}");
    assert!(elsewhere.came.lock().unwrap().is_empty());
}

/// REQ-CARPC-27
#[tokio::test(flavor = "multi_thread")]
async fn without_keys_nothing_is_asked_and_with_them_it_goes_on() {
    let elsewhere = Elsewhere::new().await;
    let issuer = elsewhere.issuer();
    issuer.describe().await.unwrap();
    for name in ["ca.pub", "tls"] {
        let (path, away) = (elsewhere.at(name), elsewhere.at("away"));
        std::fs::rename(&path, &away).unwrap();
        let why = unavailable(issuer.describe().await);
        assert!(why.contains(path.to_str().unwrap()), "{why}");
        std::fs::rename(&away, &path).unwrap();
        issuer.describe().await.unwrap();
    }
    // The CA's key is taken out: also the connection that is open is not used any more.
    elsewhere.ca(&[CA_NEXT]);
    let why = unavailable(issuer.describe().await);
    assert!(why.contains(&key(CA).public().fingerprint()), "{why}");
    elsewhere.ca(&[]);
    unavailable(issuer.describe().await);
}

/// REQ-CARPC-29
#[tokio::test(flavor = "multi_thread")]
async fn all_keys_are_replaced_under_load_and_no_call_fails() {
    let elsewhere = Elsewhere::new().await;
    let issuer = elsewhere.issuer();
    let stop = Arc::new(AtomicBool::new(false));
    let loads: Vec<_> = (0..8)
        .map(|_| {
            let (issuer, stop) = (issuer.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut calls = 0_u32;
                while !stop.load(Ordering::SeqCst) {
                    issuer.describe().await.unwrap();
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    let connected = || elsewhere.came.lock().unwrap().len();
    until("the first connection", async || connected() == 1).await;
    elsewhere.own(RELAY_NEXT);
    until("one with the relay's next key", async || {
        elsewhere.last() == *key(RELAY_NEXT).public()
    })
    .await;
    let before = connected();
    elsewhere.ca(&[CA, CA_NEXT]);
    until("one for the file of both keys", async || connected() > before).await;
    *elsewhere.server.lock().unwrap() = server(CA_NEXT);
    let before = connected();
    elsewhere.ca(&[CA_NEXT]);
    until("one with the CA's next key", async || connected() > before).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.store(true, Ordering::SeqCst);
    let mut calls = 0;
    for load in loads {
        calls += load.await.unwrap();
    }
    println!("{calls} calls on {} connections, none failed", connected());
    assert_eq!(connected(), 4, "one for each change and no more");
}

/// REQ-CARPC-28
#[tokio::test(flavor = "multi_thread")]
async fn whoever_listens_and_says_nothing_is_no_ca() {
    let elsewhere = Elsewhere::new().await;
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = mute.local_addr().unwrap().to_string();
    let issuer = Issuer::far(&address, &elsewhere.at("tls"), &elsewhere.at("ca.pub"));
    let why = unavailable(issuer.describe().await);
    assert!(why.contains("shake hands within 5 s"), "{why}");
}

fn chmod_of(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn check_config_makes_the_relays_key_once_and_says_where_it_belongs() {
    let room = Room::new();
    let config = std::fs::read_to_string(room.at("relay.toml")).unwrap();
    let socket = format!(
        "ca = \"unix:{}/ca.sock\"",
        room.at("").display().to_string().trim_end_matches('/')
    );
    assert!(config.contains(&socket), "{config}");
    let keys = room.at("ca.pub");
    let tls = format!("ca = \"tls:127.0.0.1:1\"\nca_keys = \"{}\"", keys.display());
    room.write("relay.toml", config.replace(&socket, &tls).as_bytes());
    let check = || {
        let said = room
            .relay(&["check-config", "--config", &room.config()])
            .output()
            .unwrap();
        assert_eq!(said.status.code(), Some(2));
        String::from_utf8(said.stderr).unwrap()
    };
    let said = check();
    assert!(
        said.contains("ca_keys: failed to use ") && said.contains("No such file"),
        "{said}"
    );
    room.write("ca.pub", b"# none yet\n");
    let said = check();
    assert!(
        said.contains("ca_keys: failed to find a key in ") && said.contains("writ-ca init"),
        "{said}"
    );
    room.write("ca.pub", format!("{} tls\n", key(CA).public().to_openssh()).as_bytes());
    let said = check();
    let public = std::fs::read_to_string(room.at("state/tls.pub")).unwrap();
    assert!(
        said.contains("ca: failed to reach the CA") && said.contains(&format!("relay-1 there: {}", public.trim())),
        "{said}"
    );
    assert_eq!(chmod_of(&room.at("state/tls")), 0o600);
    let before = std::fs::read(room.at("state/tls")).unwrap();
    assert_eq!(check(), said);
    assert_eq!(std::fs::read(room.at("state/tls")).unwrap(), before);
    std::fs::set_permissions(room.at("state/tls"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let said = check();
    assert!(
        said.contains("state_dir: failed to use ") && said.contains("it must be 0600; chmod it"),
        "{said}"
    );
}
