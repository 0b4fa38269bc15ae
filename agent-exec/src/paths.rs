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
    if about.st_nlink != 1 {
        return Err(refused("it has more than one name"));
    }
    Ok(File::from(file))
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

    #[test]
    fn a_newline_is_a_character_like_any_other() {
        let tree = Tree::new("newline");
        fs::write(tree.0.join("ok/a\nb"), "x").unwrap();
        assert_eq!(tree.open("BASE/ok/a\nb"), Ok("x".to_owned()));
    }
}
