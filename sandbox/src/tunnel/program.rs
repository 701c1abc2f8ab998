//! Whose program it is, and how it is started so that it stays in the foreground and says what goes wrong.

use std::path::{Path, PathBuf};

use super::Error;

/// A program that is a WireGuard interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
    arguments: &'static [&'static str],
    hint: &'static str,
}

/// What installs programs from crates.io, and where to: `$BASTIOND_TEST_CLIENTS`, else this directory.
const INSTALLS: &str = "scripts/install-test-clients installs it";
const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/test-clients");

impl Program {
    /// Ours, `bastiond-tunnel`.
    pub fn bastiond_tunnel(path: &Path) -> Self {
        Self { path: path.to_owned(), arguments: &["--foreground"], hint: "cargo builds it" }
    }

    /// Debian's `wireguard-go`.
    pub fn wireguard_go() -> Self {
        // Not looked for in PATH: Debian's is meant, not what somebody built.
        let path = PathBuf::from("/usr/bin/wireguard-go");
        Self { path, arguments: &["--foreground"], hint: "apt install wireguard-go" }
    }

    /// `boringtun-cli`.
    pub fn boringtun() -> Self {
        // It would else become the user who is logged in.
        let arguments = &["--foreground", "--disable-drop-privileges"];
        Self { path: client("boringtun-cli"), arguments, hint: INSTALLS }
    }

    /// `gotatun` of gotatun-cli.
    pub fn gotatun() -> Self {
        let arguments = &["--foreground", "--disable-drop-privileges", "--verbosity", "error"];
        Self { path: client("gotatun"), arguments, hint: INSTALLS }
    }

    /// Where it lies.
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
    let directory = std::env::var_os("BASTIOND_TEST_CLIENTS").map_or_else(|| PathBuf::from(CLIENTS), PathBuf::from);
    directory.join("bin").join(name)
}
