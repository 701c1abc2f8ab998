//! The arguments of `bastiond` and `bastionctl`; the comments are their help.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use ipnet::IpNet;

use crate::config::DEFAULT_PATH;

/// NAT gateway, firewall and way in for private Hetzner Cloud networks.
///
/// Makes this server the gateway of its private networks and keeps it so: forwarding, the nftables table `inet bastiond`, and
/// the routes in the Hetzner Networks. SIGHUP reloads the configuration; SIGTERM ends the daemon and leaves rules and routes in
/// place (`bastionctl down` removes them). Exit code 78: the configuration is wrong, nothing was touched.
#[derive(Debug, Parser)]
#[command(name = "bastiond", version)]
pub struct Bastiond {
    /// The configuration file. An empty one is valid: everything is discovered.
    #[arg(long, value_name = "PATH", global = true, default_value = DEFAULT_PATH)]
    pub config: PathBuf,
    /// Something else than to run.
    #[command(subcommand)]
    pub errand: Option<Errand>,
}

/// What `bastiond` can do instead of running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Errand {
    /// Loads the rules that were good last, for a unit that runs before the network is up; then ends. Without such rules, or
    /// if they cannot be loaded, nothing is forwarded and this server itself stays reachable as the configuration says. A table
    /// that stands is left alone.
    Boot,
    /// Notes which ports sshd listens on, for a daemon that may not read all of sshd's configuration; then ends. For a unit that
    /// may, and that runs before the daemon and whenever that configuration changes.
    SshPorts,
}

/// Looks at and steers the running bastiond.
#[derive(Debug, Parser)]
#[command(name = "bastionctl", version)]
pub struct Bastionctl {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// The configuration file.
    #[arg(long, value_name = "PATH", global = true, default_value = DEFAULT_PATH)]
    pub config: PathBuf,
    /// The daemon's control socket [default: control.sock in `$RUNTIME_DIRECTORY` or /run/bastiond].
    #[arg(long, value_name = "PATH", global = true)]
    pub socket: Option<PathBuf>,
}

/// What `bastionctl` can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// How the gateway stands. Exit code 0: healthy, 1: something is wrong or the daemon does not run.
    Status {
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// Checks the configuration file; nothing is touched. Exit code 78: it is wrong.
    Check,
    /// What a reload of the configuration file would change; nothing is done.
    Plan {
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// A pass now; waits for its end and shows the status.
    Reconcile {
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// Lets somebody log in again who tried too often. Exit code 1: was not banned.
    Unban {
        /// An address; of IPv6 any address of the banned /64, or the /64 itself.
        #[arg(value_parser = banned_source)]
        address: IpAddr,
    },
    /// Removes everything that bastiond made (routes in the cloud, rules, settings) and ends it. Private hosts lose their way out.
    Down,
}

/// An address, or what the status shows for it.
fn banned_source(text: &str) -> Result<IpAddr, String> {
    let of_range = |range: IpNet| matches!((range, range.prefix_len()), (IpNet::V4(_), 32) | (IpNet::V6(_), 64 | 128));
    let range = || text.parse().ok().filter(|range| of_range(*range)).map(|range: IpNet| range.addr());
    text.parse().ok().or_else(range).ok_or_else(|| "this is no address".to_owned())
}
