//! The items of `[wireguard]` and of its peers.

use super::item::{Item, SecretValue, list, or};
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
    items.extend(peers.iter().map(of_peer));
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
