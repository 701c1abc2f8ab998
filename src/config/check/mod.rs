//! From the file as it stands to a [`Config`], or to every [`Problem`] at once. The defaults are written here and nowhere else.

mod file;
mod keys;
mod peers;
mod wireguard;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::findings::Findings;
use super::raw::{
    Entry, NumberOrAuto, PortAutoOrClosed, PortsOrAuto, RawConfig, RawFirewall, RawHcloud, RawLog, RawNat,
    RawPrivateLink, RawSite,
};
use super::{
    Config, Egress, EgressLists, Environment, Fastpath, Files, Firewall, Hcloud, Log, LogDrops, Nat, PrivateLink,
    Problem, Site, TokenSource,
};
use crate::net::{HETZNER_PUBLIC_GATEWAY, InterfaceName, NetworkId, ServerId, is_private, overlap};

/// Hetzner's public API (Hetzner API documentation, "Getting started").
const DEFAULT_ENDPOINT: &str = "https://api.hetzner.cloud/v1";
/// The metadata service's link-local address (Hetzner documentation, "Server metadata").
const DEFAULT_METADATA_ENDPOINT: &str = "http://169.254.169.254";
const DEFAULT_TOKEN_FILE: &str = "/etc/bastiond/hcloud-token";
/// 180 calls an hour for each network: a twentieth of the 3600 that the whole project shares.
const DEFAULT_POLL_INTERVAL: Duration = Duration::from_secs(20);
const POLL_INTERVAL_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
/// A busy host opens tens of flows a second; one that scans opens thousands.
const DEFAULT_NEW_FLOWS: u32 = 500;
/// An eighth of the ports that one address has towards one destination (64 512, `docs/traffic.md`).
const DEFAULT_MAX_FLOWS: u32 = 8192;
/// Tools that open a connection for each host stay below; guessers of passwords do not.
const DEFAULT_SSH_ATTEMPTS: u32 = 30;
const DEFAULT_SSH_BAN: Duration = Duration::from_secs(600);
const DEFAULT_PINGS: u32 = 100;
const DEFAULT_SYNS: u32 = 200;
/// Hetzner attaches a server to three networks at most; ten leave room for links of other kinds.
const MAX_PRIVATE_LINKS: usize = 10;
const MAX_DESTINATIONS: usize = crate::hcloud::MAX_ROUTES;

/// What a configuration is checked with, beside its text.
pub(super) struct Surroundings<'a, F> {
    pub(super) environment: &'a Environment,
    pub(super) files: &'a F,
    /// Whether everybody on this server may read the file.
    pub(super) readable_by_all: bool,
}

pub(super) fn check(raw: RawConfig, around: &Surroundings<'_, impl Files>) -> Result<Config, Vec<Problem>> {
    let mut found = Findings::default();
    found.unknown("", &raw.unknown);
    let log = log(found.section("log", raw.log), &mut found);
    let site = site(found.section("site", raw.site), around.environment, &mut found);
    let nat = nat(found.section("nat", raw.nat), &mut found);
    let (mut firewall, port) = firewall(found.section("firewall", raw.firewall), &mut found);
    let tunnel = wireguard::section(raw.wireguard, port, &site, around, &mut found);
    firewall.wireguard_port = tunnel.open_port;
    let hcloud = hcloud(found.section("hcloud", raw.hcloud), around.environment, &mut found);
    if found.problems.is_empty() {
        found.warnings.sort();
        let Findings { warnings, .. } = found;
        let egress = Egress {
            guard: true,
            new_flows_per_second: Some(DEFAULT_NEW_FLOWS),
            max_flows: Some(DEFAULT_MAX_FLOWS),
            lists: EgressLists::default(),
        };
        let wireguard = tunnel.wireguard;
        let (networks, tenants) = (Vec::new(), Vec::new());
        return Ok(Config { log, site, nat, egress, networks, tenants, firewall, hcloud, wireguard, warnings });
    }
    found.problems.sort();
    Err(found.problems)
}

fn log(raw: RawLog, found: &mut Findings) -> Log {
    found.unknown("log", &raw.unknown);
    let level = found.value("log.level", raw.level).and_then(|text| {
        let level = match text.as_str() {
            "error" => Some(tracing::Level::ERROR),
            "warn" => Some(tracing::Level::WARN),
            "info" => Some(tracing::Level::INFO),
            "debug" => Some(tracing::Level::DEBUG),
            "trace" => Some(tracing::Level::TRACE),
            _ => None,
        };
        if level.is_none() {
            found.report("log.level", format!("`{text}` is none of error, warn, info, debug, trace"));
        }
        level
    });
    Log { level: level.unwrap_or(tracing::Level::INFO) }
}

