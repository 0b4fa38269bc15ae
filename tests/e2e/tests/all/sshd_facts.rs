//! What OpenSSH's own tools say about the shipped configuration and about a certificate of the CA.

use std::collections::BTreeMap;
use std::process::Command;

use crate::STACK;

/// What `sshd -T` must say for a login of agent-runner: all of the drop-in.
const DROP_IN: &[(&str, &str)] = &[
    ("trustedusercakeys", "/etc/writ/ca.pub"),
    ("casignaturealgorithms", "ssh-ed25519"),
    ("authorizedprincipalsfile", "/etc/writ/principals"),
    ("revokedkeys", "/etc/writ/krl"),
    ("pubkeyacceptedalgorithms", "ssh-ed25519-cert-v01@openssh.com"),
    ("authenticationmethods", "publickey"),
    ("pubkeyauthentication", "yes"),
    ("authorizedprincipalscommand", "none"),
    ("authorizedkeysfile", "none"),
    ("authorizedkeyscommand", "none"),
    ("passwordauthentication", "no"),
    ("kbdinteractiveauthentication", "no"),
    ("hostbasedauthentication", "no"),
    ("gssapiauthentication", "no"),
    ("kerberosauthentication", "no"),
    ("permitemptypasswords", "no"),
    ("maxauthtries", "3"),
    ("forcecommand", "/usr/libexec/writ/agent-exec"),
    ("exposeauthinfo", "yes"),
    ("permittty", "no"),
    ("permituserrc", "no"),
    ("disableforwarding", "yes"),
    ("allowtcpforwarding", "no"),
    ("allowstreamlocalforwarding", "no"),
    ("allowagentforwarding", "no"),
    ("x11forwarding", "no"),
    ("permittunnel", "no"),
    ("permitopen", "none"),
    ("permitlisten", "none"),
    ("gatewayports", "no"),
    ("acceptenv", "_NOBODY_SENDS_THIS_"),
    ("setenv", "LANG=C"),
    ("maxsessions", "32"),
    ("clientaliveinterval", "15"),
    ("clientalivecountmax", "2"),
    ("unusedconnectiontimeout", "300"),
    ("loglevel", "VERBOSE"),
];

fn says(user: &str) -> BTreeMap<String, String> {
    let text = STACK.target("web-1").unwrap().sshd_says(user).unwrap();
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(key, value)| (key.to_lowercase(), value.to_owned()))
        .collect()
}

/// REQ-SESSION-4
#[test]
fn sshd_says_every_directive_of_the_drop_in_for_agent_runner() {
    let effective = says("agent-runner");
    for (key, value) in DROP_IN {
        match effective.get(*key) {
            Some(said) => assert_eq!(said, value, "{key}"),
            // Support for these two can be left out of a build; then there is nothing to switch off.
            None => assert!(
                matches!(*key, "gssapiauthentication" | "kerberosauthentication"),
                "{key} is not said"
            ),
        }
    }
    let shipped = include_str!("../../../../sshd/50-writ.conf");
    let directives = shipped
        .lines()
        .filter(|line| line.starts_with("    ") && !line.trim().starts_with('#'))
        .count();
    assert_eq!(
        directives,
        DROP_IN.len(),
        "a directive of the drop-in is not in this table"
    );
}

#[test]
fn sshd_gives_the_ca_no_other_account() {
    for user in ["root", "stranger"] {
        let effective = says(user);
        assert_eq!(effective["trustedusercakeys"], "none", "{user}");
        assert_eq!(effective["forcecommand"], "none", "{user}");
    }
}

/// REQ-CERT-8, REQ-CERT-10, REQ-CERT-16
#[test]
fn a_minted_certificate_says_what_the_design_says() {
    let task = STACK.open_task("web-1").unwrap();
    let login = STACK.login(&task.key, &task.certificate).unwrap();
    let output = Command::new("ssh-keygen")
        .arg("-L")
        .arg("-f")
        .arg(login.certificate_file())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let after = |title: &str| lines[lines.iter().position(|line| line.starts_with(title)).unwrap() + 1];

    assert!(
        lines.contains(&"Type: ssh-ed25519-cert-v01@openssh.com user certificate"),
        "{text}"
    );
    assert!(
        lines.contains(&format!("Key ID: \"{}\"", task.task_id).as_str()),
        "{text}"
    );
    let ca = STACK.control.task_ca().unwrap().public().fingerprint();
    assert!(text.contains(&format!("Signing CA: ED25519 {ca}")), "{text}");
    assert_eq!(after("Principals:"), "web-1");
    assert!(lines.contains(&"force-command /usr/libexec/writ/agent-exec"), "{text}");
    assert!(lines.contains(&"source-address 127.0.0.0/8"), "{text}");
    assert!(
        after("Extensions:").starts_with("grant@writ.internal UNKNOWN OPTION"),
        "{text}"
    );
    assert!(!text.contains("permit-"), "{text}");
    let serial: u64 = lines
        .iter()
        .find_map(|line| line.strip_prefix("Serial: "))
        .unwrap()
        .parse()
        .unwrap();
    assert!(serial > 0 && serial < 1 << 63);

    let valid = lines.iter().find(|line| line.starts_with("Valid: from ")).unwrap();
    let minted = ssh_key::Certificate::from_openssh(&task.certificate).unwrap();
    // Five minutes of life, and back-dated by the tolerance.
    assert_eq!(minted.valid_before() - minted.valid_after(), 330, "{valid}");
}
