//! The kernel's flows, for people.

use comfy_table::CellAlignment::{Left, Right};

use super::table::{Column, format_table};
use crate::conntrack::{ConntrackUsage, FlowCounters, FlowsReport, PortUse};

/// How full the flow table is, what failed, and the destinations to which most ports are in use.
pub(super) fn format_flows(flows: &FlowsReport) -> String {
    let ConntrackUsage { entries, max } = flows.usage;
    let counters = flows.counters.map_or_else(String::new, |counters| {
        let FlowCounters { insert_failed, dropped, early_dropped } = counters;
        format!(", {insert_failed} failed, {dropped} dropped, {early_dropped} evicted")
    });
    let mut text = format!("\nFLOWS {entries} / {max} ({} %){counters}\n", percent(entries, max));
    let Some(ports) = &flows.ports else { return text };
    let mut rows: Vec<[String; 3]> = ports.busiest.iter().map(port_row).collect();
    if ports.others > 0 {
        rows.push([ports.others.to_string(), String::new(), "flows to destinations that were not counted".to_owned()]);
    }
    if !rows.is_empty() {
        let columns = [
            Column("PORTS IN USE", Right, 13),
            Column("", Right, 5),
            Column("FROM ONE ADDRESS TO ONE DESTINATION", Left, 0),
        ];
        text.push_str(&format_table(&columns, rows));
    }
    text
}

fn port_row(PortUse { pool, used, total }: &PortUse) -> [String; 3] {
    let percent = percent(u64::from(*used), u64::from(*total));
    [format!("{used} / {total}"), format!("{percent} %"), pool.to_string()]
}

fn percent(part: u64, whole: u64) -> u64 {
    part.saturating_mul(100) / whole.max(1)
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
FLOWS 51700 / 262144 (19 %), 3 failed, 2 dropped, 1 evicted
 PORTS IN USE         FROM ONE ADDRESS TO ONE DESTINATION
51609 / 64512   79 %  198.51.100.2 to 203.0.113.9:443 (tcp)
   12 / 64512    0 %  198.51.100.2 to 203.0.113.9:53 (udp)
            5         flows to destinations that were not counted
";
        assert_eq!(format_flows(&flows), expected);
        (flows.counters, flows.ports) = (None, None);
        assert_eq!(format_flows(&flows), "\nFLOWS 51700 / 262144 (19 %)\n");
    }
}
