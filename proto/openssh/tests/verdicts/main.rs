//! Signatures of people, good and bad, of each kind of key: what this crate says of them is what `ssh-keygen -Y verify`
//! says. Where it says less, on purpose, the table says so and why.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test says why")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssh::allowed_signers::AllowedSigners;
use ssh_key::{Algorithm, EcdsaCurve, HashAlg};

mod bench;

use bench::{Bench, Case, Key, Press, TOUCHED, ours};

const NAMESPACE: &str = openssh::sshsig::APPROVE;
const MESSAGE: &[u8] = b"statement: Writ approval, version 1\n";

/// When signatures are judged, for both.
const TIME: &str = "20270115080000Z";
const NOW: u64 = 1_800_000_000;

/// Counts cases, and those where the verdicts differ on purpose.
#[derive(Default)]
struct Tally {
    signatures: usize,
    good: usize,
    stricter: Vec<String>,
}

/// What both are to say.
enum Expect {
    Good,
    Bad,
    /// ssh-keygen says yes, and this crate no, because of this.
    OursIsNo(&'static str),
}

impl Tally {
    fn judge(&mut self, bench: &Bench, name: &str, case: &Case<'_>, expect: &Expect) {
        let (theirs, ours) = (bench.theirs(case), ours(case));
        let found = (theirs, ours.is_ok());
        let expected = match expect {
            Expect::Good => (true, true),
            Expect::Bad => (false, false),
            Expect::OursIsNo(_) => (true, false),
        };
        assert_eq!(
            found, expected,
            "{name}: {ours:?}\n{}\n{}",
            case.signers, case.signature
        );
        self.signatures += 1;
        self.good += usize::from(found.1);
        if let Expect::OursIsNo(why) = expect {
            let said = ours.unwrap_err();
            assert!(said.contains(why), "{name}: {said}");
            self.stricter.push(format!("{name}: {said}"));
        }
    }
}

fn line(principal: &str, options: &str, key: &Key) -> String {
    format!("{principal} {options}{}\n", key.public)
}

fn case<'a>(signers: &'a str, signature: &'a str) -> Case<'a> {
    Case {
        signers,
        principal: "carol",
        namespace: NAMESPACE,
        message: MESSAGE,
        signature,
        time: TIME,
        now: NOW,
    }
}

/// A key of each kind that is accepted.
fn kinds(bench: &Bench) -> Vec<Key> {
    vec![
        bench.file_key("ed25519", &["-t", "ed25519"]),
        bench.file_key("ecdsa", &["-t", "ecdsa", "-b", "256"]),
        bench.token("sk-ed25519", &Algorithm::SkEd25519, "ssh:", 3),
        bench.token("sk-ecdsa", &Algorithm::SkEcdsaSha2NistP256, "ssh:", 4),
        bench.token("sk-resident", &Algorithm::SkEd25519, "ssh:writ", 5),
    ]
}

/// The armour around other bytes.
fn armoured(blob: &[u8]) -> String {
    let text = STANDARD.encode(blob);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(70)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n",
        lines.join("\n")
    )
}

fn blob(signature: &str) -> Vec<u8> {
    let text: String = signature.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(text).unwrap()
}

