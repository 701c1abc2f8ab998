//! The keys of a file, and what values of them may be.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::Table;
use crate::endpoint::EndpointName;
use crate::syntax::mark;

/// A key less similar than this is not suggested (Jaro-Winkler, 0 to 1).
const RESEMBLANCE: f64 = 0.85;

/// The keys of `[Interface]` as wg(8) and wg-quick(8) spell them.
pub(super) const INTERFACE_KEYS: [&str; 12] = [
    "PrivateKey",
    "ListenPort",
    "FwMark",
    "Address",
    "MTU",
    "Table",
    "DNS",
    "PreUp",
    "PostUp",
    "PreDown",
    "PostDown",
    "SaveConfig",
];

/// Those of them that wg(8) does not know.
pub(super) const WG_QUICK_KEYS: [&str; 9] =
    ["Address", "MTU", "Table", "DNS", "PreUp", "PostUp", "PreDown", "PostDown", "SaveConfig"];

/// Those of them that are not acted on.
pub(super) const IGNORED_KEYS: [&str; 6] = ["DNS", "PreUp", "PostUp", "PreDown", "PostDown", "SaveConfig"];

/// The keys of `[Peer]` as wg(8) spells them.
pub(super) const PEER_KEYS: [&str; 5] = ["PublicKey", "PresharedKey", "AllowedIPs", "Endpoint", "PersistentKeepalive"];

/// Routing tables that have a name everywhere (`RT_TABLE_*` in linux/rtnetlink.h).
const TABLE_NAMES: [(&str, u32); 3] = [("default", 253), ("main", 254), ("local", 255)];

/// Without white space.
pub(super) fn squeezed(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

/// A value that may be switched off.
pub(super) fn or_off<T: Default>(read: impl FnOnce(&str) -> Option<T>) -> impl FnOnce(&str) -> Option<T> {
    |text| if text.eq_ignore_ascii_case("off") { Some(T::default()) } else { read(text) }
}

/// An address without a prefix is one with all its bits.
pub(super) fn or_single(read: impl FnOnce(&str) -> Option<IpNet>) -> impl FnOnce(&str) -> Option<IpNet> {
    |text| text.parse::<IpAddr>().map(IpNet::from).ok().or_else(|| read(text))
}

/// The value of `Table`.
pub(super) fn table(text: &str) -> Option<Table> {
    let named = TABLE_NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|&(_, number)| number);
    match text.to_ascii_lowercase().as_str() {
        "auto" => Some(Table::Auto),
        "off" => Some(Table::Off),
        // iproute2 reads numbers of both kinds.
        _ => named.or_else(|| mark(text)).filter(|&number| number != 0).map(Table::Number),
    }
}

/// wg(8) takes an IPv6 address without its brackets as well: the last colon is the port's.
pub(super) fn endpoint(text: &str) -> Option<EndpointName> {
    let bare = || {
        let (address, port) = text.rsplit_once(':')?;
        let is_v6 = address.split('%').next()?.parse::<Ipv6Addr>().is_ok();
        if is_v6 { format!("[{address}]:{port}").parse().ok() } else { None }
    };
    text.parse().ok().or_else(bare)
}

/// The key that was meant, if one is near enough.
pub(super) fn similar(known: &[&'static str], key: &str) -> Option<&'static str> {
    let key = key.to_ascii_lowercase();
    let scored = known.iter().map(|&known| (strsim::jaro_winkler(&key, &known.to_ascii_lowercase()), known));
    scored.filter(|&(score, _)| score > RESEMBLANCE).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}
