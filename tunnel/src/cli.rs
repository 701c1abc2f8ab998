//! The arguments of `bastiond-tunnel`; the comments are its help.

use clap::Parser;

use crate::interface::InterfaceName;

/// A WireGuard interface in userspace, and nothing else.
///
/// Makes the TUN interface and its control socket, /var/run/wireguard/INTERFACE.sock, and goes on in the background; keys and
/// peers come from wg(8). For wg-quick(8): WG_QUICK_USERSPACE_IMPLEMENTATION=bastiond-tunnel. It ends on SIGTERM or SIGINT, and
/// when the interface or the socket is removed.
#[derive(Debug, Parser)]
#[command(name = "bastiond-tunnel", version, after_long_help = TUNNEL_ENVIRONMENT)]
pub struct BastiondTunnel {
    /// The interface's name.
    pub interface: InterfaceName,
    /// Stay in the foreground.
    #[arg(short, long)]
    pub foreground: bool,
}

/// The names are those of wireguard-go.
const TUNNEL_ENVIRONMENT: &str = "\
Environment:
  WG_PROCESS_FOREGROUND=1  stay in the foreground
  LOG_LEVEL                silent, error, info or verbose; nothing said: warnings and errors.
                           In the background, there are logs only when it is set
  WG_TUN_FD                the descriptor of an open TUN interface, or of each of its queues (3,4)
  WG_UAPI_FD               the descriptor of a control socket that listens";
