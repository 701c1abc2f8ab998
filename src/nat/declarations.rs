//! The sets and maps that nft's JSON of version 1.0.6 cannot declare. They are declared as text.
//!
//! Debian 12's nft takes neither the flag `dynamic` nor a map to several fields in JSON (a map becomes a set, and using
//! it crashes nft); its text syntax does. So these are declared before the transaction that uses them, always in the
//! same way and whether the configuration needs them or not: declaring what exists changes nothing, and an empty map
//! costs no packet anything.

use std::fmt::Write as _;

use super::command::ObjectKind;
use crate::inputs::{LIMITED_LINKS, LIMITED_RANGES, LIMITED4, LIMITED6};

/// A declared set or map.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Declaration {
    name: &'static str,
    /// [`ObjectKind::Set`] or [`ObjectKind::Map`].
    kind: ObjectKind,
    /// What nft's text has between the braces.
    body: &'static str,
}

/// A meter holds as many elements as one /16 of sources can fill. The kernel refuses more, and then the rule does not
/// match.
macro_rules! meter {
    ($key:literal, $flags:literal, $rest:literal) => {
        concat!("type ", $key, "; size 65535; flags ", $flags, "; ", $rest)
    };
}

const fn set(name: &'static str, body: &'static str) -> Declaration {
    Declaration { name, kind: ObjectKind::Set, body }
}

const fn map(name: &'static str, body: &'static str) -> Declaration {
    Declaration { name, kind: ObjectKind::Map, body }
}

/// In the order in which the table lists them.
///
/// `th dport` comes first where keys are ranges: the kernel looks fields up one after the other, and the most selective
/// one first keeps ten thousand entries cheap (2.3 instead of 33 microseconds a packet, measured).
static DECLARATIONS: [Declaration; 30] = [
    set("banned4", meter!("ipv4_addr", "dynamic,timeout", "")),
    set("banned6", meter!("ipv6_addr", "dynamic,timeout", "")),
    set("ssh_tries4", meter!("ipv4_addr", "dynamic,timeout", "timeout 5m;")),
    set("ssh_tries6", meter!("ipv6_addr", "dynamic,timeout", "timeout 5m;")),
    set("ssh_counted4", meter!("ipv4_addr", "dynamic,timeout", "timeout 5m;")),
    set("ssh_counted6", meter!("ipv6_addr", "dynamic,timeout", "timeout 5m;")),
    set("ssh_syns4", meter!("ipv4_addr", "dynamic,timeout", "timeout 2m;")),
    set("ssh_syns6", meter!("ipv6_addr", "dynamic,timeout", "timeout 2m;")),
    set("ssh_inside4", meter!("ipv4_addr", "dynamic,timeout", "timeout 2m;")),
    set("ssh_inside6", meter!("ipv6_addr", "dynamic,timeout", "timeout 2m;")),
    set("syns4", meter!("ipv4_addr", "dynamic,timeout", "timeout 1m;")),
    set("syns6", meter!("ipv6_addr", "dynamic,timeout", "timeout 1m;")),
    // Not `new_flows`: elements of that name, made by 0.1.0, limit the other way round.
    set("inside_flows", meter!("ipv4_addr", "dynamic,timeout", "timeout 1m;")),
    set("outside_flows4", meter!("ipv4_addr", "dynamic,timeout", "timeout 1m;")),
    set("outside_flows6", meter!("ipv6_addr", "dynamic,timeout", "timeout 1m;")),
    set(LIMITED4, meter!("ipv4_addr", "dynamic,timeout", "timeout 1m;")),
    set(LIMITED6, meter!("ipv6_addr", "dynamic,timeout", "timeout 1m;")),
    set(LIMITED_RANGES, "type ipv4_addr; size 65535; flags interval,timeout; timeout 1m;"),
    set(LIMITED_LINKS, "type ifname; size 256; flags dynamic,timeout; timeout 1m;"),
    set("over_new_flows", meter!("ipv4_addr", "dynamic,timeout", "timeout 1h;")),
    set("over_flows", meter!("ipv4_addr", "dynamic,timeout", "timeout 1h;")),
    set("over_ssh", meter!("ipv4_addr", "dynamic,timeout", "timeout 1h;")),
    set("scanning", meter!("ipv4_addr", "dynamic,timeout", "timeout 1h;")),
    set("refused_peers", meter!("ipv4_addr", "dynamic,timeout", "timeout 1h;")),
    set("portless", "type ipv4_addr . inet_proto . ipv4_addr; size 4096; flags dynamic,timeout; timeout 5m;"),
    map("forwards", "type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service;"),
    map(
        "forwards_from",
        "type inet_service . ipv4_addr . ipv4_addr . inet_proto : ipv4_addr . inet_service; flags interval;",
    ),
    map("forward_ranges", "type inet_service . ipv4_addr . ipv4_addr . inet_proto : ipv4_addr; flags interval;"),
    map("static_in", "type ipv4_addr : ipv4_addr;"),
    map("static_out", "type ipv4_addr : ipv4_addr;"),
];

/// All of them.
pub(super) fn all() -> Vec<&'static Declaration> {
    DECLARATIONS.iter().collect()
}

/// Those that a table does not have; `exists` says whether it has an object of a kind and name.
pub(super) fn missing(exists: impl Fn(ObjectKind, &str) -> bool) -> Vec<&'static Declaration> {
    DECLARATIONS.iter().filter(|declaration| !exists(declaration.kind, declaration.name)).collect()
}

/// nft's text that adds the table and declares these in it; `None` if there are none.
pub(super) fn text(declarations: &[&Declaration], table: &str) -> Option<String> {
    if declarations.is_empty() {
        return None;
    }
    let mut text = format!("add table inet {table}\n");
    for Declaration { name, kind, body } in declarations {
        writeln!(text, "add {} inet {table} {name} {{ {body} }}", kind.word())
            .expect("writing to a string does not fail");
    }
    Some(text)
}

/// Whether a set or map is declared here.
pub(super) fn declares(kind: ObjectKind, name: &str) -> bool {
    names(kind).any(|declared| declared == name)
}

/// The names of the declared sets, or of the declared maps.
pub(super) fn names(kind: ObjectKind) -> impl Iterator<Item = &'static str> {
    DECLARATIONS.iter().filter(move |declaration| declaration.kind == kind).map(|declaration| declaration.name)
}
