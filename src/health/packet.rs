//! The packets of the probes: a DNS question or the opening of a TCP connection, and what comes back.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use etherparse::{Ipv4HeaderSlice, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, TYPE};

/// As many routers as a private host's packet may pass, less the gateway of its network.
const HOPS: u8 = 63;
/// Resolvers answer questions about names in it by themselves (RFC 6303 section 4.2), so no other server is bothered.
const ZONE: &str = "127.in-addr.arpa";
/// A receive window that no peer takes for an attack.
const WINDOW: u16 = 64_240;

/// Whom a probe asks, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Target {
    /// A question to a resolver, over UDP.
    Dns(SocketAddrV4),
    /// The opening of a TCP connection, which is reset once it is answered.
    Tcp(SocketAddrV4),
}

impl Target {
    /// Its address and port.
    pub(super) fn address(self) -> SocketAddrV4 {
        match self {
            Self::Dns(address) | Self::Tcp(address) => address,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(address) if address.port() == 53 => write!(f, "{}", address.ip()),
            Self::Dns(address) => write!(f, "{address}"),
            Self::Tcp(address) => write!(f, "{address}/tcp"),
        }
    }
}

/// One question, with what tells its answer from every other packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub source: SocketAddrV4,
    pub target: Target,
    /// Random: the id and the name of a DNS question, the first sequence number of a TCP connection.
    pub token: u64,
}

impl Asked {
    /// The packet to send.
    pub(super) fn packet(&self) -> Vec<u8> {
        match self.target {
            Target::Dns(target) => {
                let payload = self.question();
                let packet = self.ip(target).udp(self.source.port(), target.port());
                let mut bytes = Vec::with_capacity(packet.size(payload.len()));
                packet.write(&mut bytes, &payload).expect("a short packet fits into a vector");
                bytes
            }
            Target::Tcp(target) => {
                let packet = self.ip(target).tcp(self.source.port(), target.port(), self.sequence(), WINDOW).syn();
                let mut bytes = Vec::with_capacity(packet.size(0));
                packet.write(&mut bytes, &[]).expect("a short packet fits into a vector");
                bytes
            }
        }
    }

    /// The packet that ends what was begun, if anything was: a TCP connection is reset.
    pub(super) fn farewell(&self) -> Option<Vec<u8>> {
        let Target::Tcp(target) = self.target else { return None };
        let sequence = self.sequence().wrapping_add(1);
        let packet = self.ip(target).tcp(self.source.port(), target.port(), sequence, WINDOW).rst();
        let mut bytes = Vec::with_capacity(packet.size(0));
        packet.write(&mut bytes, &[]).expect("a short packet fits into a vector");
        Some(bytes)
    }

    fn ip(&self, target: SocketAddrV4) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
        PacketBuilder::ipv4(self.source.ip().octets(), target.ip().octets(), HOPS)
    }

    /// Whether this packet answers the question. Any answer does, also one that says no: it proves both ways.
    pub(super) fn is_answered_by(&self, received: &Received) -> bool {
        match received {
            Received::Udp { from, to, payload } => {
                matches!(self.target, Target::Dns(target) if target == *from)
                    && self.source == *to
                    && self.is_answer(payload)
            }
            Received::Tcp { from, to, acknowledged } => {
                matches!(self.target, Target::Tcp(target) if target == *from)
                    && self.source == *to
                    && *acknowledged == Some(self.sequence().wrapping_add(1))
            }
            Received::IcmpError { .. } => false,
        }
    }

    fn id(&self) -> u16 {
        let [.., high, low] = self.token.to_be_bytes();
        u16::from_be_bytes([high, low])
    }

    fn sequence(&self) -> u32 {
        let [.., a, b, c, d] = self.token.to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    fn name(&self) -> String {
        format!("{:016x}.{ZONE}", self.token)
    }

    fn question(&self) -> Vec<u8> {
        let name = self.name();
        let mut packet = Packet::new_query(self.id());
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        packet.questions.push(Question::new(Name::new_unchecked(&name), TYPE::PTR.into(), CLASS::IN.into(), false));
        packet.build_bytes_vec().expect("a short question can be written")
    }

    fn is_answer(&self, payload: &[u8]) -> bool {
        let Ok(answer) = Packet::parse(payload) else { return false };
        let is_same = |question: &Question<'_>| question.qname.to_string().eq_ignore_ascii_case(&self.name());
        answer.id() == self.id() && answer.has_flags(PacketFlag::RESPONSE) && answer.questions.iter().any(is_same)
    }
}

/// A packet that arrived at a probe's interface, as far as it may concern a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Received {
    Udp {
        from: SocketAddrV4,
        to: SocketAddrV4,
        payload: Vec<u8>,
    },
    Tcp {
        from: SocketAddrV4,
        to: SocketAddrV4,
        /// The sequence number that it acknowledges, if it acknowledges one.
        acknowledged: Option<u32>,
    },
    /// An error about a packet of a probe.
    IcmpError {
        from: Ipv4Addr,
        kind: u8,
        code: u8,
        /// The source port of the packet that it is about.
        port: u16,
    },
}

