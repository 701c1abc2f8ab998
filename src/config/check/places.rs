//! The names that lists of peers may use: `[hosts]`, and networks with a name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use super::diagnostics::Diagnostics;
use super::suggestion::{quoted, similar};
use super::values;
use crate::config::access::Place;
use crate::config::policy::NetworkName;
use crate::config::raw::{RawHosts, TextOrTexts};

/// The longest name of an alias, a network or a group, in characters: nft's sets are named after groups.
const MAX_NAME: usize = 32;
/// Words that mean something else than a name in a list.
const WORDS: [&str; 4] = ["bastion", "internet", "peers", "private"];
/// How many addresses and ranges one alias may stand for.
const MAX_RANGES_OF_HOST: usize = 256;

/// The names that lists may use.
#[derive(Debug, Default)]
pub(super) struct Places {
    hosts: BTreeMap<String, Vec<Ipv4Net>>,
    networks: BTreeMap<String, NetworkName>,
    full_tunnel: bool,
}

impl Places {
    pub(super) fn new<'a>(
        hosts: BTreeMap<String, Vec<Ipv4Net>>,
        networks: impl IntoIterator<Item = (&'a str, &'a str, NetworkName)>,
        diagnostics: &mut Diagnostics,
    ) -> Self {
        let mut places = Self { hosts, ..Self::default() };
        let mut blocks = BTreeMap::new();
        for (block, name, network) in networks {
            let key = format!("{block}.name");
            if places.hosts.contains_key(name) {
                diagnostics.error(key, format!("`{name}` is also an alias of [hosts]; choose another name"));
            } else if let Some(earlier) = blocks.insert(name, block) {
                diagnostics.error(key, format!("is also the name of {earlier}; choose another name"));
            } else {
                places.networks.insert(name.to_owned(), network);
            }
        }
        places
    }

    /// The same for a tunnel whose peers reach the internet, or do not.
    pub(super) fn of_tunnel(&self, full_tunnel: bool) -> Self {
        Self { hosts: self.hosts.clone(), networks: self.networks.clone(), full_tunnel }
    }

    pub(super) fn into_hosts(self) -> BTreeMap<String, Vec<Ipv4Net>> {
        self.hosts
    }

    pub(super) fn has_internet(&self) -> bool {
        self.full_tunnel
    }

    /// What a name stands for, or why it stands for nothing.
    pub(super) fn find(&self, name: &str) -> Result<Place, String> {
        if let Some(ranges) = self.hosts.get(name) {
            return Ok(Place::Host(name.to_owned(), ranges.clone()));
        }
        if let Some(network) = self.networks.get(name) {
            return Ok(Place::Network(name.to_owned(), network.clone()));
        }
        let known = self.hosts.keys().chain(self.networks.keys()).map(String::as_str).chain(WORDS);
        Err(match similar(name, known) {
            Some(meant) => format!("`{name}` is no name of [hosts] or of a [[network]]; did you mean `{meant}`?"),
            None => format!(
                "`{name}` is neither an IPv4 address nor a range, nor a name of [hosts] or of a [[network]], nor one \
                 of private, peers, internet, bastion:ssh"
            ),
        })
    }
}

/// `[hosts]`
pub(super) fn check_hosts(raw: RawHosts, diagnostics: &mut Diagnostics) -> BTreeMap<String, Vec<Ipv4Net>> {
    let mut hosts = BTreeMap::new();
    for (name, entry) in raw.0 {
        let key = format!("hosts.{}", quoted(&name));
        if let Err(reason) = parse_name(&name) {
            diagnostics.error(&key, reason);
        }
        let listed = match diagnostics.value(&key, entry) {
            None => continue,
            Some(TextOrTexts::Text(text)) => vec![(key.clone(), text)],
            Some(TextOrTexts::Texts(texts)) => diagnostics.elements(&key, texts),
        };
        if listed.is_empty() || listed.len() > MAX_RANGES_OF_HOST {
            let reason = format!("stands for {} addresses; name 1 to {MAX_RANGES_OF_HOST}", listed.len());
            diagnostics.error(&key, reason);
        }
        let mut ranges = BTreeSet::new();
        for (key, text) in listed {
            match parse_range(&text) {
                Ok(range) if !ranges.insert(range) => {
                    diagnostics.error(key, format!("{text} is listed twice; remove one of them"));
                }
                Ok(_) => {}
                Err(reason) => diagnostics.error(key, reason),
            }
        }
        hosts.insert(name, ranges.into_iter().collect());
    }
    hosts
}

/// An IPv4 address or range. IPv6 is refused with the reason.
pub(super) fn parse_range(text: &str) -> Result<Ipv4Net, String> {
    let is_v6 = text.parse::<Ipv6Addr>().is_ok() || matches!(text.parse::<IpNet>(), Ok(IpNet::V6(_)));
    if is_v6 {
        return Err(format!("`{text}` is IPv6, which is not forwarded between peers and networks; remove it"));
    }
    values::parse_net_v4(text)
}

/// The name of an alias, a network or a group.
pub(super) fn parse_name(name: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(is_plain);
    if !is_name || name.len() > MAX_NAME {
        return Err(format!(
            "`{}` is not a name for lists (1 to {MAX_NAME} of a-z, A-Z, 0-9, `-` and `_`, beginning with a letter)",
            name.escape_debug()
        ));
    }
    if WORDS.contains(&name) {
        return Err(format!("`{name}` has a meaning of its own in lists; choose another name"));
    }
    Ok(name.to_owned())
}

/// Whether a text begins like an address, so that it is no name.
pub(super) fn looks_like_address(text: &str) -> bool {
    let address = text.split('/').next().unwrap_or_default();
    address.parse::<IpAddr>().is_ok()
        || text.starts_with(|c: char| c.is_ascii_digit() || c == '*')
        || matches!(text, "any" | "all" | "everyone" | "anywhere")
}
