//! `[wireguard]`, and how it depends on the rest of the file.

use std::net::IpAddr;

use ipnet::IpNet;

use super::access;
use super::context::CheckContext;
use super::diagnostics::Diagnostics;
use super::firewall::OpenPort;
use super::for_clients;
use super::lockout::TunnelForSsh;
use super::peers::{self, CheckedPeer};
use super::places::Places;
use super::private_key::check_private_key;
use super::reserved::{needed_address, reserved_block, reserved_block_of_peer};
use super::wg_file::{self, WgFile};
use crate::config::files::Files;
use crate::config::model::Site;
use crate::config::raw::{Entry, NumberOrAuto, RawWireguard, SwitchOrAuto};
use crate::config::wireguard::{BackendChoice, Snat, Wireguard};
use crate::net::{InterfaceName, overlap};
use bastiond_tunnel::endpoint::EndpointName;
use bastiond_tunnel::file::Table;
use bastiond_tunnel::key::PrivateKey;

/// The port that WireGuard's own documentation and most clients use.
const DEFAULT_PORT: u16 = 51820;
const DEFAULT_INTERFACE: &str = "wg0";
/// The number of the main routing table (`RT_TABLE_MAIN` in linux/rtnetlink.h).
const MAIN_TABLE: u32 = 254;
/// The largest IP packet has 65 535 bytes; 80 of them hold an IPv6 header, a UDP header and WireGuard's own (40 + 8 +
/// 32).
const LARGEST_MTU: u32 = 65_455;
/// The smallest MTU that IPv4 allows (RFC 791, reassembly) …
const SMALLEST_MTU_V4: u32 = 576;
/// … and that IPv6 allows (RFC 8200 section 5).
const SMALLEST_MTU_V6: u32 = 1280;
/// Directories below `/proc/sys/net/ipv4/conf` that are not interfaces, and the loopback interface.
const RESERVED_NAMES: [&str; 3] = ["all", "default", "lo"];

/// The result of the section.
pub(super) struct CheckedTunnel {
    pub(super) wireguard: Option<Wireguard>,
    /// The UDP port that the firewall opens.
    pub(super) open_port: Option<u16>,
    /// Whether the section or the peers' files have errors.
    has_errors: bool,
}

impl CheckedTunnel {
    /// What is known about the tunnel when SSH depends on it.
    pub(super) fn for_ssh(&self) -> TunnelForSsh<'_> {
        match &self.wireguard {
            None => TunnelForSsh::Missing,
            Some(_) if self.has_errors => TunnelForSsh::Invalid,
            Some(tunnel) => TunnelForSsh::Valid(tunnel),
        }
    }
}

