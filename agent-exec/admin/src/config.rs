//! `target.toml`, as agent-exec reads it: what is wrong with it is told here before a request would find out.

use std::collections::BTreeMap;

use catalogue::{Probe, ProbeName};
use serde::Deserialize;
use wire::ids::TargetName;

/// The keys of `target.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The target's name: the principal of certificates for it.
    pub target: TargetName,
    /// The account that logs in.
    pub runner_uid: u32,
    /// Its group.
    pub runner_gid: u32,
    /// The account that owns the receipt key.
    pub exec_uid: u32,
    /// The longest certificate that is accepted, in seconds.
    pub task_max_lifetime_s: Option<u64>,
    /// Whether only security keys approve.
    #[serde(default)]
    pub require_touch: bool,
    /// Health checks by name.
    #[serde(default)]
    pub probe: BTreeMap<ProbeName, Probe>,
}

impl Config {
    /// Reads the file's text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        let most = wire::limits::TASK_CERTIFICATE_MAX_S;
        if config
            .task_max_lifetime_s
            .is_some_and(|lifetime| !(1..=most).contains(&lifetime))
        {
            return Err(format!("task_max_lifetime_s must be 1 to {most}"));
        }
        if config.runner_uid == config.exec_uid {
            return Err("runner_uid and exec_uid must differ: actions must not own their log".to_owned());
        }
        if config.runner_uid == 0 || config.exec_uid == 0 || config.runner_gid == 0 {
            return Err("runner_uid, runner_gid and exec_uid must not be root's".to_owned());
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_example_is_read() {
        let config = Config::parse(include_str!("../../../deploy/target/target.toml.example")).unwrap();
        assert_eq!(config.target.as_str(), "web-1");
    }

    #[test]
    fn ids_that_would_undo_the_separation_are_refused() {
        let text = |runner: u32, group: u32, exec: u32| {
            format!("target = \"a\"\nrunner_uid = {runner}\nrunner_gid = {group}\nexec_uid = {exec}\n")
        };
        assert!(Config::parse(&text(990, 990, 991)).is_ok());
        for (runner, group, exec) in [(990, 990, 990), (0, 990, 991), (990, 0, 991), (990, 990, 0)] {
            assert!(
                Config::parse(&text(runner, group, exec)).is_err(),
                "{runner} {group} {exec}"
            );
        }
        assert!(Config::parse(&(text(990, 990, 991) + "task_max_lifetime_s = 901\n")).is_err());
        assert!(Config::parse(&(text(990, 990, 991) + "debug = true\n")).is_err());
    }
}
