//! `[site]`

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::super::findings::Findings;
use super::super::raw::{Entry, NumberOrAuto, RawPrivateLink, RawSite};
use super::super::{Environment, PrivateLink, Site};
use super::endpoint;
use super::private::PrivateNetworks;
use crate::net::{InterfaceName, NetworkId, ServerId, overlap};

/// The metadata service's link-local address (Hetzner documentation, "Server metadata").
const DEFAULT_METADATA_ENDPOINT: &str = "http://169.254.169.254";
/// Hetzner attaches a server to three networks at most; ten leave room for links of other kinds.
const MAX_PRIVATE_LINKS: usize = 10;

/// The section, and what it says of the private networks even where some of it is wrong.
pub(super) fn section(raw: RawSite, environment: &Environment, found: &mut Findings) -> (Site, PrivateNetworks) {
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
    let is_list = !matches!(raw.private, Entry::Bad(_));
    let mut links = found.value("site.private", raw.private).map(|links| links.0).unwrap_or_default();
    let count = links.len();
    if count > MAX_PRIVATE_LINKS {
        found.report("site.private", format!("{count} links; at most {MAX_PRIVATE_LINKS} are supported"));
        links.truncate(MAX_PRIVATE_LINKS);
    }
    let links = found.elements("site.private", links);
    let links: Vec<_> = links.into_iter().map(|(key, link)| private_link(key, link, found)).collect();
    private_links_differ(&links, public_interface.as_ref(), found);
    let networks = PrivateNetworks::of(&links, is_list.then_some(count));
    let private = links.into_iter().filter_map(CheckedLink::whole).collect();
    (Site { public_interface, server_id, metadata_endpoint, private }, networks)
}

/// A private link of which some keys may be wrong; the others are still compared with those of other links.
pub(super) struct CheckedLink {
    pub(super) key: String,
    interface: Option<InterfaceName>,
    pub(super) network: Option<Ipv4Net>,
    pub(super) address: Option<Ipv4Addr>,
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
pub(super) fn unroutable(network: Ipv4Net) -> Option<Ipv4Net> {
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
