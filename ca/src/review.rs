//! `writ-ca policy …`: for whoever writes the policy. Reads what a start would read of it, and no key, no log; changes
//! nothing.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use catalogue::{Catalogue, Inventory};
use std::sync::Arc;

use crate::config::Config;
use crate::error::told;
use crate::inventory::Shelf;
use crate::policy::{self, Policy, World};
use crate::policy_file::read_trusted;
use crate::start::{each, load_catalogue};

/// What a verb says.
pub struct Reviewed {
    /// For standard output.
    pub text: String,
    /// Why all is not well, if it is not.
    pub failed: Option<String>,
}

/// What a policy is looked at with.
struct Surroundings {
    catalogue: Catalogue,
    inventory: Arc<Inventory>,
}

impl Surroundings {
    fn read(config: &Config) -> Result<Self, Vec<String>> {
        let catalogue = load_catalogue(&config.catalogue_dir);
        let inventory = Shelf::new(&config.inventory)
            .current()
            .map_err(|error| vec![told(&error)]);
        match (catalogue, inventory) {
            (Ok(catalogue), Ok(inventory)) => Ok(Self { catalogue, inventory }),
            (catalogue, inventory) => Err([catalogue.err(), inventory.err()]
                .into_iter()
                .flatten()
                .flatten()
                .collect()),
        }
    }

    fn world(&self, config: &Config) -> World<'_> {
        World::new(config, &self.catalogue, &self.inventory)
    }
}

/// Looks at a policy: the configured one, or another file.
///
/// # Errors
/// Every fault for which a start would refuse it.
pub fn check(config: &Config, file: Option<&Path>) -> Result<Reviewed, Vec<String>> {
    let around = Surroundings::read(config)?;
    let world = around.world(config);
    let (path, policy) = load(config, file, &world)?;
    let findings = policy.findings(&world);
    let mut text = String::new();
    for finding in &findings {
        text.push_str(&format!("{}: {finding}\n", path.display()));
    }
    if policy.count() == 0 {
        text.push_str("there is no policy in it: everything is denied\n");
    }
    for (action, how) in policy.summary(&world) {
        text.push_str(&format!("{action}: judged {how}\n"));
    }
    text.push_str(&format!("{} policies, digest {}\n", policy.count(), policy.digest()));
    let failed = match findings.len() {
        0 => None,
        count => Some(format!(
            "failed to find nothing to look at in {}: {count} findings, above",
            path.display()
        )),
    };
    Ok(Reviewed { text, failed })
}

/// Compares what a policy decides with what a file expects.
///
/// # Errors
/// What is wrong with the policy or the file: then nothing was judged.
pub fn test(config: &Config, tests: &Path, file: Option<&Path>) -> Result<Reviewed, Vec<String>> {
    let around = Surroundings::read(config)?;
    let world = around.world(config);
    let (_, policy) = load(config, file, &world)?;
    let expected = read(tests, policy::test::MAX_BYTES).map_err(|what| vec![what])?;
    let refused = |faults: Vec<String>| each("accept the tests", tests, &faults);
    let expected = String::from_utf8(expected).map_err(|_| refused(vec!["not UTF-8; write it anew".to_owned()]))?;
    let report = policy::test::run(&expected, &policy, &world, &around.inventory).map_err(refused)?;
    let count = report.lines.len();
    let mut text = report.lines.join("\n");
    text.push_str(&format!("\n{count} decisions, {} as expected\n", count - report.failed));
    let failed = match report.failed {
        0 => None,
        failed => Some(format!(
            "failed to find every decision of {} as expected: {failed} are not; mend the policy, or what is expected of it",
            tests.display()
        )),
    };
    Ok(Reviewed { text, failed })
}

/// What a policy may speak of here.
///
/// # Errors
/// What is wrong with the catalogue or the inventory.
pub fn schema(config: &Config) -> Result<Reviewed, Vec<String>> {
    let around = Surroundings::read(config)?;
    let text = policy::schema::text(&around.world(config)).map_err(|what| vec![what])?;
    Ok(Reviewed { text, failed: None })
}

fn load<'a>(config: &'a Config, file: Option<&'a Path>, world: &World<'_>) -> Result<(&'a Path, Policy), Vec<String>> {
    let (path, bytes) = match file {
        // Not in force: whose it is matters when it is put in its place.
        Some(path) => (path, read(path, policy::MAX_BYTES as u64)),
        None => (&*config.policy, read_trusted(&config.policy, policy::MAX_BYTES as u64)),
    };
    let bytes = bytes.map_err(|what| vec![what])?;
    let policy = Policy::load(&bytes, world).map_err(|faults| each("accept the policy", path, &faults))?;
    Ok((path, policy))
}

fn read(path: &Path, max: u64) -> Result<Vec<u8>, String> {
    let failed = |what: &dyn std::fmt::Display| format!("failed to read {}: {what}", path.display());
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(max + 1).read_to_end(&mut bytes))
        .map_err(|error| failed(&error))?;
    if bytes.len() as u64 > max {
        return Err(failed(&format_args!("it has more than {max} bytes; shorten it")));
    }
    Ok(bytes)
}
