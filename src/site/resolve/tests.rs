//! Servers of many kinds, each with its expected site. The servers are here, their links and answers in the modules.

mod configured_links;
mod laws;
mod metadata_answers;
mod private_links;
mod public_link;

use super::super::metadata::{Failure, Metadata};
use super::super::observe::DefaultRoute;
use super::*;
use crate::net::{NetworkId, ServerId};

const PRIVATE_MAC: &str = "86:00:00:2a:7d:e0";
const TENANT_MAC: &str = "86:00:00:2a:7d:e1";

/// Each link is written as `eth0 up 96:00:00:00:00:01 1500 203.0.113.10/32`; its position is its index.
fn kernel(links: &[&str], default_routes: &[(u32, u32)]) -> Kernel {
    let link = |(index, line): (usize, &&str)| {
        let mut words = line.split_whitespace();
        let mut next = || words.next().unwrap();
        Link {
            index: u32::try_from(index).unwrap() + 1,
            name: next().parse().unwrap(),
            up: next() == "up",
            mac: next().parse().ok(),
            mtu: next().parse().unwrap(),
            addresses: words.map(|address| address.parse().unwrap()).collect(),
            has_lease: false,
        }
    };
    Kernel {
        local_routes: Vec::new(),
        bridges: std::collections::BTreeMap::new(),
        links: links.iter().enumerate().map(link).collect(),
        default_routes: default_routes.iter().map(|&(interface, metric)| DefaultRoute { interface, metric }).collect(),
        default_routes_v6: Vec::new(),
        routes: Vec::new(),
    }
}

/// A Hetzner server with a public and a private link, like most bastions.
fn usual() -> Kernel {
    kernel(
        &[
            "lo up - 65536 127.0.0.1/8",
            "eth0 up 96:00:00:00:00:01 1500 203.0.113.10/32",
            "enp7s0 up 86:00:00:2a:7d:e0 1450 10.0.0.2/32",
        ],
        &[(2, 0)],
    )
}

/// The same with a second private link, for a tenant's network.
fn with_tenant() -> Kernel {
    let mut usual = usual();
    usual.links.extend(numbered(4, &["enp8s0 up 86:00:00:2a:7d:e1 1450 10.2.0.2/32"]));
    usual
}

/// Two more uplinks, as links 5 and 6.
fn more_uplinks() -> Vec<Link> {
    numbered(5, &["eth1 up 96:00:00:00:00:02 1500 198.51.100.10/24", "ppp0 up - 1500 192.0.2.10/32"])
}

fn numbered(first: u32, lines: &[&str]) -> Vec<Link> {
    kernel(lines, &[]).links.into_iter().zip(first..).map(|(link, index)| Link { index, ..link }).collect()
}

fn production() -> PrivateNetwork {
    PrivateNetwork {
        ip: Ipv4Addr::new(10, 0, 0, 2),
        alias_ips: Vec::new(),
        mac_address: PRIVATE_MAC.parse().unwrap(),
        network_id: NetworkId(1234),
        network_name: Some("production".to_owned()),
        network: "10.0.0.0/16".parse().unwrap(),
        gateway: Some(Ipv4Addr::new(10, 0, 0, 1)),
    }
}

fn tenant() -> PrivateNetwork {
    PrivateNetwork {
        ip: Ipv4Addr::new(10, 2, 0, 2),
        mac_address: TENANT_MAC.parse().unwrap(),
        network_id: NetworkId(1235),
        network_name: None,
        network: "10.2.0.0/16".parse().unwrap(),
        gateway: None,
        ..production()
    }
}

fn metadata(private_networks: Vec<PrivateNetwork>) -> MetadataView {
    let latest = Some(Metadata { server_id: Some(ServerId(4711)), private_networks, public_ipv4: None });
    MetadataView { latest, settled: true, ..MetadataView::default() }
}

fn no_metadata() -> MetadataView {
    let error = Some(Failure { text: "connection refused".to_owned(), is_slow: false });
    MetadataView { error, settled: true, ..MetadataView::default() }
}

/// The configuration of an empty file, with changes.
fn configured(change: impl FnOnce(&mut config::Site)) -> config::Site {
    let mut site = config::parse("", &config::Environment::default()).unwrap().site;
    change(&mut site);
    site
}

fn empty() -> config::Site {
    configured(|_| ())
}

fn configured_link(interface: &str, network: &str) -> config::PrivateLink {
    config::PrivateLink {
        interface: interface.parse().unwrap(),
        network: network.parse().unwrap(),
        address: None,
        network_id: None,
        also: Vec::new(),
    }
}

