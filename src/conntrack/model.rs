//! The nouns: a flow as the kernel tracks it, and the permissions by which one may pass.

use std::net::Ipv4Addr;

use bastiond_tunnel::key::PublicKey;

/// Numbers of protocols in the IP header (IANA, "Assigned Internet Protocol Numbers").
pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const SCTP: u8 = 132;

/// One flow: an entry of the kernel's connection tracking table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// The first packet as it arrived, before any translation.
    pub original: Tuple,
    /// The answers as they arrive: the first packet as it left, with source and destination exchanged.
    pub reply: Tuple,
    /// The kernel's status bits of the entry.
    pub status: Status,
    /// The entry's mark (`ct mark`).
    pub mark: u32,
    /// The kernel's number of this entry: an entry with the same tuple that is created later has another number.
    pub id: Option<u32>,
    /// The conntrack zone of both directions; 0 is the default zone. Our rules use no other.
    pub zone: u16,
}

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Number of the protocol in the IP header.
    pub protocol: u8,
    /// Ports, or what stands in their place.
    pub layer4: Layer4,
    /// The conntrack zone of this direction alone; `None`: the zone of the whole flow.
    pub zone: Option<u16>,
}

/// What distinguishes the flows between two addresses that use the same protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layer4 {
    /// The ports of TCP, UDP and every other protocol that has ports.
    Ports {
        /// The sender's port.
        source: u16,
        /// The receiver's port.
        destination: u16,
    },
    /// The header of an ICMP request or of its reply.
    Icmp {
        /// The identifier that the requesting host chose.
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
    /// `IPS_SEEN_REPLY`: the other side has sent a packet.
    pub const SEEN_REPLY: Self = Self(1 << 1);
    /// `IPS_ASSURED`: packets went both ways, so the kernel does not evict the entry early when the table is full.
    pub const ASSURED: Self = Self(1 << 2);
    /// `IPS_CONFIRMED`: its first packet has left, so the entry is in the table.
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

    /// Its first packet as it goes on: with the destination after the translation.
    pub(super) fn translated(&self) -> Tuple {
        let mut tuple = self.original;
        tuple.destination = self.reply.source;
        if let (Layer4::Ports { destination, .. }, Some(port)) = (&mut tuple.layer4, self.reply.source_port()) {
            *destination = port;
        }
        tuple
    }

    /// Whether one of its directions is in a conntrack zone other than the default one. Only other programs make such
    /// flows, and only they know what the addresses in a zone mean.
    pub fn has_zone(&self) -> bool {
        let zones = [Some(self.zone), self.original.zone, self.reply.zone];
        zones.into_iter().flatten().any(|zone| zone != 0)
    }
}

impl Tuple {
    /// The destination port; `None` for protocols without ports.
    pub fn destination_port(&self) -> Option<u16> {
        match self.layer4 {
            Layer4::Ports { destination, .. } => Some(destination),
            Layer4::Icmp { .. } | Layer4::None => None,
        }
    }

    /// The source port; `None` for protocols without ports.
    pub fn source_port(&self) -> Option<u16> {
        match self.layer4 {
            Layer4::Ports { source, .. } => Some(source),
            Layer4::Icmp { .. } | Layer4::None => None,
        }
    }
}

/// What a policy says about a flow: by which permission it passes, or why it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// A forward to this private host and port; `None`: the protocol has no ports.
    Forward(Ipv4Addr, Option<u16>),
    /// A public address that belongs to this private host.
    Static(Ipv4Addr),
    /// To this guest of a bridge of this server, whose port the bridge's program has published.
    Guest(Ipv4Addr),
    /// From a private network to the internet.
    Egress,
    /// From one private network to another.
    Tenant,
    /// From or to this peer of the tunnel.
    Tunnel(PublicKey),
    /// To a service of the bastion.
    Service,
    /// The policy covers such flows and forbids this one.
    Blocked(BlockReason),
    /// The policy does not cover such flows: SSH and pings to the bastion, the tunnel's own packets, the bastion's own
    /// connections, flows of other programs.
    Unknown,
}

/// Why a policy forbids a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockReason {
    /// Its source, or its destination on the internet, is on the blocklist.
    Blocklist,
    /// It is redirected, and no forward or static address does that.
    NoForward,
    /// It is redirected to another host or port than that of the forward or the static address.
    OtherTarget,
    /// The forward does not allow its source.
    ForwardSource,
    /// The static address does not allow it in `open`.
    StaticClosed,
    /// Its destination is a range that is not routed on the internet.
    Unroutable,
    /// It is mail, and `smtp` is off.
    Smtp,
    /// A `deny` list contains it.
    DenyList,
    /// There is an `allow` list that does not contain it.
    NotInAllowList,
    /// No line of `tenants.allow` allows it from one private network to the other.
    OtherTenant,
    /// Its address in the tunnel belongs to no peer.
    NoPeer,
    /// Peers may not reach its destination, or its source may not reach peers.
    Tunnel,
    /// The lists of its peer do not allow it.
    PeerLists,
    /// The bastion has no such service, or not for its source.
    NoService,
    /// It comes from the internet and goes to a private address.
    FromInternet,
}
