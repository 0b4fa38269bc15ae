//! What sshd does for a login, as it says itself: `sshd -T -C` for agent-runner, for root and for one other account.
//!
//! The shipped drop-in is the table: every directive in it must be in force for agent-runner, whatever else is configured.

use std::collections::BTreeMap;
use std::path::Path;

use super::report::{Check, Report};
use super::sshd_text::Line;
use super::tools::{self, SSHD};
use super::{AGENT_EXEC, RUNNER};

const DROP_IN: &str = include_str!("../../../../sshd/50-writ.conf");
const DROP_IN_PLACE: &str = "/etc/ssh/sshd_config.d/50-writ.conf";

const CONFIG: Check = Check {
    name: "sshd_config",
    what: "sshd accepts its configuration",
    why: "it would not start again after the next reload or reboot",
    mend: "`sshd -t` names the line",
};
const SETTINGS: Check = Check {
    name: "sshd_settings",
    what: "every directive of `50-writ.conf` is in force for agent-runner",
    why: "each closes a way around agent-exec or into the account",
    mend: "put `50-writ.conf` back, and take out what is read before it",
};
const FORCE_COMMAND: Check = Check {
    name: "force_command",
    what: "ForceCommand of agent-runner is agent-exec",
    why: "a certificate without `force-command` would choose what the login shell is told",
    mend: "put `50-writ.conf` back",
};
const ACCEPT_ENV: Check = Check {
    name: "accept_env",
    what: "agent-runner's clients can set no environment variable",
    why: "a client could name the file that sshd's own word about the login is read from",
    mend: "put `50-writ.conf` back, and take AcceptEnv out of what is read before it",
};
const USER_ENVIRONMENT: Check = Check {
    name: "user_environment",
    what: "PermitUserEnvironment is no",
    why: "files of the account would set the environment of its sessions, LD_PRELOAD included",
    mend: "`PermitUserEnvironment no` in sshd_config",
};
const STRICT_MODES: Check = Check {
    name: "strict_modes",
    what: "StrictModes is yes",
    why: "sshd would read principals and keys from files that others can write",
    mend: "`StrictModes yes` in sshd_config",
};
const OTHERS: Check = Check {
    name: "other_accounts",
    what: "root and another account get nothing of the drop-in",
    why: "certificates for this target would log in there as well",
    mend: "move TrustedUserCAKeys and ForceCommand into `Match User agent-runner`",
};

pub(super) const CHECKS: &[&Check] = &[
    &CONFIG,
    &SETTINGS,
    &FORCE_COMMAND,
    &ACCEPT_ENV,
    &USER_ENVIRONMENT,
    &STRICT_MODES,
    &OTHERS,
];

/// Effective settings: keywords in lower case, each with its values in order.
pub(super) type Settings = BTreeMap<String, Vec<String>>;

/// What sshd said, for each account that it was asked about.
#[derive(Debug, Clone)]
pub(super) struct Sshd {
    runner: Result<Settings, String>,
    root: Result<Settings, String>,
    other: (String, Result<Settings, String>),
}

impl Sshd {
    /// The host certificates that sshd presents.
    pub(super) fn host_certificate(&self) -> Option<&str> {
        let settings = self.root.as_ref().ok()?;
        settings
            .get("hostcertificate")?
            .iter()
            .map(String::as_str)
            .find(|file| *file != "none")
    }

    /// Where root's authorized keys are, with the tokens of sshd_config(5).
    pub(super) fn authorized_keys(&self) -> Vec<String> {
        let settings = self.root.as_ref().ok();
        let files = settings.and_then(|settings| settings.get("authorizedkeysfile"));
        files
            .into_iter()
            .flatten()
            .flat_map(|value| value.split_whitespace())
            .filter(|file| *file != "none")
            .map(str::to_owned)
            .collect()
    }
}

pub(super) fn look(other: &str) -> Sshd {
    Sshd {
        runner: ask(RUNNER),
        root: ask("root"),
        other: (other.to_owned(), ask(other)),
    }
}

/// A login from this very host: `Match` blocks on addresses are looked at by what is trusted, see `login`.
fn ask(user: &str) -> Result<Settings, String> {
    let spec = format!("user={user},host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22");
    let ran = tools::run(SSHD, &["-T", "-C", &spec])?;
    if ran.ok {
        Ok(parse(&ran.stdout))
    } else {
        Err(ran.complaint())
    }
}

/// Reads what `sshd -T` printed. Newer ones print keywords in mixed case.
fn parse(text: &str) -> Settings {
    let mut settings = Settings::new();
    for line in text.lines() {
        let (keyword, value) = line.split_once(' ').unwrap_or((line, ""));
        settings
            .entry(keyword.to_lowercase())
            .or_default()
            .push(value.trim().to_owned());
    }
    settings
}

/// The directives of the drop-in, keywords as they stand there.
fn directives() -> impl Iterator<Item = (&'static str, &'static str)> {
    DROP_IN
        .lines()
        .filter(|line| line.starts_with(' '))
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(' '))
}

