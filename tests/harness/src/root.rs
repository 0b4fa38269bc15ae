//! One machine's root file system on a tmpfs: the host's programs read-only, everything that Writ owns its own.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};

use crate::ids::{SSHD, Who, account_files};
use crate::inside::Door;
use crate::world::World;

const NO: Option<&str> = None;

/// Programs of `/usr/bin` that actions of tests run.
const ACTION_PROGRAMS: [&str; 16] = [
    "cat",
    "dd",
    "echo",
    "env",
    "false",
    "head",
    "journalctl",
    "perl",
    "setpriv",
    "sleep",
    "sv",
    "systemctl",
    "tail",
    "timeout",
    "true",
    "yes",
];

/// A root file system; unmounted when the value goes.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    door: Door,
}

impl Root {
    /// Builds it at `path`, which must not exist, with these accounts (and their shells) and groups.
    pub(crate) fn build(
        world: &World,
        path: PathBuf,
        hostname: &str,
        accounts: &[(Who, &str)],
        groups: &[(&str, u32)],
    ) -> Result<Root> {
        fs::create_dir(&path).with_context(|| format!("failed to make {}", path.display()))?;
        mount(Some("root"), &path, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
            .context("failed to mount a tmpfs")?;
        let door = Door {
            harness: world.program("harness")?,
            root: path.clone(),
            hostname: hostname.to_owned(),
        };
        let root = Root { path, door };
        // Shared, so that a disk which a test mounts here later appears inside the namespaces of the running processes.
        mount(NO, &root.path, NO, MsFlags::MS_SHARED, NO).context("failed to share the root's mount")?;
        root.system().context("failed to lay the system's folders")?;
        root.devices().context("failed to lay /dev")?;
        let mut all = vec![(SSHD, "/usr/sbin/nologin")];
        all.extend_from_slice(accounts);
        for (file, mode, text) in account_files(&all, groups) {
            root.file(file, mode, text)?;
        }
        root.file("etc/hostname", 0o644, format!("{hostname}\n"))?;
        root.file("etc/hosts", 0o644, format!("127.0.0.1 localhost {hostname}\n"))?;
        root.file(
            "etc/nsswitch.conf",
            0o644,
            "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
        )?;
        Ok(root)
    }

    /// Where the tree is, seen from the harness.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path of the tree, seen from the harness.
    pub fn at(&self, inside: &str) -> PathBuf {
        self.path.join(inside.trim_start_matches('/'))
    }

    /// The way in.
    pub fn door(&self) -> &Door {
        &self.door
    }

    /// Makes a folder with this owner and mode; its parents root's, 0755.
    pub fn folder(&self, inside: &str, mode: u32, who: (u32, u32)) -> Result<()> {
        let path = self.at(inside);
        fs::create_dir_all(&path).with_context(|| format!("failed to make {}", path.display()))?;
        chown(&path, Some(who.0), Some(who.1))?;
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        Ok(())
    }

    /// Writes a file of root's.
    pub fn file(&self, inside: &str, mode: u32, contents: impl AsRef<[u8]>) -> Result<()> {
        self.file_of(inside, mode, (0, 0), contents)
    }

    /// Writes a file with this owner and mode.
    pub fn file_of(&self, inside: &str, mode: u32, who: (u32, u32), contents: impl AsRef<[u8]>) -> Result<()> {
        let path = self.at(inside);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, contents).with_context(|| format!("failed to write {}", path.display()))?;
        chown(&path, Some(who.0), Some(who.1))?;
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        Ok(())
    }

    /// Makes a program of the harness's appear in the tree, read-only.
    pub(crate) fn bind_program(&self, from: &Path, inside: &str) -> Result<()> {
        self.file(inside, 0o755, "")?;
        bind_read_only(from, &self.at(inside))
    }

    /// Makes a folder of the harness's appear in the tree, read-only.
    pub(crate) fn bind_folder(&self, from: &Path, inside: &str) -> Result<()> {
        self.folder(inside, 0o755, (0, 0))?;
        bind_read_only(from, &self.at(inside))
    }

