//! Every binary with verbs says what it is and how it is used; every tier runs the same build.

use harness::{ALICE, EvilRelay, ROOT};

use crate::STACK;

#[test]
fn every_binary_with_verbs_has_help_and_a_version_with_its_build() {
    let target = STACK.target("web-1").unwrap();
    let session = EvilRelay::start(&STACK, "web-1").unwrap();
    let build = session.hello["build"].as_str().unwrap().to_owned();
    assert!(!build.is_empty());
    for program in ["writ-relay", "writ-ca", "writ-audit", "writ-target"] {
        let ask = |flag: &str| {
            let output = match program {
                "writ-target" => target.run(ROOT, "/usr/sbin/writ-target", &[flag], b""),
                name => STACK.control.run(ALICE, name, &[flag], b""),
            };
            let output = output.unwrap();
            assert!(output.status.success(), "{program} {flag}");
            String::from_utf8(output.stdout).unwrap()
        };
        let version = ask("--version");
        assert!(version.starts_with(program), "{version}");
        assert!(
            version.contains(&build),
            "{version} is not of agent-exec's build {build}"
        );
        assert!(ask("--help").contains("Usage: "), "{program}");
    }
}
