//! Approvals as people give them: a Statement written from the specification and not over the wire crate, signed with keys of
//! every kind.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer as _;
use harness::EvilRelay;
use harness::stack::new_id;
use openssh::sshsig::{APPROVE, REQUEST};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use ssh_key::encoding::Encode as _;
use ssh_key::public::{Ed25519PublicKey, KeyData, SkEd25519};
use ssh_key::{Algorithm, HashAlg, Signature, SshSig};
use tempfile::TempDir;

/// The private key in a person's folder.
const KEY: &str = "key";
/// The public one, and the certificate.
const PUBLIC: &str = "key.pub";
const CERTIFICATE: &str = "key-cert.pub";

/// Somebody with a key.
pub enum Person {
    /// In a file of ssh-keygen's, which also signs. With a certificate where one stands beside it.
    File {
        /// Where its files are; they go with the person.
        folder: TempDir,
        /// Whether the certificate is used.
        certified: bool,
    },
    /// In a security key, played after OpenSSH's PROTOCOL.u2f.
    Token {
        /// The key inside.
        key: Box<ed25519_dalek::SigningKey>,
        /// Whether it is touched.
        touched: bool,
    },
}

impl Person {
    /// Makes a key with `ssh-keygen -t KIND`.
    pub fn with_file(kind: &str) -> Result<Person> {
        let folder = tempfile::tempdir()?;
        keygen(&folder, &["-q", "-t", kind, "-N", "", "-C", "", "-f", KEY])?;
        Ok(Person::File {
            folder,
            certified: false,
        })
    }

    /// Takes a key that is there.
    pub fn with_key(key: &openssh::key::SigningKey) -> Result<Person> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join(KEY);
        std::fs::write(&path, key.to_openssh().context("a key without a text")?.as_bytes())?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        std::fs::write(path.with_extension("pub"), key.public().to_openssh())?;
        Ok(Person::File {
            folder,
            certified: false,
        })
    }

    /// A security key, touched whenever it signs.
    pub fn with_token() -> Person {
        Person::Token {
            key: Box::new(ed25519_dalek::SigningKey::from_bytes(&Sha256::digest(new_id()).into())),
            touched: true,
        }
    }

    /// The same, and nobody touches it.
    pub fn untouched(&self) -> Result<Person> {
        match self {
            Person::File { .. } => anyhow::bail!("no security key"),
            Person::Token { key, .. } => Ok(Person::Token {
                key: key.clone(),
                touched: false,
            }),
        }
    }

    /// The same key with a certificate by `ca`, made with these arguments of ssh-keygen.
    pub fn certified(&self, ca: &Person, arguments: &[&str]) -> Result<Person> {
        let (Person::File { folder, .. }, Person::File { folder: ca, .. }) = (self, ca) else {
            anyhow::bail!("ssh-keygen signs with files alone")
        };
        let other = tempfile::tempdir()?;
        for file in [KEY, PUBLIC] {
            std::fs::copy(folder.path().join(file), other.path().join(file))?;
        }
        let ca = ca.path().join(KEY);
        let ca = ca.to_str().context("a path that is no text")?;
        keygen(&other, &[&["-q", "-s", ca, "-I", "id"], arguments, &[PUBLIC]].concat())?;
        Ok(Person::File {
            folder: other,
            certified: true,
        })
    }

    /// `type base64`.
    pub fn public(&self) -> Result<String> {
        match self {
            Person::File { folder, .. } => {
                let text = std::fs::read_to_string(folder.path().join(PUBLIC))?;
                Ok(text.trim_end().to_owned())
            }
            Person::Token { key, .. } => Ok(ssh_key::PublicKey::from(token(key)).to_openssh()?),
        }
    }

    /// A line of the file of approvers.
    pub fn line(&self, principal: &str, options: &str) -> Result<String> {
        Ok(format!("{principal} {options}{}\n", self.public()?))
    }

    /// Signs a text, and gives the signature as it travels.
    pub fn sign(&self, namespace: &str, text: &str) -> Result<String> {
        match self {
            Person::File { folder, certified } => {
                let name = new_id();
                std::fs::write(folder.path().join(&name), text)?;
                let key = if *certified { CERTIFICATE } else { KEY };
                keygen(folder, &["-q", "-Y", "sign", "-n", namespace, "-f", key, &name])?;
                let armoured = std::fs::read_to_string(folder.path().join(name + ".sig"))?;
                Ok(armoured.lines().filter(|line| !line.starts_with('-')).collect())
            }
            Person::Token { key, touched } => {
                let message = SshSig::signed_data(namespace, HashAlg::Sha512, text.as_bytes())?;
                let trailer = [u8::from(*touched), 0, 0, 0, 9];
                let hashes = (Sha256::digest("ssh:"), Sha256::digest(&message));
                let signed = [hashes.0.as_slice(), &trailer, hashes.1.as_slice()].concat();
                let bytes = [&key.sign(&signed).to_bytes()[..], &trailer].concat();
                let signature = Signature::new(Algorithm::SkEd25519, bytes)?;
                let whole = SshSig::new(token(key), namespace, HashAlg::Sha512, signature)?;
                Ok(STANDARD.encode(whole.encode_vec()?))
            }
        }
    }

    /// Approves a text as it is meant to be.
    pub fn approve(&self, text: &str) -> Result<String> {
        self.sign(APPROVE, text)
    }
}

