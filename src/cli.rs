//! The arguments of `bastiond` and `bastionctl`. The comments are their `--help`.

mod peer;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Parser;
use ipnet::IpNet;

use crate::config::{BPF_DIRECTORY, DEFAULT_PATH};

pub use peer::{AddPeer, ClientOutput, Destination, PeerCommand};

/// NAT gateway, firewall and VPN access for private Hetzner Cloud networks.
///
/// Makes this server the gateway of its private networks and keeps it configured: IP forwarding, the nftables table
/// `inet bastiond`, and the routes in the Hetzner Networks. SIGHUP reloads the configuration. SIGTERM stops the daemon
/// and leaves rules and routes in place; `bastionctl down` removes them. With a wrong or missing file a start uses the
/// configuration that was applied last, and says so. Exit code 78 means that there is none: nothing was changed.
#[derive(Debug, Parser)]
#[command(name = "bastiond", version)]
pub struct Bastiond {
    /// Configuration file. An empty file is valid: everything is discovered.
    #[arg(long, value_name = "PATH", global = true, default_value = DEFAULT_PATH)]
    pub config: PathBuf,
    /// Run this task instead of the daemon.
    #[command(subcommand)]
    pub subcommand: Option<Subcommand>,
}

/// A task that `bastiond` runs instead of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Subcommand)]
pub enum Subcommand {
    /// Load the last good rules and exit; for a unit that runs before the network is up.
    ///
    /// Without saved rules, or if they cannot be loaded, nothing is forwarded, and this server itself stays reachable
    /// as the configuration says. An existing table is not changed.
    Boot,
    /// Record the ports that sshd listens on and exit; for a unit that can read all of sshd's configuration.
    ///
    /// The daemon cannot read every file of sshd's configuration. The unit runs before the daemon, and again whenever
    /// that configuration changes.
    SshPorts,
    /// Print the kernel settings that the daemon has changed and exit; for the package's removal.
    ///
    /// One line each: the path below /proc/sys, the former value, and the daemon's.
    SavedSettings,
}

/// Load the BPF programs of bastiond's fast path and exit; for a unit that the daemon asks for.
///
/// The programs and their maps stay as files of a BPF file system, which belong to the daemon's account. The daemon
/// attaches them to links and takes them away; loading them attaches nothing. Needs root, or its capabilities for BPF,
/// performance monitoring and network administration.
#[derive(Debug, Parser)]
#[command(name = "bastiond-fastpath", version)]
pub struct BastiondFastpath {
    /// Directory of a BPF file system; made if it is missing.
    #[arg(long, value_name = "PATH", default_value = BPF_DIRECTORY)]
    pub directory: PathBuf,
    /// The user that the files belong to. Default: the caller.
    #[arg(long, value_name = "USER")]
    pub owner: Option<String>,
}

/// Show and control the running bastiond.
///
/// Exit codes of every command: 0 done, 1 not done or not all of it, 3 the daemon does not answer, 64 wrong arguments,
/// 78 the configuration is wrong. `status` and `reconcile`: 0 healthy, 1 waiting, 2 degraded.
#[derive(Debug, Parser)]
#[command(name = "bastionctl", version)]
pub struct Bastionctl {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
    /// Configuration file [default: /etc/bastiond/config.toml]. `plan` plans this file, also while a daemon runs with
    /// another one.
    #[arg(long, value_name = "PATH", global = true)]
    pub config: Option<PathBuf>,
    /// The daemon's control socket [default: control.sock in `$RUNTIME_DIRECTORY` or /run/bastiond; for members of
    /// group bastiond-monitor, who may read the status, /run/bastiond-monitor/status.sock].
    #[arg(long, value_name = "PATH", global = true)]
    pub socket: Option<PathBuf>,
}

impl Bastionctl {
    /// The configuration file.
    pub fn config_path(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(DEFAULT_PATH))
    }
}

/// A command of `bastionctl`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Subcommand)]
pub enum Command {
    /// Show gateway status. Exit code 0: healthy; 1: waiting; 2: degraded; 3: the daemon does not answer.
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check the configuration file without applying it. Exit code 78: it has errors.
    Check,
    /// Show what a configuration file would change, without changing it.
    ///
    /// That is the file of `--config`, or else the one that the daemon was started with. First come the differences to
    /// the configuration that runs (`+` added, `-` removed, `~` changed), then the steps, then the problems that the
    /// gateway would have. Exit code 0: without problems; 1: with problems, or there is no plan; 78: the file is wrong.
    Plan {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Exit with 0 if there is nothing to do, with 2 if there are changes, with 1 if the plan could not be made
        /// completely. Problems do not count.
        #[arg(long)]
        exit_code: bool,
    },
    /// Reconcile now, wait until that is done, and show the status, with its exit codes.
    Reconcile {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Lift the ban on a source that made too many login attempts. Exit code 1: the source was not banned.
    Unban {
        /// The banned address. For IPv6, any address of the banned /64, or the /64 itself.
        #[arg(value_parser = parse_banned_source)]
        address: IpAddr,
    },
    /// Add, show and change peers of the tunnel: people, devices and sites.
    ///
    /// Peers are files in `peers.d`, beside the configuration file; only these are changed, and comments in them stay.
    /// For a peer that is written elsewhere, the place to edit is named. Changes are checked before they are written,
    /// and applied at once; other peers keep their sessions. Exit code 3: the change is written, and the daemon does not
    /// run, so it is applied when the daemon starts.
    Peer {
        /// What to do.
        #[command(subcommand)]
        command: PeerCommand,
    },
    /// Remove everything that bastiond created (cloud routes, rules, settings) and stop it.
    ///
    /// Private hosts lose their connection to the internet.
    Down,
}

/// An address, or the range that the status shows for a banned source.
fn parse_banned_source(text: &str) -> Result<IpAddr, String> {
    let is_source = |range: IpNet| matches!((range, range.prefix_len()), (IpNet::V4(_), 32) | (IpNet::V6(_), 64 | 128));
    let range = || text.parse().ok().filter(|range| is_source(*range)).map(|range: IpNet| range.addr());
    text.parse().ok().or_else(range).ok_or_else(|| "this is not an address".to_owned())
}
