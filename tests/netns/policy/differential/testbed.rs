//! A bastion's namespace whose links end in packet sockets: any packet can arrive on a link, and each one that leaves
//! is seen.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use bastiond::internals::conntrack::{Error, Flow, Layer4, Tuple, for_each_flow};
use bastiond::internals::inputs::Tunnel;
use bastiond::internals::site::Site;
use etherparse::{
    Icmpv4Type, IpHeaders, IpNumber, NetSlice, PacketBuilder, PacketBuilderStep, SlicedPacket, TransportSlice,
    ether_type, ip_number,
};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike as _, bind, recvfrom, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};
use sandbox::namespace::Namespace;
use sandbox::traffic::{flush_conntrack, sctp_init, sctp_init_ack};

use super::probes::SCTP;
use crate::gateway::Result;

/// The links: the public one, the private ones of `site("everything")`, and the tunnel's interface.
pub(super) const LINKS: [&str; 5] = ["eth0", "eth1", "eth2", "ens10.7", "wg0"];
/// Both ends of every link have it: without ARP a packet's destination is the sender's own hardware address.
const HARDWARE_ADDRESS: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// `PACKET_OUTGOING` (packet(7)).
const OUTGOING: u8 = 4;
/// All packets have arrived when none has arrived for this long.
const SILENCE: Duration = Duration::from_millis(40);
/// Size of the socket's receive buffer, in bytes: it holds a batch.
const BUFFER_SIZE: usize = 4 << 20;

/// A packet that arrives at the bastion: on which link, and with which addresses and ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) link: &'static str,
    pub(super) tuple: Tuple,
}

/// What became of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The kernel has no flow of it: a rule dropped it.
    Dropped,
    /// It left by this link, but the kernel lists no flow of it.
    Untracked(&'static str),
    /// It was delivered to the bastion itself.
    Local(Flow),
    /// It left by `link`. `answered`: an answer that arrived there came back to the sender.
    Forwarded { flow: Flow, link: &'static str, answered: bool },
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", describe_tuple(&self.tuple), self.link)
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dropped => f.write_str("dropped"),
            Self::Untracked(link) => write!(f, "forwarded to {link} without a flow"),
            Self::Local(flow) => write!(f, "delivered to the bastion, answers {}", describe_tuple(&flow.reply)),
            Self::Forwarded { flow, link, answered } => {
                let end = if *answered { "answered" } else { "its answer is dropped" };
                write!(f, "forwarded to {link}, {end}, answers {}", describe_tuple(&flow.reply))
            }
        }
    }
}

fn describe_tuple(tuple: &Tuple) -> String {
    let Tuple { source, destination, protocol, layer4, .. } = tuple;
    match layer4 {
        Layer4::Ports { source: from, destination: to } => {
            let name = match *protocol {
                6 => "tcp".to_owned(),
                17 => "udp".to_owned(),
                other => format!("protocol {other}"),
            };
            format!("{name} {source}:{from} -> {destination}:{to}")
        }
        Layer4::Icmp { id, kind, .. } => format!("icmp {source} -> {destination} type {kind} id {id}"),
        Layer4::None => format!("protocol {protocol} {source} -> {destination}"),
    }
}

/// The namespaces of the bastion and of the other ends of its links.
pub(super) struct Testbed {
    pub(super) bastion: Namespace,
    _outside: Namespace,
    senders: HashMap<&'static str, OwnedFd>,
    receiver: OwnedFd,
    /// By the index of its outer end.
    links: HashMap<usize, &'static str>,
    /// The number of the next probe: a late packet of one batch must not count in the next.
    next: Cell<u32>,
}

