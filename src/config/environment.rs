//! The environment variables that bastiond reads, taken once at the start.

use std::path::PathBuf;

use super::Secret;

/// What the process' environment says. The names are those of the official Hetzner tools and of systemd, but for
/// `HCLOUD_METADATA_ENDPOINT`, which is our own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// `HCLOUD_ENDPOINT`: base URL of the API; wins over the file, as in hcloud-cli.
    pub hcloud_endpoint: Option<String>,
    /// `HCLOUD_TOKEN`
    pub hcloud_token: Option<Secret>,
    /// `HCLOUD_TOKEN_FILE`
    pub hcloud_token_file: Option<PathBuf>,
    /// `HCLOUD_NETWORK`: number or name, as in the cloud controller manager.
    pub hcloud_network: Option<String>,
    /// `HCLOUD_METADATA_ENDPOINT`: base URL of the metadata service; wins over the file.
    pub hcloud_metadata_endpoint: Option<String>,
    /// `CREDENTIALS_DIRECTORY`: where systemd puts `hcloud-token`.
    pub credentials_directory: Option<PathBuf>,
    /// `RUNTIME_DIRECTORY`: lost at reboot; `/run/bastiond` by default.
    pub runtime_directory: Option<PathBuf>,
    /// `STATE_DIRECTORY`: kept over reboots; `/var/lib/bastiond` by default.
    pub state_directory: Option<PathBuf>,
}

impl Environment {
    /// Reads the process' environment. Empty variables count as absent.
    pub fn of_process() -> Self {
        let text = |name: &str| std::env::var(name).ok().map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let path = |name: &str| text(name).map(PathBuf::from);
        Self {
            hcloud_endpoint: text("HCLOUD_ENDPOINT"),
            hcloud_token: text("HCLOUD_TOKEN").map(Secret::new),
            hcloud_token_file: path("HCLOUD_TOKEN_FILE"),
            hcloud_network: text("HCLOUD_NETWORK"),
            hcloud_metadata_endpoint: text("HCLOUD_METADATA_ENDPOINT"),
            credentials_directory: path("CREDENTIALS_DIRECTORY"),
            runtime_directory: path("RUNTIME_DIRECTORY"),
            state_directory: path("STATE_DIRECTORY"),
        }
    }

    /// Directory of the control socket and of what need not survive a reboot.
    pub fn runtime_directory(&self) -> PathBuf {
        self.runtime_directory.clone().unwrap_or_else(|| PathBuf::from("/run/bastiond"))
    }

    /// Directory of what must survive a reboot.
    pub fn state_directory(&self) -> PathBuf {
        self.state_directory.clone().unwrap_or_else(|| PathBuf::from("/var/lib/bastiond"))
    }
}
