//! `[wireguard]`, and what it has to do with the rest of the file.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::super::files::Files;
use super::super::findings::Findings;
use super::super::raw::{Entry, NumberOrAuto, RawWireguard, SwitchOrAuto};
use super::super::{Backend, Site, Snat, Wireguard};
use super::file::{self, WgFile};
use super::firewall::OpenPort;
use super::peers::{self, CheckedPeer};
use super::site::unroutable;
use super::{Surroundings, keys};
use crate::net::InterfaceName;
use bastiond_tunnel::key::PrivateKey;

/// The port that WireGuard's own documentation and most clients use.
const DEFAULT_PORT: u16 = 51820;
const DEFAULT_INTERFACE: &str = "wg0";
/// The name of systemd's credential.
const CREDENTIAL: &str = "wireguard-private-key";
/// The key's file in the state directory.
const KEY_FILE: &str = "wireguard.key";
/// The largest IP packet is 65 535 bytes; 80 go to an IPv6 header, a UDP header and WireGuard's own (40 + 8 + 32).
const LARGEST_MTU: u32 = 65_455;
/// What every link must carry: RFC 791 (reassembly) for IPv4 …
const SMALLEST_MTU_V4: u32 = 576;
/// … and RFC 8200 section 5 for IPv6.
const SMALLEST_MTU_V6: u32 = 1280;
/// Directories below `/proc/sys/net/ipv4/conf` that are no interfaces, and the one interface that is not to be replaced.
const RESERVED_NAMES: [&str; 3] = ["all", "default", "lo"];

/// What became of the section.
pub(super) struct Tunnel {
    pub(super) wireguard: Option<Wireguard>,
    /// The UDP port that the firewall opens.
    pub(super) open_port: Option<u16>,
}

pub(super) fn section(
    raw: Entry<RawWireguard>,
    port: OpenPort,
    site: &Site,
    around: &Surroundings<'_, impl Files>,
    found: &mut Findings,
) -> Tunnel {
    let is_written = !matches!(raw, Entry::Absent);
    let raw = found.section("wireguard", raw);
    let mut peers = peers::of_directory(around, found);
    if !is_written && peers.is_empty() {
        let open_port = match port {
            // Somebody else's tunnel, perhaps: it was open before there was one of ours.
            OpenPort::Auto => Some(DEFAULT_PORT),
            OpenPort::Closed => None,
            OpenPort::Port(port) => Some(port),
        };
        return Tunnel { wireguard: None, open_port };
    }
    found.unknown("wireguard", &raw.unknown);
    let enabled = found.value("wireguard.enabled", raw.enabled).unwrap_or(true);
    let blocks = found.value("wireguard.peer", raw.peer).map(|blocks| blocks.0).unwrap_or_default();
    peers.splice(0..0, peers::of_blocks(blocks, around, found));
    let file = found.value(file::KEY, raw.file).and_then(|text| file::read(&text, around, found)).unwrap_or_default();
    if file.path.is_some() && !peers.is_empty() {
        found.report(&peers[0].place, "stands beside wireguard.file, which holds the peers: write them in one place");
    }
    peers.extend(file.peers());

    let interface = interface(raw.interface, &file, site, found);
    let listen_port = listen_port(raw.listen_port, &file, port, found);
    let (private_key_file, private_key) = private_key(raw.private_key_file, &file, around, found);
    let addresses = addresses(raw.addresses, &file, site, found);
    peers::differ(&peers, found);
    for peer in &peers {
        allowed_ips_fit(peer, &addresses, site, found);
        if peer.public_key.is_some() && peer.public_key == private_key.as_ref().map(PrivateKey::public) {
            found.report(format!("{}public_key", peer.prefix), "is this server's own key");
        }
    }
    let allowed_ips = peers.iter().flat_map(|peer| &peer.allowed_ips).map(|(_, net)| net);
    let has_v6 = addresses.iter().chain(allowed_ips).any(|net| matches!(net, IpNet::V6(_)));
    let mtu = mtu(raw.mtu, &file, has_v6, found);
    let fwmark = fwmark(raw.fwmark, &file, found);
    let backend = backend(raw.backend, found);
    let snat = match found.value("wireguard.snat", raw.snat) {
        None | Some(SwitchOrAuto::Auto) => Snat::Auto,
        Some(SwitchOrAuto::Switch(true)) => Snat::Always,
        Some(SwitchOrAuto::Switch(false)) => Snat::Never,
    };
    let full_tunnel = found.value("wireguard.full_tunnel", raw.full_tunnel).unwrap_or(false);
    let open_port = match port {
        OpenPort::Auto => enabled.then_some(listen_port),
        OpenPort::Closed => None,
        OpenPort::Port(port) => Some(port),
    };
    let wireguard = Wireguard {
        interface,
        listen_port,
        private_key,
        private_key_file,
        addresses,
        mtu,
        fwmark,
        backend,
        full_tunnel,
        snat,
        peers: peers.into_iter().filter_map(CheckedPeer::whole).collect(),
    };
    Tunnel { wireguard: enabled.then_some(wireguard), open_port }
}

