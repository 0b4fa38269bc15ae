//! Paths that an action names: opened once, beneath an allowed directory, and never looked up again.
//!
//! The kernel walks the path (`openat2(2)`): no `..` out of the directory, no symbolic link at any place, no magic link, no
//! other mount. Then it must be a regular file with one name, because a second name may stand for a file elsewhere.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{SFlag, fstat};
use wire::Code;

/// Why a path was not opened, for the Outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct PathRefused {
    /// `path_refused` or `path_not_found`.
    pub code: Code,
    /// What is wrong with it. It never says what lies outside the allowed directories.
    pub message: String,
}

/// Opens a file for reading beneath one of the allowed directories, with the rights that the process has now.
///
/// # Errors
/// [`PathRefused`].
pub(crate) fn open(path: &str, within: &[PathBuf]) -> Result<File, PathRefused> {
    let (directory, rest) = split(Path::new(path), within)?;
    let directory = open_directory(directory)?;
    let how = OpenHow::new()
        // NONBLOCK: a FIFO must not hold us, and it means nothing for a regular file.
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS
                | ResolveFlag::RESOLVE_NO_XDEV,
        );
    let file = openat2(directory.as_fd(), rest, how).map_err(explain)?;
    let about = fstat(file.as_fd()).map_err(explain)?;
    if SFlag::from_bits_truncate(about.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Err(refused("it is not a regular file"));
    }
    match about.st_nlink {
        1 => Ok(File::from(file)),
        // Taken away since it was opened: nothing has that name.
        0 => Err(explain(Errno::ENOENT)),
        _ => Err(refused("it has more than one name")),
    }
}

/// Finds the allowed directory that a path lies beneath, by its words alone.
fn split<'a>(path: &'a Path, within: &'a [PathBuf]) -> Result<(&'a Path, &'a Path), PathRefused> {
    let text = path.as_os_str().as_encoded_bytes();
    let plain = path
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    // `components` hides `//`, `/./` and a trailing `/`: each would be a second spelling of the same path.
    let spelled = text.starts_with(b"/") && !text.ends_with(b"/") && !text.windows(2).any(|two| two == b"//");
    if !plain || !spelled || text.windows(3).any(|three| three == b"/./") || text.ends_with(b"/.") {
        return Err(refused(
            "it must be absolute and plain: no .., no ., no doubled or trailing slash",
        ));
    }
    within
        .iter()
        .find_map(|directory| {
            path.strip_prefix(directory)
                .ok()
                .map(|rest| (directory.as_path(), rest))
        })
        .filter(|(_, rest)| !rest.as_os_str().is_empty())
        .ok_or_else(|| refused("it is not beneath a directory that the action allows"))
}

/// Opens an allowed directory itself. It is named by root's manifest, so mounts are fine; links are not, because another
/// account might own one.
fn open_directory(path: &Path) -> Result<OwnedFd, PathRefused> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(nix::fcntl::AT_FDCWD, path, how).map_err(explain)
}

fn refused(message: &str) -> PathRefused {
    PathRefused {
        code: Code::PathRefused,
        message: message.to_owned(),
    }
}

