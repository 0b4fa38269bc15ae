//! Machines that have never seen Writ, and a person who types README's commands on them.
//!
//! What is typed on the control host runs there as it stands. What is typed beside it (`ssh`, `scp`, `runuser`, `make`) is
//! found in a folder of stand-ins that reach the same machines without a network between them.

use std::fs::{self, Permissions};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::ids::{ROOT, Who};
use crate::root::Root;
use crate::spawn::run_ok;
use crate::target::{Accounts, Target};
use crate::world::World;

/// A person of the control host, in no group of Writ's yet.
pub const PERSON: Who = Who {
    name: "alice",
    uid: 64120,
    gid: 64120,
    groups: &[],
};

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy");

/// A control host with a built checkout in `/root/writ`, and one host with an sshd.
#[derive(Debug)]
pub struct Bare {
    /// The host that becomes a target.
    pub target: Target,
    control: Root,
    folder: PathBuf,
}

impl Bare {
    /// Builds both; the target's sshd runs, as on any host.
    pub fn build(target: &str) -> Result<Bare> {
        let world = World::here()?;
        let folder = world.new_folder()?;
        let people = [(PERSON, "/bin/sh")];
        let groups = [(PERSON.name, PERSON.gid)];
        let control = Root::build(&world, folder.join("control"), "control", &people, &groups)?;
        // Every distribution has this file; runuser does nothing without it.
        let pam = "auth sufficient pam_rootok.so\naccount required pam_permit.so\nsession required pam_permit.so\n";
        control.file("etc/pam.d/runuser", 0o644, pam)?;
        let built = world.target_package()?;
        let built = built.parent().context("the package lies in a folder")?;
        for (from, inside) in [
            (built, "root/writ/target/stack"),
            (Path::new(DEPLOY), "root/writ/deploy"),
        ] {
            control.bind_folder(from, inside)?;
        }
        let ip = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));
        let mut target = Target::bare(&world, &folder, target, ip, Accounts::Made)?;
        target.as_root("/usr/bin/ssh-keygen", &["-A"], b"")?;
        target.start_sshd()?;
        let bare = Bare {
            target,
            control,
            folder,
        };
        bare.stand_ins(&world, built)?;
        Ok(bare)
    }

    /// The control host's file system.
    pub fn control(&self) -> &Root {
        &self.control
    }

    /// Commands typed by root of the control host, in the checkout; a command that fails ends them.
    pub fn typed_on_control(&self, commands: &str) -> Command {
        let mut command = self.control.door().command(ROOT, "/bin/sh");
        command.args(["-euc", &format!("cd /root/writ\n{commands}")]);
        command
    }

    /// Runs commands typed beside the control host, in a checkout, by somebody who reaches both machines.
    pub fn type_beside(&self, commands: &str) -> Result<()> {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-euc", commands])
            .current_dir(self.folder.join("checkout"))
            .env_clear()
            .env(
                "PATH",
                format!("{}:/usr/bin:/bin", self.folder.join("stand-ins").display()),
            );
        let done = run_ok("the commands", command, b"");
        done.with_context(|| self.errors_of_runuser())?;
        Ok(())
    }

    /// What the last `runuser` that was typed beside the control host wrote to its standard error.
    pub fn errors_of_runuser(&self) -> String {
        fs::read_to_string(self.folder.join("runuser.err")).unwrap_or_default()
    }

    fn stand_ins(&self, world: &World, built: &Path) -> Result<()> {
        let harness = world.program("harness")?;
        let (inside, folder) = (harness.display(), self.folder.display());
        let here = self.folder.join("stand-ins");
        fs::create_dir(&here)?;
        for (name, does) in [
            // The words of a command line are joined by spaces, as ssh does it.
            (
                "ssh",
                format!(
                    "host=$1; shift; [ \"$1\" != sudo ] || shift\n\
                     exec '{inside}' inside --root '{folder}'/\"$host\" --hostname \"$host\" -- /bin/sh -c \"cd /root && $*\""
                ),
            ),
            (
                "scp",
                format!("[ $# = 3 ] && [ \"$1\" = -r ]\nexec cp -r \"$2\" '{folder}'/\"${{3%%:*}}/root/${{3#*:}}\""),
            ),
            (
                "runuser",
                format!(
                    "exec '{inside}' inside --root '{folder}'/control --hostname control -- /usr/sbin/runuser \"$@\" 2>'{folder}'/runuser.err"
                ),
            ),
            // It was made before.
            (
                "make",
                "[ \"$*\" = target-package ] && [ -x target/stack/target/install ]".to_owned(),
            ),
        ] {
            fs::write(here.join(name), format!("#!/bin/sh -eu\n{does}\n"))?;
            fs::set_permissions(here.join(name), Permissions::from_mode(0o755))?;
        }
        fs::create_dir_all(self.folder.join("checkout/target"))?;
        symlink(built, self.folder.join("checkout/target/stack"))?;
        // No systemd runs there: what reloads the unit sends this signal.
        let pid = self.target.sshd_pid().context("no sshd")?;
        let reload = format!("#!/bin/sh -eu\n[ \"$*\" = 'reload ssh' ]\nkill -HUP {pid}\n");
        self.target.root().file("usr/sbin/systemctl", 0o755, reload)
    }
}
