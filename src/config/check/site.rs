//! `[site]`

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::behind;
use super::diagnostics::Diagnostics;
use super::private::{KnownNetwork, PrivateNetworks};
use super::reserved::reserved_block;
use crate::config::environment::Environment;
use crate::config::model::{DockerBridges, PrivateLink, Site};
use crate::config::raw::{Entry, NumberOrAuto, RawPrivateLink, RawSite, SwitchOrAuto};
use crate::net::{InterfaceName, NetworkId, ServerId, overlap};

/// The metadata service's link-local address (Hetzner documentation, "Server metadata").
const DEFAULT_METADATA_ENDPOINT: &str = "http://169.254.169.254";
/// Hetzner attaches a server to at most three networks; ten leave room for links of other kinds.
const MAX_PRIVATE_LINKS: usize = 10;

/// The section, and its private networks even if some of it is wrong.
pub(super) fn check_site(
    raw: RawSite,
    environment: &Environment,
    diagnostics: &mut Diagnostics,
) -> (Site, PrivateNetworks) {
    diagnostics.reject_unknown_keys("site", &raw.unknown);
    let public_interface = diagnostics
        .unless_auto("site.public_interface", raw.public_interface)
        .and_then(|text| diagnostics.parse_interface("site.public_interface", &text));
    let server_id = match diagnostics.value("site.server_id", raw.server_id) {
        None | Some(NumberOrAuto::Auto) => None,
        Some(NumberOrAuto::Number(number)) => diagnostics.parse_id("site.server_id", number).map(ServerId),
    };
    let from_file = diagnostics.value("site.metadata_endpoint", raw.metadata_endpoint);
    let from_environment = ("HCLOUD_METADATA_ENDPOINT", environment.hcloud_metadata_endpoint.as_deref());
    let metadata_endpoint = diagnostics
        .parse_endpoint("site.metadata_endpoint", from_file, from_environment)
        .unwrap_or_else(|| DEFAULT_METADATA_ENDPOINT.to_owned());
    let docker = match diagnostics.value("site.docker", raw.docker) {
        None | Some(SwitchOrAuto::Auto) => DockerBridges::Report,
        Some(SwitchOrAuto::Switch(true)) => DockerBridges::Serve,
        Some(SwitchOrAuto::Switch(false)) => DockerBridges::Ignore,
    };
    let is_list = !matches!(raw.private, Entry::Bad(_));
    let mut links = diagnostics.value("site.private", raw.private).map(|links| links.0).unwrap_or_default();
    let count = links.len();
    if count > MAX_PRIVATE_LINKS {
        diagnostics.error("site.private", format!("{count} links; at most {MAX_PRIVATE_LINKS} are supported"));
        links.truncate(MAX_PRIVATE_LINKS);
    }
    let links = diagnostics.elements("site.private", links);
    let links: Vec<_> = links.into_iter().map(|(key, link)| check_private_link(key, link, diagnostics)).collect();
    check_private_links_differ(&links, public_interface.as_ref(), diagnostics);
    let known = links.iter().filter_map(CheckedLink::known_network).collect();
    let networks = PrivateNetworks::new(known, is_list.then_some(count));
    let private = links.into_iter().filter_map(CheckedLink::finish).collect();
    (Site { public_interface, server_id, metadata_endpoint, docker, private }, networks)
}

/// A private link in which some keys may be wrong. The others are still compared with other links.
struct CheckedLink {
    key: String,
    interface: Option<InterfaceName>,
    network: Option<Ipv4Net>,
    address: Option<Ipv4Addr>,
    network_id: Option<NetworkId>,
    also: Vec<Ipv4Net>,
}

impl CheckedLink {
    fn known_network(&self) -> Option<KnownNetwork> {
        let (key, also) = (self.key.clone(), self.also.clone());
        Some(KnownNetwork { key, network: self.network?, address: self.address, also })
    }

    fn finish(self) -> Option<PrivateLink> {
        let Self { interface, network, address, network_id, also, .. } = self;
        Some(PrivateLink { interface: interface?, network: network?, address, network_id, also })
    }
}

fn check_private_link(key: String, raw: RawPrivateLink, diagnostics: &mut Diagnostics) -> CheckedLink {
    diagnostics.reject_unknown_keys(&key, &raw.unknown);
    let meaning = "a private link needs both interface and network";
    diagnostics.require(&key, "interface", &raw.interface, meaning);
    diagnostics.require(&key, "network", &raw.network, meaning);
    let interface_key = format!("{key}.interface");
    let interface = diagnostics
        .value(&interface_key, raw.interface)
        .and_then(|text| diagnostics.parse_interface(&interface_key, &text));
    let network_key = format!("{key}.network");
    let network =
        diagnostics.value(&network_key, raw.network).and_then(|text| diagnostics.parse_network(&network_key, &text));
    let address_key = format!("{key}.address");
    let address = diagnostics
        .unless_auto(&address_key, raw.address)
        .and_then(|text| diagnostics.parse_address(&address_key, &text));
    let id_key = format!("{key}.network_id");
    let network_id =
        diagnostics.value(&id_key, raw.network_id).and_then(|id| diagnostics.parse_id(&id_key, id)).map(NetworkId);
    if let Some((network, block)) = network.zip(network.and_then(reserved_block)) {
        diagnostics.error(network_key, format!("{network} overlaps {block}, which no private network can use"));
    }
    if let Some((network, address)) = network.zip(address).filter(|(network, address)| !network.contains(address)) {
        diagnostics.error(address_key, format!("{address} is outside {network}, this block's network"));
    }
    let also = behind::check_also(&key, raw.also, diagnostics);
    CheckedLink { key, interface, network, address, network_id, also }
}

fn check_private_links_differ(links: &[CheckedLink], public: Option<&InterfaceName>, diagnostics: &mut Diagnostics) {
    for (index, link) in links.iter().enumerate() {
        let CheckedLink { key, interface, network, network_id, .. } = link;
        if interface.is_some() && interface.as_ref() == public {
            let reason = "is also site.public_interface; an interface is either public or private";
            diagnostics.error(format!("{key}.interface"), reason);
        }
        for earlier in &links[..index] {
            let other = &earlier.key;
            if interface.is_some() && *interface == earlier.interface {
                let reason = format!("is also {other}.interface; write one block for each interface");
                diagnostics.error(format!("{key}.interface"), reason);
            }
            if network_id.is_some() && *network_id == earlier.network_id {
                let reason = format!("is also {other}.network_id; write one block for each network");
                diagnostics.error(format!("{key}.network_id"), reason);
            }
            if let Some((network, range)) = network.zip(earlier.network).filter(|&(one, other)| overlap(one, other)) {
                let reason = format!("{network} overlaps {range} of {other}; private networks must not overlap");
                diagnostics.error(format!("{key}.network"), reason);
            }
        }
    }
}
