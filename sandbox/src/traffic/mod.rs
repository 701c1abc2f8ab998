//! Traffic with real packets, and eyes to see where it goes.
//!
//! | who asks | what it shows | who answers |
//! |---|---|---|
//! | [`tcp_probe`], [`udp_probe`] | whether one exchange works, and under which address it arrives | [`Reflector`] |
//! | [`ping`] | ICMP echo, TTL and errors | the kernel |
//! | [`Flood`] | every single packet lost, and the longest silence | [`Reflector::udp`] |
//! | [`HeldConnection`] | a connection that must survive | [`Reflector::tcp`] |
//! | [`download`] | a long transfer, byte for byte | [`DownloadServer`] |
//! | [`ContinuousDownload`] | a transfer that must go on | [`DownloadServer`] |
//! | [`Sniffer`] | what crosses a link, or does not | |
//! | [`PacketGenerator`] | how many packets a second pass | [`Sink`] |
//! | [`offer_load`] | how many of so many datagrams a second pass | |
//! | [`churn`] | how many new connections a second pass | [`EchoServer`] |
//!
//! All of them live in threads inside namespaces, on plain sockets. Nothing waits for ever: probes have time-outs, and
//! what is started stops when it is dropped.

mod churn;
mod conntrack;
mod continuous_download;
mod download;
mod flood;
mod held_connection;
mod offered_load;
mod packet;
mod packet_generator;
mod ping;
mod probe;
mod reflector;
mod sniffer;

use std::io;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

pub use churn::{ChurnReport, EchoServer, churn};
pub use conntrack::flush_conntrack;
pub use continuous_download::{ContinuousDownload, ContinuousDownloadReport};
pub use download::{Download, DownloadFailure, DownloadServer, download};
pub use flood::{Flood, FloodReport};
pub use held_connection::HeldConnection;
pub use offered_load::{DeliveredLoad, OfferedLoad, offer_load};
pub use packet::{Arp, Direction, Ip, Packet, Tcp};
pub use packet_generator::{Flow, GeneratorReport, PacketGenerator, Sink};
pub use ping::{Fragmentation, Ping, PingReport, Reply, ping};
pub use probe::{ProbeFailure, tcp_connects, tcp_probe, udp_probe, udp_probe_from};
pub use reflector::Reflector;
pub use sniffer::{Sniffer, sniff_syns};

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
