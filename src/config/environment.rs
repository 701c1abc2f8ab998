//! The environment variables that bastiond reads, once at its start.

use std::path::PathBuf;

use super::secret::Secret;

/// The default directory of a BPF file system for the fast path's programs and maps.
pub(crate) const BPF_DIRECTORY: &str = "/sys/fs/bpf/bastiond";

/// The variables of the process. The names are those of the official Hetzner tools and of systemd, except
/// `HCLOUD_METADATA_ENDPOINT`, which is bastiond's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// `HCLOUD_ENDPOINT`: base URL of the API; overrides the file, as in hcloud-cli.
    pub hcloud_endpoint: Option<String>,
    /// `HCLOUD_TOKEN`: the API token.
    pub hcloud_token: Option<Secret>,
    /// `HCLOUD_TOKEN_FILE`: path of a file that holds the API token.
    pub hcloud_token_file: Option<PathBuf>,
    /// `HCLOUD_NETWORK`: number or name, as in the cloud controller manager.
    pub hcloud_network: Option<String>,
    /// `HCLOUD_METADATA_ENDPOINT`: base URL of the metadata service; overrides the file.
    pub hcloud_metadata_endpoint: Option<String>,
    /// `CREDENTIALS_DIRECTORY`: systemd's directory of credentials (`hcloud-token`, `wireguard-private-key`).
    pub credentials_directory: Option<PathBuf>,
    /// `RUNTIME_DIRECTORY`, which a reboot empties; default `/run/bastiond`.
    pub runtime_directory: Option<PathBuf>,
    /// `STATE_DIRECTORY`, which survives a reboot; default `/var/lib/bastiond`.
    pub state_directory: Option<PathBuf>,
    /// `BASTIOND_TUNNEL_UNIT`: the unit that listens for the tunnel's process and starts it; without it the daemon
    /// does.
    pub tunnel_unit: Option<String>,
    /// `BASTIOND_BPF_DIRECTORY`: the directory of a BPF file system that holds the fast path's programs; default
    /// `/sys/fs/bpf/bastiond`.
    pub bpf_directory: Option<PathBuf>,
}

impl Environment {
    /// Reads the environment of this process. Empty variables count as absent.
    pub fn from_process() -> Self {
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
            tunnel_unit: text("BASTIOND_TUNNEL_UNIT"),
            bpf_directory: path("BASTIOND_BPF_DIRECTORY"),
        }
    }

    /// The directory of the control socket and of files that need not survive a reboot.
    pub fn runtime_directory(&self) -> PathBuf {
        self.runtime_directory.clone().unwrap_or_else(|| PathBuf::from("/run/bastiond"))
    }

    /// The directory of the fast path's programs and maps.
    pub fn bpf_directory(&self) -> PathBuf {
        self.bpf_directory.clone().unwrap_or_else(|| PathBuf::from(BPF_DIRECTORY))
    }

    /// The directory of files that must survive a reboot.
    pub fn state_directory(&self) -> PathBuf {
        self.state_directory.clone().unwrap_or_else(|| PathBuf::from("/var/lib/bastiond"))
    }
}
