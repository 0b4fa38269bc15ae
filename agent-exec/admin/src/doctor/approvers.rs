//! Who may approve here: can the file be used, are there as many people as actions need, and is each key a person's?

use std::collections::BTreeSet;
use std::path::Path;

use catalogue::Catalogue;
use openssh::allowed_signers::{AllowedSigners, Entry};
use openssh::key::PublicKey;
use openssh::sshsig;
use wire::ids::PersonName;

use super::report::{Check, Report};
use super::tools;
use crate::ACTIONS;
use crate::config::Config;

const APPROVERS: Check = Check {
    name: "approvers",
    what: "`approvers` has no fault, names people by keys of their own, and as many as actions need",
    why: "with one bad line nobody may approve; a machine's key in it would approve what nobody read",
    mend: "correct `/etc/writ/approvers`",
};
pub(super) const CHECKS: &[&Check] = &[&APPROVERS];

const FILE: &str = "/etc/writ/approvers";

/// What an action wants.
#[derive(Debug, Clone)]
struct Need {
    action: String,
    people: u8,
}

#[derive(Debug, Clone)]
pub(super) struct Approvers {
    file: Result<Option<String>, String>,
    needs: Vec<Need>,
}

pub(super) fn look() -> Approvers {
    let (catalogue, _) = Catalogue::lint(Path::new(ACTIONS), &[0]);
    let need = |(name, entry): (&_, &catalogue::Entry)| Need {
        action: ToString::to_string(name),
        people: entry.manifest().approvals(),
    };
    Approvers {
        file: tools::read(Path::new(FILE)),
        needs: catalogue.iter().map(need).filter(|need| need.people > 0).collect(),
    }
}

/// `machines` are keys with their names: those of the task CA, and of this host.
pub(super) fn judge(
    approvers: &Approvers,
    config: Option<&Config>,
    machines: &[(PublicKey, &str)],
    now: u64,
    report: &mut Report,
) {
    let text = match &approvers.file {
        Err(error) => return report.finding(&APPROVERS, error, format!("ls -l {FILE}")),
        Ok(text) => text.as_deref().unwrap_or_default(),
    };
    let signers = match AllowedSigners::parse(text) {
        Ok(signers) => signers,
        Err(faults) => {
            for fault in faults {
                report.finding(
                    &APPROVERS,
                    format!("{FILE}: {fault}"),
                    format!("sed -n {}p {FILE}", fault.line),
                );
            }
            return;
        }
    };
    let touch = config.is_some_and(|config| config.require_touch);
    let mut people = BTreeSet::new();
    let mut in_files = BTreeSet::new();
    for entry in signers.entries() {
        if judge_entry(&entry, machines, now, report) {
            continue;
        }
        // Of a key in a certificate its CA's line says nothing.
        let in_file = !entry.key.kind().needs_touch() && !entry.is_authority;
        if in_file {
            in_files.extend(entry.principals);
        }
        if !(in_file && touch) {
            people.extend(entry.principals);
        }
    }
    judge_touch(
        touch,
        &in_files.into_iter().map(String::as_str).collect::<Vec<_>>(),
        report,
    );
    for need in &approvers.needs {
        // The one who asks does not count, and may be one of them.
        if people.len() <= usize::from(need.people) {
            let few = people.len();
            let what = format!(
                "{} needs {} besides whoever asks, and {few} may approve",
                need.action, need.people
            );
            report.notice(&APPROVERS, what, format!("add people to {FILE}"));
        }
    }
    let fine = match people.len() {
        0 => "nobody may approve, and no action needs it".to_owned(),
        number => format!("{number} people may approve"),
    };
    report.settle(&APPROVERS, fine);
}

/// Says what is wrong with a line; whether it names nobody who can approve now.
fn judge_entry(entry: &Entry<'_>, machines: &[(PublicKey, &str)], now: u64, report: &mut Report) -> bool {
    let line = entry.line;
    let look = format!("sed -n {line}p {FILE}");
    if let Some((_, whose)) = machines.iter().find(|(machine, _)| entry.key.is(machine)) {
        report.finding(
            &APPROVERS,
            format!("{FILE}: line {line}: it is {whose}"),
            format!("sed -i {line}d {FILE}"),
        );
        return true;
    }
    if let Err(error) = entry.counts(sshsig::APPROVE, now) {
        let what = format!("{FILE}: line {line} approves nothing now: {error}");
        report.notice(&APPROVERS, what, look.clone());
        return true;
    }
    for principal in entry.principals {
        if principal.parse::<PersonName>().is_err() {
            let what = format!("{FILE}: line {line}: {principal} is no person's name: 1 to 64 of a-z 0-9 . _ @ -");
            report.finding(&APPROVERS, what, look.clone());
        }
    }
    false
}

