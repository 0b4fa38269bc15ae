//! Keys of each kind, signatures with them, and what `ssh-keygen -Y verify` says of those.
//!
//! What a file can hold is made and signed by ssh-keygen itself. A security key is played here: the blobs are those of
//! OpenSSH's PROTOCOL.u2f, and ssh-keygen judges them like those of a real one.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use openssh::allowed_signers::AllowedSigners;
use openssh::sshsig;
use p256::ecdsa::signature::Signer as _;
use sha2::{Digest as _, Sha256};
use ssh_key::public::{EcdsaPublicKey, Ed25519PublicKey, KeyData, SkEcdsaSha2NistP256, SkEd25519};
use ssh_key::{Algorithm, Certificate, HashAlg, LineEnding, PublicKey, Signature, SshSig};
use tempfile::TempDir;

/// Where everything lies.
pub(crate) struct Bench {
    dir: TempDir,
    number: std::cell::Cell<usize>,
}

/// A key, by the name of its files.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) name: String,
    /// `type base64`.
    pub(crate) public: String,
    token: Option<Token>,
    certificate: Option<Box<Certificate>>,
}

/// A security key.
#[derive(Clone)]
enum Token {
    Ed25519(Box<ed25519_dalek::SigningKey>, SkEd25519),
    P256(Box<p256::ecdsa::SigningKey>, SkEcdsaSha2NistP256),
}

/// How a security key signs.
#[derive(Clone, Copy)]
pub(crate) struct Press {
    pub(crate) flags: u8,
    pub(crate) counter: u32,
}

/// Touched, as always.
pub(crate) const TOUCHED: Press = Press { flags: 1, counter: 7 };

impl Bench {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            number: std::cell::Cell::new(0),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn fresh(&self, what: &str) -> PathBuf {
        self.number.set(self.number.get() + 1);
        self.path(&format!("{what}-{}", self.number.get()))
    }

    fn keygen(&self, arguments: &[&str]) {
        let mut command = Command::new("ssh-keygen");
        let ran = command.args(arguments).current_dir(self.dir.path()).output().unwrap();
        assert!(
            ran.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&ran.stderr)
        );
    }

    /// A key in a file, made by ssh-keygen.
    pub(crate) fn file_key(&self, name: &str, arguments: &[&str]) -> Key {
        self.keygen(&[&["-q", "-N", "", "-C", "", "-f", name], arguments].concat());
        let public = fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap();
        Key {
            name: name.to_owned(),
            public: public.trim_end().to_owned(),
            token: None,
            certificate: None,
        }
    }

    /// A key in a security key.
    pub(crate) fn token(&self, name: &str, algorithm: &Algorithm, application: &str, seed: u8) -> Key {
        let token = match algorithm {
            Algorithm::SkEd25519 => {
                let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
                let public = Ed25519PublicKey(key.verifying_key().to_bytes());
                Token::Ed25519(Box::new(key), SkEd25519::new(public, application))
            }
            _ => {
                let key = p256::ecdsa::SigningKey::from_slice(&[seed; 32]).unwrap();
                let EcdsaPublicKey::NistP256(point) = EcdsaPublicKey::from(key.verifying_key()) else {
                    panic!("another curve");
                };
                Token::P256(Box::new(key), SkEcdsaSha2NistP256::new(point, application))
            }
        };
        let public = PublicKey::from(token.data()).to_openssh().unwrap();
        fs::write(self.path(&format!("{name}.pub")), &public).unwrap();
        Key {
            name: name.to_owned(),
            public,
            token: Some(token),
            certificate: None,
        }
    }

    /// The key with a certificate: made by ssh-keygen with `ca` and these arguments.
    pub(crate) fn certify(&self, key: &Key, ca: &Key, arguments: &[&str]) -> Key {
        self.number.set(self.number.get() + 1);
        let name = format!("{}-{}", key.name, self.number.get());
        for end in ["", ".pub"] {
            let from = self.path(&format!("{}{end}", key.name));
            if from.exists() {
                fs::copy(from, self.path(&format!("{name}{end}"))).unwrap();
            }
        }
        let public = format!("{name}.pub");
        self.keygen(&[&["-q", "-s", &ca.name, "-I", "id"], arguments, &[&public]].concat());
        let text = fs::read_to_string(self.path(&format!("{name}-cert.pub"))).unwrap();
        // ssh-keygen keeps the comment of the key's file.
        let text = text.split(' ').take(2).collect::<Vec<_>>().join(" ");
        Key {
            name,
            certificate: Some(Box::new(Certificate::from_openssh(text.trim_end()).unwrap())),
            ..key.clone()
        }
    }

    /// A signature in armour: by ssh-keygen for a key in a file, played for a security key.
    pub(crate) fn sign(&self, key: &Key, namespace: &str, hash: HashAlg, message: &[u8], press: Press) -> String {
        let Some(token) = &key.token else {
            let file = self.fresh("message");
            fs::write(&file, message).unwrap();
            let from = match key.certificate {
                Some(_) => format!("{}-cert.pub", key.name),
                None => key.name.clone(),
            };
            let hash = format!("hashalg={}", hash.as_str());
            let file = file.to_str().unwrap();
            self.keygen(&["-q", "-Y", "sign", "-O", &hash, "-n", namespace, "-f", &from, file]);
            return fs::read_to_string(format!("{file}.sig")).unwrap();
        };
        let signed = SshSig::signed_data(namespace, hash, message).unwrap();
        let data = match &key.certificate {
            Some(certificate) => KeyData::Certificate(certificate.clone()),
            None => token.data(),
        };
        let signature = SshSig::new(data, namespace, hash, token.press(&signed, press)).unwrap();
        signature.to_pem(LineEnding::LF).unwrap()
    }

    /// What ssh-keygen says of a signature: whether it is this principal's.
    pub(crate) fn theirs(&self, case: &Case<'_>) -> bool {
        let (signers, signature) = (self.fresh("signers"), self.fresh("signature"));
        fs::write(&signers, case.signers).unwrap();
        fs::write(&signature, case.signature).unwrap();
        let message = self.fresh("message");
        fs::write(&message, case.message).unwrap();
        let mut command = Command::new("ssh-keygen");
        command.args(["-Y", "verify", "-n", case.namespace, "-I", case.principal]);
        command.arg("-O").arg(format!("verify-time={}", case.time));
        command.arg("-f").arg(signers).arg("-s").arg(signature);
        command.stdin(fs::File::open(message).unwrap());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status().unwrap().success()
    }
}

