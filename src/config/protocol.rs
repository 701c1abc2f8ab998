//! Protocols inside IP, and their ports.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Numbers of protocols in the IP header (IANA, "Assigned Internet Protocol Numbers").
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const DCCP: u8 = 33;
const SCTP: u8 = 132;
const UDPLITE: u8 = 136;

/// Names of protocols without ports, from the same registry and as `/etc/protocols` writes them; of two names for a
/// number the first one is shown. DCCP and UDP-Lite have ports, but new kernels do not track those of DCCP (Linux 6.18
/// has no `NF_CT_PROTO_DCCP`), and hardly anybody uses either: their ports are not looked at.
const NAMES: [(&str, u8); 18] = [
    ("icmp", ICMP),
    ("igmp", 2),
    ("ipip", 4),
    ("dccp", DCCP),
    ("6in4", 41),
    ("ipv6", 41),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", ICMPV6),
    ("eigrp", 88),
    ("ospf", 89),
    ("etherip", 97),
    ("pim", 103),
    ("ipcomp", 108),
    ("vrrp", 112),
    ("l2tp", 115),
    ("udplite", UDPLITE),
];

/// A protocol inside IP whose ports, if it has any, are not looked at. Never one of [`Transport`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IpProtocol(u8);

impl IpProtocol {
    /// ICMP.
    pub(crate) const ICMP: Self = Self(ICMP);

    /// Its number in the IP header.
    pub fn number(self) -> u8 {
        self.0
    }

    /// Whether it is ICMP, of IPv4 or of IPv6.
    pub(super) fn is_icmp(self) -> bool {
        matches!(self.0, ICMP | ICMPV6)
    }

    /// The error for a key with ports beside it.
    pub(super) fn refused_ports(self, key: &str) -> String {
        match self.0 {
            DCCP | UDPLITE => format!("the ports of {self} are not looked at: leave out `{key}`"),
            _ => format!("{self} has no ports: leave out `{key}`"),
        }
    }

    /// Whether its packets are for hosts on the same link only: IGMP has a TTL of 1 (RFC 3376 section 4), and VRRP is
    /// dropped if its TTL is not 255 any more (RFC 9568 section 5.1.1.3).
    pub(super) fn stays_on_link(self) -> bool {
        matches!(self.to_string().as_str(), "igmp" | "vrrp")
    }
}

/// The name, or the number if it has none here.
impl fmt::Display for IpProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "protocol {}", self.0),
        }
    }
}

/// A protocol of the IP header, as the operator names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Named {
    /// One with ports.
    Transport(Transport),
    /// One without.
    Other(IpProtocol),
}

impl Named {
    /// The protocol with this number.
    pub(super) fn with_number(number: u8) -> Self {
        match Transport::ALL.into_iter().find(|transport| transport.number() == number) {
            Some(transport) => Self::Transport(transport),
            None => Self::Other(IpProtocol(number)),
        }
    }

    /// The protocol with this name.
    pub(super) fn with_name(name: &str) -> Option<Self> {
        let transport = Transport::ALL.into_iter().find(|transport| transport.name() == name);
        let other = || NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| Self::with_number(*number));
        transport.map(Self::Transport).or_else(other)
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(transport) => transport.fmt(f),
            Self::Other(protocol) => protocol.fmt(f),
        }
    }
}

/// The name of the protocol with this number in the IP header, or `protocol 253`.
pub(crate) fn protocol_name(number: u8) -> String {
    Named::with_number(number).to_string()
}

/// The number in the IP header of the protocol with this name.
pub(crate) fn protocol_number(name: &str) -> Option<u8> {
    Named::with_name(name).map(|named| match named {
        Named::Transport(transport) => transport.number(),
        Named::Other(protocol) => protocol.number(),
    })
}

/// Whether access lists look at the ports of the protocol with this number.
pub(crate) fn has_ports(number: u8) -> bool {
    matches!(Named::with_number(number), Named::Transport(_))
}

/// The names of all protocols, for messages.
pub(super) fn names() -> String {
    let transports = Transport::ALL.into_iter().map(Transport::name);
    transports.chain(NAMES.iter().map(|(name, _)| *name)).collect::<Vec<_>>().join(", ")
}

/// Which protocols a forward or a service is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transports {
    /// TCP alone.
    Tcp,
    /// UDP alone.
    Udp,
    /// TCP and UDP.
    Both,
    /// SCTP alone.
    Sctp,
    /// A protocol without ports.
    Other(IpProtocol),
}

