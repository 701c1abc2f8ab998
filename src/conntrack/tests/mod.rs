//! A server with two networks, a tunnel, and one of everything that lets a flow pass.

mod access;
mod answers;
mod laws;
mod permissions;
mod plan;
mod policy;
mod ports;
mod wire;

use std::net::SocketAddrV4;

use super::model::{ICMP, TCP, UDP};
use super::*;
use crate::component::{self, Plan as _};
use crate::config::{
    Acl, Config, EgressLists, Environment, Forward, NetworkName, NetworkPolicy, Ports, Protocol, Service, StaticNat,
    Transports, parse,
};
use crate::inputs::{SeenReturnRoutes, tunnel};
use crate::site::{PrivateLink, PublicLink, Site};
use bastiond_tunnel::key::PublicKey;

const ADA: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const OFFICE: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";

const TUNNEL: &str = r#"
[wireguard]
addresses = ["10.100.0.1/24"]
full_tunnel = true
[[wireguard.peer]]
public_key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
allowed_ips = ["10.100.0.2"]
[[wireguard.peer]]
public_key = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0="
allowed_ips = ["10.100.0.3", "192.168.178.0/24"]
"#;

fn read<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().unwrap()
}

fn nets(texts: &[&str]) -> Vec<ipnet::Ipv4Net> {
    texts.iter().map(|text| read(text)).collect()
}

fn key(text: &str) -> PublicKey {
    read(text)
}

fn site() -> Site {
    Site {
        public: Some(PublicLink {
            interface: read("eth0"),
            mtu: 1500,
            addresses: ["198.51.100.2", "198.51.100.3"].map(read).into(),
        }),
        private: vec![
            PrivateLink::example("eth1", "10.0.0.2", "10.0.0.0/16"),
            PrivateLink::example("eth2", "10.2.0.2", "10.2.0.0/16"),
        ],
        ..Site::default()
    }
}

fn forward(ports: Ports, to: &str, to_port: Option<u16>) -> Forward {
    Forward {
        key: String::new(),
        name: None,
        public: Vec::new(),
        transports: Transports::Tcp,
        ports,
        to: read(to),
        to_port,
        from: Vec::new(),
        snat: false,
    }
}

fn ports(first: u16, last: u16) -> Ports {
    Ports { first, last }
}

/// A configuration with one of everything that lets a flow pass.
fn config() -> Config {
    let mut config = parse(TUNNEL, &Environment::default()).unwrap();
    config.nat.forwards = vec![
        forward(ports(443, 443), "10.0.0.4", Some(8443)),
        Forward {
            public: vec![read("198.51.100.2")],
            transports: Transports::Udp,
            ..forward(ports(30000, 30100), "10.0.0.5", None)
        },
        Forward { from: nets(&["203.0.113.0/24"]), ..forward(ports(8022, 8022), "10.0.0.4", Some(22)) },
    ];
    let open = vec![
        Acl { protocol: Protocol::Tcp, ports: vec![ports(25, 25), ports(8000, 8100)], ..Acl::default() },
        Acl { protocol: Protocol::Icmp, ..Acl::default() },
    ];
    config.nat.statics = vec![StaticNat {
        key: String::new(),
        name: None,
        public: read("203.0.113.51"),
        private: read("10.0.0.7"),
        open,
    }];
    config.egress.lists.deny = vec![Acl { to: nets(&["192.0.2.0/24"]), ..Acl::default() }];
    let dns = Acl { protocol: Protocol::Udp, ports: vec![ports(53, 53)], ..Acl::default() };
    config.networks = vec![NetworkPolicy {
        name: None,
        key: String::new(),
        network: NetworkName::Range(read("10.2.0.0/16")),
        also: Vec::new(),
        egress: Vec::new(),
        egress_addresses: None,
        lists: EgressLists { allow: Some(vec![dns]), ..EgressLists::default() },
    }];
    config.tenants = vec![Acl {
        from: nets(&["10.0.0.0/16"]),
        to: nets(&["10.2.0.0/16"]),
        protocol: Protocol::Tcp,
        ports: vec![ports(5432, 5432)],
    }];
    config.firewall.blocklist = vec![read("203.0.113.66/32")];
    config.firewall.services = vec![Service {
        key: String::new(),
        name: None,
        transports: Transports::Tcp,
        ports: vec![ports(9100, 9100)],
        from: vec![read("10.0.0.0/16")],
    }];
    config
}

fn policy_of(config: &Config) -> Policy {
    policy_at(config, &site(), None).unwrap()
}

fn policy_at(config: &Config, site: &Site, before: Option<&Policy>) -> Option<Policy> {
    Policy::new(config, site, tunnel(config, site, &SeenReturnRoutes::new()).as_ref(), before)
}

/// A flow without translation: `tcp 203.0.113.9:4000 198.51.100.2:22`, `icmp 10.0.0.4 1.1.1.1`.
fn flow(text: &str) -> Flow {
    let words: Vec<&str> = text.split(' ').collect();
    let [protocol, from, to] = words[..] else { panic!("{text}") };
    let end =
        |text: &str| read::<SocketAddrV4>(&if text.contains(':') { text.to_owned() } else { format!("{text}:0") });
    let (from, to) = (end(from), end(to));
    let (protocol, layer4, answer) = match protocol {
        "icmp" => (ICMP, Layer4::Icmp { id: 7, kind: 8, code: 0 }, Layer4::Icmp { id: 7, kind: 0, code: 0 }),
        "esp" => (50, Layer4::None, Layer4::None),
        ported => (
            if ported == "tcp" { TCP } else { UDP },
            Layer4::Ports { source: from.port(), destination: to.port() },
            Layer4::Ports { source: to.port(), destination: from.port() },
        ),
    };
    let tuple = |source, destination, layer4| Tuple { source, destination, protocol, layer4, zone: None };
    Flow {
        original: tuple(*from.ip(), *to.ip(), layer4),
        reply: tuple(*to.ip(), *from.ip(), answer),
        status: Status::CONFIRMED | Status::ASSURED,
        mark: 0,
        id: Some(1),
        zone: 0,
    }
}

/// The same, redirected to another host, and to another port if the protocol has ports.
fn redirected(text: &str, to: &str) -> Flow {
    let mut flow = flow(text);
    let (host, port) = to.split_once(':').unwrap_or((to, ""));
    flow.reply.source = read(host);
    if let Layer4::Ports { source, .. } = &mut flow.reply.layer4 {
        *source = read(port);
    }
    flow.status = flow.status | Status::DST_NAT;
    flow
}

/// The same, with its source translated to another address and port.
fn masqueraded(text: &str, under: &str) -> Flow {
    let (mut flow, under) = (flow(text), read::<SocketAddrV4>(under));
    flow.reply.destination = *under.ip();
    if let Layer4::Ports { destination, .. } = &mut flow.reply.layer4 {
        *destination = under.port();
    }
    flow.status = flow.status | Status::SRC_NAT;
    flow
}
