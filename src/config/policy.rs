//! What may pass the gateway, and under which address: the nouns of `[nat]`, `[egress]`, `[[network]]`, `[tenants]` and
//! of `[firewall]`'s lists.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

/// `[nat]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nat {
    /// Whether source ports are chosen at random instead of kept where free.
    pub random_ports: bool,
    /// The public addresses that private sources get, each source always the same; empty: the public interface's own.
    pub egress_addresses: Vec<Ipv4Addr>,
    /// Those of all egress addresses that new flows avoid; flows that have them keep them.
    pub drain: BTreeSet<Ipv4Addr>,
    /// Whether established flows take the kernel's flowtable.
    pub fastpath: Fastpath,
    /// `[[nat.forward]]`: ports that lead to private hosts. No two lead two ways.
    pub forwards: Vec<Forward>,
    /// `[[nat.static]]`: public addresses that belong to one private host each.
    pub statics: Vec<StaticNat>,
}

impl Nat {
    /// Whether a public address belongs to a private host.
    pub fn is_static_address(&self, address: Ipv4Addr) -> bool {
        self.statics.iter().any(|entry| entry.public == address)
    }
}

/// `nat.fastpath`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fastpath {
    /// Where the kernel has a flowtable that is known to be sound.
    Auto,
    /// Where the kernel has one at all.
    On,
    /// Never.
    Off,
}

/// `[[nat.forward]]`: one or more ports of a public address that lead to a private host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// Where it stands in the file, for messages: `nat.forward[3]`.
    pub key: String,
    /// What the operator calls it; no two alike.
    pub name: Option<String>,
    /// The public addresses; empty: every address of the public interface that is no static entry's.
    pub public: Vec<Ipv4Addr>,
    /// What is forwarded.
    pub transports: Transports,
    /// The public port or ports.
    pub ports: Ports,
    /// The private host.
    pub to: Ipv4Addr,
    /// The host's port, for a single public one; `None`: the same as outside.
    pub to_port: Option<u16>,
    /// Who may use it; empty: everybody.
    pub from: Vec<Ipv4Net>,
}

/// Which transport protocols a forward or a service is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transports {
    /// TCP alone.
    Tcp,
    /// UDP alone.
    Udp,
    /// Both.
    Both,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transports {
    /// Each of them.
    pub fn each(self) -> &'static [Transport] {
        match self {
            Self::Tcp => &[Transport::Tcp],
            Self::Udp => &[Transport::Udp],
            Self::Both => &[Transport::Tcp, Transport::Udp],
        }
    }
}

impl Transport {
    /// Its number in the IP header (IANA, "Assigned Internet Protocol Numbers").
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port, or a range of ports with both its ends, `first` not above `last`. 0 is never in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ports {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl Ports {
    /// One port.
    pub fn single(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// Whether it is one port.
    pub fn is_single(self) -> bool {
        self.first == self.last
    }

    /// Whether a port is in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_single() { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// `[[nat.static]]`: a public address that belongs to one private host, in both directions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticNat {
    /// Where it stands in the file: `nat.static[0]`.
    pub key: String,
    /// What the operator calls it; no two alike.
    pub name: Option<String>,
    /// The public address; no other static entry, pool or forward has it.
    pub public: Ipv4Addr,
    /// The private host, which goes out under `public`.
    pub private: Ipv4Addr,
    /// What may come in to it; the rules' `to` is not used. Empty: nothing.
    pub open: Vec<Acl>,
}

/// One line of an access list. What is left away means "any".
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Acl {
    /// Sources; empty: any.
    pub from: Vec<Ipv4Net>,
    /// Destinations; empty: any.
    pub to: Vec<Ipv4Net>,
    /// Protocol.
    pub protocol: Protocol,
    /// Destination ports; empty: any. Only with TCP or UDP.
    pub ports: Vec<Ports>,
}

impl Acl {
    /// Whether it names TCP port `port`, by itself or in a range.
    pub(super) fn names_tcp_port(&self, port: u16) -> bool {
        self.protocol == Protocol::Tcp && self.ports.iter().any(|ports| ports.overlaps(Ports::single(port)))
    }
}

/// Which protocol an access list's entry matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
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
}

/// `[egress]`: what private hosts may reach on the internet, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Egress {
    /// Whether packets to destinations that no one can reach on the internet are kept from it.
    pub guard: bool,
    /// Flows that one source may open in a second, with twice as many at once; `None`: any number.
    pub new_flows_per_second: Option<u32>,
    /// Flows that one source may have at the same time; `None`: any number.
    pub max_flows: Option<u32>,
    /// For every network without a list of its own.
    pub lists: EgressLists,
}

/// What a network's hosts may reach.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EgressLists {
    /// Whether TCP port 25 is open.
    pub smtp: bool,
    /// If there, nothing else is allowed; the rules' `from` is not used.
    pub allow: Option<Vec<Acl>>,
    /// What is not allowed; wins over `allow`. The rules' `from` is not used.
    pub deny: Vec<Acl>,
}

/// `[[network]]`: what holds for one private network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Where it stands in the file: `network[0]`.
    pub key: String,
    /// The network, by its whole range; no two alike.
    pub range: Ipv4Net,
    /// Its egress addresses, empty: the public interface's own; `None`: those of `[nat]`.
    pub egress_addresses: Option<Vec<Ipv4Addr>>,
    /// Its lists: what it does not say is taken from `[egress]`.
    pub lists: EgressLists,
}

/// `[firewall]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firewall {
    /// TCP ports of the SSH server; `None`: 22 and those that sshd's own configuration names.
    pub ssh_ports: Option<BTreeSet<u16>>,
    /// Who may reach them.
    pub ssh_from: Vec<IpNet>,
    /// Whether they are reached by the tunnel alone.
    pub ssh_only_by_tunnel: bool,
    /// New SSH connections a minute from one source (an IPv4 address or an IPv6 /64), with twice as many at once;
    /// `None`: any number.
    pub ssh_attempts: Option<u32>,
    /// How long a source with more is refused.
    pub ssh_ban: Duration,
    /// UDP port that is open for WireGuard, the tunnel's own unless somebody else's is meant; `None`: closed.
    pub wireguard_port: Option<u16>,
    /// `[[firewall.service]]`: what else runs on the bastion.
    pub services: Vec<Service>,
    /// Echo requests a second to the bastion, over all sources; `None`: any number.
    pub pings_per_second: Option<u32>,
    /// New TCP connections a second from one source from outside, to forwards and services, with twice as many at once;
    /// `None`: any number.
    pub syns_per_second: Option<u32>,
    /// Sources that are not heard at all.
    pub blocklist: Vec<IpNet>,
    /// What becomes of the account of dropped packets.
    pub log_drops: LogDrops,
}

/// `firewall.log_drops`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogDrops {
    /// The daemon reads it and logs it.
    Journal,
    /// It is sent to this nflog group, for ulogd or tcpdump.
    Group(u16),
    /// None.
    Off,
}

/// `[[firewall.service]]`: a service of the bastion's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Where it stands in the file: `firewall.service[0]`.
    pub key: String,
    /// What the operator calls it; no two alike.
    pub name: Option<String>,
    /// TCP, UDP or both.
    pub transports: Transports,
    /// Its ports.
    pub ports: Vec<Ports>,
    /// Who may reach it; empty: everybody.
    pub from: Vec<IpNet>,
}
