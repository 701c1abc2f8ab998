//! `[egress]` and `[[network]]`: what private hosts may reach.

use ipnet::Ipv4Net;

use super::super::findings::Findings;
use super::super::raw::{Entry, RawAcl, RawEgress, RawNetwork};
use super::super::{Egress, EgressLists, NetworkPolicy, values};
use super::acl::{self, Kind};
use super::budget::Budget;
use super::nat::{self, Pool};
use super::private::PrivateNetworks;
use crate::net::overlap;

/// A busy host opens tens of flows a second; one that scans opens thousands.
const DEFAULT_NEW_FLOWS: u32 = 500;
/// A sixteenth of the ports that one address has towards one destination (64 512, `docs/traffic.md`). The double would cost twice
/// as much for each new flow of a host that has so many.
const DEFAULT_MAX_FLOWS: u32 = 4096;
/// The kernel counts a source's flows by walking their list with its new ones (`ct count`): at 7 000 a new one took 0.9 ms.
const SLOW_MAX_FLOWS: u32 = 8192;
/// Mail between servers (RFC 5321 section 4.5.4.2), and what hijacked ones send.
const SMTP: u16 = 25;

pub(super) fn section(raw: RawEgress, budget: &mut Budget, found: &mut Findings) -> Egress {
    found.unknown("egress", &raw.unknown);
    let max_flows = found.read("egress", "max_flows", raw.max_flows, values::limit).unwrap_or(Some(DEFAULT_MAX_FLOWS));
    if let Some(flows) = max_flows.filter(|&flows| flows > SLOW_MAX_FLOWS) {
        let reason = format!(
            "{flows} is much: the kernel walks the list of a source's flows with its new ones, a millisecond at {SLOW_MAX_FLOWS}"
        );
        found.warn("egress.max_flows", reason);
    }
    let lists = lists("egress", (raw.smtp, raw.allow, raw.deny), &EgressLists::default(), budget, found);
    Egress {
        guard: found.field("egress", "guard", raw.guard).unwrap_or(true),
        new_flows_per_second: found
            .read("egress", "new_flows_per_second", raw.new_flows_per_second, values::limit)
            .unwrap_or(Some(DEFAULT_NEW_FLOWS)),
        max_flows,
        lists,
    }
}

type RawList = Entry<Vec<Entry<RawAcl>>>;

/// The lists of a section; what it does not say is taken from `default`.
fn lists(
    section: &str,
    (smtp, allow, deny): (Entry<bool>, RawList, RawList),
    default: &EgressLists,
    budget: &mut Budget,
    found: &mut Findings,
) -> EgressLists {
    let smtp = found.field(section, "smtp", smtp).unwrap_or(default.smtp);
    let allow = acl::list(section, "allow", allow, Kind::Egress, budget, found);
    match &allow {
        Some(rules) if rules.is_empty() => found.warn(format!("{section}.allow"), "is empty, so nothing may go out"),
        Some(rules) if !smtp && rules.iter().any(|rule| rule.names_tcp(SMTP)) => {
            let reason = format!("names TCP port {SMTP}, which stays closed without {section}.smtp = true");
            found.warn(format!("{section}.allow"), reason);
        }
        Some(_) | None => {}
    }
    let deny = acl::list(section, "deny", deny, Kind::Egress, budget, found);
    EgressLists {
        smtp,
        allow: allow.or_else(|| default.allow.clone()),
        deny: deny.unwrap_or_else(|| default.deny.clone()),
    }
}

/// A `[[network]]` of which some keys may be wrong; the others are still compared with those of other ones.
pub(super) struct CheckedNetwork {
    key: String,
    range: Option<Ipv4Net>,
    pub(super) pool: Option<Pool>,
    lists: EgressLists,
}

impl CheckedNetwork {
    pub(super) fn whole(self) -> Option<NetworkPolicy> {
        let Self { key, range, pool, lists } = self;
        Some(NetworkPolicy { key, range: range?, egress_addresses: pool.map(Pool::into_addresses), lists })
    }
}

/// The `[[network]]` blocks.
pub(super) fn networks(
    blocks: Vec<Entry<RawNetwork>>,
    egress: &EgressLists,
    private: &PrivateNetworks,
    budget: &mut Budget,
    found: &mut Findings,
) -> Vec<CheckedNetwork> {
    let blocks = found.elements("network", blocks);
    let mut network = |(key, raw): (String, RawNetwork)| -> CheckedNetwork {
        found.unknown(&key, &raw.unknown);
        found.needed(&key, "range", &raw.range, "the whole range of a private network");
        CheckedNetwork {
            range: found.read(&key, "range", raw.range, |text: &str| private.network(text)),
            pool: nat::pool(&key, raw.egress_addresses, private, found),
            lists: lists(&key, (raw.smtp, raw.allow, raw.deny), egress, budget, found),
            key,
        }
    };
    let networks: Vec<_> = blocks.into_iter().map(&mut network).collect();
    differ(&networks, found);
    networks
}

/// No address is in two networks.
fn differ(networks: &[CheckedNetwork], found: &mut Findings) {
    let mut ranges: Vec<_> =
        networks.iter().enumerate().filter_map(|(index, network)| Some((network.range?, index))).collect();
    // The wider first: what overlaps a range then is the last one before it that reaches as far.
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
                    format!("{here} is also {earlier}.range")
                } else {
                    format!("{here} overlaps {there}, {earlier}.range")
                };
                found.report(format!("{key}.range"), reason);
            }
        }
    }
}
