//! The policy: what may pass the gateway, and with which addresses. The types of `[nat]`, `[egress]`, `[[network]]`,
//! `[tenants]` and `[firewall]`.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use super::protocol::{Ports, Protocol, Transports};
use crate::net::InterfaceName;

/// `[nat]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nat {
    /// Whether translated connections get random source ports; `false` keeps a host's own port if it is free.
    pub random_ports: bool,
    /// The public addresses of outgoing connections, each source always using the same one; empty: the public
    /// interface's own address.
    pub egress_addresses: Vec<Ipv4Addr>,
    /// Egress addresses, of any pool, that new flows do not use. Existing flows keep them.
    pub drain: BTreeSet<Ipv4Addr>,
    /// Which shorter path established flows take.
    pub fastpath: Fastpath,
    /// `[[nat.forward]]`: ports that lead to private hosts. No two forwards have a port of the same address in common.
    pub forwards: Vec<Forward>,
    /// `[[nat.static]]`: public addresses that each belong to one private host.
    pub statics: Vec<StaticNat>,
}

impl Nat {
    /// Whether a public address belongs to a private host, by `[[nat.static]]`.
    pub fn is_static_address(&self, address: Ipv4Addr) -> bool {
        self.statics.iter().any(|entry| entry.public == address)
    }
}

/// `nat.fastpath`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fastpath {
    /// The kernel's flowtable, if it has one that is known to be reliable.
    Auto,
    /// The flow cache in BPF, where nothing needs every packet.
    Bpf,
    /// The kernel's flowtable, if it has one.
    Flowtable,
    /// None.
    Off,
}

/// `[[nat.forward]]`: one or more ports of a public address that lead to a private host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// Its place in the file, for messages: `nat.forward[3]`.
    pub key: String,
    /// The operator's name for it, unique among blocks of this kind.
    pub name: Option<String>,
    /// The public addresses; empty: every address of the public interface except those of `[[nat.static]]`.
    pub public: Vec<Ipv4Addr>,
    /// The protocols.
    pub transports: Transports,
    /// The public ports; [`Ports::ALL`] if the protocol has none.
    pub ports: Ports,
    /// The private host.
    pub to: Ipv4Addr,
    /// The host's port; `None`: the same as the public one. Never set if `ports` is a range, or the protocol has no
    /// ports.
    pub to_port: Option<u16>,
    /// The sources that may connect; empty: everyone.
    pub from: Vec<Ipv4Net>,
    /// Whether the host sees this server's own address as the source.
    pub snat: bool,
}

impl Forward {
    /// How messages call it: `nat.forward "web"`, or by its place in the file.
    pub(crate) fn label(&self) -> String {
        label("nat.forward", self.name.as_deref(), &self.key)
    }

    /// What it forwards, in words: `tcp 443`, `gre`.
    pub(crate) fn traffic(&self) -> String {
        match self.transports.without_ports() {
            Some(protocol) => protocol.to_string(),
            None => format!("{} {}", self.transports, self.ports),
        }
    }
}

impl StaticNat {
    /// How messages call it: `nat.static "mail"`, or by its place in the file.
    pub(crate) fn label(&self) -> String {
        label("nat.static", self.name.as_deref(), &self.key)
    }
}

pub(super) fn label(section: &str, name: Option<&str>, key: &str) -> String {
    name.map_or_else(|| key.to_owned(), |name| format!("{section} {name:?}"))
}

/// `[[nat.static]]`: a public address that belongs to one private host, in both directions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticNat {
    /// Its place in the file, for messages: `nat.static[0]`.
    pub key: String,
    /// The operator's name for it, unique among blocks of this kind.
    pub name: Option<String>,
    /// The public address. No other static entry, pool or forward has it.
    pub public: Ipv4Addr,
    /// The private host. Its outgoing connections use `public`.
    pub private: Ipv4Addr,
    /// What may reach the host from outside. `to` is always empty in these entries. Empty: nothing.
    pub open: Vec<Acl>,
}

/// One entry of an access list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Acl {
    /// Sources; empty: any.
    pub from: Vec<Ipv4Net>,
    /// Destinations; empty: any.
    pub to: Vec<Ipv4Net>,
    /// Protocol.
    pub protocol: Protocol,
    /// Destination ports; empty: any. Only with protocols that have ports.
    pub ports: Vec<Ports>,
}

impl Acl {
    /// Whether it names TCP port `port`, alone or in a range.
    pub(super) fn names_tcp_port(&self, port: u16) -> bool {
        self.protocol == Protocol::Tcp && self.ports.iter().any(|ports| ports.overlaps(Ports::single(port)))
    }
}

/// `[egress]`: what private hosts may reach on the internet, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Egress {
    /// Whether packets to addresses that cannot be on the internet are dropped.
    pub guard: bool,
    /// New flows per second that one source may open, with a burst of twice as many; `None`: no limit.
    pub new_flows_per_second: Option<u32>,
    /// Flows that one source may have at the same time; `None`: no limit.
    pub max_flows: Option<u32>,
    /// New flows per second that all sources of one network, or all peers, may open together, with a burst of twice as
    /// many; `None`: no limit.
    pub network_new_flows_per_second: Option<u32>,
    /// The lists of every network without lists of its own.
    pub lists: EgressLists,
}

