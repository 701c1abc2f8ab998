//! What the rules dropped, and from whom, for people.

use std::cmp::Reverse;

use comfy_table::CellAlignment::{Left, Right};

use super::table::{Column, format_span, format_table};
use crate::nat::{Ban, FirewallReport, Sources};

/// Names of drop counters begin with this.
const DROPPED: &str = "dropped_";

/// The drops by reason, the sources of some of them, and who is banned.
pub(super) fn format_firewall(firewall: &FirewallReport) -> String {
    let mut text = format!("\nFIREWALL {}\n", format_drops(firewall));
    let kinds = [
        (&firewall.scanning, "scans: sends to addresses that do not exist on the internet"),
        (&firewall.over_new_flows, "opens too many flows a second"),
        (&firewall.over_flows, "has too many flows"),
        (&firewall.over_ssh, "opens too many SSH connections to this server"),
        (&firewall.refused_peers, "a peer whose lists do not allow them"),
    ];
    let mut rows = Vec::new();
    for (Sources { busiest, more }, why) in kinds {
        for source in busiest {
            let last =
                source.seconds_ago.map_or_else(|| "-".to_owned(), |seconds| format!("{} ago", format_span(seconds)));
            let who = source.name.clone().unwrap_or_else(|| source.address.to_string());
            rows.push([who, source.packets.to_string(), last, why.to_owned()]);
        }
        if *more > 0 {
            rows.push([format!("{more} more"), String::new(), String::new(), why.to_owned()]);
        }
    }
    if !rows.is_empty() {
        let columns = [
            Column("SOURCE", Left, 15),
            Column("DROPPED", Right, 10),
            Column("LAST", Right, 10),
            Column("WHY, IN THE LAST HOUR", Left, 0),
        ];
        text.push_str(&format_table(&columns, rows));
    }
    let banned = &firewall.banned;
    let mut rows: Vec<[String; 2]> = banned.longest.iter().map(ban_row).collect();
    if banned.more > 0 {
        rows.push([format!("{} more", banned.more), String::new()]);
    }
    if !rows.is_empty() {
        text.push_str(&format_table(&[Column("BANNED FROM SSH", Left, 25), Column("FOR ANOTHER", Left, 0)], rows));
    }
    text
}

/// `7 packets dropped: 4 input, 3 unroutable`
fn format_drops(firewall: &FirewallReport) -> String {
    let dropped =
        firewall.counters.iter().filter_map(|(name, count)| Some((name.strip_prefix(DROPPED)?, count.packets)));
    let mut dropped: Vec<(&str, u64)> = dropped.filter(|(_, packets)| *packets > 0).collect();
    dropped.sort_by_key(|(reason, packets)| (Reverse(*packets), *reason));
    let sum: u64 = dropped.iter().fold(0, |sum, (_, packets)| sum.saturating_add(*packets));
    let by_reason: Vec<String> = dropped.iter().map(|(reason, packets)| format!("{packets} {reason}")).collect();
    let colon = if by_reason.is_empty() { "" } else { ": " };
    format!("{sum} packets dropped{colon}{}", by_reason.join(", "))
}

fn ban_row(Ban { source, seconds_left }: &Ban) -> [String; 2] {
    let source = if source.prefix_len() == 32 { source.addr().to_string() } else { source.to_string() };
    [source, seconds_left.map_or_else(|| "no time limit".to_owned(), format_span)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::{Bans, Count, Source};

    #[test]
    fn the_busiest_reasons_and_sources_come_first() {
        let count = |name: &str, packets| (name.to_owned(), Count { packets, bytes: packets * 60 });
        let source = |address: &str, packets| Source {
            address: address.parse().unwrap(),
            name: None,
            packets,
            seconds_ago: Some(packets),
        };
        let alice = Source { name: Some("alice".to_owned()), ..source("10.100.0.2", 3) };
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
            over_ssh: Sources { busiest: vec![source("10.0.0.9", 7)], more: 0 },
            refused_peers: Sources { busiest: vec![alice], more: 0 },
            banned: Bans { longest: vec![ban("192.0.2.7/32", None), ban("2001:db8:1:2::/64", Some(599))], more: 12 },
        };
        let expected = "
FIREWALL 1207 packets dropped: 1200 unroutable, 7 input
SOURCE              DROPPED        LAST  WHY, IN THE LAST HOUR
10.0.0.4               1150  19 min ago  scans: sends to addresses that do not exist on the internet
10.0.1.5                 50    50 s ago  scans: sends to addresses that do not exist on the internet
3 more                                   scans: sends to addresses that do not exist on the internet
10.2.0.4                  2     2 s ago  has too many flows
10.0.0.9                  7     7 s ago  opens too many SSH connections to this server
alice                     3     3 s ago  a peer whose lists do not allow them
BANNED FROM SSH            FOR ANOTHER
192.0.2.7                  no time limit
2001:db8:1:2::/64          9 min
12 more
";
        assert_eq!(format_firewall(&firewall), expected);
        assert_eq!(format_firewall(&FirewallReport::default()), "\nFIREWALL 0 packets dropped\n");
    }
}
