//! What is shipped for the CA says what the CA does.

use ca::review;

use crate::room::{Room, SHIPPED_POLICY, file};
use crate::stand::DROP;

const UNIT: &str = include_str!("../../../deploy/ca/writ-ca.service");
const TLS: &str = include_str!("../../../deploy/ca/writ-ca-tls.conf");
const README: &str = include_str!("../../../deploy/ca/README.md");
const RELAY: &str = include_str!("../../../deploy/relay/README.md");
const HOST: &str = include_str!("../../../README.md");

#[test]
fn the_unit_runs_the_ca_as_its_own_account_without_a_network_and_gives_it_nothing() {
    for line in [
        "ExecStart=/usr/bin/writ-ca serve --config /etc/writ/ca.toml",
        "User=writ-ca",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "ProtectSystem=strict",
        "PrivateNetwork=yes",
        "RestrictAddressFamilies=AF_UNIX",
        "MemoryDenyWriteExecute=yes",
        "RestrictSUIDSGID=yes",
        "LimitCORE=0",
        "RestartPreventExitStatus=2",
    ] {
        assert!(UNIT.lines().any(|found| found == line), "{line}");
    }
    // Peers' uids would all read as nobody, and records name the boot id.
    for key in ["PrivateUsers=", "ProcSubset="] {
        assert!(!UNIT.lines().any(|line| line.starts_with(key)), "{key}");
    }
}

#[test]
fn the_drop_in_lets_nobody_in_who_is_not_named() {
    let set: Vec<&str> = TLS.lines().filter(|line| !line.starts_with('#')).collect();
    let wanted = [
        "[Service]",
        "PrivateNetwork=no",
        "RestrictAddressFamilies=AF_INET AF_INET6",
        "IPAddressAllow=localhost",
    ];
    assert_eq!(set, wanted);
    assert!(UNIT.lines().any(|line| line == "IPAddressDeny=any"));
    assert!(README.contains("/etc/systemd/system/writ-ca.service.d/writ-ca-tls.conf"));
}

#[test]
fn the_steps_name_every_folder_of_the_configuration_and_the_units_documentation() {
    let config = ca::config::Config::parse(include_str!("../../../deploy/ca/ca.toml")).unwrap();
    let socket = config.socket.parent().unwrap();
    for path in [
        &config.log_dir,
        &config.state_dir,
        &config.inventory,
        &config.catalogue_dir,
    ] {
        assert!(README.contains(path.to_str().unwrap()), "{}", path.display());
    }
    let writable = UNIT.lines().find(|line| line.starts_with("ReadWritePaths=")).unwrap();
    for path in [socket, &config.state_dir, &config.log_dir] {
        assert!(writable.contains(path.to_str().unwrap()), "{}", path.display());
    }
    let place = UNIT.lines().find_map(|line| line.strip_prefix("Documentation=file://"));
    assert!(README.contains(place.unwrap()), "{place:?}");
}

#[test]
fn the_steps_for_one_machine_and_those_for_services_are_the_same() {
    let has = |steps: &str, wanted: &str| steps.lines().any(|line| line.starts_with(wanted));
    for step in [
        "groupadd -f --system writ-logs",
        "useradd --system --user-group --home-dir / --shell /usr/sbin/nologin writ-ca",
    ] {
        assert!(has(README, step) && has(HOST, step), "{step}");
    }
    for step in [
        "groupadd -f --system writ-users",
        "useradd --system --user-group --groups writ-ca --home-dir / --shell /usr/sbin/nologin writ-relay",
    ] {
        assert!(has(RELAY, step) && has(HOST, step), "{step}");
    }
    for (made, folder) in [
        (
            "'d /run/writ-ca 2750 writ-ca writ-ca -'",
            "-o writ-ca -g writ-ca -m 2750 /run/writ-ca",
        ),
        (
            "'d /run/writ-relay 2750 writ-relay writ-users -'",
            "-o writ-relay -g writ-users -m 2750 /run/writ-relay",
        ),
    ] {
        assert!(README.contains(made) || RELAY.contains(made), "{made}");
        assert!(HOST.contains(folder), "{folder}");
    }
}

/// REQ-POLICY-8
#[test]
fn the_shipped_policy_decides_what_its_tests_say_and_has_nothing_to_look_at() {
    let mut room = Room::new();
    // As it is installed: no target is enrolled yet.
    std::fs::remove_file(&room.config.inventory).unwrap();
    let shipped = ca::config::Config::parse(include_str!("../../../deploy/ca/ca.toml")).unwrap();
    (room.config.relays, room.config.labels) = (shipped.relays, shipped.labels);
    let tests = room.dir.path().join("policy.test.toml");
    file(&tests, include_str!("../../../deploy/ca/policy.test.toml"));
    let tested = review::test(&room.config, &tests, None).unwrap();
    assert_eq!(tested.failed, None, "{}", tested.text);
    println!("{}", tested.text);
    let checked = review::check(&room.config, None).unwrap();
    assert_eq!(checked.failed, None, "{}", checked.text);

    // Its example is one: without the slashes it is a policy.
    let (_, example) = SHIPPED_POLICY.split_once("// For example: ").unwrap();
    let example = example.lines().skip(2).map(|line| line.trim_start_matches("// "));
    let example = example.collect::<Vec<_>>().join("\n");
    assert!(example.contains("\nforbid ("), "{example}");
    file(&room.config.policy, &format!("{SHIPPED_POLICY}\n{example}"));
    let checked = review::check(&room.config, None).unwrap();
    assert_eq!(checked.failed, None, "{}", checked.text);
}

/// REQ-POLICY-8
#[test]
fn the_examples_of_the_spec_are_a_policy_and_its_test() {
    const SPEC: &str = include_str!("../../../docs/spec/policy.md");
    let block = |kind: &str| {
        let (_, rest) = SPEC.split_once(&format!("```{kind}\n")).unwrap();
        rest.split_once("```").unwrap().0
    };
    let room = Room::with_policy(block("cedar"));
    file(&room.config.catalogue_dir.join("drop_table.toml"), DROP);
    let tests = room.dir.path().join("tests.toml");
    file(&tests, block("toml"));
    for reviewed in [
        review::check(&room.config, None),
        review::test(&room.config, &tests, None),
    ] {
        let reviewed = reviewed.unwrap();
        assert_eq!(reviewed.failed, None, "{}", reviewed.text);
    }
}
