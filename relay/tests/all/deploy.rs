//! What is shipped for the relay says what the relay does.

const UNIT: &str = include_str!("../../../deploy/relay/writ-relay.service");
const README: &str = include_str!("../../../deploy/relay/README.md");

#[test]
fn the_unit_runs_the_relay_as_its_own_account_and_gives_it_nothing() {
    for line in [
        "ExecStart=/usr/bin/writ-relay serve",
        "User=writ-relay",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "ProtectSystem=strict",
        "MemoryDenyWriteExecute=yes",
        "RestrictSUIDSGID=yes",
        "StateDirectoryMode=0700",
        "LimitCORE=0",
        "RestartPreventExitStatus=2",
    ] {
        assert!(UNIT.lines().any(|found| found == line), "{line}");
    }
}

#[test]
fn the_unit_waits_longer_than_a_drain_takes() {
    let limits = relay::limits::Limits::default();
    let waits = UNIT.lines().find_map(|line| line.strip_prefix("TimeoutStopSec="));
    let longest = limits.drain + relay::serve::SETTLE + relay::serve::LEAVE;
    assert!(waits.unwrap().parse::<u64>().unwrap() > longest.as_secs());
}

#[test]
fn the_steps_name_every_folder_of_the_configuration() {
    let config = relay::config::Config::parse(include_bytes!("../../../deploy/relay/relay.toml")).unwrap();
    for path in [
        &config.log_dir,
        &config.state_dir,
        &config.inventory,
        &config.catalogue_dir,
    ] {
        assert!(README.contains(path.to_str().unwrap()), "{}", path.display());
    }
    assert!(README.contains(config.socket.parent().unwrap().to_str().unwrap()));
    let place = UNIT.lines().find_map(|line| line.strip_prefix("Documentation=file://"));
    assert!(README.contains(place.unwrap()), "{place:?}");
}