fn explain(errno: Errno) -> PathRefused {
    let message = match errno {
        Errno::ENOENT | Errno::ENOTDIR => {
            return PathRefused {
                code: Code::PathNotFound,
                message: "there is no such file".to_owned(),
            };
        }
        Errno::ELOOP => "there is a symbolic link in it",
        Errno::EXDEV => "it leaves its directory or its file system",
        Errno::EACCES | Errno::EPERM => "the account that actions run as may not read it",
        Errno::ENXIO => "it is not a regular file",
        Errno::ENAMETOOLONG => "it is too long",
        _ => return refused(errno.desc()),
    };
    refused(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    struct Tree(PathBuf);

    impl Tree {
        /// `ok/file` may be read; everything else is there to lead out of it.
        fn new(name: &str) -> Self {
            let base = std::env::temp_dir().join(format!("writ-paths-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&base);
            fs::create_dir_all(base.join("ok/deep")).unwrap();
            fs::create_dir_all(base.join("ok-evil")).unwrap();
            for file in ["ok/file", "ok/deep/file", "ok-evil/file", "secret"] {
                fs::write(base.join(file), file).unwrap();
            }
            Self(base.canonicalize().unwrap())
        }

        fn open(&self, path: &str) -> Result<String, Code> {
            let path = path.replace("BASE", self.0.to_str().unwrap());
            let mut text = String::new();
            let mut file = open(&path, &[self.0.join("ok")]).map_err(|error| error.code)?;
            file.read_to_string(&mut text).unwrap();
            Ok(text)
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_beneath_the_directory_is_read() {
        let tree = Tree::new("read");
        assert_eq!(tree.open("BASE/ok/file"), Ok("ok/file".to_owned()));
        assert_eq!(tree.open("BASE/ok/deep/file"), Ok("ok/deep/file".to_owned()));
        assert_eq!(tree.open("BASE/ok/none"), Err(Code::PathNotFound));
    }

    #[test]
    fn every_other_spelling_and_every_way_out_is_refused() {
        let tree = Tree::new("out");
        symlink(tree.0.join("secret"), tree.0.join("ok/link")).unwrap();
        symlink(&tree.0, tree.0.join("ok/up")).unwrap();
        fs::hard_link(tree.0.join("secret"), tree.0.join("ok/hard")).unwrap();
        nix::unistd::mkfifo(&tree.0.join("ok/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let table = [
            ("path_prefix_sibling", "BASE/ok-evil/file"),
            ("path_dotdot", "BASE/ok/../secret"),
            ("path_dotdot within", "BASE/ok/deep/../file"),
            ("path_symlink_final", "BASE/ok/link"),
            ("path_symlink_mid", "BASE/ok/up/secret"),
            ("path_magic", "/proc/self/root/etc/passwd"),
            ("path_fifo", "BASE/ok/fifo"),
            ("path_device", "/dev/null"),
            ("path_hardlink", "BASE/ok/hard"),
            ("the directory itself", "BASE/ok"),
            ("a directory", "BASE/ok/deep"),
            ("relative", "ok/file"),
            ("empty", ""),
            ("doubled slash", "BASE/ok//file"),
            ("trailing slash", "BASE/ok/file/"),
            ("dot", "BASE/ok/./file"),
            ("elsewhere", "/etc/passwd"),
        ];
        for (name, path) in table {
            assert_eq!(tree.open(path), Err(Code::PathRefused), "{name}");
        }
        println!("{} attacks, {} refused", table.len(), table.len());
    }

    /// Each by the kernel alone: the files have one name each, and the words of the path are in order.
    #[test]
    fn the_kernel_itself_refuses_links_magic_links_and_other_mounts() {
        let tree = Tree::new("kernel");
        fs::write(tree.0.join("other"), "other").unwrap();
        symlink(tree.0.join("other"), tree.0.join("ok/link")).unwrap();
        symlink("file", tree.0.join("ok/inside")).unwrap();
        let refused = |path: &str, within: &str| {
            let path = path.replace("BASE", tree.0.to_str().unwrap());
            let within = PathBuf::from(within.replace("BASE", tree.0.to_str().unwrap()));
            open(&path, &[within]).unwrap_err().message
        };
        for path in ["BASE/ok/link", "BASE/ok/inside"] {
            assert_eq!(refused(path, "BASE/ok"), "there is a symbolic link in it", "{path}");
        }
        assert_eq!(
            refused("/proc/self/root/etc/passwd", "/proc"),
            "there is a symbolic link in it"
        );
        assert_eq!(
            refused("/proc/version", "/"),
            "it leaves its directory or its file system"
        );
        // The allowed directory itself is no link and no file either.
        symlink(tree.0.join("ok"), tree.0.join("alias")).unwrap();
        assert_eq!(
            refused("BASE/alias/file", "BASE/alias"),
            "there is a symbolic link in it"
        );
        assert_eq!(refused("BASE/secret/file", "BASE/secret"), "there is no such file");
    }

    #[test]
    fn what_the_kernel_says_is_said_in_words() {
        let table = [
            (Errno::ENOENT, Code::PathNotFound, "no such file"),
            (Errno::ENOTDIR, Code::PathNotFound, "no such file"),
            (Errno::ELOOP, Code::PathRefused, "symbolic link"),
            (Errno::EXDEV, Code::PathRefused, "leaves its directory"),
            (Errno::EACCES, Code::PathRefused, "may not read"),
            (Errno::EPERM, Code::PathRefused, "may not read"),
            (Errno::ENXIO, Code::PathRefused, "not a regular file"),
            (Errno::ENAMETOOLONG, Code::PathRefused, "it is too long"),
            (Errno::EIO, Code::PathRefused, "I/O error"),
        ];
        for (errno, code, text) in table {
            let told = explain(errno);
            assert!(told.code == code && told.message.contains(text), "{errno}: {told:?}");
        }
    }

    #[test]
    fn nothing_that_was_opened_outlives_an_execve() {
        use nix::fcntl::{FcntlArg, FdFlag, fcntl};
        let tree = Tree::new("cloexec");
        let closes = |fd: &dyn AsFd| {
            let flags = FdFlag::from_bits_retain(fcntl(fd.as_fd(), FcntlArg::F_GETFD).unwrap());
            flags.contains(FdFlag::FD_CLOEXEC)
        };
        let path = tree.0.join("ok/file");
        assert!(closes(&open(path.to_str().unwrap(), &[tree.0.join("ok")]).unwrap()));
        let folder = open_directory(&tree.0).unwrap();
        assert!(closes(&folder));
        let flags = OFlag::from_bits_retain(fcntl(&folder, FcntlArg::F_GETFL).unwrap());
        assert!(flags.contains(OFlag::O_PATH), "a folder need not be readable");
    }

    #[test]
    fn a_newline_is_a_character_like_any_other() {
        let tree = Tree::new("newline");
        fs::write(tree.0.join("ok/a\nb"), "x").unwrap();
        assert_eq!(tree.open("BASE/ok/a\nb"), Ok("x".to_owned()));
    }
}