impl Testbed {
    pub(super) fn create() -> Result<Self> {
        let (bastion, outside) = (Namespace::create("differential")?, Namespace::create("differential-out")?);
        bastion.sysctls(&[
            ("net.ipv4.conf.all.rp_filter", "0"),
            ("net.ipv4.conf.default.rp_filter", "0"),
            ("net.ipv4.ip_forward", "1"),
        ])?;
        for link in LINKS {
            let mac = "address 02:00:00:00:00:01";
            bastion.ip(&format!("link add {link} {mac} type veth peer name {link} {mac} netns differential-out"))?;
            bastion.ip(&format!("link set {link} arp off up"))?;
            outside.ip(&format!("link set {link} arp off up"))?;
        }
        // The bastion must not answer: a TCP reset would end the flow that is compared.
        bastion
            .nft("table inet silence {\n chain output { type filter hook output priority -310; policy drop; }\n}")?;
        let (mut senders, mut links) = (HashMap::new(), HashMap::new());
        let receiver = outside.run(open_receiver)?;
        for link in LINKS {
            senders.insert(link, outside.run(|| open_sender(link))?);
            links.insert(usize::try_from(outside.run(|| if_nametoindex(link))?)?, link);
        }
        Ok(Self { bastion, _outside: outside, senders, receiver, links, next: Cell::new(1) })
    }

    /// Gives the bastion the addresses and routes of a site and a tunnel.
    pub(super) fn configure(&self, site: &Site, tunnel: Option<&Tunnel>) -> Result {
        let mut lines = Vec::new();
        for link in LINKS {
            lines.push(format!("route flush dev {link}\naddr flush dev {link}"));
        }
        if let Some(public) = &site.public {
            lines.extend(public.addresses.iter().map(|address| format!("addr add {address}/32 dev eth0")));
        }
        lines.push("route add default dev eth0".to_owned());
        for link in &site.private {
            lines.push(format!("addr add {}/32 dev {}", link.address, link.interface));
            lines.extend(link.ranges().map(|range| format!("route add {range} dev {}", link.interface)));
        }
        for address in tunnel.iter().flat_map(|tunnel| &tunnel.addresses).filter(|net| net.addr().is_ipv4()) {
            lines.push(format!("addr add {}/32 dev wg0", address.addr()));
        }
        let routes = tunnel.into_iter().flat_map(|tunnel| tunnel.networks.iter().chain(&tunnel.remote_networks));
        lines.extend(routes.filter(|net| net.addr().is_ipv4()).map(|net| format!("route add {net} dev wg0")));
        self.bastion.ip(&lines.join("\n"))?;
        Ok(())
    }

    /// Sends all probes at once, then an answer to each one that was forwarded.
    pub(super) fn send(&self, probes: &[Probe]) -> Result<Vec<Fate>> {
        flush_conntrack(&self.bastion)?;
        self.drain();
        let first = self.next.get();
        self.next.set(first.wrapping_add(u32::try_from(probes.len())?));
        let numbers = (0..).map(|index| first.wrapping_add(index));
        for (probe, id) in probes.iter().zip(numbers.clone()) {
            self.transmit(probe, id, Segment::First)?;
        }
        let left = self.collect(probes.len());
        let flows = self.flows()?;
        let mut fates = Vec::new();
        let mut answers = 0;
        for (probe, id) in probes.iter().zip(numbers.clone()) {
            let fate = match (flows.get(&probe.tuple), left.get(&id)) {
                (None, None) => Fate::Dropped,
                (Some(flow), None) => Fate::Local(*flow),
                (Some(flow), Some(link)) => {
                    self.transmit(&Probe { link, tuple: flow.reply }, id, Segment::Answer)?;
                    answers += 1;
                    Fate::Forwarded { flow: *flow, link, answered: false }
                }
                (None, Some(link)) => Fate::Untracked(link),
            };
            fates.push(fate);
        }
        let returned = self.collect(answers);
        for ((probe, fate), id) in probes.iter().zip(&mut fates).zip(numbers.clone()) {
            if let Fate::Forwarded { answered, .. } = fate {
                *answered = returned.get(&id) == Some(&probe.link);
            }
        }
        Ok(fates)
    }