/// A transport protocol, whose ports are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Transports {
    /// Each transport protocol in it: none for a protocol without ports.
    pub fn each(self) -> &'static [Transport] {
        match self {
            Self::Tcp => &[Transport::Tcp],
            Self::Udp => &[Transport::Udp],
            Self::Both => &[Transport::Tcp, Transport::Udp],
            Self::Sctp => &[Transport::Sctp],
            Self::Other(_) => &[],
        }
    }

    /// The protocol, if it is one without ports.
    pub fn without_ports(self) -> Option<IpProtocol> {
        match self {
            Self::Other(protocol) => Some(protocol),
            Self::Tcp | Self::Udp | Self::Both | Self::Sctp => None,
        }
    }

    /// The number of each protocol in it.
    pub(crate) fn numbers(self) -> impl Iterator<Item = u8> {
        let transports = self.each().iter().map(|transport| transport.number());
        transports.chain(self.without_ports().map(IpProtocol::number))
    }

    /// Each protocol in it.
    pub(super) fn protocols(self) -> impl Iterator<Item = Named> {
        self.numbers().map(Named::with_number)
    }
}

impl From<Named> for Transports {
    fn from(named: Named) -> Self {
        match named {
            Named::Transport(Transport::Tcp) => Self::Tcp,
            Named::Transport(Transport::Udp) => Self::Udp,
            Named::Transport(Transport::Sctp) => Self::Sctp,
            Named::Other(protocol) => Self::Other(protocol),
        }
    }
}

impl fmt::Display for Transports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Both => f.write_str("tcp+udp"),
            Self::Other(protocol) => protocol.fmt(f),
            Self::Tcp | Self::Udp | Self::Sctp => self.each().iter().try_for_each(|transport| transport.fmt(f)),
        }
    }
}

impl Transport {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// Its number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => TCP,
            Self::Udp => UDP,
            Self::Sctp => SCTP,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which protocol an access list's entry matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Every protocol.
    #[default]
    Any,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP.
    Icmp,
    /// SCTP.
    Sctp,
    /// Another protocol without ports.
    Other(IpProtocol),
}

impl Protocol {
    /// Its number in the IP header; `None`: every protocol.
    pub(crate) fn number(self) -> Option<u8> {
        match self {
            Self::Any => None,
            Self::Tcp => Some(TCP),
            Self::Udp => Some(UDP),
            Self::Icmp => Some(ICMP),
            Self::Sctp => Some(SCTP),
            Self::Other(protocol) => Some(protocol.number()),
        }
    }
}

impl From<Named> for Protocol {
    fn from(named: Named) -> Self {
        match named {
            Named::Transport(Transport::Tcp) => Self::Tcp,
            Named::Transport(Transport::Udp) => Self::Udp,
            Named::Transport(Transport::Sctp) => Self::Sctp,
            Named::Other(IpProtocol::ICMP) => Self::Icmp,
            Named::Other(protocol) => Self::Other(protocol),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any protocol"),
            Self::Tcp => Transport::Tcp.fmt(f),
            Self::Udp => Transport::Udp.fmt(f),
            Self::Sctp => Transport::Sctp.fmt(f),
            Self::Icmp => IpProtocol::ICMP.fmt(f),
            Self::Other(protocol) => protocol.fmt(f),
        }
    }
}

/// A port, or a range of ports that includes both ends: 1 <= `first` <= `last`, except for [`Ports::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ports {
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

impl Ports {
    /// Every number that can stand in the place of a port: a protocol without ports is treated as one with all of them.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// A single port.
    pub fn single(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// Whether it is a single port.
    pub fn is_single(self) -> bool {
        self.first == self.last
    }

    /// Whether both contain the same port.
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_single() { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_is_the_same_by_its_name_and_by_its_number() {
        for (name, number) in NAMES {
            assert_eq!(Named::with_name(name), Some(Named::with_number(number)), "{name}");
        }
        for transport in Transport::ALL {
            assert_eq!(Named::with_number(transport.number()), Named::Transport(transport));
            assert_eq!(Named::with_name(&transport.to_string()), Some(Named::Transport(transport)));
        }
        assert_eq!(Named::with_name("quic"), None);
        let shown = [47, 41, 253].map(|number| Transports::from(Named::with_number(number)).to_string());
        assert_eq!(shown, ["gre", "6in4", "protocol 253"]);
    }

    #[test]
    fn protocols_that_older_versions_know_are_written_as_they_read_them() {
        let written = |protocol| serde_json::to_string(&protocol).unwrap();
        assert_eq!([Protocol::Any, Protocol::Tcp, Protocol::Icmp].map(written), ["\"any\"", "\"tcp\"", "\"icmp\""]);
        assert_eq!(written(Protocol::Other(IpProtocol(47))), "{\"other\":47}");
        assert_eq!(serde_json::to_string(&Transports::Both).unwrap(), "\"both\"");
    }
}
