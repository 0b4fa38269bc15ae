//! sudo on a target, as a distribution installs it. In a user namespace the machine's own belongs to nobody, and sudo and its
//! plugin must be root's: so they are copies, which the world's root owns.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::root::Root;

const SUDO: &str = "/usr/bin/sudo";
/// Where Debian 12, Ubuntu 22.04 and later have its plugin and its library.
pub(crate) const PLUGINS: &str = "/usr/libexec/sudo";

/// Debian's own, without the lines for people.
const SUDOERS: &str = "Defaults\tenv_reset\nDefaults\tmail_badpass\n\
    Defaults\tsecure_path=\"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"\nDefaults\tuse_pty\n\
    root\tALL=(ALL:ALL) ALL\n%sudo\tALL=(ALL:ALL) ALL\n@includedir /etc/sudoers.d\n";

/// What Debian's comes to on a host without further modules.
const PAM: &str = "session required pam_limits.so\nauth required pam_deny.so\naccount required pam_unix.so\n\
    session required pam_permit.so\n";

/// Installs it.
pub(crate) fn install(root: &Root) -> Result<()> {
    ensure!(
        Path::new(SUDO).is_file() && Path::new(PLUGINS).is_dir(),
        "sudo is missing, or has no {PLUGINS}: tests/harness/setup installs it on Debian 12, Ubuntu 22.04 or later"
    );
    // A link to the machine's own is in its place.
    fs::remove_file(root.at(SUDO)).context("failed to make room for sudo")?;
    root.file(SUDO, 0o4755, fs::read(SUDO)?)?;
    for entry in fs::read_dir(PLUGINS)? {
        let entry = entry?;
        // Links become what they lead to: the library's short names.
        let bytes = fs::read(entry.path())?;
        root.file(&format!("{PLUGINS}/{}", entry.file_name().display()), 0o644, bytes)?;
    }
    root.folder("run/sudo", 0o711, (0, 0))?;
    root.folder("var/lib/sudo", 0o700, (0, 0))?;
    root.folder("etc/sudoers.d", 0o750, (0, 0))?;
    root.file("etc/sudoers", 0o440, SUDOERS)?;
    root.file("etc/pam.d/sudo", 0o644, PAM)?;
    root.file(
        "etc/pam.d/other",
        0o644,
        "auth required pam_deny.so\naccount required pam_deny.so\n",
    )
}
