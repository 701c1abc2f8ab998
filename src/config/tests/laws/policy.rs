//! Any valid policy: first each part alone, then adapted to the rest of the configuration.

use std::ops::Range;

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::super::*;
use super::any::range;

/// The address number `n` in a block for documentation (RFC 5737).
fn address([a, b, c]: [u8; 3], n: usize) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, u8::try_from(n).unwrap())
}

const POOLS: [u8; 3] = [192, 0, 2];
const FORWARDS: [u8; 3] = [198, 51, 100];
const STATICS: [u8; 3] = [203, 0, 113];

fn name(n: usize) -> impl Strategy<Value = Option<String>> {
    option::of("[a-zA-Z ü']{0,10}".prop_map(move |name| format!("{n} {name}")))
}

/// By numbers with and without a name.
fn any_protocol_without_ports() -> impl Strategy<Value = IpProtocol> {
    select(vec![0, 2, 41, 47, 50, 112, 136, 253, 255]).prop_map(protocol)
}

fn protocol(number: u8) -> IpProtocol {
    serde_json::from_str(&number.to_string()).unwrap()
}

fn any_transports() -> impl Strategy<Value = Transports> {
    let with_ports = select(vec![Transports::Tcp, Transports::Udp, Transports::Both, Transports::Sctp]);
    prop_oneof![3 => with_ports, 1 => any_protocol_without_ports().prop_map(Transports::Other)]
}

fn any_ports(most: u16) -> impl Strategy<Value = Ports> {
    (1..=most, 0..=3000_u16).prop_map(move |(first, width)| ports(first, first.saturating_add(width).min(most)))
}

/// An empty list means "any".
fn ranges(count: Range<usize>) -> impl Strategy<Value = Vec<Ipv4Net>> {
    let one = (any::<u32>(), 0..=31_u8).prop_map(|(address, prefix)| Ipv4Net::new(address.into(), prefix).unwrap());
    btree_set(one.prop_map(|range| range.trunc()), count).prop_map(|ranges| ranges.into_iter().collect())
}

/// A rule with `sides` sources and `sides` destinations.
fn any_acl(sides: Range<usize>) -> impl Strategy<Value = Acl> {
    let named = select(vec![Protocol::Any, Protocol::Tcp, Protocol::Udp, Protocol::Icmp, Protocol::Sctp]);
    let protocol = prop_oneof![4 => named, 1 => any_protocol_without_ports().prop_map(Protocol::Other)];
    (ranges(sides.clone()), ranges(sides), protocol, btree_set(any_ports(65535), 0..4)).prop_map(
        |(from, to, protocol, ports)| {
            let has_ports = matches!(protocol, Protocol::Tcp | Protocol::Udp | Protocol::Sctp);
            Acl { from, to, protocol, ports: ports.into_iter().filter(|_| has_ports).collect() }
        },
    )
}

fn any_lists() -> impl Strategy<Value = EgressLists> {
    let list = || vec(any_acl(0..4).prop_map(|rule| Acl { from: Vec::new(), ..rule }), 0..4);
    (any::<bool>(), option::of(list()), list()).prop_map(|(smtp, allow, deny)| EgressLists { smtp, allow, deny })
}

fn any_pool() -> impl Strategy<Value = Vec<Ipv4Addr>> {
    subsequence((1..=20).map(|n| address(POOLS, n)).collect::<Vec<_>>(), 0..=5)
}