/// The command that brings a directive into force: another line that sshd reads earlier is taken out, else ours is put back.
fn mended(keyword: &str, value: &str, text: &[Line]) -> String {
    let is_ours = |line: &&Line| line.file == Path::new(DROP_IN_PLACE);
    let ours = text.iter().position(|line| is_ours(&line));
    let Some(ours) = ours else {
        return "writ/install NAME".to_owned();
    };
    let other = text.iter().take(ours).find(|line| {
        // The global part gives way to a block by itself.
        line.within.is_some() && line.may_apply_to(RUNNER) && line.keyword.eq_ignore_ascii_case(keyword)
    });
    match other {
        Some(line) => line.comment_out(),
        None => {
            format!("sed -i -e '/^ *{keyword} /d' -e '/^Match User {RUNNER}/a\\    {keyword} {value}' {DROP_IN_PLACE}")
        }
    }
}

/// `text` is where a mended line would go.
pub(super) fn judge(sshd: &Sshd, text: &[Line], report: &mut Report) {
    let (other, others) = (&sshd.other.0, &sshd.other.1);
    for said in [&sshd.runner, &sshd.root, others] {
        if let Err(complaint) = said {
            let mend = if complaint.contains("privilege separation directory") {
                "install -d -m 755 /run/sshd"
            } else {
                "sshd -t"
            };
            report.finding(&CONFIG, format!("sshd does not say what it does: {complaint}"), mend);
            break;
        }
    }
    report.settle(&CONFIG, "sshd accepts its configuration");
    if let Ok(settings) = &sshd.runner {
        judge_runner(settings, text, report);
    }
    for (user, settings) in [("root", &sshd.root), (other.as_str(), others)] {
        if let Ok(settings) = settings {
            judge_other(user, settings, text, report);
        }
    }
    report.settle(&OTHERS, format!("root and {other} get nothing of the drop-in"));
}

fn judge_runner(settings: &Settings, text: &[Line], report: &mut Report) {
    let lost: Vec<_> = directives()
        .filter(|(name, wanted)| is_lost(settings, name, wanted))
        .collect();
    let number = directives().count();
    let is_read = text.iter().any(|line| line.file == Path::new(DROP_IN_PLACE));
    if lost.len() > number / 2 && !is_read {
        // One cause, one finding.
        let what = format!(
            "50-writ.conf is not read: {} of its directives are not in force",
            lost.len()
        );
        report.finding(&SETTINGS, what, "writ/install NAME");
    } else {
        for (name, wanted) in lost {
            let check = match name {
                "ForceCommand" => &FORCE_COMMAND,
                "AcceptEnv" | "SetEnv" => &ACCEPT_ENV,
                _ => &SETTINGS,
            };
            let found = settings.get(&name.to_lowercase());
            let said = found.map_or("not set".to_owned(), |values| format!("\"{}\"", values.join(" ")));
            let what = format!("{name} is {said} for {RUNNER}, not \"{wanted}\"");
            report.finding(check, what, mended(name, wanted, text));
        }
        report.settle(
            &SETTINGS,
            format!("all {number} directives of 50-writ.conf are in force for {RUNNER}"),
        );
        report.settle(&FORCE_COMMAND, format!("every login of {RUNNER} gets {AGENT_EXEC}"));
        report.settle(&ACCEPT_ENV, "no client can set an environment variable");
    }
    for (check, keyword, wanted, line) in [
        (
            &USER_ENVIRONMENT,
            "permituserenvironment",
            "no",
            "PermitUserEnvironment no",
        ),
        (&STRICT_MODES, "strictmodes", "yes", "StrictModes yes"),
    ] {
        let found = settings.get(keyword).map(|values| values.join(" "));
        if found.as_deref() != Some(wanted) {
            let found = found.unwrap_or_default();
            let mend = format!("sed -i '1i {line}' /etc/ssh/sshd_config && systemctl reload ssh");
            report.finding(check, format!("{keyword} is \"{found}\""), mend);
        }
        report.settle(check, line);
    }
}

/// Whether a directive of the drop-in is not in force.
fn is_lost(settings: &Settings, name: &str, wanted: &str) -> bool {
    match settings.get(&name.to_lowercase()) {
        Some(values) => !values.iter().map(String::as_str).eq([wanted]),
        // These can be left out of a build; then there is nothing to switch off.
        None => !matches!(name, "GSSAPIAuthentication" | "KerberosAuthentication"),
    }
}

