//! `bastiond-fastpath`: loads the programs of the fast path, and ends. It is root, which the daemon is not.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use bastiond::cli::BastiondFastpath;
use bastiond::{FastpathOwner, exit, load_fastpath};
use clap::Parser;
use nix::unistd::User;

/// Why the owner is not known.
#[derive(Debug, thiserror::Error)]
enum OwnerError {
    #[error("there is no user {0}")]
    Unknown(String),
    #[error("cannot look up user {name}")]
    LookUp { name: String, source: nix::Error },
}

fn main() -> ExitCode {
    let arguments = match BastiondFastpath::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return exit::arguments(&error),
    };
    let owner = match arguments.owner.map(owner).transpose() {
        Ok(owner) => owner,
        Err(error) => return exit::failure(&error),
    };
    match load_fastpath(&arguments.directory, owner) {
        Ok(true) => println!("programs loaded below {}", arguments.directory.display()),
        Ok(false) => println!("programs are there below {}", arguments.directory.display()),
        Err(error) => return exit::failure(&error),
    }
    ExitCode::SUCCESS
}

fn owner(name: String) -> Result<FastpathOwner, OwnerError> {
    match User::from_name(&name) {
        Ok(Some(user)) => Ok((user.uid, user.gid)),
        Ok(None) => Err(OwnerError::Unknown(name)),
        Err(source) => Err(OwnerError::LookUp { name, source }),
    }
}
