//! Any valid configuration.

use proptest::collection::btree_set;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::super::*;
use super::policy::{any_policy, any_services, fit};
use bastiond_tunnel::endpoint::EndpointName;
use bastiond_tunnel::key::{PresharedKey, PublicKey};

/// The range with this prefix that contains `address`.
pub(super) fn range<A: Into<std::net::IpAddr>>(address: A, prefix: u8) -> IpNet {
    IpNet::new(address.into(), prefix).unwrap().trunc()
}

fn private_links() -> impl Strategy<Value = Vec<PrivateLink>> {
    let link = |n: u8| {
        let prefix = 16_u8..=32;
        (prefix, any::<[u8; 2]>(), any::<bool>(), any::<bool>()).prop_map(move |(prefix, [c, d], address, id)| {
            let inside = Ipv4Addr::new(10, n, c, d);
            PrivateLink {
                interface: format!("enp{n}s0").parse().unwrap(),
                network: Ipv4Net::new(inside, prefix).unwrap().trunc(),
                address: address.then_some(inside),
                network_id: id.then_some(NetworkId(u64::from(n) + 1)),
                also: Vec::new(),
            }
        })
    };
    subsequence((0..=255_u8).collect::<Vec<_>>(), 0..=10)
        .prop_flat_map(move |numbers| numbers.into_iter().map(link).collect::<Vec<_>>())
}

fn any_site() -> impl Strategy<Value = Site> {
    let parts = (option::of("[a-z]{1,3}[0-9]{1,3}"), option::of(1..(1_u64 << 53)), 1..=65535_u16, private_links());
    parts.prop_map(|(public, id, port, private)| Site {
        public_interface: public.map(|name| name.parse().unwrap()),
        server_id: id.map(ServerId),
        // The parsed form of a URL omits the default port of its scheme.
        metadata_endpoint: format!("http://127.0.0.1:{port}/base").replace(":80/", "/"),
        docker: [DockerBridges::Report, DockerBridges::Serve, DockerBridges::Ignore][usize::from(port) % 3],
        private,
    })
}

fn any_firewall() -> impl Strategy<Value = Firewall> {
    let v4 = (any::<u32>(), 1..=32_u8).prop_map(|(address, prefix)| range(Ipv4Addr::from(address), prefix));
    let v6 = (any::<u128>(), 1..=128_u8).prop_map(|(address, prefix)| range(std::net::Ipv6Addr::from(address), prefix));
    let everyone = Just(range(Ipv4Addr::UNSPECIFIED, 0));
    let matches_a_host = |s: &IpNet| s.prefix_len() < s.max_prefix_len() || !s.addr().is_unspecified();
    let range_of_hosts = prop_oneof![v4, v6].prop_filter("matches no host", matches_a_host).boxed();
    let source = prop_oneof![2 => range_of_hosts.clone(), 1 => everyone];
    let port = || 1..=65535_u16;
    let limit = || option::of(1..=1_000_000_u32);
    let blocklist = btree_set(range_of_hosts, 0..10);
    let log_drops = prop_oneof![Just(LogDrops::Journal), Just(LogDrops::Off), port().prop_map(LogDrops::Group)];
    let ssh = (option::of(btree_set(port(), 1..20)), btree_set(source, 1..20), any::<bool>(), 1000..=86_400_000_u64);
    let users = option::of(btree_set(0..u32::MAX, 0..5));
    let limits = ([limit(), limit(), limit(), limit(), limit()], any::<bool>());
    let parts = (ssh, option::of(port()), limits, any_services(), blocklist, log_drops, users);
    parts.prop_map(|(ssh, wireguard_port, limits, services, blocklist, log_drops, metadata_users)| {
        let ([ssh_attempts, pings, syns, new_flows_per_second, max_flows], fair_share) = limits;
        let (ssh_ports, ssh_from, ssh_only_by_tunnel, ban) = ssh;
        Firewall {
            ssh_ports,
            ssh_from: ssh_from.into_iter().collect(),
            ssh_only_by_tunnel,
            ssh_attempts,
            ssh_ban: Duration::from_millis(ban),
            wireguard_port,
            services,
            pings_per_second: pings,
            syns_per_second: syns,
            new_flows_per_second,
            max_flows,
            fair_share,
            blocklist: blocklist.into_iter().collect(),
            log_drops,
            metadata_users,
        }
    })
}

