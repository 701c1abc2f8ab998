//! The configurations of the test beds.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::addresses::CLIENT;

/// The settings that a bastion without metadata and without a cloud needs.
const SITE: &str = r#"
[site]
public_interface = "eth0"

[[site.private]]
interface = "eth1"
network = "10.0.0.0/16"
address = "10.0.0.2"

[hcloud]
enabled = false
"#;

/// The public port of the first forward; the others follow it.
const FIRST_PORT: u16 = 10_000;

/// The parts of a configuration that may cost time per packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    /// The number of port forwards, of entries of an egress list, and of pairs of tenants.
    pub(crate) entries: u16,
    /// The kind of entries of the egress list.
    pub(crate) denied: Denied,
    /// The limits of a source of flows.
    pub(crate) limits: Limits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// One port of one host per entry.
    Hosts,
    /// A range of ports of a network per entry.
    Networks,
}

/// The limits that are enabled. They are never reached, because their cost is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limits {
    Off,
    /// The limit of new flows per second.
    Rate,
    /// The limits of concurrent flows: those of a source, and the fair shares.
    Count,
    Both,
}

impl Policy {
    pub(crate) const fn with_entries(entries: u16) -> Self {
        Self { entries, denied: Denied::Hosts, limits: Limits::Off }
    }

    pub(crate) const fn limited(limits: Limits) -> Self {
        Self { limits, ..Self::with_entries(0) }
    }

    /// The configuration file.
    pub(crate) fn config(self) -> String {
        let limit = |on| if on { "1000000" } else { "false" };
        let rate = limit(matches!(self.limits, Limits::Rate | Limits::Both));
        let count = limit(matches!(self.limits, Limits::Count | Limits::Both));
        let fair_share = matches!(self.limits, Limits::Count | Limits::Both);
        let deny: String = (0..self.entries).map(|index| self.denied.entry(index)).collect();
        let tenants: String = (0..self.entries).map(tenant_pair).collect();
        format!(
            "{SITE}[egress]\nnew_flows_per_second = {rate}\nmax_flows = {count}\n\
             network_new_flows_per_second = {rate}\n\
             deny = [\n{deny}]\n[tenants]\nallow = [\n{tenants}]\n\
             [firewall]\nsyns_per_second = false\nnew_flows_per_second = {rate}\nmax_flows = {count}\n\
             fair_share = {fair_share}\n{}",
            forwards(self.entries, self.last_port()),
        )
    }

    /// The public port of the last forward, which leads to the client; `None`: there is no forward.
    pub(crate) fn last_port(self) -> Option<u16> {
        (self.entries > 0).then(|| FIRST_PORT + self.entries - 1)
    }
}

/// So many forwards, of which the last one leads from the port `last` to the same port of the client.
pub(crate) fn forwards(count: u16, last: Option<u16>) -> String {
    let mut text = String::new();
    for index in 0..count.saturating_sub(1) {
        let [high, low] = index.to_be_bytes();
        let port = FIRST_PORT + index;
        let _ = writeln!(text, "[[nat.forward]]\nport = {port}\nto = \"10.0.{}.{low}\"\nto_port = 8080", 100 + high);
    }
    if let Some(port) = last {
        let _ = writeln!(text, "[[nat.forward]]\nprotocol = \"both\"\nport = {port}\nto = \"{CLIENT}\"");
    }
    text
}

/// A configuration with forwards only.
pub(crate) fn only_forwards(count: u16, last: Option<u16>) -> String {
    format!("{SITE}{}", forwards(count, last))
}

impl Denied {
    fn entry(self, index: u16) -> String {
        let [high, low] = index.to_be_bytes();
        let protocol = if index % 2 == 0 { "tcp" } else { "udp" };
        let port = 1000 + index % 50_000;
        match self {
            Self::Hosts => {
                let host = Ipv4Addr::new(11, 0, high, low);
                format!("{{ to = [\"{host}\"], protocol = \"{protocol}\", ports = [{port}] }},\n")
            }
            Self::Networks => {
                let network = Ipv4Addr::new(11, high, low, 16);
                format!(
                    "{{ to = [\"{network}/28\"], protocol = \"{protocol}\", ports = [\"{port}-{}\"] }},\n",
                    port + 9
                )
            }
        }
    }
}

fn tenant_pair(index: u16) -> String {
    let [high, low] = index.to_be_bytes();
    format!(
        "{{ from = [\"10.0.{}.{low}\"], to = [\"10.0.{}.{low}\"], protocol = \"tcp\", ports = [5432] }},\n",
        100 + high,
        200 + high
    )
}
