//! Why a system call did not do what it was asked for, in the words that are known from other programs.

use rustix::io::Errno;

/// What the C library says of each error, one a line, from 1 on. They are the same on all architectures that Linux has
/// gained since 2008.
const TEXTS: &str = include_str!("errors.txt");

/// An error of the system's, or one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Error {
    /// What the kernel answered.
    System(Errno),
    /// What we made of it.
    Told(&'static str),
}

/// Or an error.
pub(crate) type Result<T> = core::result::Result<T, Error>;

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Error::System(errno)
    }
}

/// The words for an error number, without the number.
pub(crate) fn text(errno: Errno) -> &'static str {
    usize::try_from(errno.raw_os_error())
        .ok()
        .and_then(|number| TEXTS.lines().nth(number.checked_sub(1)?))
        .unwrap_or("Unknown error")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_as_the_standard_library_tells_them() {
        for number in 1..=133 {
            let theirs = std::io::Error::from_raw_os_error(number).to_string();
            let ours = text(Errno::from_raw_os_error(number));
            assert_eq!(theirs, format!("{ours} (os error {number})"));
        }
        assert_eq!(text(Errno::from_raw_os_error(4000)), "Unknown error");
    }
}