/// What a network's hosts may reach.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EgressLists {
    /// Whether TCP port 25 is open.
    pub smtp: bool,
    /// Allowed destinations; `None`: every destination. `from` is always empty in these entries.
    pub allow: Option<Vec<Acl>>,
    /// Denied destinations, even if `allow` contains them. `from` is always empty in these entries.
    pub deny: Vec<Acl>,
}

/// How a `[[network]]` names its network. No two blocks name the same one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum NetworkName {
    /// By its whole range.
    Range(Ipv4Net),
    /// By the interface that leads to it. A bridge of this server that a block names is served.
    Interface(InterfaceName),
}

impl NetworkName {
    /// Whether it means the network with this range behind this interface.
    pub fn is(&self, network: Ipv4Net, interface: &InterfaceName) -> bool {
        match self {
            Self::Range(range) => *range == network,
            Self::Interface(name) => name == interface,
        }
    }

    /// The range, if it is named by that.
    pub fn range(&self) -> Option<Ipv4Net> {
        match self {
            Self::Range(range) => Some(*range),
            Self::Interface(_) => None,
        }
    }
}

/// `[[network]]`: settings of one private network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Its place in the file, for messages: `network[0]`.
    pub key: String,
    /// The name by which access lists call it. No other network and no alias of `[hosts]` has it.
    pub name: Option<String>,
    /// Which network.
    pub network: NetworkName,
    /// Further ranges whose hosts are reached through the network.
    pub also: Vec<Ipv4Net>,
    /// Its egress addresses; empty: the public interface's own address; `None`: those of `[nat]`.
    pub egress_addresses: Option<Vec<Ipv4Addr>>,
    /// `[[network.egress]]`: addresses of parts of it. Of two entries that contain a host, the narrower one counts.
    pub egress: Vec<EgressOfHosts>,
    /// Its lists. Lists that the block does not have are those of `[egress]`.
    pub lists: EgressLists,
}

/// `[[network.egress]]`: the egress addresses of some hosts of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressOfHosts {
    /// Its place in the file, for messages: `network[0].egress[1]`.
    pub key: String,
    /// The hosts. No two entries of a network have the same range.
    pub from: Vec<Ipv4Net>,
    /// Their egress addresses; empty: the public interface's own address.
    pub addresses: Vec<Ipv4Addr>,
}

/// `[firewall]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firewall {
    /// TCP ports of the SSH server; `None`: 22 and the ports in sshd's own configuration.
    pub ssh_ports: Option<BTreeSet<u16>>,
    /// The sources that may reach them.
    pub ssh_from: Vec<IpNet>,
    /// Whether they are reachable only through the tunnel.
    pub ssh_only_by_tunnel: bool,
    /// New SSH connections per minute from one source (an IPv4 address or an IPv6 /64), with a burst of twice as many;
    /// `None`: no limit.
    pub ssh_attempts: Option<u32>,
    /// How long a source that exceeds `ssh_attempts` is blocked. 1 s to 24 h.
    pub ssh_ban: Duration,
    /// The UDP port that is open for WireGuard: the tunnel's, or that of another program's tunnel; `None`: no open
    /// port.
    pub wireguard_port: Option<u16>,
    /// `[[firewall.service]]`: other services on the bastion.
    pub services: Vec<Service>,
    /// Echo requests per second that the bastion answers, over all sources; `None`: no limit.
    pub pings_per_second: Option<u32>,
    /// New TCP connections per second to forwards and services from one outside source, with a burst of twice as many;
    /// `None`: no limit.
    pub syns_per_second: Option<u32>,
    /// New flows per second of any protocol to forwards and services from one outside source, with a burst of twice as
    /// many; `None`: no limit.
    pub new_flows_per_second: Option<u32>,
    /// Flows that one outside source may have at the same time; `None`: no limit.
    pub max_flows: Option<u32>,
    /// Whether sources with many flows open no more while the connection tracking table is more than half full.
    pub fair_share: bool,
    /// Sources whose packets are always dropped.
    pub blocklist: Vec<IpNet>,
    /// Where dropped packets are logged.
    pub log_drops: LogDrops,
    /// The ids of the users that may use the metadata service besides root and the daemon; `None`: everyone may.
    pub metadata_users: Option<BTreeSet<u32>>,
}

/// `firewall.log_drops`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogDrops {
    /// In the daemon's log.
    Journal,
    /// To this nflog group, for ulogd or tcpdump.
    Group(u16),
    /// Nowhere.
    Off,
}

/// `[[firewall.service]]`: a service on the bastion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its place in the file, for messages: `firewall.service[0]`.
    pub key: String,
    /// The operator's name for it, unique among blocks of this kind.
    pub name: Option<String>,
    /// The protocols.
    pub transports: Transports,
    /// The ports that are open, each once; empty if the protocol has none.
    pub ports: Vec<Ports>,
    /// The sources that may connect; empty: everyone.
    pub from: Vec<IpNet>,
}