fn judge_other(user: &str, settings: &Settings, text: &[Line], report: &mut Report) {
    for (name, ours) in [
        ("TrustedUserCAKeys", super::CA),
        ("AuthorizedPrincipalsFile", "/etc/writ/principals"),
        ("ForceCommand", AGENT_EXEC),
    ] {
        let keyword = name.to_lowercase();
        let found = settings
            .get(&keyword)
            .map(|values| values.join(" "))
            .unwrap_or_default();
        if !found.split_whitespace().any(|word| word == ours) {
            continue;
        }
        let culprit = text
            .iter()
            .find(|line| line.keyword == keyword && line.value == ours && line.file != Path::new(DROP_IN_PLACE));
        let mend = culprit.map_or_else(|| "writ/install NAME".to_owned(), Line::comment_out);
        report.finding(&OTHERS, format!("{name} is \"{ours}\" for {user} too"), mend);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A healthy target's answers.
    fn healthy() -> Sshd {
        let mut runner: Settings = directives()
            .map(|(keyword, value)| (keyword.to_lowercase(), vec![value.to_owned()]))
            .collect();
        runner.insert("strictmodes".to_owned(), vec!["yes".to_owned()]);
        runner.insert("permituserenvironment".to_owned(), vec!["no".to_owned()]);
        let root =
            parse("trustedusercakeys none\nforcecommand none\nauthorizedkeysfile .ssh/authorized_keys .ssh/other\n");
        Sshd {
            runner: Ok(runner),
            root: Ok(root.clone()),
            other: ("alice".to_owned(), Ok(root)),
        }
    }

    fn judged(sshd: &Sshd) -> Report {
        let mut report = Report::default();
        judge(sshd, &[], &mut report);
        report
    }

    #[test]
    fn a_healthy_sshd_gets_one_good_word_for_each_check() {
        let report = judged(&healthy());
        assert_eq!(report.found(), Vec::<&str>::new());
        let names: Vec<_> = report.said().iter().map(|said| said.check.name).collect();
        let all: Vec<_> = CHECKS.iter().map(|check| check.name).collect();
        assert_eq!(names, all);
        assert_eq!(directives().count(), 37);
    }

    #[test]
    fn each_directive_that_is_lost_is_named() {
        for (name, wanted) in directives() {
            let keyword = name.to_lowercase();
            let mut sshd = healthy();
            let found = vec![wanted.to_owned(), "another".to_owned()];
            sshd.runner.as_mut().unwrap().insert(keyword.clone(), found);
            let report = judged(&sshd);
            assert_eq!(report.count(super::super::Verdict::Finding), 1, "{keyword}");
            assert!(report.text().contains(name), "{keyword}");
            sshd.runner.as_mut().unwrap().remove(&keyword);
            let may_lack = matches!(keyword.as_str(), "gssapiauthentication" | "kerberosauthentication");
            assert_eq!(judged(&sshd).found().is_empty(), may_lack, "{keyword}");
        }
    }

    #[test]
    fn global_switches_and_other_accounts_are_looked_at() {
        for (keyword, value, name) in [
            ("strictmodes", "no", "strict_modes"),
            ("permituserenvironment", "yes", "user_environment"),
            ("permituserenvironment", "LANG,LC_*", "user_environment"),
        ] {
            let mut sshd = healthy();
            sshd.runner
                .as_mut()
                .unwrap()
                .insert(keyword.to_owned(), vec![value.to_owned()]);
            assert_eq!(judged(&sshd).found(), [name]);
        }
        let mut sshd = healthy();
        sshd.other.1 = Ok(parse("TrustedUserCAKeys /etc/writ/ca.pub"));
        assert_eq!(judged(&sshd).found(), ["other_accounts"]);
        sshd.root = Err("/etc/ssh/sshd_config line 3: Bad configuration option".to_owned());
        assert_eq!(judged(&sshd).found(), ["sshd_config", "other_accounts"]);
    }

    #[test]
    fn what_mends_a_directive_is_the_line_that_is_in_its_way() {
        let line = |file: &str, within: Option<&str>, keyword: &str| Line {
            file: Path::new(file).to_owned(),
            number: 4,
            within: within.map(str::to_owned),
            keyword: keyword.to_owned(),
            value: "x".to_owned(),
        };
        let ours = line(DROP_IN_PLACE, Some("user agent-runner"), "forcecommand");
        assert_eq!(mended("PermitTTY", "no", &[]), "writ/install NAME");
        let put_back = mended("PermitTTY", "no", std::slice::from_ref(&ours));
        assert_eq!(
            put_back,
            format!("sed -i -e '/^ *PermitTTY /d' -e '/^Match User agent-runner/a\\    PermitTTY no' {DROP_IN_PLACE}")
        );
        let global = line("/etc/ssh/sshd_config", None, "permittty");
        assert_eq!(mended("PermitTTY", "no", &[global.clone(), ours.clone()]), put_back);
        let earlier = line("/etc/ssh/sshd_config.d/10-x.conf", Some("all"), "permittty");
        assert_eq!(
            mended("PermitTTY", "no", &[global, earlier, ours]),
            "sed -i '4s/^/#/' /etc/ssh/sshd_config.d/10-x.conf"
        );
    }

    #[test]
    fn files_are_taken_from_what_sshd_says() {
        let mut sshd = healthy();
        assert_eq!(sshd.authorized_keys(), [".ssh/authorized_keys", ".ssh/other"]);
        assert_eq!(sshd.host_certificate(), None);
        sshd.root = Ok(parse("hostcertificate /etc/ssh/a-cert.pub\nauthorizedkeysfile none"));
        assert_eq!(sshd.host_certificate(), Some("/etc/ssh/a-cert.pub"));
        assert!(sshd.authorized_keys().is_empty());
    }
}
