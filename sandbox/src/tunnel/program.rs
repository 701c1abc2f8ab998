//! The programs that run WireGuard in userspace, and their options for staying in the foreground and logging errors.

use std::path::{Path, PathBuf};

use super::error::Error;

/// A program that runs a WireGuard interface in userspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
    arguments: &'static [&'static str],
    hint: &'static str,
}

/// How to install the programs from crates.io.
const INSTALL_HINT: &str = "run scripts/install-test-clients";
/// Where that script installs them, unless `BASTIOND_TEST_CLIENTS` is set.
const CLIENTS_DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/test-clients");

impl Program {
    /// This project's `bastiond-tunnel`.
    pub fn bastiond_tunnel(path: &Path) -> Self {
        Self { path: path.to_owned(), arguments: &["--foreground"], hint: "run cargo build" }
    }

    /// Debian's `wireguard-go`.
    pub fn wireguard_go() -> Self {
        // An absolute path, so that no other build of it in PATH is used.
        let path = PathBuf::from("/usr/bin/wireguard-go");
        Self { path, arguments: &["--foreground"], hint: "run apt install wireguard-go" }
    }

    /// `boringtun-cli`.
    pub fn boringtun() -> Self {
        // Otherwise it drops privileges to the user who is logged in.
        let arguments = &["--foreground", "--disable-drop-privileges"];
        Self { path: client("boringtun-cli"), arguments, hint: INSTALL_HINT }
    }

    /// `gotatun` of gotatun-cli.
    pub fn gotatun() -> Self {
        let arguments = &["--foreground", "--disable-drop-privileges", "--verbosity", "error"];
        Self { path: client("gotatun"), arguments, hint: INSTALL_HINT }
    }

    /// The path of the program.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is installed.
    pub fn is_installed(&self) -> bool {
        self.path.exists()
    }

    pub(super) fn arguments(&self) -> &'static [&'static str] {
        self.arguments
    }

    pub(super) fn require(&self) -> Result<(), Error> {
        if self.is_installed() { Ok(()) } else { Err(Error::Missing { path: self.path.clone(), hint: self.hint }) }
    }
}

fn client(name: &str) -> PathBuf {
    let directory =
        std::env::var_os("BASTIOND_TEST_CLIENTS").map_or_else(|| PathBuf::from(CLIENTS_DIRECTORY), PathBuf::from);
    directory.join("bin").join(name)
}
