//! The items of `[wireguard]` and of its peers.

use super::item::{Item, SecretValue, list, or};
use crate::config::access::{AccessLists, Group, PeerAccess};
use crate::config::wireguard::{BackendChoice, Peer, Snat, Wireguard};

pub(super) fn of_tunnel(tunnel: &Wireguard) -> Vec<Item<'_>> {
    let Wireguard {
        interface,
        listen_port,
        private_key,
        private_key_file,
        is_key_in_wg_file: _,
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
        out: _,
    } = tunnel;
    let backend = match backend {
        BackendChoice::Auto => "auto",
        BackendChoice::Userspace => "userspace",
        BackendChoice::Kernel => "kernel",
    };
    let snat = match snat {
        Snat::Auto => "auto",
        Snat::Always => "true",
        Snat::Never => "false",
    };
    let key = Item {
        secret: private_key.as_ref().map(SecretValue::Private),
        ..Item::key("wireguard.private_key_file", private_key_file.display())
    };
    let mut items = vec![
        Item::named("tunnel", "", interface.to_string()),
        Item::key("wireguard.listen_port", listen_port),
        key,
        Item::key("wireguard.mtu", or(mtu.as_ref(), "auto")),
        Item::key("wireguard.fwmark", fwmark),
        Item::key("wireguard.backend", backend),
        Item::key("wireguard.full_tunnel", full_tunnel),
        Item::key("wireguard.routes", routes),
        Item::key("wireguard.snat", snat),
        Item::key("wireguard.endpoint", or(endpoint.as_ref(), "the public address")),
        Item::key("wireguard.dns", list(dns)),
    ];
    items.extend(addresses.iter().map(|address| Item::entry("tunnel address", address.to_string())));
    items.push(Item::key("wireguard.default_reach", or(default_reach.as_ref().map(list), "everything as usual")));
    items.extend(groups.iter().flat_map(of_group));
    items.extend(peers.iter().map(of_peer));
    items.extend(peers.iter().flat_map(of_access));
    items
}

fn of_peer(peer: &Peer) -> Item<'_> {
    let Peer {
        name,
        public_key,
        preshared_key,
        allowed_ips,
        in_private_network,
        endpoint,
        persistent_keepalive,
        enabled,
        expires,
        access: _,
    } = peer;
    let name = name.as_ref().map_or_else(String::new, |name| format!("{name:?} "));
    let mut text = format!("{name}{public_key} {}", list(allowed_ips));
    if *in_private_network {
        text.push_str(" in_private_network");
    }
    text.extend(endpoint.iter().map(|endpoint| format!(" at {endpoint}")));
    text.extend(persistent_keepalive.iter().map(|seconds| format!(" keepalive {seconds} s")));
    if !enabled {
        text.push_str(" disabled");
    }
    text.extend(expires.iter().map(|time| format!(" until {}", humantime::format_rfc3339_seconds(*time))));
    if preshared_key.is_some() {
        text.push_str(" with a preshared key");
    }
    let secret = preshared_key.as_ref().map(SecretValue::Preshared);
    Item { secret, ..Item::named("peer", public_key.to_string(), text) }
}

/// A group, and an item for each entry of its lists: there may be a thousand.
fn of_group(Group { name, lists }: &Group) -> Vec<Item<'_>> {
    let mut items = vec![Item::named("group", name, name)];
    items.extend(of_lists("group", name, lists));
    items
}

/// The groups and lists of a peer.
fn of_access(peer: &Peer) -> Vec<Item<'_>> {
    let PeerAccess { groups, lists } = &peer.access;
    let label = peer.name.as_ref().map_or_else(|| peer.public_key.to_string(), |name| format!("{name:?}"));
    let in_group = |group: &String| Item::entry("peer access", format!("{label} in group {group}"));
    groups.iter().map(in_group).chain(of_lists("peer access", &label, lists)).collect()
}

fn of_lists<'a>(kind: &'static str, label: &str, AccessLists { reach, deny, from }: &AccessLists) -> Vec<Item<'a>> {
    let mut items = Vec::new();
    for (word, list) in
        [("reaches", reach.as_ref()), ("does not reach", Some(deny)), ("is reached from", from.as_ref())]
    {
        let Some(entries) = list else { continue };
        if entries.is_empty() && word != "does not reach" {
            items.push(Item::entry(kind, format!("{label} {word} nothing")));
        }
        items.extend(entries.iter().map(|entry| Item::entry(kind, format!("{label} {word} {entry}"))));
    }
    items
}