fn site(raw: RawSite, environment: &Environment, found: &mut Findings) -> Site {
    found.unknown("site", &raw.unknown);
    let public_interface = found
        .unless_auto("site.public_interface", raw.public_interface)
        .and_then(|text| found.interface("site.public_interface", &text));
    let server_id = match found.value("site.server_id", raw.server_id) {
        None | Some(NumberOrAuto::Auto) => None,
        Some(NumberOrAuto::Number(number)) => found.id("site.server_id", number).map(ServerId),
    };
    let from_file = found.value("site.metadata_endpoint", raw.metadata_endpoint);
    let from_environment = ("HCLOUD_METADATA_ENDPOINT", environment.hcloud_metadata_endpoint.as_deref());
    let metadata_endpoint = endpoint("site.metadata_endpoint", from_file, from_environment, found)
        .unwrap_or_else(|| DEFAULT_METADATA_ENDPOINT.to_owned());
    let mut links = found.value("site.private", raw.private).map(|links| links.0).unwrap_or_default();
    if links.len() > MAX_PRIVATE_LINKS {
        found.report("site.private", format!("{} links; at most {MAX_PRIVATE_LINKS} are supported", links.len()));
        links.truncate(MAX_PRIVATE_LINKS);
    }
    let links = found.elements("site.private", links);
    let links: Vec<_> = links.into_iter().map(|(key, link)| private_link(key, link, found)).collect();
    private_links_differ(&links, public_interface.as_ref(), found);
    let private = links.into_iter().filter_map(CheckedLink::whole).collect();
    Site { public_interface, server_id, metadata_endpoint, private }
}

/// A private link of which some keys may be wrong; the others are still compared with those of other links.
struct CheckedLink {
    key: String,
    interface: Option<InterfaceName>,
    network: Option<Ipv4Net>,
    address: Option<Ipv4Addr>,
    network_id: Option<NetworkId>,
}

impl CheckedLink {
    fn whole(self) -> Option<PrivateLink> {
        let Self { interface, network, address, network_id, .. } = self;
        Some(PrivateLink { interface: interface?, network: network?, address, network_id })
    }
}

fn private_link(key: String, raw: RawPrivateLink, found: &mut Findings) -> CheckedLink {
    found.unknown(&key, &raw.unknown);
    let missing = |entry: &Entry<String>| *entry == Entry::Absent;
    for (name, entry) in [("interface", &raw.interface), ("network", &raw.network)] {
        if missing(entry) {
            found.report(
                format!("{key}.{name}"),
                "is needed: a private link written by hand has both interface and network",
            );
        }
    }
    let interface_key = format!("{key}.interface");
    let interface = found.value(&interface_key, raw.interface).and_then(|text| found.interface(&interface_key, &text));
    let network_key = format!("{key}.network");
    let network = found.value(&network_key, raw.network).and_then(|text| found.network(&network_key, &text));
    let address_key = format!("{key}.address");
    let address = found.unless_auto(&address_key, raw.address).and_then(|text| found.address(&address_key, &text));
    let id_key = format!("{key}.network_id");
    let network_id = found.value(&id_key, raw.network_id).and_then(|id| found.id(&id_key, id)).map(NetworkId);
    if let Some((network, unroutable)) = network.zip(network.and_then(unroutable)) {
        found.report(network_key, format!("{network} reaches into {unroutable}, which is nobody's private network"));
    }
    if let Some((network, address)) = network.zip(address).filter(|(network, address)| !network.contains(address)) {
        found.report(address_key, format!("{address} is outside of {network}"));
    }
    CheckedLink { key, interface, network, address, network_id }
}

/// The block that no private network can share an address with: "this network", loopback, link-local (where the metadata
/// service is), multicast (RFC 6890). `0.0.0.0/0` is caught by all of them.
fn unroutable(network: Ipv4Net) -> Option<Ipv4Net> {
    let blocks = [([0, 0, 0, 0], 8), ([127, 0, 0, 0], 8), ([169, 254, 0, 0], 16), ([224, 0, 0, 0], 4)];
    let blocks = blocks.into_iter().map(|(address, prefix)| Ipv4Net::new_assert(address.into(), prefix));
    blocks.into_iter().find(|&block| overlap(block, network))
}