fn any_hcloud() -> impl Strategy<Value = Hcloud> {
    let destination = |n: u8| Ipv4Net::new(Ipv4Addr::new(10, n, 0, 0), 16).unwrap();
    let destinations =
        subsequence((0..=255_u8).collect::<Vec<_>>(), 0..=99).prop_map(move |n| n.into_iter().map(destination));
    let parts = (any::<[bool; 3]>(), 1..=65535_u16, "/[a-z/]{1,20}", destinations, 1000..=86_400_000_u64);
    parts.prop_map(|([enabled, take_over, everything], port, token_file, destinations, millis)| Hcloud {
        enabled,
        endpoint: format!("https://api.example:{port}/v1").replace(":443/", "/"),
        token: TokenSource { credential: None, files: vec![token_file.into()], value: None },
        destinations: destinations.chain(everything.then(|| "0.0.0.0/0".parse().unwrap())).collect(),
        take_over,
        poll_interval: Duration::from_millis(millis),
        network: None,
    })
}

fn any_health() -> impl Strategy<Value = Health> {
    let target =
        |n: u8| (Just(n), 1..=65535_u16).prop_map(|(n, port)| SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, n), port));
    let targets = subsequence((0..=255_u8).collect::<Vec<_>>(), 1..=4)
        .prop_flat_map(move |numbers| numbers.into_iter().map(target).collect::<Vec<_>>());
    (any::<bool>(), targets).prop_map(|(enabled, targets)| Health { enabled, targets })
}

/// The aliases that lists of [`any_entries`] name.
fn any_hosts() -> BTreeMap<String, Vec<Ipv4Net>> {
    [("db".to_owned(), vec!["10.0.1.5/32".parse().unwrap(), "10.0.2.0/24".parse().unwrap()])].into()
}

/// A list; `reached`: of what peers reach.
fn any_entries(reached: bool) -> impl Strategy<Value = Vec<AccessEntry>> {
    let range = (any::<u32>(), 1..=31_u8).prop_map(|(address, prefix)| Ipv4Net::new(address.into(), prefix).unwrap());
    let host = any_hosts().pop_first().map(|(name, ranges)| Place::Host(name, ranges)).unwrap();
    let place = prop_oneof![
        range.prop_map(|range| Place::Range(range.trunc())),
        Just(host),
        Just(Place::Private),
        Just(Place::Peers)
    ];
    let protocol = select(vec![Protocol::Any, Protocol::Tcp, Protocol::Udp, Protocol::Icmp, Protocol::Sctp]);
    let ports = btree_set((1..=65000_u16, 0..=500_u16).prop_map(|(first, more)| ports(first, first + more)), 0..3);
    let entry = (place, protocol, ports).prop_map(|(place, protocol, ports)| {
        let has_ports = matches!(protocol, Protocol::Tcp | Protocol::Udp | Protocol::Sctp);
        AccessEntry { place, protocol, ports: ports.into_iter().filter(|_| has_ports).collect() }
    });
    (btree_set(entry, 0..4), any::<bool>()).prop_map(move |(entries, ssh)| {
        let ssh = (ssh && reached).then(|| AccessEntry::all_of(Place::BastionSsh));
        entries.into_iter().chain(ssh).collect()
    })
}

fn any_lists() -> impl Strategy<Value = AccessLists> {
    (option::of(any_entries(true)), any_entries(true), option::of(any_entries(false)))
        .prop_map(|(reach, deny, from)| AccessLists { reach, deny, from })
}

/// Both groups that peers of [`any_peer_access`] name.
fn any_groups() -> impl Strategy<Value = Vec<Group>> {
    (any_lists(), any_lists()).prop_map(|(dev, ops)| {
        vec![Group { name: "dev".to_owned(), lists: dev }, Group { name: "ops_2".to_owned(), lists: ops }]
    })
}

fn any_peer_access() -> impl Strategy<Value = PeerAccess> {
    (subsequence(vec!["dev".to_owned(), "ops_2".to_owned()], 0..=2), any_lists())
        .prop_map(|(groups, lists)| PeerAccess { groups, lists })
}