fn interface(raw: Entry<String>, file: &WgFile, site: &Site, found: &mut Findings) -> InterfaceName {
    let key = "wireguard.interface";
    let default = || file.interface().unwrap_or_else(|| DEFAULT_INTERFACE.parse().expect("that is an interface name"));
    let interface = found.value(key, raw).and_then(|text| found.interface(key, &text)).unwrap_or_else(default);
    if RESERVED_NAMES.contains(&interface.as_str()) {
        found.report(key, format!("`{interface}` cannot be a tunnel's name"));
    }
    if site.public_interface.as_ref() == Some(&interface) {
        found.report(key, "is also site.public_interface");
    }
    for (index, _) in site.private.iter().enumerate().filter(|(_, link)| link.interface == interface) {
        found.report(key, format!("is also site.private[{index}].interface"));
    }
    interface
}

fn listen_port(raw: Entry<i64>, file: &WgFile, open: OpenPort, found: &mut Findings) -> u16 {
    let key = "wireguard.listen_port";
    let written = found.value(key, raw).and_then(|number| found.port(key, number));
    // 0 lets the kernel choose; a port that peers shall find and the firewall open is better known.
    let written = file.or_written(key, "ListenPort", written, file.content.listen_port.filter(|&port| port > 0), found);
    match (written, open) {
        (Some(port), OpenPort::Port(open)) if port != open => {
            let reason = format!(
                "{open} is not wireguard.listen_port ({port}), which would be closed: leave this key away, or write false \
                 to close it"
            );
            found.report("firewall.wireguard_port", reason);
            port
        }
        (Some(port), _) | (None, OpenPort::Port(port)) => port,
        (None, OpenPort::Auto | OpenPort::Closed) => DEFAULT_PORT,
    }
}

/// Where the key is, or shall be, and the key if it is there already.
fn private_key(
    raw: Entry<String>,
    file: &WgFile,
    around: &Surroundings<'_, impl Files>,
    found: &mut Findings,
) -> (PathBuf, Option<PrivateKey>) {
    let key = "wireguard.private_key_file";
    let default = around.environment.state_directory().join(KEY_FILE);
    let written = found.value(key, raw);
    if let Some((path, private_key)) = file.path.as_ref().zip(file.content.private_key.as_ref()) {
        if written.is_some() {
            found.report(key, format!("stands beside the PrivateKey of {}: write only one of them", path.display()));
        }
        return (path.clone(), Some(private_key.clone()));
    }
    if let Some(text) = written {
        let Some(path) = keys::absolute(key, &text, found) else { return (default, None) };
        let private_key = keys::read(key, path, around.files, found).unwrap_or_else(|error| {
            if !error.is_absence() {
                keys::report_unreadable(key, path, &error, found);
            }
            None
        });
        return (path.to_owned(), private_key);
    }
    if let Some(path) = around.environment.credentials_directory.as_ref().map(|directory| directory.join(CREDENTIAL)) {
        match keys::read(CREDENTIAL, &path, around.files, found) {
            Ok(private_key) => return (path, private_key),
            Err(error) if error.is_absence() => {}
            Err(error) => keys::report_unreadable(CREDENTIAL, &path, &error, found),
        }
    }
    // Err: not made yet; or it is root's, and somebody else checks the configuration. The daemon tells what it meets.
    let private_key = keys::read(key, &default, around.files, found).unwrap_or_default();
    (default, private_key)
}

