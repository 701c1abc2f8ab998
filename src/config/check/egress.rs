//! `[egress]` and `[[network]]`: what private hosts may reach.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;

use super::acl::{self, ListKind};
use super::behind;
use super::budget::Budget;
use super::diagnostics::Diagnostics;
use super::nat::{self, Pool};
use super::places;
use super::private::PrivateNetworks;
use super::values;
use crate::config::policy::{Egress, EgressLists, EgressOfHosts, NetworkName, NetworkPolicy};
use crate::config::raw::{Entry, RawAcl, RawEgress, RawNetwork, RawNetworkEgresses};
use crate::net::{InterfaceName, InvalidInterfaceName, is_private, overlap};

/// A busy host opens tens of flows a second; a scanning host opens thousands.
const DEFAULT_NEW_FLOWS: u32 = 500;
/// A sixteenth of the ports that one address has towards one destination (64 512, `docs/traffic.md`).
const DEFAULT_MAX_FLOWS: u32 = 4096;
/// Twenty busy hosts. A core carries some hundred thousand new flows a second.
const DEFAULT_NETWORK_NEW_FLOWS: u32 = 10_000;
/// Each block costs a rule for each length of its prefixes.
const MAX_EGRESS_BLOCKS: usize = 64;
/// Mail between servers (RFC 5321 section 4.5.4.2), and spam from hijacked hosts.
const SMTP_PORT: u16 = 25;

pub(super) fn check_egress(raw: RawEgress, budget: &mut Budget, diagnostics: &mut Diagnostics) -> Egress {
    diagnostics.reject_unknown_keys("egress", &raw.unknown);
    let max_flows = diagnostics
        .parse_field("egress", "max_flows", raw.max_flows, values::parse_limit)
        .unwrap_or(Some(DEFAULT_MAX_FLOWS));
    let lists = check_lists("egress", (raw.smtp, raw.allow, raw.deny), &EgressLists::default(), budget, diagnostics);
    Egress {
        guard: diagnostics.field("egress", "guard", raw.guard).unwrap_or(true),
        new_flows_per_second: diagnostics
            .parse_field("egress", "new_flows_per_second", raw.new_flows_per_second, values::parse_limit)
            .unwrap_or(Some(DEFAULT_NEW_FLOWS)),
        max_flows,
        network_new_flows_per_second: diagnostics
            .parse_field(
                "egress",
                "network_new_flows_per_second",
                raw.network_new_flows_per_second,
                values::parse_limit,
            )
            .unwrap_or(Some(DEFAULT_NETWORK_NEW_FLOWS)),
        lists,
    }
}

type RawList = Entry<Vec<Entry<RawAcl>>>;

/// The lists of a section. A list that the section does not have is copied from `default`.
fn check_lists(
    section: &str,
    (smtp, allow, deny): (Entry<bool>, RawList, RawList),
    default: &EgressLists,
    budget: &mut Budget,
    diagnostics: &mut Diagnostics,
) -> EgressLists {
    let smtp = diagnostics.field(section, "smtp", smtp).unwrap_or(default.smtp);
    let allow = acl::check_list(section, "allow", allow, ListKind::Egress, budget, diagnostics);
    match &allow {
        Some(rules) if rules.is_empty() => {
            let reason = "is empty, so nothing may go out; remove the key to allow every destination";
            diagnostics.warn(format!("{section}.allow"), reason);
        }
        Some(rules) if !smtp && rules.iter().any(|rule| rule.names_tcp_port(SMTP_PORT)) => {
            let reason = format!("allows TCP port {SMTP_PORT}, which stays closed unless {section}.smtp = true");
            diagnostics.warn(format!("{section}.allow"), reason);
        }
        Some(_) | None => {}
    }
    let deny = acl::check_list(section, "deny", deny, ListKind::Egress, budget, diagnostics);
    EgressLists {
        smtp,
        allow: allow.or_else(|| default.allow.clone()),
        deny: deny.unwrap_or_else(|| default.deny.clone()),
    }
}