    /// Mounts a small disk of its own on a folder of the tree, keeping the folder's owner and mode. What was in it is hidden.
    pub fn small_disk(&self, inside: &str, kib: u32) -> Result<()> {
        use std::os::unix::fs::MetadataExt as _;
        let path = self.at(inside);
        let meta = fs::metadata(&path)?;
        let options = format!(
            "size={kib}k,mode={:o},uid={},gid={}",
            meta.mode() & 0o7777,
            meta.uid(),
            meta.gid()
        );
        mount(
            Some("disk"),
            &path,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .with_context(|| format!("failed to mount a disk of {kib} KiB on {}", path.display()))
    }

    /// Like [`Self::small_disk`], and what was in the folder moves to the new disk.
    pub(crate) fn move_to_small_disk(&self, inside: &str, kib: u32) -> Result<()> {
        use std::os::unix::fs::MetadataExt as _;
        let mut files = Vec::new();
        for entry in fs::read_dir(self.at(inside))? {
            let entry = entry?;
            let meta = entry.metadata()?;
            files.push((
                entry.file_name(),
                meta.mode() & 0o7777,
                (meta.uid(), meta.gid()),
                fs::read(entry.path())?,
            ));
        }
        self.small_disk(inside, kib)?;
        for (name, mode, who, contents) in files {
            self.file_of(&format!("{inside}/{}", name.display()), mode, who, contents)?;
        }
        Ok(())
    }

    /// Changes how a folder of the tree is mounted (`MS_NOSUID`, `MS_RDONLY`), by a mount of its own where it has none.
    pub fn remount(&self, inside: &str, flags: MsFlags) -> Result<()> {
        let path = self.at(inside);
        bind(&path, &path)?;
        mount(NO, &path, NO, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags, NO).context("failed to remount")
    }

    /// Takes off what `small_disk` or `remount` put on a folder.
    pub fn unmount(&self, inside: &str) -> Result<()> {
        umount2(&self.at(inside), MntFlags::MNT_DETACH).context("failed to unmount")
    }

    fn system(&self) -> Result<()> {
        for (folder, mode) in [
            ("etc", 0o755),
            ("root", 0o700),
            ("home", 0o755),
            ("proc", 0o555),
            ("sys", 0o555),
            ("run", 0o755),
            ("run/sshd", 0o755),
            ("tmp", 0o1777),
            ("usr", 0o755),
            ("usr/libexec", 0o755),
            ("usr/share", 0o755),
            ("usr/bin", 0o755),
            ("usr/sbin", 0o755),
            ("var", 0o755),
            ("var/lib", 0o755),
            ("var/log", 0o755),
            ("var/tmp", 0o1777),
        ] {
            self.folder(folder, mode, (0, 0))?;
        }
        // The host's programs and libraries, not its data; what Writ installs lies on the tree itself.
        for entry in fs::read_dir("/usr")? {
            let name = entry?.file_name();
            match name.to_str() {
                Some("libexec" | "share" | "src" | "games" | "bin" | "sbin") | None => {}
                Some(name) => self.mirror(&Path::new("/usr").join(name), &format!("usr/{name}"))?,
            }
        }
        self.children_of("/usr/libexec", "usr/libexec")?;
        for name in ["bin", "sbin"] {
            self.link_programs(name)?;
        }
        for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
            let path = Path::new("/").join(name);
            if path.symlink_metadata().is_ok() {
                self.mirror(&path, name)?;
            }
        }
        for file in ["etc/ld.so.cache", "etc/ld.so.conf", "etc/login.defs", "etc/localtime"] {
            if let Ok(contents) = fs::read(Path::new("/").join(file)) {
                self.file(file, 0o644, contents)?;
            }
        }
        bind(Path::new("/proc"), &self.at("proc"))
    }

    /// A folder of the tree (an installation puts a program there) with the host's programs behind links; those that actions
    /// of tests run are copies. In a user namespace the machine's files and folders belong to nobody, and a target runs only
    /// what is root's and lies in folders of root's.
    fn link_programs(&self, name: &str) -> Result<()> {
        let (host, behind) = (Path::new("/usr").join(name), format!("usr/lib-{name}"));
        self.folder(&behind, 0o755, (0, 0))?;
        bind_read_only(&host, &self.at(&behind))?;
        for entry in fs::read_dir(&host)? {
            let program = entry?.file_name();
            let place = format!("usr/{name}/{}", program.display());
            let action = program
                .to_str()
                .is_some_and(|program| ACTION_PROGRAMS.contains(&program));
            match fs::canonicalize(host.join(&program)) {
                Ok(from) if action => self.file(&place, 0o755, fs::read(from)?)?,
                _ => symlink(Path::new("/").join(&behind).join(&program), self.at(&place))?,
            }
        }
        Ok(())
    }

    fn children_of(&self, from: &str, inside: &str) -> Result<()> {
        for entry in fs::read_dir(from).into_iter().flatten() {
            let name = entry?.file_name();
            if let Some(name) = name.to_str().filter(|name| !matches!(*name, "writ" | "sudo")) {
                self.mirror(&Path::new(from).join(name), &format!("{inside}/{name}"))?;
            }
        }
        Ok(())
    }

    /// The same in the tree as on the host: a link stays a link, a folder or file is bound read-only.
    fn mirror(&self, from: &Path, inside: &str) -> Result<()> {
        let meta = from.symlink_metadata()?;
        let to = self.at(inside);
        if meta.is_symlink() {
            symlink(fs::read_link(from)?, &to)?;
            return Ok(());
        }
        if meta.is_dir() {
            fs::create_dir_all(&to)?
        } else {
            fs::write(&to, "")?
        }
        bind_read_only(from, &to)
    }

    fn devices(&self) -> Result<()> {
        self.folder("dev", 0o755, (0, 0))?;
        for name in ["null", "zero", "full", "random", "urandom", "tty"] {
            let from = Path::new("/dev").join(name);
            if from.exists() {
                self.file(&format!("dev/{name}"), 0o666, "")?;
                bind(&from, &self.at(&format!("dev/{name}")))?;
            }
        }
        self.folder("dev/pts", 0o755, (0, 0))?;
        mount(
            Some("devpts"),
            &self.at("dev/pts"),
            Some("devpts"),
            MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
            Some("newinstance,ptmxmode=0666"),
        )
        .context("failed to mount devpts")?;
        symlink("pts/ptmx", self.at("dev/ptmx"))?;
        symlink("/proc/self/fd", self.at("dev/fd"))?;
        self.folder("dev/shm", 0o1777, (0, 0))
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&self.path);
    }
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(Some(from), to, NO, MsFlags::MS_BIND | MsFlags::MS_REC, NO)
        .with_context(|| format!("failed to bind {} to {}", from.display(), to.display()))
}

fn bind_read_only(from: &Path, to: &Path) -> Result<()> {
    bind(from, to)?;
    // In a user namespace a remount must repeat what the machine's own mount forbids already.
    let has = statvfs(to)?.flags();
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    for (fs_flag, ms_flag) in [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
    ] {
        if has.contains(fs_flag) {
            flags |= ms_flag;
        }
    }
    match mount(NO, to, NO, flags, NO) {
        Ok(()) => Ok(()),
        Err(error) => bail!("failed to make {} read-only: {error}", to.display()),
    }
}
