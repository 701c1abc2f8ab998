//! The flows as a person likes to read them.

use std::fmt::Write as _;

use crate::conntrack::{ConntrackUsage, FlowCounters, FlowsReport, PortUse};

/// How full the table is, what could not be, and the destinations to which most ports are in use.
pub(super) fn table(flows: &FlowsReport) -> String {
    let mut text = String::new();
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{arguments}");
    };
    let ConntrackUsage { entries, max } = flows.usage;
    let counters = flows.counters.map_or_else(String::new, |counters| {
        let FlowCounters { insert_failed, dropped, early_dropped } = counters;
        format!("; {insert_failed} found no place, {dropped} dropped, {early_dropped} dropped for others")
    });
    line(format_args!("\nFLOWS {entries} of {max}{counters}"));
    let Some(ports) = &flows.ports else { return text };
    if !ports.busiest.is_empty() {
        line(format_args!("{:>15} {:>5}  FROM ONE ADDRESS TO ONE DESTINATION", "PORTS IN USE", ""));
    }
    for PortUse { pool, used, total } in &ports.busiest {
        let percent = u64::from(*used) * 100 / u64::from(*total).max(1);
        line(format_args!("{used:>6} of {total:>5} {percent:>4} %  {pool}"));
    }
    if ports.others > 0 {
        line(format_args!("and {} flows to destinations that were not counted one by one", ports.others));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::{PortPool, PortReport};

    #[test]
    fn the_table_says_how_full_it_is_and_where_ports_run_short() {
        let pool = |port, protocol| PortPool {
            egress_address: "198.51.100.2".parse().unwrap(),
            destination: "203.0.113.9".parse().unwrap(),
            port,
            protocol,
        };
        let busiest = vec![
            PortUse { pool: pool(443, 6), used: 51_609, total: 64_512 },
            PortUse { pool: pool(53, 17), used: 12, total: 64_512 },
        ];
        let mut flows = FlowsReport {
            usage: ConntrackUsage { entries: 51_700, max: 262_144 },
            counters: Some(FlowCounters { insert_failed: 3, dropped: 2, early_dropped: 1 }),
            ports: Some(PortReport { counted_unix: 7, busiest, others: 5 }),
        };
        let expected = "
FLOWS 51700 of 262144; 3 found no place, 2 dropped, 1 dropped for others
   PORTS IN USE        FROM ONE ADDRESS TO ONE DESTINATION
 51609 of 64512   79 %  198.51.100.2 to 203.0.113.9:443 (tcp)
    12 of 64512    0 %  198.51.100.2 to 203.0.113.9:53 (udp)
and 5 flows to destinations that were not counted one by one
";
        assert_eq!(table(&flows), expected);
        (flows.counters, flows.ports) = (None, None);
        assert_eq!(table(&flows), "\nFLOWS 51700 of 262144\n");
    }
}
