//! Traffic generators and observers that use real packets.
//!
//! | client | what it shows | server |
//! |---|---|---|
//! | [`tcp_probe`], [`udp_probe`] | whether one exchange works, and the source address that arrives | [`Reflector`] |
//! | [`raw_probe`] | whether one exchange works in any protocol inside IP | [`RawReflector`] |
//! | [`sctp_associate`] | whether an SCTP association is possible | [`sctp_server`] |
//! | [`ping`] | ICMP echo, TTL and ICMP errors | the kernel |
//! | [`Flood`] | each lost datagram, and the longest time without an answer | [`Reflector::udp`] |
//! | [`HeldConnection`] | whether an open connection survives | [`Reflector::tcp`] |
//! | [`download`] | a long transfer, byte for byte | [`DownloadServer`] |
//! | [`ContinuousDownload`] | a transfer that lasts until it is stopped | [`DownloadServer`] |
//! | [`FrameSender`] | what a forged frame does | |
//! | [`Sniffer`] | which packets cross a link | |
//! | [`PacketGenerator`] | how many packets a second are forwarded | [`Sink`] |
//! | [`offer_load`] | how many datagrams a second arrive of those sent | |
//! | [`churn`] | how many new connections a second are possible | [`EchoServer`] |
//!
//! All of them are threads inside namespaces, with plain sockets. Every wait has a time-out, and dropping a value stops
//! its threads.

mod churn;
mod conntrack;
mod continuous_download;
mod download;
mod flood;
mod frame_sender;
mod held_connection;
mod offered_load;
mod packet;
mod packet_generator;
mod ping;
mod probe;
mod raw;
mod reflector;
mod sctp;
mod served;
mod sniffer;
mod wait;

pub use churn::{ChurnReport, EchoServer, churn};
pub use conntrack::flush_conntrack;
pub use continuous_download::{ContinuousDownload, ContinuousDownloadReport};
pub use download::{Download, DownloadFailure, DownloadServer, download};
pub use flood::{Flood, FloodReport};
pub use frame_sender::FrameSender;
pub use held_connection::HeldConnection;
pub use offered_load::{DeliveredLoad, OfferedLoad, offer_load};
pub use packet::{Arp, Direction, Ip, Packet, Tcp};
pub use packet_generator::{Flow, GeneratorReport, PacketGenerator, Sink};
pub use ping::{Fragmentation, Ping, PingReport, Reply, ping};
pub use probe::{ProbeFailure, tcp_connects, tcp_probe, udp_probe, udp_probe_from};
pub use raw::{RawClient, RawReflector, raw_probe, send_raw};
pub use reflector::Reflector;
pub use sctp::{sctp_associate, sctp_init, sctp_init_ack, sctp_server};
pub use sniffer::{Sniffer, sniff_syns};