/// Threats `sig_sk_without_touch`, `sig_wrong_namespace`, `approver_unknown`, `approver_expired`, each against every kind.
/// REQ-APPROVER-1, REQ-APPROVER-4, REQ-APPROVER-6, REQ-APPROVER-7
#[test]
fn each_verdict_is_that_of_ssh_keygen() {
    let bench = Bench::new();
    let mut tally = Tally::default();
    let kinds = kinds(&bench);
    let stranger = bench.file_key("stranger", &["-t", "ed25519"]);
    let sign = |key: &Key, namespace: &str, hash, press| bench.sign(key, namespace, hash, MESSAGE, press);
    for key in &kinds {
        let name = key.name.as_str();
        let signers = line("carol", "", key);
        let good = sign(key, NAMESPACE, HashAlg::Sha512, TOUCHED);
        let sha256 = sign(key, NAMESPACE, HashAlg::Sha256, TOUCHED);
        let elsewhere = sign(key, "file", HashAlg::Sha512, TOUCHED);
        let mut judge =
            |what: &str, case: Case<'_>, expect| tally.judge(&bench, &format!("{name}, {what}"), &case, &expect);
        judge("sha512", case(&signers, &good), Expect::Good);
        judge("sha256", case(&signers, &sha256), Expect::Good);
        judge("another namespace", case(&signers, &elsewhere), Expect::Bad);
        let other = &MESSAGE[1..];
        judge(
            "another message",
            Case {
                message: other,
                ..case(&signers, &good)
            },
            Expect::Bad,
        );
        judge(
            "a stranger's key",
            case(&line("carol", "", &stranger), &good),
            Expect::Bad,
        );
        judge("somebody else's key", case(&line("dave", "", key), &good), Expect::Bad);
        let authority = line("carol", "cert-authority ", key);
        judge("a CA's key that signs itself", case(&authority, &good), Expect::Bad);
        // Times and namespaces of the line.
        for (options, expect) in [
            ("namespaces=\"approve.v1@writ.internal\" ", Expect::Good),
            ("namespaces=\"git,approve.v1@writ.internal\" ", Expect::Good),
            ("namespaces=\"git\" ", Expect::Bad),
            ("valid-before=\"20270115080000Z\" ", Expect::Good),
            ("valid-before=\"20270115075959Z\" ", Expect::Bad),
            ("valid-before=\"20270116Z\" ", Expect::Good),
            ("valid-before=\"202701150759Z\" ", Expect::Bad),
            ("valid-after=\"20270115080000Z\" ", Expect::Good),
            ("valid-after=\"20270115080001Z\" ", Expect::Bad),
            (
                "valid-after=\"20260101Z\",valid-before=\"20280101Z\",namespaces=\"approve.v1@writ.internal\" ",
                Expect::Good,
            ),
            (
                "namespaces=\"approve.v1@writ.internal\",valid-before=\"20270101Z\" ",
                Expect::Bad,
            ),
        ] {
            judge(options, case(&line("carol", options, key), &good), expect);
        }
        let spaced = format!("# people\n\n  # more\n\t carol \t {}   a comment = \"x\n", key.public);
        judge("blanks and comments", case(&spaced, &good), Expect::Good);
        // Every place of the blob, by strides: a byte more, a byte less, a bit of each.
        let bytes = blob(&good);
        for at in (0..bytes.len()).step_by(5) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            judge(
                &format!("bit of byte {at}"),
                case(&signers, &armoured(&flipped)),
                Expect::Bad,
            );
        }
        judge("cut", case(&signers, &armoured(&bytes[..bytes.len() - 1])), Expect::Bad);
        judge(
            "a byte behind",
            case(&signers, &armoured(&[&bytes[..], &[0]].concat())),
            Expect::Bad,
        );
    }
    for key in &kinds[2..] {
        let signers = line("carol", "", key);
        for (flags, expect) in [
            (0x01, Expect::Good),
            (0x05, Expect::Good),
            (0x81, Expect::Good),
            (0x00, Expect::OursIsNo("was not touched")),
            (0x04, Expect::OursIsNo("was not touched")),
        ] {
            for counter in [0, 1, u32::MAX] {
                let signature = sign(key, NAMESPACE, HashAlg::Sha512, Press { flags, counter });
                let name = format!("{}, flags {flags:#x}, counter {counter}", key.name);
                tally.judge(&bench, &name, &case(&signers, &signature), &expect);
            }
        }
        // The flag set afterwards: it is part of what was signed.
        let untouched = sign(key, NAMESPACE, HashAlg::Sha512, Press { flags: 0, counter: 1 });
        let mut bytes = blob(&untouched);
        let at = bytes.len() - 5;
        assert_eq!(bytes[at], 0);
        bytes[at] = 1;
        tally.judge(
            &bench,
            "a touch put in",
            &case(&signers, &armoured(&bytes)),
            &Expect::Bad,
        );
    }
    println!(
        "{} signatures, {} verdicts agree ({} good); {} are refused here and not by ssh-keygen:\n  {}",
        tally.signatures,
        tally.signatures - tally.stricter.len(),
        tally.good,
        tally.stricter.len(),
        tally.stricter.join("\n  ")
    );
}

