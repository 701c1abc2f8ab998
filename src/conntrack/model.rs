//! The nouns: a flow as the kernel tracks it, and the ways by which one may pass.

use std::fmt;
use std::net::Ipv4Addr;

use bastiond_tunnel::key::PublicKey;

/// Numbers of protocols in the IP header (IANA, "Assigned Internet Protocol Numbers").
pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// One flow: an entry of the kernel's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// How its first packet came in, before any translation.
    pub original: Tuple,
    /// How the answers come in: what the first packet became, turned around.
    pub reply: Tuple,
    /// What the kernel knows of it.
    pub status: Status,
    /// Its mark (`ct mark`).
    pub mark: u32,
    /// The kernel's number of this very entry: one that takes its place later has another.
    pub id: Option<u32>,
    /// The zone that both directions belong to; 0 where nobody divides the table. Rules of ours do not.
    pub zone: u16,
}

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Where packets come from.
    pub source: Ipv4Addr,
    /// Where they go.
    pub destination: Ipv4Addr,
    /// Number of the protocol in the IP header.
    pub protocol: u8,
    /// What else tells this flow from others.
    pub ends: Ends,
    /// The zone of this direction alone, where somebody divides the table by direction.
    pub zone: Option<u16>,
}

/// What tells flows between two addresses apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ends {
    /// Ports: TCP, UDP, and whatever else has them.
    Ports {
        /// The sender's.
        source: u16,
        /// The receiver's.
        destination: u16,
    },
    /// An ICMP question or its answer.
    Icmp {
        /// The number that the asker chose.
        id: u16,
        /// ICMP type.
        kind: u8,
        /// ICMP code.
        code: u8,
    },
    /// Nothing: all packets between two addresses are one flow.
    None,
}

/// Bits of the kernel's `enum ip_conntrack_status` (`linux/netfilter/nf_conntrack_common.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status(pub u32);

impl Status {
    /// `IPS_ASSURED`: packets went both ways, so that the entry is not the first to go when the table is full.
    pub const ASSURED: Self = Self(1 << 2);
    /// `IPS_CONFIRMED`: its first packet has left, so that it is in the table.
    pub const CONFIRMED: Self = Self(1 << 3);
    /// `IPS_SRC_NAT`: its source is translated.
    pub const SRC_NAT: Self = Self(1 << 4);
    /// `IPS_DST_NAT`: its destination is translated.
    pub const DST_NAT: Self = Self(1 << 5);

    /// Whether all bits of `other` are set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Status {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Flow {
    /// Whether its destination is translated.
    pub fn is_redirected(&self) -> bool {
        self.status.has(Status::DST_NAT)
    }

    /// Whether somebody keeps it in a part of the table of its own, where addresses mean what they mean to them.
    pub fn is_in_a_zone(&self) -> bool {
        let zones = [Some(self.zone), self.original.zone, self.reply.zone];
        zones.into_iter().flatten().any(|zone| zone != 0)
    }
}

impl Tuple {
    /// The port that the first packet was sent to.
    pub fn destination_port(&self) -> Option<u16> {
        match self.ends {
            Ends::Ports { destination, .. } => Some(destination),
            Ends::Icmp { .. } | Ends::None => None,
        }
    }

    /// The port that packets come from.
    pub fn source_port(&self) -> Option<u16> {
        match self.ends {
            Ends::Ports { source, .. } => Some(source),
            Ends::Icmp { .. } | Ends::None => None,
        }
    }
}

/// By which permission a flow passes, as a policy sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By a port forward to this private host and port.
    Forward(Ipv4Addr, u16),
    /// By a public address that belongs to this private host.
    Static(Ipv4Addr),
    /// From a private network to the internet.
    Egress,
    /// From one private network to another.
    Tenant,
    /// From or to this peer of the tunnel.
    Tunnel(PublicKey),
    /// To a service of the bastion's own.
    Service,
    /// The policy knows such flows, and forbids this one.
    Blocked(Block),
    /// Not the policy's to judge: SSH to the bastion, the bastion's own connections, other people's.
    Unknown,
}

/// Why a flow is forbidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block {
    /// Its source is on the blocklist.
    Blocklist,
    /// It is redirected, and no forward or static address does that.
    NoForward,
    /// It is redirected to another host or port than that of the forward or the static address.
    AnotherTarget,
    /// The forward is not for its source.
    Source,
    /// The static address is not open for it.
    Closed,
    /// Nobody on the internet has its destination.
    Unroutable,
    /// It is mail, and `smtp` is off.
    Smtp,
    /// A `deny` list has it.
    Denied,
    /// There is an `allow` list that does not have it.
    NotAllowed,
    /// Nothing allows it from one private network to the other.
    OtherTenant,
    /// Its address in the tunnel is nobody's.
    NoPeer,
    /// Peers do not reach where it goes, or are not reached by whom it comes from.
    Tunnel,
    /// The bastion has no such service, or not for its source.
    NoService,
    /// It comes from outside, to a private address.
    Outside,
}

/// A protocol as people call it.
pub(super) struct ProtocolName(pub(super) u8);

impl fmt::Display for ProtocolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ICMP => f.write_str("icmp"),
            TCP => f.write_str("tcp"),
            UDP => f.write_str("udp"),
            other => write!(f, "protocol {other}"),
        }
    }
}
