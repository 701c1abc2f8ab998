//! The arguments of `bastiond-tunnel`. The comments are its `--help`.

use clap::Parser;

use crate::interface::InterfaceName;

/// WireGuard interface in userspace.
///
/// Creates the TUN interface and its control socket, /var/run/wireguard/INTERFACE.sock, and continues in the
/// background. Configure keys and peers with wg(8). To use it with wg-quick(8), set
/// WG_QUICK_USERSPACE_IMPLEMENTATION=bastiond-tunnel; where the kernel has WireGuard, wg-quick ignores that and uses
/// the kernel's (`ip -d link show INTERFACE` says `wireguard` then, and not `tun`). The program ends on SIGTERM or
/// SIGINT, and when the interface or the socket is removed.
#[derive(Debug, Parser)]
#[command(name = "bastiond-tunnel", version, after_long_help = TUNNEL_ENVIRONMENT)]
pub struct BastiondTunnel {
    /// Name of the interface.
    #[arg(required_unless_present = "controlled")]
    pub interface: Option<InterfaceName>,
    /// Carry the packets of bastiond's tunnel. Interface, sockets and keys come from the daemon, which connects to the
    /// listening socket at standard input. systemd and bastiond use this.
    #[arg(long, conflicts_with_all = ["interface", "foreground"])]
    pub controlled: bool,
    /// Stay in the foreground.
    #[arg(short, long)]
    pub foreground: bool,
}

/// The variables have the names of wireguard-go's.
const TUNNEL_ENVIRONMENT: &str = "\
Environment:
  WG_PROCESS_FOREGROUND=1  stay in the foreground
  LOG_LEVEL                silent, error, info or verbose; default: warnings and errors.
                           In the background, logs are written only if it is set
  WG_TUN_FD                descriptor of an open TUN interface, or of each of its queues (3,4)
  WG_UAPI_FD               descriptor of a listening control socket";