fn public(interface: &str, addresses: &[&str]) -> PublicLink {
    PublicLink {
        interface: interface.parse().unwrap(),
        mtu: 1500,
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    }
}

fn production_link() -> PrivateLink {
    PrivateLink {
        interface: "enp7s0".parse().unwrap(),
        mtu: 1450,
        address: Ipv4Addr::new(10, 0, 0, 2),
        address_present: true,
        aliases: BTreeSet::new(),
        network: "10.0.0.0/16".parse().unwrap(),
        network_id: Some(NetworkId(1234)),
        network_name: Some("production".to_owned()),
        gateway: Some(Ipv4Addr::new(10, 0, 0, 1)),
        behind: Vec::new(),
        is_local: false,
    }
}

fn tenant_link() -> PrivateLink {
    PrivateLink {
        interface: "enp8s0".parse().unwrap(),
        address: Ipv4Addr::new(10, 2, 0, 2),
        network: "10.2.0.0/16".parse().unwrap(),
        network_id: Some(NetworkId(1235)),
        network_name: None,
        gateway: None,
        behind: Vec::new(),
        is_local: false,
        ..production_link()
    }
}

/// The expected site of [`usual`] without problems.
fn usual_site() -> Site {
    Site {
        server_id: Some(ServerId(4711)),
        state_of: None,
        needs_no_nat: false,
        public: Some(public("eth0", &["203.0.113.10"])),
        private: vec![production_link()],
        broadcasts: BTreeSet::new(),
        sshd_ports: BTreeSet::new(),
        hints: Vec::new(),
        conflicts: Vec::new(),
        elsewhere: Vec::new(),
        problems: Vec::new(),
        dhcp_links: BTreeSet::new(),
        misrouted: BTreeSet::new(),
    }
}

fn usual_site_with(change: impl FnOnce(&mut Site)) -> Site {
    let mut site = usual_site();
    change(&mut site);
    site
}

fn site(config: &config::Site, kernel: &Kernel, metadata: &MetadataView) -> Site {
    resolve(config, kernel, metadata, BTreeSet::new(), None)
}

const NO_DEFAULT_ROUTE: (&str, &str) = (
    "there is no IPv4 default route, so the public interface is not known yet",
    "DHCP adds it; if there is none, name the interface in site.public_interface",
);

fn problem((what, advice): (&str, &str)) -> Problem {
    Problem::new("no-default-route", what, advice)
}

#[test]
fn an_empty_configuration_finds_everything_on_a_usual_server() {
    let ports = BTreeSet::from([22, 2222]);
    let found = resolve(&empty(), &usual(), &metadata(vec![production()]), ports.clone(), None);
    assert_eq!(found, usual_site_with(|site| site.sshd_ports = ports));
}

#[test]
fn interface_names_are_never_guessed() {
    for (public_name, private_name) in [("eth0", "ens10"), ("enp7s0", "eth0"), ("eth1", "eth0"), ("wan", "lan")] {
        let mut kernel = usual();
        kernel.links[1].name = public_name.parse().unwrap();
        kernel.links[2].name = private_name.parse().unwrap();
        let expected = usual_site_with(|site| {
            site.public = Some(public(public_name, &["203.0.113.10"]));
            site.private[0].interface = private_name.parse().unwrap();
        });
        assert_eq!(site(&empty(), &kernel, &metadata(vec![production()])), expected, "{private_name}");
    }
}

#[test]
fn the_order_of_the_metadata_and_of_the_links_does_not_matter() {
    let expected = usual_site_with(|site| site.private.push(tenant_link()));
    for networks in [vec![production(), tenant()], vec![tenant(), production()]] {
        assert_eq!(site(&empty(), &with_tenant(), &metadata(networks.clone())), expected);
        let mut kernel = with_tenant();
        kernel.links.reverse();
        assert_eq!(site(&empty(), &kernel, &metadata(networks)), expected);
    }
}

#[test]
fn a_server_without_links_gives_a_site_with_problems() {
    let expected = Site {
        problems: vec![
            Problem::new(
                "network-without-interface",
                "network 1234 has no interface here yet (looked for 86:00:00:2a:7d:e0)",
                "wait until Hetzner has attached it; if it does not appear, reboot the server",
            ),
            problem(NO_DEFAULT_ROUTE),
        ],
        server_id: Some(ServerId(4711)),
        ..Site::default()
    };
    assert_eq!(site(&empty(), &Kernel::default(), &metadata(vec![production()])), expected);
}
