//! With whose rights the log's files are opened.
//!
//! A process that rests as somebody else (agent-exec does) takes the rights of the log's owner for exactly one open and
//! gives them back. Everything else here works on descriptors that are already open and needs no rights at all.

use std::fs::File;
use std::io;

/// How a file is opened.
pub trait Rights: Send + Sync {
    /// Runs `open` once, with the rights of the log's owner.
    ///
    /// # Errors
    /// Whatever `open` says; a switch of rights that cannot be undone must end the process rather than return.
    fn with(&self, open: &mut dyn FnMut() -> io::Result<File>) -> io::Result<File>;
}

/// The process's own rights: for a program that runs as the log's owner.
#[derive(Debug, Clone, Copy)]
pub struct Own;

impl Rights for Own {
    fn with(&self, open: &mut dyn FnMut() -> io::Result<File>) -> io::Result<File> {
        open()
    }
}