/// What ssh-keygen takes and this crate does not, whoever signed. REQ-APPROVER-2, REQ-APPROVER-3
#[test]
fn what_is_refused_on_purpose_is_good_for_ssh_keygen() {
    let bench = Bench::new();
    let mut tally = Tally::default();
    let rsa = bench.file_key("rsa", &["-t", "rsa", "-b", "2048"]);
    let p384 = bench.file_key("p384", &["-t", "ecdsa", "-b", "384"]);
    let web = bench.token("web", &Algorithm::SkEd25519, "https://example.org", 9);
    for (key, why) in [
        (&rsa, "line 1: the key must be one of sk-ssh-ed25519@openssh.com, "),
        (&p384, "line 1: the key must be one of "),
        (&web, "line 1: failed to use a security key's key whose application"),
    ] {
        let signature = bench.sign(key, NAMESPACE, HashAlg::Sha512, MESSAGE, TOUCHED);
        let signers = line("carol", "", key);
        tally.judge(&bench, &key.name, &case(&signers, &signature), &Expect::OursIsNo(why));
    }
    let key = bench.file_key("ed25519", &["-t", "ed25519"]);
    let signature = bench.sign(&key, NAMESPACE, HashAlg::Sha512, MESSAGE, TOUCHED);
    for (signers, why) in [
        (line("*", "", &key), "line 1: a principal must be a name"),
        (line("car?l", "", &key), "line 1: a principal must be a name"),
        (line("carol,!dave", "", &key), "line 1: a principal must be a name"),
        (line("\"carol\"", "", &key), "line 1: a principal must be a name"),
        (line("carol,dave", "", &key), "line 1: has one key for several people"),
        (
            line("carol", "namespaces=\"*\" ", &key),
            "line 1: a namespace must be a name",
        ),
        (
            line("carol", "namespaces=\"approve.v1@*\" ", &key),
            "line 1: a namespace must be a name",
        ),
        (
            line("carol", "valid-before=\"20280101\" ", &key),
            "line 1: a time must be",
        ),
        (
            line("carol", "NAMESPACES=\"approve.v1@writ.internal\" ", &key),
            "line 1: the option NAMESPACES is none of",
        ),
        (
            format!("\n{}{}", line("carol", "", &key), line("dave", "", &key)),
            "line 3: has the key of line 2",
        ),
        (
            format!("{}mallory\n", line("carol", "", &key)),
            "line 2: is not `principals",
        ),
        (
            format!("{}mallory ssh-rsa AAAA\n", line("carol", "", &key)),
            "line 2: the key must be one of",
        ),
        (
            line("carol", "", &key).replace('\n', "\r\n"),
            "line 1: has a control character",
        ),
    ] {
        tally.judge(&bench, &signers, &case(&signers, &signature), &Expect::OursIsNo(why));
    }
    println!("{} refused here and not by ssh-keygen", tally.stricter.len());
}

/// REQ-APPROVER-2: each line is refused with its number, and the whole file with it.
#[test]
fn lines_that_mean_nothing_are_refused_by_both() {
    let bench = Bench::new();
    let mut tally = Tally::default();
    let key = bench.file_key("ed25519", &["-t", "ed25519"]);
    let signature = bench.sign(&key, NAMESPACE, HashAlg::Sha512, MESSAGE, TOUCHED);
    for options in [
        "no-touch-required ",
        "verify-required ",
        "namespaces= ",
        "namespaces=approve.v1@writ.internal ",
        "namespaces=\"approve.v1@writ.internal ",
        "namespaces=\"git\",namespaces=\"approve.v1@writ.internal\" ",
        "valid-before=\"tomorrow\" ",
        "valid-before=\"20280101Z\",valid-before=\"20290101Z\" ",
        "valid-before=\"20280101Z\"valid-after=\"20260101Z\" ",
        "valid-after=\"20280101Z\",valid-before=\"20270101Z\" ",
        "cert-authority,cert-authority ",
        "cert-authority=\"yes\" ",
        "ssh-ed25519 ",
        "restrict ",
    ] {
        let signers = line("carol", options, &key);
        tally.judge(&bench, options, &case(&signers, &signature), &Expect::Bad);
        let faults = AllowedSigners::parse(&format!("# one\n{signers}")).map(drop);
        assert!(
            options == "cert-authority,cert-authority " || faults.is_err(),
            "{options}"
        );
        if let Err(faults) = faults {
            assert_eq!(
                faults.iter().map(|fault| fault.line).collect::<Vec<_>>(),
                [2],
                "{options}"
            );
        }
    }
    println!("{} signatures, {} verdicts agree", tally.signatures, tally.signatures);
}