/// A `[[network]]` in which some keys may be wrong. The others are still compared with other networks.
pub(super) struct CheckedNetwork {
    key: String,
    name: Option<String>,
    range: Option<Ipv4Net>,
    interface: Option<InterfaceName>,
    also: Vec<Ipv4Net>,
    pool: Option<Pool>,
    egress: Vec<CheckedEgress>,
    lists: EgressLists,
}

/// A `[[network.egress]]`.
struct CheckedEgress {
    key: String,
    from: Vec<Ipv4Net>,
    pool: Pool,
}

impl CheckedNetwork {
    /// All lists of egress addresses in the block.
    pub(super) fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.pool.iter().chain(self.egress.iter().map(|entry| &entry.pool))
    }

    /// Its place, its name and what it is, if it has a name.
    pub(super) fn named(&self) -> Option<(&str, &str, NetworkName)> {
        let network = self.range.map(NetworkName::Range).or_else(|| self.interface.clone().map(NetworkName::Interface));
        Some((&self.key, self.name.as_deref()?, network?))
    }

    pub(super) fn finish(self) -> Option<NetworkPolicy> {
        let Self { key, name, range, interface, also, pool, egress, lists } = self;
        let egress = egress.into_iter().map(|CheckedEgress { key, from, pool }| EgressOfHosts {
            key,
            from,
            addresses: pool.into_addresses(),
        });
        let network = range.map(NetworkName::Range).or(interface.map(NetworkName::Interface))?;
        Some(NetworkPolicy {
            key,
            name,
            network,
            also,
            egress_addresses: pool.map(Pool::into_addresses),
            egress: egress.collect(),
            lists,
        })
    }
}

/// The `[[network]]` blocks.
pub(super) fn check_networks(
    blocks: Vec<Entry<RawNetwork>>,
    egress: &EgressLists,
    private: &PrivateNetworks,
    budget: &mut Budget,
    diagnostics: &mut Diagnostics,
) -> Vec<CheckedNetwork> {
    let blocks = diagnostics.elements("network", blocks);
    let mut check_network = |(key, raw): (String, RawNetwork)| -> CheckedNetwork {
        diagnostics.reject_unknown_keys(&key, &raw.unknown);
        let is_by_interface = !matches!(raw.interface, Entry::Absent);
        if !is_by_interface {
            let meaning = "the whole range of a private network; or `interface`, for a bridge of this server";
            diagnostics.require(&key, "range", &raw.range, meaning);
        } else if !matches!(raw.range, Entry::Absent) {
            let reason = "is not allowed beside `range`: one of them names the network";
            diagnostics.error(format!("{key}.interface"), reason);
        }
        let parse_interface = |text: &str| text.parse().map_err(|error: InvalidInterfaceName| error.to_string());
        CheckedNetwork {
            name: diagnostics.parse_field(&key, "name", raw.name, places::parse_name),
            interface: diagnostics.parse_field(&key, "interface", raw.interface, parse_interface),
            also: behind::check_also(&key, raw.also, diagnostics),
            range: diagnostics.parse_field(&key, "range", raw.range, |text: &str| private.parse_network(text)),
            pool: nat::check_pool(&key, "egress_addresses", raw.egress_addresses, private, diagnostics),
            egress: check_egress_of_hosts(&key, raw.egress, private, diagnostics),
            lists: check_lists(&key, (raw.smtp, raw.allow, raw.deny), egress, budget, diagnostics),
            key,
        }
    };
    let networks: Vec<_> = blocks.into_iter().map(&mut check_network).collect();
    for network in &networks {
        check_hosts_are_inside(network, diagnostics);
    }
    check_ranges_are_disjoint(&networks, diagnostics);
    check_interfaces_differ(&networks, diagnostics);
    networks
}

