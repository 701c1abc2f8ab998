//! The sets and maps that nft's JSON of version 1.0.6 cannot declare, as text.
//!
//! Debian 12's nft takes neither the flag `dynamic` nor a map to several fields in JSON (a map becomes a set, and using it
//! crashes nft); its text does. So these stand before the transaction that uses them, with the same declaration always, whether
//! the configuration has need of them or not: adding what is there is no change, and an empty map costs no packet anything.

/// What each of them is, in the order of the table: a name, its declaration's beginning, and its body.
struct Declaration {
    name: &'static str,
    what: What,
    body: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Set,
    Map,
}

/// Entries of a meter: what one /16 of sources can fill. The kernel refuses more, and then the rule does not match.
macro_rules! meter {
    ($key:literal, $flags:literal, $rest:literal) => {
        concat!("type ", $key, "; size 65535; flags ", $flags, "; ", $rest)
    };
}

/// `th dport` comes first where ranges are held: the kernel looks fields up one after the other, and the most selective first
/// keeps ten thousand entries cheap (2.3 instead of 33 microseconds a packet, measured).
const DECLARATIONS: &[Declaration] = &[
    Declaration { name: "banned4", what: What::Set, body: meter!("ipv4_addr", "dynamic,timeout", "") },
    Declaration { name: "banned6", what: What::Set, body: meter!("ipv6_addr", "dynamic,timeout", "") },
    Declaration { name: "ssh_tries4", what: What::Set, body: meter!("ipv4_addr", "dynamic,timeout", "timeout 5m;") },
    Declaration { name: "ssh_tries6", what: What::Set, body: meter!("ipv6_addr", "dynamic,timeout", "timeout 5m;") },
    Declaration { name: "ssh_counted4", what: What::Set, body: meter!("ipv4_addr", "dynamic,timeout", "timeout 5m;") },
    Declaration { name: "ssh_counted6", what: What::Set, body: meter!("ipv6_addr", "dynamic,timeout", "timeout 5m;") },
    Declaration { name: "syns4", what: What::Set, body: meter!("ipv4_addr", "dynamic,timeout", "timeout 1m;") },
    Declaration { name: "syns6", what: What::Set, body: meter!("ipv6_addr", "dynamic,timeout", "timeout 1m;") },
    Declaration { name: "new_flows", what: What::Set, body: meter!("ipv4_addr", "dynamic,timeout", "timeout 1m;") },
    Declaration { name: "flows", what: What::Set, body: meter!("ipv4_addr", "dynamic", "") },
    Declaration {
        name: "over_new_flows",
        what: What::Set,
        body: meter!("ipv4_addr", "dynamic,timeout", "timeout 1h;"),
    },
    Declaration { name: "over_flows", what: What::Set, body: meter!("ipv4_addr", "dynamic,timeout", "timeout 1h;") },
    Declaration { name: "scanning", what: What::Set, body: meter!("ipv4_addr", "dynamic,timeout", "timeout 1h;") },
    Declaration {
        name: "forwards",
        what: What::Map,
        body: "type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service;",
    },
    Declaration {
        name: "forwards_from",
        what: What::Map,
        body: "type inet_service . ipv4_addr . ipv4_addr . inet_proto : ipv4_addr . inet_service; flags interval;",
    },
    Declaration {
        name: "forward_ranges",
        what: What::Map,
        body: "type inet_service . ipv4_addr . ipv4_addr . inet_proto : ipv4_addr; flags interval;",
    },
    Declaration { name: "static_in", what: What::Map, body: "type ipv4_addr : ipv4_addr;" },
    Declaration { name: "static_out", what: What::Map, body: "type ipv4_addr : ipv4_addr;" },
];

/// The text that declares what is missing, or nothing if all is there. `has` tells whether the table has a set (`"set"`) or a
/// map (`"map"`) of a name.
pub(super) fn missing(table: &str, has: impl Fn(&str, &str) -> bool) -> Option<String> {
    let word = |what| if what == What::Set { "set" } else { "map" };
    let lacking: Vec<&Declaration> =
        DECLARATIONS.iter().filter(|declaration| !has(word(declaration.what), declaration.name)).collect();
    if lacking.is_empty() {
        return None;
    }
    let declared = lacking
        .into_iter()
        .map(|Declaration { name, what, body }| format!("add {} inet {table} {name} {{ {body} }}\n", word(*what)));
    Some([format!("add table inet {table}\n")].into_iter().chain(declared).collect())
}

/// Whether a set or map is one of these.
pub(super) fn declares(kind: &str, name: &str) -> bool {
    let what = if kind == "map" { What::Map } else { What::Set };
    DECLARATIONS.iter().any(|declaration| declaration.what == what && declaration.name == name)
}

/// The names of the sets, or of the maps.
pub(super) fn names(kind: &str) -> impl Iterator<Item = &'static str> {
    let what = if kind == "map" { What::Map } else { What::Set };
    DECLARATIONS.iter().filter(move |declaration| declaration.what == what).map(|declaration| declaration.name)
}