/// A certificate: its name, its CA, its life and what it says, as arguments of ssh-keygen.
type Certified<'a> = (&'a str, &'a Key, &'a [&'a str], &'a [&'a str], Expect);

/// Certificates of an approvers' CA, over keys of each kind. REQ-APPROVER-5
#[test]
fn certificates_are_judged_as_ssh_keygen_judges_them_and_more_strictly() {
    let bench = Bench::new();
    let mut tally = Tally::default();
    let ca = bench.file_key("ca", &["-t", "ed25519"]);
    let other_ca = bench.file_key("other-ca", &["-t", "ecdsa", "-b", "256"]);
    let both = format!(
        "{}{}",
        line("carol,dave", "cert-authority ", &ca),
        line("erin", "cert-authority ", &other_ca)
    );
    let life = ["-V", "20270101Z:20270201Z"];
    for key in kinds(&bench) {
        let table: &[Certified<'_>] = &[
            ("good", &ca, &life, &["-n", "carol"], Expect::Good),
            ("among others", &ca, &life, &["-n", "root,carol"], Expect::Good),
            ("somebody else", &ca, &life, &["-n", "mallory"], Expect::Bad),
            ("nobody", &ca, &life, &[], Expect::Bad),
            (
                "another CA, which may not",
                &other_ca,
                &life,
                &["-n", "carol"],
                Expect::Bad,
            ),
            ("a host's", &ca, &life, &["-n", "carol", "-h"], Expect::Bad),
            (
                "over",
                &ca,
                &["-V", "20270101Z:20270115080000Z"],
                &["-n", "carol"],
                Expect::Bad,
            ),
            (
                "its last second",
                &ca,
                &["-V", "20270101Z:20270115080001Z"],
                &["-n", "carol"],
                Expect::Good,
            ),
            (
                "its first second",
                &ca,
                &["-V", "20270115080000Z:20270201Z"],
                &["-n", "carol"],
                Expect::Good,
            ),
            (
                "not yet",
                &ca,
                &["-V", "20270115080001Z:20270201Z"],
                &["-n", "carol"],
                Expect::Bad,
            ),
            (
                "two of the line",
                &ca,
                &life,
                &["-n", "carol,dave"],
                Expect::OursIsNo("exactly one principal"),
            ),
            (
                "forced",
                &ca,
                &life,
                &["-n", "carol", "-O", "force-command=x"],
                Expect::OursIsNo("critical options"),
            ),
            (
                "unknown",
                &ca,
                &life,
                &["-n", "carol", "-O", "critical:x@y.z=1"],
                Expect::OursIsNo("critical options"),
            ),
        ];
        for (name, ca, life, arguments, expect) in table {
            let certified = bench.certify(&key, ca, &[life, *arguments].concat());
            let signature = bench.sign(&certified, NAMESPACE, HashAlg::Sha512, MESSAGE, TOUCHED);
            let name = format!("{}, {name}", key.name);
            tally.judge(&bench, &name, &case(&both, &signature), expect);
            if matches!(expect, Expect::Good) {
                let (_, kind) = ours(&case(&both, &signature)).unwrap();
                assert!(kind.ends_with("-cert-v01@openssh.com"), "{kind}");
                let bytes = blob(&signature);
                for at in (0..bytes.len()).step_by(47) {
                    let mut flipped = bytes.clone();
                    flipped[at] ^= 1 << (at % 8);
                    let name = format!("{name}, bit of byte {at}");
                    tally.judge(&bench, &name, &case(&both, &armoured(&flipped)), &Expect::Bad);
                }
            }
        }
        // The same key, which this file gives to another person by a line of its own.
        let certified = bench.certify(&key, &ca, &[&life[..], &["-n", "carol"]].concat());
        let signature = bench.sign(&certified, NAMESPACE, HashAlg::Sha512, MESSAGE, TOUCHED);
        let signers = format!("{both}{}", line("dave", "", &key));
        let name = format!("{}, dave's key", key.name);
        tally.judge(
            &bench,
            &name,
            &case(&signers, &signature),
            &Expect::OursIsNo("exactly one principal"),
        );
    }
    println!(
        "{} signatures, {} verdicts agree ({} good), {} refused here and not by ssh-keygen",
        tally.signatures,
        tally.signatures - tally.stricter.len(),
        tally.good,
        tally.stricter.len()
    );
}

/// Lines as somebody might write them: of a principal's signature that counts here, ssh-keygen says the same. The other way
/// round it says yes to more. REQ-APPROVER-1
#[test]
fn no_line_counts_here_that_ssh_keygen_does_not_count() {
    use proptest::strategy::{Strategy as _, ValueTree as _};
    let bench = Bench::new();
    let keys = [
        bench.file_key("one", &["-t", "ed25519"]),
        bench.file_key("two", &["-t", "ecdsa", "-b", "256"]),
        bench.token("three", &Algorithm::SkEcdsaSha2NistP256, "ssh:", 4),
    ];
    let signature = bench.sign(&keys[0], NAMESPACE, HashAlg::Sha512, MESSAGE, TOUCHED);
    // Mostly what is in order, so that most files have one fault at most.
    let pick = |fine: &'static [&'static str], other: &'static [&'static str]| {
        let (fine, other) = (proptest::sample::select(fine), proptest::sample::select(other));
        proptest::prop_oneof![9 => fine, 1 => other]
    };
    let principals = pick(
        &["carol"],
        &[
            "carol,dave",
            "dave",
            "Carol",
            "ca*",
            "\"carol\"",
            "#carol",
            "carol,",
            "!carol",
        ],
    );
    let option = pick(
        &[
            "namespaces=\"approve.v1@writ.internal\"",
            "namespaces=\"git,approve.v1@writ.internal\"",
            "valid-before=\"20280101Z\"",
            "valid-before=\"20270115080000Z\"",
            "valid-after=\"20270115080000Z\"",
            "valid-after=\"202701010000Z\"",
        ],
        &[
            "namespaces=\"git\"",
            "namespaces=\"*\"",
            "valid-before=\"20270115075959Z\"",
            "valid-after=\"202701150801Z\"",
            "valid-after=\"20260101\"",
            "cert-authority",
            "valid-before=\"20280230Z\"",
            "",
            "namespaces",
            "valid-before=\"\"",
            "VALID-BEFORE=\"20200101Z\"",
            "no-pty",
            "a\"b\\\"c\"",
        ],
    );
    let space = pick(&[" ", "\t", "  ", " \t "], &["\u{a0}", "", "\r", "\u{b}"]);
    let tail = pick(&["", " a comment", " #", "\t", " \""], &["=", "\r", "A", "\u{e9}"]);
    let options = (proptest::collection::vec(option, 0..3), pick(&[","], &[", ", ",,", ""]));
    let spaces = (space.clone(), space.clone(), space);
    let line = (principals, options, 0..keys.len(), spaces, tail);
    let lines = proptest::collection::vec(line, 1..3);
    let (mut counted, mut both) = (0, 0);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..1000 {
        let tree = lines.new_tree(&mut runner).unwrap();
        let text: String = tree
            .current()
            .into_iter()
            .map(|(principals, (options, comma), key, (lead, between, last), tail)| {
                let lead = if lead == " " { "" } else { lead };
                let options = options.join(comma);
                let gap = if options.is_empty() { "" } else { last };
                format!("{lead}{principals}{between}{options}{gap}{}{tail}\n", keys[key].public)
            })
            .collect();
        let case = case(&text, &signature);
        if ours(&case).is_ok() {
            counted += 1;
            assert!(bench.theirs(&case), "{text}");
        } else {
            both += usize::from(!bench.theirs(&case));
        }
    }
    assert!(counted > 50, "{counted} of 1000");
    println!("1000 files, {counted} count here and there, {both} in neither");
}

/// A key has one form, so that two signatures of it are seen to be one key's.
#[test]
fn a_point_that_is_written_with_one_coordinate_is_no_key() {
    let point = p256::ecdsa::SigningKey::from_slice(&[4; 32])
        .unwrap()
        .verifying_key()
        .to_sec1_point(true);
    let curve = EcdsaCurve::NistP256.as_str();
    let mut key = Vec::new();
    for field in [
        format!("ecdsa-sha2-{curve}").as_bytes(),
        curve.as_bytes(),
        point.as_bytes(),
    ] {
        key.extend(u32::try_from(field.len()).unwrap().to_be_bytes());
        key.extend(field);
    }
    let text = format!("carol ecdsa-sha2-nistp256 {}\n", STANDARD.encode(key));
    let faults = AllowedSigners::parse(&text).unwrap_err();
    assert_eq!(
        faults[0].to_string(),
        "line 1: failed to use a key that is no point of its curve"
    );
}
