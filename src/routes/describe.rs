//! What the component found, in an operator's words.

use std::collections::BTreeSet;

use super::model::{Desired, RangeBehind};
use super::plan::{Conflict, Plan};
use crate::outcome::Problem;

/// How many ranges a line of the status names before it counts the rest.
const SHOWN_RANGES: usize = 3;

/// Wanted destinations that another program routes elsewhere.
pub(super) fn conflicts(plan: &Plan) -> Vec<Problem> {
    let conflicts = plan.changes.conflicts.iter().map(|Conflict { destination, by }| {
        let leads = plan.interface_name(by.interface).map_or_else(|| "nowhere".to_owned(), |name| format!("to {name}"));
        if let Some(range) = plan.behind.iter().find(|range| range.destination == *destination) {
            let what =
                format!("{destination} is not routed to {}: another program's route leads {leads}", range.interface);
            let advice = format!(
                "it is left alone; delete it (ip route del {destination}), or give one of the two \
                                  another range"
            );
            return Problem::new("route-of-other-program", what, advice);
        }
        Problem::new(
            "route-of-other-program",
            format!("{destination} is not routed into the tunnel: another program's route leads {leads}"),
            format!(
                "it is left alone; delete it (ip route del {destination}), or remove {destination} from allowed_ips"
            ),
        )
    });
    let without = plan.changes.without_route.iter().map(|RangeBehind { destination, interface, .. }| {
        let what = format!("no route leads to {destination}, which is behind {interface}");
        Problem::new(
            "range-behind-unrouted",
            what,
            format!("add it: ip route add {destination} via ROUTER dev {interface}, and at every boot"),
        )
    });
    conflicts.chain(without).collect()
}

/// Addresses that another program put on the tunnel's interface. They do no harm.
pub(super) fn unknown_addresses(plan: &Plan) -> Vec<Problem> {
    let interface = plan.desired.as_ref().map_or_else(String::new, |desired| desired.interface.to_string());
    let unknown = plan.changes.unknown_addresses.iter().map(|address| {
        Problem::new(
            "address-of-other-program",
            format!("{interface} has the address {address}, which the configuration does not name"),
            format!("it is left alone; ip address del {address} dev {interface}, or add it to wireguard.addresses"),
        )
    });
    unknown.collect()
}

/// `wg0 10.100.0.1/24; routes to 192.168.178.0/24; 10.8.0.0/24 behind eth1; probes by eth1`
pub(super) fn all_standing(
    desired: Option<&Desired>,
    behind: &BTreeSet<RangeBehind>,
    probes: &BTreeSet<RangeBehind>,
) -> String {
    let links: Vec<String> = probes.iter().map(|probe| probe.interface.to_string()).collect();
    let probes = (!links.is_empty()).then(|| format!("probes by {}", links.join(", ")));
    let ranges = behind.iter().take(SHOWN_RANGES);
    let ranges = ranges.map(|range| format!("{} behind {}", range.destination, range.interface));
    let more = behind.len().saturating_sub(SHOWN_RANGES);
    let more = (more > 0).then(|| format!("{more} more"));
    desired.map(standing).into_iter().chain(ranges).chain(more).chain(probes).collect::<Vec<_>>().join("; ")
}

/// `wg0 10.100.0.1/24; routes to 192.168.178.0/24`
pub(super) fn standing(desired: &Desired) -> String {
    let addresses: Vec<String> = desired.addresses.iter().map(ToString::to_string).collect();
    let addresses = if addresses.is_empty() { "no address".to_owned() } else { addresses.join(", ") };
    let count = desired.destinations.len();
    let shown: Vec<String> = desired.destinations.iter().take(SHOWN_RANGES).map(ToString::to_string).collect();
    let more = if count > SHOWN_RANGES { format!(" and {} more", count - SHOWN_RANGES) } else { String::new() };
    let routes = if shown.is_empty() { String::new() } else { format!("; routes to {}{more}", shown.join(", ")) };
    format!("{} {addresses}{routes}", desired.interface)
}