/// The `[[network.egress]]` blocks of a network.
fn check_egress_of_hosts(
    network: &str,
    blocks: Entry<RawNetworkEgresses>,
    private: &PrivateNetworks,
    diagnostics: &mut Diagnostics,
) -> Vec<CheckedEgress> {
    let section = format!("{network}.egress");
    let mut blocks = diagnostics.value(&section, blocks).map(|blocks| blocks.0).unwrap_or_default();
    if blocks.len() > MAX_EGRESS_BLOCKS {
        let reason = format!("{} blocks; at most {MAX_EGRESS_BLOCKS} are supported for a network", blocks.len());
        diagnostics.error(&section, reason);
        blocks.truncate(MAX_EGRESS_BLOCKS);
    }
    let mut checked: Vec<CheckedEgress> = Vec::new();
    for (key, raw) in diagnostics.elements(&section, blocks) {
        diagnostics.reject_unknown_keys(&key, &raw.unknown);
        diagnostics.require(&key, "from", &raw.from, "the hosts and ranges whose flows leave under these addresses");
        diagnostics.require(&key, "addresses", &raw.addresses, "the public addresses under which they leave");
        let empty = "an empty list names no host; remove the block";
        let from =
            diagnostics.parse_list(&key, "from", raw.from, Some(empty), values::parse_net_v4).unwrap_or_default();
        for (index, range) in &from {
            if let Some(earlier) = checked.iter().find(|earlier| earlier.from.contains(range)) {
                let reason = format!("{range} is also in {}.from; write it into one block", earlier.key);
                diagnostics.error(format!("{key}.from[{index}]"), reason);
            }
        }
        let pool = nat::check_pool(&key, "addresses", raw.addresses, private, diagnostics).unwrap_or_default();
        checked.push(CheckedEgress { key, from: from.into_iter().map(|(_, range)| range).collect(), pool });
    }
    checked
}

/// Reports hosts of `[[network.egress]]` that are not in the block's network, as far as the file alone tells.
fn check_hosts_are_inside(network: &CheckedNetwork, diagnostics: &mut Diagnostics) {
    let Some(whole) = network.range else { return };
    let is_inside = |range: &Ipv4Net| whole.contains(range) || network.also.iter().any(|also| also.contains(range));
    for entry in &network.egress {
        for range in entry.from.iter().filter(|range| !is_inside(range) && is_private(**range)) {
            // A route of the cloud may deliver it: then it is behind the network, which only the server knows.
            let reason = format!(
                "{range} is outside {whole} ({}.range) and its `also`; it counts only if a route of \
                                  the Hetzner Network leads there",
                network.key
            );
            diagnostics.warn(format!("{}.from", entry.key), reason);
        }
        for range in entry.from.iter().filter(|range| !is_inside(range) && !is_private(**range)) {
            let reason = format!("{range} is outside {whole} ({}.range) and its `also`", network.key);
            diagnostics.error(format!("{}.from", entry.key), reason);
        }
    }
}

/// Reports each interface that an earlier block names too.
fn check_interfaces_differ(networks: &[CheckedNetwork], diagnostics: &mut Diagnostics) {
    let mut first: BTreeMap<&InterfaceName, &str> = BTreeMap::new();
    for CheckedNetwork { key, interface, .. } in networks {
        let Some(interface) = interface else { continue };
        match first.get(interface) {
            Some(earlier) => {
                let reason = format!("{interface} is also {earlier}.interface; write one block for each network");
                diagnostics.error(format!("{key}.interface"), reason);
            }
            None => _ = first.insert(interface, key),
        }
    }
}

/// Reports each range that overlaps an earlier one in the file.
fn check_ranges_are_disjoint(networks: &[CheckedNetwork], diagnostics: &mut Diagnostics) {
    let mut ranges: Vec<_> =
        networks.iter().enumerate().filter_map(|(index, network)| Some((network.range?, index))).collect();
    // Wider ranges first: then only the last kept range can overlap the next one.
    ranges.sort_by_key(|&(range, index)| (range.network(), range.prefix_len(), index));
    let mut widest: Option<(Ipv4Net, usize)> = None;
    for (range, index) in ranges {
        match widest.filter(|&(wider, _)| overlap(wider, range)) {
            None => widest = Some((range, index)),
            Some((wider, other)) => {
                let ((here, at), (there, earlier)) =
                    if index > other { ((range, index), (wider, other)) } else { ((wider, other), (range, index)) };
                let (key, earlier) = (&networks[at].key, &networks[earlier].key);
                let reason = if here == there {
                    format!("{here} is also {earlier}.range; write one block for each network")
                } else {
                    format!("{here} overlaps {there} ({earlier}.range); write one block for each network")
                };
                diagnostics.error(format!("{key}.range"), reason);
            }
        }
    }
}