/// A forward that overlaps no other: it has its own addresses or its own ports.
fn any_forward(n: usize) -> impl Strategy<Value = Forward> {
    let public = subsequence((0..4).map(|of| address(FORWARDS, 4 * n + of)).collect::<Vec<_>>(), 0..=4);
    let own = u16::try_from(20_000 + 100 * n).unwrap();
    let numbers = (any_ports(19_999), 0..100_u16, 0..100_u16, option::of(1..=65535_u16));
    (name(n), public, any_transports(), numbers, ranges(0..4), any::<bool>()).prop_map(
        move |(name, public, transports, (shared, one, other, to_port), from, snat)| {
            let own = ports(own + one.min(other), own + one.max(other));
            // A protocol of its own too.
            let without_ports = transports.without_ports().map(|_| protocol(140 + u8::try_from(n).unwrap()));
            let transports = without_ports.map_or(transports, Transports::Other);
            let ports = match without_ports {
                Some(_) => Ports::ALL,
                None if public.is_empty() => own,
                None => shared,
            };
            Forward {
                key: String::new(),
                name,
                public,
                transports,
                ports,
                to: address(FORWARDS, n),
                to_port: to_port.filter(|_| ports.is_single()),
                from,
                snat,
            }
        },
    )
}

fn any_static(n: usize) -> impl Strategy<Value = StaticNat> {
    let open = vec(any_acl(0..4).prop_map(|rule| Acl { to: Vec::new(), ..rule }), 0..3);
    (name(n), open).prop_map(move |(name, open)| StaticNat {
        key: String::new(),
        name,
        public: address(STATICS, n),
        private: address(STATICS, n),
        open,
    })
}

fn any_nat() -> impl Strategy<Value = Nat> {
    let numbers = |count: usize, most| subsequence((0..count).collect::<Vec<_>>(), 0..=most);
    let forwards = numbers(20, 10).prop_flat_map(|all| all.into_iter().map(any_forward).collect::<Vec<_>>());
    let statics = numbers(20, 5).prop_flat_map(|all| all.into_iter().map(any_static).collect::<Vec<_>>());
    let fastpath = select(vec![Fastpath::Auto, Fastpath::Bpf, Fastpath::Flowtable, Fastpath::Off]);
    let drain = any_pool().prop_map(|addresses| addresses.into_iter().collect());
    (any::<bool>(), any_pool(), drain, fastpath, forwards, statics).prop_map(
        |(random_ports, egress_addresses, drain, fastpath, forwards, statics)| Nat {
            random_ports,
            egress_addresses,
            drain,
            fastpath,
            forwards,
            statics,
        },
    )
}

fn any_limit() -> impl Strategy<Value = Option<u32>> {
    option::of(1..=1_000_000_u32)
}

fn any_egress() -> impl Strategy<Value = Egress> {
    (any::<bool>(), [any_limit(), any_limit(), any_limit()], any_lists()).prop_map(|(guard, limits, lists)| {
        let [new_flows_per_second, max_flows, network_new_flows_per_second] = limits;
        Egress { guard, new_flows_per_second, max_flows, network_new_flows_per_second, lists }
    })
}

fn any_networks() -> impl Strategy<Value = Vec<NetworkPolicy>> {
    let network = |n: u8| {
        (option::of(any_pool()), any_lists()).prop_map(move |(egress_addresses, lists)| NetworkPolicy {
            key: String::new(),
            name: None,
            network: NetworkName::Range(Ipv4Net::new(Ipv4Addr::new(10, n, 0, 0), 16).unwrap()),
            also: Vec::new(),
            egress: Vec::new(),
            egress_addresses,
            lists,
        })
    };
    subsequence((0..=255_u8).collect::<Vec<_>>(), 0..=5)
        .prop_flat_map(move |numbers| numbers.into_iter().map(network).collect::<Vec<_>>())
}

/// The policy sections of a configuration, not yet adapted to the rest.
pub(super) fn any_policy() -> impl Strategy<Value = (Nat, Egress, Vec<NetworkPolicy>, Vec<Acl>)> {
    // Both sides are required.
    let tenants = vec(any_acl(1..4), 0..4);
    (any_nat(), any_egress(), any_networks(), tenants)
}