    /// The kernel's flows by the first packet of each.
    fn flows(&self) -> Result<HashMap<Tuple, Flow>> {
        let mut flows = HashMap::new();
        self.bastion.run(|| {
            for_each_flow(|flow| {
                flows.insert(flow.original, *flow);
                Ok::<(), Error>(())
            })
        })?;
        Ok(flows)
    }

    fn transmit(&self, probe: &Probe, id: u32, segment: Segment) -> Result {
        let frame = frame(&probe.tuple, id, segment)?;
        send(self.senders[probe.link].as_raw_fd(), &frame, MsgFlags::empty())?;
        Ok(())
    }

    /// The link on which each packet leaves the bastion, by the packet's number, until all `expected` ones have arrived
    /// or none has for [`SILENCE`].
    fn collect(&self, expected: usize) -> HashMap<u32, &'static str> {
        let mut left = HashMap::new();
        let mut buffer = vec![0; 2048];
        let mut last = Instant::now();
        while last.elapsed() < SILENCE && left.len() < expected {
            let Ok((length, Some(from))) = recvfrom::<LinkAddr>(self.receiver.as_raw_fd(), &mut buffer) else {
                continue;
            };
            if from.pkttype() == OUTGOING {
                continue;
            }
            last = Instant::now();
            if let (Some(id), Some(link)) = (packet_id(&buffer[..length]), self.links.get(&from.ifindex())) {
                left.insert(id, *link);
            }
        }
        left
    }

    /// Reads what earlier packets left behind.
    fn drain(&self) {
        let mut buffer = vec![0; 2048];
        while recvfrom::<LinkAddr>(self.receiver.as_raw_fd(), &mut buffer).is_ok() {}
    }
}

/// Which packet of a flow.
#[derive(Clone, Copy)]
enum Segment {
    First,
    Answer,
}

/// A packet that carries a number through every translation: as TCP's sequence number, or as the payload.
fn frame(tuple: &Tuple, id: u32, segment: Segment) -> Result<Vec<u8>> {
    let ethernet = PacketBuilder::ethernet2(HARDWARE_ADDRESS, HARDWARE_ADDRESS);
    let ip = ethernet.ipv4(tuple.source.octets(), tuple.destination.octets(), 64);
    match (tuple.layer4, segment) {
        (Layer4::Ports { source, destination }, Segment::First) if tuple.protocol == ip_number::TCP.0 => {
            written(ip.tcp(source, destination, id, 64_000).syn(), &[])
        }
        (Layer4::Ports { source, destination }, Segment::Answer) if tuple.protocol == ip_number::TCP.0 => {
            written(ip.tcp(source, destination, id, 64_000).syn().ack(id.wrapping_add(1)), &[])
        }
        (Layer4::Ports { source, destination }, segment) if tuple.protocol == SCTP => {
            let packet = match segment {
                Segment::First => sctp_init(source, destination, id),
                Segment::Answer => sctp_init_ack(source, destination, id, id),
            };
            written_as(ip, tuple.protocol, &packet)
        }
        (Layer4::Ports { source, destination }, _) if tuple.protocol == ip_number::UDP.0 => {
            written(ip.udp(source, destination), &id.to_be_bytes())
        }
        (Layer4::Icmp { id: identifier, .. }, Segment::First) => {
            written(ip.icmpv4_echo_request(identifier, 1), &id.to_be_bytes())
        }
        (Layer4::Icmp { id: identifier, .. }, Segment::Answer) => {
            written(ip.icmpv4_echo_reply(identifier, 1), &id.to_be_bytes())
        }
        // As a header of GRE without a key (RFC 2784), which suits other protocols too.
        (Layer4::Ports { .. } | Layer4::None, _) => {
            let packet = [&[0, 0, 0x88, 0x0b], &id.to_be_bytes()[..]].concat();
            written_as(ip, tuple.protocol, &packet)
        }
    }
}