fn judge_touch(touch: bool, in_files: &[&str], report: &mut Report) {
    if in_files.is_empty() {
        return;
    }
    let names = in_files.join(", ");
    if touch {
        let what = format!("require_touch is set, so the keys in files of {names} do not count");
        report.notice(&APPROVERS, what, "give them security keys: ssh-keygen -t ed25519-sk");
    } else {
        let what = format!("{names} may approve with a key in a file, which whoever reads that file has, too");
        report.notice(
            &APPROVERS,
            what,
            "security keys, and `require_touch = true` in /etc/writ/target.toml",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openssh::key::SigningKey;
    use zeroize::Zeroizing;

    const NOW: u64 = 1_800_000_000;
    /// A security key's.
    fn token(seed: u8) -> String {
        use ssh_key::public::{Ed25519PublicKey, KeyData, SkEd25519};
        let data: KeyData = SkEd25519::new(Ed25519PublicKey(*key(seed).as_bytes()), "ssh:").into();
        ssh_key::PublicKey::from(data).to_openssh().unwrap()
    }

    fn key(seed: u8) -> PublicKey {
        SigningKey::from_seed(&Zeroizing::new([seed; 32]))
            .unwrap()
            .public()
            .clone()
    }

    fn line(principal: &str, options: &str, seed: u8) -> String {
        format!("{principal} {options}{}\n", key(seed).to_openssh())
    }

    fn judged(file: Option<&str>, touch: bool, people: u8) -> Report {
        let text = "target = \"web-1\"\nrunner_uid = 1\nrunner_gid = 1\nexec_uid = 2\n";
        let config = Config::parse(&format!("{text}require_touch = {touch}\n")).unwrap();
        let needs = Some(Need {
            action: "drop".to_owned(),
            people,
        })
        .filter(|need| need.people > 0);
        let approvers = Approvers {
            file: Ok(file.map(str::to_owned)),
            needs: needs.into_iter().collect(),
        };
        let machines = [(key(1), "a key of the task CA"), (key(2), "the receipt key")];
        let mut report = Report::default();
        judge(&approvers, Some(&config), &machines, NOW, &mut report);
        report
    }

    #[test]
    fn what_is_fine_is_said_with_its_number() {
        assert!(
            judged(None, false, 0)
                .text()
                .contains("nobody may approve, and no action needs it")
        );
        let tokens = format!("carol {}\n{}", token(8), line("erin,frank", "cert-authority ", 9));
        let report = judged(Some(&tokens), true, 2);
        assert!(
            report.text().contains("ok       approvers  3 people may approve"),
            "{}",
            report.text()
        );
        assert!(report.text().contains("no notices"), "{}", report.text());
    }

    #[test]
    fn the_shipped_example_names_four_people() {
        let report = judged(
            Some(include_str!("../../../../deploy/target/approvers.example")),
            true,
            2,
        );
        assert!(
            report.text().contains("the keys in files of dave do not count"),
            "{}",
            report.text()
        );
        let report = judged(
            Some(include_str!("../../../../deploy/target/approvers.example")),
            false,
            3,
        );
        assert!(
            report.found().is_empty() && !report.text().contains("may approve\n"),
            "{}",
            report.text()
        );
        assert!(
            report.text().contains("dave may approve with a key in a file"),
            "{}",
            report.text()
        );
    }

    #[test]
    fn each_fault_is_a_finding_with_its_line() {
        for (file, what) in [
            ("carol\n".to_owned(), "approvers: line 1: is not `principals"),
            (
                line("carol", "", 3) + "dave ssh-rsa AAAA\n",
                "approvers: line 2: the key must be one of",
            ),
            (line("*", "", 3), "approvers: line 1: a principal must be a name"),
            (line("carol", "", 1), "approvers: line 1: it is a key of the task CA"),
            (
                line("carol", "cert-authority ", 1),
                "approvers: line 1: it is a key of the task CA",
            ),
            (
                line("carol", "", 3) + &line("dave", "", 2),
                "approvers: line 2: it is the receipt key",
            ),
            (line("Carol", "", 3), "approvers: line 1: Carol is no person's name"),
        ] {
            let report = judged(Some(&file), false, 0);
            assert_eq!(report.found(), ["approvers"], "{file}");
            assert!(report.text().contains(what), "{}", report.text());
        }
        let mut report = Report::default();
        let unreadable = Approvers {
            file: Err("permission".to_owned()),
            needs: Vec::new(),
        };
        judge(&unreadable, None, &[], NOW, &mut report);
        assert_eq!(report.found(), ["approvers"]);
    }

    #[test]
    fn too_few_people_keys_in_files_and_what_is_over_are_notices() {
        for (file, touch, people, what) in [
            (line("carol", "", 3), false, 0, "carol may approve with a key in a file"),
            (line("carol", "", 3), true, 0, "the keys in files of carol do not count"),
            (
                line("carol", "", 3),
                true,
                1,
                "drop needs 1 besides whoever asks, and 0 may approve",
            ),
            (
                line("carol", "", 3) + &line("dave", "", 4),
                false,
                2,
                "drop needs 2 besides whoever asks, and 2 may",
            ),
            (
                line("carol", "", 3) + &line("carol", "", 4),
                false,
                1,
                "drop needs 1 besides whoever asks, and 1 may",
            ),
            (
                String::new(),
                false,
                1,
                "drop needs 1 besides whoever asks, and 0 may approve",
            ),
            (
                line("carol", "valid-before=\"20270101Z\" ", 3),
                false,
                0,
                "line 1 approves nothing now: accept a key that is not valid any more",
            ),
            (
                line("carol", "namespaces=\"git\" ", 3),
                false,
                1,
                "drop needs 1 besides whoever asks, and 0 may approve",
            ),
        ] {
            let report = judged(Some(&file), touch, people);
            assert!(report.found().is_empty(), "{}", report.text());
            assert!(report.text().contains(what), "{}", report.text());
        }
    }
}