pub(super) fn any_services() -> impl Strategy<Value = Vec<Service>> {
    let service = |n: usize| {
        let sources = btree_set((any::<u128>(), 1..=127_u8), 0..3).prop_map(|sources| {
            sources.into_iter().map(|(address, prefix)| range(std::net::Ipv6Addr::from(address), prefix))
        });
        let from = (ranges(0..4), sources).prop_map(|(v4, v6)| v4.into_iter().map(IpNet::V4).chain(v6).collect());
        let from = from.prop_map(|from: BTreeSet<IpNet>| from.into_iter().collect());
        let ports = btree_set(any_ports(65535), 1..4).prop_map(|ports| ports.into_iter().collect());
        (name(n), any_transports(), ports, from).prop_map(move |(name, transports, ports, from)| {
            let ports: Vec<Ports> = ports;
            let has_ports = transports.without_ports().is_none();
            let ports = ports.into_iter().filter(|_| has_ports).collect();
            Service { key: format!("firewall.service[{n}]"), name, transports, ports, from }
        })
    };
    (0..4_usize).prop_flat_map(move |count| (0..count).map(service).collect::<Vec<_>>())
}

/// Different private hosts, without the bastion.
fn hosts(site: &Site) -> Vec<Ipv4Addr> {
    if site.private.is_empty() {
        return (4..20).map(|n| Ipv4Addr::new(172, 16, 0, n)).collect();
    }
    let own = |address: &Ipv4Addr| site.private.iter().any(|link| link.address == Some(*address));
    site.private.iter().flat_map(|link| link.network.hosts().take(4)).filter(|address| !own(address)).collect()
}

/// Adapts the policy to the site, the firewall and the tunnel.
pub(super) fn fit(config: &mut Config) {
    let Config { site, nat, egress, networks, firewall, wireguard, .. } = config;
    let hosts = hosts(site);
    if hosts.is_empty() {
        nat.forwards.clear();
    }
    let can_log_in = wireguard.as_ref().is_some_and(|tunnel| {
        let enabled = || tunnel.peers.iter().filter(|peer| peer.enabled);
        let answers = firewall.wireguard_port.is_some() || enabled().any(|peer| peer.endpoint.is_some());
        enabled().any(|peer| peer.expires.is_none() && tunnel.reaches_ssh(peer)) && answers
    });
    firewall.ssh_only_by_tunnel &= can_log_in;
    firewall.blocklist.retain(|range| !firewall.ssh_from.iter().any(|source| range.contains(source)));
    for (index, forward) in nat.forwards.iter_mut().enumerate() {
        forward.key = format!("nat.forward[{index}]");
        let own_address = forward.to;
        forward.to = hosts[index % hosts.len()];
        let has_ports = forward.transports.without_ports().is_none();
        let is_open = |port: &u16| has_ports && forward.ports.overlaps(Ports::single(*port));
        let of_bastion = firewall.ssh_ports.iter().flatten().chain(&firewall.wireguard_port).any(is_open);
        if forward.public.is_empty() && (of_bastion || is_open(&22)) {
            forward.public = vec![own_address];
        }
    }
    nat.statics.truncate(hosts.len());
    for (index, (entry, host)) in nat.statics.iter_mut().zip(hosts).enumerate() {
        (entry.key, entry.private) = (format!("nat.static[{index}]"), host);
    }
    if !site.private.is_empty() {
        networks.truncate(site.private.len());
    }
    for (index, network) in networks.iter_mut().enumerate() {
        network.key = format!("network[{index}]");
        if let Some(link) = site.private.get(index) {
            network.network = NetworkName::Range(link.network);
        }
        // An absent list would be inherited.
        network.lists.allow = network.lists.allow.take().or_else(|| egress.lists.allow.clone());
    }
    let pools = networks.iter().filter_map(|network| network.egress_addresses.as_ref()).chain([&nat.egress_addresses]);
    let pools: Vec<_> = pools.collect();
    nat.drain.retain(|address| {
        pools.iter().any(|pool| pool.contains(address)) && !pools.iter().any(|pool| pool.first() == Some(address))
    });
}
