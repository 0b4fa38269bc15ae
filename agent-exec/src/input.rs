//! What a program reads: the file that a request names, or nothing.

use std::os::fd::OwnedFd;

use catalogue::{FileArg, FileRule};
use wire::Code;

use crate::error::Refusal;
use crate::part::Part;
use crate::{paths, pin, program};

/// A standard input, opened.
#[must_use]
pub(crate) struct Input {
    /// The descriptor.
    pub(crate) stdin: OwnedFd,
    /// What stands around the output in the file, where the output is a part of it.
    pub(crate) part: Option<Part>,
}

/// Opens the file that a request names, beneath the folders that its rule allows; approved by its content, a copy of it.
/// Where the output is to be the file's bytes from an offset on, what stands before it is read here.
///
/// # Errors
/// `path_refused`, `path_not_found`, `file_changed`.
pub(crate) fn open(file: FileArg<'_>, rule: &FileRule, offset: Option<u64>) -> Result<Input, Refusal> {
    let opened = paths::open(file.path, rule.within()).and_then(|opened| match file.sha256 {
        Some(sha256) => pin::pin(opened, sha256),
        None => Ok(opened),
    });
    let opened = opened.map_err(|error| Refusal::because(error.code, format!("{}: {}", file.name, error.message)))?;
    let part = offset.map(|start| Part::of(opened.try_clone()?, start)).transpose();
    let part = part
        .map_err(|error| Refusal::because(Code::PathRefused, format!("{}: failed to read it: {error}", file.name)))?;
    Ok(Input {
        stdin: opened.into(),
        part,
    })
}

/// An input that is at its end.
///
/// # Errors
/// `internal` where the machine has no /dev/null.
pub(crate) fn none() -> Result<Input, Refusal> {
    let stdin = program::no_input().map_err(|error| Refusal::because(Code::Internal, format!("/dev/null: {error}")))?;
    Ok(Input { stdin, part: None })
}