impl Received {
    /// Reads a packet; `None` if no probe waits for such a one.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let packet = SlicedPacket::from_ip(bytes).ok()?;
        let Some(NetSlice::Ipv4(ip)) = &packet.net else { return None };
        let (source, destination) = (ip.header().source_addr(), ip.header().destination_addr());
        match packet.transport? {
            TransportSlice::Udp(udp) => Some(Self::Udp {
                from: SocketAddrV4::new(source, udp.source_port()),
                to: SocketAddrV4::new(destination, udp.destination_port()),
                payload: udp.payload().to_vec(),
            }),
            TransportSlice::Tcp(tcp) => Some(Self::Tcp {
                from: SocketAddrV4::new(source, tcp.source_port()),
                to: SocketAddrV4::new(destination, tcp.destination_port()),
                acknowledged: tcp.ack().then(|| tcp.acknowledgment_number()),
            }),
            TransportSlice::Icmpv4(icmp) => {
                let (kind, code) = (icmp.type_u8(), icmp.code_u8());
                let about = icmp.payload();
                let header = Ipv4HeaderSlice::from_slice(about).ok()?;
                let port = about.get(header.slice().len()..)?.first_chunk()?;
                let port = u16::from_be_bytes(*port);
                matches!(kind, 3 | 11 | 12).then_some(Self::IcmpError { from: source, kind, code, port })
            }
            _ => None,
        }
    }

    /// The port of the probe that it concerns.
    pub(super) fn port(&self) -> u16 {
        match self {
            Self::Udp { to, .. } | Self::Tcp { to, .. } => to.port(),
            Self::IcmpError { port, .. } => *port,
        }
    }
}

/// What an ICMP error says, in words (IANA, "Internet Control Message Protocol (ICMP) Parameters").
pub(super) fn describe_error(from: Ipv4Addr, kind: u8, code: u8) -> String {
    let what = match (kind, code) {
        (3, 0) => "network unreachable",
        (3, 1) => "host unreachable",
        (3, 3) => "port unreachable",
        (3, 4) => "packet too big",
        (3, 9 | 10 | 13) => "prohibited",
        (3, _) => "destination unreachable",
        (11, _) => "time exceeded: the packets travel in a circle",
        _ => "parameter problem",
    };
    format!("{from} answers by ICMP: {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(target: Target) -> Asked {
        Asked { source: "10.0.255.255:40000".parse().unwrap(), target, token: 0x0123_4567_89ab_cdef }
    }

    fn dns() -> Asked {
        asked(Target::Dns("185.12.64.1:53".parse().unwrap()))
    }

    /// The packet that a resolver sends back.
    fn answer(asked: &Asked, id: u16, name: &str, from: &str) -> Received {
        let mut packet = Packet::new_reply(id);
        packet.questions.push(Question::new(Name::new(name).unwrap(), TYPE::PTR.into(), CLASS::IN.into(), false));
        Received::Udp { from: from.parse().unwrap(), to: asked.source, payload: packet.build_bytes_vec().unwrap() }
    }

    #[test]
    fn a_question_is_a_packet_of_the_network_and_carries_its_token() {
        let Some(Received::Udp { from, to, payload }) = Received::parse(&dns().packet()) else { panic!("no UDP") };
        assert_eq!((from, to), ("10.0.255.255:40000".parse().unwrap(), "185.12.64.1:53".parse().unwrap()));
        let question = Packet::parse(&payload).unwrap();
        assert_eq!(question.id(), 0xcdef);
        assert_eq!(question.questions[0].qname.to_string(), "0123456789abcdef.127.in-addr.arpa");
    }

    #[test]
    fn only_the_answer_to_this_very_question_counts() {
        let asked = dns();
        let name = "0123456789ABCDEF.127.in-addr.arpa";
        let is_answered = |received: &Received| asked.is_answered_by(received);
        assert!(is_answered(&answer(&asked, 0xcdef, name, "185.12.64.1:53")));
        assert!(!is_answered(&answer(&asked, 0xcdee, name, "185.12.64.1:53")), "another id");
        assert!(!is_answered(&answer(&asked, 0xcdef, "a.127.in-addr.arpa", "185.12.64.1:53")), "another name");
        assert!(!is_answered(&answer(&asked, 0xcdef, name, "185.12.64.2:53")), "another resolver");
        let question = Received::parse(&asked.packet()).unwrap();
        let Received::Udp { payload, .. } = question else { panic!("no UDP") };
        let echo = Received::Udp { from: "185.12.64.1:53".parse().unwrap(), to: asked.source, payload };
        assert!(!is_answered(&echo), "the question itself");
    }

    #[test]
    fn a_tcp_connection_is_answered_by_what_acknowledges_its_first_packet() {
        let asked = asked(Target::Tcp("203.0.113.10:443".parse().unwrap()));
        let answer = |acknowledged| Received::Tcp { from: asked.target.address(), to: asked.source, acknowledged };
        assert!(asked.is_answered_by(&answer(Some(0x89ab_cdf0))));
        assert!(!asked.is_answered_by(&answer(Some(0x89ab_cdef))));
        assert!(!asked.is_answered_by(&answer(None)));
        assert!(asked.farewell().is_some() && dns().farewell().is_none());
    }

    #[test]
    fn an_icmp_error_names_the_probe_that_it_is_about() {
        let mut bytes = Vec::new();
        let error = PacketBuilder::ipv4([172, 31, 1, 1], [10, 0, 255, 255], 64).icmpv4_raw(3, 1, [0; 4]);
        error.write(&mut bytes, &dns().packet()[..28]).unwrap();
        let received = Received::parse(&bytes).unwrap();
        assert_eq!(received.port(), 40000);
        let Received::IcmpError { from, kind, code, .. } = received else { panic!("no ICMP") };
        assert_eq!(describe_error(from, kind, code), "172.31.1.1 answers by ICMP: host unreachable");
    }

    #[test]
    fn garbage_is_no_packet() {
        let packet = dns().packet();
        for length in 0..packet.len() {
            let _ = Received::parse(&packet[..length]);
        }
        assert_eq!(Received::parse(&[0xff; 60]), None);
    }
}
