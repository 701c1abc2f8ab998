//! The kernel's flows, for people.

use comfy_table::CellAlignment::{Left, Right};

use super::table::{Column, format_table};
use crate::conntrack::{
    BusySource, ConntrackUsage, FlowCount, FlowCounters, FlowsReport, LimitReason, PortUse, UnansweredForward,
};

/// How full the flow table is, what failed, and the destinations to which most ports are in use.
pub(super) fn format_flows(flows: &FlowsReport) -> String {
    let ConntrackUsage { entries, max } = flows.usage;
    let counters = flows.counters.map_or_else(String::new, |counters| {
        let FlowCounters { insert_failed, dropped, early_dropped } = counters;
        format!(", {insert_failed} failed, {dropped} dropped, {early_dropped} evicted")
    });
    let mut text = format!("\nFLOWS {entries} / {max} ({} %){counters}\n", percent(entries, max));
    text.push_str(&flows.by_source.as_ref().map_or_else(String::new, format_sources));
    text.push_str(&format_unanswered(&flows.unanswered));
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

/// Who has most of the flows, and who may open no more.
fn format_sources(count: &FlowCount) -> String {
    let row = |source: &BusySource| {
        let limited = match source.limited {
            None => "",
            Some(LimitReason::Limit) => "opens no more: it has as many as one source may",
            Some(LimitReason::Share) => "opens no more: the table is more than half full, and it has its share",
        };
        [source.flows.to_string(), source.source.to_string(), source.who.clone(), limited.to_owned()]
    };
    let mut rows: Vec<[String; 4]> = count.busiest.iter().map(row).collect();
    let shown = count.busiest.iter().filter(|source| source.limited.is_some()).count();
    let more = count.limited.saturating_sub(u64::try_from(shown).unwrap_or_default());
    if more > 0 {
        rows.push([String::new(), format!("{more} more"), String::new(), "open no more".to_owned()]);
    }
    for link in &count.closed {
        let closed = "lets no more in: the table is three quarters full".to_owned();
        rows.push([String::new(), link.to_string(), String::new(), closed]);
    }
    if rows.is_empty() {
        return String::new();
    }
    let columns =
        [Column("ABOUT", Right, 8), Column("FLOWS FROM", Left, 15), Column("WHO", Left, 20), Column("LIMIT", Left, 0)];
    format_table(&columns, rows)
}

/// The forwards and static addresses whose hosts did not answer every flow.
fn format_unanswered(unanswered: &[UnansweredForward]) -> String {
    if unanswered.is_empty() {
        return String::new();
    }
    let row = |forward: &UnansweredForward| {
        let others = if forward.others_answered { "; others were answered" } else { "" };
        [forward.unanswered.to_string(), format!("{} ({}){others}", forward.name, forward.path)]
    };
    let columns = [Column("UNANSWERED", Right, 10), Column("IN THE LAST 5 MINUTES", Left, 0)];
    format_table(&columns, unanswered.iter().map(row).collect())
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
        let unanswered = |name: &str, path: &str, unanswered, others_answered| UnansweredForward {
            name: name.to_owned(),
            path: path.to_owned(),
            unanswered,
            others_answered,
            is_problem: false,
        };
        let busy = |source: &str, who: &str, flows, limited| BusySource {
            source: source.parse().unwrap(),
            who: who.to_owned(),
            flows,
            limited,
        };
        let busiest = vec![
            PortUse { pool: pool(443, 6), used: 51_609, total: 64_512 },
            PortUse { pool: pool(53, 17), used: 12, total: 64_512 },
        ];
        let mut flows = FlowsReport {
            usage: ConntrackUsage { entries: 51_700, max: 262_144 },
            counters: Some(FlowCounters { insert_failed: 3, dropped: 2, early_dropped: 1 }),
            ports: Some(PortReport { counted_unix: 7, busiest, others: 5 }),
            unanswered: vec![
                unanswered("nat.forward \"web\"", "tcp 443 to 10.0.0.4:8443", 12, false),
                unanswered("nat.static[0]", "udp, 203.0.113.51 to 10.0.0.7", 1, true),
            ],
            by_source: Some(FlowCount {
                busiest: vec![
                    busy("10.0.0.4", "private host, eth1", 4128, Some(LimitReason::Limit)),
                    busy("203.0.113.9", "internet", 3000, Some(LimitReason::Share)),
                    busy("10.100.0.2", "peer anna", 12, None),
                ],
                sources: 9,
                limited: 3,
                closed: vec!["eth0".parse().unwrap()],
                ..FlowCount::default()
            }),
        };
        let expected = r#"
FLOWS 51700 / 262144 (19 %), 3 failed, 2 dropped, 1 evicted
   ABOUT  FLOWS FROM       WHO                   LIMIT
    4128  10.0.0.4         private host, eth1    opens no more: it has as many as one source may
    3000  203.0.113.9      internet              opens no more: the table is more than half full, and it has its share
      12  10.100.0.2       peer anna
          1 more                                 open no more
          eth0                                   lets no more in: the table is three quarters full
UNANSWERED  IN THE LAST 5 MINUTES
        12  nat.forward "web" (tcp 443 to 10.0.0.4:8443)
         1  nat.static[0] (udp, 203.0.113.51 to 10.0.0.7); others were answered
 PORTS IN USE         FROM ONE ADDRESS TO ONE DESTINATION
51609 / 64512   79 %  198.51.100.2 to 203.0.113.9:443 (tcp)
   12 / 64512    0 %  198.51.100.2 to 203.0.113.9:53 (udp)
            5         flows to destinations that were not counted
"#;
        assert_eq!(format_flows(&flows), expected);
        (flows.counters, flows.ports, flows.unanswered, flows.by_source) = (None, None, Vec::new(), None);
        assert_eq!(format_flows(&flows), "\nFLOWS 51700 / 262144 (19 %)\n");
    }
}
