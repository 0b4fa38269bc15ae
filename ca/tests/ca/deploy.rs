//! What is shipped for the CA says what the CA does.

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
