//! The account of ports and of the table.

use std::time::Duration;

use tokio::time::Instant;

use super::super::port_use::{PORTS, is_due};
use super::*;

fn share(destination: &str, port: u16) -> Share {
    Share { egress_address: read("198.51.100.2"), destination: read(destination), port, protocol: TCP }
}

/// Flows of private hosts to one destination.
fn flows_to(destination: &str, count: u32) -> impl Iterator<Item = Flow> + use<> {
    let flow = masqueraded(&format!("tcp 10.0.0.4:4000 {destination}"), "198.51.100.2:5000");
    std::iter::repeat_n(flow, count as usize)
}

fn counted(flows: impl Iterator<Item = Flow>) -> PortReport {
    let mut count = Count::default();
    flows.for_each(|flow| count.see(&flow));
    count.finish(7)
}

#[test]
fn the_busiest_destinations_are_named_and_only_what_is_translated_counts() {
    let few = (1..=20_u16).flat_map(|number| flows_to(&format!("203.0.113.9:{number}"), number.into()));
    let untranslated =
        [flow("tcp 10.100.0.2:4000 10.0.0.4:80"), masqueraded("icmp 10.0.0.4 1.1.1.1", "198.51.100.2:1")];
    let report = counted(few.chain(untranslated));
    let expected: Vec<PortUse> = (11..=20)
        .rev()
        .map(|port| PortUse { share: share("203.0.113.9", port), used: port.into(), of: PORTS })
        .collect();
    assert_eq!(report, PortReport { counted_unix: 7, busiest: expected, others: 0 });
    assert_eq!(report.problems().count(), 0);
}

#[test]
fn a_hairpin_flow_uses_the_ports_towards_the_private_host() {
    let mut hairpin = redirected("tcp 10.0.0.9:4000 198.51.100.2:443", "10.0.0.4:8443");
    hairpin.reply.destination = read("10.0.0.2");
    hairpin.status = hairpin.status | Status::SRC_NAT;
    let report = counted([hairpin].into_iter());
    let share = Share { egress_address: read("10.0.0.2"), ..share("10.0.0.4", 8443) };
    assert_eq!(report.busiest, [PortUse { share, used: 1, of: PORTS }]);
}

#[test]
fn from_four_fifths_on_it_is_told_in_the_same_words_while_it_lasts() {
    let fifth = PORTS / 5;
    let told = |used: u32| -> Vec<String> {
        counted(flows_to("203.0.113.9:443", used)).problems().map(|problem| problem.what).collect()
    };
    assert!(told(fifth * 4).is_empty());
    let words = "80 % or more of the 64512 ports from 198.51.100.2 to 203.0.113.9:443 (tcp) are in use";
    assert_eq!(told(fifth * 4 + 2), [words]);
    assert_eq!(told(PORTS), [words]);
}

#[test]
fn destinations_beyond_the_bound_are_counted_together() {
    let many = (0..70_000_u32).flat_map(|number| {
        let mut flow = masqueraded("udp 10.0.0.4:4000 203.0.113.9:53", "198.51.100.2:5000");
        flow.reply.source = std::net::Ipv4Addr::from_bits(0xcb00_0000 + number);
        [flow]
    });
    assert_eq!(counted(many).others, 70_000 - 65_536);
}

#[test]
fn ports_are_counted_once_a_minute_and_not_while_there_are_few_flows() {
    let began = Instant::now();
    let after = |seconds| began + Duration::from_secs(seconds);
    assert!(!is_due(999, None, began));
    assert!(is_due(1000, None, began));
    assert!(!is_due(1_000_000, Some(began), after(59)));
    assert!(is_due(1000, Some(began), after(60)));
    assert!(!is_due(999, Some(began), after(600)));
    // A clock that stood still counts as no time.
    assert!(!is_due(1000, Some(after(5)), began));
}

#[test]
fn a_table_that_is_nearly_full_is_told() {
    let report = |entries, max| FlowsReport { fill: Fill { entries, max }, counters: None, ports: None };
    assert!(report(799, 1000).problems().is_empty());
    assert!(report(0, 0).problems().is_empty());
    let told = report(800, 1000).problems();
    assert_eq!(told.len(), 1);
    assert_eq!(
        told[0].what,
        "the table of flows is filled to 80 % or more of its 1000 (net.netfilter.nf_conntrack_max)"
    );
}

#[test]
fn the_fill_is_read_where_the_kernel_shows_it() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(fill(root.path()), None);
    let directory = root.path().join("net/netfilter");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("nf_conntrack_count"), "12\n").unwrap();
    std::fs::write(directory.join("nf_conntrack_max"), "65536\n").unwrap();
    assert_eq!(fill(root.path()), Some(Fill { entries: 12, max: 65536 }));
}