fn private_links_differ(links: &[CheckedLink], public: Option<&InterfaceName>, found: &mut Findings) {
    for (index, link) in links.iter().enumerate() {
        let CheckedLink { key, interface, network, network_id, .. } = link;
        if interface.is_some() && interface.as_ref() == public {
            found.report(format!("{key}.interface"), "is also site.public_interface");
        }
        for earlier in &links[..index] {
            if interface.is_some() && *interface == earlier.interface {
                found.report(format!("{key}.interface"), format!("is also {}.interface", earlier.key));
            }
            if network_id.is_some() && *network_id == earlier.network_id {
                found.report(format!("{key}.network_id"), format!("is also {}.network_id", earlier.key));
            }
            if let Some((network, other)) = network.zip(earlier.network).filter(|&(one, other)| overlap(one, other)) {
                found.report(format!("{key}.network"), format!("{network} overlaps {other} of {}", earlier.key));
            }
        }
    }
}

fn nat(raw: RawNat, found: &mut Findings) -> Nat {
    found.unknown("nat", &raw.unknown);
    Nat {
        random_ports: found.value("nat.random_ports", raw.random_ports).unwrap_or(true),
        egress_addresses: Vec::new(),
        drain: BTreeSet::new(),
        fastpath: Fastpath::Auto,
        forwards: Vec::new(),
        statics: Vec::new(),
    }
}

/// What `firewall.wireguard_port` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OpenPort {
    /// Whatever the tunnel listens on.
    Auto,
    Closed,
    Port(u16),
}

/// The section, but for the tunnel's port, which the tunnel has a say in.
fn firewall(raw: RawFirewall, found: &mut Findings) -> (Firewall, OpenPort) {
    found.unknown("firewall", &raw.unknown);
    let ssh_ports = match found.value("firewall.ssh_ports", raw.ssh_ports) {
        None | Some(PortsOrAuto::Auto) => None,
        Some(PortsOrAuto::Ports(numbers)) => Some(ssh_ports(numbers, found)),
    };
    let ssh_from = match found.value("firewall.ssh_from", raw.ssh_from) {
        None => vec![everywhere_v4().into(), everywhere_v6().into()],
        Some(texts) => ssh_sources(texts, found),
    };
    let port = match found.value("firewall.wireguard_port", raw.wireguard_port) {
        None | Some(PortAutoOrClosed::Auto) => OpenPort::Auto,
        Some(PortAutoOrClosed::Closed) => OpenPort::Closed,
        Some(PortAutoOrClosed::Port(number)) => {
            found.port("firewall.wireguard_port", number).map_or(OpenPort::Auto, OpenPort::Port)
        }
    };
    let firewall = Firewall {
        ssh_ports,
        ssh_from,
        ssh_only_by_tunnel: false,
        ssh_attempts: Some(DEFAULT_SSH_ATTEMPTS),
        ssh_ban: DEFAULT_SSH_BAN,
        wireguard_port: None,
        services: Vec::new(),
        pings_per_second: Some(DEFAULT_PINGS),
        syns_per_second: Some(DEFAULT_SYNS),
        blocklist: Vec::new(),
        log_drops: LogDrops::Journal,
    };
    (firewall, port)
}

fn ssh_ports(numbers: Vec<Entry<i64>>, found: &mut Findings) -> BTreeSet<u16> {
    if numbers.is_empty() {
        // Closing SSH for good is the tunnel's business, when there is one: here it would only lock the operator out.
        found.report("firewall.ssh_ports", "an empty list would lock you out; name a port or write \"auto\"");
    }
    let numbers = found.elements("firewall.ssh_ports", numbers);
    numbers.into_iter().filter_map(|(key, number)| found.port(&key, number)).collect()
}

fn ssh_sources(texts: Vec<Entry<String>>, found: &mut Findings) -> Vec<IpNet> {
    if texts.is_empty() {
        found.report(
            "firewall.ssh_from",
            "an empty list would lock you out; name who may connect, or leave the key away",
        );
    }
    let (mut sources, mut seen) = (Vec::new(), BTreeSet::new());
    for (key, text) in found.elements("firewall.ssh_from", texts) {
        let parsed = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        match parsed {
            Ok(source) if source.trunc() != source => {
                found.report(key, format!("`{text}` has host bits set; the range is {}", source.trunc()));
            }
            // One address to the parser, everybody to most who write it: taken literally it would lock them out.
            Ok(source) if source.addr().is_unspecified() && source.prefix_len() > 0 => {
                found.report(key, format!("`{text}` is nobody's address; everybody is 0.0.0.0/0 and ::/0"));
            }
            Ok(source) if seen.insert(source) => sources.push(source),
            Ok(source) => found.report(key, format!("{source} is listed twice")),
            Err(_) => found
                .report(key, format!("`{text}` is neither an address nor a range (like 203.0.113.7 or 2001:db8::/32)")),
        }
    }
    sources
}