pub(super) fn check_wireguard(
    raw: Entry<RawWireguard>,
    port: OpenPort,
    site: &Site,
    places: &Places,
    context: &CheckContext<'_, impl Files>,
    diagnostics: &mut Diagnostics,
) -> CheckedTunnel {
    let errors_before = diagnostics.errors.len();
    let is_written = !matches!(raw, Entry::Absent);
    let raw = diagnostics.section_or_default("wireguard", raw);
    let mut peers = peers::check_peer_files(context, diagnostics);
    if !is_written && peers.is_empty() {
        let open_port = match port {
            // Open, because the server may have a tunnel that bastiond does not manage.
            OpenPort::Auto => Some(DEFAULT_PORT),
            OpenPort::Closed => None,
            OpenPort::Port(port) => Some(port),
        };
        return CheckedTunnel { wireguard: None, open_port, has_errors: diagnostics.errors.len() > errors_before };
    }
    diagnostics.reject_unknown_keys("wireguard", &raw.unknown);
    let enabled = diagnostics.value("wireguard.enabled", raw.enabled).unwrap_or(true);
    let blocks = diagnostics.value("wireguard.peer", raw.peer).map(|blocks| blocks.0).unwrap_or_default();
    peers.splice(0..0, peers::check_peer_blocks(blocks, context, diagnostics));
    let file = diagnostics.value(wg_file::KEY, raw.file);
    let file = file.and_then(|text| wg_file::read_wg_file(&text, context, diagnostics)).unwrap_or_default();
    if file.path.is_some() && !peers.is_empty() {
        let reason = "wireguard.file holds the peers; move this peer there, or remove wireguard.file";
        diagnostics.error(&peers[0].place, reason);
    }
    peers.extend(file.peers());

    let interface = check_interface(raw.interface, &file, site, diagnostics);
    let written_port = check_listen_port(raw.listen_port, &file, diagnostics);
    let (private_key_file, private_key) = check_private_key(raw.private_key_file, &file, context, diagnostics);
    let addresses = check_addresses(raw.addresses, &file, site, diagnostics);
    peers::check_peers_differ(&peers, diagnostics);
    let fwmark = check_fwmark(raw.fwmark, &file, diagnostics);
    for peer in &peers {
        check_allowed_ips_of(peer, &addresses, site, fwmark, diagnostics);
        if peer.public_key.is_some() && peer.public_key == private_key.as_ref().map(PrivateKey::public) {
            let reason = "is this server's own key; write the peer's public key";
            diagnostics.error(format!("{}public_key", peer.prefix), reason);
        }
    }
    let allowed_ips = peers.iter().flat_map(|peer| &peer.allowed_ips).map(|(_, net)| net);
    let has_v6 = addresses.iter().chain(allowed_ips).any(|net| matches!(net, IpNet::V6(_)));
    let mtu = check_mtu(raw.mtu, &file, has_v6, diagnostics);
    let backend = check_backend(raw.backend, diagnostics);
    let routes = check_routes(raw.routes, &file, diagnostics);
    let snat = match diagnostics.value("wireguard.snat", raw.snat) {
        None | Some(SwitchOrAuto::Auto) => Snat::Auto,
        Some(SwitchOrAuto::Switch(true)) => Snat::Always,
        Some(SwitchOrAuto::Switch(false)) => Snat::Never,
    };
    let full_tunnel = diagnostics.value("wireguard.full_tunnel", raw.full_tunnel).unwrap_or(false);
    let places = places.of_tunnel(full_tunnel);
    let groups = access::check_groups(raw.group, &places, diagnostics);
    let default_reach = access::check_default_reach(raw.default_reach, &places, diagnostics);
    let peers = access::check_peers(peers, &groups, &places, diagnostics);
    let listen_port = listen_port(written_port, port, diagnostics);
    let endpoint = for_clients::check_endpoint(raw.endpoint, listen_port, diagnostics);
    let dns = for_clients::check_dns(raw.dns, diagnostics);
    let has_errors = diagnostics.errors.len() > errors_before;
    let open_port = match port {
        OpenPort::Auto => enabled.then_some(listen_port),
        OpenPort::Closed => None,
        OpenPort::Port(port) => Some(port),
    };
    let wireguard = Wireguard {
        interface,
        listen_port,
        private_key,
        is_key_in_wg_file: file.path.as_ref() == Some(&private_key_file),
        private_key_file,
        addresses,
        mtu,
        fwmark,
        backend,
        full_tunnel,
        routes,
        snat,
        endpoint,
        dns,
        default_reach,
        groups,
        peers,
        out: Vec::new(),
    };
    CheckedTunnel { wireguard: enabled.then_some(wireguard), open_port, has_errors }
}

fn check_interface(raw: Entry<String>, file: &WgFile, site: &Site, diagnostics: &mut Diagnostics) -> InterfaceName {
    let key = "wireguard.interface";
    let default = || file.interface().unwrap_or_else(|| DEFAULT_INTERFACE.parse().expect("wg0 is an interface name"));
    let written = diagnostics.value(key, raw).and_then(|text| diagnostics.parse_interface(key, &text));
    if written.is_none() {
        file.check_name(diagnostics);
    }
    let interface = written.unwrap_or_else(default);
    if RESERVED_NAMES.contains(&interface.as_str()) {
        diagnostics.error(key, format!("`{interface}` is a reserved name; choose another"));
    }
    if site.public_interface.as_ref() == Some(&interface) {
        diagnostics.error(key, "is also site.public_interface; choose another name");
    }
    for (index, _) in site.private.iter().enumerate().filter(|(_, link)| link.interface == interface) {
        diagnostics.error(key, format!("is also site.private[{index}].interface; choose another name"));
    }
    interface
}

/// The port that the configuration or the wg file names.
fn check_listen_port(raw: Entry<i64>, file: &WgFile, diagnostics: &mut Diagnostics) -> Option<u16> {
    let key = "wireguard.listen_port";
    let in_config = diagnostics.value(key, raw).and_then(|number| diagnostics.parse_port(key, number));
    // With 0 the kernel would choose the port, but peers and the firewall must know it.
    let in_file = file.content.listen_port.filter(|&port| port > 0);
    file.value_from_one_place(key, "ListenPort", in_config, in_file, diagnostics)
}

/// The port to listen on: the written one, or the one that the firewall opens. Two different ones are an error.
fn listen_port(written: Option<u16>, open: OpenPort, diagnostics: &mut Diagnostics) -> u16 {
    match (written, open) {
        (Some(port), OpenPort::Port(open)) if port != open => {
            let reason = format!(
                "{open} is not wireguard.listen_port ({port}), which would stay closed; remove this key, or write \
                 false to close the port"
            );
            diagnostics.error("firewall.wireguard_port", reason);
            port
        }
        (Some(port), _) | (None, OpenPort::Port(port)) => port,
        (None, OpenPort::Auto | OpenPort::Closed) => DEFAULT_PORT,
    }
}

