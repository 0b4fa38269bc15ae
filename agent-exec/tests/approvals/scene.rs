//! A change that needs approvals, people who give them, and a target that judges.

use agent_exec::error::Refusal;
use agent_exec::order::{self, Approvers, Own, Touch, Verified, Wanted};
use ed25519_dalek::Signer as _;
use openssh::allowed_signers::AllowedSigners;
use openssh::key::SigningKey;
use openssh::sshsig;
use serde_json::{Value, json};
use ssh_key::certificate::Builder;
use ssh_key::public::{Ed25519PublicKey, KeyData, SkEd25519};
use ssh_key::{Algorithm, HashAlg, Signature, SshSig};
use wire::ids::Digest;
use wire::lines::Approval;
use wire::{Code, Payload, Risk, statement};

use crate::stage::{NOW, World, key};

/// A change that needs approvals, the people who may give them, and what the target was told.
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) payload: Value,
    pub(crate) needed: u8,
    pub(crate) signers: String,
    pub(crate) touch: Touch,
    pub(crate) now: u64,
}

/// A request and what came beside it, judged.
pub(crate) type Judged = Result<Vec<(String, String, String)>, Refusal>;

pub(crate) const CAROL: u8 = 20;
pub(crate) const DAVE: u8 = 21;

pub(crate) fn line(principal: &str, options: &str, key: &SigningKey) -> String {
    format!("{principal} {options}{}\n", key.public().to_openssh())
}

impl Scene {
    /// Carol and Dave may approve, each by a key of their own.
    pub(crate) fn new(needed: u8) -> Self {
        let world = World::new();
        let mut payload = world.payload();
        payload["action"] = json!("drop_table");
        payload["args"] = json!({"table": "orders"});
        payload["expires"] = json!(NOW + 600);
        Self {
            world,
            payload,
            needed,
            signers: line("carol", "", &key(CAROL)) + &line("dave", "", &key(DAVE)),
            touch: Touch::NotNeeded,
            now: NOW,
        }
    }

    pub(crate) fn request(&self) -> Verified {
        self.world.verify(&self.payload).unwrap()
    }

    pub(crate) fn wanted(&self) -> Result<Wanted, Refusal> {
        let manifest = Digest::of(b"m");
        let own = Own {
            risk: Risk::Destroy,
            manifest: &manifest,
            approvals: self.needed,
            approval_window_s: Some(600),
            dry_run: None,
        };
        let text = self.world.permit(&self.payload, 90, |_| {});
        let permit = self.world.permits(&text).unwrap().take(&self.request());
        order::permitted(&self.request(), own, permit.as_ref(), &self.world.knows(NOW))
    }

    /// The `on` line of a payload.
    pub(crate) fn on(payload: &Value) -> String {
        let bytes = payload.to_string();
        statement::on_line(&Payload::parse(bytes.as_bytes()).unwrap(), bytes.as_bytes())
    }

    /// The text that is signed for a payload, with these lines.
    pub(crate) fn text(payload: &Value, on: &[String]) -> String {
        statement::render(&Payload::parse(payload.to_string().as_bytes()).unwrap(), on)
    }

    /// The text for the request as it is.
    pub(crate) fn own_text(&self) -> String {
        Self::text(&self.payload, &[Self::on(&self.payload)])
    }

    pub(crate) fn signed(&self, by: u8) -> String {
        sshsig::sign(&key(by), sshsig::APPROVE, self.own_text().as_bytes()).unwrap()
    }

    pub(crate) fn judge(&self, on: Vec<String>, sigs: Vec<String>) -> Judged {
        let approved = order::approved(&self.request(), self.wanted()?, Some(&Approval { on, sigs }), || {
            Ok(Approvers {
                signers: AllowedSigners::parse(&self.signers).unwrap(),
                never: &self.world.cas,
                touch: self.touch,
                now: self.now,
            })
        })?;
        let one = |by: &audit::Approval| (by.principal.to_string(), by.fingerprint.to_string(), by.kind.clone());
        Ok(approved.by().iter().map(one).collect())
    }

    /// These signatures beside the line of the request.
    pub(crate) fn with(&self, sigs: Vec<String>) -> Judged {
        self.judge(vec![Self::on(&self.payload)], sigs)
    }

    /// Who approved, by name.
    pub(crate) fn people(&self, sigs: Vec<String>) -> Vec<String> {
        self.with(sigs)
            .unwrap()
            .into_iter()
            .map(|(principal, ..)| principal)
            .collect()
    }

    /// That Carol's signature as it was made does not count, for this reason; and that another one does, beside it.
    pub(crate) fn refuses(&self, signature: &str, code: Code, what: &str) {
        let refusal = self.with(vec![signature.to_owned()]).unwrap_err();
        assert_eq!(refusal.code, code, "{}", refusal.message);
        assert!(refusal.message.contains(what), "{}", refusal.message);
        assert_eq!(self.people(vec![signature.to_owned(), self.signed(DAVE)]), ["dave"]);
    }
}

/// A security key's signature over a text.
pub(crate) fn pressed(seed: u8, flags: u8, application: &str, text: &str) -> (KeyData, String) {
    use sha2::{Digest as _, Sha256};
    let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
    let public: KeyData = SkEd25519::new(Ed25519PublicKey(key.verifying_key().to_bytes()), application).into();
    let message = SshSig::signed_data(sshsig::APPROVE, HashAlg::Sha512, text.as_bytes()).unwrap();
    let trailer = [flags, 0, 0, 0, 9];
    let hashes = (Sha256::digest(application), Sha256::digest(&message));
    let signed = [hashes.0.as_slice(), &trailer, hashes.1.as_slice()].concat();
    let bytes = [&key.sign(&signed).to_bytes()[..], &trailer].concat();
    let signature = Signature::new(Algorithm::SkEd25519, bytes).unwrap();
    (public.clone(), travelling(public, HashAlg::Sha512, signature))
}

/// A signature as it travels.
pub(crate) fn travelling(public: KeyData, hash: HashAlg, signature: Signature) -> String {
    use base64::Engine as _;
    use ssh_key::encoding::Encode as _;
    let whole = SshSig::new(public, sshsig::APPROVE, hash, signature).unwrap();
    base64::engine::general_purpose::STANDARD.encode(whole.encode_vec().unwrap())
}

/// A signature with a certificate over the key.
pub(crate) fn certified(by: u8, ca: u8, text: &str, change: impl FnOnce(&mut Builder)) -> String {
    let mut builder = Builder::new([7; 32], key(by).public().key_data(), NOW - 60, NOW + 60).unwrap();
    change(&mut builder);
    let certificate = builder.sign(key(ca).private()).unwrap();
    let plain = key(by)
        .private()
        .sign(sshsig::APPROVE, HashAlg::Sha512, text.as_bytes())
        .unwrap();
    travelling(
        KeyData::Certificate(Box::new(certificate)),
        HashAlg::Sha512,
        plain.signature().clone(),
    )
}

impl Scene {
    /// What is wanted of a request that needs nobody: it expires soon.
    pub(crate) fn near(scene: &Self) -> Wanted {
        let payload = scene.world.payload();
        let request = scene.world.verify(&payload).unwrap();
        let manifest = Digest::of(b"m");
        let own = Own {
            risk: Risk::Read,
            manifest: &manifest,
            approvals: 0,
            approval_window_s: None,
            dry_run: None,
        };
        order::permitted(&request, own, None, &scene.world.knows(NOW)).unwrap()
    }
}
