//! What was dropped, and of whom, as a person likes to read it.

use std::cmp::Reverse;
use std::fmt::Write as _;

use super::show::span;
use crate::nat::{Ban, FirewallReport, Sources};

/// What the counters of drops begin with.
const DROPPED: &str = "dropped_";

/// The drops by reason, the sources of some, and who is banned.
pub(super) fn table(firewall: &FirewallReport) -> String {
    let mut text = String::new();
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{arguments}");
    };
    let dropped =
        firewall.counters.iter().filter_map(|(name, count)| Some((name.strip_prefix(DROPPED)?, count.packets)));
    let mut dropped: Vec<(&str, u64)> = dropped.filter(|(_, packets)| *packets > 0).collect();
    dropped.sort_by_key(|(reason, packets)| (Reverse(*packets), *reason));
    let by_reason: Vec<String> = dropped.iter().map(|(reason, packets)| format!("{packets} {reason}")).collect();
    let sum: u64 = dropped.iter().fold(0, |sum, (_, packets)| sum.saturating_add(*packets));
    let colon = if sum > 0 { ": " } else { "" };
    line(format_args!("\nFIREWALL {sum} packets dropped{colon}{}", by_reason.join(", ")));
    let kinds = [
        (&firewall.scanning, "calls on addresses that nobody has on the internet: a scan"),
        (&firewall.over_new_flows, "opens too many flows a second"),
        (&firewall.over_flows, "has too many flows"),
    ];
    if kinds.iter().any(|(sources, _)| !sources.busiest.is_empty()) {
        line(format_args!("{:<18} {:>10} {:>12}  WHY, WITHIN THE LAST HOUR", "SOURCE", "DROPPED", "LAST"));
    }
    for (Sources { busiest, more }, why) in kinds {
        for source in busiest {
            let last = source.seconds_ago.map_or_else(|| "-".to_owned(), |seconds| format!("{} ago", span(seconds)));
            line(format_args!("{:<18} {:>10} {last:>12}  {why}", source.address.to_string(), source.packets));
        }
        if *more > 0 {
            line(format_args!("and {more} more: {why}"));
        }
    }
    let banned = &firewall.banned;
    if !banned.longest.is_empty() {
        line(format_args!("{:<28} FOR ANOTHER", "BANNED FROM SSH"));
    }
    for Ban { source, seconds_left } in &banned.longest {
        let source = if source.prefix_len() == 32 { source.addr().to_string() } else { source.to_string() };
        let left = seconds_left.map_or_else(|| "time without end".to_owned(), span);
        line(format_args!("{source:<28} {left}"));
    }
    if banned.more > 0 {
        line(format_args!("and {} more", banned.more));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::{Bans, Count, Source};

    #[test]
    fn the_busiest_reasons_and_sources_come_first() {
        let count = |name: &str, packets| (name.to_owned(), Count { packets, bytes: packets * 60 });
        let source =
            |address: &str, packets| Source { address: address.parse().unwrap(), packets, seconds_ago: Some(packets) };
        let ban = |source: &str, seconds_left| Ban { source: source.parse().unwrap(), seconds_left };
        let firewall = FirewallReport {
            counters: [
                count("dropped_banned", 0),
                count("dropped_input", 7),
                count("dropped_unroutable", 1200),
                count("egress_flows", 99),
            ]
            .into(),
            scanning: Sources { busiest: vec![source("10.0.0.4", 1150), source("10.0.1.5", 50)], more: 3 },
            over_new_flows: Sources::default(),
            over_flows: Sources { busiest: vec![source("10.2.0.4", 2)], more: 0 },
            banned: Bans { longest: vec![ban("192.0.2.7/32", None), ban("2001:db8:1:2::/64", Some(599))], more: 12 },
        };
        let expected = "
FIREWALL 1207 packets dropped: 1200 unroutable, 7 input
SOURCE                DROPPED         LAST  WHY, WITHIN THE LAST HOUR
10.0.0.4                 1150   19 min ago  calls on addresses that nobody has on the internet: a scan
10.0.1.5                   50     50 s ago  calls on addresses that nobody has on the internet: a scan
and 3 more: calls on addresses that nobody has on the internet: a scan
10.2.0.4                    2      2 s ago  has too many flows
BANNED FROM SSH              FOR ANOTHER
192.0.2.7                    time without end
2001:db8:1:2::/64            9 min
and 12 more
";
        assert_eq!(table(&firewall), expected);
        assert_eq!(table(&FirewallReport::default()), "\nFIREWALL 0 packets dropped\n");
    }
}
