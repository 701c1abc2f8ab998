//! Why the cloud refuses a change.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::ids::{FloatingIpId, NetworkId, ResourceId, ServerId};

/// A rule that a change would violate. The texts are those of the real API where they are known (the source is beside
/// the variant). Clients must only rely on the code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{kind} with ID '{id}' not found")]
    Absent { kind: &'static str, id: u64 },
    #[error("name is already used")]
    NameTaken,
    #[error("{0} is being changed, please retry")]
    NetworkBusy(NetworkId),
    // terraform-provider-hcloud#492
    #[error("cannot perform operation because server is locked")]
    ServerLocked(ServerId),
    #[error("cannot perform operation because floating IP is locked")]
    FloatingIpLocked(FloatingIpId),
    #[error("{0} is protected from deletion")]
    Protected(NetworkId),

    #[error("invalid destination: {0} has host bits set")]
    DestinationHostBits(Ipv4Net),
    #[error("invalid destination: {0} is neither a private range nor 0.0.0.0/0")]
    DestinationNotPrivate(Ipv4Net),
    #[error("invalid destination: {0} covers 172.31.1.1")]
    DestinationCoversPublicGateway(Ipv4Net),
    // hcloud-cloud-controller-manager#577
    #[error("network route destination overlaps with another subnetwork or network route")]
    DestinationOverlaps(Ipv4Net),
    // terraform-provider-hcloud#269
    #[error("network route gateway not part of the network IP range ({range})")]
    GatewayOutside { gateway: Ipv4Addr, range: Ipv4Net },
    // hetznercloud/cli#826, hcloud-cloud-controller-manager#214
    #[error("invalid gateway")]
    GatewayReserved(Ipv4Addr),
    #[error("route limit reached")]
    TooManyRoutes,
    #[error("route not found")]
    RouteAbsent,

    #[error("invalid ip_range: {0} has host bits set")]
    RangeHostBits(Ipv4Net),
    #[error("invalid ip_range: {0} is not a private range")]
    RangeNotPrivate(Ipv4Net),
    #[error("invalid ip_range: {range} is smaller than /{largest_prefix}")]
    RangeTooSmall { range: Ipv4Net, largest_prefix: u8 },
    #[error("ip_range can only be extended at its end, {0} is no extension")]
    RangeNotExtended(Ipv4Net),
    #[error("subnet {subnet} is not part of the network IP range ({range})")]
    SubnetOutside { subnet: Ipv4Net, range: Ipv4Net },
    #[error("subnet {0} overlaps with another subnetwork or network route")]
    SubnetOverlaps(Ipv4Net),
    #[error("subnets of one network must be in one network zone")]
    SubnetZone,
    #[error("subnet of type vswitch needs a vswitch_id")]
    VswitchMissing,
    #[error("subnet limit reached")]
    TooManySubnets,
    #[error("subnet not found")]
    SubnetAbsent,
    #[error("cannot remove subnet because servers are attached to it")]
    SubnetInUse(Ipv4Net),

    #[error("server is already attached to network")]
    AlreadyAttached,
    #[error("server is not attached to network")]
    NotAttached,
    // terraform-provider-hcloud#586
    #[error("provided IP is not available")]
    IpUnavailable(Ipv4Addr),
    #[error("provided IP {ip} is not part of {range}")]
    IpOutside { ip: Ipv4Addr, range: Ipv4Net },
    // terraform-provider-hcloud#1039
    #[error("no subnet or IP available")]
    NoSubnetAvailable,
    #[error("network IP range overlaps with one of the server networks")]
    NetworksOverlap,
    #[error("limit of networks per server reached")]
    TooManyNetworks,
    #[error("limit of resources per network reached")]
    TooManyMembers,
    #[error("alias IP {0} is given twice")]
    AliasTwice(Ipv4Addr),

    #[error("floating IP is already assigned")]
    FloatingIpAssigned,
    #[error("floating IP is not assigned")]
    FloatingIpUnassigned,
}

impl Refusal {
    /// The resource does not exist.
    pub(crate) fn absent(resource: ResourceId) -> Self {
        let (kind, id) = resource.kind_and_id();
        Self::Absent { kind, id }
    }
}