fn addresses(raw: Entry<Vec<Entry<String>>>, file: &WgFile, site: &Site, found: &mut Findings) -> Vec<IpNet> {
    let key = "wireguard.addresses";
    let listed = found.value(key, raw);
    if listed.is_some() && !file.content.addresses.is_empty() {
        found.report(key, format!("stands beside the Address of {}: write only one of them", file.shown()));
    }
    let mut listed_addresses: Vec<(String, IpNet)> =
        file.content.addresses.iter().map(|&address| (file::KEY.to_owned(), address)).collect();
    for (key, text) in found.elements(key, listed.unwrap_or_default()) {
        let parsed = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let Ok(address) = parsed else {
            found.report(key, format!("`{text}` is no address with a prefix (like 10.100.0.1/24 or fd00:100::1/64)"));
            continue;
        };
        listed_addresses.push((key, address));
    }
    let mut addresses: Vec<IpNet> = Vec::new();
    for (key, address) in listed_addresses {
        if let Some(reason) = unfit(address, site) {
            found.report(key, reason);
        } else if addresses.iter().any(|other| other.addr() == address.addr()) {
            found.report(key, format!("{} is listed twice", address.addr()));
        } else {
            let inside = site.private.iter().position(|link| IpNet::V4(link.network).contains(&address));
            if let Some(index) = inside {
                let network = site.private[index].network;
                let reason = format!(
                    "{} lies inside of {network}, site.private[{index}].network: no server may have an address in it",
                    address.trunc()
                );
                found.warn(key, reason);
            }
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        found.warn(key, "there are none, so peers cannot reach this server itself inside the tunnel");
    }
    addresses
}

/// Why the tunnel cannot have this address.
fn unfit(address: IpNet, site: &Site) -> Option<String> {
    let net = address.trunc();
    if address.prefix_len() == 0 {
        return Some(format!("`{address}` takes everything into the tunnel; write the tunnel's own network"));
    }
    // RFC 3021 and RFC 6164: a network of two addresses has no address of its own.
    if address.addr() == net.addr() && address.max_prefix_len() - address.prefix_len() > 1 {
        let first = net.hosts().find(|&host| host != net.addr()).unwrap_or(net.addr());
        return Some(format!(
            "{address} is the whole network; this server's own address in it is meant, like {first}/{}",
            net.prefix_len()
        ));
    }
    let IpNet::V4(v4) = address else {
        let is_nobodys = address.addr().is_multicast() || address.addr().is_loopback();
        return is_nobodys.then(|| format!("{} is no address of a network", address.addr()));
    };
    if v4.prefix_len() < 31 && v4.addr() == v4.broadcast() {
        return Some(format!("{} is the broadcast address of {}", v4.addr(), v4.trunc()));
    }
    if let Some(block) = unroutable(v4.trunc()) {
        return Some(format!("{} reaches into {block}, which is nobody's private network", v4.trunc()));
    }
    let covered = site.private.iter().enumerate().find(|(_, link)| v4.trunc().contains(&link.network));
    covered.map(|(index, link)| format!("{} contains {}, site.private[{index}].network", v4.trunc(), link.network))
}

/// Looks at a peer's allowed-ips in the light of what else is known.
fn allowed_ips_fit(peer: &CheckedPeer, addresses: &[IpNet], site: &Site, found: &mut Findings) {
    for (key, net) in &peer.allowed_ips {
        if net.prefix_len() == 0 {
            let reason = format!(
                "{net} is everything: this server sends it nothing but what narrower allowed-ips name, and no route is made"
            );
            found.warn(key, reason);
            continue;
        }
        if let Some(block) = peers::nobodys(*net) {
            found.report(key, format!("{net} reaches into {block}, which no peer can have"));
            continue;
        }
        if let Some(own) = addresses.iter().map(IpNet::addr).find(|own| net.contains(own)) {
            if net.prefix_len() == net.max_prefix_len() {
                found.report(key, format!("{net} is this server's own address in the tunnel"));
            } else {
                found.warn(key, format!("{net} contains this server's own address {own}"));
            }
        }
        for (index, link) in site.private.iter().enumerate() {
            let network = IpNet::V4(link.network);
            if net.contains(&network) {
                let reason = format!(
                    "{net} contains {network}, site.private[{index}].network: it is not routed into the tunnel, and what comes \
                     from it is dropped"
                );
                found.warn(key, reason);
            } else if network.contains(net) {
                let reason = format!(
                    "{net} lies inside of {network}, site.private[{index}].network: its packets go to the peer"
                );
                found.warn(key, reason);
            }
        }
    }
}

fn mtu(raw: Entry<NumberOrAuto>, file: &WgFile, has_v6: bool, found: &mut Findings) -> Option<u32> {
    let key = "wireguard.mtu";
    let number = match found.value(key, raw) {
        None | Some(NumberOrAuto::Auto) => None,
        Some(NumberOrAuto::Number(number)) => Some(number),
    };
    let number = file.or_written(key, "MTU", number, file.content.mtu.map(i64::from), found)?;
    let smallest = if has_v6 { SMALLEST_MTU_V6 } else { SMALLEST_MTU_V4 };
    let mtu = u32::try_from(number).ok().filter(|mtu| (smallest..=LARGEST_MTU).contains(mtu));
    if mtu.is_none() {
        let of = if has_v6 { "a tunnel that carries IPv6" } else { "a tunnel" };
        found.report(key, format!("{number} is no MTU of {of} ({smallest} to {LARGEST_MTU})"));
    }
    mtu
}

fn fwmark(raw: Entry<i64>, file: &WgFile, found: &mut Findings) -> u32 {
    let key = "wireguard.fwmark";
    let number = found.value(key, raw);
    let number = file.or_written(key, "FwMark", number, file.content.fwmark.map(i64::from), found).unwrap_or(0);
    u32::try_from(number).unwrap_or_else(|_| {
        found.report(key, format!("{number} is no mark (0 to {})", u32::MAX));
        0
    })
}

fn backend(raw: Entry<String>, found: &mut Findings) -> Backend {
    match found.value("wireguard.backend", raw).as_deref() {
        None | Some("userspace") => Backend::Userspace,
        Some("auto") => Backend::Auto,
        Some("kernel") => Backend::Kernel,
        Some(other) => {
            found.report("wireguard.backend", format!("`{other}` is none of auto, userspace, kernel"));
            Backend::Userspace
        }
    }
}