fn check_addresses(
    raw: Entry<Vec<Entry<String>>>,
    file: &WgFile,
    site: &Site,
    diagnostics: &mut Diagnostics,
) -> Vec<IpNet> {
    let key = "wireguard.addresses";
    let listed = diagnostics.value(key, raw);
    file.check_one_place(key, "Address", listed.is_some(), !file.content.addresses.is_empty(), diagnostics);
    let mut listed_addresses: Vec<(String, IpNet)> =
        file.content.addresses.iter().map(|&address| (wg_file::KEY.to_owned(), address)).collect();
    for (key, text) in diagnostics.elements(key, listed.unwrap_or_default()) {
        let parsed = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let Ok(address) = parsed else {
            let reason = format!("`{text}` is not an address with a prefix (like 10.100.0.1/24 or fd00:100::1/64)");
            diagnostics.error(key, reason);
            continue;
        };
        listed_addresses.push((key, address));
    }
    let mut addresses: Vec<IpNet> = Vec::new();
    for (key, address) in listed_addresses {
        if let Some(reason) = why_unusable(address, site) {
            diagnostics.error(key, reason);
        } else if addresses.iter().any(|other| other.addr() == address.addr()) {
            diagnostics.error(key, format!("{} is listed twice; remove one of them", address.addr()));
        } else {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        diagnostics.warn(key, "is empty, so peers cannot reach this server inside the tunnel; add an address");
    }
    addresses
}

/// Why the tunnel cannot have this address; `None` if it can.
fn why_unusable(address: IpNet, site: &Site) -> Option<String> {
    let net = address.trunc();
    if address.prefix_len() == 0 {
        return Some(format!("`{address}` would send everything into the tunnel; write the tunnel's own network"));
    }
    // In a network of two addresses, both can be hosts (RFC 3021 and RFC 6164).
    if address.addr() == net.addr() && address.max_prefix_len() - address.prefix_len() > 1 {
        let first = net.hosts().find(|&host| host != net.addr()).unwrap_or(net.addr());
        let prefix = net.prefix_len();
        return Some(format!(
            "{address} is the whole network; write this server's address in it, like {first}/{prefix}"
        ));
    }
    let IpNet::V4(v4) = address else {
        let is_unusable = address.addr().is_multicast() || address.addr().is_loopback();
        return is_unusable.then(|| format!("{} is a multicast or loopback address; choose another", address.addr()));
    };
    if v4.prefix_len() < 31 && v4.addr() == v4.broadcast() {
        return Some(format!("{} is the broadcast address of {}; choose another address", v4.addr(), v4.trunc()));
    }
    if let Some(block) = reserved_block(v4.trunc()) {
        return Some(format!("{} overlaps {block}, which no private network can use", v4.trunc()));
    }
    if let Some(needed) = needed_address(net) {
        return Some(format!("{net} contains {needed}; choose another network"));
    }
    let overlapping = site.private.iter().enumerate().find(|(_, link)| overlap(v4.trunc(), link.network));
    overlapping.map(|(index, link)| {
        let verb = if v4.trunc().contains(&link.network) { "covers" } else { "is inside" };
        format!("{net} {verb} {} (site.private[{index}].network); choose another network", link.network)
    })
}

/// Compares a peer's allowed-ips with reserved blocks, the tunnel's addresses and the private networks.
fn check_allowed_ips_of(
    peer: &CheckedPeer,
    addresses: &[IpNet],
    site: &Site,
    fwmark: u32,
    diagnostics: &mut Diagnostics,
) {
    for (key, net) in &peer.allowed_ips {
        if net.prefix_len() == 0 {
            let reason = format!(
                "{net} covers every address: this server sends the peer only what narrower allowed_ips cover, and \
                 adds no route for {net}"
            );
            diagnostics.warn(key, reason);
            continue;
        }
        if let Some(block) = reserved_block_of_peer(*net) {
            diagnostics.error(key, format!("{net} overlaps {block}, which no peer can use"));
            continue;
        }
        if let Some(needed) = needed_address(*net) {
            let reason = format!("{net} contains {needed}, which this server must reach; write ranges without it");
            diagnostics.error(key, reason);
            continue;
        }
        if let Some(EndpointName::Address(endpoint)) = peer.endpoint.as_ref().filter(|_| fwmark == 0) {
            if net.contains(&endpoint.ip()) {
                let reason = format!(
                    "{net} contains {}, the peer's own endpoint, so the tunnel's packets would go into the \
                     tunnel; write \
                     ranges without it",
                    endpoint.ip()
                );
                diagnostics.error(key, reason);
            }
        }
        if let Some(own) = addresses.iter().map(IpNet::addr).find(|own| net.contains(own)) {
            if net.prefix_len() == net.max_prefix_len() {
                let reason = format!("{net} is this server's own address in the tunnel; choose another");
                diagnostics.error(key, reason);
            } else {
                diagnostics.warn(key, format!("{net} covers this server's own address {own}; write narrower ranges"));
            }
        }
        for (index, link) in site.private.iter().enumerate() {
            let network = IpNet::V4(link.network);
            if net.contains(&network) {
                let reason = format!(
                    "{net} covers {network} (site.private[{index}].network), so the network would lead into the \
                     tunnel; write ranges without that network"
                );
                diagnostics.error(key, reason);
            } else if let Some(own) = link.address.filter(|own| net.contains(&IpAddr::V4(*own))) {
                let reason = format!("{net} contains {own}, this server's own address (site.private[{index}].address)");
                diagnostics.error(key, reason);
            } else if network.contains(net) && !peer.in_private_network {
                let reason = format!(
                    "{net} is inside {network} (site.private[{index}].network), so its packets would go to the peer \
                     instead of the private network; write another range, or set the peer's in_private_network = \
                     true if these hosts are behind it"
                );
                diagnostics.error(key, reason);
            }
        }
    }
}

fn check_mtu(raw: Entry<NumberOrAuto>, file: &WgFile, has_v6: bool, diagnostics: &mut Diagnostics) -> Option<u32> {
    let key = "wireguard.mtu";
    let in_config = match diagnostics.value(key, raw) {
        None | Some(NumberOrAuto::Auto) => None,
        Some(NumberOrAuto::Number(number)) => Some(number),
    };
    let number = file.value_from_one_place(key, "MTU", in_config, file.content.mtu.map(i64::from), diagnostics)?;
    let smallest = if has_v6 { SMALLEST_MTU_V6 } else { SMALLEST_MTU_V4 };
    let mtu = u32::try_from(number).ok().filter(|mtu| (smallest..=LARGEST_MTU).contains(mtu));
    if mtu.is_none() {
        let tunnel = if has_v6 { "a tunnel with IPv6" } else { "a tunnel" };
        diagnostics.error(key, format!("{number} is not an MTU for {tunnel} ({smallest} to {LARGEST_MTU})"));
    }
    mtu
}

fn check_fwmark(raw: Entry<i64>, file: &WgFile, diagnostics: &mut Diagnostics) -> u32 {
    let key = "wireguard.fwmark";
    let in_config = diagnostics.value(key, raw);
    let in_file = file.content.fwmark.map(i64::from);
    let number = file.value_from_one_place(key, "FwMark", in_config, in_file, diagnostics).unwrap_or(0);
    u32::try_from(number).unwrap_or_else(|_| {
        diagnostics.error(key, format!("{number} is not a mark (0 to {})", u32::MAX));
        0
    })
}

/// `Table = off` of wg-quick is the same switch. With a table of its own, wg-quick adds routes there only, for rules of
/// the operator's: in the main table they would be wrong.
fn check_routes(raw: Entry<bool>, file: &WgFile, diagnostics: &mut Diagnostics) -> bool {
    let key = "wireguard.routes";
    let in_config = diagnostics.value(key, raw);
    let in_file = match file.content.table {
        Table::Auto | Table::Number(MAIN_TABLE) => None,
        Table::Off => Some(false),
        Table::Number(number) => {
            let path = file.path.as_deref().map_or_else(String::new, |path| path.display().to_string());
            let reason = format!(
                "Table = {number} of {path}: bastiond adds no routes to this table, nor to another; add them yourself \
                 (ip route add RANGE dev INTERFACE table {number}), or remove Table"
            );
            diagnostics.warn(wg_file::KEY, reason);
            Some(false)
        }
    };
    file.value_from_one_place(key, "Table", in_config, in_file, diagnostics).unwrap_or(true)
}

fn check_backend(raw: Entry<String>, diagnostics: &mut Diagnostics) -> BackendChoice {
    let parse_backend = |text: &str| match text {
        "auto" => Ok(BackendChoice::Auto),
        "userspace" => Ok(BackendChoice::Userspace),
        "kernel" => Ok(BackendChoice::Kernel),
        _ => Err(format!("`{text}` is not one of auto, userspace, kernel")),
    };
    diagnostics.parse_field("wireguard", "backend", raw, parse_backend).unwrap_or(BackendChoice::Userspace)
}