/// A signature, and what it is judged by.
#[derive(Clone, Copy)]
pub(crate) struct Case<'a> {
    pub(crate) signers: &'a str,
    pub(crate) principal: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) message: &'a [u8],
    /// In armour.
    pub(crate) signature: &'a str,
    /// As ssh-keygen reads it, and in Unix seconds.
    pub(crate) time: &'a str,
    pub(crate) now: u64,
}

/// What this crate says of the same: who made it, or why it is nobody's.
pub(crate) fn ours(case: &Case<'_>) -> Result<(String, &'static str), String> {
    let text: String = case.signature.lines().filter(|line| !line.starts_with('-')).collect();
    let signers = AllowedSigners::parse(case.signers).map_err(|faults| faults[0].to_string())?;
    let signed = sshsig::verify_person(&text, case.namespace, case.message).map_err(|error| error.to_string())?;
    let approver = signers.approver(&signed, case.namespace, &[], case.now);
    let approver = approver.map_err(|error| error.to_string())?;
    if approver.principal != case.principal {
        return Err(format!("it is {}'s", approver.principal));
    }
    Ok((approver.principal.to_owned(), approver.kind))
}

impl Token {
    fn data(&self) -> KeyData {
        match self {
            Self::Ed25519(_, public) => public.clone().into(),
            Self::P256(_, public) => public.clone().into(),
        }
    }

    fn press(&self, message: &[u8], press: Press) -> Signature {
        let application = match self {
            Self::Ed25519(_, public) => public.application(),
            Self::P256(_, public) => public.application(),
        };
        let trailer = [&[press.flags][..], &press.counter.to_be_bytes()].concat();
        let hashes = (Sha256::digest(application), Sha256::digest(message));
        let signed = [hashes.0.as_slice(), &trailer, hashes.1.as_slice()].concat();
        let (algorithm, mut bytes) = match self {
            Self::Ed25519(key, _) => {
                use ed25519_dalek::Signer as _;
                (Algorithm::SkEd25519, key.sign(&signed).to_bytes().to_vec())
            }
            Self::P256(key, _) => {
                let signature: p256::ecdsa::Signature = key.sign(&signed);
                let plain = Signature::try_from(signature).unwrap();
                (Algorithm::SkEcdsaSha2NistP256, plain.as_bytes().to_vec())
            }
        };
        bytes.extend(trailer);
        Signature::new(algorithm, bytes).unwrap()
    }
}