fn token(key: &ed25519_dalek::SigningKey) -> KeyData {
    SkEd25519::new(Ed25519PublicKey(key.verifying_key().to_bytes()), "ssh:").into()
}

fn keygen(folder: &TempDir, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("ssh-keygen");
    let ran = command.args(arguments).current_dir(folder.path()).output()?;
    ensure!(
        ran.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&ran.stderr)
    );
    Ok(())
}

/// The line `on` of a payload.
pub fn on(payload: &Map<String, Value>) -> Result<String> {
    let hash: String = Sha256::digest(serde_json::to_string(payload)?)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let word = |key: &str| payload.get(key).and_then(Value::as_str).unwrap_or_default();
    Ok(format!("{} {} {hash}", word("target"), word("target_key")))
}

/// The Statement of a payload in which nothing has to be escaped, after docs/spec/statement.md.
pub fn statement(payload: &Map<String, Value>, on: &[String]) -> Result<String> {
    let whole = Value::Object(payload.clone());
    let word = |pointer: &str| whole.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let mut text = format!(
        "statement: Writ approval, version 1\ntask: {}\nperson: {}\nbrain: {}\nproof: {}\nreason: {}\naction: {}\n",
        word("/task_id"),
        word("/requester/person"),
        word("/requester/brain"),
        word("/requester/proof"),
        word("/reason"),
        word("/action")
    );
    let args = payload.get("args").and_then(Value::as_object).context("no args")?;
    let mut names: Vec<&String> = args.keys().collect();
    names.sort();
    for name in names {
        text.push_str(&format!("argument: \"{name}\" = {}\n", args[name]));
    }
    let expires = payload.get("expires").and_then(Value::as_u64).context("no expiry")?;
    text.push_str(&format!("mode: {}\nexpires: {expires} (Unix seconds)\n", word("/mode")));
    for line in on {
        text.push_str(&format!("on: {line}\n"));
    }
    ensure!(
        text.is_ascii() && !text.contains('\\') && !text.contains("  "),
        "{text}"
    );
    Ok(text)
}

/// The request line of a payload with an approval, signed by the task's key.
pub fn line(relay: &EvilRelay, payload: &Map<String, Value>, approval: &Value) -> Result<String> {
    let text = serde_json::to_string(payload)?;
    let mut line: Value = serde_json::from_str(&EvilRelay::line(&text, &relay.task.key, REQUEST)?)?;
    line["approval"] = approval.clone();
    Ok(line.to_string())
}

/// What travels beside a request: these lines and signatures.
pub fn approval(on: &[String], sigs: &[String]) -> Value {
    json!({ "on": on, "sigs": sigs })
}