fn hcloud(raw: RawHcloud, environment: &Environment, found: &mut Findings) -> Hcloud {
    found.unknown("hcloud", &raw.unknown);
    let from_file = found.value("hcloud.endpoint", raw.endpoint);
    let from_environment = ("HCLOUD_ENDPOINT", environment.hcloud_endpoint.as_deref());
    let endpoint =
        endpoint("hcloud.endpoint", from_file, from_environment, found).unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
    let token_file = found.value("hcloud.token_file", raw.token_file).unwrap_or_else(|| DEFAULT_TOKEN_FILE.to_owned());
    if !token_file.starts_with('/') {
        found.report("hcloud.token_file", format!("`{token_file}` is no absolute path"));
    }
    let destinations = match found.value("hcloud.destinations", raw.destinations) {
        None => vec![everywhere_v4()],
        Some(texts) => destinations(texts, found),
    };
    let poll_interval = found.value("hcloud.poll_interval", raw.poll_interval).and_then(|text| {
        match humantime::parse_duration(&text) {
            Ok(interval) if POLL_INTERVAL_RANGE.contains(&interval) => Some(interval),
            Ok(_) => {
                found.report("hcloud.poll_interval", format!("`{text}` is not between 1s and 24h"));
                None
            }
            Err(error) => {
                found.report(
                    "hcloud.poll_interval",
                    format!("`{text}` is no time span (like \"20s\" or \"5m\"): {error}"),
                );
                None
            }
        }
    });
    let credential = environment.credentials_directory.as_ref().map(|directory| directory.join("hcloud-token"));
    let files = credential.into_iter().chain([PathBuf::from(token_file)]).chain(environment.hcloud_token_file.clone());
    Hcloud {
        enabled: found.value("hcloud.enabled", raw.enabled).unwrap_or(true),
        endpoint,
        token: TokenSource { files: files.collect(), value: environment.hcloud_token.clone() },
        destinations,
        take_over: found.value("hcloud.take_over", raw.take_over).unwrap_or(false),
        poll_interval: poll_interval.unwrap_or(DEFAULT_POLL_INTERVAL),
        network: environment.hcloud_network.clone(),
    }
}

fn destinations(mut texts: Vec<Entry<String>>, found: &mut Findings) -> Vec<Ipv4Net> {
    if texts.len() > MAX_DESTINATIONS {
        found.report(
            "hcloud.destinations",
            format!("{} destinations; a Hetzner Network holds at most {MAX_DESTINATIONS} routes", texts.len()),
        );
        texts.truncate(MAX_DESTINATIONS);
    }
    let mut destinations: Vec<Ipv4Net> = Vec::new();
    for (key, text) in found.elements("hcloud.destinations", texts) {
        let Some(destination) = found.network(&key, &text) else { continue };
        // The rules that the API enforces (its documentation of "Add a route to a Network").
        if destination != everywhere_v4() && !is_private(destination) {
            found.report(key, format!("{destination} is neither 0.0.0.0/0 nor inside 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16: Hetzner takes no other"));
        } else if destination != everywhere_v4() && destination.contains(&HETZNER_PUBLIC_GATEWAY) {
            found.report(
                key,
                format!("{destination} contains {HETZNER_PUBLIC_GATEWAY}, which Hetzner keeps for itself"),
            );
        } else if let Some(other) = destinations.iter().find(|&&other| {
            other == destination
                || (overlap(other, destination) && other.prefix_len() > 0 && destination.prefix_len() > 0)
        }) {
            found.report(key, format!("{destination} overlaps {other}: Hetzner takes only one of them"));
        } else {
            destinations.push(destination);
        }
    }
    destinations
}

/// The file's value unless the environment has one: variables win, as in the official tools.
fn endpoint(
    key: &str,
    from_file: Option<String>,
    (variable, from_environment): (&str, Option<&str>),
    found: &mut Findings,
) -> Option<String> {
    let from_file = from_file.and_then(|text| found.base_url(key, &text));
    match from_environment {
        Some(text) => found.base_url(variable, text),
        None => from_file,
    }
}

fn everywhere_v4() -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)
}

fn everywhere_v6() -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)
}
