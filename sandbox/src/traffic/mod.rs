//! Traffic with real packets, and eyes to see where it goes.
//!
//! | who asks | what it shows | who answers |
//! |---|---|---|
//! | [`tcp_probe`], [`udp_probe`] | whether one exchange works, and under which address it arrives | [`Mirror`] |
//! | [`ping`] | ICMP echo, TTL and errors | the kernel |
//! | [`Flood`] | every single packet lost, and the longest silence | [`Mirror::udp`] |
//! | [`Held`] | a connection that must survive | [`Mirror::tcp`] |
//! | [`download`] | a long transfer, byte for byte | [`Source`] |
//! | [`Stream`] | a transfer that must go on | [`Source`] |
//! | [`Sniffer`] | what crosses a link, or does not | |
//! | [`Blaster`] | how many packets a second pass | [`Sink`] |
//! | [`offer`] | how many of so many datagrams a second pass | |
//! | [`churn`] | how many new connections a second pass | [`Echo`] |
//!
//! All of them live in threads inside namespaces, on plain sockets. Nothing waits for ever: probes have time-outs, and
//! what is started stops when it is dropped.

mod blast;
mod churn;
mod conntrack;
mod flood;
mod held;
mod mirror;
mod offered;
mod packet;
mod ping;
mod probe;
mod sniffer;
mod stream;
mod transfer;

use std::io;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

pub use blast::{Blaster, Flow, Sent, Sink};
pub use churn::{Churned, Echo, churn};
pub use conntrack::forget_flows;
pub use flood::{Flood, FloodReport};
pub use held::Held;
pub use mirror::Mirror;
pub use offered::{Delivered, Offered, offer};
pub use packet::{Arp, Direction, Ip, Packet, Tcp};
pub use ping::{Fragmentation, Ping, PingReport, Reply, ping};
pub use probe::{ProbeFailure, tcp_connects, tcp_probe, udp_probe, udp_probe_from};
pub use sniffer::{Sniffer, syns};
pub use stream::{Stream, StreamReport};
pub use transfer::{Download, DownloadFailure, Source, download};

/// How often a thread that waits for packets looks whether it should stop.
const LOOK_UP: Duration = Duration::from_millis(50);

/// Makes every wait on a socket, `accept` included, end after [`LOOK_UP`].
fn wait_briefly(socket: &impl std::os::fd::AsFd) -> io::Result<()> {
    let timeout = TimeVal::milliseconds(i64::try_from(LOOK_UP.as_millis()).expect("a moment fits"));
    Ok(setsockopt(socket, sockopt::ReceiveTimeout, &timeout)?)
}

/// Whether a wait ended for no other reason than [`wait_briefly`].
fn only_waited(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
