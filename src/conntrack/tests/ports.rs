//! The count of ports in use, and the usage of the table.

use std::time::Duration;

use tokio::time::Instant;

use super::super::observe::observe_usage;
use super::super::port_use::{POOL_SIZE, is_due};
use super::*;

fn pool(destination: &str, port: u16) -> PortPool {
    PortPool { egress_address: read("198.51.100.2"), destination: read(destination), port, protocol: TCP }
}

/// Flows of private hosts to one destination.
fn flows_to(destination: &str, count: u32) -> impl Iterator<Item = Flow> + use<> {
    let flow = masqueraded(&format!("tcp 10.0.0.4:4000 {destination}"), "198.51.100.2:5000");
    std::iter::repeat_n(flow, count as usize)
}

fn count(flows: impl Iterator<Item = Flow>) -> PortReport {
    let mut counter = PortCounter::default();
    flows.for_each(|flow| counter.add(&flow));
    counter.into_report(7, Some(51820))
}

#[test]
fn the_busiest_destinations_are_reported_and_only_translated_flows_count() {
    let few = (1..=20_u16).flat_map(|number| flows_to(&format!("203.0.113.9:{number}"), number.into()));
    let untranslated =
        [flow("tcp 10.100.0.2:4000 10.0.0.4:80"), masqueraded("icmp 10.0.0.4 1.1.1.1", "198.51.100.2:1")];
    let report = count(few.chain(untranslated));
    let expected: Vec<PortUse> = (11..=20)
        .rev()
        .map(|port| PortUse { pool: pool("203.0.113.9", port), used: port.into(), total: POOL_SIZE })
        .collect();
    assert_eq!(report, PortReport { counted_unix: 7, busiest: expected, others: 0 });
    assert_eq!(report.problems().count(), 0);
}

#[test]
fn a_hairpin_flow_uses_the_ports_towards_the_private_host() {
    let mut hairpin = redirected("tcp 10.0.0.9:4000 198.51.100.2:443", "10.0.0.4:8443");
    hairpin.reply.destination = read("10.0.0.2");
    hairpin.status = hairpin.status | Status::SRC_NAT;
    let report = count([hairpin].into_iter());
    let pool = PortPool { egress_address: read("10.0.0.2"), ..pool("10.0.0.4", 8443) };
    assert_eq!(report.busiest, [PortUse { pool, used: 1, total: POOL_SIZE }]);
}

#[test]
fn udp_has_fewer_ports_beside_a_tunnel() {
    let flow = masqueraded("udp 10.0.0.4:4000 203.0.113.9:53", "198.51.100.2:5000");
    assert_eq!(count([flow].into_iter()).busiest[0].total, 50_796);
}

#[test]
fn from_80_percent_on_a_pool_is_a_problem_whose_text_does_not_change() {
    let fifth = POOL_SIZE / 5;
    let problems = |used: u32| -> Vec<String> {
        count(flows_to("203.0.113.9:443", used)).problems().map(|problem| problem.what).collect()
    };
    assert!(problems(fifth * 4).is_empty());
    let words = "80 % or more of the 64512 ports from 198.51.100.2 to 203.0.113.9:443 (tcp) are in use";
    assert_eq!(problems(fifth * 4 + 2), [words]);
    assert_eq!(problems(POOL_SIZE), [words]);
}

#[test]
fn flows_of_too_many_destinations_are_counted_together() {
    let many = (0..70_000_u32).flat_map(|number| {
        let mut flow = masqueraded("udp 10.0.0.4:4000 203.0.113.9:53", "198.51.100.2:5000");
        flow.reply.source = std::net::Ipv4Addr::from_bits(0xcb00_0000 + number);
        [flow]
    });
    assert_eq!(count(many).others, 70_000 - 65_536);
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
    // An earlier time than that of the last count is no interval.
    assert!(!is_due(1000, Some(after(5)), began));
}

#[test]
fn a_nearly_full_table_is_a_problem() {
    let report = |entries, max| FlowsReport {
        usage: ConntrackUsage { entries, max },
        counters: None,
        ports: None,
        unanswered: Vec::new(),
        by_source: None,
    };
    assert!(report(799, 1000).problems().is_empty());
    assert!(report(0, 0).problems().is_empty());
    let problems = report(800, 1000).problems();
    assert_eq!(problems.len(), 1);
    assert_eq!(
        problems[0].what,
        "the connection tracking table is at 80 % or more of its 1000 flows (net.netfilter.nf_conntrack_max)"
    );
}

#[test]
fn the_usage_is_read_from_the_kernels_sysctls() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(observe_usage(root.path()), None);
    let directory = root.path().join("net/netfilter");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("nf_conntrack_count"), "12\n").unwrap();
    std::fs::write(directory.join("nf_conntrack_max"), "65536\n").unwrap();
    assert_eq!(observe_usage(root.path()), Some(ConntrackUsage { entries: 12, max: 65536 }));
}