fn any_peers() -> impl Strategy<Value = Vec<Peer>> {
    let peer = |n: u8| {
        let site =
            option::of((0_u8..=24).prop_map(move |bits| range(Ipv4Addr::new(172, 16 + n % 8, n, 0), 24.max(bits))));
        let endpoint = option::of(prop_oneof![
            (any::<[u8; 4]>(), 1..=65535_u16).prop_map(|(ip, port)| EndpointName::Address((ip, port).into())),
            (any::<[u16; 8]>(), 1..=65535_u16).prop_map(|(ip, port)| EndpointName::Address((ip, port).into())),
            ("[a-z]([a-z0-9-]{0,10}[a-z])?\\.example", 1..=65535_u16)
                .prop_map(|(host, port)| EndpointName::Name { host, port }),
        ]);
        let expires = option::of((0..=4_102_444_799_u64).prop_map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds)));
        let name = option::of("[a-zA-Z ']{0,10}");
        let parts = (name, any::<bool>(), site, endpoint, option::of(1..=65535_u16), any::<bool>(), expires);
        let parts = (parts, any_peer_access());
        parts.prop_map(move |((name, secret, site, endpoint, persistent_keepalive, enabled, expires), access)| Peer {
            name: name.map(|name| format!("{n} {name}")),
            public_key: PublicKey([n; 32]),
            preshared_key: secret.then_some(PresharedKey([n; 32])),
            allowed_ips: [range(Ipv4Addr::new(100, 64, n, 2), 32)].into_iter().chain(site).collect(),
            in_private_network: false,
            endpoint,
            persistent_keepalive,
            enabled,
            expires,
            access,
        })
    };
    subsequence((0..=255_u8).collect::<Vec<_>>(), 0..=10)
        .prop_flat_map(move |numbers| numbers.into_iter().map(peer).collect::<Vec<_>>())
}

fn any_wireguard() -> impl Strategy<Value = Wireguard> {
    let addresses = subsequence(vec!["100.64.0.1/10", "100.63.0.1/16", "fd00::1/64", "fd00:1::7/128"], 1..=4);
    let addresses = addresses.prop_map(|texts| texts.into_iter().map(|text| text.parse().unwrap()).collect());
    let backend = select(vec![BackendChoice::Auto, BackendChoice::Userspace, BackendChoice::Kernel]);
    let snat = select(vec![Snat::Auto, Snat::Always, Snat::Never]);
    let numbers = (1..=65535_u16, option::of(1280..=65455_u32), any::<u32>(), any::<bool>(), any::<bool>());
    let endpoint = option::of(
        (any::<[u8; 4]>(), 1..=65535_u16)
            .prop_map(|([_, b, c, d], port)| EndpointName::Address(([198, b, c, d], port).into())),
    );
    let for_clients = (endpoint, subsequence(vec!["10.0.0.2", "fd00::53", "9.9.9.9"], 0..=3));
    let access = (any_groups(), option::of(any_entries(true)));
    (addresses, backend, snat, numbers, "/[a-z/]{1,20}", any_peers(), for_clients, access).prop_map(
        |(
            addresses,
            backend,
            snat,
            (listen_port, mtu, fwmark, full_tunnel, routes),
            key_file,
            peers,
            (endpoint, dns),
            (groups, default_reach),
        )| Wireguard {
            interface: "wg-law".parse().unwrap(),
            listen_port,
            private_key: None,
            private_key_file: key_file.into(),
            is_key_in_wg_file: false,
            addresses,
            mtu,
            fwmark,
            backend,
            full_tunnel,
            routes,
            snat,
            endpoint,
            dns: dns.into_iter().map(|text| text.parse().unwrap()).collect(),
            default_reach,
            groups,
            peers,
            out: Vec::new(),
        },
    )
}

pub(super) fn any_config() -> impl Strategy<Value = Config> {
    use tracing::Level;
    let levels = vec![Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
    let tunnel = option::of(any_wireguard());
    let parts = (select(levels), any_site(), any_policy(), any_firewall(), (any_hcloud(), any_health()), tunnel);
    parts.prop_map(|(level, site, (nat, egress, networks, tenants), mut firewall, (hcloud, health), mut wireguard)| {
        if let Some((tunnel, open)) = wireguard.as_mut().zip(firewall.wireguard_port.as_mut()) {
            *open = tunnel.listen_port;
        }
        let (log, warnings) = (Log { level }, Vec::new());
        let hosts = any_hosts();
        let mut config =
            Config { log, site, nat, egress, networks, tenants, firewall, hcloud, health, wireguard, hosts, warnings };
        fit(&mut config);
        config
    })
}