/// The bytes of a packet of any protocol.
fn written_as(ip: PacketBuilderStep<IpHeaders>, protocol: u8, payload: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    ip.write(&mut bytes, IpNumber(protocol), payload)?;
    Ok(bytes)
}

/// The bytes of a packet.
fn written<H>(builder: PacketBuilderStep<H>, payload: &[u8]) -> Result<Vec<u8>>
where
    PacketBuilderStep<H>: Write,
{
    let mut bytes = Vec::new();
    builder.write_packet(&mut bytes, payload)?;
    Ok(bytes)
}

/// The last step of etherparse's builders, which is a method of each type.
trait Write {
    fn write_packet(self, bytes: &mut Vec<u8>, payload: &[u8]) -> Result;
}

macro_rules! write_packet {
    ($($header:ty),*) => {$(
        impl Write for PacketBuilderStep<$header> {
            fn write_packet(self, bytes: &mut Vec<u8>, payload: &[u8]) -> Result {
                Ok(self.write(bytes, payload)?)
            }
        }
    )*};
}

write_packet!(etherparse::TcpHeader, etherparse::UdpHeader, etherparse::Icmpv4Header);

/// The number that [`frame`] put into a packet.
fn packet_id(packet: &[u8]) -> Option<u32> {
    let packet = SlicedPacket::from_ether_type(ether_type::IPV4, packet).ok()?;
    let Some(NetSlice::Ipv4(ip)) = packet.net else { return None };
    let payload = match packet.transport {
        // The tag that the sender wants, behind the headers of the packet and of its first chunk.
        None if ip.payload_ip_number().0 == SCTP => ip.payload().payload.get(16..)?,
        None => ip.payload().payload.get(4..)?,
        Some(TransportSlice::Tcp(tcp)) => return Some(tcp.sequence_number()),
        Some(TransportSlice::Udp(udp)) => udp.payload(),
        Some(TransportSlice::Icmpv4(icmp)) => match icmp.icmp_type() {
            Icmpv4Type::EchoRequest(_) | Icmpv4Type::EchoReply(_) => icmp.payload(),
            _ => return None,
        },
        Some(TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_)) => return None,
    };
    payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

fn open_receiver() -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
    if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_SIZE).is_err() {
        // Older kernels allow this only to the machine's root; the ordinary limit must suffice.
        setsockopt(&socket, sockopt::RcvBuf, &BUFFER_SIZE)?;
    }
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(5))?;
    Ok(socket)
}

fn open_sender(link: &str) -> io::Result<OwnedFd> {
    let address = getifaddrs()?
        .filter(|found| found.interface_name == link)
        .find_map(|found| found.address?.as_link_addr().copied())
        .filter(|address| address.family() == Some(AddressFamily::Packet))
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no link {link}")))?;
    // Without a protocol it receives nothing.
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &address)?;
    Ok(socket)
}

/// The flow that the kernel would have for a probe that it does not translate.
pub(super) fn untranslated(tuple: &Tuple) -> Flow {
    let layer4 = match tuple.layer4 {
        Layer4::Ports { source, destination } => Layer4::Ports { source: destination, destination: source },
        Layer4::Icmp { id, .. } => Layer4::Icmp { id, kind: 0, code: 0 },
        Layer4::None => Layer4::None,
    };
    let reply = Tuple { source: tuple.destination, destination: tuple.source, layer4, ..*tuple };
    Flow {
        original: *tuple,
        reply,
        status: bastiond::internals::conntrack::Status::CONFIRMED,
        mark: 0,
        id: None,
        zone: 0,
    }
}

/// The same flow, redirected to a host and port.
pub(super) fn redirected(tuple: &Tuple, host: Ipv4Addr, port: Option<u16>) -> Flow {
    let mut flow = untranslated(tuple);
    flow.reply.source = host;
    if let (Layer4::Ports { source, .. }, Some(port)) = (&mut flow.reply.layer4, port) {
        *source = port;
    }
    flow.status = flow.status | bastiond::internals::conntrack::Status::DST_NAT;
    flow
}
